"""LightGCN's propagation over a weighted graph of items that is kept with the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ItemGraph"]


class ItemGraph(nn.Module):
    r"""An undirected weighted graph of items, and LightGCN over it (arXiv 2002.02126).

    .. math:: x_i^{(k+1)} = \sum_j \frac{w_{ij}}{\sqrt{d_i d_j}}\, x_j^{(k)}, \qquad
              g_i = \frac{1}{K + 1} \sum_{k=0}^{K} x_i^{(k)}, \qquad d_i = \sum_j w_{ij}

    Args:
        num_items: N.
        num_layers: K.
        num_edges: E, the directed edges that are kept. They are zero until :meth:`fill` or
            loading fills them; None is the graph without edges but a loop at every item, which
            hands on what it is given.
    """

    def __init__(self, num_items: int, num_layers: int, num_edges: int | None = None) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"'num_layers' needs to be positive (got {num_layers})")
        self.num_layers = num_layers
        self.register_buffer("ptr", torch.zeros(num_items + 1, dtype=torch.int64))
        self.register_buffer("neighbor", torch.zeros(num_edges or num_items, dtype=torch.int64))
        self.register_buffer("weight", torch.zeros(num_edges or num_items))
        if num_edges is None:
            place = torch.arange(num_items)
            self.fill(torch.stack([place, place]), torch.ones(num_items))

    ptr: Tensor
    neighbor: Tensor
    weight: Tensor

    def fill(self, edge_index: Tensor, edge_weight: Tensor) -> None:
        """Takes over the edges.

        Args:
            edge_index: ``[2, E]`` int64, every edge in both directions.
            edge_weight: ``[E]`` positive, alike in both.
        """
        num_items = self.ptr.numel() - 1
        order = torch.argsort(edge_index[0] * num_items + edge_index[1])
        (row, col), weight = edge_index[:, order], edge_weight[order].float()
        degree = torch.zeros(num_items).index_add_(0, row, weight)
        self.neighbor.copy_(col)
        self.weight.copy_(weight / (degree[row] * degree[col]).sqrt())
        self.ptr[1:] = torch.bincount(row, minlength=num_items).cumsum(0)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D]`` to the same shape: the mean over the layers."""
        total = x
        for _ in range(self.num_layers):
            x = F.embedding_bag(
                self.neighbor,
                x,
                self.ptr,
                mode="sum",
                per_sample_weights=self.weight.to(x.dtype),
                include_last_offset=True,
            )
            total = total + x
        return total / (self.num_layers + 1)
