"""Training on links: positives with their cuts, honest negatives, and the pasts of both ends."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
)

from tgrec.data import Targets, TemporalRecGraph, with_reverse
from tgrec.data.random import permutation
from tgrec.data.temporal_graph import EdgeType
from tgrec.loader.backends import Backend, stock_sampler
from tgrec.loader.features import split_event_ids, split_features, take_rows
from tgrec.sampler import EventIndex, NegativeSampler, TemporalNeighborSampler
from tgrec.sampler.neighbor import HopTime, Strategy
from tgrec.sampler.tree import TreeSample
from tgrec.sampler.window import Window


def link_neighbor_loader(
    graph: TemporalRecGraph,
    index: EventIndex | None = None,
    num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]] = (10, 10),
    *,
    relation: str | None = None,
    seeds: Targets | None = None,
    neg_sampling: Literal["binary", "triplet"] | None = "binary",
    num_negatives: int = 1,
    negatives: NegativeSampler | Literal["uniform", "popularity"] = "uniform",
    strategy: Strategy = "last",
    replace: bool = False,
    hop_time: HopTime = "seed",
    window: Window | None = None,
    disjoint: bool = True,
    batch_size: int = 1024,
    shuffle: bool = True,
    drop_last: bool = False,
    seed: int = 0,
    backend: Backend = "auto",
    transform: Callable[[HeteroData], HeteroData] | None = None,
) -> TemporalLinkLoader:
    """Loads events of a graph as links to predict, each from what came before it.

    Batches are those of PyG's ``LinkNeighborLoader``: a ``HeteroData`` with features, ``n_id``,
    ``e_id``, ``batch``, ``num_sampled_nodes`` and ``num_sampled_edges``, and for the links
    ``edge_label_index`` and ``edge_label`` (``binary``) or ``src_index``, ``dst_pos_index`` and
    ``dst_neg_index`` (``triplet``). The reverse edges that message passing needs are made here
    and not stored in the graph.

    Args:
        graph: What features and edges are read from.
        index: Over the same graph; made if left out.
        num_neighbors: See :class:`tgrec.sampler.TemporalNeighborSampler`; derived edge types of
            the graph may be named.
        relation: The kind of events to predict; may be left out if there is only one.
        seeds: Links to predict, by default all events of the relation at their own cuts.
        neg_sampling: ``binary``: negatives are appended with label 0. ``triplet``: indices of
            positives and negatives. None: positives only.
        num_negatives: Per link.
        negatives: How they are drawn; see :class:`tgrec.sampler.NegativeSampler`.
        strategy: ``last`` or ``uniform``.
        replace: With ``uniform``.
        hop_time: ``seed`` or ``edge``.
        window: How far back neighbours may lie.
        disjoint: Whether the nodes of the last hop stand once per seed, or once per batch.
        batch_size: Links per batch.
        shuffle: Another order every epoch, a function of (seed, epoch).
        drop_last: Leave out the last batch if it is smaller.
        seed: Key of all draws.
        backend: ``tgrec`` (and ``auto``): the sampler of this library. ``pyg-lib``: PyG's, with
            ``hop_time='seed'`` and no window. ``torch-sparse``: PyG's, which knows no time, and
            is refused unless every seed may see all events of the graph.
        transform: Applied to each batch.

    Returns:
        A loader to iterate over, once per epoch. Links for which no negative is left (the first
        events of the log) are left out; ``loader.num_dropped`` counts them.

    Raises:
        ValueError: If an argument does not fit the graph or the backend.
    """
    index = EventIndex(graph) if index is None else index
    edge_type = _edge_type(graph, index, relation)
    for name, value in (("batch_size", batch_size), ("num_negatives", num_negatives)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
    if neg_sampling not in ("binary", "triplet", None):
        raise ValueError(
            f"'neg_sampling' needs to be 'binary', 'triplet' or None (got {neg_sampling!r})"
        )
    if seeds is None:
        store = graph[edge_type]
        user, item = store.edge_index
        seeds = Targets(user, store.event_id, item)
    seeds, negatives = _links(index, seeds), _negatives(index, negatives)
    asked, kept = None, torch.arange(len(seeds), device=index.device)
    if neg_sampling is not None:
        asked = NegativeSampling(neg_sampling, num_negatives)
        left = negatives.available(seeds.user, seeds.cut, seeds.item)
        kept = (left > 0).nonzero().view(-1)
    num_dropped, seeds = len(seeds) - kept.numel(), seeds.select(kept)
    sampler: BaseSampler
    if backend in ("auto", "tgrec"):
        sampler = TemporalNeighborSampler(
            index,
            num_neighbors,
            strategy,
            replace,
            hop_time,
            window,
            graph,
            negatives,
            seed,
            disjoint,
        )
    else:
        merged = backend == "torch-sparse"  # always, over all hops
        own = {"hop_time": hop_time == "seed", "window": window is None}
        own["disjoint"] = disjoint or merged
        sampler = stock_sampler(
            with_reverse(graph),
            index,
            num_neighbors,
            strategy,
            replace,
            own,
            seeds,
            negatives,
            seed,
            backend,
        )
    return TemporalLinkLoader(
        with_reverse(graph),
        sampler,
        edge_type,
        seeds,
        kept,
        neg_sampling=asked,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=seed,
        num_dropped=num_dropped,
        transform=transform,
    )


class TemporalLinkLoader(LinkLoader):
    """PyG's ``LinkLoader`` whose links and cuts stay on the device of the index.

    The stock loader moves every seed to the CPU and every batch through a Python list. Made by
    :func:`link_neighbor_loader`.

    Attributes:
        epoch: Of the next iteration; it counts up by itself. Set it to go on where a run ended.
        num_dropped: Links that were left out because no negative was left for them.
    """

    def __init__(
        self,
        data: TemporalRecGraph,
        sampler: BaseSampler,
        edge_type: EdgeType,
        seeds: Targets,
        input_id: Tensor,
        neg_sampling: NegativeSampling | None,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        num_dropped: int,
        transform: Callable[[HeteroData], HeteroData] | None,
    ) -> None:
        pairs = torch.stack([seeds.user, seeds.item])
        super().__init__(
            data,
            link_sampler=sampler,
            edge_label_index=(edge_type, pairs),
            edge_label_time=seeds.cut,
            neg_sampling=neg_sampling,
            transform=transform,
            batch_size=batch_size,
            drop_last=drop_last,
        )
        self.input_data = _OnDevice(input_id, pairs[0], pairs[1], None, seeds.cut, edge_type)
        self.order_key = seed if shuffle else None
        self.epoch, self.num_dropped = 0, num_dropped
        # PyG makes the batch but for what it would be slow with.
        self._stock = copy.copy(self)
        self._stock.data, self._wide = split_features(data)
        self._stock.data, self._first_id = split_event_ids(self._stock.data)
        self._stock.transform = None

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:  # type: ignore[override]
        """PyG's batch of a sample."""
        data, ends = cast(HeteroData, self.data), dict[EdgeType, Tensor]()
        if isinstance(out, TreeSample):  # PyG would put rows and columns together once more
            ends, out = dict(out.edge_index), dataclasses.replace(out, row={}, col={})
        batch = cast(HeteroData, LinkLoader.filter_fn(self._stock, out))
        for edge_type, edge_index in ends.items():
            batch[edge_type].edge_index = edge_index.to(data[edge_type].edge_index.device)
        for node_type, key in self._wide:
            batch[node_type][key] = take_rows(data[node_type][key], out.node[node_type])
        for edge_type, first in self._first_id.items():
            store = batch[edge_type]
            store.event_id = store.e_id.to(store.edge_index.device) + first
        return batch if self.transform is None else self.transform(batch)

    def __iter__(self) -> Iterator[HeteroData]:  # type: ignore[override]
        """One epoch."""
        size, device = self.input_data.row.numel(), self.input_data.row.device
        epoch, self.epoch = self.epoch, self.epoch + 1
        set_epoch = getattr(self.link_sampler, "set_epoch", None)
        if self.order_key is None:
            order = torch.arange(size)
        else:
            order = permutation(size, self.order_key, epoch)
        for rows in order.to(device).split(int(self.batch_size or 1)):
            if rows.numel() == self.batch_size or (rows.numel() and not self.drop_last):
                if set_epoch is not None:  # each time: another iteration may be under way
                    set_epoch(epoch)
                yield cast(HeteroData, self(rows))


class _OnDevice(EdgeSamplerInput):
    """PyG's input, without its copies to the CPU."""

    def __init__(
        self,
        input_id: Tensor | None,
        row: Tensor,
        col: Tensor,
        label: Tensor | None = None,
        time: Tensor | None = None,
        input_type: EdgeType | None = None,
    ) -> None:
        self.input_id, self.row, self.col = input_id, row, col
        self.label, self.time, self.input_type = label, time, input_type

    def __getitem__(self, index: Any) -> EdgeSamplerInput:
        rows = torch.as_tensor(index, dtype=torch.int64, device=self.row.device)
        row, col = self.row.index_select(0, rows), self.col.index_select(0, rows)
        time = None if self.time is None else self.time.index_select(0, rows)
        ids = rows if self.input_id is None else self.input_id.index_select(0, rows)
        return _OnDevice(ids, row, col, None, time, self.input_type)


def _links(index: EventIndex, seeds: Targets) -> Targets:
    """The links to predict, checked once, on the device of the index."""
    if not isinstance(seeds, Targets):
        raise ValueError(f"'seeds' needs to be Targets(user, cut, item) (got {type(seeds)})")
    seeds = seeds.to(index.device)
    for name, node in (("user", seeds.user), ("item", seeds.item)):
        index.check_seeds(node, seeds.cut, name)
        index.check_nodes(node, name)
    return seeds


def _negatives(
    index: EventIndex, negatives: NegativeSampler | Literal["uniform", "popularity"]
) -> NegativeSampler:
    if isinstance(negatives, NegativeSampler):
        theirs = negatives.index
        if (theirs.num_users, theirs.num_items, theirs.device) != (
            index.num_users,
            index.num_items,
            index.device,
        ):
            raise ValueError(
                f"'negatives' draws for {theirs.num_users} users from {theirs.num_items} items on "
                f"{theirs.device}, and 'index' has {index.num_users} and {index.num_items} on "
                f"{index.device}"
            )
        return negatives
    if negatives not in ("uniform", "popularity"):
        raise ValueError(
            f"'negatives' needs to be 'uniform', 'popularity' or a NegativeSampler (got "
            f"{negatives!r})"
        )
    return NegativeSampler(index, negatives)


def _same_events(graph: TemporalRecGraph, index: EventIndex) -> bool:
    types = graph.interaction_types
    sizes = (graph.num_users, graph.num_items, graph.num_events)
    if [t[1] for t in types] != index.relations or sizes != (
        index.num_users,
        index.num_items,
        index.num_events,
    ):
        return False
    for code, edge_type in enumerate(types):
        rows = (index.relation == code).nonzero().view(-1)
        user, item = graph[edge_type].edge_index.to(index.device)
        for ours, theirs in (
            (user, index.user),
            (item, index.item),
            (graph[edge_type].event_id.to(index.device), index.event_id),
        ):
            if not torch.equal(ours, theirs.index_select(0, rows)):
                return False
    return True


def _edge_type(graph: TemporalRecGraph, index: EventIndex, relation: str | None) -> EdgeType:
    """The kind of events to predict, after a look at whether index and graph belong together."""
    types = graph.interaction_types
    names = [t[1] for t in types]
    if relation is None and len(types) != 1:
        raise ValueError(f"'relation' needs to name one of {names} (the graph has several)")
    if relation is not None and relation not in names:
        raise ValueError(f"'relation' needs to be one of {names} (got {relation!r})")
    if not _same_events(graph, index):
        raise ValueError(
            f"'index' holds {index.num_events} events of {index.relations} and 'graph' "
            f"{graph.num_events} of {names}, or they are other events; build the index from this "
            f"graph: EventIndex(graph)"
        )
    return types[0] if relation is None else types[names.index(relation)]
