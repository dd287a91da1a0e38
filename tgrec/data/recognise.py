"""Whose table is it: columns by their usual names, times in their usual units."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tgrec.data.columns import MILLISECONDS_FROM, require_column, where
from tgrec.data.convert import from_pandas
from tgrec.data.temporal_graph import TemporalRecGraph

# Role -> usual names, as `plain_name` writes them.
NAMES: dict[str, frozenset[str]] = {
    "user": frozenset(
        "user userid uid usr users username userindex customer customerid client clientid "
        "visitor visitorid reviewer reviewerid account accountid member memberid".split()
    ),
    "item": frozenset(
        "item itemid iid items itemindex movie movieid film filmid product productid sku asin "
        "parentasin article articleid book bookid isbn track trackid song songid artist artistid "
        "stockcode game gameid business businessid content contentid".split()
    ),
    "time": frozenset(
        "timestamp time date datetime ts unix unixtime unixtimestamp unixreviewtime reviewtime "
        "eventtime createdat ratedat tdat invoicedate".split()
    ),
    "rating": frozenset("rating ratings score stars star overall rate ratingvalue".split()),
    "title": frozenset("title itemtitle movietitle producttitle itemname productname".split()),
}
# Times from here on are microseconds, or nanoseconds: each unit is a thousandth of the one before.
_UNITS = ((MILLISECONDS_FROM, 1), (MILLISECONDS_FROM * 1000, 1000),
          (MILLISECONDS_FROM * 10**6, 10**6), (2**63, 10**9))  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """The names that the columns of a table of events have; None where there is no such column."""

    user: str
    item: str
    time: str | None = None
    rating: str | None = None
    title: str | None = None
    relation: str | None = None


def recognise_columns(
    frame: pd.DataFrame,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    relation: str | None = None,
) -> Columns:
    """Finds the columns of a table of events by their usual names.

    Case and separators do not count: ``userId``, ``user_id`` and ``USER ID`` are one name, and so
    is ``user_id:token`` of RecBole's files. What is usual stands in :data:`NAMES`.

    Args:
        frame: One row per event.
        user: Column of users; None to recognise it.
        item: Column of items; None to recognise it.
        time: Column of times; None to recognise it, if there is one.
        rating: Column of ratings; None to recognise it, if there is one.
        relation: Column of kinds of events, or domains; it is never recognised.

    Raises:
        TypeError: If ``frame`` is no DataFrame.
        ValueError: If a column that is named does not exist, if there is none for users or items,
            or if several could be meant; the message lists the columns and says what to pass.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"'frame' needs to be a DataFrame (got {type(frame).__name__})")
    given = {"user": user, "item": item, "time": time, "rating": rating, "relation": relation}
    found: dict[str, str | None] = {}
    for role, name in given.items():
        if name is not None:
            require_column(frame, role, name)
        found[role] = name
    for role in NAMES:
        if found.get(role) is None:
            found[role] = _recognised(frame, role, {n for n in found.values() if n is not None})
    columns = [str(c) for c in frame.columns]
    rest = [c for c in columns if c not in found.values()]
    for role in ("user", "item"):
        if found[role] is None:
            raise ValueError(f"'{role}': none of the columns {columns} has a usual name for "
                             f"{role}s; name it with {role}=...{_near(rest, role)}")  # fmt: skip
    if found["user"] == found["item"]:
        raise ValueError(f"'user' and 'item' are one column, {found['user']!r}; name another one "
                         f"of {columns} with user=... or item=...")  # fmt: skip
    others = (found[role] for role in ("time", "rating", "title", "relation"))
    return Columns(str(found["user"]), str(found["item"]), *others)


def graph_from(
    frame: pd.DataFrame,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    relation: str | None = None,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
) -> TemporalRecGraph:
    """:func:`from_pandas` for any table of events: columns recognised, times in any usual unit.

    Args:
        frame: One row per event, in any order.
        user: As in :func:`recognise_columns`.
        item: As in :func:`recognise_columns`.
        time: As in :func:`recognise_columns`; see :func:`in_time_order` for what a time may be.
            Without times the order of the rows is the order of the events.
        rating: As in :func:`recognise_columns`.
        relation: As in :func:`from_pandas`.
        users: As in :func:`from_pandas`, with the user column of ``frame``.
        items: The same for items. Without it, a column of titles in ``frame`` gives every item
            its first one.

    Raises:
        ValueError: As :func:`recognise_columns`, :func:`in_time_order` and :func:`from_pandas`.
    """
    frame = index_as_columns(frame)
    named = {"user": user, "item": item, "time": time, "rating": rating, "relation": relation}
    names = recognise_columns(frame, **named)
    if names.time is not None:
        frame = in_time_order(frame, names.time)
    if items is None and names.title is not None:
        items = frame[[names.item, names.title]].drop_duplicates(names.item)
        items = items.rename(columns={names.title: "title"}).fillna({"title": ""})
    columns = (names.user, names.item, names.time, names.rating, names.relation)
    return from_pandas(frame, *columns, users, items)


def index_as_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the named levels of its index as its first columns.

    After ``set_index("timestamp")`` the times are in no column any more. A level that is also a
    column (``drop=False``), and the ``line`` of a file that this library has read, stay where they
    are.
    """
    known = {*map(str, frame.columns), "line"}
    levels = [n for n in frame.index.names if n is not None and str(n) not in known]
    return frame.reset_index(levels) if levels else frame


def in_time_order(frame: pd.DataFrame, time: str) -> pd.DataFrame:
    """A table with the column ``time`` in whole Unix seconds.

    Read are Unix seconds, milliseconds, microseconds and nanoseconds (told apart by their size:
    the whole column has one unit), datetimes, and text that holds such a number or an ISO 8601
    date such as ``2013-03-01`` or ``2013-03-01T12:00:00Z``; without a zone it is UTC.

    Fractions of a second are dropped, but first the rows are put into the order of the exact
    times; otherwise rows stay where they are.

    Args:
        frame: One row per event.
        time: The column.

    Raises:
        ValueError: If a value is missing or no time; the message names row, or line, and value.
    """
    column = require_column(frame, "time", time)
    if _is_text(column):
        column = _parsed(column)
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"'time': column {time!r} has missing times in {where(missing, column)}; drop these "
            f"rows, or the whole column if only the order of the rows is known"
        )
    if pd.api.types.is_bool_dtype(column.dtype):
        return frame  # from_pandas says what is wrong
    exact, step = _ticks(column)
    if exact is None:
        return frame.assign(**{time: column})
    seconds = exact // step
    frame = frame.assign(**{time: seconds.astype(np.int64)})
    if bool((seconds * step != exact).any()):
        frame = frame.iloc[np.argsort(exact, kind="stable")]
    return frame


def ticks_per_second(time: float) -> int | None:
    """How many of the units of a Unix time make a second, told by its size; None if none do."""
    return next((step for end, step in _UNITS if abs(time) < end), None)


def _ticks(column: pd.Series) -> tuple[np.ndarray | None, int]:
    """Exact times as numbers, and how many of them make a second; None if that is unclear."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        stamps = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz else column
        return stamps.to_numpy().astype("datetime64[ns]").astype(np.int64), 10**9
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return None, 1
    values: np.ndarray = column.to_numpy()
    if values.dtype.kind == "f" and (values.dtype.itemsize < 8 or not np.isfinite(values).all()):
        return None, 1
    for end, step in _UNITS:
        if values.size and values.max() < end:
            mixed = step > 1 and values.min() < end // 1000
            return (None, 1) if mixed else (values, step)
    return None, 1


def _is_text(column: pd.Series) -> bool:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    return kind in ("string", "date", "datetime", "categorical") and not (
        pd.api.types.is_datetime64_any_dtype(column.dtype)
        or pd.api.types.is_numeric_dtype(column.dtype)
    )


def _parsed(column: pd.Series) -> pd.Series:
    """Numbers where all of a text column are numbers, else dates."""
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    text = column.astype(object)
    # One number among them says what the others should be.
    found = numbers
    if not numbers.notna().any():
        found = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    bad = (found.isna() & column.notna()).to_numpy()
    if bad.any():
        raise ValueError(
            f"'time': column {column.name!r} is not a time in {where(bad, column)}, first "
            f"{text[bad].tolist()[0]!r}; write dates as 2013-12-31 or 2013-12-31 23:59:59, or "
            f"give Unix seconds (or convert it with pandas.to_datetime(..., format=...))"
        )
    return found


def _recognised(frame: pd.DataFrame, role: str, taken: set[str]) -> str | None:
    """The one column of a role by its name, or None."""
    columns = [str(c) for c in frame.columns]
    usual = [c for c in columns if plain_name(c) in NAMES[role] and c not in taken]
    if len(usual) > 1:
        remedy = f"say which with {role}=..." if role != "title" else "drop all but one"
        raise ValueError(f"'{role}': several columns could be meant, {usual} among {columns}; "
                         f"{remedy}")  # fmt: skip
    return usual[0] if usual else None


def plain_name(name: str) -> str:
    """``User ID``, ``user_id`` and ``user_id:token`` -> ``userid``."""
    name = re.sub(r":(token|float)(_seq)?$", "", name.strip().lower())
    return re.sub(r"[\W_]+", "", name)


def _near(columns: list[str], role: str) -> str:
    """The column whose name is most like a usual one, as a question."""
    plain = {plain_name(c): c for c in columns}
    for name in sorted(NAMES[role]):
        close = difflib.get_close_matches(name, plain, n=1, cutoff=0.75)
        if close:
            return f"; did you mean {role}={plain[close[0]]!r}?"
    return ""
