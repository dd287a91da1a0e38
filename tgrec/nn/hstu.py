"""HSTU: pointwise gated attention with biases for the distance and the time between two events."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tgrec.nn.gap_attention import NUM_BUCKETS
from tgrec.nn.pair_cells import (
    PairCells,
    Tile,
    add_to_cells,
    biased_scores,
    heads_apart,
    heads_joined,
)
from tgrec.nn.transformer import Dropout

__all__ = ["HSTUBlock", "HSTUEncoder", "silu_attention"]

# SiLU and its derivative are exactly 0 here, in bf16 and fp32.
_SHUT = -3e4


class HSTUEncoder(nn.Module):
    """Layers of :class:`HSTUBlock` over left-padded sequences of vectors; no norm at the end.

    Args:
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Layers.
        max_len: Longest sequence.
        dropout: In [0, 1).
        num_buckets: U, kinds of time gaps.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_blocks: int,
        max_len: int,
        dropout: float,
        num_buckets: int = NUM_BUCKETS,
    ) -> None:
        super().__init__()
        self.max_len, self.num_buckets = max_len, num_buckets
        self.blocks = nn.ModuleList(
            HSTUBlock(d_model, n_heads, max_len, dropout, num_buckets) for _ in range(n_blocks)
        )
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, pairs: Tensor, last: bool = False) -> Tensor:
        """Encodes.

        Args:
            x: ``[B, L, D]``, anything at padding, where it counts as 0.
            mask: ``[B, L]`` bool, True at real positions.
            pairs: ``[B, L, L]`` from :func:`tgrec.nn.gap_attention.gap_pairs`.
            last: Only the last position is wanted.

        Returns:
            ``[B, L, D]``, or with ``last`` its last position, ``[B, D]``.
        """
        x = torch.where(mask.unsqueeze(2), x, torch.zeros((), dtype=x.dtype, device=x.device))
        # Vectors of items start small; the residual stream shall not (as in SequenceEncoder).
        x = self.drop(x * math.sqrt(x.size(2)))
        cells = PairCells(pairs, self.num_buckets, self.max_len, causal=True)
        for layer, block in enumerate(self.blocks):
            x = block(x, cells, last and layer == len(self.blocks) - 1)
        return x[:, -1] if last else x


class HSTUBlock(nn.Module):
    r"""A layer of HSTU (Zhai et al., ICML 2024, arXiv 2402.17152).

    .. math:: U, V, Q, K = \mathrm{SiLU}(W_1\,\mathrm{LN}(x)), \qquad
              x \leftarrow x + W_2\,(\mathrm{LN}(A V) \odot U)

    with A from :func:`silu_attention`. There is no softmax, so that many similar events weigh more
    than few, and no feed-forward layer: the gate U takes its place. Dropout stands on what
    :math:`W_2` reads.
    """

    def __init__(
        self, d_model: int, n_heads: int, max_len: int, dropout: float, num_buckets: int
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"'d_model' ({d_model}) needs to be divisible by 'n_heads' ({n_heads})"
            )
        self.n_heads, self.max_len = n_heads, max_len
        self.norm_in, self.norm_out = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.uvqk = nn.Linear(d_model, 4 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.gap_table = nn.Parameter(torch.zeros(n_heads, num_buckets))
        self.position_table = nn.Parameter(torch.zeros(n_heads, max_len))
        self.drop = Dropout(dropout)
        for linear in (self.uvqk, self.out):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, cells: PairCells, last: bool = False) -> Tensor:
        """``x`` ``[B, L, D]`` to the same shape, or with ``last`` to ``[B, 1, D]``."""
        u, v, q, k = F.silu(self.uvqk(self.norm_in(x))).chunk(4, dim=2)
        if last:
            x, u, q, cells = x[:, -1:], u[:, -1:], q[:, -1:], cells.last(1)
        q, k, v = (y.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for y in (q, k, v))
        mixed = silu_attention(q, k, v, cells, self.gap_table, self.position_table, self.max_len)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.out(self.drop(u * self.norm_out(mixed)))
        return out


def silu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cells: PairCells,
    gap_table: Tensor,
    position_table: Tensor,
    norm: float,
) -> Tensor:
    r"""The attention of HSTU (Zhai et al., ICML 2024, arXiv 2402.17152, eq. 2).

    .. math:: y_i = \frac{1}{\text{norm}} \sum_{j \le i}
              \mathrm{SiLU}(q_i \cdot k_j + g_{\mathrm{bucket}(i, j)} + p_{i - j})\, v_j

    Args:
        q: Queries, ``[B, H, M, d]``: those of the last M of the L positions.
        k: Keys, ``[B, H, L, d]``.
        v: Values, ``[B, H, L, d]``.
        cells: Of the pairs ``[B, M, L]``, causal.
        gap_table: Bias per bucket of the time gap, ``[H, U]``.
        position_table: Bias per distance in events, ``[H, P]``.
        norm: What the sum is divided by; a constant, so that padding changes nothing.

    Returns:
        ``[B, H, M, d]``, in the autocast dtype if autocast is on; 0 where nothing is attended to.

    Raises:
        ValueError: If shapes do not fit.
    """
    cells.check(q, k, v)
    table = cells.table(q.size(1), gap_table, position_table, _SHUT)
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    out = _SiLUAttention.apply(q, k, v, table, cells.tiles, norm)  # type: ignore[no-untyped-call]
    return cast(Tensor, out)


class _SiLUAttention(torch.autograd.Function):
    """Keeps scores and weights of every tile: to make the latter again takes as long as SiLU."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, tiles: list[Tile], norm: float
    ) -> Tensor:
        heads, saved = q.size(1), list[Tensor]()
        # [B, M, H, d] in memory: joining the heads afterwards is then a view.
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)
        q, k, v = heads_apart(q), heads_apart(k), heads_apart(v)
        mixed, lookup = torch.empty_like(q), table.flatten(1).to(q.dtype)
        for tile in tiles:
            score = biased_scores(q, k, lookup, tile)
            weight = F.silu(score)
            torch.bmm(weight, tile.by_key(v), out=mixed[:, tile.rows])
            saved += [score, weight]
        ctx.save_for_backward(q, k, v, table, *saved)
        ctx.tiles, ctx.norm = tiles, norm
        out = out.transpose(1, 2)
        return torch.div(heads_joined(mixed, heads), norm, out=out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, *saved = ctx.saved_tensors
        heads, grad = grad.size(1), heads_apart(grad.div(ctx.norm))
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        to_table = torch.zeros_like(table.flatten(1))
        for tile, score, weight in zip(ctx.tiles, saved[::2], saved[1::2], strict=True):
            g, values = tile.by_row(grad), tile.by_key(v)
            to_score = torch.bmm(g, values.transpose(1, 2))
            to_score = torch.ops.aten.silu_backward(to_score, score)
            torch.bmm(to_score, tile.by_key(k), out=dq[:, tile.rows])
            dk[:, : tile.keys].baddbmm_(to_score.transpose(1, 2), tile.by_row(q))
            dv[:, : tile.keys].baddbmm_(weight.transpose(1, 2), g)
            add_to_cells(to_table, to_score, tile)
        to_inputs = (heads_joined(x, heads) for x in (dq, dk, dv))
        return *to_inputs, to_table.view_as(table), None, None
