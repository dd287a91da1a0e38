"""Small graphs whose answers are known by looking at them, and a scrambler of the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph

# A Monday, 00:00:00 UTC. Toy times are counted from here.
MONDAY = 1_000_080_000

_TOY = [
    ("ann", "tea", 0, 4.0),
    ("bob", "tea", 0, 5.0),
    ("ann", "ham", 60, 3.0),
    ("cat", "fig", 60, 4.0),
    ("bob", "ham", 60, 2.0),
    ("cat", "tea", 3_600, 1.0),
    ("ann", "fig", 3_600, 5.0),
    ("bob", "rye", 86_400, 4.0),
    ("ann", "rye", 700_000, 3.0),
    ("ann", "jam", 700_000, 5.0),
    ("dan", "jam", 700_000, 2.0),
    ("cat", "ham", 800_000, 4.0),
]


def toy_graph() -> TemporalRecGraph:
    r"""Four people, five foods, twelve events, drawn by hand.

    ::

        second     0         60             3600      86400   700000         800000
        event id   0    1    2    3    4    5    6    7       8    9    10   11
        ---------+---------+--------------+---------+-------+--------------+-------
        ann        tea       ham                 fig          rye  jam
        bob             tea            ham            rye
        cat                       fig       tea                              ham
        dan                                                             jam

    Seconds count from :data:`MONDAY`; columns under one second tie and keep the order of the
    input rows. Users are ``ann bob cat dan`` (0..3), items ``fig ham jam rye tea`` (0..4). ann's
    last two events share a second, dan has one event only, and nobody but ann and dan meets jam.
    """
    rows = pd.DataFrame(_TOY, columns=["user_id", "item_id", "timestamp", "rating"])
    rows["timestamp"] += MONDAY
    return TemporalRecGraph.from_pandas(rows, rating="rating")


def cycle_graph(
    num_users: int = 48, num_items: int = 24, length: int = 8, step: int = 100
) -> TemporalRecGraph:
    """Everybody walks the cycle ``0 -> 1 -> ... -> num_items - 1 -> 0``.

    User u starts at item ``u % num_items`` and makes ``length + u % 3`` events, one every ``step``
    seconds, so that the last item alone says which item is next, popularity says nothing, and
    nobody meets an item twice.

    Raises:
        ValueError: If a walk would meet an item twice.
    """
    if length + 2 > num_items:
        raise ValueError(
            f"'length' needs to be at most num_items - 2 (got {length} and {num_items})"
        )
    rows = [
        (user, (user + place) % num_items, MONDAY + user + place * step)
        for user in range(num_users)
        for place in range(length + user % 3)
    ]
    return _from_rows(rows)


def block_graph(
    num_users: int = 48, num_blocks: int = 4, block: int = 6, length: int = 5, seed: int = 0
) -> TemporalRecGraph:
    """Users and items in blocks; a user meets items of the own block only, in any order.

    User u and item i belong to the blocks ``u % num_blocks`` and ``i // block``. What is next
    cannot be known beyond its block, which any other item of the user's tells.
    """
    if length > block:
        raise ValueError(f"'length' needs to be at most 'block' (got {length} and {block})")
    draw = np.random.default_rng(seed)
    rows = [
        (user, user % num_blocks * block + int(item), MONDAY + user + place * 100)
        for user in range(num_users)
        for place, item in enumerate(draw.permutation(block)[:length])
    ]
    return _from_rows(rows)


def popularity_graph(num_items: int = 6, seed: int = 0) -> TemporalRecGraph:
    """Item i is met by ``2 ** (i + 1)`` users, each of whom meets items in a random order."""
    draw = np.random.default_rng(seed)
    rows = [
        (user, item, MONDAY + int(draw.integers(10_000)))
        for item in range(num_items)
        for user in draw.permutation(2**num_items)[: 2 ** (item + 1)].tolist()
    ]
    return _from_rows(rows)


def noise_graph(
    num_users: int = 24,
    num_items: int = 12,
    length: tuple[int, int] = (3, 10),
    spread: int = 40,
    seed: int = 0,
) -> TemporalRecGraph:
    """Events that nothing can predict: every item is drawn alike, and many times tie.

    Args:
        num_users: Number of users.
        num_items: Number of items; all of them are nodes, met or not.
        length: Fewest and most events of a user.
        spread: Times lie in ``spread`` different seconds, spaced unevenly from 0 s to days.
        seed: Of the draw.
    """
    draw = np.random.default_rng(seed)
    seconds = np.unique((np.geomspace(1, 3 * 86_400, spread) - 1).astype(np.int64))
    rows = [
        (user, int(draw.integers(num_items)), MONDAY + int(draw.choice(seconds)))
        for user in range(num_users)
        for _ in range(int(draw.integers(length[0], length[1] + 1)))
    ]
    rows = [rows[i] for i in draw.permutation(len(rows))]
    return _from_rows(rows, num_items)


def _from_rows(rows: list[tuple[int, int, int]], num_items: int | None = None) -> TemporalRecGraph:
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = None if num_items is None else pd.DataFrame({"item_id": range(num_items)})
    return TemporalRecGraph.from_pandas(table, items=items)


def scramble_future(graph: TemporalRecGraph, cut: int, seed: int = 0) -> TemporalRecGraph:
    """A copy with the same past and another future.

    Events before ``cut`` are equal to the byte. Every event from the cut on has another item
    (where there are two), another time and another user order, and some are dropped or added.
    Whatever is computed from the past alone is therefore bit-identical on both graphs.

    Args:
        graph: Any whole graph; kinds of events, nodes and features are kept, derived edge types
            are not.
        cut: First ``event_id`` that may change.
        seed: Another seed, another future.
    """
    draw = torch.Generator().manual_seed(seed)
    past, future, types = graph.before(cut), graph.since(cut), graph.interaction_types
    # One event in four is dropped, and three are added to each kind.
    kept = [torch.rand(future[t].event_id.numel(), generator=draw) >= 0.25 for t in types]
    sizes = [int(keep.sum()) + 3 for keep in kept]
    event_id = cut + torch.randint(1, 4, (sum(sizes),), generator=draw).cumsum(0)
    start = _latest(past) if graph.has_time else 0
    time = start + torch.randint(0, 10**6, (sum(sizes),), generator=draw).sort().values
    shuffled = torch.randperm(sum(sizes), generator=draw).split(sizes)
    out: TemporalRecGraph = past.clone()
    for edge_type, keep, places in zip(types, kept, shuffled, strict=True):
        at = places.sort().values
        edges = _other_edges(graph, future[edge_type].edge_index[:, keep].cpu(), at.numel(), draw)
        new = {"edge_index": edges, "event_id": event_id[at], "time": time[at]}
        _append(out, edge_type, new, draw)
    return out


def _other_edges(graph: TemporalRecGraph, old: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """``[2, size]``: ``old`` with other items and the users shuffled, and random edges behind."""
    count = old.size(1)
    user = torch.randint(graph.num_users, (size,), generator=draw)
    item = torch.randint(graph.num_items, (size,), generator=draw)
    user[:count] = old[0][torch.randperm(count, generator=draw)]
    shift = torch.randint(1, max(graph.num_items, 2), (count,), generator=draw)
    item[:count] = (old[1] + shift) % graph.num_items
    return torch.stack([user, item])


def _append(
    out: TemporalRecGraph,
    edge_type: tuple[str, str, str],
    new: dict[str, Tensor],
    draw: torch.Generator,
) -> None:
    """Writes events behind those of one kind; what ``new`` does not give (ratings) is drawn."""
    store, size = out[edge_type], new["event_id"].numel()
    for key, value in list(store.items()):
        if isinstance(value, Tensor) and value.dim() > 0:
            noise = (torch.rand(size, *value.shape[1:], generator=draw) * 5).to(value.dtype)
            part = new.get(key, noise).to(value.device)
            store[key] = torch.cat([value, part], dim=1 if key == "edge_index" else 0)


def _latest(graph: TemporalRecGraph) -> int:
    times = [graph[t].time for t in graph.interaction_types if graph[t].time.numel()]
    return max((int(t[-1]) for t in times), default=MONDAY)
