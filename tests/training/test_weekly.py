from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.datasets import simulate_weekly, weekly_graph
from tgrec.datasets.weekly_source import csv_weeks, simulated_weeks
from tgrec.models.weekly_interest import UserInteractionPredictor
from tgrec.training.record import append_record, read_records
from tgrec.training.weekly import (
    add_ages,
    fit_links,
    fit_weeks,
    link_parameters,
    make_model,
    recall,
    top_by_links,
    top_by_weeks,
    week_parameters,
)
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
from tgrec.training.weekly_settings import Fitted, WeeklySettings, Weeks

USERS, EVENTS, WEEKS = 60, 24, 6
TINY = WeeklySettings(hidden=16, n_heads=2, num_neighbors=(4, 2), weeks_of_history=4, epochs=3,
                      eval_every=1, link_epochs=2, links_per_epoch=256, batch_size=32)  # fmt: skip


def table_weeks(graph: TemporalRecGraph, num_weeks: int) -> Weeks:
    """The weeks 1 to ``num_weeks`` of a graph of :func:`weekly_graph`."""
    times = [345_600 + 604_800 * week for week in range(1, num_weeks + 2)]
    return Weeks(graph, tuple(graph.event_id_at(t) for t in times))


@pytest.fixture(scope="module")
def weeks() -> Weeks:
    frame, _ = simulate_weekly(USERS, EVENTS, WEEKS, seed=3, num_communities=3)
    return table_weeks(weekly_graph(frame), WEEKS)


# ---- nothing of the target week ----------------------------------------------------------------


def changed(weeks: Weeks, user: Tensor, item: Tensor, count: Tensor) -> Weeks:
    """The same weeks with other events in the last one."""
    kept = weeks.cuts[-2]
    store = weeks.graph["user", "interacts", "item"]
    graph = weeks.graph.before(weeks.graph.num_events)
    edges = graph["user", "interacts", "item"]
    edges.edge_index = torch.cat([store.edge_index[:, :kept], torch.stack([user, item])], dim=1)
    edges.event_id = torch.arange(kept + user.numel())
    start = store.time[-1]
    edges.time = torch.cat([store.time[:kept], start.expand(user.numel())])
    edges.edge_attr = torch.cat([store.edge_attr[:kept], count.view(-1, 1)])
    return Weeks(graph, (*weeks.cuts[:-1], kept + user.numel()))


def variants(weeks: Weeks) -> list[Weeks]:
    user, item = weeks.links(len(weeks) - 1)
    count = torch.ones(user.numel())
    twice = [torch.cat([x, x.flip(0)]) for x in (user, item)]
    return [
        changed(weeks, user, item.flip(0), 5 * count),  # every event changed
        changed(weeks, user[:1], item[:1], count[:1]),  # all but one removed
        changed(weeks, twice[0], twice[1], torch.ones(2 * user.numel())),  # as many added
    ]


def all_scores(past: Weeks) -> list[Tensor]:
    """Scores and weights of everything that is trained, bit by bit."""
    out = []
    for joint in (False, True):
        model = make_model(past.graph, TINY)
        if not joint:
            fit_links(model, past, TINY)
        fit_weeks(model, past, TINY, joint=joint)
        views = past.views(len(past) - 4, len(past))
        users, events = model.get_temporal_embeddings(views)
        with torch.no_grad():
            out.append(model.score(users, events, model.own_interest(views)))
        out += [p.detach() for p in model.parameters()]
    return out


def test_scores_do_not_know_the_target_week(weeks: Weeks) -> None:
    target = WEEKS - 1
    wanted = all_scores(Question(weeks, target).past)
    for other in variants(weeks):
        for a, b in zip(wanted, all_scores(Question(other, target).past), strict=True):
            assert torch.equal(a, b)


def test_lists_of_all_methods_do_not_know_the_target_week(weeks: Weeks) -> None:
    lists = [
        compare(Question(some, WEEKS - 1, EVENTS), TINY, joint=True)
        for some in (weeks, variants(weeks)[0])
    ]
    for a, b in zip(*lists, strict=True):
        assert torch.equal(a.top, b.top), a.name
    assert len(lists[0]) == 6


def test_the_probe_finds_a_leak(weeks: Weeks) -> None:
    """With the target week among what is read, the same probe fails."""
    leaky = [some.until(WEEKS) for some in (weeks, variants(weeks)[0])]
    first, second = (all_scores(past)[0] for past in leaky)
    assert not torch.equal(first, second)


def test_every_week_is_predicted_from_earlier_ones(
    weeks: Weeks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Transformer's loss at week w must not change with events of w (but as targets)."""
    asked: list[int] = []
    original = UserInteractionPredictor.own_interest

    def spy(self: Any, snapshots: Any, users: Any = None) -> Tensor:
        ends = [int(v["user", "interacts", "item"].event_id[-1]) for v in snapshots]
        asked.append(max(ends))
        return original(self, snapshots, users)

    monkeypatch.setattr(UserInteractionPredictor, "own_interest", spy)
    past = weeks.until(4)
    fit_weeks(make_model(past.graph, TINY), past, replace(TINY, epochs=1))
    # Weeks 2 to 4 are learned, each from what ended where it begins.
    assert {end + 1 for end in asked} == set(past.cuts[1:4])


def test_links_are_cut_where_their_week_begins(
    weeks: Weeks, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tgrec.training.weekly as module

    batches = []

    def spy(data: Any, of: Weeks, place: int) -> None:
        add_ages(data, of, place)
        batches.append((data, place))

    monkeypatch.setattr(module, "add_ages", spy)
    fit_links(make_model(weeks.graph, TINY), weeks, TINY)
    assert {place for _, place in batches} == set(range(1, WEEKS))
    for batch, place in batches:
        for kind in batch.edge_types:
            store = batch[kind]
            assert int(store.event_id.max()) < weeks.cuts[place]
            assert torch.equal(store.age, place - 1 - weeks.of(store.event_id))
            assert int(store.age.min()) >= 0


# ---- training ----------------------------------------------------------------------------------


def gradients(model: UserInteractionPredictor, parameters: list[Any]) -> list[bool]:
    names = {id(p): n for n, p in model.named_parameters()}
    return [names[id(p)] for p in parameters if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("joint", [False, True])
def test_every_trained_parameter_gets_a_gradient_and_moves(weeks: Weeks, joint: bool) -> None:
    past, model = weeks.until(WEEKS - 1), make_model(weeks.graph, TINY)
    if not joint:
        before = [p.detach().clone() for p in link_parameters(model)]
        fit_links(model, past, TINY)
        assert gradients(model, link_parameters(model)) == []
        pairs = zip(before, link_parameters(model), strict=True)
        assert not any(torch.equal(a, b) for a, b in pairs)
    chosen = week_parameters(model, joint)
    assert (len(chosen) == len(list(model.parameters()))) == joint
    before = [p.detach().clone() for p in model.parameters()]
    fit_weeks(model, past, TINY, joint=joint)
    assert gradients(model, chosen) == []
    trained = {id(p) for p in chosen}
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new.detach()) == (id(new) not in trained)


def test_the_transformer_learns(weeks: Weeks) -> None:
    past, settings = weeks.until(WEEKS - 1), replace(TINY, epochs=10)
    model = make_model(past.graph, settings)
    fitted = fit_weeks(model, past, settings)
    assert fitted.losses[-1] < fitted.losses[0] - 0.02
    assert fitted.epochs == 10


def test_a_run_is_repeated_bit_by_bit_and_the_seed_decides(weeks: Weeks) -> None:
    past = weeks.until(WEEKS - 1)
    first, second = all_scores(past), all_scores(past)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = replace(TINY, seed=1)
    model = make_model(past.graph, other)
    assert not torch.equal(model.project.weight, first[-1])


def test_the_best_weights_of_the_validation_stay_and_patience_stops(weeks: Weeks) -> None:
    past = weeks.until(WEEKS - 1)
    settings = replace(TINY, epochs=9, patience=2)
    values = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    model, kept = make_model(past.graph, settings), []

    def validate() -> float:
        kept.append(model.project.weight.detach().clone())
        return next(values)

    said: list[str] = []
    fitted = fit_weeks(model, past, settings, validate=validate, say=said.append)
    assert (fitted.epochs, fitted.best) == (4, 2)
    assert torch.equal(model.project.weight, kept[1])
    assert len(said) == 4
    assert "s left" in said[0]
    assert Fitted(3, [], {1: 0.2, 2: 0.2, 3: 0.1}, 0.0).best == 1


def test_training_for_the_chosen_epochs_is_the_same_training(weeks: Weeks) -> None:
    """The final weights follow the schedule of the search, up to the epoch that was chosen."""
    past = weeks.until(WEEKS - 1)
    whole, part = make_model(past.graph, TINY), make_model(past.graph, TINY)
    seen: list[Tensor] = []
    fit_weeks(whole, past, TINY, validate=lambda: _note(seen, whole))
    fit_weeks(part, past, TINY, epochs=2)
    assert torch.equal(part.project.weight, seen[1])


def _note(seen: list[Tensor], model: UserInteractionPredictor) -> float:
    seen.append(model.project.weight.detach().clone())
    return 0.0


def test_only_the_latest_weeks_are_learned_where_asked(weeks: Weeks) -> None:
    past, said = weeks.until(WEEKS - 1), []
    short = replace(TINY, weeks_to_learn=1)
    fit_weeks(make_model(past.graph, short), past, short, say=said.append)
    chunks = -(-past.links(WEEKS - 2)[0].unique().numel() // TINY.batch_size)
    assert chunks == 2
    with pytest.raises(ValueError, match="'weeks_to_learn' needs to be a positive"):
        replace(TINY, weeks_to_learn=0)


# ---- what it comes to --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnable() -> tuple[Weeks, WeeklySettings]:
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
    weeks: Weeks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question, said = Question(weeks, WEEKS - 1), []
    truth = torch.rand(USERS, EVENTS)
    found = compare(question, TINY, oracle=truth, say=said.append)
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
    for record in records(question, found, TINY, "SIMULATED", "sum"):
        append_record(path, record)
    kept = {record.model: record for record in read_records(path)}
    assert kept.keys() == {p.name for p in found}
    assert kept[TWO_STAGES].protocol == "weekly"
    assert kept[TWO_STAGES].settings["weeks_of_history"] == 4
    assert kept[TWO_STAGES].metrics["full"].keys() == {"Recall@5", "Precision@5"}
    assert kept[POPULARITY].parameters == 0
    assert kept[POPULARITY].settings == {}


def test_together_trains_one_model(weeks: Weeks) -> None:
    past = weeks.until(WEEKS - 1)
    one = together(past, WEEKS - 2, TINY)
    assert one.parameters == sum(p.numel() for p in make_model(past.graph, TINY).parameters())
    assert one.top.shape == (USERS, 5)


def test_lists_can_be_made_of_any_length_of_history(weeks: Weeks) -> None:
    short = weeks.until(2)  # fewer weeks than the model reads
    model = make_model(short.graph, TINY)
    for top in (top_by_links(model, short, 3), top_by_weeks(model, short, 3)):
        assert top.shape == (USERS, 3)
        assert int(top.min()) >= 0


# ---- bad input ---------------------------------------------------------------------------------


def frame_weeks(rows: dict[int, list[tuple[int, int]]]) -> Weeks:
    import pandas as pd

    flat = [(u, e, 1, w) for w, pairs in rows.items() for u, e in pairs]
    columns = ["ip_address", "pixel_event_id", "n_interactions", "week_number"]
    return table_weeks(weekly_graph(pd.DataFrame(flat, columns=columns)), max(rows))


PAIRS = [(u, (u + v) % 7) for u in range(9) for v in range(3)]


def test_weeks_that_are_missing_stay_empty_weeks() -> None:
    weeks = frame_weeks({1: PAIRS, 2: PAIRS, 5: PAIRS, 6: PAIRS, 8: PAIRS})
    assert weeks.active() == [0, 1, 4, 5, 7]
    question = Question(weeks, 7)
    assert question.validation == 5  # week 7 is empty, week 6 is not
    for prediction in compare(question, TINY, joint=True):
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
def test_a_week_that_cannot_be_asked_about(rows: Any, target: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Question(frame_weeks(rows), target)


@pytest.mark.parametrize("k", [0, EVENTS + 1, True])
def test_k_beyond_the_events(weeks: Weeks, k: int) -> None:
    with pytest.raises(ValueError, match=f"'k' needs to be in 1..{EVENTS}"):
        Question(weeks, WEEKS - 1, k)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_neighbors", (10, 0), "with 0 a node would hear of nobody"),
        ("num_neighbors", (), "a number per hop"),
        ("num_neighbors", (-2,), "positive or -1"),
        ("weeks_of_history", 0, "'weeks_of_history' needs to be a positive integer"),
        ("epochs", 0, "'epochs' needs to be a positive integer"),
        ("batch_size", True, "'batch_size' needs to be a positive integer"),
        ("lr", 0.0, "'lr' needs to be a positive number"),
        ("seed", -1, "'seed' needs to be an integer in"),
    ],
)
def test_settings_that_cannot_be(name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WeeklySettings(**{name: value})


def test_a_device_that_is_not_there(weeks: Weeks) -> None:
    with pytest.raises(ValueError, match="'device' 'nowhere' cannot be used here"):
        compare(Question(weeks, WEEKS - 1), replace(TINY, device="nowhere"))


def test_a_loss_that_is_no_number_is_an_error(weeks: Weeks) -> None:
    past, model = weeks.until(4), make_model(weeks.graph, TINY)
    with torch.no_grad():
        model.project.weight.fill_(torch.nan)
    with pytest.raises(ArithmeticError, match="the loss is nan in epoch 1; a smaller learning"):
        fit_weeks(model, past, TINY)


def test_too_few_weeks_to_learn_from(weeks: Weeks) -> None:
    one = weeks.until(1)
    for fit in (fit_links, fit_weeks):
        with pytest.raises(ValueError, match="no two weeks with events"):
            fit(make_model(one.graph, TINY), one, TINY)


def test_weeks_refuse_what_they_cannot_cut(weeks: Weeks) -> None:
    with pytest.raises(ValueError, match="'cuts' needs to be ascending"):
        Weeks(weeks.graph, (0, 5, 3))
    several = weeks.graph.before(weeks.graph.num_events)
    several["user", "other", "item"].event_id = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="'graph' needs one kind of events"):
        Weeks(several, (0, 1))


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
