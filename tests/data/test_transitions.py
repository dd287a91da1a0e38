"""Counted transitions against a nested loop in Python."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.data.transitions import add_transitions, transition_types
from tgrec.testing import scramble_future, toy_graph

Row = tuple[int, int, int, str]
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 60), st.sampled_from("ab")),
    min_size=1,
    max_size=40,
)


def graph_of(rows: list[Row], relations: bool = False, timed: bool = True) -> TemporalRecGraph:
    return TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"]),
        time="timestamp" if timed else None,
        relation="kind" if relations else None,
        items=pd.DataFrame({"item_id": range(5)}),
    )


def brute(
    rows: list[Row], max_lag: int, decay: float, gaps: tuple[int, ...], timed: bool
) -> dict[tuple[int, int, int], float]:
    """(class, source, target) -> weight."""
    walks = defaultdict(list)
    for user, item, time, _ in sorted(rows, key=lambda r: r[2]) if timed else rows:
        walks[user].append((item, time))
    total: dict[tuple[int, int, int], float] = defaultdict(float)
    for walk in walks.values():
        for q in range(len(walk)):
            for r in range(q + 1, min(len(walk), q + max_lag + 1)):
                elapsed = walk[r][1] - walk[q][1]
                kind = sum(1 for bound in gaps if elapsed >= bound) - 1 if gaps else 0
                total[kind, walk[q][0], walk[r][0]] += decay ** (r - q - 1)
    return total


def counted(graph: TemporalRecGraph, gaps: tuple[int, ...]) -> dict[tuple[int, int, int], float]:
    out = {}
    for code, edge_type in enumerate(transition_types("next", len(gaps))):
        store = graph[edge_type]
        pairs = store.edge_index.t().tolist()
        assert pairs == sorted(pairs)  # by (source, target)
        assert len({tuple(p) for p in pairs}) == len(pairs)
        for (source, target), weight in zip(pairs, store.edge_weight.tolist(), strict=True):
            out[code, source, target] = weight
    return out


@given(
    ROWS,
    st.integers(1, 6),
    st.sampled_from([1.0, 0.75, 0.5]),
    st.sampled_from([(), (0,), (0, 1, 30), (0, 5)]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_counts_by_brute_force(
    rows: list[Row], max_lag: int, decay: float, gaps: tuple[int, ...], relations: bool
) -> None:
    graph = add_transitions(graph_of(rows, relations), max_lag, decay, gaps)
    wanted = brute(rows, max_lag, decay, gaps, timed=True)
    found = counted(graph, gaps)
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=1e-5)


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_order_alone_is_enough_without_gaps(rows: list[Row]) -> None:
    graph = add_transitions(graph_of(rows, timed=False), 3, 0.5)
    assert counted(graph, ()) == pytest.approx(brute(rows, 3, 0.5, (), timed=False), rel=1e-5)


def test_longest_lag_and_long_walks() -> None:
    rows = [(0, k % 5, k, "a") for k in range(300)]
    graph = add_transitions(graph_of(rows), 255, 0.99)
    wanted = brute(rows, 255, 0.99, (), timed=True)
    assert counted(graph, ()) == pytest.approx(wanted, rel=1e-4)


def test_new_edges_are_derived_and_the_graph_is_left_alone() -> None:
    graph = toy_graph()
    out = add_transitions(graph, 1, 1.0)
    assert graph.edge_types == [("user", "rates", "item")]
    assert out.interaction_types == [("user", "rates", "item")]
    assert out.before(99).edge_types == [("user", "rates", "item")]  # slices drop them
    assert out.validate()
    rates = ("user", "rates", "item")
    assert out[rates].time.data_ptr() == graph[rates].time.data_ptr()
    # tea -> ham twice (ann, bob); see the drawing.
    store = out["item", "next", "item"]
    weight = dict(
        zip(map(tuple, store.edge_index.t().tolist()), store.edge_weight.tolist(), strict=True)
    )
    assert weight[4, 1] == 3.0  # ann, bob, and cat at the very end
    assert weight[3, 2] == 1.0
    assert (2, 3) not in weight


def test_counts_of_training_events_do_not_see_the_future() -> None:
    graph = toy_graph()
    train = leave_one_out(graph).train
    cut = 8
    one, two = (
        counted(add_transitions(g.before(cut), 3, 0.5, (0, 60)), (0, 60))
        for g in (graph, scramble_future(graph, cut))
    )
    assert one == two
    assert sum(counted(add_transitions(train, 9, 1.0), ()).values()) < sum(
        counted(add_transitions(graph, 9, 1.0), ()).values()
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_lag": 0}, r"'max_lag' needs to be in 1..255 \(got 0\)"),
        ({"max_lag": 256}, r"'max_lag' needs to be in 1..255 \(got 256\)"),
        ({"decay": 0.0}, r"'decay' needs to be in \(0, 1\] \(got 0.0\)"),
        ({"decay": 1.5}, r"'decay' needs to be in"),
        ({"gaps": (0, 30, 1)}, r"'gaps' needs to ascend from 0 \(got \(0, 30, 1\)\)"),
        ({"gaps": (1, 30)}, r"'gaps' needs to ascend from 0"),
        ({"gaps": (0, 0)}, r"'gaps' needs to ascend from 0"),
    ],
)
def test_bad_arguments_are_explained(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_transitions(toy_graph(), **{"max_lag": 2, "decay": 0.5, **kwargs})  # type: ignore[arg-type]


def test_gaps_need_times() -> None:
    graph = graph_of([(0, 0, 0, "a"), (0, 1, 0, "a")], timed=False)
    with pytest.raises(
        ValueError, match="'gaps' needs event times, and this graph has only an order"
    ):
        add_transitions(graph, 2, 0.5, (0, 1))


def test_weights_are_float32_and_ids_int64() -> None:
    store = add_transitions(toy_graph(), 2, 0.5)["item", "next", "item"]
    assert store.edge_index.dtype == torch.int64
    assert store.edge_weight.dtype == torch.float32
