"""The neighbourhood of one user, against a search that walks event by event."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph
from tgrec.data.convert import id_array
from tgrec.testing import toy_graph

Row = tuple[int, int, int, str]
Node = tuple[str, int]
# Few users, items and seconds: the same two meet often, and almost everything ties.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.sampled_from(["buy", "view"])
    ),
    min_size=1,
    max_size=40,
)


def graph_of(rows: list[Row], relations: bool) -> TemporalRecGraph:
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"])
    table["user_id"] += 100  # raw ids are not node numbers
    return TemporalRecGraph.from_pandas(
        table,
        relation="kind" if relations else None,
        users=pd.DataFrame({"user_id": range(105, 99, -1), "age": [5, 4, 3, 2, 1, 0]}),
        items=pd.DataFrame({"item_id": range(6), "title": [f"title {i}" for i in range(6)]}),
    )


def search(
    graph: TemporalRecGraph, user: int, hops: int, cut: int | None, max_events: int | None
) -> tuple[dict[Node, int], set[int]]:
    """Breadth first, event by event: the hop of every node reached, and the events walked over."""
    at: dict[Node, list[tuple[int, Node]]] = defaultdict(list)
    for row in graph.to_pandas().to_dict("records"):
        if cut is None or row["event_id"] < cut:
            ends: tuple[Node, Node] = ("user", row["user_id"]), ("item", row["item_id"])
            at[ends[0]].append((row["event_id"], ends[1]))
            at[ends[1]].append((row["event_id"], ends[0]))
    reached: dict[Node, int] = {("user", user): 0}
    queue: list[Node] = [("user", user)]
    walked: set[int] = set()
    for node in queue:  # grows while it is read
        if reached[node] == hops:
            continue
        latest = sorted(at[node], reverse=True)[:max_events]
        for event, other in latest:
            walked.add(event)
            if other not in reached:
                reached[other] = reached[node] + 1
                queue.append(other)
    return reached, walked


def hops_of(graph: TemporalRecGraph) -> dict[tuple[str, Any], int]:
    return {
        (node_type, raw): hop
        for node_type in ("user", "item")
        for raw, hop in zip(
            id_array(graph.raw_ids(node_type)).tolist(), graph[node_type].hops.tolist(), strict=True
        )
    }


@given(
    ROWS,
    st.integers(100, 105),
    st.integers(0, 5),
    st.none() | st.integers(-1, 45),
    st.none() | st.integers(1, 4),
    st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_it_is_what_a_search_event_by_event_finds(
    rows: list[Row],
    user: int,
    hops: int,
    cut: int | None,
    max_events: int | None,
    relations: bool,
) -> None:
    graph = graph_of(rows, relations)
    found = graph.ego(user, hops, cut, max_events)
    reached, walked = search(graph, user, hops, cut, max_events)
    assert found.validate()
    assert hops_of(found) == reached
    # The kept events are those of the whole graph, raw ids, times and kinds included.
    whole = graph.to_pandas()
    expected = whole[whole["event_id"].isin(walked)].reset_index(drop=True)
    assert found.to_pandas().to_dict("records") == expected.to_dict("records")
    assert found.interaction_types == graph.interaction_types


@given(ROWS, st.integers(100, 105), st.integers(0, 5), st.none() | st.integers(0, 45))
@settings(max_examples=50, deadline=None)
def test_every_event_between_reached_nodes_is_there(
    rows: list[Row], user: int, hops: int, cut: int | None
) -> None:
    graph = graph_of(rows, relations=False)
    found = graph.ego(user, hops, cut)
    users, items = (id_array(found.raw_ids(t)).tolist() for t in ("user", "item"))
    whole = graph.to_pandas()
    seen = whole[whole["user_id"].isin(users) & whole["item_id"].isin(items)]
    if cut is not None:
        seen = seen[seen["event_id"] < cut]
    assert found.to_pandas()["event_id"].tolist() == seen["event_id"].tolist()


def test_by_hand() -> None:
    graph = toy_graph()
    one = graph.ego("ann")
    assert one.raw_ids("user") == ["ann"]
    assert one.raw_ids("item") == ["fig", "ham", "jam", "rye", "tea"]
    assert one["user", "rates", "item"].event_id.tolist() == [0, 2, 6, 8, 9]
    assert one["item"].hops.tolist() == [1] * 5
    # ann's events before event 3 are with tea and ham, whose events are 0, 1 and 2: bob's tea.
    two = graph.ego("ann", hops=2, cut=3)
    assert (two.raw_ids("user"), two.raw_ids("item")) == (["ann", "bob"], ["ham", "tea"])
    assert two["user", "rates", "item"].event_id.tolist() == [0, 1, 2]
    assert two["user"].hops.tolist() == [0, 2]
    # The latest event of ann is jam (9); jam's latest is dan's (10), and dan has no other.
    latest = graph.ego("ann", hops=9, max_events=1)
    assert latest["user", "rates", "item"].event_id.tolist() == [9, 10]
    assert hops_of(latest) == {("user", "ann"): 0, ("item", "jam"): 1, ("user", "dan"): 2}


def test_a_user_alone() -> None:
    graph = toy_graph()
    for alone in (
        graph.ego("dan", hops=0),
        graph.ego("dan", hops=3, cut=0),
        graph.ego("dan", cut=-5),
    ):
        assert alone.validate()
        assert hops_of(alone) == {("user", "dan"): 0}
        assert alone.num_events == 0
        assert alone.has_time
        assert list(alone.to_networkx().nodes(data=True)) == [(("user", "dan"), {"hops": 0})]
    assert graph.ego("dan", hops=40, cut=10**9).num_events == 12


def test_features_titles_and_networkx_come_along() -> None:
    graph = graph_of(
        [(0, 1, 0, "buy"), (0, 4, 1, "buy"), (3, 4, 2, "view"), (2, 2, 3, "view")], True
    )
    graph["item"].genre = torch.arange(12).view(6, 2)
    graph["item", "next", "item"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    found = graph.ego(100, hops=2)
    assert found["user"].age.tolist() == [3, 0]  # of 103 and 100, in the order of the table
    assert found.strings("item", "title") == ["title 1", "title 4"]
    assert found["item"].genre.tolist() == [[2, 3], [8, 9]]
    assert found.edge_types == graph.interaction_types  # derived edges know no cut
    net = found.to_networkx()
    assert net.nodes["user", 103] == {"age": 3, "hops": 2}
    assert net.nodes["item", 4] == {"title": "title 4", "hops": 1}
    assert sorted(event for *_, event in net.edges(keys=True)) == [0, 1, 2]
    again = TemporalRecGraph.from_networkx(net)
    assert again["item"].hops.tolist() == [1, 1]
    assert "hops" not in graph["item"]  # nothing flows back
    assert graph.ego(103, hops=1).ego(103, hops=0)["user"].hops.tolist() == [0]


def test_nodes_without_raw_ids_keep_their_numbers() -> None:
    graph = TemporalRecGraph()
    graph["user"].num_nodes, graph["item"].num_nodes = 5, 7
    store = graph["user", "rates", "item"]
    store.edge_index = torch.tensor([[3, 1, 3], [6, 6, 2]])
    store.event_id = torch.tensor([4, 8, 9])  # a slice of a longer log
    found = graph.ego(3, hops=2, cut=9)
    assert hops_of(found) == {("user", 3): 0, ("user", 1): 2, ("item", 6): 1}
    assert found["user", "rates", "item"].event_id.tolist() == [4, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": "eve"}, r"'user' needs to be the raw id of one user .*got 'eve'"),
        ({"user": 3}, r"'user' .*got 3"),
        ({"user": ["ann", "bob"]}, r"'user' .*got \['ann', 'bob'\]"),
        ({"hops": -1}, r"'hops' needs to be an integer of at least 0 \(got -1\)"),
        ({"hops": 1.5}, r"'hops' .*got 1\.5"),
        ({"max_events": 0}, r"'max_events' needs to be an integer of at least 1 \(got 0\)"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_graph().ego(**{"user": "ann", **arguments})


def test_a_mini_batch_has_no_neighbourhood() -> None:
    batch = toy_graph()
    batch["user"].n_id = torch.arange(4)
    with pytest.raises(ValueError, match="needs the whole graph"):
        batch.ego("ann")


def test_a_large_log_is_walked_at_once() -> None:
    draw = torch.Generator().manual_seed(0)
    graph = TemporalRecGraph()
    graph["user"].num_nodes = graph["item"].num_nodes = 50_000
    store = graph["user", "rates", "item"]
    store.edge_index = torch.randint(50_000, (2, 1_000_000), generator=draw)
    store.event_id = torch.arange(1_000_000)
    start = time.perf_counter()
    found = graph.ego(7, hops=4, max_events=20)
    # Twenty milliseconds a step; walking node by node takes minutes.
    assert time.perf_counter() - start < 5
    assert found.num_events > 1_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_the_same_on_a_gpu() -> None:
    graph = graph_of([(k * 7 % 6, k * 5 % 6, k // 4, "view") for k in range(40)], relations=False)
    for arguments in ({"hops": 3}, {"hops": 2, "max_events": 2, "cut": 30}):
        here = graph.ego(100, **arguments)
        there = graph.clone().to("cuda").ego(100, **arguments)
        assert there["user"].hops.is_cuda
        assert there.to_pandas().equals(here.to_pandas())
        assert hops_of(there.to("cpu")) == hops_of(here)
