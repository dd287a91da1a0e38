"""Weekly interest: questions, baselines, tables, and where weeks come from."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.datasets import simulate_weekly, weekly_graph
from tgrec.datasets.weekly_source import csv_weeks, simulated_weeks
from tgrec.training.record import append_record, read_records
from tgrec.training.weekly import make_model, recall, top_by_links, top_by_weeks
from tgrec.training.weekly_run import (
    LAST_WEEK,
    ORACLE,
    POPULARITY,
    TWO_STAGES,
    Question,
    compare,
    own_counts,
    popularity,
    print_table,
    records,
    together,
    two_stages,
    write_top,
)
from tgrec.training.weekly_settings import WeeklySettings, Weeks

USERS, EVENTS, WEEKS = 60, 24, 6  # of ``weeks``
Make = Callable[..., Any]


# ---- what it comes to --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnable(table_weeks: Make) -> tuple[Weeks, WeeklySettings]:
    frame, _ = simulate_weekly(200, 60, 8, seed=0, num_communities=6)
    settings = WeeklySettings(hidden=32, num_neighbors=(8, 4), epochs=16, link_epochs=6,
                              links_per_epoch=4096, batch_size=128)  # fmt: skip
    return table_weeks(weekly_graph(frame), 8), settings


def shuffled(weeks: Weeks) -> Weeks:
    """Events of each week given to other users: nobody's past says anything about the future."""
    graph = weeks.graph.before(weeks.graph.num_events)
    store = graph["user", "interacts", "item"]
    generator = torch.Generator().manual_seed(0)
    user = store.edge_index[0].clone()
    for lo, hi in zip(weeks.cuts, weeks.cuts[1:], strict=False):
        user[lo:hi] = torch.randperm(weeks.graph.num_users, generator=generator)[user[lo:hi]]
    store.edge_index = torch.stack([user, store.edge_index[1]])
    return Weeks(graph, weeks.cuts)


@pytest.mark.slow
def test_it_beats_the_baselines_and_falls_to_chance_on_shuffled_users(
    learnable: tuple[Weeks, WeeklySettings],
) -> None:
    weeks, settings = learnable
    figures = []
    for some in (weeks, shuffled(weeks)):
        question = Question(some, 7)
        tops = {p.name: p.top for p in two_stages(question.past, 6, settings)}
        tops |= {
            POPULARITY: popularity(question.past),
            LAST_WEEK: own_counts(question.past, 5, 0.0),
        }
        figures.append({name: recall(top, some, 7) for name, top in tops.items()})
    real, chance = figures
    assert real[TWO_STAGES] > real[LAST_WEEK] + 0.05
    assert real[TWO_STAGES] > real[POPULARITY] + 0.08
    # Nothing personal is left to be known: no better than one list for everybody in season.
    assert chance[TWO_STAGES] < chance[POPULARITY] + 0.03
    assert chance[TWO_STAGES] < real[TWO_STAGES] - 0.08
    assert chance[LAST_WEEK] < chance[POPULARITY]


def test_own_counts_against_a_loop(weeks: Weeks) -> None:
    past = weeks.until(4)
    store = past.graph["user", "interacts", "item"]
    for decay in (0.0, 0.8):
        scores = torch.zeros(USERS, EVENTS, dtype=torch.float64)
        common = torch.zeros(EVENTS, dtype=torch.float64)
        for place in range(4):
            for e in range(past.cuts[place], past.cuts[place + 1]):
                u, i = store.edge_index[:, e].tolist()
                scores[u, i] += float(store.edge_attr[e]) * decay ** (3 - place)
                common[i] += float(store.edge_attr[e])
        best = (scores + 1e-6 * common).sort(dim=1, descending=True, stable=True).indices[:, :5]
        assert torch.equal(own_counts(past, 5, decay), best)
    first = common.sort(descending=True, stable=True).indices[:5]
    assert torch.equal(popularity(past), first.expand(USERS, -1))


def test_baselines_of_an_empty_last_week(weeks: Weeks) -> None:
    quiet = Weeks(weeks.graph.before(weeks.cuts[3]), (*weeks.cuts[:4], weeks.cuts[3]))
    assert torch.equal(own_counts(quiet, 5, 0.0), popularity(quiet))


def test_the_table_the_lists_and_the_records(
    weeks: Weeks, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny: WeeklySettings
) -> None:
    question, said = Question(weeks, WEEKS - 1), []
    truth = torch.rand(USERS, EVENTS)
    found = compare(question, tiny, oracle=truth, say=said.append)
    assert [p.name for p in found] == [
        POPULARITY, LAST_WEEK, "own counts, decayed", "SAGE", TWO_STAGES, ORACLE
    ]  # fmt: skip
    assert any(line.startswith("choosing, SAGE on links: epoch 1/2") for line in said)
    print_table(question, found, "SIMULATED")
    printed = capsys.readouterr().out
    assert "of the oracle" in printed
    assert "100%" in printed
    mean = question.measure(found[0].top).recall.mean().item()
    assert f"{mean:.4f} [" in printed

    write_top(tmp_path / "top.csv", question, found[4].top, ("ip", "event"))
    with (tmp_path / "top.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ip", *(f"event_{i}" for i in range(1, 6))]
    assert [row[0] for row in rows[1:]] == weeks.graph.raw_ids("user")
    raw = weeks.graph.raw_ids("item")
    assert [int(x) for x in rows[3][1:]] == [int(raw[i]) for i in found[4].top[2]]

    path = tmp_path / "weekly.jsonl"
    for record in records(question, found, tiny, "SIMULATED", "sum"):
        append_record(path, record)
    kept = {record.model: record for record in read_records(path)}
    assert kept.keys() == {p.name for p in found}
    assert kept[TWO_STAGES].protocol == "weekly"
    assert kept[TWO_STAGES].settings["weeks_of_history"] == 4
    assert kept[TWO_STAGES].metrics["full"].keys() == {"Recall@5", "Precision@5"}
    assert kept[POPULARITY].parameters == 0
    assert kept[POPULARITY].settings == {}


def test_together_trains_one_model(weeks: Weeks, tiny: WeeklySettings) -> None:
    past = weeks.until(WEEKS - 1)
    one = together(past, WEEKS - 2, tiny)
    assert one.parameters == sum(p.numel() for p in make_model(past.graph, tiny).parameters())
    assert one.top.shape == (USERS, 5)


def test_lists_can_be_made_of_any_length_of_history(weeks: Weeks, tiny: WeeklySettings) -> None:
    short = weeks.until(2)  # fewer weeks than the model reads
    model = make_model(short.graph, tiny)
    for top in (top_by_links(model, short, 3), top_by_weeks(model, short, 3)):
        assert top.shape == (USERS, 3)
        assert int(top.min()) >= 0


# ---- bad input ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frame_weeks(table_weeks: Make) -> Make:
    """``frame_weeks({1: pairs, 3: pairs})``: pairs (user, event) of each week."""

    def build(rows: dict[int, list[tuple[int, int]]]) -> Weeks:
        flat = [(u, e, 1, w) for w, pairs in rows.items() for u, e in pairs]
        columns = ["ip_address", "pixel_event_id", "n_interactions", "week_number"]
        return table_weeks(weekly_graph(pd.DataFrame(flat, columns=columns)), max(rows))

    return build


PAIRS = [(u, (u + v) % 7) for u in range(9) for v in range(3)]


def test_weeks_that_are_missing_stay_empty_weeks(tiny: WeeklySettings, frame_weeks: Make) -> None:
    weeks = frame_weeks({1: PAIRS, 2: PAIRS, 5: PAIRS, 6: PAIRS, 8: PAIRS})
    assert weeks.active() == [0, 1, 4, 5, 7]
    question = Question(weeks, 7)
    assert question.validation == 5  # week 7 is empty, week 6 is not
    for prediction in compare(question, tiny, joint=True):
        assert recall(prediction.top, weeks, 7) >= 0
    assert torch.equal(
        weeks.of(torch.tensor([0, len(PAIRS), 2 * len(PAIRS)])), torch.tensor([0, 1, 4])
    )


@pytest.mark.parametrize(
    ("rows", "target", "said"),
    [
        ({1: PAIRS, 2: PAIRS, 3: PAIRS, 5: PAIRS}, 3, "week 4, in which there are no events"),
        ({1: PAIRS, 2: PAIRS, 3: PAIRS, 4: PAIRS}, 4, "week 5; the data hold week 1 to week 4"),
        ({1: PAIRS, 2: PAIRS, 3: PAIRS, 4: PAIRS}, -1, "week 0; the data hold week 1 to"),
        ({1: PAIRS, 3: PAIRS, 4: PAIRS}, 3, "with 2 weeks with events before it; it needs 3"),
    ],
)
def test_a_week_that_cannot_be_asked_about(
    rows: Any, target: int, said: str, frame_weeks: Make
) -> None:
    with pytest.raises(ValueError, match=said):
        Question(frame_weeks(rows), target)


@pytest.mark.parametrize("k", [0, EVENTS + 1, True])
def test_k_beyond_the_events(weeks: Weeks, k: int) -> None:
    with pytest.raises(ValueError, match=f"'k' needs to be in 1..{EVENTS}"):
        Question(weeks, WEEKS - 1, k)


def test_a_device_that_is_not_there(weeks: Weeks, tiny: WeeklySettings) -> None:
    with pytest.raises(ValueError, match="'device' 'nowhere' cannot be used here"):
        compare(Question(weeks, WEEKS - 1), replace(tiny, device="nowhere"))


def test_csv_and_simulation_as_sources(tmp_path: Path) -> None:
    data = simulated_weeks(tmp_path, seed=2)
    weeks = Weeks(data.graph, data.cuts, data.first)
    assert (len(weeks), weeks.name(8), data.target) == (9, "week 9", 9)
    truth = data.truth(9)
    assert truth is not None
    question = Question(weeks, 8)
    (oracle,) = [recall(torch.topk(truth, 5).indices, weeks, 8)]
    assert oracle > 2 * recall(popularity(question.past), weeks, 8)

    path = tmp_path / "sales.csv"
    path.write_text("who,what,week\n" + "".join(f"{u},{e},{w}\n" for w in (1, 3) for u, e in PAIRS))
    other = csv_weeks(path, user="who", event="what", week="week")
    assert (other.columns, other.target, other.truth(3)) == (("who", "what"), 3, None)
    assert len(other.cuts) == 4
    with pytest.raises(ValueError, match="there is no column 'ip_address'"):
        csv_weeks(path)


def test_the_typical_user_is_active_and_of_median_activity(weeks: Weeks) -> None:
    question = Question(weeks, WEEKS - 1)
    user = question.typical_user()
    active = weeks.links(WEEKS - 1)[0].unique()
    past = question.past.graph["user", "interacts", "item"].edge_index[0]
    counts = torch.bincount(past, minlength=USERS)[active]
    assert user in active
    mine = int((past == user).sum())
    assert int((counts < mine).sum()) <= len(active) // 2 <= int((counts <= mine).sum())
