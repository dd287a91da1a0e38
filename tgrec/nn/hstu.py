"""HSTU: pointwise gated attention with biases for the distance and the time between two events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tgrec.nn.gap_attention import NUM_BUCKETS
from tgrec.nn.transformer import Dropout

__all__ = ["HSTUBlock", "HSTUEncoder", "silu_attention"]

# SiLU and its derivative are exactly 0 here, in bf16 and fp32.
_SHUT = -3e4
# Queries of a tile, and pairs (of all heads) of one: what a CPU keeps in its cache. A tile of
# early queries has no late keys, which saves more than a third of all pairs.
_QUERIES, _PAIRS = 50, 1 << 19


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
        for layer, block in enumerate(self.blocks):
            x = block(x, pairs, last and layer == len(self.blocks) - 1)
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

    def forward(self, x: Tensor, pairs: Tensor, last: bool = False) -> Tensor:
        """``x`` ``[B, L, D]`` to the same shape, or with ``last`` to ``[B, 1, D]``."""
        u, v, q, k = F.silu(self.uvqk(self.norm_in(x))).chunk(4, dim=2)
        if last:
            x, u, q, pairs = (y[:, -1:] for y in (x, u, q, pairs))
        q, k, v = (y.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for y in (q, k, v))
        mixed = silu_attention(q, k, v, pairs, self.gap_table, self.position_table, self.max_len)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.out(self.drop(u * self.norm_out(mixed)))
        return out


def silu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Tensor,
    gap_table: Tensor,
    position_table: Tensor,
    norm: float,
) -> Tensor:
    r"""The causal attention of HSTU (Zhai et al., ICML 2024, arXiv 2402.17152, eq. 2).

    .. math:: y_i = \frac{1}{\text{norm}} \sum_{j \le i}
              \mathrm{SiLU}(q_i \cdot k_j + g_{\mathrm{bucket}(i, j)} + p_{i - j})\, v_j

    Args:
        q: Queries, ``[B, H, M, d]``: those of the last M of the L positions.
        k: Keys, ``[B, H, L, d]``.
        v: Values, ``[B, H, L, d]``.
        pairs: ``[B, M, L]`` uint8, the last M rows of what
            :func:`tgrec.nn.gap_attention.gap_pairs` returns; U is a pair that must not attend.
        gap_table: Bias per bucket of the time gap, ``[H, U]``.
        position_table: Bias per distance in events, ``[H, P]``; distances from P - 1 on share
            the last entry.
        norm: What the sum is divided by; a constant, so that padding changes nothing.

    Returns:
        ``[B, H, M, d]``, in the autocast dtype if autocast is on; 0 where nothing is attended to.

    Raises:
        ValueError: If shapes or the dtype of ``pairs`` do not fit.
    """
    (batch, heads, queries, _), length = q.shape, k.size(2)
    if k.shape != v.shape or k.shape[:2] != q.shape[:2] or queries > length:
        shapes = [list(t.shape) for t in (q, k, v)]
        raise ValueError(f"'q' needs [B, H, M, d], 'k' and 'v' [B, H, L, d], M <= L (got {shapes})")
    if pairs.dtype != torch.uint8 or pairs.shape != (batch, queries, length):
        raise ValueError(
            f"'pairs' needs to be uint8 [{batch}, {queries}, {length}] (got {pairs.dtype} "
            f"{list(pairs.shape)}); gap_pairs makes it"
        )
    for name, table in (("gap_table", gap_table), ("position_table", position_table)):
        if table.dim() != 2 or table.size(0) != heads:
            raise ValueError(f"'{name}' needs to be [{heads}, size] (got {list(table.shape)})")
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    place = torch.arange(length, device=q.device)
    distance = (place[length - queries :, None] - place).clamp_(0, position_table.size(1) - 1)
    position = position_table.index_select(1, distance.view(-1)).view(heads, queries, length)
    out = _SiLUAttention.apply(q, k, v, pairs, gap_table, position, norm)  # type: ignore[no-untyped-call]
    return cast(Tensor, out)


def _tiles(q: Tensor, length: int) -> Iterator[tuple[slice, slice, int]]:
    """Users, queries and number of keys of tiles that cover every ``j <= i``; on CUDA of one."""
    batch, heads, queries, _ = q.shape
    rows = max(1, queries) if q.is_cuda else _QUERIES
    users = max(1, batch if q.is_cuda else _PAIRS // max(1, heads * min(rows, queries) * length))
    for user in range(0, batch, users):
        for row in range(0, queries, rows):
            stop = min(row + rows, queries)
            yield slice(user, user + users), slice(row, stop), length - queries + stop


class _SiLUAttention(torch.autograd.Function):
    """Keeps the scores of every tile; the weights are made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Tensor,
        gap_table: Tensor,
        position: Tensor,
        norm: float,
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        heads, out, scores = q.size(1), torch.empty_like(q), []
        lookup = F.pad(gap_table, (0, 1), value=_SHUT).to(q.dtype)
        position = position.to(q.dtype)
        for users, rows, keys in _tiles(q, k.size(2)):
            kinds = pairs[users, rows, :keys].long()
            index = kinds.view(-1)
            bias = [row.index_select(0, index).view_as(kinds) for row in lookup]
            score = torch.stack(bias, dim=1).add_(position[:, rows, :keys]).flatten(0, 1)
            seen = k[users, :, :keys].flatten(0, 1).transpose(1, 2)
            score = score.baddbmm_(q[users, :, rows].flatten(0, 1), seen)
            mixed = torch.bmm(F.silu(score), v[users, :, :keys].flatten(0, 1)).div_(norm)
            out[users, :, rows] = mixed.unflatten(0, (-1, heads))
            scores.append(score)
        ctx.save_for_backward(q, k, v, pairs, gap_table, *scores)
        ctx.norm, ctx.position = norm, position.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, pairs, gap_table, *scores = ctx.saved_tensors
        heads, buckets = gap_table.shape
        wide = torch.promote_types(q.dtype, torch.float32)
        grad, dq = grad.div(ctx.norm).to(q.dtype).contiguous(), torch.empty_like(q)
        dk, dv = torch.zeros(2, *k.shape, dtype=wide, device=k.device)
        to_gap = torch.zeros(heads, buckets + 1, dtype=wide, device=k.device)
        to_position = torch.zeros(ctx.position, dtype=wide, device=k.device)
        for (users, rows, keys), score in zip(_tiles(q, k.size(2)), scores, strict=True):
            g, asked = grad[users, :, rows].flatten(0, 1), q[users, :, rows].flatten(0, 1)
            seen, values = (x[users, :, :keys].flatten(0, 1) for x in (k, v))
            weight = F.silu(score)
            to_score = torch.bmm(g, values.transpose(1, 2))
            to_score = torch.ops.aten.silu_backward(to_score, score)
            dq[users, :, rows] = torch.bmm(to_score, seen).unflatten(0, (-1, heads))
            for total, left, right in ((dv, weight, g), (dk, to_score, asked)):
                part = torch.bmm(left.transpose(1, 2), right)
                total[users, :, :keys] += part.unflatten(0, (-1, heads))
            of_heads = to_score.to(wide).unflatten(0, (-1, heads))
            to_position[:, rows, :keys] += of_heads.sum(0)
            # One cell per query and kind: with one per kind, all would wait for the same few.
            cells = of_heads.new_zeros(*of_heads.shape[:3], buckets + 1)
            index = pairs[users, rows, :keys].long().unsqueeze(1).expand(of_heads.shape)
            to_gap += cells.scatter_add_(3, index, of_heads).sum((0, 2))
        to_gap = to_gap[:, :buckets].to(gap_table.dtype)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, to_gap, to_position, None
