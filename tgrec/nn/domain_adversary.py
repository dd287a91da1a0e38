"""Which domain a vector comes from, and a gradient that works against the answer."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


class _Reversed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself; its gradient is multiplied by ``-strength``.

    The layer of Ganin and Lempitsky (ICML 2015, arXiv 1409.7495): what stands behind it learns to
    tell domains apart, what stands before it learns to hide them.
    """
    out: Tensor = _Reversed.apply(x, strength)  # type: ignore[no-untyped-call]
    return out


def reversal_strength(progress: float) -> float:
    r"""The schedule of the same paper, from 0 at the start to nearly 1 at the end.

    .. math:: \lambda = 2 / (1 + e^{-10 p}) - 1

    The discriminator has to know something before it is worth hiding from.

    Args:
        progress: Share of the training that is over, in [0, 1].

    Raises:
        ValueError: If it is not.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"'progress' needs to be in [0, 1] (got {progress})")
    return 2 / (1 + math.exp(-10 * progress)) - 1


class DomainDiscriminator(nn.Module):
    """Two layers on top of a reversed gradient.

    Args:
        in_channels: D.
        num_domains: C, at least 2.
        hidden_channels: Width of the layer between.
    """

    def __init__(self, in_channels: int, num_domains: int, hidden_channels: int = 64) -> None:
        super().__init__()
        if num_domains < 2:
            raise ValueError(f"'num_domains' needs to be at least 2 (got {num_domains})")
        self.hidden = nn.Linear(in_channels, hidden_channels)
        self.out = nn.Linear(hidden_channels, num_domains)

    def forward(self, x: Tensor, strength: float) -> Tensor:
        """``[n, C]`` logits of the domains of ``x`` ``[n, D]``; gradients reach ``x`` reversed."""
        logits: Tensor = self.out(F.relu(self.hidden(reverse_gradient(x, strength))))
        return logits
