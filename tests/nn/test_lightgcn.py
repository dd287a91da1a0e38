"""LightGCN's propagation: by hand, against PyG's on whole graphs, and on sampled batches."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import LightGCN as StockLightGCN

from tgrec.data import with_reverse
from tgrec.nn.lightgcn import EdgeType, LightGCNEncoder
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.testing import noise_graph

FORWARD, BACK = ("user", "rates", "item"), ("item", "rev_rates", "user")


def test_one_layer_by_hand() -> None:
    """User 0 met items 0 and 1, user 1 item 1, item 2 nobody."""
    pairs = torch.tensor([[0, 0, 1], [0, 1, 1]])
    x = {"user": torch.tensor([[2.0], [4.0]]), "item": torch.tensor([[1.0], [3.0], [8.0]])}
    out = LightGCNEncoder(1)(x, {FORWARD: pairs, BACK: pairs.flip(0)})
    user = [1 / sqrt(2) + 3 / 2, 3 / sqrt(2)]
    item = [2 / sqrt(2), 2 / 2 + 4 / sqrt(2), 0]
    assert torch.allclose(out["user"].view(-1), (torch.tensor([2.0, 4.0]) + torch.tensor(user)) / 2)
    assert torch.allclose(
        out["item"].view(-1), (torch.tensor([1.0, 3.0, 8.0]) + torch.tensor(item)) / 2
    )


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kinds", [1, 2])
def test_on_a_whole_graph_it_is_that_of_pyg(num_layers: int, kinds: int) -> None:
    """PyG numbers users and items together; kinds of edges share the degrees."""
    graph = noise_graph(num_users=14, num_items=9, length=(1, 6)).drop_isolated()
    users, items = graph.num_users, graph.num_items
    stock = StockLightGCN(users + items, 5, num_layers)
    (events,) = graph.edge_index_dict.values()
    shifted = events + torch.tensor([[0], [users]])
    wanted = stock.get_embedding(torch.cat([shifted, shifted.flip(0)], dim=1))
    x = dict(zip(("user", "item"), stock.embedding.weight.split([users, items]), strict=True))
    edges: dict[EdgeType, Tensor] = {}
    for kind, part in enumerate(events.split(-(-events.size(1) // kinds), dim=1)):
        edges["user", f"r{kind}", "item"] = part
        edges["item", f"rev_r{kind}", "user"] = part.flip(0)
    out = LightGCNEncoder(num_layers)(x, edges)
    assert torch.allclose(torch.cat([out["user"], out["item"]]), wanted, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_whole_neighbourhood_as_a_tree_gives_the_seed_the_same(num_layers: int) -> None:
    graph = noise_graph(num_users=10, num_items=6, length=(1, 4))
    index = EventIndex(graph)
    x = {"user": torch.randn(10, 3), "item": torch.randn(6, 3)}
    wanted = LightGCNEncoder(num_layers)(x, with_reverse(graph).edge_index_dict)["user"]
    sampler = TemporalNeighborSampler(index, [-1] * num_layers)
    user = torch.tensor([3, 0, 7])
    cut = torch.full_like(user, index.end)
    out = sampler.sample({"user": (user, cut, torch.arange(3))})
    edges = {e: torch.stack([out.row[e], out.col[e]]) for e in out.row}
    sizes = {"user": torch.bincount(index.user), "item": torch.bincount(index.item, minlength=6)}
    got = LightGCNEncoder(num_layers)(
        {t: x[t][out.node[t]] for t in x},
        edges,
        {t: sizes[t][out.node[t]] for t in x},
        out.num_sampled_nodes,
    )["user"]
    assert torch.allclose(got, wanted[user], atol=1e-5)


def test_a_sample_of_the_edges_is_right_on_average() -> None:
    """All ways to draw two of a user's four items."""
    x = {"user": torch.zeros(1, 2), "item": torch.randn(4, 2)}
    degree = {"user": torch.tensor([4]), "item": torch.tensor([1, 2, 3, 9])}
    net = LightGCNEncoder(1)

    def user(items: tuple[int, ...]) -> Tensor:
        row = torch.tensor(items)
        out: Tensor = net(x, {BACK: torch.stack([row, torch.zeros_like(row)])}, degree)["user"]
        return out

    draws = torch.cat([user(pair) for pair in combinations(range(4), 2)])
    assert torch.allclose(draws.mean(0, keepdim=True), user((0, 1, 2, 3)), atol=1e-6)
    assert float(draws.std(0).min()) > 0.01


def test_nothing_is_learned_and_nodes_without_edges_keep_their_own() -> None:
    net = LightGCNEncoder(2)
    assert list(net.parameters()) == []
    x = {"user": torch.randn(2, 3), "item": torch.randn(1, 3)}
    none = torch.empty(2, 0, dtype=torch.int64)
    zero = {"user": torch.zeros(2, dtype=torch.int64), "item": torch.zeros(1, dtype=torch.int64)}
    for degree in (None, zero):
        out = net(x, {FORWARD: none, BACK: none}, degree)
        assert all(torch.allclose(out[t], x[t] / 3) for t in x)


def test_bad_numbers_of_layers_are_named() -> None:
    for wrong in (0, -1, True, 1.0):
        with pytest.raises(ValueError, match="'num_layers' needs to be a positive integer"):
            LightGCNEncoder(wrong)  # type: ignore[arg-type]
