"""How much of a figure is the order inside ties."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tgrec.data import Split, TemporalRecGraph
from tgrec.data.random import hash_keys

# What belongs to the place in the log, not to the event that stands there.
_SLOT = ("edge_index", "event_id", "time")


def permute_ties(
    graph: TemporalRecGraph, seed: int, keep: Tensor | None = None
) -> TemporalRecGraph:
    """Shuffles the events of each user that share a second; clocks and users stay where they are.

    Args:
        graph: With times and one kind of events.
        seed: Of the permutation.
        keep: Event ids that stay in their place, for example the targets.

    Returns:
        A new graph in which tied events have changed places: their items, with the ratings and
        whatever else their edges carry.
    """
    if not graph.has_time or len(graph.interaction_types) != 1:
        raise ValueError("a tie audit needs event times and one kind of events")
    edge_type = graph.interaction_types[0]
    store = graph[edge_type]
    user, item = store.edge_index
    fixed = torch.zeros_like(item, dtype=torch.bool)
    if keep is not None:
        fixed = torch.isin(store.event_id, keep)
    free = (~fixed).nonzero().view(-1)
    # Slots sorted by (user, time, place) take the events sorted by (user, time, random): within
    # each (user, second) that is a random permutation, and outside it nothing moves.
    slots = free[_order(user[free], store.time[free], torch.arange(free.numel()))]
    draw = hash_keys(seed, store.event_id[free])
    source = free[_order(user[free], store.time[free], draw)]
    place = torch.arange(item.numel())
    place[slots] = source
    out = graph._with_events({edge_type: slice(None)})
    out[edge_type].edge_index = torch.stack([user, item[place]])
    for key, value in store.items():
        if key not in _SLOT and isinstance(value, Tensor) and value.size(0) == item.numel():
            out[edge_type][key] = value[place]
    return out


def _order(*keys: Tensor) -> Tensor:
    """Lexicographic order, the first key most significant."""
    order = torch.arange(keys[0].numel())
    for key in reversed(keys):
        order = order[torch.argsort(key[order], stable=True)]
    return order


def audited_splits(split: Split, draws: int = 5) -> list[Split]:
    """The same targets and training data with the order inside ties of the histories permuted."""
    keep = torch.cat([split.test.cut, split.val.cut])
    return [replace(split, graph=permute_ties(split.graph, seed, keep)) for seed in range(draws)]
