"""LightGCN over a graph of items, against dense matrices."""

from __future__ import annotations

import pytest
import torch

from tgrec.nn.item_graph import ItemGraph


@pytest.mark.parametrize("layers", [1, 3])
def test_it_is_the_product_with_the_normalised_matrix(layers: int) -> None:
    torch.manual_seed(0)
    dense = torch.randint(0, 4, (6, 6)).double()
    dense = (dense + dense.t()).fill_diagonal_(1)
    dense[2] = dense[:, 2] = 0  # an item that nobody knows
    dense[2, 2] = 1
    edge_index = dense.nonzero().t()
    shuffled = edge_index[:, torch.randperm(edge_index.size(1))]
    graph = ItemGraph(6, layers, edge_index.size(1))
    graph.fill(shuffled, dense[shuffled[0], shuffled[1]])
    degree = dense.sum(1)
    matrix = dense / (degree[:, None] * degree).sqrt()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    wanted = sum(torch.linalg.matrix_power(matrix, k) @ x for k in range(layers + 1))
    wanted = wanted / (layers + 1)
    got = graph(x)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    weight = torch.randn(6, 3).double()
    (slow,) = torch.autograd.grad((wanted * weight).sum(), x)
    (fast,) = torch.autograd.grad((got * weight).sum(), x)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[2], x[2])


def test_without_edges_it_hands_on_what_it_is_given() -> None:
    x = torch.randn(4, 2)
    torch.testing.assert_close(ItemGraph(4, 2)(x), x)
    with pytest.raises(ValueError, match="'num_layers' needs to be positive"):
        ItemGraph(4, 0)
