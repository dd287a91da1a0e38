"""Attention that knows how much time lies between two events."""

from __future__ import annotations

import torch
from torch import Tensor

from tgrec.nn.pair_attention import pair_attention
from tgrec.nn.pair_cells import PairCells

__all__ = ["gap_attention", "gap_bucket", "gap_pairs"]

NUM_BUCKETS = 64
# Pairs bucketed at a time: their 8-byte steps stay in the cache of a CPU.
_PAIRS_AT_A_TIME = 1 << 18


def gap_bucket(seconds: Tensor, num_buckets: int = NUM_BUCKETS) -> Tensor:
    """Bucket of a time gap, two buckets an octave, exact.

    Bucket 0 is a gap of 0 s (half of the neighbours in MovieLens-1M). A gap ``s >= 1`` is in
    ``1 + 2 e + (s >= 1.5 * 2^e)`` with ``e = floor(log2(s))``: 1 s is 1, 2 s 3, 3 s 4, 4-5 s 5,
    6-7 s 6, ..., a day 33, a year 50 (bucket 2 is empty). The last bucket is open: with 64
    buckets it starts at 2^31 s, 68 years.

    The exponent and the first bit of the fraction of a float64 *are* the bucket, so that no
    logarithm is taken and none is rounded across an edge.

    Args:
        seconds: Gaps, int64, any shape; below 0 counts as 0.
        num_buckets: 1 to 255.

    Returns:
        uint8, the shape of `seconds`, in ``[0, num_buckets)``.

    Raises:
        TypeError: If `seconds` is not int64: a time in float32 has lost its seconds.
        ValueError: If `num_buckets` does not fit.
    """
    if seconds.dtype != torch.int64:
        raise TypeError(
            f"seconds must be int64, got {seconds.dtype}: subtract the times as int64 and pass that"
        )
    if not 1 <= num_buckets <= 255:
        raise ValueError(f"num_buckets must be 1 to 255, got {num_buckets}")
    # Sign, 11 bits of exponent (1023 for 2^0) and the first of 52 bits of fraction remain.
    bits = seconds.double().view(torch.int64).bitwise_right_shift_(51)
    return bits.sub_(2 * 1023 - 1).clamp_(0, num_buckets - 1).to(torch.uint8)


def gap_pairs(
    query_time: Tensor,
    key_time: Tensor,
    mask: Tensor,
    num_buckets: int = NUM_BUCKETS,
    *,
    causal: bool = True,
) -> Tensor:
    """Bucket of the gap of every pair, for `gap_attention`; made once, read by every layer.

    Args:
        query_time: Time at which position `i` is asked, int64 Unix seconds [B, L]: that of the
            event itself, or of the next one where the query time is an input.
        key_time: Time of event `j`, int64 Unix seconds [B, L].
        mask: True at real events, bool [B, L].
        num_buckets: As in `gap_bucket`.
        causal: Whether `i` sees only ``j <= i``, with the gap ``query_time_i - key_time_j``, zero
            if negative. Otherwise all events are seen, with the absolute gap.

    Returns:
        uint8 [B, L, L]; `num_buckets` at pairs that must not attend (padding, the future).

    Raises:
        ValueError: If shapes do not agree.
        TypeError: If a time is not int64, or `mask` not bool.
    """
    if not query_time.shape == key_time.shape == mask.shape or mask.dim() != 2:
        shapes = [list(t.shape) for t in (query_time, key_time, mask)]
        raise ValueError(f"query_time, key_time and mask must be [B, L], all alike, got {shapes}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, got {mask.dtype}: use mask != 0")
    batch, length = mask.shape
    out = torch.empty(batch, length, length, dtype=torch.uint8, device=mask.device)
    # What is shut has the largest kind: a maximum of bytes takes a tenth of a masked fill.
    padding = ~mask.unsqueeze(1) * out.new_full((), num_buckets)
    future = out.new_full((length, length), num_buckets).triu_(1)
    step = max(1, _PAIRS_AT_A_TIME // max(1, length * length))
    if mask.is_cuda:
        step = max(1, batch)
    for start in range(0, batch, step):
        part = slice(start, start + step)
        gap = query_time[part, :, None] - key_time[part, None, :]
        buckets = gap_bucket(gap if causal else gap.abs_(), num_buckets)
        torch.maximum(buckets, padding[part], out=out[part])
        if causal:
            torch.maximum(out[part], future, out=out[part])
    return out


def gap_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Tensor,
    gap_table: Tensor,
    position_table: Tensor | None = None,
) -> Tensor:
    """Attention with a learned bias per head for the time gap, and one for the distance.

    ``softmax_j(q_i k_j / sqrt(d) + gap_table[h, bucket] + position_table[h, |i - j|]) v_j``, the
    relative bias of HSTU (Zhai et al., arXiv 2402.17152) under a softmax.

    Args:
        q: Queries, [B, H, M, d]: those of the last M of the L positions.
        k: Keys, [B, H, L, d].
        v: Values, [B, H, L, d].
        pairs: From `gap_pairs`, uint8 [B, M, L]: its last M rows.
        gap_table: Bias per bucket, [H, U] with U the `num_buckets` of `pairs`.
        position_table: Bias per distance in events, [H, P], or None; distances from P - 1 on
            share the last entry.

    Returns:
        [B, H, M, d]; zeros, with finite gradients, at queries with nothing to attend to.

    Raises:
        ValueError: If shapes or dtypes do not fit.
    """
    both_sides, origin = position_table, 0
    if position_table is not None:
        if position_table.dim() != 2:
            raise ValueError(f"position_table must be [H, P], got {list(position_table.shape)}")
        origin = position_table.size(1) - 1
        both_sides = torch.cat([position_table.flip(1)[:, :-1], position_table], dim=1)
    places = 2 * origin + 1
    return pair_attention(
        q, k, v, PairCells(pairs, gap_table.size(-1), places, origin), gap_table, both_sides
    )
