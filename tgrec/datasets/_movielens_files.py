"""The published MovieLens files: where they come from, their codes, and their three tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tgrec.data import TemporalRecGraph
from tgrec.datasets._fetch import RawFile, Source
from tgrec.datasets._read import (
    check_known,
    check_range,
    code,
    integer,
    read_integers,
    read_records,
    year_of,
)

ML_1M = Source(
    name="ml-1m",
    url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
    size=5_917_549,
    md5="c4d9eecfca2ab87c1945afe126590906",
    sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    files={
        "ratings.dat": "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
        "movies.dat": "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9",
        "users.dat": "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3",
    },
)
ML_100K = Source(
    name="ml-100k",
    url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
    size=4_924_029,
    md5="0e33842e24a9c977be4e0107933c0723",
    sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    files={
        "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
        "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
        "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
    },
)
ML_1M_SASREC = Source(
    name="ml-1m-sasrec",
    url=None,
    size=9_053_831,
    md5="f7699aece54d883579ea84535bacdda0",
    sha256="b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
    files={
        "ml-1m.txt": "b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
        "sas_to_original_items.txt": (
            "9ae42c23af0b0fe2f189b9d5acc6cf3936bffe1a9568390cf5d100c0c1b1fca1"
        ),
        "sas_to_original_users.txt": (
            "121893a66ab13fad83a67e12e3b3e6ddc56bcd01f0bcedf2ccb10bd8405e6239"
        ),
    },
    origin=(
        "data/ml-1m.txt of the repository kang205/SASRec (9,053,831 bytes, md5 "
        "f7699aece54d883579ea84535bacdda0) and, for times and titles, "
        "sas_to_original_items.txt and sas_to_original_users.txt of asash/ml1m-sas-mapping"
    ),
)

GENRES_1M = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller",
    "War", "Western",
)  # fmt: skip
GENRES_100K = ("unknown", *GENRES_1M)
"""Columns of ``genre`` in MovieLens-100K, in the order of ``u.genre``."""

GENDERS = ("F", "M")
AGES_1M = (1, 18, 25, 35, 45, 50, 56)
"""The published age codes of MovieLens-1M; the node attribute ``age`` is the position in here."""

AGE_GROUPS_1M = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker",
    "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
OCCUPATIONS_100K = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive",
    "healthcare", "homemaker", "lawyer", "librarian", "marketing", "none", "other",
    "programmer", "retired", "salesman", "scientist", "student", "technician", "writer",
)  # fmt: skip
"""Occupations of MovieLens-100K in the order of ``u.occupation``; codes are positions."""

_EVENT_FIELDS = ("user_id", "item_id", "rating", "timestamp")
_USER_FIELDS = ("user_id", "gender", "age", "occupation")
_ITEM_FIELDS = ("item_id", "title", "year", "genres")
# The releases span 1997-09 to 2003-02; a cut-off or millisecond timestamp falls outside by far.
_TIMES = (800_000_000, 1_100_000_000)
_TIME_HINT = "Unix seconds are expected; in the last line this is a truncated file: fetch it again"


@dataclass(frozen=True)
class Tables:
    """A dataset as tables: E events in file order, U users, N items, and genres ``[N, G]``."""

    events: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame
    genre: NDArray[np.float32]


def tables_1m(ratings: RawFile, movies: RawFile, users: RawFile) -> Tables:
    """Reads the three files of MovieLens-1M."""
    return _tables(
        read_integers(ratings, b"::", _EVENT_FIELDS),
        read_records(users, _user_1m, _USER_FIELDS),
        read_records(movies, _movie_1m, _ITEM_FIELDS),
        ratings,
        len(GENRES_1M),
    )


def tables_100k(data: RawFile, item: RawFile, user: RawFile) -> Tables:
    """Reads the three files of MovieLens-100K."""
    return _tables(
        read_integers(data, b"\t", _EVENT_FIELDS),
        read_records(user, _user_100k, _USER_FIELDS),
        read_records(item, _movie_100k, _ITEM_FIELDS),
        data,
        len(GENRES_100K),
    )


def to_graph(tables: Tables) -> TemporalRecGraph:
    """Users and items in table order, events in the order (time, row)."""
    graph = TemporalRecGraph.from_pandas(
        tables.events, rating="rating", users=tables.users, items=tables.items
    )
    graph["item"].genre = torch.from_numpy(tables.genre)
    return graph


def _tables(
    events: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame, raw: RawFile, num_genres: int
) -> Tables:
    check_range(raw, events["rating"], 1, 5)
    check_range(
        raw,
        events["timestamp"],
        *_TIMES,
        hint="Unix seconds are expected; in the last line: the file is truncated, fetch it again",
    )
    check_known(raw, events["user_id"], users["user_id"], "the table of users")
    check_known(raw, events["item_id"], items["item_id"], "the table of items")
    genre = np.zeros((len(items), num_genres), dtype=np.float32)
    for row, codes in enumerate(items["genres"]):
        genre[row, list(codes)] = 1.0
    return Tables(events, users, items.drop(columns="genres"), genre)


def _movie_1m(line: str) -> tuple[Any, ...]:
    # Titles may hold '::'; the id before and the genres after cannot, so the middle is the title.
    first, _, rest = line.partition("::")
    title, separator, genres = rest.rpartition("::")
    if not separator:
        raise ValueError("3 fields (item::title::genres) expected")
    codes = tuple(code(g, GENRES_1M, "genre") for g in genres.split("|"))
    return integer(first, "item_id"), title.strip(), year_of(title), codes


def _user_1m(line: str) -> tuple[Any, ...]:
    fields = line.split("::")
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} fields, 5 (user::gender::age::occupation::zip) expected")
    user, gender, age, occupation, _ = fields  # the zip code narrows down a person: not kept
    job = integer(occupation, "occupation")
    if job >= len(OCCUPATIONS_1M):
        raise ValueError(f"'occupation' is {job}, 0..{len(OCCUPATIONS_1M) - 1} expected")
    group = code(age, [str(a) for a in AGES_1M], "age")
    return integer(user, "user_id"), code(gender, GENDERS, "gender"), group, job


def _movie_100k(line: str) -> tuple[Any, ...]:
    fields = line.split("|")
    if len(fields) < 5 + len(GENRES_100K):
        raise ValueError(f"{len(fields)} fields, {5 + len(GENRES_100K)} expected")
    title = "|".join(fields[1 : -3 - len(GENRES_100K)])
    flags = [integer(flag, "genre") for flag in fields[-len(GENRES_100K) :]]
    if max(flags) > 1:
        raise ValueError(f"genre flags are {flags}, 0 or 1 expected")
    codes = tuple(i for i, flag in enumerate(flags) if flag)
    return integer(fields[0], "item_id"), title.strip(), year_of(title), codes


def _user_100k(line: str) -> tuple[Any, ...]:
    fields = line.split("|")
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} fields, 5 (user|age|gender|occupation|zip) expected")
    user, age, gender, occupation, _ = fields  # the zip code narrows down a person: not kept
    job = code(occupation, OCCUPATIONS_100K, "occupation")
    return integer(user, "user_id"), code(gender, GENDERS, "gender"), integer(age, "age"), job
