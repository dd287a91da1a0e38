"""Vectors of times: which row each event reads, by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tgrec.nn.event_time import NUM_PERIODS, EventTimeEmbedding
from tgrec.nn.gap_attention import NUM_BUCKETS

HOUR = 3600
MASK = torch.tensor([[False, True, True, True]])
TIME = torch.tensor([[0, 1000, 1000, 1000 + HOUR]])


def rows_of(module: EventTimeEmbedding, table: str, asked: Tensor, time: Tensor = TIME) -> Tensor:
    """The rows of one table that the events read: with row r all r, in the other tables zeros."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            count = torch.arange(float(parameter.size(0))).unsqueeze(1)
            parameter.copy_((name == table) * count.expand_as(parameter))
        return module(time, MASK, asked)[0, MASK[0], 0].long()


def test_the_gap_since_the_event_before() -> None:
    # None before the first one (what stands at padding is no event); 0 s; an hour is in bucket 24.
    rows = rows_of(EventTimeEmbedding(2), "since", TIME)
    assert rows.tolist() == [NUM_BUCKETS - 1, 0, 1 + 2 * 11 + 1]


def test_the_gap_until_the_question() -> None:
    asked = torch.cat([TIME[:, 1:], TIME[:, -1:] + 1], dim=1)  # each by the next, the last by 1 s
    assert rows_of(EventTimeEmbedding(2), "until", asked).tolist() == [0, 1 + 2 * 11 + 1, 1]
    assert rows_of(EventTimeEmbedding(2), "until", TIME).tolist() == [0, 0, 0]  # T1: not known


def test_periods_divide_the_span_and_what_is_outside_counts_as_the_nearest() -> None:
    first = 10**9
    module = EventTimeEmbedding(2, first, first + 64 * HOUR)
    time = first + torch.tensor([[0, -5, HOUR, 3 * HOUR - 1]])
    assert rows_of(module, "period", time, time).tolist() == [0, 1, 2]
    later = first + torch.tensor([[0, 0, 64 * HOUR, 10**8]])
    assert rows_of(module, "period", later, later).tolist() == [0, NUM_PERIODS - 1, NUM_PERIODS - 1]


def test_times_a_second_apart_are_told_apart_everywhere() -> None:
    """A time in float32 would have lost its seconds."""
    module = EventTimeEmbedding(2, 2**30, 2**30 + 64)
    time = 2**30 + torch.arange(4).unsqueeze(0)
    assert rows_of(module, "period", time, time).tolist() == [1, 2, 3]


def test_all_vectors_start_at_zero() -> None:
    assert EventTimeEmbedding(3)(TIME, MASK, TIME + 7).abs().sum() == 0
