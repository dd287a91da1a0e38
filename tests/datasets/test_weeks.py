"""Calendar weeks: their numbers, cuts and targets, against pandas and plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph
from tgrec.datasets import by_week, week_cut, week_number, week_range, week_targets
from tgrec.datasets.weeks import FIRST_MONDAY, WEEK, week_start

# Rows (user, item, time): 1970-01-01 until some weeks later, with ties and repeated pairs.
Rows = list[tuple[int, int, int]]
logs = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 8 * WEEK)),
    min_size=1,
    max_size=40,
)


def graph_of(rows: Rows) -> TemporalRecGraph:
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return TemporalRecGraph.from_pandas(table)


def triples(graph: TemporalRecGraph) -> list[tuple[int, int, int]]:
    table = graph.to_pandas()[["user_id", "item_id", "timestamp"]]
    return [tuple(row) for row in table.to_numpy().tolist()]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4_000_000_000))
def test_weeks_are_those_of_the_calendar(time: int) -> None:
    week = int(week_number(torch.tensor(time)))
    stamp = pd.Timestamp(time, unit="s")
    monday = stamp.normalize() - pd.Timedelta(days=stamp.weekday())
    assert week_start(week) == monday.value // 10**9 or week == -1
    assert week_start(week) <= time < week_start(week + 1)


def test_the_first_monday_by_hand() -> None:
    assert pd.Timestamp(FIRST_MONDAY, unit="s") == pd.Timestamp("1970-01-05")
    assert pd.Timestamp("1970-01-05").day_name() == "Monday"
    times = torch.tensor([0, FIRST_MONDAY - 1, FIRST_MONDAY, week_start(9), week_start(10) - 1])
    assert week_number(times).tolist() == [-1, -1, 0, 9, 9]
    # 2010-12-01 is in the ISO week that begins on 2010-11-29.
    week = int(week_number(torch.tensor(1_291_191_960)))
    assert pd.Timestamp(week_start(week), unit="s") == pd.Timestamp("2010-11-29")


@settings(max_examples=30, deadline=None)
@given(logs)
def test_cuts_ranges_and_snapshots_agree_with_a_plain_loop(rows: Rows) -> None:
    graph = graph_of(rows)
    weeks = week_range(graph)
    numbers = {(time - FIRST_MONDAY) // WEEK for _, _, time in rows}
    assert (weeks.start, weeks.stop) == (min(numbers), max(numbers) + 1)
    for week in range(weeks.start - 2, weeks.stop + 3):
        earlier = [row for row in rows if row[2] < week_start(week)]
        assert sorted(triples(graph.before(week_cut(graph, week)))) == sorted(earlier)
        assert graph.since(week_cut(graph, week)).num_events == len(rows) - len(earlier)
    views = list(graph.snapshots("W"))
    assert len(views) == len(weeks)
    for week, view in zip(weeks, views, strict=True):
        own = graph.between(week_cut(graph, week), week_cut(graph, week + 1))
        assert triples(view) == triples(own)
        assert view.time_start == week_start(week)


@settings(max_examples=30, deadline=None)
@given(logs)
def test_targets_are_the_pairs_of_the_week(rows: Rows) -> None:
    graph = graph_of(rows)
    for week in range(-2, 11):
        own = {r[:2] for r in rows if week_start(week) <= r[2] < week_start(week + 1)}
        user, item = week_targets(graph, week)
        users, items = graph.raw_ids("user")[user], graph.raw_ids("item")[item]
        assert list(zip(users.tolist(), items.tolist(), strict=True)) == sorted(own)


@settings(max_examples=30, deadline=None)
@given(logs)
def test_adding_up_by_week_agrees_with_pandas(rows: Rows) -> None:
    graph = graph_of(rows)
    graph["user", "interacts", "item"].quantity = graph["user", "interacts", "item"].time % 7
    whole = by_week(graph)
    assert whole.validate()
    assert whole.raw_ids("user").tolist() == graph.raw_ids("user").tolist()
    assert whole.raw_ids("item").tolist() == graph.raw_ids("item").tolist()
    table = pd.DataFrame(rows, columns=["user", "item", "time"])
    table["week"] = (table["time"] - FIRST_MONDAY) // WEEK
    table["quantity"] = table["time"] % 7
    groups = table.groupby(["week", "user", "item"])["quantity"]
    out = whole.to_pandas()
    expected = groups.size().reset_index(name="count")
    start = np.maximum(FIRST_MONDAY + WEEK * expected["week"], 0)
    assert out["timestamp"].tolist() == start.tolist()
    assert out[["user_id", "item_id"]].to_numpy().tolist() == (
        expected[["user", "item"]].to_numpy().tolist()
    )
    store = whole["user", "interacts", "item"]
    assert store.edge_attr.view(-1).tolist() == expected["count"].tolist()
    amounts = by_week(graph, count="quantity")["user", "interacts", "item"].edge_attr
    assert amounts.view(-1).tolist() == groups.sum().tolist()
    # Once more changes nothing.
    again = by_week(whole, count="edge_attr")["user", "interacts", "item"]
    assert torch.equal(again.edge_attr, store.edge_attr)
    assert torch.equal(again.edge_index, store.edge_index)


def test_several_relations_are_one_week() -> None:
    table = pd.DataFrame(
        {
            "user_id": [0, 0, 1, 0],
            "item_id": [0, 0, 1, 1],
            "timestamp": [week_start(3), week_start(3) + 5, week_start(3), week_start(5)],
            "relation": ["views", "buys", "views", "buys"],
        }
    )
    graph = TemporalRecGraph.from_pandas(table, relation="relation")
    assert [t.tolist() for t in week_targets(graph, 3)] == [[0, 1], [0, 1]]
    assert [t.tolist() for t in week_targets(graph, 4)] == [[], []]
    assert week_range(graph) == range(3, 6)
    out = by_week(graph)
    assert out.interaction_types == [("user", "interacts", "item")]
    assert out["user", "interacts", "item"].edge_attr.tolist() == [[2.0], [1.0], [1.0]]


def test_an_empty_log_has_no_weeks() -> None:
    graph = graph_of([(0, 0, week_start(2))]).before(0)
    assert week_range(graph) == range(0)
    assert week_cut(graph, 2) == 0
    assert [t.tolist() for t in week_targets(graph, 2)] == [[], []]
    assert by_week(graph).num_events == 0


def test_unusable_arguments_are_named() -> None:
    graph = graph_of([(0, 0, 5), (0, 1, 6)])
    with pytest.raises(TypeError, match=r"'week' needs to be an integer \(got 2.0\)"):
        week_cut(graph, 2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'time' needs to be int64"):
        week_number(torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"'count' needs to name .*'event_id'.*got 'amount'"):
        by_week(graph, count="amount")
    graph["user", "interacts", "item"].code = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"one number per event"):
        by_week(graph, count="code")
    ordered = TemporalRecGraph.from_pandas(
        pd.DataFrame({"user_id": [0], "item_id": [0]}), time=None
    )
    for function in (by_week, week_range):
        with pytest.raises(ValueError, match="needs event times"):
            function(ordered)
    with pytest.raises(ValueError, match="needs event times"):
        week_cut(ordered, 1)
