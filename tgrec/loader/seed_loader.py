"""Batches of seeds: (user, cut) in, :class:`RecBatch` out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, Targets
from tgrec.data.random import hash_keys, permutation, uniform, uniform64
from tgrec.loader.neighborhood import NeighborhoodReader
from tgrec.loader.tracks import Track, query_times
from tgrec.sampler import EventIndex, HistorySampler

# Histories of a batch are padded to a multiple of this, and long ones to one of eight lengths per
# octave, so that few shapes occur: a product of matrices is compiled for each of them.
ALIGN, PER_OCTAVE = 8, 8
WINDOWS = ("last", "all", "random", "early")


def training_seeds(
    index: EventIndex,
    max_len: int | None,
    windows: str = "last",
    key: int = 0,
    seeds_per_user: int | None = None,
    relation: int | None = None,
) -> Targets:
    """The events whose pasts are the training examples.

    A sequence model learns from every position of a history, so one seed per window is enough.

    Args:
        index: Over training events only.
        max_len: Length of a window; None (models that read no history) makes every event a seed,
            or ``seeds_per_user`` of them.
        windows: ``last``: one window per user, the last ``max_len`` events before the last one.
            ``all``: windows side by side over the whole history, so that no event of a long
            history is left out. ``random``: one window per user that ends at the last event in
            half of the cases and anywhere in the others, so that what stands last varies.
            ``early``: as ``random``, but in the others the logarithm of the length of the past is
            uniform, so that a past of 1 to 10 events is as likely as one of 10 to 100: for people
            who have just come.
        key: Of the draw of ``random`` and ``early`` windows and of ``seeds_per_user``, another
            one every epoch.
        seeds_per_user: Without ``max_len``: so many events of each user, each set equally likely;
            all where a user has no more. See :attr:`tgrec.data.Sampling.seeds_per_user`.
        relation: The kind of event that is asked for: a window ends at the last event of this kind
            that it holds, and a window without one is left out. None for any.

    Returns:
        :class:`Targets` of the seeds; users with fewer than two events have none.
    """
    if windows not in WINDOWS:
        raise ValueError(f"'windows' needs to be one of {list(WINDOWS)} (got {windows!r})")
    events = index.by_user
    start, stop = events.ptr[:-1], events.ptr[1:]
    place = torch.arange(events.log.numel(), device=index.device)
    user = index.user.index_select(0, events.log)
    back = stop[user] - 1 - place  # 0 for the last event of a user
    has_past = place > start[user]
    asked = has_past
    if relation is not None:
        asked = has_past & (index.relation.index_select(0, events.log) == relation)
    if max_len is None:
        chosen = asked.nonzero().view(-1)
        if seeds_per_user is not None:
            chosen = chosen[_some_per_user(user[chosen], seeds_per_user, key)]
    elif windows == "last":
        chosen = (has_past & (back == 0)).nonzero().view(-1)
    elif windows == "all":
        chosen = (has_past & (back % max_len == 0)).nonzero().view(-1)
    else:
        users = (stop - start >= 2).nonzero().view(-1)
        choices = (stop - start - 1)[users]  # every event but the first
        share = uniform(key, users, 0)
        if windows == "early":
            share = ((choices + 1) ** share - 1) / choices
        drawn = (share * choices).long().clamp(max=choices - 1)
        drawn = torch.where(uniform(key, users, 1) < 0.5, choices - 1, drawn)
        chosen = start[users] + 1 + drawn
    if relation is not None and max_len is not None:
        chosen = _back_to(asked, chosen, start[user[chosen]])
    log = events.log[chosen]
    return Targets(index.user[log], index.event_id[log], index.item[log], index.time[log])


def _back_to(asked: Tensor, chosen: Tensor, start: Tensor) -> Tensor:
    """For each place, the last one up to it that is ``asked``, each once.

    Places without one from ``start`` on are left out.
    """
    place = torch.arange(asked.numel(), device=asked.device)
    last = torch.where(asked, place, -1).cummax(0).values[chosen]
    out: Tensor = last[last >= start].unique()
    return out


def _some_per_user(user: Tensor, count: int, key: int) -> Tensor:
    """``count`` positions of each user in ascending ``user``, drawn at random, in ascending order.

    The draws of a user are those of its own positions, whoever the other users are.
    """
    size = torch.bincount(user)
    first = size.cumsum(0) - size
    place = torch.arange(user.numel(), device=user.device)
    draw = uniform64(key, user, place - first[user])
    order = torch.argsort(draw, stable=True)
    order = order[torch.argsort(user[order], stable=True)]  # user by user, each in random order
    return order[place - first[user] < count].sort().values


@dataclass(frozen=True)
class SeedLoader:
    """Reads what a model asks for (its ``sampling``) for batches of seeds.

    Args:
        index: Histories are read from it. For training it holds training events only.
        sampling: What a batch must contain.
        track: What a model may know about the time of the question.
        neighborhood_reader: Reads neighbourhoods; None makes one over ``index``.
        steady: Whether training batches of one length hold equally many rows in all epochs, though
            ``random`` windows are longer in some than in others: where every shape of a batch has
            to be prepared for, as for CUDA graphs.
    """

    index: EventIndex
    sampling: Sampling
    track: Track = "T1"
    neighborhood_reader: NeighborhoodReader | None = None
    steady: bool = False

    @cached_property
    def neighborhoods(self) -> NeighborhoodReader:
        """Reads the sampled neighbourhoods; for models that ask for them."""
        return self.neighborhood_reader or NeighborhoodReader(self.index, self.sampling)

    def batch(self, seeds: Targets, max_len: int | None = None, key: int | None = None) -> RecBatch:
        """One batch.

        Args:
            seeds: The targets of the batch, on the index's device.
            max_len: Longest history among the seeds, where known.
            key: Given for training: keys the random draws, and puts the answers in the batch.
                Without it the batch holds the questions only.
        """
        history, asked, graph = None, None, None
        if self.sampling.max_len is not None:
            sampler = HistorySampler(self.index, self.sampling.max_len, rating=self.sampling.rating)
            history = sampler.sample(seeds.user, seeds.cut, max_len)
        if self.sampling.max_len is not None or self.sampling.num_neighbors is not None:
            asked = query_times(self.track, history, seeds.time if self.index.has_time else None)
        if self.sampling.num_neighbors is not None:
            now = None if asked is None else asked[:, -1]
            graph = self.neighborhoods.read(seeds.user, seeds.cut, now, key)
        if key is None:
            return RecBatch(seeds.user, history, query_time=asked, graph=graph)
        return RecBatch(
            user=seeds.user,
            history=history,
            item=seeds.item,
            item_time=seeds.time if self.index.has_time else None,
            query_time=asked,
            key=hash_keys(key, seeds.cut),
            graph=graph,
            rating=self.index.rating_of(seeds.cut) if self.sampling.rating else None,
        )

    def lengths(self, seeds: Targets) -> Tensor:
        """``[n]`` number of events before each seed (not cut to ``max_len``)."""
        start, stop = self.index.by_user.past(seeds.user, seeds.cut)
        return stop - start

    def eval_batches(self, seeds: Targets, batch_size: int) -> Iterator[tuple[Tensor, RecBatch]]:
        """All seeds once, similar lengths together, the longest first: (rows of seeds, batch)."""
        length = self._padded(self.lengths(seeds)).cpu()
        order = torch.argsort(length, stable=True)
        longest = [int(length[rows[-1]]) for rows in order.split(batch_size)]
        there = order.to(seeds.user.device).split(batch_size)  # at once, as for training
        # What a longer batch has freed has room for a shorter one, but not the other way round.
        for rows, most in reversed(list(zip(there, longest, strict=True))):
            yield rows, self.batch(seeds.select(rows), max_len=most)

    def train_batches(
        self,
        seeds: Targets,
        batch_size: int,
        seed: int,
        epoch: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        plan: list[Tensor] | None = None,
    ) -> Iterator[RecBatch]:
        """One epoch: all seeds once, in batches of about equally many events.

        Seeds of similar length are put together and every batch holds about ``batch_size`` times
        the mean length in events, so that padding is small and a short history weighs in the loss
        as much as it has events. The order of batches is random. All of it is a function of
        (seed, epoch), so an epoch can be entered at any step.

        Args:
            seeds: From :func:`training_seeds`.
            batch_size: Number of seeds per batch, on average and roughly.
            seed: Of the run.
            epoch: Counts from 0.
            start: First step to yield, when resuming.
            rank: Of this process; it gets every ``world_size``-th seed of each batch.
            world_size: Number of processes that share each batch.
            plan: What :meth:`plan` says of these arguments, where it has been asked already.
        """
        key = int(hash_keys(seed, epoch))
        plan = (self.plan(seeds, batch_size, seed, epoch) if plan is None else plan)[start:]
        if not plan:
            return
        length = self._padded(self.lengths(seeds)).cpu()
        # All at once: a copy to the device for every batch would make the host wait for the last.
        there = torch.cat(plan).to(seeds.user.device).split([len(rows) for rows in plan])
        for rows, moved in zip(plan, there, strict=True):
            longest = int(length[rows].max())
            mine = moved[rank::world_size]
            yield self.batch(seeds.select(mine), max_len=longest, key=key)

    def plan(self, seeds: Targets, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
        """The rows of ``seeds`` in each batch of an epoch."""
        if batch_size < 1:
            raise ValueError(f"'batch_size' needs to be a positive integer (got {batch_size})")
        length = self._padded(self.lengths(seeds)).cpu()
        order = permutation(len(seeds), seed, epoch, 0)
        if batch_size >= len(seeds):
            return [order] if len(seeds) else []
        order = order[torch.argsort(length[order], stable=True)]
        ascending = length[order].tolist()
        events = batch_size * sum(ascending) / len(ascending)
        if self.steady:  # one of eight numbers an octave, as lengths
            events = 2 ** (round(PER_OCTAVE * math.log2(events)) / PER_OCTAVE)
        batches, stop = [], len(ascending)
        while stop > 0:  # from the longest down, so that each length has one number of rows
            size = max(1, round(events / ascending[stop - 1]))
            # Too few for a batch of their own stay with the last one.
            start = stop - size if stop - size >= size / 2 else 0
            batches.append(order[start:stop])
            stop = start
        return [batches[i] for i in permutation(len(batches), seed, epoch, 1)]

    def _padded(self, length: Tensor) -> Tensor:
        if self.sampling.max_len is None:
            return torch.ones_like(length)
        length = length.clamp(min=1)  # models need one position
        octave = 2 ** (length - 1).clamp(min=1).log2().floor().long()
        step = (octave // PER_OCTAVE).clamp(min=ALIGN)
        padded = (length + step - 1).div(step, rounding_mode="floor") * step
        return padded.clamp(max=self.sampling.max_len)
