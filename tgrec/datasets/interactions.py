"""Anybody's files of interactions -> a temporal graph: CSV, TSV, ``::``, gzip, Parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tgrec.data import TemporalRecGraph
from tgrec.data.columns import WHOLE_NUMBER, id_values, where
from tgrec.data.recognise import recognise_columns
from tgrec.datasets._clean import graph_of_tables
from tgrec.datasets._fetch import DataFileError
from tgrec.datasets._side import item_table, user_table
from tgrec.datasets._tables import FileName, read_file

# What the files of a folder are called, before the first dot.
_EVENT_FILES = ("ratings", "interactions", "events", "purchases", "clicks", "u")
_ITEM_FILES = ("movies", "items", "products", "books")
_USER_FILES = ("users", "customers")
_TABLES = (".csv", ".tsv", ".dat", ".txt", ".data", ".inter", ".parquet", ".gz")
# A column of times in Unix units holds no smaller number, and a column of ratings no larger one.
_FIRST_TIME = 100_000_000
# Digits that a floating-point number holds without loss.
_POINT_ZERO = re.compile(r"(0|[1-9]\d{0,14})\.0")


def read_interactions(
    path: FileName,
    *,
    items: FileName | None = None,
    users: FileName | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    relation: str | None = None,
    sep: str | None = None,
    names: Sequence[str] | None = None,
) -> TemporalRecGraph:
    """Reads one event per line, from any usual file.

    Columns are recognised by their names (:func:`tgrec.data.recognise.recognise_columns`), times by
    their size (:func:`tgrec.data.recognise.in_time_order`). A file without a header line is taken
    for ``user item``, ``user item rating``, ``user item time`` or, in MovieLens's order, ``user
    item rating time``. Ids are integers if all of them are written as such in every file, else
    strings kept exactly: ``0104257`` is not ``104257``. Only where all ids of a column are
    written as ``26.0``, they are the integers that they were before some program made them so.

    Args:
        path: The file; or a folder with a file ``ratings``, ``interactions`` or ``events`` and
            perhaps ``movies`` or ``items`` and ``users``, whatever their endings.
        items: Optional file of items: their ids, and as far as they are there titles, genres and
            years (:func:`tgrec.datasets._side.item_table`). Items that it lacks have no title.
        users: Optional file of users: their ids, and as far as they are there gender, age and
            occupation. Nothing else in it is read.
        user: Column of users in ``path``; None to recognise it.
        item: Column of items.
        time: Column of times.
        rating: Column of ratings; where a field is empty, the rating is not known (NaN).
        relation: Column of kinds of events, such as domains; all are of one kind if left out.
        sep: Separator of ``path``; None to find it out.
        names: Columns of ``path`` if it has no header line; None to find them out.

    Returns:
        A graph whose items may have ``title`` (strings), ``genres`` (strings such as
        ``Action|Drama``), ``genre`` (``[N, G]`` float32, one column per name in alphabetical
        order) and ``year`` (int64, 0 if unknown), and whose users may have ``gender``, ``age``
        and ``occupation`` (int64, -1 if unknown: the numbers of the file, or the places of its
        texts, which stand beside them, in alphabetical order).

    Raises:
        FileNotFoundError: If there is no such file, or no such file in the folder.
        DataFileError: If a file is no such table; the message names file, line and column.
        ImportError: If the file is Parquet and pyarrow is not there.
    """
    path = Path(path)
    if path.is_dir():
        path, items, users = _in_folder(path, items, users)
    frame = read_events(path, sep=sep, names=names)
    try:
        found = recognise_columns(frame, user=user, item=item, time=time, rating=rating,
                                  relation=relation)  # fmt: skip
        if found.rating is not None:
            frame = frame.assign(**{found.rating: _numbers(frame[found.rating], "rating")})
        tables = {
            "user": None if users is None else user_table(users, found.user),
            "item": None if items is None else item_table(items, found.item),
        }
        for role, column in (("user", found.user), ("item", found.item)):
            frame, tables[role] = _one_kind(frame, tables[role], column, role)
        return graph_of_tables(
            frame, user=found.user, item=found.item, time=found.time, rating=found.rating,
            relation=found.relation, users=tables["user"], items=tables["item"],
        )  # fmt: skip
    except ValueError as error:
        raise DataFileError(f"{path}: {error}") from error


def read_events(
    path: FileName, *, sep: str | None = None, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """The table of a file of interactions, its columns named; all text columns as they stand.

    Args:
        path: CSV, TSV or another text file, possibly compressed with gzip, or Parquet.
        sep: The separator; None to find it out.
        names: The columns of a file without a header line; None to find them out.

    Raises:
        FileNotFoundError: If there is no such file.
        DataFileError: If it is no table, or has neither a header line nor one of the usual widths.
    """
    table = read_file(path, sep, names)
    if table.columns.tolist() != list(range(len(table.columns))):
        return table
    values = [pd.to_numeric(table[c], errors="coerce") for c in table.columns[2:]]
    times = [v.notna().any() and bool((v.dropna() >= _FIRST_TIME).all()) for v in values]
    usual = {
        (): ["user_id", "item_id"],
        (False,): ["user_id", "item_id", "rating"],
        (True,): ["user_id", "item_id", "timestamp"],
        (False, True): ["user_id", "item_id", "rating", "timestamp"],
        (True, False): ["user_id", "item_id", "timestamp", "rating"],
    }.get(tuple(times))
    if usual is None or len(table.columns) < 2:
        raise DataFileError(
            f"{path}: has no header line, and its {len(table.columns)} columns (first line "
            f"{table.iloc[0].tolist()}) are neither user, item and rating or time, nor these four; "
            f"name them with names=[...], or write them into the first line"
        )
    return table.set_axis(usual, axis=1)


def _one_kind(
    frame: pd.DataFrame, side: pd.DataFrame | None, column: str, role: str
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Both tables with integers if every id of them is written as one, else with texts."""
    tables = [frame] if side is None else [frame, side]
    kinds = [pd.api.types.is_integer_dtype(t[column].dtype) for t in tables]
    if all(kinds):
        return frame, side
    texts = [t[column].astype(str) if k else t[column] for t, k in zip(tables, kinds, strict=True)]
    for ids in texts:
        id_values(ids, role)  # raises, with the line, for what can be no id
    texts = [_without_point(ids) for ids in texts]
    plain = all(WHOLE_NUMBER.fullmatch(str(id_)) for ids in texts for id_ in pd.unique(ids))
    texts = [ids.astype("int64") for ids in texts] if plain else texts
    tables = [t.assign(**{column: ids}) for t, ids in zip(tables, texts, strict=True)]
    return tables[0], None if side is None else tables[1]


def _without_point(ids: pd.Series) -> pd.Series:
    """``26`` of ``26.0`` if all are written so, as pandas writes integers after gaps."""
    if all(_POINT_ZERO.fullmatch(id_) for id_ in pd.unique(ids)):
        return ids.str.removesuffix(".0")
    return ids


def _numbers(column: pd.Series, role: str) -> pd.Series:
    """Texts as numbers, NaN where there is none."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column
    values = pd.to_numeric(column.astype(object), errors="coerce")
    bad = (values.isna() & column.notna() & (column.astype(str).str.lower() != "nan")).to_numpy()
    if bad.any():
        raise ValueError(
            f"'{role}': column {column.name!r} is not a number in {where(bad, column)}, first "
            f"{column[bad].tolist()[0]!r}; correct these rows, or leave the field empty"
        )
    return values


def _in_folder(
    folder: Path, items: FileName | None, users: FileName | None
) -> tuple[Path, FileName | None, FileName | None]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _TABLES)

    def named(stems: Sequence[str]) -> Path | None:
        own = {p.name.partition(".")[0].lower(): p for p in reversed(files)}
        return next((own[stem] for stem in stems if stem in own), None)

    events = named(_EVENT_FILES)
    if events is None:
        raise FileNotFoundError(
            f"'path': {str(folder)!r} has no file named {' or '.join(_EVENT_FILES[:3])}; it has "
            f"{[p.name for p in files] or 'no tables'}: name the file itself"
        )
    return events, items or named(_ITEM_FILES), users or named(_USER_FILES)
