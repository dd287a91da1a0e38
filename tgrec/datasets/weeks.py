"""Calendar weeks of any graph with times: their numbers, cuts and targets.

Week w is the (w + 1)-th week, from Monday to Sunday (UTC), since Monday 1970-01-05. These are the
weeks of ``graph.snapshots("W")`` and of ISO 8601. Counted from there a week number needs no further
state: it follows from the time of an event, in every slice of a graph, and numbers that only count
the weeks of an experiment (1, 2, ...) are stored as the weeks of 1970 with these numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph

WEEK = 604_800
"""Seconds of a week."""

FIRST_MONDAY = 345_600
"""1970-01-05 00:00 in Unix seconds: week 0 begins."""

LAST_WEEK = 100_000
"""The largest number that tables of weeks may hold: the year 3886."""


def week_start(week: int) -> int:
    """The Unix second in which a week begins."""
    if isinstance(week, bool) or not isinstance(week, (int, np.integer)):
        raise TypeError(f"'week' needs to be an integer (got {week!r})")
    return FIRST_MONDAY + int(week) * WEEK


def week_number(time: Tensor) -> Tensor:
    """The weeks that contain the given times.

    Args:
        time: Unix seconds, int64 of any shape.

    Returns:
        int64 of the same shape, -1 for the four days before Monday 1970-01-05.

    Raises:
        TypeError: If ``time`` is not int64.
    """
    if time.dtype != torch.int64:
        raise TypeError(f"'time' needs to be int64 Unix seconds (got {time.dtype})")
    return torch.div(time - FIRST_MONDAY, WEEK, rounding_mode="floor")


def week_range(graph: TemporalRecGraph) -> range:
    """The weeks from the first event to the last, those without events included.

    Item i of ``graph.snapshots("W")`` is the week ``week_range(graph)[i]``. A graph without events
    has the empty range.

    Raises:
        ValueError: If the events have no times.
    """
    if not graph.has_time:
        raise ValueError("week_range: needs event times, but the data have only an order")
    times = [graph[t].time for t in graph.interaction_types if graph[t].time.numel()]
    if not times:
        return range(0)
    first, last = min(int(t[0]) for t in times), max(int(t[-1]) for t in times)
    ends = week_number(torch.tensor([first, last])).tolist()
    return range(ends[0], ends[1] + 1)


def week_cut(graph: TemporalRecGraph, week: int) -> int:
    """The cut at the beginning of a week: ``graph.before(cut)`` holds the weeks before it.

    Args:
        graph: Any graph with times.
        week: Any week, also one without events or one before or behind all of them.

    Returns:
        The ``event_id`` of the first event in ``week`` or later, one past the last event if there
        is none. ``graph.between(week_cut(graph, w), week_cut(graph, w + 1))`` is week w alone.

    Raises:
        TypeError: If ``week`` is not an integer.
        ValueError: If the events have no times.
    """
    return graph.event_id_at(week_start(week))


def week_targets(graph: TemporalRecGraph, week: int) -> tuple[Tensor, Tensor]:
    """Who met what in a week: the targets of a ranking with several targets per user.

    Args:
        graph: Any graph with times.
        week: Any week.

    Returns:
        ``user [P]`` and ``item [P]`` int64, each pair once, ordered by user, then item. Users who
        are not among them were not active in that week.

    Raises:
        TypeError: If ``week`` is not an integer.
        ValueError: If the events have no times.
    """
    view = graph.between(week_cut(graph, week), week_cut(graph, week + 1))
    edges = torch.cat([view[t].edge_index for t in view.interaction_types], dim=1)
    keys = torch.unique(edges[0] * graph.num_items + edges[1])
    return keys // graph.num_items, keys % graph.num_items


def by_week(graph: TemporalRecGraph, count: str | None = None) -> TemporalRecGraph:
    """Adds up the events of each user, item and week: any log becomes a weekly graph.

    Args:
        graph: Any graph with times, for example that of ``OnlineRetail``.
        count: Attribute of the events that is added up, such as ``quantity``; one number per
            event. None counts the events.

    Returns:
        A graph with the same nodes and one relation, ``interacts``, as ``weekly_graph`` makes it:
        one event per (week, user, item), in this order, with ``time`` at the beginning of the week
        and ``edge_attr`` ``[E, 1]`` float32.

    Raises:
        ValueError: If the events have no times, or not this attribute.
    """
    if not graph.has_time:
        raise ValueError("by_week: needs event times, but the data have only an order")
    types = graph.interaction_types
    edges = torch.cat([graph[t].edge_index for t in types], dim=1)
    week = week_number(torch.cat([graph[t].time for t in types]))
    amount = torch.cat([_amounts(graph, t, count) for t in types])
    # One number per (week, user, item): it fits for 10^4 weeks with 10^7 users and items each.
    first, num_users, num_items = week_range(graph).start, graph.num_users, graph.num_items
    keys = ((week - first) * num_users + edges[0]) * num_items + edges[1]
    keys, place = torch.unique(keys, return_inverse=True)
    out = TemporalRecGraph()
    for node_type in graph.node_types:
        for key, value in graph[node_type].items():
            out[node_type][key] = value
    store = out["user", "interacts", "item"]
    pairs = keys % (num_users * num_items)
    store.edge_index = torch.stack([pairs // num_items, pairs % num_items])
    store.event_id = torch.arange(keys.numel(), device=keys.device)
    start = FIRST_MONDAY + WEEK * (first + keys // (num_users * num_items))
    # No time is before 1970, and the days before the first Monday are week -1 all the same.
    store.time = start.clamp(min=0)
    total = torch.zeros(keys.numel(), dtype=torch.float64, device=keys.device)
    store.edge_attr = total.index_add_(0, place, amount).to(torch.float32).view(-1, 1)
    return out


def _amounts(graph: TemporalRecGraph, edge_type: tuple[str, str, str], count: str | None) -> Tensor:
    store = graph[edge_type]
    size = store.event_id.numel()
    if count is None:
        return torch.ones(size, dtype=torch.float64, device=store.event_id.device)
    value = store[count] if count in store else None
    if not isinstance(value, Tensor) or value.numel() != size or value.size(0) != size:
        raise ValueError(
            f"'count' needs to name an attribute with one number per event; {edge_type} has "
            f"{sorted(store.keys())} (got {count!r})"
        )
    return value.reshape(-1).to(torch.float64)
