"""Per-user histories, read from the shared index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tgrec.data import History, Sampling
from tgrec.sampler.event_index import EventIndex, EventList


class HistorySampler:
    """(user, cut) in, the user's last strictly earlier events out.

    A history is a one-hop temporal sample of the user's edges with strategy "last". The same code
    runs on CPU and CUDA: one binary search and one gather per batch.

    Args:
        index: The shared index.
        max_len: Events kept per seed, the latest ones.
        relations: Names of the kinds of events to read; all by default. Several kinds come merged
            in event order.
        rating: Whether ratings are read too.

    Raises:
        ValueError: If ``max_len`` is not a positive integer or a relation is unknown.
    """

    def __init__(
        self,
        index: EventIndex,
        max_len: int,
        relations: Sequence[str] | None = None,
        rating: bool = False,
    ) -> None:
        Sampling(max_len=max_len)  # checks it
        self.index, self.max_len, self.rating = index, max_len, rating
        self.events = index.by_user if relations is None else _only(index, relations)

    def sample(self, user: Tensor, cut: Tensor, max_len: int | None = None) -> History:
        """Reads one history per seed.

        Args:
            user: ``[B]`` int64.
            cut: ``[B]`` int64; only events with ``event_id < cut`` are returned. 0 gives none, a
                cut beyond the last event gives all.
            max_len: A smaller length than the sampler's, where the caller knows that no history
                of the batch is longer.

        Returns:
            :class:`History` with tensors ``[B, L]``, newest last, padded on the left.
        """
        index, events = self.index, self.events
        index.check_seeds(user, cut)
        length = self.max_len if max_len is None else min(max_len, self.max_len)
        start, end = events.past(user, cut)
        place = end.unsqueeze(1) + torch.arange(-length, 0, device=end.device)  # [B, L]
        mask = place >= start.unsqueeze(1)
        if events.log.numel() == 0:
            place = torch.zeros_like(place)
            empty = torch.zeros_like(place)
            return History(
                empty, empty, empty - 1, empty, mask, empty * math.nan if self.rating else None
            )
        place = place.clamp_(min=0)
        log = _take(events.log, place)
        zero = torch.zeros((), dtype=torch.int64, device=end.device)
        return History(
            item=torch.where(mask, _take(events.other, place), zero),
            time=torch.where(mask, _take(index.time, log), zero),
            event_id=torch.where(mask, _take(index.event_id, log), zero - 1),
            relation=torch.where(mask, _take(index.relation, log), zero),
            mask=mask,
            rating=self._ratings(log, mask) if self.rating else None,
        )

    def _ratings(self, log: Tensor, mask: Tensor) -> Tensor:
        known = self.index.rating
        if known is None:
            return torch.full(mask.shape, math.nan, device=mask.device)
        return torch.where(mask, _take(known, log), math.nan)


def _only(index: EventIndex, relations: Sequence[str]) -> EventList:
    """The user's list restricted to some kinds of events; its twins mean nothing any more."""
    unknown = [r for r in relations if r not in index.relations]
    if unknown or not relations:
        raise ValueError(
            f"'relations' needs to be some of {index.relations} (got {list(relations)})"
        )
    codes = torch.tensor([index.relations.index(r) for r in relations], device=index.device)
    events = index.by_user
    keep = torch.isin(index.relation[events.log], codes)
    kept_before = torch.zeros(keep.numel() + 1, dtype=torch.int64, device=index.device)
    torch.cumsum(keep, 0, out=kept_before[1:])
    return EventList(
        ptr=kept_before[events.ptr],
        log=events.log[keep],
        other=events.other[keep],
        twin=events.twin[keep],
        key=events.key[keep],
        end=events.end,
        longest=events.longest,
    )


def _take(values: Tensor, place: Tensor) -> Tensor:
    """``values[place]``; ``index_select`` does it several times as fast on the CPU."""
    return values.index_select(0, place.flatten()).view(place.shape)


def past_items(index: EventIndex, user: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """All items that each seed's user met before its cut, not cut to any length.

    Returns:
        ``(rows, items)``, both int64 ``[P]``: seed ``rows[p]`` has met ``items[p]``.
    """
    index.check_seeds(user, cut)
    start, stop = index.by_user.past(user, cut)
    count = stop - start
    rows = torch.repeat_interleave(torch.arange(user.numel(), device=user.device), count)
    first = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
    return rows, _take(index.by_user.other, first + torch.arange(rows.numel(), device=user.device))
