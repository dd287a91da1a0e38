"""Splits against brute force: partitions, order, ties at the boundary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tgrec.data import Split, Targets, TemporalRecGraph, global_time_split, leave_one_out
from tgrec.testing import scramble_future, toy_graph

Row = tuple[int, int, int, str]
GraphOf = Callable[..., TemporalRecGraph]
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 8), st.sampled_from("ab")),
    min_size=3,
    max_size=50,
)


def ids(graph: TemporalRecGraph) -> set[int]:
    return {int(e) for t in graph.interaction_types for e in graph[t].event_id}


def rows_of(targets: Targets) -> list[tuple[int, ...]]:
    columns = [targets.user, targets.cut, targets.item]
    columns += [] if targets.time is None else [targets.time]
    return sorted(zip(*(c.tolist() for c in columns), strict=True))


def log_of(rows: list[Row], timed: bool = True) -> list[tuple[int, int, int, int]]:
    """(event id, user, item, time) as Python sorts them."""
    ordered = sorted(rows, key=lambda r: r[2]) if timed else rows
    return [(e, u, i, t) for e, (u, i, t, _) in enumerate(ordered)]


# ---- leave one out -------------------------------------------------------------------------------


@given(ROWS, st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_leave_one_out_by_brute_force(
    graph_of: GraphOf, rows: list[Row], relations: bool, timed: bool
) -> None:
    by_user = defaultdict(list)
    for event in log_of(rows, timed):
        by_user[event[1]].append(event)
    longest = max(len(events) for events in by_user.values())
    graph = graph_of(rows, relations and timed, timed)
    if longest < 3:
        with pytest.raises(ValueError, match="needs users with at least 3 events"):
            leave_one_out(graph)
        return
    split = leave_one_out(graph)
    held = [events[-2:] for events in by_user.values() if len(events) >= 3]
    for targets, place in ((split.val, 0), (split.test, 1)):
        wanted = sorted((e[place][1], e[place][0], e[place][2], e[place][3]) for e in held)
        assert rows_of(targets) == (wanted if timed else [w[:3] for w in wanted])
    assert ids(split.train) == set(range(len(rows))) - {e[0] for pair in held for e in pair}
    assert split.graph is graph
    assert split.train.validate()
    assert not split.cold_is_miss


def test_leave_one_out_on_the_toy_graph() -> None:
    split = leave_one_out(toy_graph())
    # ann: ... rye, jam (one second apart in the order of the rows); dan has one event.
    assert rows_of(split.test) == [
        (0, 9, 2, 1_000_780_000),
        (1, 7, 3, 1_000_166_400),
        (2, 11, 1, 1_000_880_000),
    ]
    assert [(u, c, i) for u, c, i, _ in rows_of(split.val)] == [(0, 8, 3), (1, 4, 1), (2, 5, 4)]
    assert ids(split.train) == {0, 1, 2, 3, 6, 10}
    assert split.train.num_users == 4


def test_leave_one_out_changes_neither_the_graph_nor_with_node_features() -> None:
    graph = toy_graph()
    before = graph.to_pandas()
    leave_one_out(graph)
    assert graph.to_pandas().equals(before)


def test_too_short_users_are_explained(graph_of: GraphOf) -> None:
    with pytest.raises(ValueError, match=r"at least 3 events .*; the longest of 5 has 2"):
        leave_one_out(graph_of([(0, 0, 0, "a"), (0, 1, 0, "a"), (1, 0, 3, "a")]))
    empty = toy_graph().before(0)
    with pytest.raises(ValueError, match="the longest of 4 has 0"):
        leave_one_out(empty)


# ---- global time split ---------------------------------------------------------------------------


@given(ROWS, st.booleans(), st.sampled_from([(0.1, 0.1), (0.2, 0.3), (0.25, 0.25), (0.4, 0.5)]))
@settings(max_examples=200, deadline=None)
def test_global_time_split_by_brute_force(
    graph_of: GraphOf, rows: list[Row], relations: bool, shares: tuple[float, float]
) -> None:
    log = log_of(rows)
    times = [e[3] for e in log]
    size, (val, test) = len(rows), shares
    t_test = times[min(size - 1, int(size * (1 - test)))]
    t_val = times[min(size - 1, int(size * (1 - test - val)))]
    graph = graph_of(rows, relations)
    if t_val == t_test or t_val == times[0]:
        with pytest.raises(ValueError, match="too many events share one time"):
            global_time_split(graph, val, test)
        return
    split = global_time_split(graph, val, test)
    assert ids(split.train) == {e[0] for e in log if e[3] < t_val}

    def last(lo: float, hi: float) -> list[tuple[int, ...]]:
        found = {e[1]: (e[1], e[0], e[2], e[3]) for e in log if lo <= e[3] < hi}
        return sorted(found.values())

    assert rows_of(split.val) == last(t_val, t_test)
    assert rows_of(split.test) == last(t_test, float("inf"))
    assert split.cold_is_miss


def test_ties_at_the_boundary_go_to_one_side(graph_of: GraphOf) -> None:
    # Ten events; the cut at 0.8 falls into the middle of five events of second 7.
    times = [1, 2, 3, 4, 7, 7, 7, 7, 7, 9]
    graph = graph_of([(k % 5, k % 7, t, "a") for k, t in enumerate(times)])
    with pytest.raises(ValueError, match=r"the cuts fall on 7 and 7; choose other shares or"):
        global_time_split(graph, val=0.2, test=0.2)
    split = global_time_split(graph, val=0.3, test=0.05)
    assert ids(split.train) == {0, 1, 2, 3}  # all of second 7 is validation
    assert sorted(split.val.cut.tolist()) == [4, 5, 6, 7, 8]
    assert split.test.cut.tolist() == [9]


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (0.0, 0.1, r"'val' needs to be a share in \(0, 1\) \(got 0.0\)"),
        (0.1, 1.0, r"'test' needs to be a share in \(0, 1\) \(got 1.0\)"),
        (-0.1, 0.1, r"'val' needs to be a share"),
        (float("nan"), 0.1, r"'val' needs to be a share in \(0, 1\) \(got nan\)"),
        (0.5, 0.5, r"leave nothing to train on \(got 0.5 \+ 0.5\)"),
    ],
)
def test_bad_shares_are_explained(val: float, test: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        global_time_split(toy_graph(), val, test)


def test_time_split_needs_times_and_events(graph_of: GraphOf) -> None:
    with pytest.raises(ValueError, match="needs event times, and this graph has only an order"):
        global_time_split(graph_of([(0, 0, 0, "a")] * 3, timed=False))
    with pytest.raises(ValueError, match=r"at least 3 events \(got 2\)"):
        global_time_split(graph_of([(0, 0, 0, "a"), (0, 1, 2, "a")]))
    bare = TemporalRecGraph()
    bare["user"].num_nodes = bare["item"].num_nodes = 1
    with pytest.raises(ValueError, match=r"the graph has no events|needs event times"):
        leave_one_out(bare)


# ---- both ----------------------------------------------------------------------------------------


def both(graph: TemporalRecGraph) -> list[Split]:
    out = []
    for split in (leave_one_out, global_time_split):
        try:
            out.append(split(graph))
        except ValueError:
            continue
    return out


@given(ROWS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_parts_never_overlap_and_follow_each_other(
    graph_of: GraphOf, rows: list[Row], relations: bool
) -> None:
    graph = graph_of(rows, relations)
    splits = both(graph)
    assume(splits)
    for split in splits:
        val, test = set(split.val.cut.tolist()), set(split.test.cut.tolist())
        train = ids(split.train)
        assert not val & test
        assert not train & (val | test)
        assert train | val | test <= ids(graph)
        assert len(val) == len(split.val)
        assert len(set(split.test.user.tolist())) == len(split.test)  # one target a user
        last_train: dict[int, int] = {}
        for t in split.train.interaction_types:
            users = split.train[t].edge_index[0].tolist()
            for user, event in zip(users, split.train[t].event_id.tolist(), strict=True):
                last_train[user] = max(event, last_train.get(user, -1))
        cuts = dict(zip(split.val.user.tolist(), split.val.cut.tolist(), strict=True))
        for user, cut in zip(split.test.user.tolist(), split.test.cut.tolist(), strict=True):
            assert last_train.get(user, -1) < cuts.get(user, cut)
            assert cuts.get(user, -1) < cut
        if split.cold_is_miss:
            assert max(train) < min(val)
            assert max(val) < min(test)


@given(ROWS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_refit_trains_on_what_is_before_the_test_and_on_nothing_else(
    graph_of: GraphOf, rows: list[Row], relations: bool
) -> None:
    splits = both(graph_of(rows, relations))
    assume(splits)
    for split in splits:
        refit = split.with_validation()
        test = set(split.test.cut.tolist())
        added = ids(refit.train) - ids(split.train)
        if split.cold_is_miss:  # all of the interval, whoever is asked there
            end = max(ids(split.train) | set(split.val.cut.tolist()))
            assert ids(refit.train) == set(range(len(ids(refit.train))))
            assert end in ids(refit.train)
            assert max(ids(refit.train)) < min(test)
        else:
            assert added == set(split.val.cut.tolist())
            assert ids(refit.train) == ids(split.graph) - test
        assert set(split.val.cut.tolist()) <= added
        assert len(refit.val) == 0
        assert refit.test is split.test
        assert refit.graph is split.graph
        assert refit.train.validate()
        assert ids(refit.with_validation().train) == ids(refit.train)


def test_a_refit_that_would_have_seen_what_it_is_asked_is_refused() -> None:
    split = leave_one_out(toy_graph())
    for wrong in (
        replace(split, val=split.test),
        replace(split, train=split.graph),
        replace(split, val_events=torch.cat([split.val.cut, split.test.cut[:1]])),
    ):
        with pytest.raises(ValueError, match="not before the test target of their user"):
            wrong.with_validation()


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_a_split_is_a_function_of_its_graph(graph_of: GraphOf, rows: list[Row]) -> None:
    for one, two in zip(both(graph_of(rows)), both(graph_of(rows)), strict=True):
        assert rows_of(one.test) == rows_of(two.test)
        assert rows_of(one.val) == rows_of(two.val)
        assert ids(one.train) == ids(two.train)


def test_train_of_a_time_split_knows_nothing_of_the_future(graph_of: GraphOf) -> None:
    graph = graph_of([(k % 5, k % 7, k, "a") for k in range(40)])
    split = global_time_split(graph, 0.2, 0.2)
    cut = max(ids(split.train)) + 1
    assert ids(split.train) == set(range(cut))
    assert cut < int(split.val.cut.min()) < int(split.test.cut.min())
    past = scramble_future(graph, cut).before(cut)
    assert past.to_pandas().equals(split.train.to_pandas())


def test_targets_are_selected_by_rows_and_masks() -> None:
    test = leave_one_out(toy_graph()).test
    assert rows_of(test.select(torch.tensor([2, 0]))) == rows_of(test.select(test.user != 1))
    assert len(test.select(torch.zeros(3, dtype=torch.bool))) == 0
    assert len(test.to("cpu")) == 3


def test_a_time_split_of_one_kind_of_event_by_hand() -> None:
    """20 events of two kinds in turn: the intervals hold events 14 to 16 and 17 to 19."""
    rows = [(n % 4, n % 5 + 5 * (n % 2), n, "ab"[n % 2]) for n in range(20)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "time", "kind"])
    graph = TemporalRecGraph.from_pandas(table, relation="kind", time="time")
    split = global_time_split(graph, val=0.15, test=0.15, relation="b")
    assert split.val.cut.tolist() == [15]
    assert sorted(split.test.cut.tolist()) == [17, 19]
    assert split.train.num_events == 14
    assert split.candidates is not None
    assert split.candidates.nonzero().view(-1).tolist() == sorted(
        graph.index_of("item", list(range(5, 10))).tolist()
    )
    with pytest.raises(ValueError, match="'relation' needs to be one of .'a', 'b'. .got 'c'"):
        global_time_split(graph, relation="c")
    late = table.assign(kind=["a"] * 14 + ["b"] * 3 + ["a"] * 3)
    graph = TemporalRecGraph.from_pandas(late, relation="kind", time="time")
    with pytest.raises(ValueError, match="'b' has 3 events in the validation interval and 0"):
        global_time_split(graph, val=0.15, test=0.15, relation="b")
