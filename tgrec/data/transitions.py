"""Item-item transitions: edges derived from the order and the times of events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tgrec.data.temporal_graph import EdgeType, TemporalRecGraph


def add_transitions(
    graph: TemporalRecGraph,
    max_lag: int,
    decay: float,
    gaps: Sequence[int] = (),
    relation: str = "next",
) -> TemporalRecGraph:
    r"""Adds item-item edges that count how often an item follows another within ``max_lag`` steps.

    For every user with events :math:`i_1, i_2, \ldots` at times :math:`t_1 \le t_2 \le \ldots`

    .. math:: w_{ij} = \sum_u \sum_{q < r \le q + \text{max\_lag}} [i_q = i, i_r = j]\,
              \text{decay}^{\,r - q - 1}

    With ``gaps`` there is one edge type per class of :math:`t_r - t_q`; only edges that occur are
    kept. Counts see every event of ``graph``: pass training events only.

    Args:
        graph: The events to count.
        max_lag: Largest step, in 1..255.
        decay: Weight of one more step, in (0, 1].
        gaps: Ascending lower bounds (s) of the gap classes; ``(0, 1, 30)`` makes the classes
            ``[0, 1)``, ``[1, 30)`` and ``[30, inf)``. Empty: one class, no times needed.
        relation: Name of the new edge type ``('item', relation, 'item')``, or of the types
            ``relation_0``, ``relation_1``, ... with gaps.

    Returns:
        A copy of the graph (tensors shared) with the new types; each has ``edge_index`` ``[2, E]``
        sorted by (source, target) and ``edge_weight`` ``[E]`` float32. They carry no clock, so
        slices of the graph drop them.
    """
    if not 1 <= max_lag <= 255:
        raise ValueError(f"'max_lag' needs to be in 1..255 (got {max_lag})")
    if not 0 < decay <= 1:
        raise ValueError(f"'decay' needs to be in (0, 1] (got {decay})")
    if list(gaps) != sorted(set(gaps)) or (gaps and gaps[0] != 0):
        raise ValueError(f"'gaps' needs to ascend from 0 (got {tuple(gaps)})")
    if gaps and not graph.has_time:
        raise ValueError("'gaps' needs event times, and this graph has only an order")
    key, weight = _count(graph, max_lag, decay, np.asarray(gaps, dtype=np.int64))
    num_items = graph.num_items
    out = graph._with_events({t: slice(None) for t in graph.interaction_types})
    for code, edge_type in enumerate(transition_types(relation, len(gaps))):
        lo, hi = np.searchsorted(key, [code * num_items**2, (code + 1) * num_items**2])
        pair = key[lo:hi] - code * num_items**2
        out[edge_type].edge_index = torch.from_numpy(np.stack(np.divmod(pair, num_items)))
        out[edge_type].edge_weight = torch.from_numpy(weight[lo:hi].astype(np.float32))
    return out


def transition_types(relation: str, num_gaps: int) -> list[EdgeType]:
    """The edge types that :func:`add_transitions` makes."""
    names = [f"{relation}_{g}" for g in range(num_gaps)] if num_gaps else [relation]
    return [("item", name, "item") for name in names]


def _count(
    graph: TemporalRecGraph, max_lag: int, decay: float, gaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending keys ``(gap class, source, target)`` and their weights."""
    types, num_items = graph.interaction_types, graph.num_items
    edges = torch.cat([graph[t].edge_index for t in types], dim=1).cpu().numpy()
    event_id = torch.cat([graph[t].event_id for t in types]).cpu().numpy()
    order = np.lexsort((event_id, edges[0]))
    user, item = edges[0][order], edges[1][order]
    time = torch.cat([graph[t].time for t in types]).cpu().numpy()[order] if len(gaps) else None
    if max(len(gaps), 1) * num_items**2 >= 2**55:
        raise ValueError(f"too many items ({num_items}) to number all pairs")
    # One flat buffer: the lists of all lags and their concatenation would be in memory twice.
    occurrence = np.empty(max_lag * user.size, dtype=np.int64)
    size = 0
    for lag in range(1, max_lag + 1):
        rows = np.flatnonzero(user[lag:] == user[:-lag])
        pair = item[rows] * num_items + item[rows + lag]
        if time is not None:
            gap = np.searchsorted(gaps, time[rows + lag] - time[rows], side="right") - 1
            pair += gap * num_items**2
        # The lag rides in the low byte, so that one sort of plain integers groups everything.
        occurrence[size : size + rows.size] = pair << 8 | lag
        size += rows.size
    occurrence = occurrence[:size]
    occurrence.sort()
    if size == 0:
        return occurrence, np.empty(0)
    step = (decay ** np.arange(-1, 255)).astype(np.float32)[occurrence.astype(np.uint8)]
    occurrence >>= 8
    starts = np.flatnonzero(np.concatenate([[True], occurrence[1:] != occurrence[:-1]]))
    return occurrence[starts], np.add.reduceat(step, starts)
