"""Attention over left-padded histories; for a bias per pair see :mod:`tgrec.nn.pair_attention`."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tgrec.nn.dropout import keep_mask

__all__ = ["padded_attention"]

LOG2E = 1.0 / math.log(2.0)
# |log2(exp(score))| below this cannot overflow, nor vanish in a row, in bf16 or fp32.
SAFE_EXPONENT = 64.0
# Pairs (of one head) whose weights are worked on at a time: 4 MB in bf16, in the cache of a CPU.
_PAIRS_AT_A_TIME = 1 << 21
# Fewer queries than this at a time are not worth the calls.
_QUERIES_AT_A_TIME = 64


def padded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    *,
    causal: bool = False,
    dropout_p: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762) over padded rows.

    Padding gets weight exactly zero, whatever finite values it holds; a query with nothing to
    attend to gives zeros and finite gradients. On CUDA, without a bias, it is
    `F.scaled_dot_product_attention`;
    on the CPU a form of its own, because the backward pass of the former is several times slower
    there at the lengths of histories.

    Args:
        q: Queries, [B, H, M, d]: those of the last M of the L positions, M = L for all of them.
        k: Keys, [B, H, L, d].
        v: Values, [B, H, L, d].
        mask: True at real events, bool [B, L]; None if there is no padding.
        position_bias: What is added to the scores, [H, M, L], shared by the batch, or None.
        causal: Whether event `i` sees only events ``j <= i``.
        dropout_p: Share of the attention weights set to zero; on the CPU rounded to 1/256.

    Returns:
        [B, H, M, d], in the autocast dtype if autocast is on, else in the dtype of `q`.

    Raises:
        ValueError: If shapes or `dropout_p` do not fit.
    """
    _check(q, k, v, dropout_p)
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (k.size(0), k.size(2))):
        raise ValueError(
            f"mask must be bool [{k.size(0)}, {k.size(2)}], got {mask.dtype} {list(mask.shape)}"
        )
    _check_bias(position_bias, q, k)
    if q.is_cuda and position_bias is None:
        return _sdpa(q, k, v, mask, causal, dropout_p)
    return _apply(q, k, v, _Options(mask, causal, dropout_p), position_bias)


class _Options(NamedTuple):
    mask: Tensor | None
    causal: bool
    dropout_p: float


def _check(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> None:
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape and q.size(2) <= k.size(2)
    if not fits or (q.shape[:2], q.size(3)) != (k.shape[:2], k.size(3)):
        shapes = [list(t.shape) for t in (q, k, v)]
        raise ValueError(
            f"k and v must be [B, H, L, d], and q [B, H, M, d] with M <= L, got q, k, v {shapes}"
        )
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p must lie in [0, 1), got {dropout_p}")


def _check_bias(position_bias: Tensor | None, q: Tensor, k: Tensor) -> None:
    shape = [q.size(1), q.size(2), k.size(2)]
    if position_bias is not None and list(position_bias.shape) != shape:
        raise ValueError(f"position_bias must be {shape}, got {list(position_bias.shape)}")


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout_p: float
) -> Tensor:
    queries, length = q.size(2), k.size(2)
    if mask is None and (queries == length or not causal):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout_p)
    if mask is None:
        mask = torch.ones(q.size(0), length, dtype=torch.bool, device=q.device)
    allowed = mask[:, None, None, :].expand(-1, 1, queries, length)
    if causal:
        past = torch.ones(queries, length, dtype=torch.bool, device=q.device)
        allowed = allowed & past.tril(length - queries)
    empty = ~allowed.any(-1, keepdim=True)
    # A query with no key would be NaN in some kernels: let it see all, then clear it.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed | empty, dropout_p=dropout_p)
    return out.masked_fill(empty, 0.0)


def _apply(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: _Options,
    position_bias: Tensor | None,
) -> Tensor:
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    queries, length = q.size(2), k.size(2)
    # What is shut for all queries of a part need not be worked on: with n parts, (n - 1) / 2n.
    count = 1 if q.is_cuda or not options.causal else max(1, queries // _QUERIES_AT_A_TIME)
    attend: Callable[..., Tensor] = _Attention.apply
    done = []
    for first, last in pairwise(queries * i // count for i in range(count + 1)):
        seen = length - queries + last
        mask = None if options.mask is None else options.mask[:, :seen]
        bias = None if position_bias is None else position_bias[:, first:last, :seen]
        part = options._replace(mask=mask)
        some = (q[:, :, first:last], k[:, :, :seen], v[:, :, :seen])
        done.append(attend(*some, bias, part))
    if count == 1:
        return done[0]
    return torch.cat([part.transpose(1, 2) for part in done], dim=1).transpose(1, 2)


def _parts(q: torch.Size, length: int, device: torch.device) -> list[slice]:
    """Parts of the batch; on CUDA the whole of it."""
    batch, heads, queries, _ = q
    step = max(1, _PAIRS_AT_A_TIME // max(1, heads * queries * length))
    if device.type == "cuda":
        step = max(1, batch)
    return [slice(i, min(i + step, batch)) for i in range(0, batch, step)]


class _Attention(torch.autograd.Function):
    """The weights stay unnormalised: ``E = 2^(score log2 e)``; rows of `d` channels are divided.

    Where a product has a channel to spare, the mask of keys and the row term of the softmax
    gradient ride in it (``[q, 1] . [k, -inf]``, ``[g, -delta] . [v, 1]``): two passes less over
    the L * L weights, which at d = 32 cost as much as a product. A part of the batch is worked
    through all steps at once, so that everything but the saved weights stays in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        position_bias: Tensor | None,
        options: _Options,
    ) -> Tensor:
        (batch, heads, queries, channels), length = q.shape, k.size(2)
        bias = _Bias(q, length, position_bias, options)
        factor = LOG2E / math.sqrt(channels)
        # [B, M, H, d] in memory: joining the heads afterwards is then a view.
        out = q.new_empty(batch, queries, heads, channels).transpose(1, 2)
        saved: list[Tensor] = []
        wanted = any(ctx.needs_input_grad)
        for part in _parts(q.shape, length, q.device):
            q1, v1 = _join(q[part], 1.0, factor), _join(v[part])
            k1 = _join(k[part], bias.of_keys(part))
            energy = torch.bmm(q1, k1.transpose(1, 2))
            if bias.shared is not None:
                energy.view(-1, heads, queries, length).add_(bias.shared)
            if bias.may_overflow(q1, k1):
                # A row without keys has the maximum -inf, and -inf - -inf would be NaN.
                top = energy.amax(-1, keepdim=True).clamp_min_(torch.finfo(q.dtype).min)
                energy.sub_(top)
            energy.exp2_()
            total = energy.sum(-1, keepdim=True)
            # Nothing to attend to: the total is 0, and so is the row. A NaN is kept.
            inverse = total.reciprocal().masked_fill_(total == 0, 0.0)
            used = energy
            if options.dropout_p > 0.0:
                keep, kept = keep_mask(tuple(energy.shape), options.dropout_p, energy)
                used, inverse = keep.mul_(energy), inverse.mul_(kept)
                ctx.kept = kept
            if wanted:
                saved += [q1, k1, v1, energy, used, inverse]
            mixed = torch.bmm(used, v1[..., :-1]).mul_(inverse)
            out[part] = mixed.view(-1, heads, queries, channels)
        ctx.save_for_backward(out, *saved)
        ctx.options, ctx.bias = options, _like(position_bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        out, *saved = ctx.saved_tensors
        batch, heads, queries, channels = grad.shape
        length = saved[1].size(1)
        shape, of_keys = (-1, heads, queries, channels), (-1, heads, length, channels)
        dq = grad.new_empty(grad.shape)
        dk, dv = grad.new_empty(2, batch, heads, length, channels)
        wide = torch.promote_types(grad.dtype, torch.float32)
        d_bias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            d_bias = grad.new_zeros(ctx.bias[0], dtype=wide)
        for i, part in enumerate(_parts(grad.shape, length, grad.device)):
            q1, k1, v1, energy, used, inverse = saved[6 * i : 6 * i + 6]
            g1 = _join(grad[part], 0.0, inverse.view(-1, heads, queries, 1))
            g = g1[..., :-1]
            delta = (g.view(shape) * out[part]).sum(-1).neg_().view(-1, queries)
            if ctx.options.dropout_p == 0.0:  # used is energy
                g1[..., -1] = delta
                score = torch.bmm(g1, v1.transpose(1, 2)).mul_(energy)
            else:
                score = torch.bmm(g1, v1.transpose(1, 2)).mul_(used)
                score.addcmul_(energy, delta.unsqueeze(-1), value=1.0 / ctx.kept)
            dv[part] = torch.bmm(used.transpose(1, 2), g).view(of_keys)
            to_q = torch.bmm(score, k1[..., :-1]).view(shape)
            to_k = torch.bmm(score.transpose(1, 2), q1[..., :-1]).view(of_keys)
            torch.mul(to_q, 1.0 / math.sqrt(channels), out=dq[part])
            torch.mul(to_k, 1.0 / LOG2E, out=dk[part])  # q1 has the other factor
            if d_bias is not None:
                d_bias += score.view(-1, heads, queries, length).sum(0)
        d_bias = None if d_bias is None else d_bias.to(ctx.bias[1])
        return dq, dk, dv, d_bias, None


class _Bias:
    """What is added to the scores of a part of the batch, in units of log2."""

    def __init__(
        self, q: Tensor, length: int, position_bias: Tensor | None, options: _Options
    ) -> None:
        self.options, queries = options, q.size(2)
        self.shared: Tensor | None = None
        self.room = SAFE_EXPONENT
        if position_bias is not None:
            self.shared = (position_bias.detach() * LOG2E).to(q.dtype)
            if not q.is_cuda and position_bias.numel() > 0:
                self.room -= LOG2E * float(position_bias.detach().abs().amax())
        if options.causal:
            triangle = q.new_full((queries, length), -math.inf).triu_(1 + length - queries)
            self.shared = triangle if self.shared is None else self.shared + triangle

    def of_keys(self, part: slice) -> Tensor | float:
        """[b, 1, L]: zero at keys, minus infinity at padding."""
        if self.options.mask is None:
            return 0.0
        mask = self.options.mask[part].unsqueeze(1)
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)

    def may_overflow(self, q1: Tensor, k1: Tensor) -> bool:
        """Whether the maximum must be subtracted, from ``q . k <= |q| |k|``."""
        if q1.is_cuda:  # reading the bound would stall the stream
            return True
        bound = largest_norm(q1[..., :-1]) * largest_norm(k1[..., :-1])
        return not bool(bound <= self.room)


def _join(x: Tensor, last: Tensor | float = 1.0, factor: Tensor | float | None = None) -> Tensor:
    """``factor * x`` [b, H, L, d] and one more channel: [b * H, L, d + 1]."""
    batch, heads, length, channels = x.shape
    out = x.new_empty(batch, heads, length, channels + 1)
    if factor is None:
        out[..., :-1] = x
    else:
        torch.mul(x, factor, out=out[..., :-1])
    out[..., -1] = last
    return out.view(-1, length, channels + 1)


def largest_norm(x: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=wide)
    return norms.amax()


def _like(x: Tensor | None) -> tuple[torch.Size, torch.dtype] | None:
    return None if x is None else (x.shape, x.dtype)
