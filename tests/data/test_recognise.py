"""Columns found by their names, and times in every usual unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import Columns, TemporalRecGraph, graph_from, recognise_columns
from tgrec.data.recognise import NAMES, in_time_order, index_as_columns, plain_name

DAY = 1_362_096_000  # 2013-03-01 in UTC


def frame(*columns: str) -> pd.DataFrame:
    return pd.DataFrame([range(len(columns))], columns=list(columns))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["userId", "movieId", "rating", "time"], ("userId", "movieId", "time", "rating")),
        (["user_id", "item_id"], ("user_id", "item_id", None, None)),
        (["USER ID", "Product-Id", "Date"], ("USER ID", "Product-Id", "Date", None)),
        (["sku", "qty", "customer", "ts"], ("customer", "sku", "ts", None)),
        (["uid", "asin", "overall", "tDat"], ("uid", "asin", "tDat", "overall")),
        (["user_id:token", "item_id:token", "timestamp:float"],
         ("user_id:token", "item_id:token", "timestamp:float", None)),
    ],
)  # fmt: skip
def test_usual_names(columns: list[str], expected: tuple[str | None, ...]) -> None:
    assert recognise_columns(frame(*columns)) == Columns(*expected)  # type: ignore[arg-type]
    assert recognise_columns(frame(*columns[::-1])) == Columns(*expected)  # type: ignore[arg-type]


def test_a_given_name_is_taken_whatever_is_usual() -> None:
    table = frame("who", "user_id", "what", "time")
    assert recognise_columns(table, user="who", item="what") == Columns("who", "what", "time")
    # What is taken for one role is not taken for another.
    table = frame("user", "item", "time", "date")
    assert recognise_columns(table, item="date").time == "time"


def test_names_of_different_roles_never_meet() -> None:
    names = [(role, name) for role in NAMES for name in NAMES[role]]
    assert len({name for _, name in names}) == len(names)
    assert all(plain_name(name) == name for _, name in names)


@pytest.mark.parametrize(
    ("columns", "kwargs", "message"),
    [
        (["a", "item"], {}, r"'user': none of the columns \['a', 'item'\].*with user=\.\.\."),
        (["user", "a"], {}, r"'item': none of the columns .*name it with item=\.\.\."),
        (["users_id", "item"], {}, r"did you mean user='users_id'\?"),
        (["user", "customer", "item"], {}, r"'user': several .*\['user', 'customer'\].*user="),
        (["user", "item", "date", "ts"], {}, r"'time': several .*\['date', 'ts'\].*with time="),
        (["user", "item", "score", "stars"], {}, r"'rating': several .*rating=\.\.\."),
        (["user", "item"], {"user": "usr"}, r"'user': there is no column 'usr'.*user='user'\?"),
        (["user", "item"], {"time": "when"}, r"'time': there is no column 'when'"),
        (["user", "item"], {"user": "user", "item": "user"}, r"'item' are one column, 'user'"),
        (["user", "user", "item"], {}, r"'user': several columns could be meant"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_asked_for(
    columns: list[str], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recognise_columns(frame(*columns), **kwargs)


def test_only_tables_are_taken() -> None:
    with pytest.raises(TypeError, match=r"'frame' needs to be a DataFrame \(got list\)"):
        recognise_columns([1])  # type: ignore[arg-type]


# ---- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "times",
    [
        [DAY, DAY + 3600],
        [float(DAY), DAY + 3600.0],
        [DAY * 1000, (DAY + 3600) * 1000],
        [DAY * 10**6, (DAY + 3600) * 10**6],
        [DAY * 10**9, (DAY + 3600) * 10**9],
        [str(DAY), str(DAY + 3600)],
        [str(DAY * 1000), str((DAY + 3600) * 1000)],
        ["2013-03-01", "2013-03-01 01:00:00"],
        ["2013-03-01T00:00:00Z", "2013-03-01T02:00:00+01:00"],
        pd.to_datetime(["2013-03-01 00:00", "2013-03-01 01:00"]),
        [pd.Timestamp("2013-03-01").to_pydatetime(), pd.Timestamp("2013-03-01 01:00")],
        pd.Series([DAY, DAY + 3600], dtype="Int64"),
    ],
    ids=["s", "whole floats", "ms", "us", "ns", "text s", "text ms", "dates", "zones", "datetime64",
         "datetimes", "Int64"],
)  # fmt: skip
def test_times_in_all_units_are_the_same_seconds(times: Any) -> None:
    table = pd.DataFrame({"user": [1, 1], "item": [1, 2], "time": times})
    graph = graph_from(table)
    assert graph["user", "interacts", "item"].time.tolist() == [DAY, DAY + 3600]


def test_fractions_of_a_second_decide_the_order_before_they_are_dropped() -> None:
    table = pd.DataFrame(
        {"user": [1] * 4, "item": [10, 20, 30, 40], "time": [0.9, 0.5, 0.5, 0.1]}
    ).assign(time=lambda t: t["time"] + DAY)
    for times in (table["time"], (table["time"] * 1000).round().astype("int64")):
        graph = graph_from(table.assign(time=times))
        # The two of 0.5 keep the order of the rows.
        assert graph.to_pandas()["item_id"].tolist() == [40, 20, 30, 10]
        assert set(graph.to_pandas()["timestamp"]) == {DAY}


@given(st.lists(st.integers(10**9, 10**9 + 3), min_size=1, max_size=12), st.sampled_from([1, 1000]))
@settings(max_examples=25, deadline=None)
def test_whole_seconds_change_nothing(seconds: list[int], unit: int) -> None:
    rows = range(len(seconds))
    table = pd.DataFrame({"user_id": rows, "item_id": rows, "timestamp": np.array(seconds) * unit})
    wanted = TemporalRecGraph.from_pandas(table.assign(timestamp=seconds)).to_pandas()
    assert graph_from(table).to_pandas().equals(wanted)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            ["yesterday", "2013-03-01"],
            r"is not a time in row 1 .*first 'yesterday'; write dates as",
        ),
        (["01/02/2013", "02/03/2013"], r"not a time in rows 1, 2 .*'01/02/2013'"),
        ([DAY, DAY * 1000], "mixes units"),
        ([DAY, np.nan], "missing times in row 2 .*; drop these rows, or the whole column if only"),
        (["2013-03-01", None], "missing times in row 2"),
        ([pd.Timestamp("2013-03-01"), pd.NaT], "missing times in row 2"),
        ([-5, DAY], "negative time -5 in row 1"),
        ([np.inf, DAY], "has inf in row 1"),
        ([True, False], "is not a time"),
        (np.array([1, 2], dtype=np.float32), "is float32"),
    ],
)
def test_bad_times_are_named(times: Any, message: str) -> None:
    table = pd.DataFrame({"user": [1, 1], "item": [1, 2], "time": times})
    with pytest.raises(ValueError, match=message):
        graph_from(table)


def test_the_table_given_stays_as_it_is() -> None:
    table = pd.DataFrame({"user": [1, 1], "item": [1, 2], "time": [DAY + 0.5, DAY]})
    before = table.copy(deep=True)
    assert not in_time_order(table, "time").equals(before)
    assert table.equals(before)


@pytest.mark.parametrize("index", ["timestamp", "user_id", ["user_id", "timestamp"]])
def test_an_index_with_names_is_a_column(index: Any) -> None:
    table = pd.DataFrame({"user_id": [2, 1], "item_id": [5, 6], "timestamp": [DAY + 1, DAY]})
    moved = table.set_index(index)
    graph = graph_from(moved)
    assert graph.to_pandas().equals(graph_from(table).to_pandas())
    assert graph.has_time
    assert "timestamp" in table.set_index("timestamp", drop=False).pipe(index_as_columns)
    assert moved.index.names == ([index] if isinstance(index, str) else index)


def test_an_index_without_names_is_none() -> None:
    for name in (None, "line"):
        table = pd.DataFrame({"user": [1], "item": [2]}, index=pd.Index([7], name=name))
        assert index_as_columns(table) is table
    levels = pd.MultiIndex.from_tuples([(0, 7)], names=[None, "ts"])
    assert list(index_as_columns(table.set_index(levels))) == ["ts", "user", "item"]


def test_titles_beside_the_events_name_the_items() -> None:
    table = pd.DataFrame(
        {"user": [1, 1, 2], "item": [7, 5, 7], "title": ["Heat", None, "another"], "ts": [1, 2, 3]}
    )
    graph = graph_from(table)
    titles = dict(zip([7, 5], ["Heat", ""], strict=True))
    found = zip(graph.raw_ids("item").tolist(), graph.strings("item", "title"), strict=True)  # type: ignore[union-attr]
    assert dict(found) == titles
