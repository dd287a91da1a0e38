"""The one index that every sampler reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph


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
    """

    ptr: Tensor
    log: Tensor
    other: Tensor
    twin: Tensor
    key: Tensor
    end: int

    def past(self, node: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Where the events of each node before its cut stand: ``[start, stop)``, each ``[B]``."""
        # A cut of ``end`` would be the smallest key of the next node, so the search stops there.
        stop = torch.searchsorted(self.key, node * self.end + cut.clamp(0, self.end))
        return self.ptr[node], stop


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
        by_user, by_item: The two :class:`EventList`.
    """

    def __init__(self, graph: TemporalRecGraph, device: torch.device | str | None = None) -> None:
        types = graph.interaction_types
        if not types:
            raise ValueError(
                "'graph' has no events: no ('user', r, 'item') type carries 'event_id'"
            )
        stores = [graph[t] for t in types]
        device = torch.device(device) if device is not None else stores[0].event_id.device
        edges = torch.cat([s.edge_index for s in stores], dim=1).to(device)
        event_id = torch.cat([s.event_id for s in stores]).to(device)
        sizes = [s.event_id.numel() for s in stores]
        relation = torch.cat([torch.full((n,), r, device=device) for r, n in enumerate(sizes)])
        self.has_time = graph.has_time
        time = torch.cat([s.time for s in stores]).to(device) if self.has_time else event_id * 0
        if len(types) > 1:
            order = torch.argsort(event_id)
            edges, event_id, relation, time = (
                edges[:, order],
                event_id[order],
                relation[order],
                time[order],
            )
        if event_id.numel() and (event_id.diff() <= 0).any():
            raise ValueError("'event_id' is not strictly increasing; see graph.validate()")
        self.relations = [t[1] for t in types]
        self.num_users, self.num_items = graph.num_users, graph.num_items
        self.user, self.item = edges[0].contiguous(), edges[1].contiguous()
        self.event_id, self.relation, self.time = event_id, relation, time
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

    def check_seeds(self, user: Tensor, cut: Tensor) -> None:
        """Raises ValueError unless the seeds are int64 ``[B]``, on this device and known users."""
        for name, value in (("user", user), ("cut", cut)):
            if value.dtype != torch.int64 or value.dim() != 1 or value.numel() != user.numel():
                raise ValueError(
                    f"'{name}' needs to be int64 of shape [{user.numel()}] (got {value.dtype} "
                    f"{list(value.shape)})"
                )
            if value.device.type != self.device.type:
                raise ValueError(
                    f"'{name}' is on {value.device} and the index on {self.device}; move one of "
                    f"them"
                )
        # On CUDA this would stop the host for every batch; there the loader checks once.
        if user.device.type == "cpu" and user.numel():
            low, high = (int(v) for v in user.aminmax())
            if low < 0 or high >= self.num_users:
                raise ValueError(
                    f"'user' needs to be in 0..{self.num_users - 1} (got {low}..{high})"
                )

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
            lists.append(EventList(ptr, order, there, twin, key, self.end))
        return lists[0], lists[1]
