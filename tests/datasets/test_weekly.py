"""The simulated weekly table: what it holds, an oracle that nothing beats, and learnable data."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tgrec.datasets import (
    WeeklyOracle,
    generate_dataset,
    load_interactions_from_csv,
    simulate_weekly,
    weekly_graph,
)
from tgrec.datasets import _weekly_generator as generator
from tgrec.metrics import precision_recall_at_k, top_k

FOLDER = Path(__file__).parents[2] / "datasets" / "weekly"
Small = tuple[pd.DataFrame, WeeklyOracle]


@pytest.fixture(scope="module")
def small() -> Small:
    return simulate_weekly(
        80, 40, 9, seed=2, num_communities=5, mean_interactions=6.0, repeat_share=0.4
    )


@pytest.fixture(scope="module")
def default() -> Small:
    return simulate_weekly()


def digest(table: pd.DataFrame) -> str:
    return hashlib.sha256(table.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


# ---- what is generated ----------------------------------------------------------------------


def test_same_arguments_same_table_and_other_seed_other_table() -> None:
    one, two, other = (digest(simulate_weekly(30, 40, 4, seed)[0]) for seed in (0, 0, 1))
    assert one == two
    assert one != other
    assert one.startswith("ffbca5babe5aa1d9")  # the same on every machine: written out once


def test_the_table_has_the_columns_and_about_the_number_of_interactions(default: Small) -> None:
    table, oracle = default
    assert list(table) == ["ip_address", "pixel_event_id", "n_interactions", "week_number"]
    assert table.dtypes.iloc[1:].tolist() == [np.dtype("int64")] * 3
    assert isinstance(table["ip_address"].iloc[0], str)
    assert set(table["week_number"]) == set(range(1, 10))
    assert table["n_interactions"].min() == 1
    assert not table.duplicated(["ip_address", "pixel_event_id", "week_number"]).any()
    assert 95_000 <= table["n_interactions"].sum() <= 105_000
    assert table["ip_address"].nunique() == len(set(oracle.users)) == 1000
    assert set(table["pixel_event_id"]) <= set(oracle.events) == set(range(1, 501))
    by_row = (oracle.week, oracle.user, oracle.event)
    assert (np.lexsort(by_row[::-1]) == np.arange(len(table))).all()


def test_popularity_and_activity_are_skewed(default: Small) -> None:
    table, _ = default
    for column, least in (("pixel_event_id", 0.3), ("ip_address", 0.2)):
        totals = table.groupby(column)["n_interactions"].sum().sort_values(ascending=False)
        share = totals.iloc[: len(totals) // 10].sum() / totals.sum()
        assert share > least  # of a tenth of them; 0.1 were all alike


def test_draws_are_poisson_by_inversion() -> None:
    rate = np.array([[0.0, 0.01, 0.5, 1.0, 4.0, 60.0]] * 3000)
    counts = generator.draw_counts(rate, week=3, seed=1)
    error = np.sqrt(rate[0] / 3000) + 1e-12
    assert (np.abs(counts.mean(axis=0) - rate[0]) < 5 * error).all()
    assert counts[:, 4].var() == pytest.approx(4.0, rel=0.15)
    uniform = generator.uniform64(
        1, generator._COUNT, 3, torch.arange(3000).view(-1, 1), torch.arange(6)
    )
    for row, column in itertools.product(range(40), range(6)):
        below, count = math.exp(-rate[0, column]), 0
        term = below
        while float(uniform[row, column]) > below:
            count += 1
            term *= rate[0, column] / count
            below += term
        assert counts[row, column] == count


def test_each_ingredient_does_what_it_says() -> None:
    make: dict[str, Any] = {"num_users": 150, "num_events": 300, "num_communities": 6, "seed": 4}
    _, flat = simulate_weekly(**make, season_strength=0.0)
    assert (generator.season(flat.latents, 3) == 1.0).all()
    _, swing = simulate_weekly(**make, season_strength=0.9)
    factors = np.stack([generator.season(swing.latents, week) for week in range(1, 9)])
    assert factors.max() > 1.8
    assert factors.min() < 0.2
    np.testing.assert_allclose(factors[:4], factors[4:], atol=1e-12)  # a period of four weeks
    # Users move: from the first community to the second, and never all at once.
    tastes = np.stack([generator.taste(swing.latents, week) for week in range(1, 10)])
    np.testing.assert_allclose(tastes.sum(axis=2), 1.0, atol=1e-12)
    step = np.abs(np.diff(tastes, axis=0)).sum(axis=2)
    assert step.max() <= 2 / generator.MOVE_WEEKS + 1e-12
    assert (step.sum(axis=0) > 0.5).mean() > 0.3
    # Interests come again, the more so the larger their share.
    again = []
    for share in (0.0, 0.5):
        table, _ = simulate_weekly(**make, repeat_share=share)
        pair = table["ip_address"] + "/" + table["pixel_event_id"].astype(str)
        last = set(pair[table["week_number"] == 8])
        again.append(pair[table["week_number"] == 9].isin(last).mean())
    assert again[1] > again[0] + 0.1


# ---- the oracle -----------------------------------------------------------------------------


def test_the_score_is_the_formula_written_out() -> None:
    table, oracle = simulate_weekly(4, 6, 5, seed=7, num_communities=3, mean_interactions=3.0)
    true = oracle.latents
    for week in (1, 3, 6):
        score = oracle.score(week)
        for user, name in enumerate(oracle.users):
            moved = min(max((week - true.begin[user]) / 6, 0.0), 1.0)
            own = table[(table["ip_address"] == name) & (table["week_number"] < week)]
            trace = [
                sum(
                    0.7 ** (week - row.week_number) * row.n_interactions
                    for row in own.itertuples()
                    if row.pixel_event_id == event
                )
                for event in oracle.events
            ]
            weight = []
            for event in range(6):
                taste = [0.1 / 3] * 3
                taste[true.home[user]] += 0.9 * (1 - moved)
                taste[true.destination[user]] += 0.9 * moved
                interest = sum(taste[c] * true.profile[c, event] for c in range(3))
                season = 1 + 0.8 * math.cos(math.pi / 2 * (week - true.phase[event]))
                repeat = 0.25 if sum(trace) else 0.0
                old = trace[event] / sum(trace) if sum(trace) else 0.0
                weight.append(season * ((1 - repeat) * interest + repeat * old))
            expected = [true.activity[user] * w / sum(weight) for w in weight]
            np.testing.assert_allclose(score[user].numpy(), expected, rtol=1e-5)


def test_the_score_sees_earlier_weeks_only(small: Small) -> None:
    _, oracle = small
    late = dataclasses.replace(oracle, count=np.where(oracle.week >= 6, 50, oracle.count))
    assert torch.equal(late.score(6), oracle.score(6))
    assert not torch.equal(late.score(7), oracle.score(7))
    early = dataclasses.replace(oracle, count=np.where(oracle.week == 5, 50, oracle.count))
    assert not torch.equal(early.score(6), oracle.score(6))


def redraw(oracle: WeeklyOracle, week: int, draws: int) -> Tensor:
    """The counts of a week, drawn anew given the weeks before, ``[draws, U, N]``."""
    trace = np.zeros((len(oracle.users), len(oracle.events)))
    for past in range(1, week):
        count = np.zeros_like(trace)
        rows = oracle.week == past
        count[oracle.user[rows], oracle.event[rows]] = oracle.count[rows]
        trace = generator.remember(trace, count)
    rate = generator.rates(oracle.latents, trace, week)
    return torch.from_numpy(
        np.stack([generator.draw_counts(rate, week, seed=1000 + s) for s in range(draws)])
    )


def test_the_week_itself_is_one_of_these_redraws(small: Small) -> None:
    table, oracle = small
    counts = np.zeros((80, 40), dtype=np.int64)
    rows = oracle.week == 9
    counts[oracle.user[rows], oracle.event[rows]] = oracle.count[rows]
    trace = np.zeros(counts.shape)
    for week in range(1, 9):
        past = np.zeros(counts.shape)
        own = oracle.week == week
        past[oracle.user[own], oracle.event[own]] = oracle.count[own]
        trace = generator.remember(trace, past)
    again = generator.draw_counts(generator.rates(oracle.latents, trace, 9), 9, seed=2)
    assert (again == counts).all()
    assert counts.sum() == table.loc[table["week_number"] == 9, "n_interactions"].sum()


def test_mean_counts_of_many_redraws_agree_with_the_score(small: Small) -> None:
    draws = 300
    counts, score = redraw(small[1], 9, draws).double(), small[1].score(9).double()
    error = (counts.mean(dim=0) - score) / (score / draws).sqrt()
    assert float(error.abs().max()) < 6.0
    # The squared errors of 3200 independent cells, each with mean 1.
    assert float(error.square().mean()) == pytest.approx(1.0, abs=0.15)
    totals = counts.sum(dim=2).mean(dim=0)
    np.testing.assert_allclose(totals, small[1].latents.activity, rtol=0.15)


def expected_recall(score: Tensor, order: Tensor) -> Tensor:
    """What listing each event adds to the expected recall of one user, exactly, ``[N]``.

    ``p_e * E[1 / (1 + M)]`` with M the number of other events met: a sum of independent events.
    """
    met = 1.0 - torch.exp(-score.double())
    out = torch.zeros(order.numel(), dtype=torch.float64)
    for place, event in enumerate(order.tolist()):
        chance = torch.ones(1, dtype=torch.float64)
        for other in range(score.numel()):
            if other != event:
                grown = torch.zeros(chance.numel() + 1, dtype=torch.float64)
                grown[:-1] += chance * (1.0 - met[other])
                grown[1:] += chance * met[other]
                chance = grown
        share = 1.0 / torch.arange(1, chance.numel() + 1, dtype=torch.float64)
        out[place] = met[event] * (chance * share).sum()
    return out


def test_no_list_of_five_has_a_higher_expected_recall() -> None:
    _, oracle = simulate_weekly(5, 11, 4, seed=3, num_communities=3, mean_interactions=4.0)
    score = oracle.score(4)
    best = top_k(score, 5)
    for user in range(5):
        adds = expected_recall(score[user], torch.arange(11))
        lists = list(itertools.combinations(range(11), 5))
        values = torch.tensor([[float(adds[e]) for e in chosen] for chosen in lists]).sum(dim=1)
        assert sorted(best[user].tolist()) == list(lists[int(values.argmax())])


def test_redraws_have_the_exact_expected_recall(small: Small) -> None:
    _, oracle = small
    counts, score = redraw(oracle, 9, 300), oracle.score(9)
    user = int(np.argmax(oracle.latents.activity))
    listed = top_k(score[user : user + 1], 5)
    met = counts[:, user] > 0
    hits = met[:, listed[0]].sum(dim=1) / met.sum(dim=1).clamp(min=1)
    exact = float(expected_recall(score[user], listed[0]).sum())
    assert float(hits.mean()) == pytest.approx(exact, abs=4 * float(hits.std()) / 300**0.5)


def test_no_other_scorer_has_a_higher_recall_over_redraws(small: Small) -> None:
    table, oracle = small
    counts, score = redraw(oracle, 9, 60), oracle.score(9)
    past = table[table["week_number"] < 9]
    place = {name: row for row, name in enumerate(oracle.users)}
    total, last = torch.zeros(80, 40), torch.zeros(80, 40)
    for row in past.itertuples():
        total[place[row.ip_address], row.pixel_event_id - 1] += row.n_interactions
        if row.week_number == 8:
            last[place[row.ip_address], row.pixel_event_id - 1] = row.n_interactions
    popularity = total.sum(dim=0).expand_as(total)
    noise = torch.randn(80, 40, generator=torch.Generator().manual_seed(0))
    others = {
        "popularity": popularity,
        "last week": last + 1e-6 * popularity,
        "all weeks": total + 1e-6 * popularity,
        "a week late": oracle.score(8),
        "noise": score * (1.0 + 0.5 * noise).clamp(min=0.0),
        "less noise": score * (1.0 + 0.2 * noise).clamp(min=0.0),
    }

    def recall(scores: Tensor) -> Tensor:
        lists = top_k(scores, 5)
        values = [
            precision_recall_at_k(lists, tuple((c > 0).nonzero(as_tuple=True)), 40) for c in counts
        ]
        return torch.stack([value.recall.mean() for value in values])

    own = recall(score)
    for name, scores in others.items():
        gap = own - recall(scores)
        assert float(gap.mean()) > 3 * float(gap.std()) / 60**0.5, name


def test_rows_and_columns_follow_raw_ids(small: Small) -> None:
    table, oracle = small
    graph = weekly_graph(table)
    whole = oracle.score(9)
    own = oracle.score(9, graph.raw_ids("user"), graph.raw_ids("item"))
    assert own.shape == (graph.num_users, graph.num_items)
    for node, name in enumerate(graph.raw_ids("user")[:20]):
        row = oracle.users.index(name)
        expected = whole[row, torch.as_tensor(graph.raw_ids("item")) - 1]
        assert torch.equal(own[node], expected)
    assert oracle.score(9, users=["10.0.0.3"]).shape == (1, 40)
    with pytest.raises(ValueError, match=r"'users' holds 1 ids .*first \['10.9.9.9'\]"):
        oracle.score(9, users=["10.0.0.3", "10.9.9.9"])


def test_weeks_after_the_next_one_have_no_score(small: Small) -> None:
    _, oracle = small
    assert oracle.score(10).shape == (80, 40)
    for week in (0, 11, 2.0, True):
        with pytest.raises(ValueError, match=r"'week' needs to be an integer in 1..10"):
            oracle.score(week)  # type: ignore[arg-type]


# ---- learnable ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_scorer_that_sees_the_table_alone_comes_near_the_oracle(seed: int) -> None:
    spec = importlib.util.spec_from_file_location("weekly_prepare", FOLDER / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    figures = prepare.references(seed)
    golden = json.loads((FOLDER / "stats.json").read_text())["week 9"][str(seed)]
    assert prepare.agrees(figures, golden)
    assert not prepare.agrees(figures, golden | {"oracle": golden["popularity"]})
    share = {name: v["Recall@5"] / figures["oracle"]["Recall@5"] for name, v in figures.items()}
    assert share["popularity"] <= 0.4
    assert share["last week"] <= 0.65
    assert share["decayed counts"] <= 0.75
    assert share["communities"] >= share["decayed counts"] + 0.05
    assert share["communities and seasons"] >= share["communities"] + 0.05
    assert 0.85 <= share["communities and seasons"] <= 1.0


# ---- the file, and bad arguments ------------------------------------------------------------


def test_the_file_holds_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = generate_dataset(num_users=20, num_events=30, num_weeks=3, seed=5)
    path = tmp_path / "user_event_interactions.csv"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    header = "ip_address,pixel_event_id,n_interactions,week_number\n"
    assert path.read_text().startswith(header)
    assert path.read_text().count("\n") == len(table) + 1
    back, *_ = load_interactions_from_csv(path)
    expected = simulate_weekly(20, 30, 3, seed=5)[0].sort_values(
        ["week_number", "ip_address", "pixel_event_id"], ignore_index=True
    )
    assert back[list(table)].to_numpy().tolist() == expected.to_numpy().tolist()


def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail(self: pd.DataFrame, where: Path, **options: Any) -> None:
        Path(where).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match=r"could not write .*table.csv"):
        generate_dataset(path, 5, 10, 2)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, r"'num_users' needs to be an integer of at least 1 \(got 0\)"),
        ({"num_events": 2.0}, r"'num_events' .*got 2.0"),
        ({"num_weeks": True}, r"'num_weeks' .*got True"),
        ({"seed": -1}, r"'seed' .*at least 0 \(got -1\)"),
        ({"num_communities": 1}, r"'num_communities' .*at least 2"),
        ({"repeat_share": 1.0}, r"'repeat_share' needs to be a number in \[0, 1\)"),
        ({"season_strength": -0.1}, r"'season_strength' .*got -0.1"),
        ({"season_strength": math.nan}, r"'season_strength' .*got nan"),
        ({"mean_interactions": 0.0}, r"'mean_interactions' .*above 0 and at most 100"),
        ({"mean_interactions": math.nan}, r"'mean_interactions'"),
        ({"num_users": 10**6, "num_events": 10**4}, r"at most 20,000,000 \(got 1,000,000"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate_weekly(**arguments)


@pytest.mark.parametrize("arguments", [{"num_users": 1}, {"num_events": 1}, {"num_weeks": 1}])
def test_the_smallest_sizes_work(arguments: dict[str, int]) -> None:
    table, oracle = simulate_weekly(**({"num_users": 6, "num_events": 8} | arguments))
    assert len(table) > 0
    assert oracle.score(1).isfinite().all()
