"""Attention from the positions of a sequence to what is known about its user."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ContextAttention", "recent_mean"]


class ContextAttention(nn.Module):
    r"""Multi-head attention whose keys are different facts, one of them other at every position.

    .. math:: c_j = W_o \sum_{k} a_{jk} W_v u_{jk}, \qquad
              a_{jk} = \mathrm{softmax}_k\!\left(W_q q_j \cdot W_k u_{jk} / \sqrt{d_h}\right)

    with facts :math:`u_{j0}` (a learned one that says nothing, so that a position may take nothing
    from the others), the C facts of the user (the same at all positions) and the recent past of
    position j. Attention over copies of one key would be uniform whatever is asked.

    Args:
        d_model: D.
        n_heads: Attention heads.

    Raises:
        ValueError: If ``d_model`` is not divisible by ``n_heads``.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"'d_model' ({d_model}) needs to be divisible by 'n_heads' ({n_heads})"
            )
        self.n_heads = n_heads
        self.nothing = nn.Parameter(torch.empty(d_model).normal_(std=0.02))
        self.norm_query = nn.LayerNorm(d_model)
        self.to_q = nn.Linear(d_model, d_model)
        self.to_kv = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        for layer in (self.to_q, self.to_kv, self.out):
            nn.init.normal_(layer.weight, std=0.02 if layer is self.out else d_model**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, facts: Tensor, recent: Tensor) -> tuple[Tensor, Tensor]:
        """Attends.

        Args:
            query: ``[B, S, D]``.
            facts: ``[B, C, D]`` of each user; C may be 0.
            recent: ``[B, S, D]`` a further fact of each position.

        Returns:
            ``[B, S, D]``, and the weights ``[B, S, H, C + 2]`` of nothing, the facts and the recent
            past, which add up to 1.
        """
        nothing = self.nothing.expand(facts.size(0), 1, -1)
        # Facts are not normalised: small vectors of what was hardly ever seen stay small, while a
        # norm would blow each up to a code of its own, to learn users by heart with.
        scale = math.sqrt(query.size(2))
        shared = torch.cat([nothing, facts], dim=1) * scale
        q = self._heads(self.to_q(self.norm_query(query)))[0]  # [B, S, H, d]
        k, v = self._heads(self.to_kv(shared))  # [B, C + 1, H, d]
        own_k, own_v = self._heads(self.to_kv(recent * scale))
        scores = torch.cat(
            [torch.einsum("bshd,bchd->bshc", q, k), (q * own_k).sum(3, keepdim=True)], dim=3
        )
        weights = F.softmax(scores.float() / math.sqrt(q.size(3)), dim=3).to(v.dtype)
        mixed = torch.einsum("bshc,bchd->bshd", weights[..., :-1], v) + weights[..., -1:] * own_v
        out: Tensor = self.out(mixed.flatten(2))
        return out, weights

    def _heads(self, x: Tensor) -> Tensor:
        """``[B, S, P D]`` of P projections to ``[P, B, S, H, d]``."""
        channels = self.out.in_features
        x = x.view(*x.shape[:2], -1, self.n_heads, channels // self.n_heads)
        return x.movedim(2, 0)


def recent_mean(x: Tensor, known: Tensor, window: int) -> Tensor:
    """``[B, S, D]`` for each position the mean of the last ``window`` positions, itself included.

    Positions that are not known do not count; zeros where none is.

    Args:
        x: ``[B, S, D]``, any finite numbers where not known.
        known: ``[B, S]`` bool.
        window: How many positions; those not known among them are not made up for.
    """
    weight = known.to(x.dtype).unsqueeze(2)
    values = torch.cat([torch.where(known.unsqueeze(2), x, 0.0), weight], dim=2)
    padded = F.pad(values.transpose(1, 2), (window - 1, 0))
    total = F.avg_pool1d(padded, window, 1).transpose(1, 2) * window
    return total[..., :-1] / total[..., -1:].clamp(min=1)
