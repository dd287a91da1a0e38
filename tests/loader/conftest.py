"""A small shop with everything a batch may carry."""

from __future__ import annotations

import pytest
import torch

from tgrec.data import TemporalRecGraph, reverse_type
from tgrec.testing import noise_graph

VIEWS, BUYS, NEXT = ("user", "views", "item"), ("user", "buys", "item"), ("item", "next", "item")


def make_shop() -> TemporalRecGraph:
    """Two kinds of events in one order, features of nodes and events, and derived edges."""
    draw = torch.Generator().manual_seed(0)
    log = noise_graph(num_users=30, num_items=12, length=(2, 14), seed=1)
    (kind,) = log.interaction_types
    whole = log[kind]
    graph = TemporalRecGraph()
    graph["user"].num_nodes, graph["item"].num_nodes = 30, 12
    graph["user"].x = torch.rand(30, 6, generator=draw)
    graph["item"].x = torch.rand(12, 4, generator=draw)
    graph["item"].price = torch.rand(12, generator=draw)
    bought = torch.rand(whole.event_id.numel(), generator=draw) < 0.3
    for edge_type, rows in ((VIEWS, ~bought), (BUYS, bought)):
        store, size = graph[edge_type], int(rows.sum())
        store.edge_index = whole.edge_index[:, rows]
        store.event_id, store.time = whole.event_id[rows], whole.time[rows]
        store.rating = torch.rand(size, generator=draw)
        store.edge_attr = torch.rand(size, 3, generator=draw)
    graph[NEXT].edge_index = torch.randint(12, (2, 40), generator=draw)
    graph[NEXT].edge_weight = torch.rand(40, generator=draw)
    assert graph.validate()
    return graph


@pytest.fixture
def shop() -> TemporalRecGraph:
    return make_shop()


def check(batch: TemporalRecGraph, graph: TemporalRecGraph) -> int:
    """Everything in a batch stands as it does in the graph; returns the number of edges."""
    for node_type in ("user", "item"):
        store, whole = batch[node_type], graph[node_type]
        assert store.num_nodes == store.n_id.numel()
        for key in ("x", "price"):
            if key in whole:
                assert torch.equal(store[key], whole[key][store.n_id])
    edges = 0
    kinds = {t: (t, False) for t in graph.edge_types}
    kinds |= {reverse_type(t): (t, True) for t in graph.interaction_types}
    assert set(batch.edge_types) == set(kinds)
    for edge_type, (stored, flipped) in kinds.items():
        store, whole = batch[edge_type], graph[stored]
        row, col = store.edge_index
        ends = torch.stack([batch[edge_type[0]].n_id[row], batch[edge_type[2]].n_id[col]])
        if store.e_id.numel():
            assert torch.equal(ends.flip(0) if flipped else ends, whole.edge_index[:, store.e_id])
        for key in ("event_id", "time", "rating", "edge_attr", "edge_weight"):
            if key in whole:
                assert torch.equal(store[key], whole[key][store.e_id])
        edges += row.numel()
    return edges


@pytest.fixture(scope="session")
def check_batch():  # type: ignore[no-untyped-def]
    """:func:`check` for the tests of this folder."""
    return check
