"""Simulated users in two domains with one taste, and the oracle that knows it.

Every user has one favourite topic, which shapes what they choose in both domains; every item has a
topic. What a user did in the one domain therefore tells what they like in the other, but which
items share a topic can only be learned from users who met both. Inside a domain an item also has
a successor, so that order counts. Nobody meets an item twice.

The true distribution of the next item is known, and with it the best score that a model can reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph

DOMAINS = ("food", "kitchen")
TOPICS, FAVOURITE, FOLLOW = 6, 0.9, 0.25  # share of the favourite topic, and of the successor
FEWEST, MOST = (3, 3), (5, 9)  # events of a user in each domain
START, HOUR = 1_000_000_000, 3600

Ints = np.ndarray
Floats = np.ndarray


@dataclass(frozen=True)
class DomainOracle:
    """True probabilities of next items.

    Args:
        taste: ``[U, K]`` share of each topic.
        topic: ``[N]`` of each item.
        popularity: ``[N]`` within its topic and domain, adding up to 1 there.
        follower: ``[N]`` the successor of each item, of the same domain.
        domain: ``[N]``.
        pointer: ``[U + 1]``: user u has the rows ``pointer[u]:pointer[u + 1]`` of the next two.
        item: ``[E]``, each user's in order.
        event_id: ``[E]``.
    """

    taste: Floats
    topic: Ints
    popularity: Floats
    follower: Ints
    domain: Ints
    pointer: Ints
    item: Ints
    event_id: Ints

    def scores(self, user: Tensor, cut: Tensor, relation: str) -> Tensor:
        """True log-probabilities of each user's next item in a domain, given the latents.

        Args:
            user: ``[B]`` int64.
            cut: ``[B]`` int64: only events with ``event_id < cut`` are the past.
            relation: The domain that is asked for.

        Returns:
            ``[B, N]`` float32, ``-inf`` at items of other domains and at those already met.
        """
        if relation not in DOMAINS:
            raise ValueError(f"'relation' needs to be one of {list(DOMAINS)} (got {relation!r})")
        domain = DOMAINS.index(relation)
        out = np.zeros((user.numel(), self.topic.size))
        for row, (u, c) in enumerate(zip(user.tolist(), cut.tolist(), strict=True)):
            rows = slice(self.pointer[u], self.pointer[u + 1])
            past = self.item[rows][self.event_id[rows] < c]
            out[row] = self._next(u, past, domain)
        with np.errstate(divide="ignore"):
            return torch.from_numpy(np.log(out).astype(np.float32))

    def _next(self, user: int, past: Ints, domain: int) -> Floats:
        """``[N]`` probabilities."""
        weight = self.taste[user, self.topic] * self.popularity * (self.domain == domain)
        own = past[self.domain[past] == domain]
        if own.size:
            weight = (1 - FOLLOW) * weight
            weight[self.follower[own[-1]]] += FOLLOW
        weight[past] = 0
        total: Floats = weight / weight.sum()
        return total


def simulate_domains(
    num_users: int = 1500, num_items: int = 60, seed: int = 0
) -> tuple[TemporalRecGraph, DomainOracle]:
    """Draws the events and their oracle; the same arguments give the same graph.

    Args:
        num_users: U.
        num_items: Items of each domain, at least 30.
        seed: Of everything.

    Raises:
        ValueError: If a size is not usable.
    """
    for name, value, low in (("num_users", num_users, 1), ("num_items", num_items, 30)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"'{name}' needs to be an integer of at least {low} (got {value!r})")
    draw = np.random.default_rng(seed)
    domain = np.repeat(np.arange(2), num_items)
    topic = np.concatenate([draw.permutation(num_items) % TOPICS for _ in DOMAINS])
    taste = np.full((num_users, TOPICS), (1 - FAVOURITE) / (TOPICS - 1))
    taste[np.arange(num_users), draw.integers(TOPICS, size=num_users)] = FAVOURITE
    popularity, follower = _inside(domain, topic, draw)
    world = DomainOracle(
        taste, topic, popularity, follower, domain, *(np.empty(0, dtype=np.int64),) * 3
    )
    rows = [row for user in range(num_users) for row in _walk(world, user, draw)]
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "domain"])
    graph = TemporalRecGraph.from_pandas(
        events, relation="domain", items=pd.DataFrame({"item_id": np.arange(domain.size)})
    )
    graph["item"].domain = torch.from_numpy(domain)
    order = np.argsort(events["timestamp"].to_numpy(), kind="stable")
    event_id = np.empty(len(events), dtype=np.int64)
    event_id[order] = np.arange(len(events))
    pointer = np.searchsorted(events["user_id"].to_numpy(), np.arange(num_users + 1))
    item = events["item_id"].to_numpy()
    return graph, DomainOracle(taste, topic, popularity, follower, domain, pointer, item, event_id)


def _inside(domain: Ints, topic: Ints, draw: np.random.Generator) -> tuple[Floats, Ints]:
    """Popularity within topic and domain, and a successor, any other item of the domain."""
    popularity, follower = np.zeros(domain.size), np.zeros(domain.size, dtype=np.int64)
    for d in range(len(DOMAINS)):
        own = draw.permutation(np.flatnonzero(domain == d))
        follower[own] = np.roll(own, 1)
        for k in range(TOPICS):
            shelf = draw.permutation(np.flatnonzero((domain == d) & (topic == k)))
            weight = 1 / (1 + np.arange(shelf.size))
            popularity[shelf] = weight / weight.sum()
    return popularity, follower


def _walk(
    world: DomainOracle, user: int, draw: np.random.Generator
) -> list[tuple[int, int, int, str]]:
    """The events of one user, in order."""
    sizes = [int(draw.integers(low, high + 1)) for low, high in zip(FEWEST, MOST, strict=True)]
    plan = draw.permutation(np.repeat(np.arange(2), sizes))
    time, past = START + int(draw.integers(1000)) * HOUR, np.empty(0, dtype=np.int64)
    out = []
    for d in plan:
        odds = world._next(user, past, int(d))
        chosen = int(draw.choice(odds.size, p=odds))
        past = np.append(past, chosen)
        time += int(draw.integers(1, 48)) * HOUR
        out.append((user, chosen, time, DOMAINS[d]))
    return out
