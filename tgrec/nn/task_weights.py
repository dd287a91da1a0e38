"""One loss from several tasks: with given weights, or with learned ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["TaskWeights"]


class TaskWeights(nn.Module):
    r"""Weighs the losses of tasks, each a sum over predictions and their number.

    With weights :math:`w_k`, given sums :math:`S_k` and counts :math:`C_k`, the sums and counts
    that come out make

    .. math:: \frac{\sum_k w_k S_k}{\sum_k w_k C_k},

    a mean in which every prediction of task k weighs :math:`w_k`. Being sums, they add up over
    parts of a batch and over processes exactly; where all counts are alike it is the weighted mean
    of the tasks' means. With ``learned`` (Kendall et al., CVPR 2018, arXiv 1705.07115) it is

    .. math:: \frac{\sum_k e^{-s_k} S_k + \tfrac12 s_k C_k}{\sum_k C_k}

    with :math:`s_k = \log \sigma_k^2`, the uncertainty of task k, learned from
    :math:`-\log w_k`. It is the form for classification; for a squared error, where the paper has
    half the weight, it differs by a constant in :math:`s_k`.

    Args:
        weights: Task -> weight, positive.
        learned: Whether the weights are learned.

    Raises:
        ValueError: If there is no task, or a weight is not positive.
    """

    def __init__(self, weights: Mapping[str, float], learned: bool = False) -> None:
        super().__init__()
        if not weights or not all(math.isfinite(w) and w > 0 for w in weights.values()):
            raise ValueError(f"'weights' needs positive numbers, one a task (got {dict(weights)})")
        self.tasks = tuple(weights)
        self.fixed = tuple(weights.values())
        self.log_variance: nn.Parameter | None = None
        if learned:
            self.log_variance = nn.Parameter(torch.tensor([-math.log(w) for w in self.fixed]))
        self._seen: Tensor | None = None

    def forward(self, terms: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Task -> (sum, count), both scalars, to ``(sums [K], counts [K])``."""
        sums = torch.stack([terms[task][0].float() for task in self.tasks])
        counts = torch.stack([terms[task][1].float() for task in self.tasks])
        if self.training:
            seen = torch.stack([sums.detach(), counts])
            self._seen = seen if self._seen is None else self._seen.to(seen.device) + seen
        if self.log_variance is None:
            weight = sums.new_tensor(self.fixed)
            return weight * sums, weight * counts
        return torch.exp(-self.log_variance) * sums + self.log_variance / 2 * counts, counts

    def monitor(self) -> dict[str, float]:
        """The mean loss of each task since the last call (of this process), and learned weights."""
        out = {}
        if self._seen is not None:
            means = (self._seen[0] / self._seen[1].clamp(min=1)).tolist()
            out = {f"loss_{task}": mean for task, mean in zip(self.tasks, means, strict=True)}
            self._seen = None
        if self.log_variance is not None:
            learned = torch.exp(-self.log_variance.detach()).tolist()
            out |= {f"weight_{task}": w for task, w in zip(self.tasks, learned, strict=True)}
        return out
