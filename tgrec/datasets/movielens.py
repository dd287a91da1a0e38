"""MovieLens-1M and MovieLens-100K (Harper and Konstan 2015) as temporal graphs.

Nodes carry, where the release has it: items ``raw_id``, ``title`` (``graph.strings``), ``year``
(int64, 0 where the title has none), ``genre`` (``[N, 18]`` or ``[N, 19]`` float32 multi-hot);
users ``raw_id``, ``gender`` (position in :data:`GENDERS`), ``age`` (1M: position in
:data:`AGES_1M`; 100K: years), ``occupation`` (position in :data:`OCCUPATIONS_1M` or
:data:`OCCUPATIONS_100K`). Zip codes are left out: with age and occupation they point at persons.

Edges ``('user', 'rates', 'item')`` carry ``time``, ``rating`` and ``event_id``: the position in
the order (time, row of the file). Half of a user's adjacent ratings share a second, so this tie
rule decides results.

The licence forbids to redistribute the data, so none of it ships with the library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from tgrec.data import TemporalRecGraph
from tgrec.datasets._fetch import (
    DataFileError,
    RawFile,
    Source,
    data_root,
    get_file,
    user_cache,
)
from tgrec.datasets._movielens_files import (
    AGE_GROUPS_1M,
    AGES_1M,
    GENDERS,
    GENRES_1M,
    GENRES_100K,
    ML_1M,
    ML_100K,
    OCCUPATIONS_1M,
    OCCUPATIONS_100K,
    Tables,
    tables_1m,
    tables_100k,
    to_graph,
)
from tgrec.datasets._sasrec import sasrec_files, sasrec_graph
from tgrec.datasets._store import OneGraph, cached

__all__ = [
    "AGES_1M",
    "AGE_GROUPS_1M",
    "GENDERS",
    "GENRES_100K",
    "GENRES_1M",
    "OCCUPATIONS_100K",
    "OCCUPATIONS_1M",
    "MovieLens1M",
    "MovieLens100K",
    "movielens_1m",
    "movielens_100k",
]

Root = str | os.PathLike[str] | None
Variant1M = Literal["full", "seed", "sasrec"]
Variant100K = Literal["full", "seed"]

CODE_VERSION = 1  # part of the cache key: raise it whenever the same files give another graph
SEED_RATING, SEED_EVENTS = 4, 5  # the filter of the variant "seed"


def movielens_1m(
    root: Root = None,
    variant: Variant1M = "full",
    rated_only: bool = False,
    download: bool = True,
    verify: bool = True,
    cache: bool = True,
) -> TemporalRecGraph:
    """MovieLens-1M: 6,040 users, 3,883 movies (3,706 rated), 1,000,209 ratings of 2000-2003.

    The files are looked for as ``<root>/ml-1m/NAME``, ``<root>/NAME`` and in
    ``<root>/ml-1m.zip``, else the archive is downloaded.

    Args:
        root: Folder with the data; by default ``$TGREC_DATA``, else the user's cache folder.
        variant: ``full``: everything. ``seed``: ratings of 4 and 5 of users with at least 5 of
            them (6,034 users, 3,533 items). ``sasrec``: the file ``ml-1m.txt`` of SASRec, BERT4Rec
            and gSASRec (6,040 x 3,416, 999,611 rows), whose order within a user is kept; node i
            is the file's id i + 1, ``movielens_id`` the published one.
        rated_only: Leaves out items (and users) without events; the other variants always do.
        download: Whether the archive may be downloaded.
        verify: Whether files must have their published checksums.
        cache: Whether the graph is kept in the user's cache folder, if that is writable.

    Raises:
        DatasetNotFound: If the data are nowhere; the message says what to put where.
        ChecksumError: If a file is not the published one.
        DataFileError: If a file cannot be read; the message names the line.
    """
    _check_variant(variant, Variant1M)
    get = _getter(ML_1M, root, download, verify)
    if variant == "sasrec":
        rows, files = sasrec_files(root, get, verify)
        key = ["ml-1m-sasrec", CODE_VERSION, rows.sha256, *(file.sha256 for file in files)]
        return cached(key, _cache_folders(cache), lambda: sasrec_graph(rows, files))
    files = [get("ratings.dat"), get("movies.dat"), get("users.dat")]
    return _variant("ml-1m", files, lambda: tables_1m(*files), variant, rated_only, cache)


def movielens_100k(
    root: Root = None,
    variant: Variant100K = "full",
    rated_only: bool = False,
    download: bool = True,
    verify: bool = True,
    cache: bool = True,
) -> TemporalRecGraph:
    """MovieLens-100K: 943 users, 1,682 movies, 100,000 ratings of 1997-1998.

    As :func:`movielens_1m`, with the files ``u.data``, ``u.item`` and ``u.user`` in ``ml-100k``.
    The variant ``seed`` has 938 users, 1,447 items and 55,361 events.
    """
    _check_variant(variant, Variant100K)
    get = _getter(ML_100K, root, download, verify)
    files = [get("u.data"), get("u.item"), get("u.user")]
    return _variant("ml-100k", files, lambda: tables_100k(*files), variant, rated_only, cache)


class MovieLens1M(OneGraph):
    """MovieLens-1M as a PyG dataset: ``dataset[0]`` is what :func:`movielens_1m` returns."""

    def __init__(
        self,
        root: Root = None,
        variant: Variant1M = "full",
        download: bool = True,
        rated_only: bool = False,
        verify: bool = True,
        cache: bool = True,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        graph = movielens_1m(root, variant, rated_only, download, verify, cache)
        super().__init__(graph, data_root(root), transform)


class MovieLens100K(OneGraph):
    """MovieLens-100K as a PyG dataset: ``dataset[0]`` is what :func:`movielens_100k` returns."""

    def __init__(
        self,
        root: Root = None,
        variant: Variant100K = "full",
        download: bool = True,
        rated_only: bool = False,
        verify: bool = True,
        cache: bool = True,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        graph = movielens_100k(root, variant, rated_only, download, verify, cache)
        super().__init__(graph, data_root(root), transform)


def _check_variant(variant: str, kinds: Any) -> None:
    if variant not in get_args(kinds):
        raise ValueError(f"'variant' needs to be one of {list(get_args(kinds))} (got {variant!r})")


def _getter(source: Source, root: Root, download: bool, verify: bool) -> Callable[[str], RawFile]:
    return lambda name: get_file(source, name, root, download, verify)


def _cache_folders(cache: bool) -> list[Path]:
    # Never the data folder: it may be shared, and somebody else's.
    return [user_cache() / "processed"] if cache else []


def _variant(
    name: str,
    files: list[RawFile],
    read: Callable[[], Tables],
    variant: str,
    rated_only: bool,
    cache: bool,
) -> TemporalRecGraph:
    def build() -> TemporalRecGraph:
        tables = read()
        if variant == "seed":
            tables = _seed_filter(tables, name)
        return to_graph(_only_rated(tables) if rated_only or variant == "seed" else tables)

    hashes = [file.sha256 for file in files]
    key = [f"{name}-{variant}", rated_only, CODE_VERSION, *hashes]
    return cached(key, _cache_folders(cache), build)


def _seed_filter(tables: Tables, name: str) -> Tables:
    liked = tables.events[tables.events["rating"] >= SEED_RATING]
    events = liked[liked.groupby("user_id")["user_id"].transform("size") >= SEED_EVENTS]
    if events.empty:
        raise DataFileError(
            f"{name}: the filter of variant 'seed' leaves nothing: {len(liked)} of "
            f"{len(tables.events)} ratings are >= {SEED_RATING}, and no user has "
            f"{SEED_EVENTS} of them; use variant='full'"
        )
    return Tables(events, tables.users, tables.items, tables.genre)


def _only_rated(tables: Tables) -> Tables:
    users = tables.users["user_id"].isin(tables.events["user_id"]).to_numpy()
    items = tables.items["item_id"].isin(tables.events["item_id"]).to_numpy()
    return Tables(tables.events, tables.users[users], tables.items[items], tables.genre[items])
