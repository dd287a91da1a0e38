"""A TemporalRecGraph is a HeteroData: what PyG does to one, it does to the other."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch, HeteroData
from torch_geometric.transforms import BaseTransform

from tgrec.data import TemporalRecGraph
from tgrec.testing import toy_graph

RATES = ("user", "rates", "item")


def test_copies_are_equal_and_of_the_class() -> None:
    graph = toy_graph()
    for other in (copy.copy(graph), copy.deepcopy(graph), graph.clone(), graph.to("cpu")):
        assert type(other) is TemporalRecGraph
        assert other.to_pandas().equals(graph.to_pandas())
        assert other.validate()
    deep = copy.deepcopy(graph)
    deep[RATES].time += 1
    assert deep[RATES].time[0] == graph[RATES].time[0] + 1  # the copy is its own


def test_moving_to_another_device_moves_everything() -> None:
    moved = toy_graph().to("meta")
    assert type(moved) is TemporalRecGraph
    tensors = [v for s in moved.stores for v in s.values() if isinstance(v, torch.Tensor)]
    assert tensors
    assert all(t.device.type == "meta" for t in tensors)


def test_to_undirected_adds_reverses_that_are_no_events() -> None:
    graph = toy_graph()
    both = T.ToUndirected()(copy.copy(graph))
    assert type(both) is TemporalRecGraph
    assert ("item", "rev_rates", "user") in both.edge_types
    assert both.interaction_types == [RATES]
    assert both.num_events == graph.num_events
    reverse = both["item", "rev_rates", "user"]
    assert torch.equal(reverse.time, graph[RATES].time)  # a reverse edge is as old as its twin
    assert torch.equal(reverse.event_id, graph[RATES].event_id)
    assert both.validate()
    assert both.before(3).edge_types == [RATES]


@pytest.mark.parametrize(
    "transform",
    [
        T.Constant(),
        T.NormalizeFeatures(),
        T.RemoveDuplicatedEdges(),
        T.ToDevice("cpu"),
    ],
    ids=lambda t: type(t).__name__,
)
def test_stock_transforms_accept_it(transform: BaseTransform) -> None:
    graph = toy_graph()
    graph["user"].x, graph["item"].x = torch.rand(4, 2), torch.rand(5, 2)
    out = transform(copy.copy(graph))
    assert type(out) is TemporalRecGraph
    assert out.interaction_types == [RATES]
    assert out.num_users == 4


def test_events_can_be_split_by_pyg_too() -> None:
    split = T.RandomLinkSplit(
        num_val=0.2, num_test=0.2, edge_types=RATES, add_negative_train_samples=False
    )
    train, val, test = split(toy_graph())
    assert all(isinstance(part, TemporalRecGraph) for part in (train, val, test))


def test_subgraphs_and_batches() -> None:
    graph = toy_graph()
    part = graph.subgraph({"user": torch.tensor([0, 1]), "item": torch.tensor([1, 4])})
    assert type(part) is TemporalRecGraph
    assert part[RATES].event_id.tolist() == [0, 1, 2, 4]
    pair = Batch.from_data_list([graph, graph])
    assert pair["user"].num_nodes == 8
    assert pair[0][RATES].event_id.tolist() == list(range(12))


def test_homogeneous_view_keeps_the_clocks() -> None:
    flat = toy_graph().to_homogeneous()
    assert flat.num_nodes == 9
    assert flat.event_id.tolist() == list(range(12))


def test_a_sampled_mini_batch_is_not_a_log() -> None:
    graph = copy.copy(toy_graph())
    graph["user"].n_id = torch.arange(4)
    for call in (
        lambda: graph.before(3),
        lambda: graph.raw_ids("user"),
        lambda: graph.event_id_at(3),
        lambda: list(graph.snapshots()),
        lambda: graph.select_events(torch.ones(12, dtype=torch.bool)),
        lambda: graph.drop_isolated(),
    ):
        with pytest.raises(ValueError, match="needs the whole graph, this is a sampled mini-batch"):
            call()


def test_plain_hetero_data_and_back() -> None:
    graph = toy_graph()
    plain = graph.to_hetero()
    assert type(plain) is HeteroData
    back = TemporalRecGraph.from_hetero(plain)
    assert back.to_pandas().equals(graph.to_pandas())
    assert back.raw_ids("item") == graph.raw_ids("item")
