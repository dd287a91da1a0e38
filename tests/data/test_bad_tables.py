"""Bad tables: every one is refused with the argument, the row, the value and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tgrec.data import TemporalRecGraph


def table(**columns: Any) -> pd.DataFrame:
    good = {"user_id": [1, 1, 2], "item_id": [10, 20, 10], "timestamp": [100, 200, 300]}
    return pd.DataFrame({**good, **columns})


MISSING, MS = np.nan, 1_600_000_000_000
COLUMNS: list[tuple[str, pd.DataFrame, dict[str, Any], str]] = [
    (
        "missing",
        table().drop(columns="timestamp"),
        {},
        r"'time': there is no column 'timestamp' among \['user_id', 'item_id'\]; "
        r"name it with time=",
    ),
    (
        "renamed",
        table().rename(columns={"user_id": "User ID"}),
        {},
        r"'user': there is no column 'user_id'.*did you mean user='User ID'\?",
    ),
    ("wrong name", table(), {"item": "item"}, r"'item': .*did you mean item='item_id'\?"),
    (
        "twice",
        pd.concat([table(), table()[["timestamp"]]], axis=1),
        {},
        "'time': the column 'timestamp' stands 2 times; rename one",
    ),
    ("no rating", table(), {"rating": "stars"}, "'rating': there is no column 'stars'"),
    ("no relation", table(), {"relation": "kind"}, "'relation': there is no column 'kind'"),
]
IDS: list[tuple[str, pd.DataFrame, dict[str, Any], str]] = [
    (
        "NaN",
        table(user_id=[1, MISSING, 2]),
        {},
        r"'user': column 'user_id' has missing ids in row 2 \(1 in all\); drop these rows",
    ),
    (
        "None",
        table(item_id=["a", None, "b"]),
        {},
        "'item': column 'item_id' has missing ids in row 2",
    ),
    ("many NaN", table(user_id=[MISSING] * 3), {}, r"missing ids in rows 1, 2, 3 \(3 in all\)"),
    (
        "negative",
        table(item_id=[3, 4, -1]),
        {},
        r"'item': .* negative id -1 in row 3 \(1 in all\); .* drop these rows",
    ),
    (
        "float",
        table(item_id=[3.0, 4.0, 5.5]),
        {},
        r"floating-point ids \(first .*3.0.*\).*\.astype\('int64'\) or to strings",
    ),
    ("bool", table(user_id=[True, False, True]), {}, "is boolean; ids are integers or strings"),
    (
        "mixed",
        table(user_id=["a", 2, "c"]),
        {},
        r"mixes strings with other types, first in row 2 \(2\); .*\.astype\(str\)",
    ),
    (
        "uint64",
        table(user_id=np.array([1, 2, 2**63], dtype=np.uint64)),
        {},
        "ids beyond int64 in row 3 .*; convert the column to strings",
    ),
    (
        "huge",
        table(user_id=pd.Series([2**70, 1, 2], dtype=object)),
        {},
        "ids beyond int64.*to strings",
    ),
    (
        "empty string",
        table(user_id=["a", "", "b"]),
        {},
        "empty ids in row 2 .*; drop these rows or",
    ),
]
TIMES: list[tuple[str, pd.DataFrame, dict[str, Any], str]] = [
    (
        "NaN",
        table(timestamp=[1.0, MISSING, 3.0]),
        {},
        "'time': column 'timestamp' has missing times in row 2 .*; drop these rows, or "
        "pass time=None",
    ),
    (
        "NaT",
        table(timestamp=pd.to_datetime(["2000-01-01", None, "2001-01-01"])),
        {},
        "missing times in row 2",
    ),
    (
        "negative",
        table(timestamp=[5, -3, 4]),
        {},
        "negative time -3 in row 2 .*; times are Unix seconds since 1970",
    ),
    (
        "before 1970",
        table(timestamp=pd.to_datetime(["1969-12-31"] * 3)),
        {},
        "negative time -86400",
    ),
    (
        "milliseconds",
        table(timestamp=[MS, MS + 1, MS + 2]),
        {},
        rf"looks like milliseconds or finer \(first {MS}\); divide it down to Unix seconds",
    ),
    ("nanoseconds", table(timestamp=[MS * 10**6] * 3), {}, "looks like milliseconds or finer"),
    (
        "mixed units",
        table(timestamp=[MS // 1000, MS, MS // 1000]),
        {},
        r"mixes units: 1 values look like milliseconds or finer \(row 2 .* and 2 like seconds",
    ),
    (
        "fractions",
        table(timestamp=[1.0, 2.5, 3.0]),
        {},
        r"fractions of a second in row 2 \(1 in all\), first .*2.5.*; round it",
    ),
    (
        "datetime fractions",
        table(timestamp=pd.to_datetime(["2000-01-01 00:00:00.9"] * 3)),
        {},
        r"fractions of a second in rows 1, 2, 3 .*sort the rows by it.*\.dt\.floor\('s'\)",
    ),
    (
        "infinite",
        table(timestamp=[1.0, np.inf, 3.0]),
        {},
        "has inf in row 2 .*; times are Unix seconds",
    ),
    (
        "beyond 2**53",
        table(timestamp=[1.0, 2.0**60, 3.0]),
        {},
        "in row 2 .*drop these rows or correct",
    ),
    (
        "float32",
        table(timestamp=np.array([1, 2, 3], dtype=np.float32)),
        {},
        "is float32, whose step at today's Unix times is 64 s or more; read it as int64 or float64",
    ),
    (
        "text",
        table(timestamp=["2000-01-01", "2000-01-02", "2000-01-03"]),
        {},
        r"is not a time \(first value '2000-01-01'\); .*pandas.to_datetime\(..., format=...\)",
    ),
    (
        "scientific text",
        table(timestamp=["1e9", "2e9", "3e9"]),
        {},
        r"is not a time \(first value '1e9'\)",
    ),
    ("bool", table(timestamp=[True, False, True]), {}, "is not a time"),
]
RATINGS: list[tuple[str, pd.DataFrame, dict[str, Any], str]] = [
    (
        "text",
        table(stars=["good", "bad", "ugly"]),
        {"rating": "stars"},
        r"'rating': column 'stars' is not numeric \(first value 'good'\); convert it with",
    ),
    (
        "infinite",
        table(stars=[1, MISSING, np.inf]),
        {"rating": "stars"},
        r"'rating': column 'stars' is infinite .* in row 3 \(1 in all\); correct .* leave them",
    ),
    ("huge", table(stars=[1, 1e300, 2]), {"rating": "stars"}, "beyond float32 in row 2"),
    (
        "missing kind",
        table(kind=["a", None, "b"]),
        {"relation": "kind"},
        "'relation': column 'kind' is missing in row 2",
    ),
    (
        "kind with __",
        table(kind=["a", "a__b", "b"]),
        {"relation": "kind"},
        "'a__b' cannot name an edge type",
    ),
    ("empty kind", table(kind=["a", "", "b"]), {"relation": "kind"}, "'' cannot name an edge type"),
]


def side(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"item_id": [10, 20], **columns})


TABLES: list[tuple[str, pd.DataFrame, dict[str, Any], str]] = [
    ("no rows", table().iloc[:0], {}, "'df' has no rows: a graph needs at least one event"),
    ("no columns", pd.DataFrame(), {}, r"'user': there is no column 'user_id' among \[\]"),
    (
        "item without a row",
        table(item_id=[10, 20, 30]),
        {"items": side()},
        r"'items' has no row for item 30, used by row 3 .* of 'df'; add it, or drop these events",
    ),
    (
        "item twice",
        table(),
        {"items": pd.DataFrame({"item_id": [10, 20, 10]})},
        r"'items': column 'item_id' repeats 10 in row 3 \(1 in all\); one row per item",
    ),
    (
        "items without ids",
        table(),
        {"items": side().rename(columns={"item_id": "id"})},
        "'items': there is no column",
    ),
    (
        "ids of other types",
        table(),
        {"items": pd.DataFrame({"item_id": ["10", "20"]})},
        "'items' has no row for item 10",
    ),
    (
        "feature missing",
        table(),
        {"items": side(price=[1.0, MISSING])},
        "'items': column 'price' has missing values in row 2 .*; fill them",
    ),
    (
        "feature of objects",
        table(),
        {"items": side(tags=[["a"], ["b"]])},
        "'items': column 'tags' has type object; features are numbers, booleans or strings",
    ),
    *(
        (
            f"feature named {name}",
            table(),
            {"items": side(**{name: [1, 2]})},
            f"'items': '{name}' cannot name a feature; rename the column",
        )
        for name in (
            "time",
            "event_id",
            "num_nodes",
            "raw_id",
            "n_id",
            "input_id",
            "batch",
            "a_bytes",
            "a_offsets",
            "two words",
        )  # fmt: skip
    ),
]
ALL = [(f"{group}: {name}", *rest) for group, cases in (
    ("columns", COLUMNS), ("ids", IDS), ("time", TIMES), ("rating", RATINGS), ("tables", TABLES)
) for name, *rest in cases]  # fmt: skip


@pytest.mark.parametrize(("df", "kwargs", "message"), [c[1:] for c in ALL], ids=[c[0] for c in ALL])
def test_bad_table_is_explained(df: pd.DataFrame, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemporalRecGraph.from_pandas(df, **kwargs)


def test_not_a_table() -> None:
    with pytest.raises(TypeError, match=r"'df' needs to be a DataFrame \(got dict\)"):
        TemporalRecGraph.from_pandas({"user_id": [1]})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'items' needs to be a DataFrame \(got list\)"):
        TemporalRecGraph.from_pandas(table(), items=[1])  # type: ignore[arg-type]


HEAD = b"user_id,item_id,timestamp\n"
FILES: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("empty", b"", {}, "the file is empty; it needs a header and one line per event"),
    ("blank", b" \n\n", {}, "the file is empty"),
    ("header only", HEAD, {}, "'df' has no rows"),
    (
        "not UTF-8",
        HEAD + b"1,2,3\n1,caf\xe9,4\n",
        {},
        r"line 3: not utf-8-sig: .*; pass encoding=, e.g. 'latin-1'",
    ),
    (
        "UTF-16",
        HEAD.decode().encode("utf-16"),
        {},
        r"NUL bytes; it is not text in 'utf-8-sig' \(pass encoding=\)",
    ),
    ("gzip", b"\x1f\x8b\x08\x00", {}, "is a damaged compressed file .*; fetch it again"),
    ("zip", b"PK\x03\x04", {}, "compressed file; unpack it first"),
    (
        "wrong separator",
        b"user_id;item_id;timestamp\n1;2;3\n",
        {},
        r"no column 'user_id' among \['user_id;item_id;timestamp'\].*is ',' the separator\?",
    ),
    ("no header", b"1,2,3\n4,5,6\n", {}, r"there is no column 'user_id' among \['1', '2', '3'\]"),
    (
        "one field more, first line",
        HEAD + b"1,2,3,4\n",
        {},
        "every line needs as many fields as the header",
    ),
    (
        "one field more, later",
        HEAD + b"1,2,3\n1,2,3,4\n",
        {},
        r"Expected 3 fields in line 3, saw 4; every line needs",
    ),
    (
        "one field more, ::",
        b"user_id::item_id::timestamp\n1::2::3\n1::2::3::4\n",
        {"sep": "::"},
        "fields in line 3",
    ),
    (
        "one field less",
        HEAD + b"1,2,3\n1,2\n",
        {},
        r"missing times in line 3 \(1 in all\); drop these rows",
    ),
    ("empty id", HEAD + b",2,3\n", {}, "'user': column 'user_id' has missing ids in line 2"),
    (
        "empty id below a blank line",
        HEAD + b"\n,2,3\n",
        {},
        r"missing ids in row 1 .*\(row 1 is the first one below the header\)",
    ),
    ("unbalanced quote", HEAD + b'1,"2,3\n4,5,6\n', {}, "EOF inside string"),
    (
        "web page",
        b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
        {},
        "there is no column 'user_id'",
    ),
    (
        "text time",
        HEAD + b"1,2,yesterday\n",
        {},
        r"'time': .* is not a time \(first value 'yesterday'\)",
    ),
]


@pytest.mark.parametrize(
    ("content", "kwargs", "message"), [f[1:] for f in FILES], ids=[f[0] for f in FILES]
)
def test_bad_file_is_explained(
    content: bytes, kwargs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"events\.csv.*{message}"):
        TemporalRecGraph.from_csv(str(path), **kwargs)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'path': there is no file .*nowhere.csv"):
        TemporalRecGraph.from_csv(str(tmp_path / "nowhere.csv"))
    with pytest.raises(FileNotFoundError, match="'path': there is no file"):
        TemporalRecGraph.from_csv(str(tmp_path))


def test_unknown_argument_names_it(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(HEAD + b"1,2,3\n")
    with pytest.raises(TypeError, match="usr"):
        TemporalRecGraph.from_csv(str(path), usr="user_id")
