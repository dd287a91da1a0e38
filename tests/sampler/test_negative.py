"""Negatives by brute force: they exist at the cut, are new to the user, and evenly drawn."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.sampler import NegativeSampling

from tgrec.data import TemporalRecGraph
from tgrec.sampler import EventIndex, NegativeSampler
from tgrec.testing import noise_graph, scramble_future, toy_graph

KINDS = ("uniform", "popularity")
ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 3), st.sampled_from("ab")),
    max_size=25,
)
SEEDS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-2, 30), st.integers(0, 6)), min_size=1, max_size=8
)


def allowed(
    world: Any, user: int, cut: int, item: int | None, history: bool = True
) -> Counter[int]:
    """Items that may be drawn -> their events before the cut."""
    past = [e for e in world.events if e.id < cut]
    met = {e.item for e in past if e.user == user} if history else set()
    return Counter(e.item for e in past if e.item not in met and e.item != item)


def only_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try is refused, so that all draws take the exact way."""

    def refuse(self: NegativeSampler, bits: Tensor, cut: Tensor) -> Tensor:
        return torch.full_like(bits + cut, -1)

    monkeypatch.setattr(NegativeSampler, "_propose", refuse)


def check_shares(drawn: Tensor, weight: dict[int, int]) -> None:
    """The items are drawn in proportion to their weights (99.9 % point of chi-square)."""
    count = torch.bincount(drawn.view(-1), minlength=max(weight) + 1).double()
    keys = torch.tensor(sorted(weight))
    assert int(count.sum()) == int(count[keys].sum())
    share = torch.tensor([weight[int(k)] for k in keys], dtype=torch.float64)
    expected = share / share.sum() * count.sum()
    free = len(keys) - 1
    if free == 0:
        return
    point = free * (1 - 2 / (9 * free) + 3.09 * (2 / (9 * free)) ** 0.5) ** 3
    assert float(((count[keys] - expected) ** 2 / expected).sum()) < point


@given(ROWS, SEEDS, st.sampled_from(KINDS), st.booleans(), st.booleans(), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_negatives_by_brute_force(
    brute: SimpleNamespace,
    rows: list[tuple[int, int, int, str]],
    seeds: list[tuple[int, int, int]],
    kind: str,
    history: bool,
    with_item: bool,
    num: int,
) -> None:
    world = brute.World.of(rows, num_users=6, num_items=7)
    user, cut, item = torch.tensor(seeds).unbind(1)
    sampler = NegativeSampler(EventIndex(world.graph()), kind, exclude_history=history)
    target = item if with_item else None
    drawn = sampler.sample(user, cut, num, target)
    left = sampler.available(user, cut, target)
    assert drawn.shape == (len(seeds), num)
    for row, (u, c, i) in enumerate(seeds):
        fine = allowed(world, u, c, i if with_item else None, history)
        assert int(left[row]) == len(fine)
        assert set(drawn[row].tolist()) <= (set(fine) or {-1})


def test_the_exact_way_by_brute_force(
    brute: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_exact(monkeypatch)
    for key in range(150):
        rng = random.Random(key)
        world = brute.world(rng)
        rows = [
            (rng.randrange(world.num_users), rng.randint(-2, world.end + 4), item)
            for item in range(world.num_items)
        ]
        user, cut, item = torch.tensor(rows).unbind(1)
        history = rng.random() < 0.5
        sampler = NegativeSampler(EventIndex(world.graph()), rng.choice(KINDS), history)
        drawn = sampler.sample(user, cut, 3, item)
        for row, (u, c, i) in enumerate(rows):
            assert set(drawn[row].tolist()) <= (set(allowed(world, u, c, i, history)) or {-1})


def test_a_cut_beyond_the_end_brings_no_new_items() -> None:
    # Items without a single event are in the catalogue, but never were there to be chosen.
    index = EventIndex(noise_graph(num_users=3, num_items=500, length=(3, 4)))
    user, cut = torch.zeros(1, dtype=torch.int64), torch.tensor([10**9])
    there = set(index.item.tolist())
    for kind in KINDS:
        sampler = NegativeSampler(index, kind)
        nobody = torch.tensor([next(i for i in range(500) if i not in there)])
        left = len(there) - len(set(index.item[index.user == 0].tolist()))
        assert int(sampler.available(user, cut)) == left
        assert int(sampler.available(user, cut, nobody)) == left
        assert set(sampler.sample(user, cut, 300).view(-1).tolist()) <= there


# ---- distributions ------------------------------------------------------------------------------

LOG = noise_graph(num_users=12, num_items=9, length=(2, 9), seed=3)
INDEX = EventIndex(LOG)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_items(
    monkeypatch: pytest.MonkeyPatch, kind: str, history: bool, exact: bool
) -> None:
    if exact:
        only_exact(monkeypatch)
    sampler = NegativeSampler(INDEX, kind, history)
    for user, cut, item in ((0, 60, 2), (3, 40, 5), (7, 25, 0), (11, 12, 8)):
        u, c, i = (torch.tensor([x]) for x in (user, cut, item))
        past = INDEX.event_id < cut
        met = set(INDEX.item[past & (INDEX.user == user)].tolist()) if history else set()
        weight = Counter(x for x in INDEX.item[past].tolist() if x not in met | {item})
        if kind == "uniform":
            weight = Counter(dict.fromkeys(weight, 1))
        assert len(weight) > 2
        drawn = torch.cat([sampler.sample(u, c, 500, i, epoch=e) for e in range(8)])
        check_shares(drawn, weight)


def test_hardly_anything_left_is_found_and_shared_evenly() -> None:
    """One user met all but two of 200 items: the tries fail and the exact way has to serve."""
    graph = TemporalRecGraph()
    graph["user"].num_nodes, graph["item"].num_nodes = 2, 200
    user = torch.tensor([0] * 198 + [1, 1, 1])
    store = graph["user", "r", "item"]
    store.edge_index = torch.stack([user, torch.tensor([*range(198), 198, 199, 199])])
    store.event_id = torch.arange(201)
    zero, cut = torch.tensor([0]), torch.tensor([201])
    for kind, weight in (("uniform", {198: 1, 199: 1}), ("popularity", {198: 1, 199: 2})):
        sampler = NegativeSampler(EventIndex(graph), kind)
        check_shares(sampler.sample(zero, cut, 3000), weight)
        assert set(sampler.sample(zero, cut, 50, torch.tensor([198])).view(-1).tolist()) == {199}


def test_draws_do_not_follow_each_other() -> None:
    """Pairs of slots, epochs and users are as even as single draws."""
    sampler = NegativeSampler(EventIndex(toy_graph()), exclude_history=False)
    user, cut = torch.zeros(1, dtype=torch.int64), torch.tensor([8])  # tea, ham, fig, rye
    order = torch.tensor([2, 1, -9, 3, 0])  # items fig ham jam rye tea as 0..3
    slots = order[sampler.sample(user, cut, 8000).view(-1)]
    check_shares(4 * slots[::2] + slots[1::2], dict.fromkeys(range(16), 1))
    one, two = (order[sampler.sample(user, cut, 4000, epoch=e).view(-1)] for e in (0, 1))
    check_shares(4 * one + two, dict.fromkeys(range(16), 1))
    other = order[sampler.sample(user + 1, cut, 4000).view(-1)]
    check_shares(4 * one + other, dict.fromkeys(range(16), 1))


def test_a_wrong_share_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    propose = NegativeSampler._propose
    monkeypatch.setattr(
        NegativeSampler,
        "_propose",
        lambda self, bits, cut: propose(self, bits & ~(1 << 60), cut),  # a bit that is always 0
    )
    with pytest.raises(AssertionError):
        test_shares_of_items(monkeypatch, "uniform", False, exact=False)


# ---- what a draw depends on ---------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_does_not_depend_on_its_batch(
    monkeypatch: pytest.MonkeyPatch, kind: str, exact: bool
) -> None:
    if exact:
        only_exact(monkeypatch)
        monkeypatch.setattr("tgrec.sampler.negative._BLOCK", 20)  # two rows at a time
    sampler = NegativeSampler(INDEX, kind)
    user = torch.arange(50) % 12
    cut, item = torch.arange(50) * 3 % (INDEX.end + 2), torch.arange(50) % 9
    whole = sampler.sample(user, cut, 4, item, seed=2, epoch=1)
    for size in (1, 7):
        parts = [
            sampler.sample(user[k : k + size], cut[k : k + size], 4, item[k : k + size], 2, 1)
            for k in range(0, 50, size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    again = sampler.sample(user[order], cut[order], 4, item[order], seed=2, epoch=1)
    assert torch.equal(again, whole[order])
    fewer = sampler.sample(user, cut, 2, item, seed=2, epoch=1)
    assert torch.equal(fewer, whole[:, :2])  # slot by slot
    for seed, epoch in ((2, 2), (3, 1)):
        assert not torch.equal(sampler.sample(user, cut, 4, item, seed, epoch), whole)


@given(st.integers(0, 90), st.integers(0, 9), st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_later_events_change_nothing(cut: int, seed: int, kind: str) -> None:
    user = torch.arange(12)
    cuts, item = torch.full_like(user, cut), torch.arange(12) % 9
    one, two = (
        NegativeSampler(EventIndex(g), kind).sample(user, cuts, 5, item)
        for g in (LOG, scramble_future(LOG, cut, seed))
    )
    assert torch.equal(one, two)


def test_nothing_to_draw_from() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    sampler = NegativeSampler(INDEX)
    assert sampler.sample(none, none, 3).shape == (0, 3)
    assert sampler.available(none, none).shape == (0,)
    empty = NegativeSampler(EventIndex(toy_graph().before(0)))
    user, cut = torch.tensor([0, 3]), torch.tensor([0, 99])
    assert empty.sample(user, cut, 2).tolist() == [[-1, -1]] * 2
    assert empty.available(user, cut).tolist() == [0, 0]
    bare = toy_graph().before(0)
    bare["item"].num_nodes = 0
    assert NegativeSampler(EventIndex(bare)).sample(user, cut, 1).tolist() == [[-1], [-1]]


# ---- as PyG asks for them -----------------------------------------------------------------------


def test_amounts_of_pyg() -> None:
    sampler = NegativeSampler(INDEX)
    user, cut, item = torch.tensor([0, 1]), torch.tensor([60, 50]), torch.tensor([1, 2])
    for mode in ("binary", "triplet"):
        drawn = sampler.draw_for(NegativeSampling(mode, 3), user, cut, item, 5, 7)
        assert torch.equal(drawn, sampler.sample(user, cut, 3, item, 5, 7))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (NegativeSampling("binary", 1.5), "'neg_sampling' needs a whole number.*got 1.5"),
        (NegativeSampling("binary", 0.5), "'neg_sampling' needs a whole number.*got 0.5"),
        (
            NegativeSampling("binary", 1, dst_weight=torch.ones(9)),
            r"'neg_sampling' has weights; use NegativeSampler\(index, kind='popularity'\)",
        ),
        (NegativeSampling("triplet", 1, src_weight=torch.ones(9)), "'neg_sampling' has weights"),
    ],
)
def test_what_pyg_may_not_ask_for(asked: NegativeSampling, message: str) -> None:
    seeds = torch.tensor([0]), torch.tensor([60]), torch.tensor([1])
    with pytest.raises(ValueError, match=message):
        NegativeSampler(INDEX).draw_for(asked, *seeds, 0, 0)


def test_triplets_need_a_negative() -> None:
    sampler = NegativeSampler(EventIndex(toy_graph()))
    # Before cut 1 only tea was there, and ann (0) had met it.
    seeds = torch.tensor([1, 0]), torch.tensor([7, 1]), torch.tensor([3, 1])
    assert sampler.draw_for(NegativeSampling("binary", 2), *seeds, 0, 0)[1].tolist() == [-1, -1]
    with pytest.raises(
        ValueError, match=r"'neg_sampling': no item is left .* for user 0 at cut 1; .*available"
    ):
        sampler.draw_for(NegativeSampling("triplet", 2), *seeds, 0, 0)


def test_bad_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match="'kind' needs to be 'uniform' or 'popularity'.*'zipf'"):
        NegativeSampler(INDEX, "zipf")  # type: ignore[arg-type]
    sampler = NegativeSampler(INDEX)
    one = torch.tensor([1])
    for num in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="'num' needs to be a positive integer"):
            sampler.sample(one, one, num)  # type: ignore[arg-type]
    for call in (lambda *a: sampler.sample(a[0], a[1], 1, a[2]), sampler.available):
        with pytest.raises(ValueError, match=r"'user' needs to be in 0..11 \(got 12..12\)"):
            call(one + 11, one, one)
        with pytest.raises(ValueError, match=r"'item' needs to be in 0..8 \(got 9..9\)"):
            call(one, one, one + 8)
        with pytest.raises(ValueError, match="'item' needs to be int64"):
            call(one, one, one.float())
        with pytest.raises(ValueError, match="'cut' needs to be int64"):
            call(one, one.double(), one)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_on_a_gpu(monkeypatch: pytest.MonkeyPatch, kind: str, exact: bool) -> None:
    if exact:
        only_exact(monkeypatch)
    user = torch.arange(500) % 12
    cut, item = torch.arange(500) % (INDEX.end + 2), torch.arange(500) % 9
    here = NegativeSampler(INDEX, kind).sample(user, cut, 3, item)
    index = EventIndex(LOG, "cuda")
    there = NegativeSampler(index, kind).sample(user.cuda(), cut.cuda(), 3, item.cuda())
    assert torch.equal(here, there.cpu())
