"""The neighbour sampler against brute force over thousands of random graphs, and by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgrec.data import reverse_type, with_reverse
from tgrec.sampler import EventIndex, HistorySampler, TemporalNeighborSampler, event_index
from tgrec.sampler import neighbor as neighbor_module
from tgrec.sampler import window as window_module
from tgrec.sampler.event_index import EventList
from tgrec.sampler.walk import Walk
from tgrec.testing import noise_graph, toy_graph

RATES, REV = ("user", "rates", "item"), ("item", "rev_rates", "user")
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.sampled_from("ab")),
    max_size=25,
)


def compare(brute: SimpleNamespace, key: int) -> int:
    """One random graph: ``last`` equals, ``uniform`` could have been; returns edges looked at."""
    rng = random.Random(key)
    world = brute.world(rng)
    graph, fan_out = world.graph(), brute.fan_out(rng, world)
    hop_time, window = rng.choice(["seed", "edge"]), brute.window(rng)
    seeds = brute.seeds(rng, world, rng.choice([1, 3, 8]))
    oracle = brute.Oracle(world, fan_out, hop_time, window)
    index, options = EventIndex(graph), {"hop_time": hop_time, "window": window, "static": graph}
    last = TemporalNeighborSampler(index, fan_out, **options)
    asked = [
        (t, int(n), int(c))
        for t, (nodes, cuts, _) in seeds.items()
        for n, c in zip(nodes, cuts, strict=True)
    ]
    assert brute.trees(last, graph, seeds) == [oracle.tree(*a) for a in asked]
    again = rng.random() < 0.5
    uniform = TemporalNeighborSampler(index, fan_out, "uniform", again, seed=key, **options)
    drawn = brute.trees(uniform, graph, seeds)
    assert [t[:2] for t in drawn] == [a[:2] for a in asked]
    return sum(oracle.check_drawn(t, a[2], again) for t, a in zip(drawn, asked, strict=True))


@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_random_graphs_by_brute_force(
    brute: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    if start % 500:  # few seeds are searched for as many are
        monkeypatch.setattr(event_index, "_FEW", 0)
    assert sum(compare(brute, key) for key in range(start, start + 250)) > 2500


@given(
    ROWS,
    st.lists(st.sampled_from([1, 2, 3, -1]), min_size=8, max_size=8),
    st.sampled_from(["seed", "edge"]),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 27)), min_size=1, max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_last_by_brute_force(
    brute: SimpleNamespace,
    rows: list[tuple[int, int, int, str]],
    sizes: list[int],
    hop_time: str,
    asked: list[tuple[int, int]],
) -> None:
    world = brute.World.of(rows, num_users=5, num_items=5)
    fan_out = {t: [a, b] for t, a, b in zip(world.edge_types, sizes[::2], sizes[1::2], strict=True)}
    graph, oracle = world.graph(), brute.Oracle(world, fan_out, hop_time)
    sampler = TemporalNeighborSampler(EventIndex(graph), fan_out, hop_time=hop_time)
    node, cut = torch.tensor(asked).unbind(1)
    seeds = {t: (node, cut, torch.arange(len(asked))) for t in ("user", "item")}
    wanted = [oracle.tree(t, n, c) for t in seeds for n, c in asked]
    assert brute.trees(sampler, graph, seeds) == wanted


# ---- bugs planted on purpose: would the comparison see them? ------------------------------------


def cut_is_visible(patch: pytest.MonkeyPatch) -> None:
    """Event ids up to the cut, and not only below it."""
    past = EventList.past
    patch.setattr(EventList, "past", lambda self, node, cut: past(self, node, cut + 1))


def edge_sees_itself(patch: pytest.MonkeyPatch) -> None:
    """The event that led to a node is among the events of the node."""
    chosen_walks = neighbor_module.chosen_walks

    def one_on(*args: Any) -> list[Walk]:
        walks = chosen_walks(*args)
        return [w if w.twin is None else replace(w, twin=w.twin + 1) for w in walks]

    patch.setattr(neighbor_module, "chosen_walks", one_on)


def first_instead_of_last(patch: pytest.MonkeyPatch) -> None:
    """The oldest events of a node."""
    draw = neighbor_module.draw_last
    patch.setattr(
        neighbor_module,
        "draw_last",
        lambda start, stop, k: draw(start, stop if k < 0 else torch.minimum(stop, start + k), k),
    )


def relations_mixed(patch: pytest.MonkeyPatch) -> None:
    """Entries of one relation counted among those of all."""

    def bounds(self: Walk, node: Tensor, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        if self.ptr is not None:
            return self.ptr[node], self.ptr[node + 1]
        size = self.entry.numel()
        return start.clamp(max=size), stop.clamp(max=size)

    patch.setattr(Walk, "bounds", bounds)


def window_too_long(patch: pytest.MonkeyPatch) -> None:
    """One second more than asked for."""
    visible = window_module.visible
    patch.setattr(
        neighbor_module,
        "visible",
        lambda index, cut, w: visible(index, cut, w + 1 if isinstance(w, int) else w),
    )


@pytest.mark.parametrize(
    "plant",
    [
        cut_is_visible,
        edge_sees_itself,
        first_instead_of_last,
        relations_mixed,
        window_too_long,
    ],
)
def test_a_planted_bug_is_caught(
    brute: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, plant: Any
) -> None:
    plant(monkeypatch)
    for key in range(60):
        try:
            compare(brute, key)
        except AssertionError:
            return
    pytest.fail("the comparison does not see the planted bug")


# ---- by hand ------------------------------------------------------------------------------------


def test_the_toy_graph_by_hand() -> None:
    # bob (1) before rye (cut 7): ham (event 4) was the last, tea (event 1) before that.
    sampler = TemporalNeighborSampler(EventIndex(toy_graph()), [1, 2])
    out = sampler.sample({"user": (torch.tensor([1]), torch.tensor([7]), torch.tensor([0]))})
    assert out.node["user"].tolist() == [1, 0, 1]  # bob, and whoever met ham: ann (2), bob (4)
    assert out.node["item"].tolist() == [1]
    assert out.edge[REV].tolist() == [4]
    assert out.edge[RATES].tolist() == [2, 4]
    assert (out.row[REV].tolist(), out.col[REV].tolist()) == ([0], [0])
    assert (out.row[RATES].tolist(), out.col[RATES].tolist()) == ([1, 2], [0, 0])
    assert out.num_sampled_nodes == {"user": [1, 0, 2], "item": [0, 1, 0]}
    assert out.num_sampled_edges == {RATES: [0, 2], REV: [1, 0]}
    # Seen from bob's own ham, ham has ann before it and not bob himself.
    sampler = TemporalNeighborSampler(EventIndex(toy_graph()), [1, 2], hop_time="edge")
    out = sampler.sample({"user": (torch.tensor([1]), torch.tensor([7]), torch.tensor([0]))})
    assert out.edge[RATES].tolist() == [2]
    # With the time of the seed, cat's ham (event 11) hides behind a cut of 11 and not of 12.
    sampler = TemporalNeighborSampler(EventIndex(toy_graph()), [-1])
    item, cut = torch.tensor([1, 1]), torch.tensor([11, 12])
    out = sampler.sample({"item": (item, cut, torch.arange(2))})
    assert out.edge[RATES].tolist() == [2, 4, 2, 4, 11]
    assert out.batch["user"].tolist() == [0, 0, 1, 1, 1]


def test_a_pair_that_meets_twice_has_two_edges(brute: SimpleNamespace) -> None:
    world = brute.World.of([(0, 0, 0, "a"), (0, 0, 0, "a"), (0, 0, 5, "b")], num_users=1)
    graph = world.graph()
    sampler = TemporalNeighborSampler(EventIndex(graph), [-1])
    seed = (torch.tensor([0]), torch.tensor([3]), torch.tensor([0]))
    (tree,) = brute.trees(sampler, graph, {"user": seed})
    a, b = ("item", "rev_a", "user"), ("item", "rev_b", "user")
    leaf = ("item", 0, ())
    assert tree == ("user", 0, ((a, 0, leaf), (a, 1, leaf), (b, 0, leaf)))


def test_heavy_static_edges_come_first(brute: SimpleNamespace) -> None:
    kind = ("item", "next", "item")
    edges = [(0, 3, 1.0), (1, 3, 5.0), (2, 3, 3.0), (3, 2, 9.0), (4, 3, 3.0)]
    graph = brute.World.of([(0, 3, 0, "a")], static={kind: edges}).graph()
    for k, wanted in ((1, [1]), (2, [1, 4]), (3, [1, 2, 4]), (-1, [0, 1, 2, 4])):
        sampler = TemporalNeighborSampler(EventIndex(graph), {kind: [k]}, static=graph)
        out = sampler.sample({"item": (torch.tensor([3]), torch.tensor([0]), torch.tensor([0]))})
        assert sorted(out.edge[kind].tolist()) == wanted
    del graph[kind].edge_weight  # without weights the last positions count
    sampler = TemporalNeighborSampler(EventIndex(graph), {kind: [2]}, static=graph)
    out = sampler.sample({"item": (torch.tensor([3]), torch.tensor([0]), torch.tensor([0]))})
    assert sorted(out.edge[kind].tolist()) == [2, 4]


@pytest.mark.parametrize("max_len", [1, 4, 50])
def test_a_history_is_one_hop_of_the_last(max_len: int) -> None:
    graph = noise_graph(num_users=40, num_items=9, length=(1, 30), seed=5)
    index = EventIndex(graph)
    user, cut = torch.arange(700) % 40, torch.arange(700) * 7 % (graph.num_events + 5)
    history = HistorySampler(index, max_len).sample(user, cut)
    rev = reverse_type(graph.interaction_types[0])
    sampler = TemporalNeighborSampler(index, {rev: [max_len]})
    out = sampler.sample({"user": (user, cut, torch.arange(700))})
    found: list[list[int]] = [[] for _ in range(700)]
    for row, edge in zip(out.batch["item"].tolist(), out.edge[rev].tolist(), strict=True):
        found[row].append(edge)  # positions are event ids here
    wanted = [e[m].tolist() for e, m in zip(history.event_id, history.mask, strict=True)]
    assert [sorted(f) for f in found] == wanted


def test_the_supervision_edge_is_never_among_the_messages() -> None:
    graph = noise_graph(num_users=20, num_items=6, length=(3, 12), spread=5)
    (kind,) = graph.interaction_types
    (user, item), cut = graph[kind].edge_index, graph[kind].event_id
    seeds = {"user": (user, cut, cut), "item": (item, cut, cut)}
    for hop_time in ("seed", "edge"):
        for strategy in ("last", "uniform"):
            sampler = TemporalNeighborSampler(
                EventIndex(graph), [-1, 4], strategy=strategy, hop_time=hop_time
            )
            out = sampler.sample(seeds)
            for edge_type in (kind, reverse_type(kind)):
                # The position of an event is its id here, and so is the number of its seed.
                owner = out.batch[edge_type[0]][out.row[edge_type]]
                assert owner.numel() > 1000
                assert (out.edge[edge_type] < owner).all()


def test_no_seeds_and_no_events(brute: SimpleNamespace) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for graph in (toy_graph(), toy_graph().before(0)):
        for strategy in ("last", "uniform"):
            sampler = TemporalNeighborSampler(EventIndex(graph), [2, 2], strategy=strategy)
            out = sampler.sample({"user": (none, none, none)})
            assert all(n.numel() == 0 for n in (*out.node.values(), *out.edge.values()))
    out = sampler.sample({"user": (torch.tensor([3]), torch.tensor([99]), torch.tensor([0]))})
    assert out.num_sampled_nodes == {"user": [1, 0, 0], "item": [0, 0, 0]}


def test_the_graph_is_not_changed_by_its_reverse_edges() -> None:
    graph = toy_graph()
    both = with_reverse(graph)
    assert graph.edge_types == [RATES]
    assert both[REV].event_id is graph[RATES].event_id
    assert torch.equal(both[REV].edge_index, graph[RATES].edge_index.flip(0))
    assert both.interaction_types == [RATES]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
@pytest.mark.parametrize("hop_time", ["seed", "edge"])
@pytest.mark.parametrize(
    ("strategy", "again"), [("last", False), ("uniform", False), ("uniform", True)]
)
def test_the_same_on_a_gpu(
    brute: SimpleNamespace, strategy: str, again: bool, hop_time: str
) -> None:
    for key in range(40):
        rng = random.Random(key)
        world = brute.world(rng)
        graph, fan_out, window = world.graph(), brute.fan_out(rng, world), brute.window(rng)
        seeds = brute.seeds(rng, world, 9)
        outs = []
        for device in ("cpu", "cuda"):
            sampler = TemporalNeighborSampler(
                EventIndex(graph, device), fan_out, strategy, again, hop_time, window, graph
            )
            outs.append(
                sampler.sample({t: tuple(x.to(device) for x in s) for t, s in seeds.items()})
            )
        here, there = outs
        for name in ("node", "row", "col", "edge", "batch"):
            for kind, value in getattr(here, name).items():
                assert torch.equal(value, getattr(there, name)[kind].cpu())
        assert here.num_sampled_nodes == there.num_sampled_nodes
        assert here.num_sampled_edges == there.num_sampled_edges
