"""PyG's own neighbour samplers behind the same loader: pyg-lib and torch-sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch_geometric.typing as pyg
from torch import Tensor
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
    NeighborSampler,
    NodeSamplerInput,
)

from tgrec.data import Targets, TemporalRecGraph, reverse_type
from tgrec.data.temporal_graph import EdgeType
from tgrec.sampler import EventIndex, NegativeSampler
from tgrec.sampler.neighbor import check_strategy
from tgrec.sampler.walk import chosen_walks

Backend = Literal["auto", "tgrec", "pyg-lib", "torch-sparse"]


class StockNeighborSampler(BaseSampler):
    """PyG's ``NeighborSampler`` with cuts for times and the negatives of this library.

    Args:
        stock: PyG's sampler; with pyg-lib, over ``event_id`` as the time of edges.
        index: Where negatives and the device come from.
        negatives: Draws the negatives.
        seed: Key of their draws.
        temporal: Whether the sampler takes times. It keeps ``time <= t``; ids are unique, so
            ``t = cut - 1`` keeps exactly what is before the cut.
    """

    def __init__(
        self,
        stock: NeighborSampler,
        index: EventIndex,
        negatives: NegativeSampler,
        seed: int,
        temporal: bool,
    ) -> None:
        self.stock, self.index, self.negatives = stock, index, negatives
        self.seed, self.epoch, self.temporal = seed, 0, temporal

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other negatives; what PyG draws follows torch's generator."""
        self.epoch = epoch

    @property
    def edge_permutation(self) -> Any:
        """PyG sorts edges and says here where they stood."""
        return self.stock.edge_permutation

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> HeteroSamplerOutput:
        """As PyG, with cuts for times."""
        cut = index.time
        if cut is None:
            raise ValueError("'input_time' is missing: it holds the cut of every seed")
        time = cut - 1 if self.temporal else None
        inputs = NodeSamplerInput(index.input_id, index.node, time, index.input_type)
        out = cast(HeteroSamplerOutput, self.stock.sample_from_nodes(inputs))
        out.metadata = (index.input_id, cut)
        return out

    def sample_from_edges(
        self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> HeteroSamplerOutput:
        """As :meth:`tgrec.sampler.TemporalNeighborSampler.sample_from_edges`."""
        user, item, cut = index.row, index.col, index.time
        if cut is None:
            raise ValueError("'edge_label_time' is missing: it holds the cut of every link")
        size = user.numel()
        owner, items, num = torch.arange(size), item, 0
        if neg_sampling is not None:
            drawn = self.negatives.draw_for(neg_sampling, user, cut, item, self.seed, self.epoch)
            num, kept = drawn.size(1), (drawn >= 0).view(-1)
            owner = torch.cat([owner, torch.arange(size).repeat_interleave(num)[kept]])
            items = torch.cat([item, drawn.view(-1)[kept]])
        time = cut[owner] - 1 if self.temporal else None
        pairs = EdgeSamplerInput(None, user[owner], items, None, time, index.input_type)
        out = cast(HeteroSamplerOutput, self.stock.sample_from_edges(pairs))
        label_index: Tensor = cast(Any, out.metadata)[1]
        if out.batch is not None:  # one tree per pair; they belong to their link
            out.batch = {t: owner[b] for t, b in out.batch.items()}
        if neg_sampling is not None and neg_sampling.is_triplet():
            negative = label_index[1, size:].view(size, num).squeeze(-1)
            source, target = label_index[:, :size]
            out.metadata = (index.input_id, source, target, negative, cut)
            return out
        label = index.label
        if neg_sampling is not None:
            label = torch.ones(size) if label is None else label
            label = torch.cat([label, label.new_zeros(owner.numel() - size)])
        out.metadata = (index.input_id, label_index, label, cut[owner])
        return out


def _both(edge_type: EdgeType) -> tuple[EdgeType, EdgeType]:
    return edge_type, reverse_type(edge_type)


def stock_sampler(
    graph: TemporalRecGraph,
    index: EventIndex,
    num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]],
    strategy: str,
    replace: bool,
    own: Mapping[str, bool],
    seeds: Targets,
    negatives: NegativeSampler,
    seed: int,
    backend: str,
) -> StockNeighborSampler:
    """Makes PyG's sampler for a backend, or says why that backend cannot do what is asked.

    Args:
        graph: With reverse edges.
        index: Over the same events.
        num_neighbors: As :class:`tgrec.sampler.TemporalNeighborSampler` takes it, events only.
        strategy: ``last`` or ``uniform``.
        replace: With ``uniform``.
        own: Name of an argument that only the sampler of this library serves -> whether it has
            the value that the others can do.
        seeds: What will be asked for.
        negatives: Draws the negatives.
        seed: Key of their draws.
        backend: ``pyg-lib`` or ``torch-sparse``.
    """
    check_strategy(strategy, replace, "seed")
    installed = {"pyg-lib": pyg.WITH_PYG_LIB, "torch-sparse": pyg.WITH_TORCH_SPARSE}
    if backend not in installed:
        raise ValueError(
            f"'backend' needs to be one of ['auto', 'tgrec', 'pyg-lib', 'torch-sparse'] (got "
            f"{backend!r})"
        )
    if not installed[backend]:
        raise ValueError(f"'backend': {backend} is not installed; 'tgrec doctor' says how")
    if index.device.type != "cpu":
        raise ValueError(f"'backend': {backend} samples on the CPU; the index is on {index.device}")
    for name, possible in own.items():
        if not possible:
            raise ValueError(f"'{name}': {backend} cannot do this; use backend='tgrec'")
    temporal = backend == "pyg-lib"
    if backend == "torch-sparse":
        if installed["pyg-lib"]:
            raise ValueError(
                "'backend': where both are installed PyG uses pyg-lib; use backend='pyg-lib'"
            )
        if strategy != "uniform":
            raise ValueError("'strategy': torch-sparse knows no time, only 'uniform' draws")
        if len(seeds) and int(seeds.cut.min()) < index.end:
            raise ValueError(
                f"'backend': torch-sparse cannot sample in time, and seeds with cuts from "
                f"{int(seeds.cut.min())} must not see events up to {index.end - 1}; cut the graph "
                f"first (graph.before(cut)) and give 'seeds' with that cut, or use backend='tgrec'"
            )
    walks = chosen_walks(index, num_neighbors, None)
    # PyG wants a number for every type there is, and would draw from types without a clock as they
    # are; so it is shown events alone.
    none = [0] * len(walks[0].fan_out)
    fan_out = {t: none for r in index.relations for t in _both(("user", r, "item"))}
    fan_out |= {walk.edge_type: list(walk.fan_out) for walk in walks}
    stock = NeighborSampler(
        graph.edge_type_subgraph(list(fan_out)),
        fan_out,
        replace=replace,
        disjoint=temporal,
        temporal_strategy=strategy,
        time_attr="event_id" if temporal else None,
    )
    return StockNeighborSampler(stock, index, negatives, seed, temporal)
