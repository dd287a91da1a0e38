"""Dropout whose random numbers do not cost more than the layer that it follows."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["add_dropout", "dropout", "keep_mask"]


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zeros with probability `p`, the rest scaled to keep the mean (Srivastava et al., 2014).

    On CUDA it is `F.dropout`. On the CPU `p` is rounded to a multiple of 1/256, and it takes about
    an eighth of the time: see `keep_mask`.

    Args:
        x: Any shape, a floating dtype.
        p: Probability of a zero, in [0, 1).
        training: False returns `x`.

    Raises:
        ValueError: If `p` is outside [0, 1).
    """
    _check(p)
    if not training or p == 0.0:
        return x
    if x.is_cuda:
        return F.dropout(x, p)
    return cast(Tensor, _Dropout.apply(None, x, p))  # type: ignore[no-untyped-call]


def add_dropout(residual: Tensor, x: Tensor, p: float, training: bool = True) -> Tensor:
    """``residual + dropout(x, p)``, on the CPU in one pass; arguments as in `dropout`."""
    _check(p)
    if not training or p == 0.0:
        return residual + x
    if x.is_cuda:
        return residual + F.dropout(x, p)
    return cast(Tensor, _Dropout.apply(residual, x, p))  # type: ignore[no-untyped-call]


def keep_mask(shape: tuple[int, ...], p: float, like: Tensor) -> tuple[Tensor, float]:
    """A tensor of ones, zero with probability `p`, and the factor that restores the mean.

    The CPU compares one random byte an element, so that `p` is rounded to a multiple of 1/256 (the
    factor is that of the rounded one): `torch.bernoulli` there makes each from two 32-bit draws
    and one division, which takes longer than the attention that it thins. A comparison in place,
    in the dtype of `like`, is vectorised; one to bool and a masked fill are not.
    """
    if like.device.type != "cpu":
        keep = torch.rand(shape, device=like.device) >= p
        return keep.to(like.dtype), 1.0 / (1.0 - p)
    count, dropped = math.prod(shape), min(255, round(p * 256))
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
    level = words.view(torch.int8)[:count].view(shape).to(like.dtype)
    return level.gt_(dropped - 129), 256.0 / (256 - dropped)


def _check(p: float) -> None:
    if not 0.0 <= p < 1.0:
        raise ValueError(f"the dropout probability must lie in [0, 1), got {p}")


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor | None, x: Tensor, p: float) -> Tensor:
        # One dtype throughout: addcmul of two dtypes is several times slower than the casts.
        like = x if residual is None else residual
        mask, ctx.factor = keep_mask(tuple(x.shape), p, like)
        ctx.save_for_backward(mask)
        ctx.dtype, ctx.added = x.dtype, residual is not None
        if residual is None:
            return torch.mul(x, mask).mul_(ctx.factor)
        return torch.addcmul(residual, x.to(like.dtype), mask, value=ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        to_x = torch.mul(grad, mask).mul_(ctx.factor).to(ctx.dtype)
        return grad if ctx.added else None, to_x, None
