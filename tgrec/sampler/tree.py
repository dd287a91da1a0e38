"""What a neighbour sampler has reached, and PyG's output made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch_geometric.sampler import EdgeSamplerInput, HeteroSamplerOutput, NegativeSampling

from tgrec.data.temporal_graph import EdgeType
from tgrec.sampler.event_index import EventIndex
from tgrec.sampler.walk import Draw, Walk

NODE_TYPES = ("user", "item")


@dataclass(frozen=True)
class Frontier:
    """The nodes of one type that the next hop walks on from; ``[F]`` int64 each.

    Args:
        node: Nodes; a node stands once for every way to it.
        cut: Only events with ``event_id < cut`` are visible from it; None where no later hop asks.
        floor: Only events with ``event_id >= floor``; None without a window.
        start: First visible entry in the node's list of events.
        stop: One past the last visible entry.
        batch: Number of the seed.
        key: Of the random draws; None with strategy ``last``.
        base: Local index of the first of them; the others follow.
    """

    node: Tensor
    cut: Tensor | None
    floor: Tensor | None
    start: Tensor
    stop: Tensor
    batch: Tensor
    key: Tensor | None
    base: int


@dataclass(frozen=True)
class Step:
    """The edges of one type that one hop has drawn.

    Args:
        walk: Their type.
        hop: Counts from 0.
        front: Nodes walked from.
        draw: Which edges of each of them.
        base: Local index of the first node reached; the others follow.
        reached: Where the next hop goes on; None after the last hop.
    """

    walk: Walk
    hop: int
    front: Frontier
    draw: Draw
    base: int
    reached: Frontier | None = None

    def write(self, node: Tensor, edge: Tensor, col: Tensor) -> None:
        """Fills in nodes reached, edges, and local indices of nodes walked from, each ``[T]``."""
        self.draw.take(self.walk.entry, out=node)
        torch.bitwise_and(node, 0xFFFFFFFF, out=edge)
        node >>= 32
        size, first = self.front.node.numel(), self.front.base
        self.draw.spread(torch.arange(first, first + size, device=node.device), out=col)


@dataclass
class TreeSample(HeteroSamplerOutput):
    """PyG's output, whose ``row`` and ``col`` are the rows of one tensor, for who wants both.

    Args:
        edge_index: Edge type -> ``[2, T]``.
    """

    edge_index: Mapping[EdgeType, Tensor] = field(default_factory=dict)


def join(steps: Sequence[Step], node_type: str) -> Frontier | None:
    """All nodes of one type that a hop has reached; None if there are none."""
    parts = [s.reached for s in steps if s.walk.edge_type[0] == node_type and s.reached is not None]
    if len(parts) <= 1:
        return parts[0] if parts else None

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(p, name) for p in parts])

    return Frontier(
        node=cat("node"),
        cut=None if parts[0].cut is None else cat("cut"),
        floor=None if parts[0].floor is None else cat("floor"),
        start=cat("start"),
        stop=cat("stop"),
        batch=cat("batch"),
        key=None if parts[0].key is None else cat("key"),
        base=parts[0].base,
    )


def hetero_output(
    index: EventIndex,
    walks: Sequence[Walk],
    num_hops: int,
    roots: Mapping[str, Frontier],
    steps: Sequence[Step],
    disjoint: bool = True,
) -> TreeSample:
    """Seeds first, then hop by hop; every node and edge type has an entry, if an empty one."""
    num_nodes = {t: [0] * (num_hops + 1) for t in NODE_TYPES}
    num_edges = {walk.edge_type: [0] * num_hops for walk in walks}
    for t, front in roots.items():
        num_nodes[t][0] = front.node.numel()
    for step in steps:
        num_nodes[step.walk.edge_type[0]][step.hop + 1] += step.draw.numel()
        num_edges[step.walk.edge_type][step.hop] += step.draw.numel()

    # Everything is written once, to where it stays.
    none = torch.empty(0, dtype=torch.int64, device=index.device)
    node = {t: none.new_empty(sum(n if disjoint else n[:-1])) for t, n in num_nodes.items()}
    batch = {t: torch.empty_like(n) for t, n in node.items()}
    edge_index = {e: none.new_empty(2, sum(n)) for e, n in num_edges.items()}
    row, col = ({e: pair[side] for e, pair in edge_index.items()} for side in range(2))
    edge = {e: torch.empty_like(r) for e, r in row.items()}
    for t, front in roots.items():
        node[t][: num_nodes[t][0]], batch[t][: num_nodes[t][0]] = front.node, front.batch
    done = dict.fromkeys(num_edges, 0)
    for step in steps:
        e, size = step.walk.edge_type, step.draw.numel()
        drawn = slice(done[e], done[e] + size)
        if disjoint or step.hop < num_hops - 1:
            reached = slice(step.base, step.base + size)
            step.write(node[e[0]][reached], edge[e][drawn], col[e][drawn])
            step.draw.spread(step.front.batch, out=batch[e[0]][reached])
            torch.arange(step.base, step.base + size, out=row[e][drawn])
        else:
            step.write(row[e][drawn], edge[e][drawn], col[e][drawn])
        done[e] += size
    if not disjoint:
        _merge_last_hop(index, node, row, num_nodes, num_edges)
    return TreeSample(
        node=node,
        row=row,
        col=col,
        edge=cast(dict[EdgeType, Tensor | None], edge),
        batch=batch if disjoint else None,
        num_sampled_nodes=num_nodes,
        num_sampled_edges=num_edges,
        edge_index=edge_index,
    )


def _merge_last_hop(
    index: EventIndex,
    node: dict[str, Tensor],
    row: Mapping[EdgeType, Tensor],
    num_nodes: Mapping[str, list[int]],
    num_edges: Mapping[EdgeType, list[int]],
) -> None:
    """Adds each node of the last hop once, and writes their local indices over them in ``row``."""
    for t, size in zip(NODE_TYPES, (index.num_users, index.num_items), strict=True):
        drawn = [r[r.numel() - num_edges[e][-1] :] for e, r in row.items() if e[0] == t]
        there = torch.zeros(size, dtype=torch.bool, device=index.device)
        for nodes in drawn:
            there.index_fill_(0, nodes, True)
        merged = there.nonzero().view(-1)
        local = there.cumsum(0) + (node[t].numel() - 1)
        for nodes in drawn:
            nodes.copy_(local.index_select(0, nodes))
        node[t] = torch.cat([node[t], merged])
        num_nodes[t][-1] = merged.numel()


def link_metadata(
    inputs: EdgeSamplerInput,
    neg_sampling: NegativeSampling | None,
    cut: Tensor,
    drawn: Tensor | None,
    batch: Tensor,
) -> tuple[Tensor | None, ...]:
    """What PyG's ``LinkLoader`` expects beside the sample of links, in its order.

    Args:
        inputs: The links.
        neg_sampling: Its kind of metadata; None has that of ``binary``.
        cut: ``[B]`` of the links.
        drawn: ``[B, K]`` negatives, -1 where there is none; None without negatives.
        batch: ``[B + number of negatives]`` the link of each item.
    """
    seeds = torch.arange(cut.numel(), device=cut.device)
    items = torch.arange(batch.numel(), device=cut.device)
    if neg_sampling is not None and neg_sampling.is_triplet() and drawn is not None:
        negative = items[cut.numel() :].view(drawn.shape).squeeze(-1)
        return inputs.input_id, seeds, seeds, negative, cut
    label = inputs.label
    if drawn is not None:
        label = torch.ones(cut.numel()) if label is None else label
        label = label.to(cut.device)
        missing = batch.numel() - cut.numel()
        label = torch.cat([label, label.new_zeros(missing, *label.shape[1:])])
    return inputs.input_id, torch.stack([batch, items]), label, cut.index_select(0, batch)
