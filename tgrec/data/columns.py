"""Checks that turn one column of a table into one tensor, or say which row is wrong and why."""

from __future__ import annotations

import difflib
import re

import numpy as np
import pandas as pd

# Unix seconds stay below this until the year 5138; milliseconds since 1973 lie above it.
MILLISECONDS_FROM = 100_000_000_000
# What a text looks like that may stand for an integer id without loss.
WHOLE_NUMBER = re.compile(r"0|[1-9]\d{0,17}")


def first_rows(bad: np.ndarray, limit: int = 3) -> str:
    """``'rows 3, 7 (2 in all)'``: 1-based data rows where ``bad`` is True."""
    rows = np.flatnonzero(bad) + 1
    listed = ", ".join(str(r) for r in rows[:limit])
    return f"row{'s' if rows.size > 1 else ''} {listed} ({rows.size} in all)"


def where(bad: np.ndarray, column: pd.Series) -> str:
    """The rows where ``bad`` is True; the lines of the file if the table carries their numbers.

    A reader of files names the index of its table ``line`` and puts the line numbers into it.
    """
    if column.index.name != "line":
        return first_rows(bad)
    lines = column.index.to_numpy()[bad]
    listed = ", ".join(str(line) for line in lines[:3])
    return f"line{'s' if lines.size > 1 else ''} {listed} ({lines.size} in all)"


def require_column(df: pd.DataFrame, argument: str, name: str) -> pd.Series:
    """The column ``name``; an error names the argument, the columns there are and the nearest."""
    columns = [str(c) for c in df.columns]
    if columns.count(name) > 1:
        raise ValueError(
            f"'{argument}': the column {name!r} stands {columns.count(name)} times; rename one"
        )
    if name not in columns:
        plain = {c.strip().lower().replace(" ", "_"): c for c in columns}
        near = difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.4)
        hint = f"; did you mean {argument}={plain[near[0]]!r}?" if near else ""
        raise ValueError(
            f"'{argument}': there is no column {name!r} among {columns}; name it with "
            f"{argument}=...{hint}"
        )
    column = df.iloc[:, columns.index(name)]
    return column


def id_values(column: pd.Series, argument: str) -> np.ndarray:
    """Ids as int64 or as an object array of ``str``, exactly as given."""
    name = column.name
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"'{argument}': column {name!r} has missing ids in {where(missing, column)}; drop "
            f"these rows or give them an id"
        )
    if pd.api.types.is_bool_dtype(column.dtype):
        raise ValueError(f"'{argument}': column {name!r} is boolean; ids are integers or strings")
    if pd.api.types.is_integer_dtype(column.dtype):
        if pd.api.types.is_unsigned_integer_dtype(column.dtype):
            big = (column > np.iinfo(np.int64).max).to_numpy(dtype=bool)
            if big.any():
                raise ValueError(
                    f"'{argument}': column {name!r} has ids beyond int64 in {where(big, column)}; "
                    f"convert the column to strings"
                )
        values: np.ndarray = column.to_numpy(dtype=np.int64)
        if (values < 0).any():
            bad = values < 0
            raise ValueError(
                f"'{argument}': column {name!r} has the negative id {values[bad][0]} in "
                f"{where(bad, column)}; negative ids usually mark missing values: drop these rows, "
                f"or convert the column to strings if they are real"
            )
        return values
    if pd.api.types.is_float_dtype(column.dtype):
        raise ValueError(
            f"'{argument}': column {name!r} holds floating-point ids (first "
            f"{column.iloc[:1].tolist()[0]!r}), which lose digits beyond 2**53; convert it "
            f"with .astype('int64') or to strings"
        )
    objects: np.ndarray = column.astype(object).to_numpy()
    if (
        isinstance(column.dtype, pd.CategoricalDtype)
        and len(objects)
        and not isinstance(objects[0], str)
    ):
        return id_values(pd.Series(objects, name=name).infer_objects(), argument)
    kinds = np.array([isinstance(v, str) for v in objects], dtype=bool)
    if not kinds.all():
        row = int(np.flatnonzero(~kinds)[0])
        if not kinds.any() and all(isinstance(v, int) for v in objects):
            raise ValueError(
                f"'{argument}': column {name!r} has ids beyond int64 (row {row + 1}: "
                f"{objects[row]!r}); convert the column to strings"
            )
        raise ValueError(
            f"'{argument}': column {name!r} mixes strings with other types, first in row "
            f"{row + 1} ({objects[row]!r}); convert the whole column with .astype(str)"
        )
    empty = np.array([not v for v in objects], dtype=bool)
    if empty.any():
        raise ValueError(
            f"'{argument}': column {name!r} has empty ids in {where(empty, column)}; drop these "
            f"rows or give them an id"
        )
    return objects


def time_values(column: pd.Series, argument: str) -> np.ndarray:
    """Times as int64 Unix seconds; naive datetimes are read as UTC."""
    name = column.name
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"'{argument}': column {name!r} has missing times in {where(missing, column)}; drop "
            f"these rows, or pass time=None if only the order of the rows is known"
        )
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _plausible(_datetime_seconds(column, argument), argument, column)
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        raise ValueError(
            f"'{argument}': column {name!r} is not a time (first value "
            f"{column.iloc[:1].tolist()[0]!r}); give Unix seconds, or convert it with "
            f"pandas.to_datetime(..., format=...)"
        )
    if pd.api.types.is_float_dtype(column.dtype):
        values = column.to_numpy()
        if values.dtype.itemsize < 8:
            raise ValueError(
                f"'{argument}': column {name!r} is {values.dtype}, whose step at today's Unix "
                f"times is 64 s or more; read it as int64 or float64"
            )
        bad = ~np.isfinite(values) | (np.abs(values) >= 2**53)
        if bad.any():
            raise ValueError(
                f"'{argument}': column {name!r} has {values[bad][0]} in {where(bad, column)}; "
                f"times are Unix seconds, drop these rows or correct them"
            )
        bad = values != np.floor(values)
        if bad.any():
            raise ValueError(
                f"'{argument}': column {name!r} has fractions of a second in {where(bad, column)}, "
                f"first {values[bad].tolist()[0]!r}; round it to whole seconds (the input order "
                f"breaks ties)"
            )
    seconds = column.to_numpy().astype(np.int64)
    return _plausible(seconds, argument, column)


def _datetime_seconds(column: pd.Series, argument: str) -> np.ndarray:
    stamps = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz else column
    exact = stamps.to_numpy()
    seconds: np.ndarray = exact.astype("datetime64[s]")
    bad = exact != seconds
    if bad.any():
        raise ValueError(
            f"'{argument}': column {column.name!r} has fractions of a second in "
            f"{where(bad, column)}, first {exact[bad][0]}; sort the rows by it and "
            f"round it down with .dt.floor('s') (the input order breaks ties)"
        )
    return seconds.astype(np.int64)


def _plausible(seconds: np.ndarray, argument: str, column: pd.Series) -> np.ndarray:
    name = column.name
    bad = seconds < 0
    if bad.any():
        raise ValueError(
            f"'{argument}': column {name!r} has the negative time {seconds[bad][0]} in "
            f"{where(bad, column)}; times are Unix seconds since 1970"
        )
    milli = seconds >= MILLISECONDS_FROM
    if milli.all() and milli.size:
        raise ValueError(
            f"'{argument}': column {name!r} looks like milliseconds or finer (first "
            f"{seconds[0]}); divide it down to Unix seconds"
        )
    if milli.any():
        raise ValueError(
            f"'{argument}': column {name!r} mixes units: {int(milli.sum())} values look like "
            f"milliseconds or finer ({where(milli, column)}) and {int((~milli).sum())} like seconds"
        )
    return seconds


def rating_values(column: pd.Series, argument: str) -> np.ndarray | None:
    """Ratings as float32, NaN where one is missing; None if all are."""
    name = column.name
    if column.isna().all():
        return None
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        raise ValueError(
            f"'{argument}': column {name!r} is not numeric (first value "
            f"{column.iloc[:1].tolist()[0]!r}); convert it with pandas.to_numeric"
        )
    with np.errstate(over="ignore"):
        exact: np.ndarray = column.to_numpy(dtype=np.float64, na_value=np.nan)
        values: np.ndarray = exact.astype(np.float32)
    bad = np.isinf(values)
    if bad.any():
        raise ValueError(
            f"'{argument}': column {name!r} is infinite or beyond float32 in {where(bad, column)}; "
            f"correct these ratings, or leave them empty if they are not known"
        )
    return values
