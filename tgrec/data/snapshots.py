"""The log cut into calendar periods."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data.storage import EdgeStorage

from tgrec.data.temporal_graph import TemporalRecGraph


def snapshots(graph: TemporalRecGraph, freq: str = "W") -> Iterator[TemporalRecGraph]:
    """See :meth:`TemporalRecGraph.snapshots`."""
    graph._require_whole("snapshots")
    graph._require_time("snapshots")
    if graph.num_events == 0:
        return
    types = graph.interaction_types
    bounds = _bounds([graph[t].time for t in types if graph[t].time.numel()], freq)
    # One search and one split for all periods: a view is the nodes and its part of each column.
    parts = {}
    for t in types:
        cuts = torch.searchsorted(graph[t].time, graph[t].time.new_tensor(bounds))
        parts[t] = _split(graph[t], cuts.diff().tolist())
    nodes = graph._with_events({t: slice(0, 0) for t in types})
    for k, (start, end) in enumerate(pairwise(bounds)):
        view = copy.copy(nodes)
        for t in types:
            store = view[t]
            for key, part in parts[t].items():
                store[key] = part[k]
        view.time_start, view.time_end = start, end
        yield view


def _bounds(times: Sequence[Tensor], freq: str) -> list[int]:
    """Where periods begin, in Unix seconds, from the first event on; and where the last ends."""
    first, last = min(int(t[0]) for t in times), max(int(t[-1]) for t in times)
    try:
        stamps = pd.to_datetime([first, last], unit="s")
        periods = pd.period_range(stamps[0], stamps[1], freq=freq)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"'freq' needs to be a pandas period alias such as 'D', 'W' or 'M' (got {freq!r})"
        ) from error
    dates = periods.start_time.append((periods[-1:] + 1).start_time)
    bounds: list[int] = dates.as_unit("s").asi8.tolist()
    return bounds


def _split(store: EdgeStorage, sizes: list[int]) -> dict[str, Sequence[Any]]:
    """Consecutive parts of every column of events; what is no column is the same in all parts."""
    parts: dict[str, Sequence[Any]] = {}
    for key, value in store.items():
        if key == "edge_index":
            parts[key] = value.split(sizes, dim=1)
        elif isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == sum(sizes):
            parts[key] = value.split(sizes)
        else:
            parts[key] = [value] * len(sizes)
    return parts
