"""The temporal neighbour sampler: (seed, cut) in, strictly earlier events out, k hops deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
    NodeSamplerInput,
)

from tgrec.data.random import hash_keys
from tgrec.data.temporal_graph import EdgeType, TemporalRecGraph
from tgrec.sampler.event_index import EventIndex, EventList
from tgrec.sampler.negative import NegativeSampler
from tgrec.sampler.tree import (
    NODE_TYPES,
    Frontier,
    Step,
    TreeSample,
    hetero_output,
    join,
    link_metadata,
)
from tgrec.sampler.walk import Walk, chosen_walks, draw_last, draw_uniform
from tgrec.sampler.window import Window, check_window, visible

Strategy = Literal["last", "uniform"]
HopTime = Literal["seed", "edge"]


def check_strategy(strategy: str, replace: bool, hop_time: str) -> None:
    """Raises ValueError unless these are known and go together."""
    for name, value, known in (
        ("strategy", strategy, ("last", "uniform")),
        ("hop_time", hop_time, ("seed", "edge")),
    ):
        if value not in known:
            raise ValueError(f"'{name}' needs to be one of {list(known)} (got {value!r})")
    if replace and strategy == "last":
        raise ValueError("'replace' needs strategy 'uniform'; the last edges are drawn once")


class TemporalNeighborSampler(BaseSampler):
    r"""Draws the neighbourhood of each seed from the events before its cut.

    A sampler of PyG's kind over the shared :class:`EventIndex`. It runs in stock ``NodeLoader``
    and ``LinkLoader``, where ``input_time`` and ``edge_label_time`` are **cuts** (event ids), and
    in :func:`tgrec.loader.link_neighbor_loader`. It needs neither pyg-lib nor torch-sparse, and
    the same code runs on CPU and CUDA.

    Edges are walked backwards, as PyG does: of ``('user', r, 'item')`` the users of an item are
    drawn, of ``('item', 'rev_r', 'user')`` the items of a user. The graph that a loader cuts
    features from needs those reverse types (:func:`tgrec.sampler.with_reverse`). Every seed has a
    tree of its own, in which a node stands once for every way to it: nodes reached at different
    times have different pasts and cannot be one node. Stored edges keep their positions, so
    ``edge_permutation`` is None.

    Args:
        index: The shared index.
        num_neighbors: Edges per node in each hop, for every kind of event in both directions
            (a list), or by edge type; types that are left out are not walked. -1 is all.
        strategy: ``last``: the newest edges before the cut. ``uniform``: any of them.
        replace: With ``uniform``, whether an edge may be drawn again.
        hop_time: What is visible one hop on: ``seed``: events before the seed's cut, as in PyG.
            ``edge``: events before the edge that led there, as in TGN; then a hop is a gather
            and needs no search. The edge to be predicted has ``event_id == cut`` and so is never
            among the messages.
        window: Seconds: only events less than this older than the newest event before the cut.
            Or ``(start, end)`` in Unix seconds, half-open: only events in it.
        static: A graph whose derived edge types (without a clock) may stand in ``num_neighbors``;
            ``last`` takes the heaviest by ``edge_weight``. They are not cut: count them from
            events before every seed.
        negatives: Draws the negatives of links; by default uniform.
        seed: Key of the random draws. A sample is a function of (seed, epoch, node, cut) and of
            nothing else: not of the batch, the number of threads or the device.
        disjoint: Whether every node belongs to one seed. If not, the nodes of the last hop stand
            once for all seeds of a batch. A network with one layer per hop makes the same of it,
            from far fewer features; ``batch`` is then None.

    Raises:
        ValueError: For an unknown edge type, a fan-out below -1, an empty window and the like.
    """

    def __init__(
        self,
        index: EventIndex,
        num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]],
        strategy: Strategy = "last",
        replace: bool = False,
        hop_time: HopTime = "seed",
        window: Window | None = None,
        static: TemporalRecGraph | None = None,
        negatives: NegativeSampler | None = None,
        seed: int = 0,
        disjoint: bool = True,
    ) -> None:
        check_strategy(strategy, replace, hop_time)
        self.index, self.strategy, self.replace = index, strategy, replace
        check_window(window, index.has_time)
        self.hop_time, self.window = hop_time, window
        self.walks = chosen_walks(index, num_neighbors, static)
        self.num_hops = len(self.walks[0].fan_out)
        self._any_static = any(walk.twin is None for walk in self.walks)
        if negatives is not None:
            self.negatives = negatives
        self.disjoint, self.seed, self.epoch = disjoint, seed, 0

    @cached_property
    def negatives(self) -> NegativeSampler:
        """Draws the negatives of links; made when the first are asked for."""
        return NegativeSampler(self.index)

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other draws (``uniform`` and negatives); ``last`` has none."""
        self.epoch = epoch

    @property
    def edge_permutation(self) -> None:
        """None: edges are named by their position in the graph's ``edge_index``."""
        return None

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> HeteroSamplerOutput:
        """The neighbourhoods of users or items; ``index.time`` holds their cuts ``[B]``."""
        if index.input_type not in NODE_TYPES:
            raise ValueError(
                f"'input_nodes' needs to be of type 'user' or 'item' (got {index.input_type!r})"
            )
        cut = self._cuts(index.time, "input_time")
        node = self._nodes(index.node, index.input_type)
        seeds = torch.arange(node.numel(), device=cut.device)
        out = self.sample({index.input_type: (node, cut, seeds)})
        input_id = None if index.input_id is None else index.input_id.to(cut.device)
        out.metadata = (input_id, cut)
        return out

    def sample_from_edges(
        self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> HeteroSamplerOutput:
        """The neighbourhoods of both ends of links, and of negatives from :attr:`negatives`.

        A negative is another item for the same user at the same cut, so with ``binary`` sampling
        users stand once and ``edge_label_index`` names them several times.

        Args:
            index: Links of a type ``('user', r, 'item')``; ``index.time`` holds cuts ``[B]``.
            neg_sampling: ``binary`` or ``triplet`` with a whole ``amount`` per link.
        """
        if index.input_type is None or index.input_type[::2] != NODE_TYPES:
            raise ValueError(
                f"'edge_label_index' needs a type ('user', r, 'item') (got {index.input_type})"
            )
        cut = self._cuts(index.time, "edge_label_time")
        user, item = self._nodes(index.row, "user"), self._nodes(index.col, "item")
        seeds = torch.arange(user.numel(), device=cut.device)
        drawn = None
        if neg_sampling is not None:
            drawn = self.negatives.draw_for(neg_sampling, user, cut, item, self.seed, self.epoch)
        items, cuts, batch = item, cut, seeds
        if drawn is not None:
            kept = (drawn >= 0).view(-1)
            owner = seeds.repeat_interleave(drawn.size(1))[kept]
            items = torch.cat([item, drawn.view(-1)[kept]])
            batch = torch.cat([seeds, owner])
            cuts = cut.index_select(0, batch)
        out = self.sample({"user": (user, cut, seeds), "item": (items, cuts, batch)})
        out.metadata = link_metadata(index, neg_sampling, cut, drawn, batch)
        return out

    def sample(self, seeds: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> TreeSample:
        """The neighbourhoods of seeds of several types.

        Args:
            seeds: Node type -> ``(node, cut, batch)``, each ``[B]`` int64 on the index's device;
                ``batch`` is the number that the nodes of the tree get in ``out.batch``.

        Returns:
            PyG's ``HeteroSamplerOutput``: seeds first, then hop by hop; ``edge`` holds positions
            in the ``edge_index`` of each type, and ``num_sampled_*`` one number per hop.
        """
        if not seeds.keys() <= set(NODE_TYPES):
            raise ValueError(f"'seeds' needs to be of types 'user' and 'item' (got {list(seeds)})")
        roots = {t: self._roots(t, *seeds[t]) for t in NODE_TYPES if t in seeds}
        front, steps = dict(roots), list[Step]()
        count = {t: roots[t].node.numel() if t in roots else 0 for t in NODE_TYPES}
        for hop in range(self.num_hops):
            walked: list[Step] = []
            for walk in self.walks:
                source, _, target = walk.edge_type
                if target in front and walk.fan_out[hop] != 0:
                    walked.append(self._step(walk, front[target], hop, count[source]))
                    count[source] += walked[-1].draw.numel()
            steps += walked
            front = {t: f for t in NODE_TYPES if (f := join(walked, t)) is not None}
        return hetero_output(self.index, self.walks, self.num_hops, roots, steps, self.disjoint)

    def _cuts(self, time: Tensor | None, name: str) -> Tensor:
        """The cuts of a loader's input, on the index's device."""
        device = self.index.device
        if device.type == "cuda" and get_worker_info() is not None:
            raise ValueError(
                "'num_workers' needs to be 0 with an index on CUDA: a worker process cannot use it"
            )
        if time is None:
            raise ValueError(
                f"'{name}' is missing: it holds the cut (event id) of every seed; without it "
                f"nothing says what is past. Use index.end to see all events"
            )
        if time.dtype != torch.int64:
            raise ValueError(f"'{name}' needs to hold cuts as int64 (got {time.dtype})")
        return time.to(device)

    def _nodes(self, node: Tensor, node_type: str) -> Tensor:
        """Nodes of a loader's input on the index's device, checked where that is for free."""
        if node.device.type == "cpu" and self.index.device.type != "cpu":
            self.index.check_nodes(node, node_type)
        return node.to(self.index.device)

    def _roots(self, node_type: str, node: Tensor, cut: Tensor, batch: Tensor) -> Frontier:
        """The seeds themselves."""
        self.index.check_seeds(node, cut, node_type)
        key, floor = None, None
        if self.strategy == "uniform":
            key = hash_keys(self.seed, self.epoch, NODE_TYPES.index(node_type), node, cut)
        if self.window is not None:  # may lower the cut, by events that the key must not know of
            cut, floor = visible(self.index, cut, self.window)
        stop = self._events(node_type).past(node, cut)[1]
        return self._arrive(node_type, node, cut, floor, stop, batch, key, 0)

    def _events(self, node_type: str) -> EventList:
        return self.index.by_user if node_type == "user" else self.index.by_item

    def _arrive(
        self,
        node_type: str,
        node: Tensor,
        cut: Tensor | None,
        floor: Tensor | None,
        stop: Tensor,
        batch: Tensor,
        key: Tensor | None,
        base: int,
    ) -> Frontier:
        """Finds where what is visible from each node begins; it ends at ``stop``."""
        events = self._events(node_type)
        if floor is None:
            start = events.ptr.index_select(0, node)
        else:
            start = torch.minimum(events.search(node, floor), stop)
        return Frontier(node, cut, floor, start, stop, batch, key, base)

    def _step(self, walk: Walk, front: Frontier, hop: int, base: int) -> Step:
        """Draws the edges of one type for all nodes of a frontier."""
        start, stop = walk.bounds(front.node, front.start, front.stop)
        k, key, last = walk.fan_out[hop], None, hop == self.num_hops - 1
        if front.key is None or k == -1:
            draw = draw_last(start, stop, k)
            if front.key is not None and not last:  # all are taken, and the next hop needs keys
                key = hash_keys(draw.spread(front.key), walk.code, draw.entry - draw.spread(start))
        else:
            keys = hash_keys(front.key, walk.code)
            draw, key = draw_uniform(start, stop, k, self.replace, keys, keyed=not last)
        step = Step(walk, hop, front, draw, base)
        if last:  # nothing is drawn from the nodes reached
            return step
        source, node = walk.edge_type[0], draw.take(walk.entry) >> 32
        floor = None if front.floor is None else draw.spread(front.floor)
        twin = None if walk.twin is None else draw.take(walk.twin)
        events, cut, end = self._events(source), None, twin
        if self.hop_time == "seed" or end is None:
            cut = draw.spread(cast(Tensor, front.cut))
            end = events.search(node, cut, after=twin)
        elif self._any_static:  # before this very event, which needs no search
            cut = events.key.index_select(0, end) - node * events.end
        batch = draw.spread(front.batch)
        reached = self._arrive(source, node, cut, floor, end, batch, key, base)
        return replace(step, reached=reached)
