"""Sampled neighbourhoods of users as PyG batches, without a word about the question."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import NodeStorage

from tgrec.data import Sampling
from tgrec.data.batch import Strategy
from tgrec.data.reverse import reverse_type
from tgrec.data.temporal_graph import EdgeType
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.sampler.event_index import EventList


class NeighborhoodReader:
    """(user, cut) in, a ``HeteroData`` of strictly earlier events out, one tree per user.

    The first hop holds events of the user, the next one events of these items strictly before the
    event that led there, and so on. Hence which events a tree holds is a function of the user's own
    events before the cut: where in the order, or when, the question is asked cannot be told from
    it. (Events of the items up to the cut would tell: a popular item has one every few minutes.)

    The batch has what every PyG batch has: ``edge_index``, ``n_id``, ``e_id``, ``batch`` (the
    number of the seed), ``num_sampled_nodes`` and ``num_sampled_edges``, the users of the seeds
    first; the edges of ``('item', 'rev_r', 'user')`` carry messages from items to users. Besides:

    * nodes: ``time`` ``[n]`` int64, Unix seconds of the event that led to the node; for a seed the
      time of the question where it is given, else that of the user's newest event (0 without
      any). ``degree`` ``[n]`` int64, how many events of the node are visible from there.
    * edges: ``time`` ``[e]`` int64 of the event, never after that of the node that it points to.
      ``lag`` ``[e]`` int64, how many newer events of that node are visible; 0 is the newest.

    Where the data have no times, all times are 0.

    Derived edge types (``sampling.derived``) can be walked in the last hop. They have no clock:
    their edges carry ``edge_weight`` instead, and nodes that they lead to have time and degree 0.

    Args:
        index: The shared index.
        sampling: Its ``num_neighbors``, ``train_strategy`` and ``derived`` are read.

    Raises:
        ValueError: If ``sampling`` asks for no neighbourhood, or for derived edges before the last
            hop.
    """

    def __init__(self, index: EventIndex, sampling: Sampling) -> None:
        if sampling.num_neighbors is None:
            raise ValueError("'sampling' needs 'num_neighbors' (got None)")
        self.index, self.sampling = index, sampling
        forward = [("user", relation, "item") for relation in index.relations]
        self._events = {*forward, *(reverse_type(edge_type) for edge_type in forward)}
        self.derived = None if sampling.derived is None else sampling.derived()
        self._check_derived()
        self._logs = (
            [(index.relation == r).nonzero().view(-1) for r in range(len(index.relations))]
            if len(index.relations) > 1
            else None
        )
        self._earlier = {"user": _earlier(index.by_user), "item": _earlier(index.by_item)}

    def _check_derived(self) -> None:
        hops = self.sampling.num_neighbors
        for edge_type, fan_out in hops.items() if isinstance(hops, Mapping) else ():
            if edge_type in self._events:
                continue
            if edge_type[0] != edge_type[2]:
                raise ValueError(
                    f"'num_neighbors' names {edge_type}, which is no kind of events: known are "
                    f"{sorted(self._events)}"
                )
            if any(fan_out[:-1]):
                raise ValueError(
                    f"'num_neighbors' of {edge_type} needs zeros before the last hop (got "
                    f"{fan_out}): past a derived edge, which has no clock, nothing says what is "
                    f"earlier"
                )
            if self.derived is not None and "edge_weight" not in self.derived[edge_type]:
                raise ValueError(
                    f"'derived' needs 'edge_weight' for {edge_type}, so that the heaviest are drawn"
                )

    @cached_property
    def _scoring(self) -> TemporalNeighborSampler:
        return self._sampler("last")

    @cached_property
    def _training(self) -> TemporalNeighborSampler:
        return self._sampler(self.sampling.train_strategy)

    def _sampler(self, strategy: Strategy) -> TemporalNeighborSampler:
        assert self.sampling.num_neighbors is not None
        return TemporalNeighborSampler(
            self.index,
            self.sampling.num_neighbors,
            strategy=strategy,
            hop_time="edge",
            static=self.derived,
        )

    def read(
        self, user: Tensor, cut: Tensor, now: Tensor | None = None, key: int | None = None
    ) -> HeteroData:
        """The neighbourhoods of a batch.

        Args:
            user: ``[B]`` int64 on the index's device.
            cut: ``[B]`` int64; only events with ``event_id < cut`` are read.
            now: ``[B]`` int64 Unix seconds of the question, where a model may know it.
            key: Given while training: of the draws of ``train_strategy`` ``uniform``.
        """
        return self.read_from("user", user, cut, now, key=key)

    def read_from(
        self,
        node_type: str,
        node: Tensor,
        cut: Tensor,
        now: Tensor | None = None,
        batch: Tensor | None = None,
        key: int | None = None,
    ) -> HeteroData:
        """The neighbourhoods of users, or of items.

        Args:
            node_type: ``user`` or ``item``.
            node: ``[B]`` int64.
            cut: ``[B]`` int64.
            now: ``[B]`` int64 Unix seconds, what ``time`` says of the seeds.
            batch: ``[B]`` int64 numbers of their trees; by default 0, 1, ...
            key: As in :meth:`read`.
        """
        sampler = self._scoring if key is None else self._training
        if key is not None:
            sampler.set_epoch(key)
        batch = torch.arange(node.numel(), device=node.device) if batch is None else batch
        out = sampler.sample({node_type: (node, cut, batch)})
        edges = {e: torch.stack([out.row[e], out.col[e]]) for e in out.row}
        e_id = {e: place for e, place in (out.edge or {}).items() if place is not None}
        logs = {e: self._log(e, place) for e, place in e_id.items() if e in self._events}
        data = HeteroData()
        for name, nodes in out.node.items():
            store = data[name]
            store.n_id, store.num_nodes = nodes, nodes.numel()
            store.batch = (out.batch or {})[name]
            store.time, store.degree = torch.zeros_like(nodes), torch.zeros_like(nodes)
            store.num_sampled_nodes = (out.num_sampled_nodes or {})[name]
        data[node_type].batch_size = node.numel()
        self._seeds(data[node_type], node_type, node, cut, now)
        for e, log in logs.items():  # every node but the seeds was reached by one edge
            data[e[0]].time[edges[e][0]] = self.index.time.index_select(0, log)
            data[e[0]].degree[edges[e][0]] = self._earlier[e[0]].index_select(0, log)
        for e, edge_index in edges.items():
            store = data[e]
            store.edge_index, store.e_id = edge_index, e_id[e]
            store.num_sampled_edges = (out.num_sampled_edges or {})[e]
            if e not in logs:
                assert self.derived is not None
                weight = self.derived[e].edge_weight.to(edge_index.device)
                store.edge_weight = weight.index_select(0, e_id[e])
                continue
            store.time = self.index.time.index_select(0, logs[e])
            visible = data[e[2]].degree.index_select(0, edge_index[1])
            store.lag = visible - 1 - self._earlier[e[2]].index_select(0, logs[e])
        return data

    def _seeds(
        self, store: NodeStorage, node_type: str, node: Tensor, cut: Tensor, now: Tensor | None
    ) -> None:
        """Writes degree and time of the seeds."""
        events = self.index.by_user if node_type == "user" else self.index.by_item
        size = node.numel()
        start, stop = events.past(node, cut)
        store.degree[:size] = stop - start
        if now is None and events.log.numel():
            newest = events.log.index_select(0, (stop - 1).clamp(min=0))
            now = torch.where(stop > start, self.index.time.index_select(0, newest), 0)
        if now is not None:
            store.time[:size] = now

    def _log(self, edge_type: EdgeType, e_id: Tensor) -> Tensor:
        """Where the edges of a type stand in the log of all events."""
        if self._logs is None:
            return e_id
        relation = edge_type[1] if edge_type[0] == "user" else edge_type[1].removeprefix("rev_")
        return self._logs[self.index.relations.index(relation)].index_select(0, e_id)


def _earlier(events: EventList) -> Tensor:
    """``[E]`` for each event of the log, how many events its node has before it."""
    place = torch.arange(events.log.numel(), device=events.log.device)
    first = torch.repeat_interleave(events.ptr[:-1], events.ptr.diff(), output_size=place.numel())
    return torch.empty_like(place).scatter_(0, events.log, place - first)
