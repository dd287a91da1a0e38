"""Graphs with fewer nodes, numbered anew."""

from __future__ import annotations

import torch
from torch import Tensor

from tgrec.data.temporal_graph import TemporalRecGraph


def keep_nodes(graph: TemporalRecGraph, keep: dict[str, Tensor]) -> TemporalRecGraph:
    """Leaves out users and items and numbers the others anew, in their order.

    Args:
        graph: A whole graph. Derived edge types are dropped.
        keep: For ``user`` and ``item``: ``[N]`` bool. Both ends of every event need to be kept.

    Returns:
        A new graph whose nodes carry all features, and as ``raw_id`` what they were called before
        (their numbers, where they had no raw ids).
    """
    out = TemporalRecGraph()
    new_index: dict[str, Tensor] = {}
    for node_type in ("user", "item"):
        mask = keep[node_type].cpu()
        rows = mask.nonzero().view(-1)
        if "raw_id" not in graph[node_type] and "raw_id_bytes" not in graph[node_type]:
            out[node_type].raw_id = rows  # the numbers that the nodes had so far
        index = torch.full((mask.numel(),), -1)
        index[rows] = torch.arange(rows.numel())
        new_index[node_type] = index
        graph._copy_nodes(out, node_type, rows)
    for edge_type in graph.interaction_types:
        for key, value in graph[edge_type].items():
            out[edge_type][key] = value
        edges = graph[edge_type].edge_index
        user, item = edges.cpu()
        renumbered = torch.stack([new_index["user"][user], new_index["item"][item]])
        out[edge_type].edge_index = renumbered.to(edges.device)
    return out


def drop_isolated(graph: TemporalRecGraph) -> TemporalRecGraph:
    """Leaves out users and items without events and numbers the others anew, in order."""
    graph._require_whole("drop_isolated")
    keep = {}
    for row, node_type in enumerate(("user", "item")):
        seen = torch.zeros(int(graph[node_type].num_nodes or 0), dtype=torch.bool)
        for edge_type in graph.interaction_types:
            seen[graph[edge_type].edge_index[row].cpu()] = True
        keep[node_type] = seen
    return keep_nodes(graph, keep)
