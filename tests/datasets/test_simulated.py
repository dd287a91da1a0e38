"""Simulated MovieLens: same bytes every time, the promised structure, and an exact oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tgrec.data import Split, Targets, TemporalRecGraph, leave_one_out
from tgrec.datasets import SimulatedMovieLens, checksum, simulate_movielens
from tgrec.datasets import _generator as generator
from tgrec.datasets.simulated import Simulation

Small = tuple[TemporalRecGraph, Simulation, Split]


@pytest.fixture(scope="module")
def small() -> Small:
    graph, simulation = simulate_movielens(num_users=600, num_items=240, mean_events=40, seed=3)
    return graph, simulation, leave_one_out(graph)


def sequences(graph: TemporalRecGraph) -> list[list[int]]:
    """Every user's items in event order."""
    user, item = graph["user", "rates", "item"].edge_index
    out: list[list[int]] = [[] for _ in range(graph.num_users)]
    for u, i in zip(user.tolist(), item.tolist(), strict=True):
        out[u].append(i)
    return out


def ndcg(scores: Tensor, targets: Targets, history: list[list[int]]) -> float:
    """NDCG@10 over all unseen items, ties counted against the scores."""
    gains = []
    for row, seen in enumerate(history):
        own = scores[row].clone()
        own[seen] = -torch.inf
        target = int(targets.item[row])
        rank = int((own >= scores[row, target]).sum())
        gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
    return float(np.mean(gains))


# ---- what is generated ----------------------------------------------------------------------


def test_same_arguments_same_bytes_and_other_seed_other_data() -> None:
    one, two, other = (simulate_movielens(40, 200, 20, seed)[0] for seed in (0, 0, 1))
    assert checksum(one) == checksum(two)
    assert checksum(one) != checksum(other)
    for left, right in zip(one.stores, two.stores, strict=True):
        for key, value in left.items():
            assert not torch.is_tensor(value) or torch.equal(value, right[key])
    # The same on every machine: written out once.
    assert checksum(one).startswith("89da4930d8a53974")


def test_chunks_do_not_change_what_is_drawn() -> None:
    latents = generator.make_latents(30, 200, 5)
    counts = generator.make_counts(30, 20, 5)
    clock = generator.make_clock(30, int(counts.max()), 5)
    whole = generator.make_items(latents, clock, counts, 5)
    parts = generator.make_items(latents, clock, counts, 5, chunk=7)
    assert (whole == parts).all()


def test_schema_is_that_of_movielens(small: Small) -> None:
    graph, _, _ = small
    assert graph.validate()
    assert (graph.num_users, graph.num_items) == (600, 240)
    store = graph["user", "rates", "item"]
    assert set(store.rating.tolist()) == {1, 2, 3, 4, 5}
    assert graph["item"].genre.shape == (240, 18)
    assert set(graph["item"].genre.sum(dim=1).tolist()) <= {1, 2}
    assert graph["user"].gender.max() == 1
    assert graph["user"].age.max() == 6
    assert graph["user"].occupation.max() == 20
    titles = graph.strings("item", "title")
    assert len(set(titles)) == 240
    assert titles[0].startswith("Simulated Film 0001 (")
    assert titles[1].startswith("Simulated Film 0001 II (")
    assert [int(t[-5:-1]) for t in titles] == graph["item"].year.tolist()


def test_nobody_rates_a_film_twice_and_times_never_go_back(small: Small) -> None:
    graph, _, _ = small
    for items in sequences(graph):
        assert 5 <= len(items) == len(set(items)) <= 110
    events = graph.to_pandas()
    assert (events.groupby("user_id")["timestamp"].diff().dropna() >= 0).all()


def test_half_of_adjacent_pairs_tie_and_lengths_have_the_mean(small: Small) -> None:
    graph, _, _ = small
    gap = graph.to_pandas().groupby("user_id")["timestamp"].diff().dropna()
    assert (gap == 0).mean() == pytest.approx(140 / 256, abs=0.02)
    assert (gap >= generator.SESSION_GAP).mean() == pytest.approx(21 / 256, abs=0.01)
    assert gap[(gap > 0) & (gap < generator.SESSION_GAP)].max() <= 60
    assert graph.num_events / graph.num_users == pytest.approx(40, rel=0.1)


def test_sequels_follow_soon_after_their_predecessors(small: Small) -> None:
    graph, simulation, _ = small
    sequel = simulation.latents.sequel
    lags = []
    for items in sequences(graph):
        place = {item: k for k, item in enumerate(items)}
        lags += [
            place[sequel[i]] - k for i, k in place.items() if sequel[i] in place and sequel[i] >= 0
        ]
    assert len(lags) > 500
    soon = np.mean([1 <= lag <= 3 for lag in lags])
    assert soon > 0.4  # by chance it would be about 6 / 40
    assert np.mean([lag > 0 for lag in lags]) > 0.6


def test_tastes_drift(small: Small) -> None:
    _, simulation, _ = small
    users, zero = np.arange(600), np.zeros(600, dtype=np.int64)

    def closeness(day: int) -> float:
        now = generator.affinity(simulation.latents, users, zero + day)
        start = generator.affinity(simulation.latents, users, zero)
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(now, start, strict=True)]))

    days = [closeness(day) for day in (0, 8, 16, 32)]
    assert days == sorted(days, reverse=True)
    assert days[0] == pytest.approx(1.0)
    assert days[-1] < 0.6
    assert closeness(400) == days[-1]


def test_the_dataset_is_the_function() -> None:
    dataset = SimulatedMovieLens(num_users=40, num_items=200, mean_events=20, seed=1)
    graph, simulation = simulate_movielens(40, 200, 20, 1)
    assert len(dataset) == 1
    assert checksum(dataset[0]) == checksum(graph)
    user, cut = torch.arange(40), torch.full((40,), 300)
    assert torch.equal(dataset.simulation.scores(user, cut), simulation.scores(user, cut))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_users": 0}, "'num_users' needs to be an integer of at least 1 .got 0"),
        ({"mean_events": 4}, "'mean_events' needs to be an integer of at least 5"),
        ({"num_items": True}, "'num_items' needs to be an integer"),
        ({"seed": -1}, "'seed' needs to be an integer of at least 0"),
        ({"num_items": 339}, "'num_items' needs to be at least 340, twice the events"),
        ({"num_items": 20_000}, "'num_items' needs to be at most 10000"),
        ({"mean_events": 400, "num_items": 9000}, "at most 1000"),
    ],
)
def test_unusable_sizes_say_what_is_usable(sizes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_movielens(**sizes)


# ---- the oracle -----------------------------------------------------------------------------


def test_scores_are_probabilities_of_unseen_items(small: Small) -> None:
    graph, simulation, split = small
    history = sequences(graph)
    for time in (None, split.test.time):
        scores = simulation.scores(split.test.user, split.test.cut, time)
        assert scores.shape == (600, 240)
        assert scores.exp().sum(dim=1).allclose(torch.ones(600), atol=1e-4)
        assert not scores.isnan().any()
        for row in range(0, 600, 50):
            seen = (scores[row] == -torch.inf).nonzero().view(-1).tolist()
            assert seen == sorted(history[row][:-1])


def test_the_oracle_uses_the_distribution_that_was_drawn_from(small: Small) -> None:
    """At every event, of every kind, it rebuilds the generator's own weights from the log."""
    graph, simulation, _ = small
    events = graph.to_pandas()
    user = graph.index_of("user", events["user_id"].to_numpy())
    rows = torch.arange(0, graph.num_events, 37)
    cut, time = rows, torch.tensor(events["timestamp"].to_numpy())[rows]
    scores = simulation.scores(user[rows], cut, time)
    counts = generator.make_counts(600, 40, 3)
    clock = generator.make_clock(600, int(counts.max()), 3)
    history = sequences(graph)
    step = events.groupby("user_id").cumcount().to_numpy()[rows]
    for row in range(0, len(rows), 10):
        u, k = int(user[rows[row]]), int(step[row])
        past = history[u][:k]
        seen = np.zeros((1, 240), dtype=bool)
        seen[0, past] = True
        recent = np.array([([-1, -1, -1, *past][:-4:-1])])
        weights = generator.item_weights(
            simulation.latents,
            np.array([u]),
            clock.day[u, k : k + 1],
            clock.kind[u, k : k + 1],
            recent,
            seen,
        )
        expected = torch.from_numpy(weights[0] / weights.sum()).float()
        assert scores[row].exp().allclose(expected, atol=1e-6)


@pytest.mark.parametrize("with_time", [False, True])
def test_the_oracle_is_calibrated(small: Small, with_time: bool) -> None:
    """Of the items to which it gives p, a share p is chosen: tested over all events."""
    graph, simulation, _ = small
    store = graph["user", "rates", "item"]
    user, item = store.edge_index
    first = torch.zeros(graph.num_events, dtype=torch.bool)
    first[torch.tensor([int((user == u).nonzero()[0]) for u in range(graph.num_users)])] = True
    rows = (~first).nonzero().view(-1)[::2]  # the moment of a first event is not a draw
    time = store.time[rows] if with_time else None
    p = simulation.scores(user[rows], store.event_id[rows], time).exp().double()
    chosen = torch.zeros_like(p)
    chosen[torch.arange(rows.numel()), item[rows]] = 1
    for low, high in [(0.0, 0.002), (0.002, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 1.0)]:
        part = (p > low) & (p <= high)
        expected, variance = p[part].sum(), (p[part] * (1 - p[part])).sum()
        assert abs(chosen[part].sum() - expected) < 4 * variance.sqrt()


def test_the_past_alone_decides(small: Small) -> None:
    """Scores at a cut do not change when everything from the cut on does."""
    graph, simulation, split = small
    cut = int(graph.num_events * 0.6)
    user, cuts = torch.arange(600), torch.full((600,), cut)
    later = simulation.event_id >= cut
    changed = simulation.item.copy()
    changed[later] = (changed[later] + 1) % 240
    other = Simulation(**(vars(simulation) | {"item": changed}))
    assert torch.equal(other.scores(user, cuts), simulation.scores(user, cuts))


def test_a_time_before_the_last_event_and_wrong_shapes_are_refused(small: Small) -> None:
    _, simulation, split = small
    test = split.test
    with pytest.raises(ValueError, match="before the last event of that user"):
        simulation.scores(test.user, test.cut, test.time - 10**7)
    with pytest.raises(ValueError, match=r"one shape \[B\] \(got \[600\], \[599\], None\)"):
        simulation.scores(test.user, test.cut[1:])


def markov(train: list[list[int]], history: list[list[int]], lags: int, size: int) -> Tensor:
    """Counts of what followed within ``lags`` steps, read from the last ``lags`` items."""
    counts = np.zeros((size, size))
    popular = np.zeros(size)
    for items in train:
        np.add.at(popular, items, 1)
        for lag in range(1, lags + 1):
            np.add.at(counts, (items[:-lag], items[lag:]), 0.75 ** (lag - 1))
    counts /= popular[:, None] + 10
    scores = [
        sum(0.75**age * counts[i] for age, i in enumerate(h[::-1][:lags])) + 1e-9 * popular
        for h in history
    ]
    return torch.from_numpy(np.stack(scores))


def test_popularity_then_markov_then_skips_then_the_oracles(small: Small) -> None:
    graph, simulation, split = small
    test = split.test
    whole = sequences(graph)
    train, history = [s[:-2] for s in whole], [s[:-1] for s in whole]
    popular = torch.bincount(split.train["user", "rates", "item"].edge_index[1], minlength=240)
    found = {
        "popularity": ndcg(popular.float().expand(600, -1), test, history),
        "markov": ndcg(markov(train, history, 1, 240), test, history),
        "skips": ndcg(markov(train, history, 8, 240), test, history),
        "T1": ndcg(simulation.scores(test.user, test.cut), test, history),
        "T2": ndcg(simulation.scores(test.user, test.cut, test.time), test, history),
    }
    assert found["popularity"] * 2 < found["markov"]
    assert found["markov"] < found["skips"] < 0.8 * found["T1"]
    assert found["T1"] + 0.01 < found["T2"]


def test_the_oracle_of_the_board_is_what_its_card_says() -> None:
    graph, simulation = simulate_movielens()
    test = leave_one_out(graph).test
    history = [s[:-1] for s in sequences(graph)]
    scores = simulation.scores(test.user, test.cut)
    assert ndcg(scores, test, history) == pytest.approx(0.355, abs=0.001)
    scores = simulation.scores(test.user, test.cut, test.time)
    assert ndcg(scores, test, history) == pytest.approx(0.385, abs=0.001)
