"""Tables of items and of users: cleaned, and joined to a table of interactions."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from tgrec.data import TemporalRecGraph
from tgrec.data.columns import WHOLE_NUMBER, id_values, require_column
from tgrec.data.convert import no_feature
from tgrec.data.recognise import (
    NAMES,
    graph_from,
    index_as_columns,
    plain_name,
    recognise_columns,
)
from tgrec.datasets._read import year_of

# What columns are usually called, as `plain_name` writes them.
ITEM_COLUMNS: dict[str, Collection[str]] = {
    "title": NAMES["title"] | {"name"},
    "genres": {"genres", "genre", "categories", "category"},
    "year": {"year", "releaseyear"},
}
USER_COLUMNS: dict[str, Collection[str]] = {
    "gender": {"gender", "sex"},
    "age": {"age", "agegroup"},
    "occupation": {"occupation", "job", "profession"},
}
# How files say that there is no genre.
_NO_GENRE = {"", "(no genres listed)", "n/a", "none", "unknown"}
# The number of what is not known.
_UNKNOWN = {"user": -1, "item": 0}


def clean_items(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table of items whose columns are called and written as models and answers read them.

    Args:
        table: One row per item, its columns called as is usual.
        name: What to call the column of ids.

    Returns:
        The column ``name`` as it stands; as far as they are there ``title`` (texts), ``genres``
        (texts such as ``Action|Drama``) and ``year`` (int64; of the title, as in ``Heat (1995)``,
        if there is no column of years; 0 if unknown); and all other columns as they stand.

    Raises:
        ValueError: If there is no column of ids, or several could be one of these.
    """
    out = _named(table, "item", name, ITEM_COLUMNS)
    if "title" in out:
        out["title"] = _texts(out["title"])
    if "genres" in out:
        out["genres"] = _genres(out["genres"])
    if "year" in out:
        years = pd.to_numeric(out["year"].astype(object), errors="coerce")
        out["year"] = years.fillna(0).astype("int64")
    elif "title" in out and (found := out["title"].map(year_of)).any():
        out["year"] = found.astype("int64")
    return out


def clean_users(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table of users whose columns are called and written as models and answers read them.

    Args:
        table: One row per user, its columns called as is usual.
        name: What to call the column of ids.

    Returns:
        The column ``name`` as it stands; as far as they are there ``gender``, ``age`` and
        ``occupation``, int64 if all their values are whole numbers (-1 if unknown), else texts
        (empty if unknown); and all other columns as they stand.

    Raises:
        ValueError: If there is no column of ids, or several could be one of these.
    """
    out = _named(table, "user", name, USER_COLUMNS)
    for feature in out.columns.intersection(list(USER_COLUMNS)):
        out[feature] = _numbers_or_texts(out[feature])
    return out


def features_only(table: pd.DataFrame, role: str, name: str) -> pd.DataFrame:
    """The table without columns that cannot be features of nodes; one warning names them.

    Args:
        table: Of :func:`clean_items` or :func:`clean_users`.
        role: ``item`` or ``user``.
        name: Its column of ids.
    """
    twice = table.columns[table.columns.duplicated()]
    said = {c: f"{c!r} is the name of several columns; rename them" for c in twice if c != name}
    for column in table.columns.drop([name, *said]):
        if (problem := no_feature(str(column), table[column])) is not None:
            said[column] = problem
    if said:
        warnings.warn(f"'{role}s': left out what cannot be a feature: {'. '.join(said.values())}",
                      UserWarning, stacklevel=4)  # fmt: skip
    return table.drop(columns=list(said))


def graph_of_tables(
    events: pd.DataFrame,
    *,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    **columns: str | None,
) -> TemporalRecGraph:
    """The store of a table of events and of clean tables of users and items.

    Ids of ``users`` and ``items`` become integers or strings, as those of ``events`` are, and users
    and items that they lack get a row in which nothing is known. Beside texts that models read
    stand numbers: of users' texts their places in alphabetical order, of genres the multi-hot
    ``genre`` ``[N, G]``.

    Args:
        events: One row per event.
        users: Of :func:`clean_users`, with the id column of ``events``.
        items: Of :func:`clean_items`, likewise.
        **columns: As :func:`tgrec.data.recognise.recognise_columns` takes them.

    Raises:
        ValueError: As :func:`tgrec.data.recognise.graph_from`, and if ids are of different kinds,
            or none of a table is one of the events.
    """
    events = index_as_columns(events)
    found = recognise_columns(events, **columns)
    users = _joined(users, events[found.user], "user")
    items = _joined(items, events[found.item], "item")
    graph = graph_from(events, users=users, items=items, **columns)
    _add_codes(graph)
    return graph


def words_in(graph: TemporalRecGraph, name: str) -> tuple[str, ...]:
    """The texts of a user attribute in alphabetical order: what its codes 0, 1, ... stand for."""
    return tuple(sorted(set(graph.strings("user", name)) - {""}))


def _add_codes(graph: TemporalRecGraph) -> None:
    """Writes numbers beside texts; -1 beside an empty one."""
    users, items = graph["user"], graph["item"]
    names = [key.removesuffix("_bytes") for key in users.keys() if key.endswith("_bytes")]
    for name in set(names) - {"raw_id", "title"}:
        codes = pd.Index(words_in(graph, name)).get_indexer(pd.Index(graph.strings("user", name)))
        users[name] = torch.from_numpy(codes.astype(np.int64))
    if "genres_bytes" in items:
        items.genre = torch.from_numpy(multi_hot(graph.strings("item", "genres")))


def multi_hot(genres: Sequence[str]) -> np.ndarray:
    """``[N, G]`` float32 of N texts such as ``Action|Drama``, columns in alphabetical order."""
    split = [set(filter(None, text.split("|"))) for text in genres]
    names = sorted(set().union(*split))
    place = {name: column for column, name in enumerate(names)}
    hot = np.zeros((len(split), len(names)), dtype=np.float32)
    for row, own in enumerate(split):
        hot[row, [place[name] for name in own]] = 1.0
    return hot


def _joined(side: pd.DataFrame | None, ids: pd.Series, role: str) -> pd.DataFrame | None:
    """The side table with ids like those of the events, and a row for each of them."""
    if side is None:
        return None
    column, argument = str(ids.name), f"{role}s"
    wanted, own = id_values(ids, role), id_values(require_column(side, argument, column), argument)
    if wanted.dtype != np.int64:
        own = own.astype(str).astype(object)
    elif own.dtype != np.int64:
        strange = [text for text in own if not WHOLE_NUMBER.fullmatch(text)]
        if strange:
            raise ValueError(
                f"'{argument}': column {column!r} has ids that are no integers, first "
                f"{strange[0]!r}, and those of the events are; convert both with .astype(str)"
            )
        own = own.astype(np.int64)
    wanted = pd.unique(wanted)
    absent = wanted[~pd.Index(wanted).isin(own)]
    if len(own) and len(wanted) and len(absent) == len(wanted):
        raise ValueError(
            f"'{argument}': no id in column {column!r}, such as {own[:2].tolist()}, is one of the "
            f"events, such as {wanted[:2].tolist()}; give the table that belongs to them, or write "
            f"both ids alike"
        )
    if 2 * len(absent) > len(wanted):  # ids of another release may still meet some
        warnings.warn(
            f"'{argument}': column {column!r} has only {len(wanted) - len(absent)} of the "
            f"{len(wanted)} ids of the events; nothing is known of the others, such as "
            f"{absent[:2].tolist()}. Is it the table that belongs to them?",
            UserWarning, stacklevel=5,
        )  # fmt: skip
    side, rows = side.assign(**{column: own}), pd.DataFrame({column: absent})
    for name in side.columns.drop(column):
        rows[name] = _unknown(side[name].dtype, role)
    return pd.concat([side, rows], ignore_index=True) if len(absent) else side


def _unknown(dtype: Any, role: str) -> int | bool | str:
    """What stands where nothing is known, in columns of a type."""
    if pd.api.types.is_bool_dtype(dtype):
        return False
    return _UNKNOWN[role] if pd.api.types.is_numeric_dtype(dtype) else ""


def _named(
    table: pd.DataFrame, role: str, name: str, columns: Mapping[str, Collection[str]]
) -> pd.DataFrame:
    """The table with its ids under ``name`` and its known columns under our names."""
    table, there = index_as_columns(table), dict[str, list[Any]]()
    for ours, usual in {name: NAMES[role] | {"id"}, **columns}.items():
        there[ours] = [c for c in table.columns if plain_name(str(c)) in usual]
        if ours == name and name in table.columns:
            there[ours] = [name]
        if len(there[ours]) > 1:
            raise ValueError(f"'{role}s': the columns {there[ours]} could be meant for one "
                             f"another; drop all but one of them")  # fmt: skip
    if not there[name]:
        raise ValueError(f"'{role}s': there is no column of {role}s among {list(table.columns)}; "
                         f"call it {name}")  # fmt: skip
    return table.rename(columns={found[0]: ours for ours, found in there.items() if found})


def _texts(column: pd.Series) -> pd.Series:
    """Texts without blanks around them, empty where there is none."""
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _numbers_or_texts(column: pd.Series) -> pd.Series:
    """Whole numbers if all values are such, -1 where there is none; else texts."""
    there = column.notna()
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    if (numbers[there] % 1 == 0).all():
        return numbers.where(there, _UNKNOWN["user"]).astype("int64")
    return _texts(column)


def _genres(column: pd.Series) -> list[str]:
    """``Action|Drama`` of that, of ``Drama, Action``, of ``Action;Drama`` and of lists of them."""
    texts = [
        cell if isinstance(cell, str) else "|".join(map(str, cell)) if np.iterable(cell) else ""
        for cell in column.tolist()
    ]
    sep = next((s for s in ("|", ";", ",") if any(s in text for text in texts)), "|")
    parts = ([part.strip() for part in text.split(sep)] for text in texts)
    return ["|".join(p for p in own if p.lower() not in _NO_GENRE) for own in parts]
