"""A neighbour sampler of plain loops over a list of events, for the vectorised one to equal."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch_geometric.sampler import HeteroSamplerOutput

from tgrec.data import TemporalRecGraph
from tgrec.sampler import EventIndex

EdgeType = tuple[str, str, str]
# (node type, node, sorted (edge type, edge, tree) of the edges into it)
Tree = tuple[str, int, tuple[Any, ...]]


@dataclass(frozen=True)
class Event:
    id: int
    user: int
    item: int
    time: int
    relation: str
    position: int  # among the events of its relation


@dataclass(frozen=True)
class Edge:
    """An edge that may be drawn: its position, the node it comes from, and of which event it is."""

    position: int
    source: int
    event: Event | None = None


@dataclass(frozen=True)
class World:
    """A log and, without a clock, weighted edges ``(source, target, weight)``."""

    events: list[Event]
    static: dict[EdgeType, list[tuple[int, int, float]]] = field(default_factory=dict)
    num_users: int = 6
    num_items: int = 5
    relations: tuple[str, ...] = ("a", "b")

    @staticmethod
    def of(
        rows: list[tuple[int, int, int, str]], gaps: list[int] | None = None, **kw: Any
    ) -> World:
        """Rows (user, item, time, relation); ids count up by one, or by one and the gaps."""
        events, seen, last = [], Counter[str](), -1
        for place, (user, item, time, relation) in enumerate(sorted(rows, key=lambda r: r[2])):
            last += 1 + (gaps[place] if gaps else 0)
            events.append(Event(last, user, item, time, relation, seen[relation]))
            seen[relation] += 1
        return World(events, **kw)

    @property
    def end(self) -> int:
        return self.events[-1].id + 1 if self.events else 1

    @property
    def edge_types(self) -> list[EdgeType]:
        both = [(("user", r, "item"), ("item", f"rev_{r}", "user")) for r in self.relations]
        return [t for pair in both for t in pair] + list(self.static)

    def graph(self) -> TemporalRecGraph:
        graph = TemporalRecGraph()
        graph["user"].num_nodes, graph["item"].num_nodes = self.num_users, self.num_items
        for relation in self.relations:
            mine = [(e.user, e.item, e.id, e.time) for e in self.events if e.relation == relation]
            columns = torch.tensor(mine, dtype=torch.int64).view(-1, 4).t().contiguous()
            store = graph["user", relation, "item"]
            store.edge_index, store.event_id, store.time = columns[:2], columns[2], columns[3]
        for edge_type, edges in self.static.items():
            ends = torch.tensor([e[:2] for e in edges], dtype=torch.int64).view(-1, 2)
            graph[edge_type].edge_index = ends.t().contiguous()
            graph[edge_type].edge_weight = torch.tensor([e[2] for e in edges])
        return graph

    def changed_from(self, cut: int, rng: random.Random) -> World:
        """The same events before the cut and, after it, others: fewer, more, elsewhere."""
        rows = [e for e in self.events if e.id < cut]
        seen = Counter(e.relation for e in rows)
        last, time = cut - 1, max((e.time for e in rows), default=0)
        for _ in range(rng.randrange(8)):
            relation = rng.choice(self.relations)
            last, time = max(last, -1) + rng.randint(1, 3), time + rng.choice([0, 0, 1, 50])
            user, item = rng.randrange(self.num_users), rng.randrange(self.num_items)
            rows.append(Event(last, user, item, time, relation, seen[relation]))
            seen[relation] += 1
        return replace(self, events=rows)


@dataclass(frozen=True)
class Oracle:
    """What may be drawn, and with ``last`` what is drawn, by looking at every event every time.

    Args:
        world: The log.
        fan_out: Edges per node and hop, by edge type.
        hop_time: ``seed`` or ``edge``.
        window: Seconds, or (start, end).
    """

    world: World
    fan_out: dict[EdgeType, list[int]]
    hop_time: str = "seed"
    window: int | tuple[int, int] | None = None

    def in_window(self, event: Event, cut: int) -> bool:
        """Whether an event lies in the window of a seed."""
        if self.window is None:
            return True
        if isinstance(self.window, tuple):
            return self.window[0] <= event.time < self.window[1]
        newest = [e.time for e in self.world.events if e.id < cut]
        return bool(newest) and event.time > newest[-1] - self.window

    def edges(self, edge_type: EdgeType, node: int, limit: int, cut: int) -> list[Edge]:
        """The edges into a node that are visible from it, in the order of ``last``.

        Args:
            edge_type: Its target is of the node's type.
            node: The node walked from.
            limit: Only events with a smaller id.
            cut: Of the seed, for the window.
        """
        if edge_type in self.world.static:
            listed = list(enumerate(self.world.static[edge_type]))
            heavy_last = sorted(listed, key=lambda pair: (pair[1][2], pair[0]))
            return [Edge(place, e[0]) for place, e in heavy_last if e[1] == node]
        found = []
        for event in self.world.events:
            forward = edge_type == ("user", event.relation, "item")
            if not forward and edge_type != ("item", f"rev_{event.relation}", "user"):
                continue
            target, source = (event.item, event.user) if forward else (event.user, event.item)
            if target == node and event.id < limit and self.in_window(event, cut):
                found.append(Edge(event.position, source, event))
        return found

    def limit(self, edge: Edge, limit: int) -> int:
        """What is visible one hop on."""
        return edge.event.id if self.hop_time == "edge" and edge.event is not None else limit

    def tree(self, node_type: str, node: int, cut: int) -> Tree:
        """The neighbourhood that strategy ``last`` draws."""
        return self._grow(node_type, node, cut, cut, 0)

    def _grow(self, node_type: str, node: int, limit: int, cut: int, hop: int) -> Tree:
        children: list[Any] = []
        for edge_type, fan_out in self.fan_out.items():
            if edge_type[2] != node_type or hop == len(fan_out) or fan_out[hop] == 0:
                continue
            visible = self.edges(edge_type, node, limit, cut)
            for edge in visible if fan_out[hop] == -1 else visible[-fan_out[hop] :]:
                reached = self._grow(
                    edge_type[0], edge.source, self.limit(edge, limit), cut, hop + 1
                )
                children.append((edge_type, edge.position, reached))
        return node_type, node, tuple(sorted(children))

    def check_drawn(self, tree: Tree, cut: int, replace: bool) -> int:
        """Asserts that a tree could have been drawn by ``uniform``; returns how many edges."""
        return self._check(tree, cut, cut, 0, replace)

    def _check(self, tree: Tree, limit: int, cut: int, hop: int, replace: bool) -> int:
        node_type, node, children = tree
        count = len(children)
        by_type: dict[EdgeType, list[Any]] = {}
        for edge_type, position, reached in children:
            by_type.setdefault(edge_type, []).append((position, reached))
        for edge_type, fan_out in self.fan_out.items():
            drawn = by_type.pop(edge_type, [])
            if edge_type[2] != node_type or hop == len(fan_out) or fan_out[hop] == 0:
                assert not drawn
                continue
            visible = {e.position: e for e in self.edges(edge_type, node, limit, cut)}
            k = fan_out[hop]
            repeats = replace and k != -1
            wanted = len(visible) if k == -1 else k if repeats and visible else min(k, len(visible))
            assert len(drawn) == wanted
            assert repeats or len({position for position, _ in drawn}) == wanted
            for position, reached in drawn:
                assert position in visible
                edge = visible[position]
                assert reached[:2] == (edge_type[0], edge.source)
                count += self._check(reached, self.limit(edge, limit), cut, hop + 1, replace)
        assert not by_type
        return count


def trees_of(
    out: HeteroSamplerOutput, graph: TemporalRecGraph, roots: dict[str, list[int]]
) -> list[Tree]:
    """The trees of all seeds, users first, after a check of everything PyG relies on.

    Args:
        out: Of the sampler.
        graph: The whole graph.
        roots: The seeds of each type, which stand first.
    """
    node = {t: n.tolist() for t, n in out.node.items()}
    batch = {t: b.tolist() for t, b in out.batch.items()}
    children: dict[tuple[str, int], list[Any]] = {}
    reached, hop_of = Counter[tuple[str, int]](), {}
    for edge_type, position in out.edge.items():
        source, relation, target = edge_type
        reverse = relation.startswith("rev_") and edge_type not in graph.edge_types
        stored = (target, relation.removeprefix("rev_"), source) if reverse else edge_type
        ends = graph[stored].edge_index.flip(0) if reverse else graph[stored].edge_index
        row, col = out.row[edge_type].tolist(), out.col[edge_type].tolist()
        assert len(row) == len(col) == position.numel() == sum(out.num_sampled_edges[edge_type])
        for hop, count in enumerate(out.num_sampled_edges[edge_type]):
            first = sum(out.num_sampled_edges[edge_type][:hop])
            for place in range(first, first + count):
                r, c, e = row[place], col[place], int(position[place])
                assert (node[source][r], node[target][c]) == tuple(ends[:, e].tolist())
                assert batch[source][r] == batch[target][c]
                children.setdefault((target, c), []).append((edge_type, e, (source, r)))
                reached[source, r] += 1
                hop_of[source, r] = hop + 1
    for t, seeds in {"user": [], "item": [], **roots}.items():
        counts = out.num_sampled_nodes[t]
        assert node[t][: len(seeds)] == list(seeds)
        assert counts[0] == len(seeds)
        assert sum(counts) == len(node[t]) == len(batch[t])
        hops = [h for h, count in enumerate(counts) for _ in range(count)]
        for local, hop in enumerate(hops):  # one way to every node but the seeds, hop by hop
            assert reached[t, local] == (local >= len(seeds))
            assert hop_of.get((t, local), 0) == hop

    def grow(t: str, local: int) -> Tree:
        below = [(e, p, grow(*child)) for e, p, child in children.get((t, local), [])]
        return t, node[t][local], tuple(sorted(below))

    return [grow(t, k) for t in ("user", "item") for k in range(len(roots.get(t, [])))]


def random_world(rng: random.Random) -> World:
    """Few nodes and few seconds, so that pairs repeat and times tie; some nodes have no events."""
    users, items = rng.randint(1, 6), rng.randint(1, 5)
    relations = ("a", "b", "c")[: rng.choice([1, 1, 2, 3])]
    rows = [
        (rng.randrange(users), rng.randrange(items), rng.randrange(5), rng.choice(relations))
        for _ in range(rng.choice([0, 1, 5, 12, 25, 40]))
    ]
    gaps = [rng.choice([0, 0, 1, 4]) for _ in rows] if rng.random() < 0.4 else None
    static: dict[EdgeType, list[tuple[int, int, float]]] = {}
    if rng.random() < 0.4:
        static["item", "next", "item"] = [
            (rng.randrange(items), rng.randrange(items), float(rng.randrange(4)))
            for _ in range(rng.randrange(12))
        ]
    if rng.random() < 0.1:
        static["user", "knows", "user"] = [(rng.randrange(users), rng.randrange(users), 1.0)]
    return World.of(
        rows, gaps, static=static, num_users=users + 1, num_items=items + 1, relations=relations
    )


def random_fan_out(rng: random.Random, world: World) -> dict[EdgeType, list[int]]:
    """One to three hops over some of the edge types, none of the hops empty."""
    hops = rng.randint(1, 3)
    some = rng.sample(world.edge_types, rng.randint(1, len(world.edge_types)))
    sizes = {t: [rng.choice([0, 1, 2, 3, -1]) for _ in range(hops)] for t in some}
    for hop in range(hops):
        if not any(s[hop] for s in sizes.values()):
            sizes[some[0]][hop] = 2
    return sizes


def random_window(rng: random.Random) -> int | tuple[int, int] | None:
    if rng.random() < 0.4:
        return None
    start = rng.randint(-1, 5)
    return rng.randint(1, 5) if rng.random() < 0.5 else (start, start + rng.randint(1, 4))


def random_seeds(
    rng: random.Random, world: World, count: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Users and items at cuts from before the first event to beyond the last."""
    seeds = {}
    for t, size in (("user", world.num_users), ("item", world.num_items)):
        node = torch.tensor([rng.randrange(size) for _ in range(count)])
        cut = torch.tensor([rng.randint(-2, world.end + 3) for _ in range(count)])
        seeds[t] = (node, cut, torch.arange(count))
    return seeds


def trees(sampler: Any, graph: TemporalRecGraph, seeds: dict[str, Any]) -> list[Tree]:
    """What a sampler draws for seeds, as trees."""
    roots = {t: s[0].tolist() for t, s in seeds.items()}
    return trees_of(sampler.sample(seeds), graph, roots)


@pytest.fixture(scope="session")
def brute() -> SimpleNamespace:
    """All of the above, for the tests of this folder."""
    return SimpleNamespace(
        World=World,
        Oracle=Oracle,
        EventIndex=EventIndex,
        trees=trees,
        trees_of=trees_of,
        world=random_world,
        fan_out=random_fan_out,
        window=random_window,
        seeds=random_seeds,
    )
