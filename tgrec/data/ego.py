"""The neighbourhood of one user, as a graph of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tgrec.data.subgraph import keep_nodes
from tgrec.data.temporal_graph import TemporalRecGraph


def ego(
    graph: TemporalRecGraph,
    user: Any,
    hops: int = 1,
    cut: int | None = None,
    max_events: int | None = None,
) -> TemporalRecGraph:
    """Everything within some steps of one user.

    Walking starts at the user. Step 1 goes over the user's events to items, step 2 over the events
    of these items to other users, and so on. An event is kept if it was walked over, a node if it
    was reached. The whole log is read once a step and nothing is indexed, so that a call needs
    milliseconds for a million events.

    Args:
        graph: A whole graph.
        user: The raw id of the user, as in ``graph.index_of("user", [user])``.
        hops: How many steps. 0 gives the user alone.
        cut: Only events with ``event_id < cut`` are seen, so that the picture of a moment does not
            show its future. None: all events.
        max_events: From every node only its latest so many visible events are walked over, which
            keeps a drawing readable; a node has more in the result if others walked to it. None:
            all of them.

    Returns:
        A graph with the kept events and nodes, in their order: event ids, times, raw ids, strings
        and features stay what they were, derived edge types are dropped. Nodes are numbered anew
        and carry ``hops`` ``[N]`` int64, the step in which they were reached (0: the user).

    Raises:
        ValueError: If there is no such user, or a number is out of range.
    """
    graph._require_whole("ego")
    _check_integer("hops", hops, 0)
    if max_events is not None:
        _check_integer("max_events", max_events, 1)
    start = _user_index(graph, user)
    visible = graph if cut is None else graph.before(cut)
    stores = [visible[edge_type] for edge_type in visible.interaction_types]
    user_end, item_end = torch.cat([store.edge_index for store in stores], dim=1)
    ends = {"user": user_end, "item": item_end}
    event_id = torch.cat([store.event_id for store in stores])

    reached = {
        node_type: torch.full((int(graph[node_type].num_nodes or 0),), -1, device=event_id.device)
        for node_type in ends
    }
    reached["user"][start] = 0
    walked = torch.zeros_like(event_id, dtype=torch.bool)
    for hop in range(1, hops + 1):
        near, far = ("user", "item") if hop % 2 else ("item", "user")
        rows = (reached[near] == hop - 1)[ends[near]].nonzero().view(-1)
        if max_events is not None:
            rows = _latest(rows, ends[near][rows], event_id[rows], max_events)
        if rows.numel() == 0:
            break
        walked[rows] = True
        met = ends[far][rows]
        reached[far][met[reached[far][met] < 0]] = hop

    parts = walked.split([store.event_id.numel() for store in stores])
    chosen = {
        edge_type: part.nonzero().view(-1)
        for edge_type, part in zip(visible.interaction_types, parts, strict=True)
    }
    keep = {node_type: step >= 0 for node_type, step in reached.items()}
    out = keep_nodes(visible._with_events(chosen), keep)
    for node_type, step in reached.items():
        out[node_type].hops = step[keep[node_type]]
    return out


def _latest(rows: Tensor, node: Tensor, event_id: Tensor, limit: int) -> Tensor:
    """Those of ``rows`` (``[R]``) whose event is among the latest ``limit`` of its node."""
    order = torch.argsort(event_id, descending=True)
    order = order[torch.argsort(node[order], stable=True)]
    node = node[order]
    first = torch.searchsorted(node, node)  # where the group of each node begins
    rank = torch.arange(node.numel(), device=node.device) - first
    return rows[order[rank < limit]]


def _user_index(graph: TemporalRecGraph, user: Any) -> int:
    try:
        return int(graph.index_of("user", [user])[0])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"'user' needs to be the raw id of one user of the graph (got {user!r}); see "
            f"raw_ids('user')"
        ) from error


def _check_integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"'{name}' needs to be an integer of at least {least} (got {value!r})")
