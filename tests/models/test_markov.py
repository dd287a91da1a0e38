"""The counting models against naive Python on small random graphs."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from tgrec.data import History, RecBatch, Sampling, Split, Targets, leave_one_out
from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import GapMarkov, Popularity, RecModel, SkipMarkov, TGTBERT4Rec
from tgrec.models.markov import GAPS, gap_classes
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, toy_graph

ITEMS = 6
Walk = list[tuple[int, int, int]]  # (item, time, event id)
Counts = dict[tuple[int, int, int], float]  # (class, source, target) -> weight


def walks_of(split: Split) -> dict[int, Walk]:
    index = EventIndex(split.train)
    out: dict[int, Walk] = defaultdict(list)
    columns = (index.user, index.item, index.time, index.event_id)
    for user, item, time, event in zip(*(c.tolist() for c in columns), strict=True):
        out[user].append((item, time, event))
    return out


def gap_class(seconds: int) -> int:
    return sum(1 for bound in GAPS if seconds >= bound) - 1


def count(walks: dict[int, Walk], lag: int, decay: float, typed: bool, without: int = -1) -> Counts:
    """All transitions but those into the event ``without``."""
    out: Counts = defaultdict(float)
    for walk in walks.values():
        for q, (i, t, _) in enumerate(walk):
            for r in range(q + 1, min(len(walk), q + lag + 1)):
                j, s, event = walk[r]
                if event != without:
                    out[gap_class(s - t) if typed else 0, i, j] += decay ** (r - q - 1)
    return out


def naive(
    counts: Counts,
    met: list[int],
    past: Walk,
    now: int,
    last: int,
    age: float,
    typed: bool,
    sums: bool,
) -> list[float]:
    """The sum over the latest events of age^k T[class, item, :]."""
    scores = [0.0] * ITEMS
    for back, (i, t, _) in enumerate(reversed(past[-last:])):
        c = gap_class(max(now - t, 0)) if typed else 0
        mass = sum(w for (k, s, _), w in counts.items() if (k, s) == (c, i)) if sums else met[i]
        for j in range(ITEMS):
            weight = counts.get((c, i, j), 0.0)
            scores[j] += age**back * weight / (mass + 10) / (met[j] + 10) ** 0.15
    return scores


def setup(seed: int) -> tuple[Split, dict[int, Walk], list[int]]:
    split = leave_one_out(noise_graph(num_users=10, num_items=ITEMS, length=(3, 14), seed=seed))
    walks = walks_of(split)
    met = [sum(i == j for walk in walks.values() for j, _, _ in walk) for i in range(ITEMS)]
    return split, walks, met


def mixed(
    walks: dict[int, Walk], met: list[int], past: Walk, now: int, weight: float, without: int = -1
) -> list[float]:
    """GapMarkov with its defaults: lags to 20, decays 0.85, last 30."""
    parts = [
        naive(count(walks, 20, 0.85, typed, without), met, past, now, 30, 0.85, typed, sums=True)
        for typed in (True, False)
    ]
    return [weight * a + (1 - weight) * b for a, b in zip(*parts, strict=True)]


def batch_of(
    split: Split, seeds: Targets, model: RecModel, track: Track, key: int | None = None
) -> RecBatch:
    graph = split.train if key is not None else split.graph
    return SeedLoader(EventIndex(graph), model.sampling, track).batch(seeds, key=key)


def past_of(split: Split, user: int, cut: int) -> Walk:
    index = EventIndex(split.graph)
    rows = ((index.user == user) & (index.event_id < cut)).nonzero().view(-1)
    return [(int(index.item[r]), int(index.time[r]), int(index.event_id[r])) for r in rows]


@pytest.mark.parametrize("seed", range(4))
def test_skip_markov_by_hand(seed: int) -> None:
    split, walks, met = setup(seed)
    model = SkipMarkov.from_graph(split.train)
    scores = model.score(batch_of(split, split.test, model, "T1"))
    counts = count(walks, 8, 0.75, typed=False)
    for row, (user, cut) in enumerate(
        zip(split.test.user.tolist(), split.test.cut.tolist(), strict=True)
    ):
        past = past_of(split, user, cut)
        wanted = naive(counts, met, past, 0, 15, 0.75, typed=False, sums=False)
        assert scores[row].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("track", "weight"), [("T1", 0.3), ("T2", 0.7)])
def test_gap_markov_by_hand(seed: int, track: Track, weight: float) -> None:
    split, walks, met = setup(seed)
    model = GapMarkov.from_graph(split.train)
    scores = model.score(batch_of(split, split.test, model, track))
    assert split.test.time is not None
    rows = zip(
        split.test.user.tolist(), split.test.cut.tolist(), split.test.time.tolist(), strict=True
    )
    for row, (user, cut, time) in enumerate(rows):
        past = past_of(split, user, cut)
        now = time if track == "T2" else past[-1][1]  # on T1 the last event is all that is known
        wanted = mixed(walks, met, past, now, weight)
        assert scores[row].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("windows", ["last", "all"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("track", "weight"), [("T1", 0.3), ("T2", 0.7)])
def test_left_out_scores_are_a_recount_without_the_target(
    seed: int, track: Track, weight: float, windows: str
) -> None:
    split, walks, met = setup(seed)
    model = GapMarkov.from_graph(split.train)
    seeds = training_seeds(EventIndex(split.train), 4, windows)
    scores = model.score_left_out(batch_of(split, seeds, model, track, key=0))
    assert seeds.time is not None
    rows = zip(seeds.user.tolist(), seeds.cut.tolist(), seeds.time.tolist(), strict=True)
    for row, (user, cut, time) in enumerate(rows):
        past = [e for e in walks[user] if e[2] < cut]
        now = time if track == "T2" else past[-1][1]
        wanted = mixed(walks, met, past, now, weight, without=cut)
        assert scores[row].tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_left_out_counts_of_skip_markov_too(seed: int) -> None:
    split, walks, met = setup(seed)
    model = SkipMarkov.from_graph(split.train)
    seeds = training_seeds(EventIndex(split.train), None)
    scores = model.score_left_out(batch_of(split, seeds, model, "T1", key=0))
    for row, (user, cut) in enumerate(zip(seeds.user.tolist(), seeds.cut.tolist(), strict=True)):
        past = [e for e in walks[user] if e[2] < cut]
        counts = count(walks, 8, 0.75, typed=False, without=cut)
        wanted = naive(counts, met, past, 0, 15, 0.75, typed=False, sums=False)
        assert scores[row].tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_a_transition_seen_once_is_gone_when_it_is_left_out() -> None:
    split = leave_one_out(toy_graph())
    model = SkipMarkov.from_graph(split.train)
    seeds = training_seeds(EventIndex(split.train), None)
    batch = batch_of(split, seeds, model, "T1", key=0)
    here = (seeds.user == 0) & (seeds.item == 0)  # ann's fig, which nobody else met after ham
    assert model.score(batch)[here, 0] > 0
    assert model.score_left_out(batch)[here, 0] == 0


def test_mixture_weight_can_be_given() -> None:
    split, walks, met = setup(0)
    model = GapMarkov.from_graph(split.train, typed_weight=1.0)
    past = past_of(split, int(split.test.user[0]), int(split.test.cut[0]))
    scores = model.score(batch_of(split, split.test, model, "T1"))
    assert scores[0].tolist() == pytest.approx(mixed(walks, met, past, past[-1][1], 1.0), rel=1e-4)


def test_popularity_counts_training_events() -> None:
    split, _, met = setup(1)
    model = Popularity.from_graph(split.train)
    scores = model.score(RecBatch(torch.tensor([0, 5])))
    assert scores.tolist() == [met, met]
    assert sum(met) == split.train.num_events
    assert model.sampling == Sampling()


def test_scores_of_an_empty_past_are_zero() -> None:
    split, _, _ = setup(0)
    for cls in (SkipMarkov, GapMarkov):
        model = cls.from_graph(split.train)
        seeds = Targets(split.test.user, split.test.cut * 0, split.test.item, split.test.time)
        assert model.score(batch_of(split, seeds, model, "T2")).abs().sum() == 0


@pytest.mark.parametrize("num_items", [0, -3, True])
def test_bad_catalogue_is_explained(num_items: int) -> None:
    with pytest.raises(ValueError, match=r"'num_items' needs to be a positive integer \(got"):
        Popularity(num_items)


@pytest.mark.parametrize(
    "model",
    [SkipMarkov(ITEMS, (7,)), GapMarkov(ITEMS, (7, 9)), TGTBERT4Rec(ITEMS, num_edges=(7, 9))],
    ids=lambda model: type(model).__name__,
)
def test_a_model_whose_counts_never_came_says_so(model: RecModel) -> None:
    split = leave_one_out(noise_graph(num_items=ITEMS))
    batch = SeedLoader(EventIndex(split.graph), model.sampling).batch(split.test)
    with pytest.raises(
        RuntimeError, match="'num_edges' announced . counts, .* holds 0: .*from_graph"
    ):
        model.score(batch)


def test_gaps_are_classed_by_their_bounds() -> None:
    gap = torch.cat([torch.tensor(GAPS) + d for d in (-1, 0, 1)] + [torch.tensor([10**8])])
    time = torch.full((1, gap.numel()), 10**9) - gap
    zero = torch.zeros_like(time)
    got = gap_classes(History(zero, time, zero, zero, zero == 0), torch.tensor([[10**9]]))
    wanted = [max(n for n, bound in enumerate(GAPS) if bound <= max(0, g)) for g in gap.tolist()]
    assert got.tolist() == [wanted]
    assert set(wanted) == set(range(len(GAPS)))
