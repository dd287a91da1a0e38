"""What is read off a hidden state: an item, a rating."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ItemHead", "RatingHead"]


class ItemHead(nn.Module):
    r"""BERT's output head, :math:`\mathrm{LN}(\mathrm{GELU}(W h + b))`, to multiply items with."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(d_model, d_model), nn.LayerNorm(d_model)
        nn.init.eye_(self.project.weight)  # as the values of the encoder, and for the same reason

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., D]`` to the same shape."""
        out: Tensor = self.norm(F.gelu(self.project(hidden)))
        return out


class RatingHead(nn.Module):
    r"""How somebody will rate a given item.

    .. math:: \hat r = b_i + w \cdot \mathrm{GELU}(W [h, v_i, h \odot v_i, u] + c)

    in units of the standard deviation of ratings, from their mean. The state h and the vector u
    say what is known of the person; the item enters here, so that every item can have another
    rating.

    Args:
        d_model: D.
        num_items: N, one bias each.
    """

    def __init__(self, d_model: int, num_items: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.norm_state, self.norm_item = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.hidden = nn.Linear(4 * d_model, d_model)
        self.out = nn.Linear(d_model, 1)

    def forward(self, hidden: Tensor, user: Tensor, item: Tensor, vector: Tensor) -> Tensor:
        """``[R]`` float32 standardised ratings.

        Args:
            hidden: ``[R, D]``.
            user: ``[R, D]``.
            item: ``[R]`` int64.
            vector: ``[R, D]`` vectors of the same items.
        """
        h, v = self.norm_state(hidden), self.norm_item(vector)
        mixed = self.out(F.gelu(self.hidden(torch.cat([h, v, h * v, user], dim=1))))
        out: Tensor = (mixed.float() + F.embedding(item, self.bias.unsqueeze(1))).squeeze(1)
        return out
