"""Leak probes P1-P8 and P14 on sampled neighbourhoods: each passes, and catches its planted bug.

What the probes mean stands in test_leak_probes.py. A probe looks at the set of events that the
neighbourhood of each link holds, forward and reverse edges alike.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph, reverse_type
from tgrec.loader import link_neighbor_loader
from tgrec.sampler import EventIndex, NegativeSampler, TemporalNeighborSampler
from tgrec.testing import noise_graph, scramble_future, toy_graph

# Of a graph, the users, items and cuts of links: the events in the neighbourhood of each link.
Seen = Callable[[TemporalRecGraph, Tensor, Tensor, Tensor], list[set[int]]]
GRAPH = noise_graph(num_users=20, num_items=10, length=(4, 12), spread=12)
(KIND,) = GRAPH.interaction_types


def events_by_seed(graph: TemporalRecGraph, sampler: TemporalNeighborSampler, seeds: Tensor,
                   user: Tensor, item: Tensor, cut: Tensor) -> list[set[int]]:  # fmt: skip
    out = sampler.sample({"user": (user, cut, seeds), "item": (item, cut, seeds)})
    found: list[set[int]] = [set() for _ in range(user.numel())]
    for kind in graph.interaction_types:
        for t in (kind, reverse_type(kind)):
            owner = out.batch[t[0]][out.row[t]].tolist()
            for seed, event in zip(owner, graph[kind].event_id[out.edge[t]].tolist(), strict=True):
                found[seed].add(event)
    return found


def real(graph: TemporalRecGraph, user: Tensor, item: Tensor, cut: Tensor) -> list[set[int]]:
    """All that three hops can see, through every option that moves a limit."""
    found: list[set[int]] = [set() for _ in range(user.numel())]
    for hop_time in ("seed", "edge"):
        for window in (None, 10**9):
            sampler = TemporalNeighborSampler(
                EventIndex(graph), [-1, 3, 3], hop_time=hop_time, window=window
            )
            parts = events_by_seed(graph, sampler, torch.arange(len(user)), user, item, cut)
            found = [a | b for a, b in zip(found, parts, strict=True)]
    return found


# ---- planted bugs -------------------------------------------------------------------------------


def not_strict(graph: TemporalRecGraph, user: Tensor, item: Tensor, cut: Tensor) -> list[set[int]]:
    """Events at the cut are visible, as with ``time <= seed time``."""
    return real(graph, user, item, cut + 1)


def by_the_second(
    graph: TemporalRecGraph, user: Tensor, item: Tensor, cut: Tensor
) -> list[set[int]]:
    """All events of the second of the link but itself."""
    time = graph[KIND].time
    late = torch.searchsorted(time, time[cut.clamp(max=time.numel() - 1)], right=True)
    found = real(graph, user, item, graph[KIND].event_id[late - 1] + 1)
    return [f - {int(c)} for f, c in zip(found, cut, strict=True)]


def second_hop_without_limit(
    graph: TemporalRecGraph, user: Tensor, item: Tensor, cut: Tensor
) -> list[set[int]]:
    """The items of a user are found before the cut, and their users at any time."""
    index = EventIndex(graph)
    hop = TemporalNeighborSampler(index, [-1])
    seeds = torch.arange(user.numel())
    out = hop.sample({"user": (user, cut, seeds)})
    end = torch.full_like(out.node["item"], index.end)
    found = events_by_seed(graph, hop, seeds, user, item, cut)
    more = hop.sample({"item": (out.node["item"], end, out.batch["item"])})
    for seed, event in zip(more.batch["user"].tolist(), more.edge[KIND].tolist(), strict=True):
        if event != int(cut[seed]):
            found[seed].add(event)
    return found


# ---- detectors ----------------------------------------------------------------------------------


def links(graph: TemporalRecGraph) -> tuple[Tensor, Tensor, Tensor]:
    user, item = graph[KIND].edge_index
    return user, item, graph[KIND].event_id


def label_edge(seen: Seen) -> None:
    """P1, P2: the link itself, or its reverse, is in its own neighbourhood."""
    user, item, cut = links(GRAPH)
    for event, found in zip(cut.tolist(), seen(GRAPH, user, item, cut), strict=True):
        assert event not in found


def same_second(seen: Seen) -> None:
    """P3, P7: a later event of the same second; half of the events share theirs."""
    user, item, cut = links(GRAPH)
    for event, found in zip(cut.tolist(), seen(GRAPH, user, item, cut), strict=True):
        assert max(found, default=-1) < event


def duplicate(seen: Seen) -> None:
    """P4: the same pair again. What came before the link is its past, what comes later is not."""
    graph = toy_graph()
    store = graph["user", "rates", "item"]
    store.edge_index[:, [0, 4, 9]] = torch.tensor([[2], [3]])  # cat meets rye three times
    (found,) = seen(graph, torch.tensor([2]), torch.tensor([3]), torch.tensor([4]))
    assert 0 in found
    assert not found & {4, 9}


def later_edges_of_others(seen: Seen) -> None:
    """P8: over two hops, what others do after the cut."""
    user, item, _ = links(GRAPH)
    for event in (30, 80, 120):
        cut = torch.full_like(user, event)
        one, two = (seen(g, user, item, cut) for g in (GRAPH, scramble_future(GRAPH, event, 1)))
        # Seed by seed: pytest writes a full diff of what differs where CI is set, and one of all
        # the seeds is beyond difflib's recursion.
        for found, expected in zip(one, two, strict=True):
            assert found == expected


@pytest.mark.parametrize("detector", [label_edge, same_second, duplicate, later_edges_of_others])
def test_neighbourhoods_hold_nothing_of_the_future(detector: Callable[[Seen], None]) -> None:
    detector(real)


@pytest.mark.parametrize(
    ("detector", "planted"),
    [
        (label_edge, not_strict),
        (same_second, not_strict),
        (duplicate, not_strict),
        (later_edges_of_others, not_strict),
        (same_second, by_the_second),
        (same_second, second_hop_without_limit),
        (later_edges_of_others, second_hop_without_limit),
    ],
)
def test_a_planted_leak_is_caught(detector: Callable[[Seen], None], planted: Seen) -> None:
    with pytest.raises(AssertionError):
        detector(planted)


# ---- P5, P6, P14 --------------------------------------------------------------------------------


def test_edges_without_a_clock_are_walked_only_by_name() -> None:
    """P5: a derived type may count the future; nothing draws from it unless it is named."""
    graph = GRAPH.clone()
    future = ("item", "often_with", "item")
    graph[future].edge_index = torch.stack([torch.arange(10), torch.arange(10).flip(0)])
    for batch in link_neighbor_loader(graph, num_neighbors=[5, 5]):
        assert batch[future].edge_index.numel() == 0
    # A type with a clock that the index does not have would be drawn without a limit.
    for clock in ("time", "event_id"):
        graph["user", "likes", "item"].edge_index = torch.tensor([[0], [0]])
        graph["user", "likes", "item"][clock] = torch.tensor([10**6])
        with pytest.raises(ValueError, match="'static'.*carries a clock but is not in the index"):
            TemporalNeighborSampler(
                EventIndex(GRAPH), {KIND: [2], ("user", "likes", "item"): [2]}, static=graph
            )
        del graph["user", "likes", "item"]


def test_clocks_on_nodes_move_nothing() -> None:
    """P6: PyG would sample by them."""
    user, item, cut = links(GRAPH)
    timed = GRAPH.clone()
    timed["user"].time, timed["item"].time = torch.zeros(20).long(), torch.zeros(10).long()
    assert real(timed, user, item, cut) == real(GRAPH, user, item, cut)
    with pytest.raises(ValueError, match="clocks stand on edges only"):
        timed.validate()


def test_no_negative_from_the_future() -> None:
    """P13, P14: a negative that did not exist yet, or that the user had met, or the target."""

    def check(drawn: Tensor) -> None:
        user, item, cut = links(GRAPH)
        for u, i, c, row in zip(*(x.tolist() for x in (user, item, cut, drawn)), strict=True):
            there = set(GRAPH[KIND].edge_index[1, :c].tolist())
            met = set(item[:c][user[:c] == u].tolist())
            assert set(row) <= ((there - met - {i}) or {-1})

    user, item, cut = links(GRAPH)
    sampler = NegativeSampler(EventIndex(GRAPH))
    check(sampler.sample(user, cut, 5, item))
    planted = {
        "any item": torch.randint(10, (len(user), 5), generator=torch.Generator().manual_seed(0)),
        "the whole catalogue": sampler.sample(user, torch.full_like(cut, 10**6), 5, item),
        "the history": NegativeSampler(EventIndex(GRAPH), "uniform", False).sample(user, cut, 5),
    }
    for drawn in planted.values():
        with pytest.raises(AssertionError):
            check(drawn)
