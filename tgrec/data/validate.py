"""What the samplers rely on, checked."""

from __future__ import annotations

import torch

from tgrec.data.columns import MILLISECONDS_FROM
from tgrec.data.temporal_graph import TemporalRecGraph


def problems(graph: TemporalRecGraph) -> list[str]:
    """Every way in which ``graph`` breaks the contract of its class, in words."""
    found = []
    for node_type in ("user", "item"):
        if node_type not in graph.node_types:
            found.append(f"there is no node type {node_type!r}")
    for node_type in graph.node_types:
        for key in ("time", "event_id"):
            if key in graph[node_type]:
                found.append(f"node type {node_type!r} carries {key!r}; clocks stand on edges only")
    types = graph.interaction_types
    if found or not types:
        return found or ["there is no edge type ('user', r, 'item') with 'event_id'"]
    timed = ["time" in graph[t] for t in types]
    if any(timed) and not all(timed):
        found.append(f"some kinds of events have 'time' and some have not: {types}")
    for edge_type in types:
        found += _event_problems(graph, edge_type)
    if found:
        return found
    ids = torch.cat([graph[t].event_id for t in types])
    order = torch.argsort(ids)
    if (ids[order].diff() == 0).any():
        found.append("'event_id' is not unique over all kinds of events")
    elif all(timed) and (torch.cat([graph[t].time for t in types])[order].diff() < 0).any():
        found.append("'event_id' does not follow 'time': an earlier event has a later id")
    return found


def _event_problems(graph: TemporalRecGraph, edge_type: tuple[str, str, str]) -> list[str]:
    store, found = graph[edge_type], []
    edges = store.get("edge_index")
    if not isinstance(edges, torch.Tensor):
        return [f"{edge_type} has no 'edge_index' tensor"]
    if edges.dim() != 2 or edges.size(0) != 2 or edges.dtype != torch.int64:
        return [f"'edge_index' of {edge_type} needs to be int64 [2, E] (got {edges.dtype} "
                f"{list(edges.shape)})"]  # fmt: skip
    size = edges.size(1)
    for row, node_type in enumerate(("user", "item")):
        limit = graph[node_type].num_nodes
        bad = (edges[row] < 0) | (edges[row] >= limit)
        if bad.any():
            at = int(bad.nonzero()[0])
            found.append(
                f"'edge_index' of {edge_type}: edge {at} has {node_type} {int(edges[row, at])}, "
                f"outside 0..{limit - 1}"
            )
    for key in ("event_id", "time", "rating"):
        if key in store and (store[key].dim() == 0 or store[key].size(0) != size):
            found.append(
                f"'{key}' of {edge_type} needs {size} values (got {list(store[key].shape)})"
            )
        elif key in ("event_id", "time") and key in store and store[key].dtype != torch.int64:
            found.append(f"'{key}' of {edge_type} needs to be int64 (got {store[key].dtype}; float "
                         f"times lose seconds)")  # fmt: skip
    if not found and (store.event_id.diff() <= 0).any():
        found.append(f"'event_id' of {edge_type} is not strictly increasing; sort its edges")
    if not found and size and int(store.event_id[0]) < 0:
        found.append(f"'event_id' of {edge_type} is negative")
    if not found and "time" in store and size:
        low, high = (int(t) for t in store.time.aminmax())
        if low < 0 or high >= MILLISECONDS_FROM:
            found.append(f"'time' of {edge_type} needs to be Unix seconds, not negative and not "
                         f"milliseconds or finer (got {low}..{high})")  # fmt: skip
    return found
