"""Simulated MovieLens: the schema of the real one, any size, no download, a known oracle.

2,000 people rate invented films in sessions: runs of ratings of the same second down a shelf of
similar films, sequels a few ratings after their predecessors, and tastes, shaped by gender and
age, that drift over weeks. A film is never rated twice. Next-item prediction on it rewards what
it rewards on MovieLens: order, sequels, tastes, and time.

Since the true distribution of every next item is known (:class:`Simulation`), so is the best
score that any model can reach. Results on this data are always named as simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.datasets import _generator as generator
from tgrec.datasets._generator import (
    DAY,
    SECONDS,
    SESSION,
    SESSION_GAP,
    TIE,
    Bools,
    Floats,
    Ints,
    Latents,
)
from tgrec.datasets._store import OneGraph

_PARTS = ("", " II", " III")


@dataclass(frozen=True)
class Simulation:
    """The oracle of one simulated dataset: true probabilities of next items.

    All arrays are sorted by (user, event); user u has the rows ``pointer[u]:pointer[u + 1]``.

    Args:
        latents: The true tastes, popularities, shelves and sequels.
        pointer: ``[U + 1]``.
        event_id: ``[E]`` as in the graph.
        item: ``[E]``.
        time: ``[E]`` Unix seconds.
        day: ``[E]`` days since the user joined, the same within a session.
        start: ``[E]`` Unix seconds at which the event's session began.
    """

    latents: Latents
    pointer: Ints
    event_id: Ints
    item: Ints
    time: Ints
    day: Ints
    start: Ints

    def scores(self, user: Tensor, cut: Tensor, time: Tensor | None = None) -> Tensor:
        """True log-probabilities of each user's next item, given the latents and the past.

        They are exact: the same function made the data. Ranking by them is therefore optimal for
        every ranking metric with one target; no model can do better except by luck. Without
        ``time`` (track T1) the next moment is unknown and summed over: the same second, seconds
        later, or a new session after each of the possible numbers of days.

        Args:
            user: ``[B]`` int64.
            cut: ``[B]`` int64: only the user's events with ``event_id < cut`` are the past.
            time: ``[B]`` Unix seconds of the next event, if it is known (track T2).

        Returns:
            ``[B, N]`` float32, ``-inf`` at items that the user already has.

        Raises:
            ValueError: If the shapes differ or a time is before the user's last event.
        """
        if user.shape != cut.shape or (time is not None and time.shape != user.shape):
            raise ValueError(
                f"'user', 'cut' and 'time' need one shape [B] (got {list(user.shape)}, "
                f"{list(cut.shape)}, {None if time is None else list(time.shape)})"
            )
        users, cuts = user.cpu().numpy(), cut.cpu().numpy()
        times = None if time is None else time.cpu().numpy()
        out = torch.empty(user.numel(), self.latents.popularity.size)
        for first in range(0, user.numel(), 512):
            rows = slice(first, first + 512)
            now = None if times is None else times[rows]
            with np.errstate(divide="ignore"):  # log(0) of seen items
                scores = np.log(self._probabilities(users[rows], cuts[rows], now))
            out[rows] = torch.from_numpy(scores.astype(np.float32))
        return out

    def _probabilities(self, user: Ints, cut: Ints, time: Ints | None) -> Floats:
        begin = self.pointer[user]
        end = begin + [
            np.searchsorted(self.event_id[self.pointer[u] : self.pointer[u + 1]], c)
            for u, c in zip(user, cut, strict=True)
        ]
        lags = end[:, None] - 1 - np.arange(generator.RECENT)
        recent = np.where(lags >= begin[:, None], self.item[np.maximum(lags, 0)], -1)
        seen = np.zeros((user.size, self.latents.popularity.size), dtype=np.bool_)
        for row, (a, b) in enumerate(zip(begin, end, strict=True)):
            seen[row, self.item[a:b]] = True
        fresh = end == begin  # no past: joining is the start of a session on day 0
        last = np.maximum(end - 1, 0)
        day = np.where(fresh, 0, self.day[last])

        def next_item(day: Ints, kind: Ints) -> Floats:
            weights = generator.item_weights(self.latents, user, day, kind, recent, seen)
            total: Floats = weights / weights.sum(axis=1, keepdims=True)
            return total

        if time is not None:
            return next_item(*self._step(last, day, fresh, time))
        odds = generator.PROB / generator.PROB.sum()
        mixed = np.zeros(seen.shape)
        for kind in (TIE, SECONDS):
            mixed += odds[kind] * next_item(day, np.full(user.size, kind))
        new = np.full(user.size, SESSION)
        for days in generator.GAP_DAYS:
            mixed += odds[SESSION] / generator.GAP_DAYS.size * next_item(day + days, new)
        return np.where(fresh[:, None], next_item(day, new), mixed)

    def _step(self, last: Ints, day: Ints, fresh: Bools, time: Ints) -> tuple[Ints, Ints]:
        """The day and the kind of an event at a known time, given the rows of the events before."""
        gap = np.where(fresh, SESSION_GAP, time - self.time[last])
        if (gap < 0).any():
            row = int(np.flatnonzero(gap < 0)[0])
            raise ValueError(
                f"'time' holds {time[row]}, which is before the last event of that user at "
                f"{self.time[last[row]]}; it is the time of the next event"
            )
        kind = np.where(gap == 0, TIE, np.where(gap < SESSION_GAP, SECONDS, SESSION))
        days = np.where((kind == SESSION) & ~fresh, (time - self.start[last]) // DAY, 0)
        return day + days, kind


def simulate_movielens(
    num_users: int = 2000, num_items: int = 600, mean_events: int = 60, seed: int = 0
) -> tuple[TemporalRecGraph, Simulation]:
    """Draws a simulated MovieLens and its oracle; the same arguments give the same bytes.

    Args:
        num_users: U.
        num_items: N, at least twice the largest number of events of a user.
        mean_events: Mean number of events per user; they lie between 5 and ``3 * mean - 10``.
        seed: Of everything.

    Returns:
        The graph, with the node and edge attributes of ``MovieLens1M``, and the oracle.

    Raises:
        ValueError: If a size is not usable.
    """
    _check_sizes(num_users, num_items, mean_events, seed)
    latents = generator.make_latents(num_users, num_items, seed)
    counts = generator.make_counts(num_users, mean_events, seed)
    clock = generator.make_clock(num_users, int(counts.max()), seed)
    items = generator.make_items(latents, clock, counts, seed)

    user = np.repeat(np.arange(num_users), counts)
    step = np.concatenate([np.arange(count) for count in counts])
    item, day, time = items[user, step], clock.day[user, step], clock.time[user, step]
    rating = generator.make_ratings(latents, user, item, day, seed)
    # Rows are in (user, step) order, so that ties of a user keep the order of the generator.
    events = pd.DataFrame(
        {"user_id": user + 1, "item_id": item + 1, "timestamp": time, "rating": rating}
    )
    graph = TemporalRecGraph.from_pandas(
        events, rating="rating", users=_users(latents), items=_items(latents)
    )
    graph["item"].genre = torch.from_numpy((latents.genre > 0).astype(np.float32))

    event_id = np.empty(user.size, dtype=np.int64)
    event_id[np.argsort(time, kind="stable")] = np.arange(user.size)
    pointer = np.concatenate([[0], np.cumsum(counts)])
    start = clock.start[user, step]
    return graph, Simulation(latents, pointer, event_id, item, time, day, start)


class SimulatedMovieLens(OneGraph):
    """Simulated MovieLens as a PyG dataset: ``dataset[0]`` is the graph.

    Args:
        num_users: See :func:`simulate_movielens`, as the next three.
        num_items: N.
        mean_events: Events per user.
        seed: Of everything.
        transform: A PyG transform, applied at every access.
    """

    simulation: Simulation

    def __init__(
        self,
        num_users: int = 2000,
        num_items: int = 600,
        mean_events: int = 60,
        seed: int = 0,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        graph, simulation = simulate_movielens(num_users, num_items, mean_events, seed)
        super().__init__(graph, None, transform)
        self.simulation = simulation


def _check_sizes(num_users: int, num_items: int, mean_events: int, seed: int) -> None:
    for name, value, low in (
        ("num_users", num_users, 1),
        ("num_items", num_items, 24),
        ("mean_events", mean_events, 5),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"'{name}' needs to be an integer of at least {low} (got {value!r})")
    most = 5 + 3 * (mean_events - 5)
    if num_items > generator.MAX_ITEMS or most > generator.MAX_EVENTS:
        raise ValueError(
            f"'num_items' needs to be at most {generator.MAX_ITEMS} and 3 * 'mean_events' - 10 at "
            f"most {generator.MAX_EVENTS} (got {num_items} and {most})"
        )
    if num_items < 2 * most:
        raise ValueError(
            f"'num_items' needs to be at least {2 * most}, twice the events of the most active "
            f"user (3 * mean_events - 10), for nobody rates an item twice (got {num_items})"
        )


def _users(latents: Latents) -> pd.DataFrame:
    people = latents.people
    columns = {"user_id": np.arange(1, len(people) + 1)}
    columns |= {name: people[:, k] for k, name in enumerate(("gender", "age", "occupation"))}
    return pd.DataFrame(columns)


def _items(latents: Latents) -> pd.DataFrame:
    number = np.arange(1, latents.part.size + 1)
    titles = [
        f"Simulated Film {first:04d}{_PARTS[part - 1]} ({year})"
        for first, part, year in zip(
            number - latents.part + 1, latents.part, latents.year, strict=True
        )
    ]
    return pd.DataFrame({"item_id": number, "title": titles, "year": latents.year})
