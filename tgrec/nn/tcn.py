"""Dilated causal convolutions over left-padded sequences."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.nn.transformer import Dropout

__all__ = ["TCNEncoder", "runs"]


class TCNEncoder(nn.Module):
    r"""A temporal convolutional network (Bai, Kolter and Koltun, 2018, arXiv 1803.01271).

    Level l has two convolutions of ``kernel_size`` positions that lie :math:`2^l` apart, the
    newest of them the position itself, and a residual connection around both:

    .. math:: x \leftarrow x + \mathrm{drop}(C_2(\mathrm{drop}(\mathrm{ReLU}(C_1(\mathrm{LN}(x))))))

    A position sees ``1 + 2 (kernel_size - 1) (2^levels - 1)`` events. Differs from the paper:
    layer norm before a level instead of weight norm, no ReLU after the residual sum.

    Args:
        d_model: D, in and out.
        levels: Number of levels.
        kernel_size: Positions that a convolution reads.
        dropout: In [0, 1).
    """

    def __init__(self, d_model: int, levels: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(levels))
        self.kernel_size = kernel_size
        width = kernel_size * d_model
        self.first = nn.ModuleList(nn.Linear(width, d_model) for _ in range(levels))
        self.second = nn.ModuleList(nn.Linear(width, d_model) for _ in range(levels))
        self.norm, self.drop = nn.LayerNorm(d_model), Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``[B, L, D]`` and ``mask`` ``[B, L]`` (True at real positions) to ``[B, L, D]``.

        Position j depends on real positions up to j alone.
        """
        padding = ~mask.unsqueeze(2)
        x = self.drop(x * math.sqrt(x.size(2)))
        levels = zip(self.norms, self.first, self.second, strict=True)
        for level, (norm, first, second) in enumerate(levels):
            y = F.relu(first(self._seen(norm(x), padding, 2**level)))
            x = x + self.drop(second(self._seen(self.drop(y), padding, 2**level)))
        # An empty history is read at a padded position, which must not look like an item.
        out: Tensor = self.norm(x.masked_fill(padding, 0.0))
        return out

    def _seen(self, x: Tensor, padding: Tensor, dilation: int) -> Tensor:
        """``[B, L, kernel_size * D]`` what a causal convolution reads at each position."""
        before = (self.kernel_size - 1) * dilation
        x = F.pad(x.masked_fill(padding, 0.0), (0, 0, before, 0))
        return runs(x, self.kernel_size, dilation)


def runs(x: Tensor, size: int, dilation: int = 1) -> Tensor:
    """Runs of positions side by side: a linear layer on them is a convolution.

    (For the many lengths of histories, a CPU plans the convolutions of torch anew again and
    again.)

    Args:
        x: ``[B, L, D]``.
        size: Positions of a run, oldest first.
        dilation: How far they lie apart.

    Returns:
        ``[B, L - (size - 1) * dilation, size * D]``.
    """
    length = x.size(1) - (size - 1) * dilation
    return torch.cat([x[:, k * dilation :][:, :length] for k in range(size)], dim=2)
