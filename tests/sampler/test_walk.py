"""Which entries of a list are drawn, one draw at a time; and what may be walked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph
from tgrec.data.random import hash_keys
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.sampler.walk import Draw, draw_last, draw_uniform
from tgrec.testing import toy_graph

RATES, REV = ("user", "rates", "item"), ("item", "rev_rates", "user")
NEXT = ("item", "next", "item")
# Parts of a list one behind the other, some of them empty, with entries that belong to nobody.
PARTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=12)


def bounds(parts: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor, int]:
    place, start, stop = 0, [], []
    for skipped, size in parts:
        start.append(place + skipped)
        stop.append(place + skipped + size)
        place = stop[-1]
    return torch.tensor(start).long(), torch.tensor(stop).long(), place


def entries(draw: Draw, size: int, num_parts: int) -> list[list[int]]:
    """The entries drawn of each part, read in both of the ways that the sampler reads them."""
    entry = draw.take(torch.arange(size)).tolist()
    part = draw.spread(torch.arange(num_parts)).tolist()
    assert len(entry) == len(part) == draw.numel()
    taken = draw.take(torch.arange(size) * 7)
    assert taken.tolist() == [7 * e for e in entry]
    out: list[list[int]] = [[] for _ in range(num_parts)]
    for p, e in zip(part, entry, strict=True):
        out[p].append(e)
    return out


@given(PARTS, st.integers(-1, 8).filter(bool))
@settings(max_examples=100, deadline=None)
def test_the_last_entries_of_every_part(parts: list[tuple[int, int]], k: int) -> None:
    start, stop, size = bounds(parts)
    drawn = entries(draw_last(start, stop, k), size, len(parts))
    for part, a, b in zip(drawn, start.tolist(), stop.tolist(), strict=True):
        wanted = list(range(a, b))
        assert part == (wanted if k == -1 else wanted[-k:])  # in ascending order


@given(PARTS, st.integers(1, 8), st.booleans(), st.integers(0, 2**62))
@settings(max_examples=100, deadline=None)
def test_entries_at_random(parts: list[tuple[int, int]], k: int, again: bool, seed: int) -> None:
    start, stop, size = bounds(parts)
    key = hash_keys(seed, torch.arange(len(parts)))
    draw, keys = draw_uniform(start, stop, k, again, key)
    assert keys.numel() == draw.numel()
    assert keys.unique().numel() == keys.numel()  # every entry draws on its own from here
    drawn = entries(draw, size, len(parts))
    for p, (part, a, b) in enumerate(zip(drawn, start.tolist(), stop.tolist(), strict=True)):
        assert all(a <= e < b for e in part)
        assert len(part) == (k if again and b > a else min(k, b - a))
        assert again or len(set(part)) == len(part)
        alone, _ = draw_uniform(start[p : p + 1], stop[p : p + 1], k, again, key[p : p + 1])
        assert entries(alone, size, 1) == [part]  # whoever the others are


def test_long_parts_are_drawn_from_all_over() -> None:
    size = 1_000_003
    start, stop = torch.zeros(2000, dtype=torch.int64), torch.full((2000,), size)
    draw, _ = draw_uniform(start, stop, 4, False, hash_keys(1, torch.arange(2000)))
    entry = draw.take(torch.arange(size))
    assert entry.numel() == 8000
    count = torch.bincount(entry * 10 // size, minlength=10)
    assert (count > 700).all()
    assert (count < 900).all()


# ---- what may be walked -------------------------------------------------------------------------


def with_types() -> TemporalRecGraph:
    """The toy graph with derived edges, edges to a third type, and events of another kind."""
    graph = toy_graph()
    graph[NEXT].edge_index = torch.tensor([[0, 1], [1, 2]])
    graph["genre"].num_nodes = 2
    graph["genre", "of", "item"].edge_index = torch.tensor([[0, 1], [1, 2]])
    graph["user", "sees", "item"].edge_index = torch.tensor([[0, 1], [1, 2]])
    graph["user", "sees", "item"].time = torch.tensor([5, 6])
    graph["item", "rev_buys", "user"].edge_index = torch.tensor([[0, 1], [1, 2]])
    graph["item", "rev_buys", "user"].event_id = torch.tensor([50, 60])
    return graph


@pytest.mark.parametrize(
    ("num_neighbors", "message"),
    [
        ([], "'num_neighbors' needs one number per hop"),
        ({}, "'num_neighbors' needs one number per hop"),
        ({RATES: []}, "'num_neighbors' needs one number per hop"),
        ({RATES: [2], REV: [2, 2]}, "'num_neighbors' needs one number per hop, as many for every"),
        ([0], "'num_neighbors' draws nothing in hop 1"),
        ([0, 0], "'num_neighbors' draws nothing in hop 1"),
        ({RATES: [2, 0], REV: [0, 0]}, "'num_neighbors' draws nothing in hop 2"),
        ([-2], r"'num_neighbors' needs integers of at least 0, or -1 .*got -2 for"),
        ([True], "'num_neighbors' needs integers of at least 0.*got True"),
        ([1.5], "'num_neighbors' needs integers of at least 0.*got 1.5"),
        (["3"], "'num_neighbors' needs integers of at least 0.*got '3'"),
        ("33", "'num_neighbors' needs a list with one number per hop"),
        (10, r"'num_neighbors' needs a list with one number per hop \(got 10"),
        ({RATES: 10}, r"'num_neighbors' needs a list with one number per hop \(got 10"),
        ({("user", "buys", "item"): [2]}, "'num_neighbors' names the unknown edge type"),
        ({"rates": [2]}, "'num_neighbors' names the unknown edge type rates"),
        ({("genre", "of", "item"): [2]}, "'num_neighbors' names .*only edges between 'user' and"),
        ({("user", "sees", "item"): [2]}, "'static'.*carries a clock but is not in the index"),
        ({("item", "rev_buys", "user"): [2]}, "'static'.*carries a clock but is not in the index"),
    ],
)
def test_bad_fan_outs_are_explained(num_neighbors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemporalNeighborSampler(EventIndex(toy_graph()), num_neighbors, static=with_types())


def test_derived_types_need_their_graph() -> None:
    with pytest.raises(ValueError, match=r"unknown edge type .*derived types need 'static'"):
        TemporalNeighborSampler(EventIndex(toy_graph()), {NEXT: [2]})
    other = with_types()
    other["item"].num_nodes = 99
    with pytest.raises(ValueError, match="'static' has 99 items, the index 5"):
        TemporalNeighborSampler(EventIndex(toy_graph()), {NEXT: [2]}, static=other)
    # Types of the graph that are not named are not walked, whatever they are.
    sampler = TemporalNeighborSampler(EventIndex(toy_graph()), [2], static=with_types())
    assert [w.edge_type for w in sampler.walks] == [RATES, REV]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "first"}, r"'strategy' needs to be one of \['last', 'uniform'\].*'first'"),
        ({"hop_time": "node"}, r"'hop_time' needs to be one of \['seed', 'edge'\].*'node'"),
        ({"replace": True}, "'replace' needs strategy 'uniform'"),
    ],
)
def test_bad_options_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemporalNeighborSampler(EventIndex(toy_graph()), [2], **arguments)


def test_bad_seeds_are_explained() -> None:
    sampler = TemporalNeighborSampler(EventIndex(toy_graph()), [2])
    one = torch.tensor([1])
    with pytest.raises(ValueError, match=r"'seeds' needs to be of types 'user' and 'item' \(got"):
        sampler.sample({"genre": (one, one, one)})
    with pytest.raises(ValueError, match=r"'item' needs to be in 0..4 \(got 5..5\)"):
        sampler.sample({"item": (one + 4, one, one)})
    with pytest.raises(ValueError, match=r"'cut' needs to be int64 of shape \[1\] .*float32"):
        sampler.sample({"user": (one, one.float(), one)})
