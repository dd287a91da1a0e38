"""What people put on batches of PyG works on ours: to_hetero, layer trimming, explanations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import NodeLoader
from torch_geometric.nn import HeteroConv, SAGEConv, to_hetero
from torch_geometric.utils import trim_to_layer

from tgrec.data import TemporalRecGraph, reverse_type, with_reverse
from tgrec.loader import link_neighbor_loader
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.testing import scramble_future

VIEWS, BUYS = ("user", "views", "item"), ("user", "buys", "item")
TYPES = [VIEWS, BUYS, reverse_type(VIEWS), reverse_type(BUYS)]


class Homogeneous(nn.Module):
    """Two SAGE layers as PyG's tutorials write them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = SAGEConv((-1, -1), 8), SAGEConv((-1, -1), 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.two(self.one(x, edge_index).relu(), edge_index)


class Layers(nn.Module):
    """Three SAGE layers, each of which may leave out what no seed hears of any more."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            HeteroConv({t: SAGEConv((-1, -1), 8) for t in TYPES}) for _ in range(3)
        )

    def forward(
        self, x: dict[str, Tensor], edges: dict[Any, Tensor], batch: HeteroData | None = None
    ) -> dict[str, Tensor]:
        for layer, conv in enumerate(self.convs):
            if batch is not None:
                x, edges, _ = trim_to_layer(
                    layer, batch.num_sampled_nodes_dict, batch.num_sampled_edges_dict, x, edges
                )
            x = {t: h.relu() for t, h in conv(x, edges).items()}
        return x


class Score(nn.Module):
    """The summed output of each user."""

    def __init__(self, model: Layers) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: dict[str, Tensor], edges: dict[Any, Tensor]) -> Tensor:
        return self.model(x, edges)["user"].sum(-1, keepdim=True)


def events_of(graph: TemporalRecGraph) -> TemporalRecGraph:
    """Without the derived edges, which the models here do not know."""
    return graph.between(0, graph.num_events)


def user_loader(
    graph: TemporalRecGraph, cut: Tensor, sizes: list[int], batch_size: int, **kwargs: Any
) -> NodeLoader:
    return NodeLoader(
        with_reverse(graph),
        node_sampler=TemporalNeighborSampler(EventIndex(graph), sizes, **kwargs),
        input_nodes=("user", torch.arange(30).repeat(3)[: cut.numel()]),
        input_time=cut,
        batch_size=batch_size,
    )


def build(graph: TemporalRecGraph) -> Layers:
    torch.manual_seed(0)
    model = Layers()
    cut = torch.full((30,), graph.num_events)
    batch = next(iter(user_loader(graph, cut, [2, 2, 2], 30)))
    with torch.no_grad():
        model(batch.x_dict, batch.edge_index_dict)  # infers the sizes
    return model.eval()


def test_to_hetero_trains_on_links(shop: TemporalRecGraph) -> None:
    graph = events_of(shop)
    torch.manual_seed(0)
    model = to_hetero(Homogeneous(), with_reverse(graph).metadata())
    loader = link_neighbor_loader(graph, num_neighbors=[4, 4], relation="views", batch_size=32)
    batch = next(iter(loader))
    with torch.no_grad():
        model(batch.x_dict, batch.edge_index_dict)
    adam, losses = torch.optim.Adam(model.parameters(), lr=0.02), []
    for _ in range(20):
        out = model(batch.x_dict, batch.edge_index_dict)
        left, right = batch[VIEWS].edge_label_index
        score = (out["user"][left] * out["item"][right]).sum(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(score, batch[VIEWS].edge_label)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("hop_time", ["seed", "edge"])
@pytest.mark.parametrize("strategy", ["last", "uniform"])
def test_trimming_changes_no_seed(shop: TemporalRecGraph, strategy: str, hop_time: str) -> None:
    graph = events_of(shop)
    model, cut = build(graph), torch.arange(60) * 3
    loader = user_loader(graph, cut, [3, 2, 2], 20, strategy=strategy, hop_time=hop_time)
    for batch in loader:
        with torch.no_grad():
            whole = model(batch.x_dict, batch.edge_index_dict)["user"][:20]
            trimmed = model(batch.x_dict, batch.edge_index_dict, batch)["user"]
        assert trimmed.size(0) == 20  # nothing but the seeds is left
        assert torch.allclose(trimmed, whole, atol=1e-6)
        assert whole.std() > 0.01
    for link_batch in link_neighbor_loader(graph, num_neighbors=[3, 2, 2], relation="views"):
        with torch.no_grad():
            whole = model(link_batch.x_dict, link_batch.edge_index_dict)
            trimmed = model(link_batch.x_dict, link_batch.edge_index_dict, link_batch)
        for t in ("user", "item"):
            size = link_batch[t].num_sampled_nodes[0]
            assert trimmed[t].size(0) < whole[t].size(0)
            assert torch.allclose(trimmed[t][:size], whole[t][:size], atol=1e-6)


@pytest.mark.parametrize("asked", ["binary", "triplet", None])
def test_shared_last_nodes_change_no_output(
    shop: TemporalRecGraph, check_batch: Any, asked: Any
) -> None:
    graph = events_of(shop)
    model = build(graph)
    loaders = [
        link_neighbor_loader(
            graph,
            num_neighbors=[3, 2, 2],
            relation="views",
            neg_sampling=asked,
            disjoint=disjoint,
            batch_size=32,
        )
        for disjoint in (True, False)
    ]
    for trees, merged in zip(*loaders, strict=True):
        check_batch(merged, graph)
        assert merged.num_nodes < 0.7 * trees.num_nodes
        assert "batch" not in merged["user"]
        with torch.no_grad():
            wanted = model(trees.x_dict, trees.edge_index_dict)
            outs = [model(merged.x_dict, merged.edge_index_dict, b) for b in (None, merged)]
        for t in ("user", "item"):
            size = trees[t].num_sampled_nodes[0]
            for out in outs:
                assert torch.allclose(out[t][:size], wanted[t][:size], atol=1e-6)


@pytest.mark.parametrize("strategy", ["last", "uniform"])
def test_an_output_does_not_depend_on_its_batch(shop: TemporalRecGraph, strategy: str) -> None:
    graph = events_of(shop)
    model, cut = build(graph), torch.arange(64) * 3
    found = []
    for size in (1, 64):
        loader = user_loader(graph, cut, [3, 2, 2], size, strategy=strategy)
        with torch.no_grad():
            outs = [model(b.x_dict, b.edge_index_dict)["user"][:size] for b in loader]
        found.append(torch.cat(outs))
    assert torch.allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("hop_time", ["seed", "edge"])
def test_the_future_changes_not_a_bit_of_an_output(shop: TemporalRecGraph, hop_time: str) -> None:
    graph = events_of(shop)
    model = build(graph)
    for cut in (40, 120, graph.num_events):
        found = []
        for g in (graph, scramble_future(graph, cut, seed=cut)):
            loader = user_loader(g, torch.full((30,), cut), [4, 3, 2], 30, hop_time=hop_time)
            with torch.no_grad():
                (batch,) = loader
                found.append(model(batch.x_dict, batch.edge_index_dict)["user"][:30])
        assert torch.equal(*found)


def test_an_explainer_runs_on_a_batch(shop: TemporalRecGraph) -> None:
    graph = events_of(shop)
    loader = user_loader(graph, torch.full((1,), graph.num_events), [3, 2, 2], 1)
    (batch,) = loader
    explainer = Explainer(
        Score(build(graph)),
        GNNExplainer(epochs=5),
        explanation_type="model",
        edge_mask_type="object",
        node_mask_type="attributes",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    found = explainer(batch.x_dict, batch.edge_index_dict, index=0)
    for t in TYPES:
        assert found[t].edge_mask.shape == (batch[t].edge_index.size(1),)
    assert any(found[t].edge_mask.any() for t in TYPES)
    for t in ("user", "item"):
        assert found[t].node_mask.shape == batch[t].x.shape
