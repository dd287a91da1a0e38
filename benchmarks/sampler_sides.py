"""The sides of ``sampler_throughput.py``: our sampler and loader and PyG's, on the same links."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch_geometric.typing as pyg
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkNeighborLoader
from torch_geometric.sampler import EdgeSamplerInput, HeteroSamplerOutput, NeighborSampler

from tgrec.data import Targets, TemporalRecGraph, with_reverse
from tgrec.loader import link_neighbor_loader
from tgrec.sampler import EventIndex, TemporalNeighborSampler

# PyG says at every call that torch-sparse will go.
warnings.filterwarnings("ignore", message="Using 'NeighborSampler' without a 'pyg-lib'")

FAN_OUT = [10, 10]
WIDTH = 64

# Name of a side -> arguments of our sampler and loader. "merged": as torch-sparse does it in every
# hop, a node of the last hop stands once per batch and not once per way to it.
OURS: dict[str, dict[str, Any]] = {
    "tgrec last, edge time": {"hop_time": "edge"},
    "tgrec last, edge time, merged": {"hop_time": "edge", "disjoint": False},
    "tgrec last, seed time": {"hop_time": "seed"},
    "tgrec last, seed time, merged": {"hop_time": "seed", "disjoint": False},
    "tgrec uniform, seed time": {"strategy": "uniform", "hop_time": "seed"},
}
SPARSE = "PyG on torch-sparse"
# The same for PyG; what is causal there takes the times of edges.
LAST = {"time_attr": "event_id", "temporal_strategy": "last", "disjoint": True}
STOCK: dict[str, dict[str, Any]] = {
    SPARSE: {},
    "PyG on pyg-lib": {},
    "PyG on pyg-lib, last, seed time": LAST,
}

Batch = HeteroData | HeteroSamplerOutput


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Args:
        name: What it is.
        causal: Whether it returns only what was known at the cut of each link.
        batch: Makes the next batch; None where it cannot be run here.
        missing: Why it cannot.
    """

    name: str
    causal: bool
    batch: Callable[[], Batch] | None
    missing: str = ""


def with_features(graph: TemporalRecGraph) -> TemporalRecGraph:
    """The same events with 64 floats on every node, and nothing else beside their ids."""
    out = TemporalRecGraph()
    for node_type, size in (("user", graph.num_users), ("item", graph.num_items)):
        out[node_type].num_nodes = size
        out[node_type].x = torch.rand(size, WIDTH)
    for edge_type in graph.interaction_types:
        out[edge_type].edge_index = graph[edge_type].edge_index
        out[edge_type].event_id = graph[edge_type].event_id
    return out


def missing(name: str) -> str:
    """Why a side of PyG cannot be run here; empty if it can."""
    if "pyg-lib" in name:
        return "" if pyg.WITH_PYG_LIB else "not installed"
    if pyg.WITH_PYG_LIB:
        return "not run: PyG takes pyg-lib where both are installed"
    return "" if pyg.WITH_TORCH_SPARSE else "not installed"


def samplers(graph: TemporalRecGraph, index: EventIndex, links: Targets, size: int) -> list[Side]:
    """Sampling alone: pairs of nodes in, the tensors of a sample out."""
    kind = graph.interaction_types[0]

    def asked(late: int | None) -> Iterator[EdgeSamplerInput]:
        while True:
            for rows in torch.arange(len(links)).split(size):
                time = None if late is None else links.cut[rows] - late
                yield EdgeSamplerInput(rows, links.user[rows], links.item[rows], None, time, kind)

    def side(name: str, sampler: Any, late: int | None) -> Side:
        inputs = asked(late)
        return Side(name, late is not None, lambda: sampler.sample_from_edges(next(inputs)))

    sides = [side(n, TemporalNeighborSampler(index, FAN_OUT, **a), 0) for n, a in OURS.items()]
    for name, options in STOCK.items():
        if why := missing(name):
            sides.append(Side(name, bool(options), None, why))
            continue
        # PyG keeps what is at or before a time, so the time is one before the cut.
        sampler = NeighborSampler(with_reverse(graph), FAN_OUT, **options)
        sides.append(side(name, sampler, 1 if options else None))
    return sides


def loaders(
    graph: TemporalRecGraph,
    index: EventIndex,
    links: Targets,
    size: int,
    device: str,
    negatives: bool,
) -> list[Side]:
    """Whole loaders: batches with features on the device, with or without a negative per link."""
    asked: Any = "triplet" if negatives else None
    on_device = copy.copy(graph).to(device)  # the copy, since PyG moves in place

    def endless(loader: Any) -> Callable[[], Batch]:
        def forever() -> Iterator[HeteroData]:
            while True:
                for batch in loader:
                    yield batch if device == "cpu" else batch.to(device)

        batches = forever()
        return lambda: next(batches)

    sides = []
    for name, options in OURS.items():
        ours = link_neighbor_loader(
            on_device, index, FAN_OUT, seeds=links, neg_sampling=asked, batch_size=size, **options
        )
        sides.append(Side(name, True, endless(ours)))
    for name, options in STOCK.items():
        if why := missing(name):
            sides.append(Side(name, bool(options), None, why))
            continue
        theirs = LinkNeighborLoader(
            with_reverse(graph),
            FAN_OUT,
            edge_label_index=(graph.interaction_types[0], torch.stack([links.user, links.item])),
            edge_label_time=links.cut - 1 if options else None,
            neg_sampling=asked,
            batch_size=size,
            shuffle=True,
            **options,
        )
        sides.append(Side(name, bool(options), endless(theirs)))
    return sides
