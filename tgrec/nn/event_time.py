"""When an event happened and when the next one is asked for, as vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.nn.gap_attention import NUM_BUCKETS, gap_bucket

__all__ = ["EventTimeEmbedding"]

# Of equal length, over the time span that is given.
NUM_PERIODS = 64


class EventTimeEmbedding(nn.Module):
    r"""The sum of three learned vectors per event j, all zero at the start.

    One for the gap since the event before it, one for the gap :math:`\tau_j - t_j` until the next
    one is asked for (0 if that is not known, as on T1), both in the buckets of
    :func:`tgrec.nn.gap_attention.gap_bucket`, and one for the period in which :math:`\tau_j` lies.
    Attention under a softmax compares the events of a user with each other; how long ago the
    newest of them is, and what was on offer at that time, it cannot tell.

    Args:
        channels: D.
        first: Unix seconds at which the first period starts.
        last: Unix seconds at which the last one ends; what is later counts as the last.
    """

    span: Tensor

    def __init__(self, channels: int, first: int = 0, last: int = 2**32) -> None:
        super().__init__()
        self.since = nn.Parameter(torch.zeros(NUM_BUCKETS, channels))
        self.until = nn.Parameter(torch.zeros(NUM_BUCKETS, channels))
        self.period = nn.Parameter(torch.zeros(NUM_PERIODS, channels))
        self.register_buffer("span", torch.tensor([first, last]))

    def periods(self) -> list[tuple[int, int, int]]:
        """The span that is divided, and the number of each of its periods."""
        first, last = self.span.tolist()
        return [(first, last, period) for period in range(NUM_PERIODS)]

    def forward(self, time: Tensor, mask: Tensor, asked: Tensor) -> Tensor:
        """``[B, L, D]``; anything at padding.

        Args:
            time: ``[B, L]`` int64 Unix seconds of the events.
            mask: ``[B, L]`` bool, True at real events, which stand on the right.
            asked: ``[B, L]`` when the event after each is asked for; ``time`` where unknown.
        """
        since = gap_bucket(time - F.pad(time[:, :-1], (1, 0))).long()
        # The bucket of 68 years and more stands for events with none before them.
        since = torch.where(F.pad(mask[:, :-1], (1, 0)), since, NUM_BUCKETS - 1)
        until = gap_bucket(asked - time).long()
        first, last = self.span
        length = (last - first).clamp(min=1)
        period = ((asked - first) * NUM_PERIODS).div(length, rounding_mode="floor")
        return (
            F.embedding(since, self.since)
            + F.embedding(until, self.until)
            + F.embedding(period.clamp(0, NUM_PERIODS - 1), self.period)
        )
