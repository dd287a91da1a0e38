"""Cross-entropy of a linear head with labels and another head's answers, without all logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tgrec.nn.linear_cross_entropy import (
    LN2,
    LOG2E,
    SAFE_EXPONENT,
    autocast_dtype,
    check_rows,
    default_chunk,
    largest_norm,
)

__all__ = ["soft_linear_cross_entropy"]


def soft_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    soft_hidden: Tensor,
    soft_weight: Tensor,
    share: float,
    *,
    chunk: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Sum over rows of the cross-entropy with a label and with what another head says.

    .. math:: -\sum_n q_n \log \mathrm{softmax}(W h)_n, \qquad
              q = (1 - s)\, e_{target} + s\, \mathrm{softmax}(W' h')

    Rows are taken `chunk` at a time and the gradients are computed in the same pass, as in
    :func:`tgrec.nn.linear_cross_entropy.linear_cross_entropy`. It is differentiable once, and not
    with respect to h' and W'.

    Args:
        hidden: h, [R, D], any floating dtype.
        weight: W, [N, D].
        target: Item of each row, int64 [R], each in ``[0, N)``.
        soft_hidden: h', [R, D'].
        soft_weight: W', [N, D'].
        share: s, in [0, 1].
        chunk: Rows at a time; None picks a size.
        dtype: Of the products: torch.bfloat16, torch.float32 or torch.float64; None means bfloat16
            under an autocast to it, else float32 (float64 if `hidden` is).

    Returns:
        The sum over rows, a scalar, float32 (float64 if `dtype` is float64).

    Raises:
        ValueError: If shapes, `share`, `chunk`, `dtype` or, on the CPU, a target do not fit.
        TypeError: If `target` is not int64.
    """
    dtype = autocast_dtype(hidden) if dtype is None else dtype
    check_rows(hidden, weight, target, None, None, chunk, dtype)
    fits = soft_hidden.shape[:1] == target.shape and soft_weight.shape[:1] == weight.shape[:1]
    if not fits or soft_hidden.shape[1:] != soft_weight.shape[1:] or soft_hidden.dim() != 2:
        raise ValueError(
            f"soft_hidden must be [{target.numel()}, D'] and soft_weight [{weight.size(0)}, D'] "
            f"with the same D', got {list(soft_hidden.shape)} and {list(soft_weight.shape)}"
        )
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    pad = 0
    if chunk is None:
        chunk, pad = default_chunk(hidden, weight, dtype)
    given = (hidden, weight, target, soft_hidden.detach(), soft_weight.detach())
    further = (share, chunk, pad, dtype, torch.is_grad_enabled())
    apply: Callable[..., Tensor] = _Soft.apply
    return apply(*given, *further)


class _Soft(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        soft_hidden: Tensor,
        soft_weight: Tensor,
        share: float,
        chunk: int,
        pad: int,
        dtype: torch.dtype,
        grad_enabled: bool,
    ) -> Tensor:
        wanted = grad_enabled and any(ctx.needs_input_grad)
        with torch.autocast(hidden.device.type, enabled=False):
            exact = torch.float64 if dtype == torch.float64 else torch.float32
            # log2(e) goes into the rows: exp2 is faster than exp.
            own, soft = (
                _Head.of(F.pad(rows.to(exact) * LOG2E, (0, 0, 0, pad)), table.to(exact), dtype)
                for rows, table in ((hidden, weight), (soft_hidden, soft_weight))
            )
            goal = F.pad(target, (0, pad))
            loss, *grads = _chunked(own, soft, goal, hidden.size(0), share, chunk, wanted)
        if wanted:
            ctx.save_for_backward(*grads)
            ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        of_hidden, of_weight = ctx.dtypes
        return ((d_hidden * grad).to(of_hidden), (d_weight * grad).to(of_weight), *(None,) * 8)


@dataclass(frozen=True)
class _Head:
    """A linear head, its rows in units of log2, in full precision and in that of products.

    Behind the rows may stand some of zeros, which add nothing to a gradient.
    """

    rows: Tensor
    table: Tensor
    rows_b: Tensor
    table_b: Tensor
    shift: bool

    @classmethod
    def of(cls, rows: Tensor, table: Tensor, dtype: torch.dtype) -> _Head:
        # Reading the bound would stall a CUDA stream, where two more passes are cheap.
        bound = largest_norm(rows) * largest_norm(table)
        shift = rows.is_cuda or not bool(bound <= SAFE_EXPONENT)
        return cls(rows, table, rows.to(dtype), table.to(dtype), shift)

    def part(self, part: slice, goal: Tensor) -> _Part:
        """The answers of some rows, of which ``goal`` ``[r]`` are the targets.

        The target leaves the sum and comes back in full precision, so that what is left of 1 where
        the head is sure of it has no cancellation.
        """
        at_goal = (self.rows[part] * self.table[goal]).sum(1, keepdim=True)
        energy = torch.mm(self.rows_b[part], self.table_b.t())
        index = torch.arange(goal.numel(), device=goal.device), goal
        energy.index_put_(index, energy.new_full((), -math.inf))
        top = energy.new_zeros(1, 1)
        if self.shift:
            top = torch.maximum(energy.amax(1, keepdim=True), at_goal.to(energy.dtype))
            energy.sub_(top)
        rest = energy.exp2_().sum(1, keepdim=True, dtype=at_goal.dtype)
        offset = top.to(at_goal.dtype)
        total = rest + torch.exp2(at_goal - offset)
        return _Part(energy, at_goal, rest / total, total, total.log2() + offset)


@dataclass(frozen=True)
class _Part:
    """Answers of r rows.

    Args:
        others: ``[r, N]`` unnormalised, 0 at the targets.
        at_goal: ``[r, 1]`` logits of the targets.
        miss: ``[r, 1]`` probability of everything but the target.
        total: ``[r, 1]`` sum of the unnormalised answers, the target's included.
        log_total: ``[r, 1]`` the normaliser of the logits.
    """

    others: Tensor
    at_goal: Tensor
    miss: Tensor
    total: Tensor
    log_total: Tensor


def _chunked(
    own: _Head, soft: _Head, goal: Tensor, count: int, share: float, chunk: int, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss of the first ``count`` rows; gradients of these and of the table, if ``wanted``."""
    loss = own.rows.new_zeros(())
    d_hidden = torch.empty_like(own.rows) if wanted else None
    d_weight = torch.zeros_like(own.table) if wanted else None
    for start in range(0, own.rows.size(0), chunk):
        part = slice(start, min(start + chunk, own.rows.size(0)))
        said, told = own.part(part, goal[part]), soft.part(part, goal[part])
        # What the teacher expects of the others: the loss needs no more of its answers.
        mean = torch.mm(told.others, own.table_b) / told.total
        logits = (own.rows[part] * mean).sum(1, keepdim=True)
        lost = said.log_total - (1 - share * told.miss) * said.at_goal - share * logits
        loss += lost[: max(0, count - start)].sum() * LN2
        if d_hidden is None or d_weight is None:
            continue
        # softmax(own) - q: small where the two agree, so one matrix before it is multiplied.
        apart = said.others.mul_(said.total.reciprocal().to(said.others.dtype))
        apart -= told.others.mul_((share / told.total).to(apart.dtype))
        index = torch.arange(goal[part].numel(), device=goal.device), goal[part]
        apart.index_put_(index, (share * told.miss - said.miss).view(-1).to(apart.dtype))
        d_hidden[part] = torch.mm(apart, own.table_b)
        d_weight += torch.mm(apart.t(), (own.rows[part] * LN2).to(apart.dtype))
    return loss, None if d_hidden is None else d_hidden[:count], d_weight
