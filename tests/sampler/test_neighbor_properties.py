"""What a sample depends on, and what it does not: later events, batch mates, threads, epochs."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph, reverse_type
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.testing import noise_graph, scramble_future

STRATEGIES = [("last", False), ("uniform", False), ("uniform", True)]
GRAPH = noise_graph(num_users=40, num_items=9, length=(1, 30), seed=5)
(KIND,) = GRAPH.interaction_types
REV = reverse_type(KIND)


def seeds_of(pairs: list[tuple[int, int]]) -> dict[str, tuple[torch.Tensor, ...]]:
    node, cut = torch.tensor(pairs).view(-1, 2).unbind(1)
    return {"user": (node, cut, torch.arange(len(pairs)))}


def chi_square(count: torch.Tensor) -> tuple[float, float]:
    """Pearson's statistic of equally likely cells, and its 99.9 % point (Wilson and Hilferty)."""
    expected = count.sum() / count.numel()
    free = count.numel() - 1
    point = free * (1 - 2 / (9 * free) + 3.09 * (2 / (9 * free)) ** 0.5) ** 3
    return float(((count - expected) ** 2 / expected).sum()), point


def check_even(cells: torch.Tensor, size: int) -> None:
    """All ``size`` cells are equally likely."""
    count = torch.bincount(cells, minlength=size).double()
    assert count.numel() == size
    found, point = chi_square(count)
    assert found < point


# ---- what must not matter -----------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, 240, 80))
def test_later_events_change_nothing(brute: SimpleNamespace, start: int) -> None:
    for key in range(start, start + 80):
        rng = random.Random(key)
        world = brute.world(rng)
        fan_out, window = brute.fan_out(rng, world), brute.window(rng)
        cut = rng.randint(0, world.end + 6)
        other = world.changed_from(cut, rng)
        strategy, again = rng.choice(STRATEGIES)
        hop_time = rng.choice(["seed", "edge"])
        seeds = brute.seeds(rng, world, 4)
        seeds = {t: (n, c.clamp(max=cut), b) for t, (n, c, b) in seeds.items()}
        found = []
        for graph in (world.graph(), other.graph()):
            sampler = TemporalNeighborSampler(
                EventIndex(graph), fan_out, strategy, again, hop_time, window, graph, seed=key
            )
            found.append(brute.trees(sampler, graph, seeds))
        assert found[0] == found[1]


@given(st.integers(0, 600), st.integers(0, 9), st.sampled_from(STRATEGIES))
@settings(max_examples=40, deadline=None)
def test_another_future_changes_not_a_bit(cut: int, seed: int, how: tuple[str, bool]) -> None:
    node = torch.arange(40)
    seeds = {"user": (node, torch.full_like(node, cut), node)}
    outs = [
        TemporalNeighborSampler(EventIndex(g), [3, 2], *how, hop_time="edge").sample(seeds)
        for g in (GRAPH, scramble_future(GRAPH, cut, seed))
    ]
    for name in ("node", "row", "col", "edge", "batch"):
        one, two = (getattr(out, name) for out in outs)
        assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("hop_time", ["seed", "edge"])
@pytest.mark.parametrize(("strategy", "again"), STRATEGIES)
def test_a_tree_does_not_depend_on_its_batch(
    brute: SimpleNamespace, strategy: str, again: bool, hop_time: str
) -> None:
    rng = random.Random(1)
    pairs = [(rng.randrange(40), rng.randrange(GRAPH.num_events + 2)) for _ in range(60)]
    pairs += pairs[:5]  # the same seed twice in one batch
    sampler = TemporalNeighborSampler(
        EventIndex(GRAPH), [3, 2, 2], strategy, again, hop_time, seed=4
    )
    whole = brute.trees(sampler, GRAPH, seeds_of(pairs))
    assert whole[:5] == whole[-5:]
    for size in (1, 7):
        parts = [pairs[k : k + size] for k in range(0, len(pairs), size)]
        assert [t for p in parts for t in brute.trees(sampler, GRAPH, seeds_of(p))] == whole
    order = rng.sample(range(len(pairs)), len(pairs))
    shuffled = brute.trees(sampler, GRAPH, seeds_of([pairs[k] for k in order]))
    assert shuffled == [whole[k] for k in order]
    # Items in the same batch are other trees, and do not disturb those of the users.
    both = seeds_of(pairs) | {"item": (torch.arange(9), torch.full((9,), 300), torch.arange(9))}
    assert brute.trees(sampler, GRAPH, both)[: len(pairs)] == whole


@pytest.mark.parametrize(("strategy", "again"), STRATEGIES)
def test_threads_do_not_matter(strategy: str, again: bool) -> None:
    graph = noise_graph(num_users=900, num_items=60, length=(5, 60), seed=2)
    index, before = EventIndex(graph), torch.get_num_threads()
    user = torch.arange(6000) % 900
    cut = torch.arange(6000) * 7919 % graph.num_events
    outs = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sampler = TemporalNeighborSampler(index, [5, 5], strategy, again)
            outs.append(sampler.sample({"user": (user, cut, torch.arange(6000))}))
    finally:
        torch.set_num_threads(before)
    assert outs[0].num_sampled_nodes["user"][2] > 50_000  # enough for torch to share the work
    for name in ("node", "row", "col", "edge", "batch"):
        one, two = (getattr(out, name) for out in outs)
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_draws_on_a_type_do_not_depend_on_the_others(brute: SimpleNamespace) -> None:
    kind = ("item", "next", "item")
    graph = GRAPH.clone()
    graph[kind].edge_index = torch.stack([torch.arange(81) // 9, torch.arange(81) % 9])
    both = [{kind: [2], KIND: [3]}, {KIND: [3], kind: [2]}]
    item = torch.arange(9)
    seeds = {"item": (item, torch.full_like(item, 300), item)}
    index = EventIndex(graph)
    alone, one, two = (
        TemporalNeighborSampler(index, f, "uniform", static=graph).sample(seeds)
        for f in ({kind: [2]}, *both)
    )
    for t in (kind, KIND):
        assert torch.equal(one.edge[t], two.edge[t])
    assert torch.equal(alone.edge[kind], one.edge[kind])


@pytest.mark.parametrize("strategy", ["last", "uniform"])
def test_shared_last_nodes_change_no_edge(brute: SimpleNamespace, strategy: str) -> None:
    for key in range(60):
        rng = random.Random(key)
        world = brute.world(rng)
        graph, fan_out = world.graph(), brute.fan_out(rng, world)
        index, seeds = EventIndex(graph), brute.seeds(rng, world, rng.choice([1, 6]))
        trees, merged = (
            TemporalNeighborSampler(
                index, fan_out, strategy, static=graph, disjoint=disjoint
            ).sample(seeds)
            for disjoint in (True, False)
        )
        assert merged.batch is None
        assert merged.num_sampled_edges == trees.num_sampled_edges
        for t in fan_out:
            assert torch.equal(merged.edge[t], trees.edge[t])
            assert torch.equal(merged.col[t], trees.col[t])
            ends = [out.node[t[0]][out.row[t]] for out in (merged, trees)]
            assert torch.equal(*ends)
            first = sum(trees.num_sampled_edges[t][:-1])
            assert torch.equal(merged.row[t][:first], trees.row[t][:first])
        for t in ("user", "item"):
            first = sum(trees.num_sampled_nodes[t][:-1])
            assert torch.equal(merged.node[t][:first], trees.node[t][:first])
            assert merged.num_sampled_nodes[t][:-1] == trees.num_sampled_nodes[t][:-1]
            last = merged.node[t][first:]
            assert merged.num_sampled_nodes[t][-1] == last.numel()
            assert torch.equal(last, trees.node[t][first:].unique())


# ---- what must matter ---------------------------------------------------------------------------


def test_epochs_and_seeds_draw_anew_and_can_be_drawn_again(brute: SimpleNamespace) -> None:
    seeds = seeds_of([(u, 500) for u in range(40)])

    def drawn(seed: int, epoch: int, strategy: str = "uniform") -> Any:
        sampler = TemporalNeighborSampler(EventIndex(GRAPH), [3, 2], strategy, seed=seed)
        sampler.set_epoch(epoch)
        return brute.trees(sampler, GRAPH, seeds)

    assert drawn(0, 0) == drawn(0, 0)
    for other in (drawn(0, 1), drawn(1, 0)):
        assert sum(a != b for a, b in zip(drawn(0, 0), other, strict=True)) > 25
    assert drawn(0, 1) != drawn(1, 0)
    assert drawn(0, 0, "last") == drawn(7, 3, "last")


def star(degree: int, copies: int) -> TemporalRecGraph:
    """``copies`` users who have met the same ``degree`` items, each item before the last user."""
    user = torch.arange(copies).repeat_interleave(degree)
    graph = TemporalRecGraph()
    graph["user"].num_nodes, graph["item"].num_nodes = copies, degree
    store = graph[KIND]
    store.edge_index = torch.stack([user, torch.arange(degree).repeat(copies)])
    store.event_id = torch.arange(user.numel())
    return graph


COPIES = 4000


def picks(degree: int, sizes: list[int], again: bool, epoch: int = 0) -> Any:
    sampler = TemporalNeighborSampler(EventIndex(star(degree, COPIES)), sizes, "uniform", again)
    sampler.set_epoch(epoch)
    user = torch.arange(COPIES)
    return sampler.sample({"user": (user, torch.full_like(user, COPIES * degree), user)})


@pytest.mark.parametrize(("degree", "k"), [(2, 1), (5, 1), (5, 2), (5, 4), (6, 3), (7, 2)])
def test_every_set_is_equally_likely(degree: int, k: int) -> None:
    # A set as a number in binary; there are C(degree, k) of them.
    drawn = picks(degree, [k], again=False).node["item"].view(COPIES, -1)
    assert drawn.size(1) == k
    _, cell = (1 << drawn).sum(1).unique(return_inverse=True)
    sets = torch.combinations(torch.arange(degree), k).size(0)
    assert int(cell.max()) + 1 == sets
    check_even(cell, sets)


@pytest.mark.parametrize(("degree", "k"), [(1, 2), (3, 2), (4, 3), (7, 2)])
def test_every_list_is_equally_likely_with_replacement(degree: int, k: int) -> None:
    drawn = picks(degree, [k], again=True).node["item"].view(COPIES, k)
    cell = (drawn * degree ** torch.arange(k)).sum(1)
    if degree == 1:
        assert not cell.any()
    else:
        check_even(cell, degree**k)


def test_draws_do_not_follow_each_other() -> None:
    """Over hops, epochs and neighbours in the batch, pairs of draws are even as well."""
    one, two = (picks(4, [1], again=False, epoch=e).node["item"] for e in (0, 1))
    check_even(4 * one + two, 16)
    check_even(4 * one[::2] + one[1::2], 16)
    out = picks(4, [1, 1], again=False)
    user = out.node["user"][COPIES:]  # of all users, by the second hop
    check_even(4 * out.node["item"] + user * 4 // COPIES, 16)
    # Two edge types of one node are drawn from on their own, events or not.
    graph, kind = star(4, COPIES), ("item", "likes", "user")
    graph[kind].edge_index = graph[KIND].edge_index.flip(0)
    sampler = TemporalNeighborSampler(
        EventIndex(graph), {REV: [1], kind: [1]}, "uniform", static=graph
    )
    user = torch.arange(COPIES)
    out = sampler.sample({"user": (user, torch.full_like(user, 4 * COPIES), user)})
    one, two = (out.node["item"][out.row[t]] for t in (REV, kind))
    check_even(4 * one + two, 16)
    # Two ways to the same node are two nodes, which draw on their own.
    out = picks(2, [2, 1], again=False)
    first, second = out.node["user"][COPIES:].view(COPIES, 2).unbind(1)
    check_even(4 * (first * 4 // COPIES) + second * 4 // COPIES, 16)


def test_a_biased_draw_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tgrec.sampler import walk

    below = walk.below
    monkeypatch.setattr(walk, "below", lambda bits, bound: below(bits, bound) * (bits & 15 != 0))
    with pytest.raises(AssertionError):
        check_even(picks(5, [1], again=True).node["item"], 5)
