"""Histories from which events are taken out."""

from __future__ import annotations

import torch

from tgrec.recommend.occlusion import _closed_up
from tgrec.sampler import EventIndex, HistorySampler
from tgrec.testing import toy_graph


def test_a_history_without_an_event_is_padded_as_one_that_is_shorter() -> None:
    index = EventIndex(toy_graph())
    ann, end = torch.tensor([0]), torch.tensor([9])
    past = HistorySampler(index, 4, rating=True).sample(ann, end)
    (own,) = past.event_id
    closed = _closed_up(past, own, torch.tensor([[True, True, False, False]]))
    later = (own >= own[2]).nonzero().view(-1)
    assert closed.mask.tolist() == [[False, False, True, True]]
    assert closed.event_id.tolist() == [[-1, -1, *own[later].tolist()]]
    assert closed.rating is not None
    assert past.rating is not None
    assert closed.rating.isnan().tolist() == [[True, True, False, False]]
    assert torch.equal(closed.rating[:, 2:], past.rating[:, later])
    empty = HistorySampler(index, 4, rating=True).sample(ann, end * 0)
    for name in ("item", "time", "event_id", "relation", "rating"):
        mine, none = getattr(closed, name)[:, :2], getattr(empty, name)[:, :2]
        torch.testing.assert_close(mine, none, rtol=0, atol=0, equal_nan=True)
