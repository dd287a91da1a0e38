"""Vectors of items that are made of their features as well."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ItemFeatures(nn.Module):
    r"""Adds what is known of items to their learned vectors.

    .. math:: x_i = E_i + f_i W

    What is learned of the items of a genre, or of a year, then serves the rare ones among them.

    Args:
        num_items: N.
        num_features: F.
        d_model: D.

    Attributes:
        values: f, ``[N, F]`` float32, zeros until they are filled in.
    """

    values: Tensor

    def __init__(self, num_items: int, num_features: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(num_items, num_features))
        self.weight = nn.Parameter(torch.empty(num_features, d_model).normal_(std=0.02))

    def forward(self, table: Tensor) -> Tensor:
        """``[N + tokens, D]`` of learned vectors ``[N + tokens, D]``; tokens have no features."""
        items = self.values.size(0)
        return torch.cat([table[:items] + self.values @ self.weight, table[items:]])
