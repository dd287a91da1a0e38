"""Reverse edges for message passing, made where they are needed and not kept in the store."""

from __future__ import annotations

import copy

from tgrec.data.temporal_graph import EdgeType, TemporalRecGraph


def reverse_type(edge_type: EdgeType) -> EdgeType:
    """The type of the reverse edges, named as PyG's ``ToUndirected`` names it."""
    source, relation, target = edge_type
    return (target, f"rev_{relation}", source)


def with_reverse(graph: TemporalRecGraph) -> TemporalRecGraph:
    """The graph with ``('item', 'rev_r', 'user')`` for every kind of event.

    Messages in PyG flow along edges, so users hear of their items only through reverse edges. A
    reverse edge stands at the same position as its event, with the same attributes (shared, not
    copied). Derived edge types are kept.
    """
    out = copy.copy(graph)
    for edge_type in graph.interaction_types:
        for key, value in graph[edge_type].items():
            out[reverse_type(edge_type)][key] = value.flip(0) if key == "edge_index" else value
    return out
