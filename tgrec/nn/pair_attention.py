"""Softmax attention with a learned bias per kind of pair and distance of two events."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tgrec.nn.attention import LOG2E, SAFE_EXPONENT, largest_norm
from tgrec.nn.pair_cells import (
    PairCells,
    Tile,
    add_to_cells,
    biased_scores,
    heads_apart,
    heads_joined,
)

__all__ = ["pair_attention"]


def pair_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cells: PairCells,
    table: Tensor,
    distance_table: Tensor | None = None,
) -> Tensor:
    """Attention with a learned bias per head for the kind of a pair, and one for the distance.

    ``softmax_j(q_i k_j / sqrt(d) + table[h, kind(i, j)] + distance_table[h, i - j]) v_j``

    Args:
        q: Queries, [B, H, M, d]: those of the last M of the L positions, M = L for all of them.
        k: Keys, [B, H, L, d].
        v: Values, [B, H, L, d].
        cells: Of the pairs [B, M, L]. A pair that must not attend has weight exactly zero: this is
            where padding and the future are shut out.
        table: Bias per kind, [H, U].
        distance_table: Bias per distance, [H, P], or None.

    Returns:
        [B, H, M, d], in the autocast dtype if autocast is on; zeros, with finite gradients, at
        queries with nothing to attend to.

    Raises:
        ValueError: If shapes do not fit.
    """
    cells.check(q, k, v)
    both = cells.table(q.size(1), table, distance_table, -math.inf)
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    return cast(Tensor, _PairAttention.apply(q, k, v, both, cells.tiles))  # type: ignore[no-untyped-call]


class _PairAttention(torch.autograd.Function):
    """The weights stay unnormalised, as in :mod:`tgrec.nn.attention`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, tiles: list[Tile]
    ) -> Tensor:
        (_, heads, _, channels), saved = q.shape, list[Tensor]()
        # [B, M, H, d] in memory: joining the heads afterwards is then a view.
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)
        q = heads_apart(q * (LOG2E / math.sqrt(channels)))
        k, v = heads_apart(k), heads_apart(v)
        mixed, inverse = torch.empty_like(q), q.new_empty(*q.shape[:2], 1)
        lookup = (table * LOG2E).flatten(1).to(q.dtype)
        shift = _may_overflow(q, k, table)
        for tile in tiles:
            energy = biased_scores(q, k, lookup, tile)
            if shift:
                # A row without keys has the maximum -inf, and -inf - -inf would be NaN.
                top = energy.amax(-1, keepdim=True).clamp_min_(torch.finfo(q.dtype).min)
                energy.sub_(top)
            energy.exp2_()
            torch.sum(energy, -1, keepdim=True, out=inverse[:, tile.rows])
            torch.bmm(energy, tile.by_key(v), out=mixed[:, tile.rows])
            saved.append(energy)
        # Nothing to attend to: the total is 0, and so is the row. A NaN is kept.
        inverse = inverse.reciprocal().masked_fill_(inverse == 0, 0.0)
        ctx.save_for_backward(q, k, v, table, mixed, inverse, *saved)
        ctx.tiles = tiles
        parts = (heads_joined(x, heads) for x in (mixed, inverse))
        return torch.mul(*parts, out=out.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, mixed, inverse, *saved = ctx.saved_tensors
        heads, channels = grad.shape[1], grad.shape[3]
        # The row term of the gradient of a softmax rides in the product: [g, -delta] . [v, 1].
        g1, v1 = q.new_empty(*q.shape[:2], channels + 1), q.new_ones(*k.shape[:2], channels + 1)
        v1[..., :-1] = v
        g = torch.mul(heads_apart(grad), inverse, out=g1[..., :-1])
        g1[..., -1:] = (g * mixed).sum(-1, keepdim=True).mul_(inverse).neg_()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        to_table = torch.zeros_like(table, memory_format=torch.contiguous_format)
        for tile, energy in zip(ctx.tiles, saved, strict=True):
            values = tile.by_key(v1).transpose(1, 2)
            score = torch.bmm(tile.by_row(g1), values).mul_(energy)
            torch.bmm(score, tile.by_key(k), out=dq[:, tile.rows])
            dk[:, : tile.keys].baddbmm_(score.transpose(1, 2), tile.by_row(q))
            dv[:, : tile.keys].baddbmm_(energy.transpose(1, 2), tile.by_row(g))
            add_to_cells(to_table.view(heads, -1), score, tile)
        dq.mul_(1.0 / math.sqrt(channels))
        dk.mul_(1.0 / LOG2E)  # q has the other factor
        to_inputs = (heads_joined(x, heads) for x in (dq, dk, dv))
        return *to_inputs, to_table, None


def _may_overflow(q: Tensor, k: Tensor, table: Tensor) -> bool:
    """Whether the maximum must be subtracted, from ``q . k <= |q| |k|``."""
    if q.is_cuda:  # reading the bound would stall the stream
        return True
    bias = table[:, :-1].abs().amax() * LOG2E if table[:, :-1].numel() else 0.0
    return not bool(largest_norm(q) * largest_norm(k) + bias <= SAFE_EXPONENT)
