"""The file ``ml-1m.txt`` of SASRec, BERT4Rec and gSASRec, joined with MovieLens-1M.

It lists ``user item`` in its authors' own numbering and order, without times. Two small maps lead
back to MovieLens ids, and since a user rates a movie once, every row has exactly one rating. Joined
so, its order turns out to be (time, row of ``ratings.dat``) for every user: a test holds that.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from tgrec.data import TemporalRecGraph
from tgrec.datasets._fetch import DataFileError, DatasetNotFound, RawFile, find_file, get_file
from tgrec.datasets._movielens_files import ML_1M_SASREC, Tables, tables_1m, to_graph
from tgrec.datasets._read import check_known, read_integers

_MAPS = ("sas_to_original_users.txt", "sas_to_original_items.txt")


def sasrec_files(
    root: str | os.PathLike[str] | None, get_1m: Callable[[str], RawFile], verify: bool
) -> tuple[RawFile, list[RawFile]]:
    """The file itself, and, where all are there, the two maps and the three files of ML-1M.

    Warns if they are not: the order is then all that is known.
    """
    rows = get_file(ML_1M_SASREC, "ml-1m.txt", root, download=False, verify=verify)
    maps = [find_file(ML_1M_SASREC, name, root, verify) for name in _MAPS]
    try:
        files = [file for file in maps if file is not None]
        if len(files) < len(_MAPS):
            raise DatasetNotFound(f"the maps {' and '.join(_MAPS)}")
        files += [get_1m(name) for name in ("ratings.dat", "movies.dat", "users.dat")]
    except DatasetNotFound as error:
        warnings.warn(
            f"ml-1m.txt is read without times, ratings and titles, as an order only: it cannot be "
            f"joined with MovieLens-1M, for this is missing: {error}",
            UserWarning,
            stacklevel=3,
        )
        files = []
    return rows, files


def sasrec_graph(rows: RawFile, files: list[RawFile]) -> TemporalRecGraph:
    """The graph of the file; without ``files`` it has neither times nor features."""
    events = read_integers(rows, b" ", ("user_id", "item_id"))
    if not files:
        return TemporalRecGraph.from_pandas(events, time=None)
    tables = tables_1m(*files[2:])
    user_map = _read_map(files[0], tables.users["user_id"])
    item_map = _read_map(files[1], tables.items["item_id"])
    original = {
        "user_id": events["user_id"].map(user_map.set_index("sas")["original"]),
        "item_id": events["item_id"].map(item_map.set_index("sas")["original"]),
    }
    pair = ["user_id", "item_id"]
    double = np.flatnonzero(tables.events.duplicated(pair))
    if double.size:
        raise DataFileError(
            f"{files[2].path}, line {double[0] + 1}: this user rated this movie before "
            f"({double.size} such lines), so rows of {rows.path} cannot be told apart"
        )
    joined = pd.DataFrame(original).merge(tables.events, on=pair, how="left")
    missing = np.flatnonzero(joined["timestamp"].isna())
    if missing.size:
        raise DataFileError(
            f"{rows.path}, line {missing[0] + 1}: {files[2].path} has no such rating "
            f"({missing.size} such lines); the maps or files are not of the same release"
        )
    events["rating"] = joined["rating"].astype("int64")
    events["timestamp"] = joined["timestamp"].astype("int64")
    back = events.groupby("user_id", sort=False)["timestamp"].diff() < 0
    if back.any():
        raise DataFileError(
            f"{rows.path}, line {np.flatnonzero(back)[0] + 1}: the time goes backwards within a "
            f"user ({int(back.sum())} such lines), so its order is not one of time"
        )
    users = _renamed(tables.users, user_map, "user_id")
    items = _renamed(tables.items.assign(row=range(len(tables.items))), item_map, "item_id")
    genre = tables.genre[items["row"].to_numpy()]
    return to_graph(Tables(events, users, items.drop(columns="row"), genre))


def _read_map(raw: RawFile, known: pd.Series) -> pd.DataFrame:
    """A map ``sas`` -> ``original``, one to one."""
    ids = read_integers(raw, b" ", ("sas", "original"))
    check_known(raw, ids["original"], known, "MovieLens-1M")
    double = np.flatnonzero(ids["sas"].duplicated() | ids["original"].duplicated())
    if double.size:
        raise DataFileError(
            f"{raw.path}, line {double[0] + 1}: an id stands here a second time ({double.size} "
            f"such lines); the map is one to one, fetch it again"
        )
    return ids


def _renamed(table: pd.DataFrame, ids: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a table for the ids of the SASRec file, in their order."""
    ids = ids.sort_values("sas", kind="stable")
    rows = table.set_index(name).loc[ids["original"]].reset_index(names="movielens_id")
    named: pd.DataFrame = rows.assign(**{name: ids["sas"].to_numpy()})
    return named
