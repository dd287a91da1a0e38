"""Where the nodes of a neighbourhood are drawn."""

from __future__ import annotations

import math
from typing import Any

import networkx as nx

Node = tuple[str, Any]  # ("user" or "item", raw id), as in TemporalRecGraph.to_networkx


def radial_layout(net: nx.MultiDiGraph) -> dict[Node, tuple[float, float]]:
    """Places the user in the middle and every other node on the circle of its hop.

    The nodes form a tree: a node hangs at the node one step further in that it shares its latest
    event with. Every branch has its own sector, as wide as it has leaves; inside a sector, and
    around the user, nodes go clockwise from the latest event (at the top) to the oldest.

    Args:
        net: ``graph.ego(...).to_networkx()``, or anything with ``hops`` on the nodes and
            ``event_id`` on the edges.

    Returns:
        ``(x, y)`` by node, as networkx's own drawing functions take them; hop h lies at radius h.
    """
    hops: dict[Node, int] = dict(net.nodes(data="hops"))
    inward = _inward(net, hops)
    order = sorted(inward, key=lambda node: -inward[node][1])
    leaves = dict.fromkeys(hops, 0)
    for node in sorted(order, key=lambda node: -hops[node]):
        leaves[node] = max(leaves[node], 1)
        leaves[inward[node][0]] += leaves[node]
    start = dict.fromkeys(hops, 0.0)  # in leaves, where the sector of a node begins
    free = dict(start)  # and where the part of it begins that has no child yet
    for node in sorted(order, key=lambda node: hops[node]):
        around = inward[node][0]
        start[node] = free[node] = free[around]
        free[around] += leaves[node]
    (middle,) = (node for node, hop in hops.items() if hop == 0)
    turn = 2 * math.pi / max(leaves[middle], 1)
    first = min((node for node in order if hops[node] == 1), key=start.__getitem__, default=middle)
    positions = {}
    for node, hop in hops.items():
        # The middle of the sector; the first one of all is turned to the top.
        angle = turn * (start[node] + leaves[node] / 2 - leaves[first] / 2)
        positions[node] = (hop * math.sin(angle), hop * math.cos(angle))
    return positions


def _inward(net: nx.MultiDiGraph, hops: dict[Node, int]) -> dict[Node, tuple[Node, int]]:
    """The node one hop further in that a node shares its latest event with, and that event."""
    latest: dict[Node, tuple[Node, int]] = {}
    for user, item, event in net.edges(data="event_id"):
        outer, inner = (user, item) if hops[user] > hops[item] else (item, user)
        # With max_events a node may also meet nodes further out that did not lead to it.
        if hops[outer] == hops[inner] + 1 and event > latest.get(outer, (inner, -1))[1]:
            latest[outer] = (inner, event)
    return latest
