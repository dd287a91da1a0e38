"""The one index that every sampler reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph

# Fewer questions than this are answered faster by one search among all events.
_FEW = 512


@dataclass(frozen=True)
class EventList:
    """The events of each node of one type, node by node, each in event order (a temporal CSR).

    Args:
        ptr: ``[N + 1]`` int64: the events of node ``n`` stand at ``ptr[n]:ptr[n + 1]``.
        log: ``[E]`` int64: position of each entry in the event log.
        other: ``[E]`` int64: the node at the other end.
        twin: ``[E]`` int64: position of the same event in the list of the other direction, so
            that a hop to the other side continues there without a search.
        key: ``[E]`` int64 ascending: ``node * end + event_id``, for one binary search per
            (node, cut).
        end: One past the last event id of the index; every cut beyond it means the same.
        longest: Most events of one node.
        place: ``[E]`` int64: where each event of the log stands in this list; None where event
            ids have gaps.
    """

    ptr: Tensor
    log: Tensor
    other: Tensor
    twin: Tensor
    key: Tensor
    end: int
    longest: int
    place: Tensor | None = None

    def past(self, node: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Where the events of each node before its cut stand: ``[start, stop)``, each ``[B]``."""
        if self.place is None or node.device.type != "cpu" or self.key.numel() == 0:
            return self.ptr.index_select(0, node), self.search(node, cut)
        # Most seeds are events themselves, and where an event stands is known.
        first = self.end - self.place.numel()
        stop = self.place.index_select(0, (cut - first).clamp(0, self.place.numel() - 1))
        missed = (self.key.index_select(0, stop) != self._wanted(node, cut)).nonzero().view(-1)
        if missed.numel():
            stop[missed] = self.search(node.index_select(0, missed), cut.index_select(0, missed))
        return self.ptr.index_select(0, node), stop

    def search(self, node: Tensor, cut: Tensor, after: Tensor | None = None) -> Tensor:
        """The same ``stop``, for cuts that are not events of their nodes.

        Args:
            node: ``[B]``.
            cut: ``[B]``.
            after: ``[B]`` where an event of each node stands that is known to lie before its cut.
        """
        wanted = self._wanted(node, cut)
        if node.device.type != "cpu" or node.numel() < _FEW:
            return torch.searchsorted(self.key, wanted)
        if after is None:
            return self._halve(self.ptr.index_select(0, node) - 1, wanted)
        # Of an item that was seen a moment ago, the next event is mostly past the cut.
        stop, last = after + 1, self.key.numel() - 1
        missed = self.key.index_select(0, stop.clamp(max=last)) < wanted
        rows = missed.nonzero().view(-1)
        stop[rows] = self._halve(stop.index_select(0, rows), wanted.index_select(0, rows))
        return stop

    def _halve(self, place: Tensor, wanted: Tensor) -> Tensor:
        """Searches from entries of each node on, or the one before its first, in its own part.

        All nodes take the same steps, which is three times as fast as a search of each among all
        entries.
        """
        place, last = place.clone(), self.key.numel() - 1
        for bit in reversed(range(self.longest.bit_length())):
            probe = (place + (1 << bit)).clamp_(max=last)
            place.add_(self.key.index_select(0, probe) < wanted, alpha=1 << bit)
        return place.add_(1).clamp_(max=last + 1)

    def _wanted(self, node: Tensor, cut: Tensor) -> Tensor:
        # A cut of ``end`` would be the smallest key of the next node, so the search stops there.
        return node * self.end + cut.clamp(0, self.end)


class EventIndex:
    """All events of a graph, by event, by user and by item.

    Built once in O(E log E), held on one device, never changed, shared by every sampler. It
    copies what it needs, so later changes to the graph do not reach it.

    Args:
        graph: The store. Several kinds of events are merged in ``event_id`` order.
        device: Where the tensors live; by default where the graph's edges are.

    Attributes:
        relations: Names of the kinds of events; ``relation`` indexes them.
        user, item, time, event_id, relation: ``[E]`` int64, the log in event order. ``time`` is 0
            everywhere if the graph has no times (``has_time`` says so).
        rating: ``[E]`` float32, NaN where an event has none; None if no kind of events has ratings.
        by_user, by_item: The two :class:`EventList`.
    """

    def __init__(self, graph: TemporalRecGraph, device: torch.device | str | None = None) -> None:
        types = graph.interaction_types
        if not types:
            raise ValueError(
                "'graph' has no events: no ('user', r, 'item') type carries 'event_id'"
            )
        stores = [graph[t] for t in types]
        # Edges are named by their position, so the order within one kind may not be mended here.
        if any((s.event_id.diff() <= 0).any() for s in stores):
            raise ValueError("'event_id' is not strictly increasing; see graph.validate()")
        device = torch.device(device) if device is not None else stores[0].event_id.device
        edges = torch.cat([s.edge_index for s in stores], dim=1).to(device)
        event_id = torch.cat([s.event_id for s in stores]).to(device)
        sizes = [s.event_id.numel() for s in stores]
        relation = torch.cat([torch.full((n,), r, device=device) for r, n in enumerate(sizes)])
        self.has_time = graph.has_time
        time = torch.cat([s.time for s in stores]).to(device) if self.has_time else event_id * 0
        rating = _ratings(stores, device)
        if len(types) > 1:
            order = torch.argsort(event_id)
            edges, event_id, relation, time = (
                edges[:, order],
                event_id[order],
                relation[order],
                time[order],
            )
            rating = None if rating is None else rating[order]
        if event_id.numel() and (event_id.diff() <= 0).any():
            raise ValueError("'event_id' is not unique over all kinds; see graph.validate()")
        self.relations = [t[1] for t in types]
        self.num_users, self.num_items = graph.num_users, graph.num_items
        self.user, self.item = edges[0].contiguous(), edges[1].contiguous()
        self.event_id, self.relation, self.time = event_id, relation, time
        self.rating = rating
        self.end = int(event_id[-1]) + 1 if event_id.numel() else 1
        if max(self.num_users, self.num_items, 1) * self.end >= 2**63:
            raise ValueError("more than 2**63 (node, event) pairs: the index cannot number them")
        self.by_user, self.by_item = self._lists()

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.event_id.device

    @property
    def num_events(self) -> int:
        """Number of events over all kinds."""
        return self.event_id.numel()

    def rating_of(self, event_id: Tensor) -> Tensor:
        """``[n]`` float32 ratings of events, NaN where there is no such event or it has none."""
        if self.rating is None or self.num_events == 0:
            return torch.full(event_id.shape, math.nan, device=self.device)
        place = torch.searchsorted(self.event_id, event_id).clamp_(max=self.num_events - 1)
        found = self.event_id.index_select(0, place) == event_id
        return torch.where(found, self.rating.index_select(0, place), math.nan)

    def check_seeds(self, node: Tensor, cut: Tensor, node_type: str = "user") -> None:
        """Raises ValueError unless the seeds are int64 ``[B]``, on this device and known nodes."""
        for name, value in ((node_type, node), ("cut", cut)):
            if value.dtype != torch.int64 or value.dim() != 1 or value.numel() != node.numel():
                raise ValueError(
                    f"'{name}' needs to be int64 of shape [{node.numel()}] (got {value.dtype} "
                    f"{list(value.shape)})"
                )
            if value.device.type != self.device.type:
                raise ValueError(
                    f"'{name}' is on {value.device} and the index on {self.device}; move one of "
                    f"them"
                )
        # On CUDA this would stop the host for every batch; there the loader checks once.
        if node.device.type == "cpu":
            self.check_nodes(node, node_type)

    def check_nodes(self, node: Tensor, node_type: str = "user") -> None:
        """Raises ValueError unless all users, or items, are nodes of the graph."""
        if node.numel() == 0:
            return
        low, high = (int(v) for v in node.aminmax())
        size = self.num_users if node_type == "user" else self.num_items
        if low < 0 or high >= size:
            raise ValueError(f"'{node_type}' needs to be in 0..{size - 1} (got {low}..{high})")

    def _lists(self) -> tuple[EventList, EventList]:
        sides = ((self.user, self.item, self.num_users), (self.item, self.user, self.num_items))
        # The log is in event order, so a stable sort by node leaves each node's part in order.
        orders = [torch.argsort(node, stable=True) for node, _, _ in sides]
        places = [torch.empty_like(order) for order in orders]
        for order, place in zip(orders, places, strict=True):
            place.scatter_(0, order, torch.arange(order.numel(), device=order.device))
        lists = []
        for (node, other, size), order, other_place in zip(
            sides, orders, places[::-1], strict=True
        ):
            ptr = torch.zeros(size + 1, dtype=torch.int64, device=node.device)
            torch.cumsum(torch.bincount(node, minlength=size), 0, out=ptr[1:])
            key = node.index_select(0, order) * self.end + self.event_id.index_select(0, order)
            # index_select is several times as fast as x[order] on the CPU.
            there, twin = other.index_select(0, order), other_place.index_select(0, order)
            longest = int(ptr.diff().max()) if size else 0
            lists.append(EventList(ptr, order, there, twin, key, self.end, longest))
        ids = self.event_id
        if ids.numel() and int(ids[-1]) - int(ids[0]) + 1 == ids.numel():
            lists = [replace(x, place=place) for x, place in zip(lists, places, strict=True)]
        return lists[0], lists[1]


def _ratings(stores: list[Any], device: torch.device) -> Tensor | None:
    """The ratings of all events, kind by kind, NaN where there is none."""
    if not any("rating" in store for store in stores):
        return None
    parts = [
        s.rating.to(device).float()
        if "rating" in s
        else torch.full(s.event_id.shape, math.nan, device=device)
        for s in stores
    ]
    return torch.cat(parts)
