"""Cross-entropy of a linear head with labels and another head's answers, without all logits."""

from __future__ import annotations

from typing import Any, cast

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
    if soft_hidden.shape[:1] != target.shape or soft_weight.shape[:1] != weight.shape[:1]:
        raise ValueError(
            f"soft_hidden must be [{target.numel()}, D'] and soft_weight [{weight.size(0)}, D'], "
            f"got {list(soft_hidden.shape)} and {list(soft_weight.shape)}"
        )
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    pad = 0
    if chunk is None:
        chunk, pad = default_chunk(hidden, weight, dtype)
    given = (hidden, weight, target, soft_hidden.detach(), soft_weight.detach())
    return cast(Tensor, _Soft.apply(*given, share, chunk, pad, dtype))  # type: ignore[no-untyped-call]


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
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            exact = torch.float64 if dtype == torch.float64 else torch.float32
            # log2(e) goes into the rows: exp2 is faster than exp.
            rows, soft = (F.pad(x.to(exact) * LOG2E, (0, 0, 0, pad)) for x in (hidden, soft_hidden))
            tables = (weight.to(exact), soft_weight.to(exact))
            loss, d_hidden, d_weight = _chunked(
                rows, soft, tables, F.pad(target, (0, pad)), hidden.size(0), share, chunk, dtype
            )
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        of_hidden, of_weight = ctx.dtypes
        return (
            (d_hidden * grad).to(of_hidden),
            (d_weight * grad).to(of_weight),
            *(None,) * 7,
        )


def _chunked(
    rows: Tensor,
    soft: Tensor,
    tables: tuple[Tensor, Tensor],
    target: Tensor,
    count: int,
    share: float,
    chunk: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of the first ``count`` rows, gradients of these and of the table.

    Rows are in units of log2; behind them are rows of zeros, which add nothing to a gradient.
    """
    table, soft_table = tables
    own_b, soft_b = table.to(dtype), soft_table.to(dtype)
    # Reading the bound would stall a CUDA stream, where two more passes are cheap.
    shift = [
        x.is_cuda or not bool(largest_norm(x) * largest_norm(t) <= SAFE_EXPONENT)
        for x, t in ((rows, table), (soft, soft_table))
    ]
    loss, d_hidden, d_weight = rows.new_zeros(()), torch.empty_like(rows), torch.zeros_like(table)
    for start in range(0, rows.size(0), chunk):
        part = slice(start, start + chunk)
        own, own_sum, offset = _exponentials(rows[part].to(dtype), own_b, shift[0])
        told, told_sum, _ = _exponentials(soft[part].to(dtype), soft_b, shift[1])
        # The mean item that is wanted: the loss needs no more of q than this.
        wanted = (1 - share) * table[target[part]] + share * torch.mm(told, own_b) / told_sum
        lost = own_sum.log2().add(offset).view(-1) - (rows[part] * wanted).sum(1)
        loss += lost[: max(0, count - start)].sum() * LN2
        d_hidden[part] = torch.mm(own, own_b) / own_sum - wanted
        scaled = rows[part] * LN2
        for factor, exponentials in ((scaled / own_sum, own), (scaled * (-share / told_sum), told)):
            d_weight += torch.mm(exponentials.t(), factor.to(dtype))
    d_weight.index_add_(0, target, rows, alpha=-(1 - share) * LN2)
    return loss, d_hidden[:count], d_weight


def _exponentials(rows: Tensor, table: Tensor, shift: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``2^z`` of the logits z ``[r, N]``, their sums ``[r, 1]``, and what was taken off z."""
    energy = torch.mm(rows, table.t())
    exact = torch.float64 if rows.dtype == torch.float64 else torch.float32
    top = energy.amax(1, keepdim=True) if shift else energy.new_zeros(1, 1)
    if shift:
        energy.sub_(top)
    energy.exp2_()
    return energy, energy.sum(1, keepdim=True, dtype=exact), top.to(exact)
