"""One kind of edge as the neighbour sampler walks it, and which edges of a node it draws.

Messages flow along an edge type from source to target; sampling walks it the other way, from a
node to the sources of its edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tgrec.data.random import below, hash_keys
from tgrec.data.reverse import reverse_type
from tgrec.data.temporal_graph import EdgeType, TemporalRecGraph
from tgrec.sampler.event_index import EventIndex


@dataclass(frozen=True)
class Walk:
    """The edges of one type, target node by target node; events in event order.

    Args:
        edge_type: Messages flow along it; sampling walks against it.
        fan_out: Edges drawn per node in each hop, -1 for all.
        code: Key of the random draws on this type.
        entry: ``[E]`` int64 ``source node << 32 | position in the edge_index of the type``: memory
            is read at random places, and one read is faster than two.
        twin: ``[E]`` int64 place of the same event in the source node's list; None: no events.
        ptr: ``[N + 1]`` int64; only for types that are not events.
        before: ``[E_all + 1]`` int64 number of entries of this type among the first entries of
            the list of all events; None where all events are of this type.
    """

    edge_type: EdgeType
    fan_out: tuple[int, ...]
    code: int
    entry: Tensor
    twin: Tensor | None = None
    ptr: Tensor | None = None
    before: Tensor | None = None

    def bounds(self, node: Tensor, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of each node, from its entries ``start:stop`` in the list of all events."""
        if self.ptr is not None:
            return self.ptr.index_select(0, node), self.ptr.index_select(0, node + 1)
        if self.before is not None:
            return self.before.index_select(0, start), self.before.index_select(0, stop)
        return start, stop


def event_walks(index: EventIndex) -> dict[EdgeType, Walk]:
    """Every relation of the index in both directions, without fan-outs."""
    walks: dict[EdgeType, Walk] = {}
    for code, relation in enumerate(index.relations):
        forward = ("user", relation, "item")
        chosen = index.relation == code if len(index.relations) > 1 else None
        row = None if chosen is None else chosen.cumsum(0) - 1  # place within its own relation
        for side, edge_type in enumerate((forward, reverse_type(forward))):
            events = index.by_item if side == 0 else index.by_user
            edge, keep, before = events.log, None, None
            if chosen is not None and row is not None:
                keep = chosen.index_select(0, events.log)
                edge = row.index_select(0, events.log[keep])
                before = torch.zeros(keep.numel() + 1, dtype=torch.int64, device=index.device)
                torch.cumsum(keep, 0, out=before[1:])
            walks[edge_type] = Walk(
                edge_type,
                fan_out=(),
                code=2 * code + side,
                entry=_entries(events.other if keep is None else events.other[keep], edge),
                twin=events.twin if keep is None else events.twin[keep],
                before=before,
            )
    return walks


def chosen_walks(
    index: EventIndex,
    num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]],
    static: TemporalRecGraph | None,
) -> list[Walk]:
    """The edge types to walk with their fan-outs, checked.

    Raises:
        ValueError: If a type is unknown, a fan-out is no integer of at least -1, the numbers of
            hops differ, or a hop draws nothing at all.
    """
    if max(index.num_events, index.num_users, index.num_items) >= 2**31:
        raise ValueError(
            f"'index' has {index.num_events} events, {index.num_users} users and "
            f"{index.num_items} items; fewer than 2**31 of each can be walked"
        )
    walks = event_walks(index)
    if not isinstance(num_neighbors, Mapping):
        num_neighbors = {edge_type: num_neighbors for edge_type in walks}
    chosen: list[Walk] = []
    for edge_type, fan_out in num_neighbors.items():
        if edge_type in walks:
            walk = walks[edge_type]
        elif static is not None and edge_type in static.edge_types:
            walk = static_walk(static, edge_type, index)
        else:
            known = [*walks, *(static.edge_types if static is not None else [])]
            raise ValueError(
                f"'num_neighbors' names the unknown edge type {edge_type}; known are "
                f"{sorted(set(known))} (derived types need 'static', the graph that has them)"
            )
        chosen.append(replace(walk, fan_out=_checked(fan_out, edge_type)))
    hops = {len(walk.fan_out) for walk in chosen}
    if len(hops) != 1 or hops == {0}:
        raise ValueError(
            f"'num_neighbors' needs one number per hop, as many for every edge type (got "
            f"{num_neighbors!r})"
        )
    for hop, sizes in enumerate(zip(*(walk.fan_out for walk in chosen), strict=True)):
        if not any(sizes):
            raise ValueError(
                f"'num_neighbors' draws nothing in hop {hop + 1}; give a positive number or -1"
            )
    return chosen


def _checked(fan_out: Sequence[int], edge_type: EdgeType) -> tuple[int, ...]:
    if not isinstance(fan_out, Sequence) or isinstance(fan_out, str):
        raise ValueError(
            f"'num_neighbors' needs a list with one number per hop (got {fan_out!r} for "
            f"{edge_type})"
        )
    for k in fan_out:
        if isinstance(k, bool) or not isinstance(k, int) or k < -1:
            raise ValueError(
                f"'num_neighbors' needs integers of at least 0, or -1 for all edges (got {k!r} "
                f"for {edge_type})"
            )
    return tuple(fan_out)


def static_walk(graph: TemporalRecGraph, edge_type: EdgeType, index: EventIndex) -> Walk:
    """A derived edge type without a clock, heaviest edges last.

    Raises:
        ValueError: If the type carries a clock, which would not be looked at, joins other nodes
            than users and items, or the graph has other nodes than the index.
    """
    if "event_id" in graph[edge_type] or "time" in graph[edge_type]:
        raise ValueError(
            f"'static': {edge_type} carries a clock but is not in the index, so its edges would be "
            f"drawn without regard to the cut. Build the index from the graph that has them"
        )
    if not {edge_type[0], edge_type[2]} <= {"user", "item"}:
        raise ValueError(
            f"'num_neighbors' names {edge_type}; only edges between 'user' and 'item' nodes are "
            f"walked"
        )
    for node_type, size in (("user", index.num_users), ("item", index.num_items)):
        if node_type in edge_type[::2] and (graph[node_type].num_nodes or 0) != size:
            raise ValueError(
                f"'static' has {graph[node_type].num_nodes} {node_type}s, the index {size}"
            )
    # Keys of draws behind those of the relations, whatever else is walked.
    code = 2 * len(index.relations) + sorted(graph.edge_types).index(edge_type)
    source, target = graph[edge_type].edge_index.to(index.device)
    order = torch.arange(target.numel(), device=target.device)
    if "edge_weight" in graph[edge_type]:
        order = torch.argsort(graph[edge_type].edge_weight.to(index.device), stable=True)
    order = order[torch.argsort(target[order], stable=True)]
    size = int(graph[edge_type[2]].num_nodes or 0)
    ptr = torch.zeros(size + 1, dtype=torch.int64, device=target.device)
    torch.cumsum(torch.bincount(target, minlength=size), 0, out=ptr[1:])
    return Walk(edge_type, fan_out=(), code=code, entry=_entries(source[order], order), ptr=ptr)


def _entries(other: Tensor, edge: Tensor) -> Tensor:
    return (other << 32).bitwise_or_(edge)


@dataclass(frozen=True)
class Draw:
    """Which entries of the parts of a list were drawn: k of each full part, then single ones.

    Args:
        full: ``[G]`` int64 parts of which ``k`` entries were drawn.
        picks: ``[G]`` int64 the first of ``k`` entries in a row, or ``[G, k]`` the entries.
        k: Entries of each full part.
        parent: ``[R]`` int64 part of each single entry.
        entry: ``[R]`` int64 single entries.
    """

    full: Tensor
    picks: Tensor
    k: int
    parent: Tensor
    entry: Tensor

    def numel(self) -> int:
        """The number of entries drawn."""
        return self.full.numel() * self.k + self.entry.numel()

    def take(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """``[T]`` the values of all entries drawn; ``values`` is as long as the list."""
        out = values.new_empty(self.numel()) if out is None else out
        size = self.full.numel() * self.k
        if size and self.picks.dim() == 1:
            # A run is copied as a whole: several times as fast as entry by entry.
            runs = values.unfold(0, self.k, 1)
            torch.index_select(runs, 0, self.picks, out=out[:size].view(-1, self.k))
        elif size:
            torch.index_select(values, 0, self.picks.view(-1), out=out[:size])
        torch.index_select(values, 0, self.entry, out=out[size:])
        return out

    def spread(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """``[T]`` the values of the part of each entry drawn; ``values`` has one per part."""
        out = values.new_empty(self.numel()) if out is None else out
        size = self.full.numel() * self.k
        if size:
            out[:size].view(-1, self.k).copy_(values.index_select(0, self.full).unsqueeze(1))
        torch.index_select(values, 0, self.parent, out=out[size:])
        return out


def draw_last(start: Tensor, stop: Tensor, k: int) -> Draw:
    """The last ``k`` entries of each part, all of them if ``k`` is -1; in ascending order."""
    if k <= 0:
        parts = torch.arange(start.numel() if k else 0, device=start.device)
        return Draw(parts[:0], parts[:0], 0, *_whole(parts, start, stop))
    enough = stop - start >= k
    full = enough.nonzero().view(-1)
    rest = _whole((~enough).nonzero().view(-1), start, stop)
    return Draw(full, stop.index_select(0, full) - k, k, *rest)


def draw_uniform(
    start: Tensor, stop: Tensor, k: int, replace: bool, key: Tensor, keyed: bool = True
) -> tuple[Draw, Tensor | None]:
    """``k`` entries of each part at random, each draw a function of the part's key and its slot.

    Without replacement, every set of ``k`` entries is equally likely (Floyd's algorithm: Bentley
    and Floyd, CACM 1987); a part of at most ``k`` entries is returned whole. With replacement,
    parts without entries give none.

    Args:
        start: ``[F]`` int64.
        stop: ``[F]`` int64.
        k: Number of draws, at least 0.
        replace: Whether an entry may be drawn again.
        key: ``[F]`` int64.
        keyed: Whether the entries need keys of their own.

    Returns:
        The draw and ``[T]`` a key for each entry, the drawn number itself; None if not ``keyed``.
    """
    size = stop - start
    full = (size > (0 if replace else k)).nonzero().view(-1)
    few = ((size > 0) & (size <= k)).nonzero().view(-1) if not replace else full[:0]
    size = size.index_select(0, full)
    slot = torch.arange(k, device=start.device).unsqueeze(1)
    bits = hash_keys(key.index_select(0, full), slot)  # [k, G]: steps over rows are fast
    picks = below(bits, size) if replace else _floyd(bits, size)
    picks += start.index_select(0, full)
    parent, entry = _whole(few, start, stop)
    draw = Draw(full, picks.t().contiguous(), k, parent, entry)
    if not keyed:
        return draw, None
    single = hash_keys(key.index_select(0, parent), entry - start.index_select(0, parent))
    return draw, torch.cat([bits.t().reshape(-1), single])


def _whole(parts: Tensor, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of some parts in ascending order: ``(part, entry)``, each ``[R]``."""
    start, stop = start.index_select(0, parts), stop.index_select(0, parts)
    count = stop - start
    ends = count.cumsum(0)
    total = int(ends[-1]) if ends.numel() else 0
    place = torch.repeat_interleave(count, output_size=total)
    # Entry number t of the output is entry (stop - count) + (t - number of entries before).
    entry = (stop - ends).index_select(0, place).add_(torch.arange(total, device=parts.device))
    return parts.index_select(0, place), entry


def _floyd(bits: Tensor, size: Tensor) -> Tensor:
    """``[k, G]`` distinct numbers below ``size`` ``[G]``, which is more than k."""
    # The newest candidate of each step; a step that hits an earlier one takes it instead.
    newest = size - bits.size(0) + torch.arange(bits.size(0), device=bits.device).unsqueeze(1)
    picked = below(bits, newest + 1)
    for step in range(1, bits.size(0)):
        taken = (picked[:step] == picked[step]).any(dim=0)
        picked[step] = torch.where(taken, newest[step], picked[step])
    return picked
