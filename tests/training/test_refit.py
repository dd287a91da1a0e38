"""Trained anew on train and validation: for how long, on what, and what is taken over."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tgrec.training.run as run_module
from tgrec.data import Split
from tgrec.models import load_model
from tgrec.models.io import parameters_copy
from tgrec.training import (
    REFIT,
    RankedRun,
    Task,
    TrainingInterrupted,
    TrainSettings,
    evaluate,
    fit,
    read_refit,
    read_run,
    run,
)

pytestmark = pytest.mark.usefixtures("no_litter")
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def task(split: Split) -> Task:
    return Task("toy-loo", "SIMULATED (a cycle)", "c0ffee", split, remove_seen=True)


@pytest.fixture(scope="module")
def falling(settings: TrainSettings) -> TrainSettings:
    return replace(settings, epochs=5, lr_decay="cosine", warmup_steps=2)


@pytest.fixture
def finished(tmp_path: Path, task: Task, falling: TrainSettings, make: Make) -> RankedRun:
    """A run of tgt_bert4rec that chooses its gates, and these ones."""
    model = make(task.split, "tgt_bert4rec", learnable_fusion=False)
    chosen = {"fusion_alpha": 0.05, "graph_weight": 7.0}
    model.choose = lambda measure: [model.put_chosen(*one) for one in chosen.items()]
    return run("tgt_bert4rec", model, task, falling, tmp_path / "first", show=False)


def again(task: Task, folder: Path, out: Path, make: Make, **how: Any) -> RankedRun:
    """The refit of the run in ``folder``."""
    refit = read_refit(folder)
    torch.manual_seed(refit.settings.seed)
    name = refit.record.model
    model = make(task.fitted_on(True), name, **refit.config)
    how = {"show": False, "refit": refit, **how}
    return run(name, model, task, refit.settings, out, **how)


# ---- fit ----------------------------------------------------------------------------------------


def test_without_validation_training_ends_where_it_is_told_on_the_same_schedule(
    make: Make, split: Split, falling: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(make(split), split, falling, show=False)
    model = make(split.with_validation())
    monkeypatch.setattr(model, "choose", lambda measure: pytest.fail("there is nothing to ask"))
    part = fit(model, split.with_validation(), falling, stop_after=3, show=False)
    assert (part.epochs, part.stopped, part.best_epoch) == (3, "epochs", 0)
    assert [entry["lr"] for entry in part.history] == [e["lr"] for e in whole.history[:3]]
    assert not any("val" in entry for entry in part.history)


def test_where_nothing_can_be_chosen_an_end_has_to_be_given(make: Make, split: Split) -> None:
    with pytest.raises(ValueError, match=r"'split.val' is empty.* end \(stop_after=\)"):
        fit(make(split), split.with_validation(), show=False)


def test_a_training_that_ends_early_is_the_beginning_of_the_whole(
    make: Make, split: Split, falling: TrainSettings, tmp_path: Path
) -> None:
    whole, part = make(split), make(split)
    expected = fit(whole, split, falling, patience=9, show=False)
    fit(part, split, falling, stop_after=2, patience=9, folder=tmp_path, show=False)
    rest = fit(part, split, falling, patience=9, folder=tmp_path, resume=True, show=False)
    assert [e["loss"] for e in rest.history] == [e["loss"] for e in expected.history]
    assert all(torch.equal(v, parameters_copy(part)[k]) for k, v in parameters_copy(whole).items())


def test_no_test_event_is_read(make: Make, split: Split, falling: TrainSettings) -> None:
    store = split.graph[split.graph.interaction_types[0]]
    asked = torch.isin(store.event_id, split.test.cut)
    other = split.graph.select_events(torch.ones_like(asked))
    edges = store.edge_index.clone()
    edges[1, asked] = (edges[1, asked] + 11) % split.graph.num_items
    other[split.graph.interaction_types[0]].edge_index = edges
    losses = []
    for graph in (split.graph, other):
        one = replace(split, graph=graph).with_validation()
        result = fit(make(one, "tgt_bert4rec"), one, falling, stop_after=2, show=False)
        losses.append([entry["loss"] for entry in result.history])
    assert losses[0] == losses[1]


# ---- run ----------------------------------------------------------------------------------------


def test_epochs_and_gates_are_those_of_the_run_and_the_test_is_the_same(
    finished: RankedRun, task: Task, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    refit = read_refit(tmp_path / "first")
    had = finished.record.settings
    assert (refit.settings.epochs, refit.settings.stop_after) == (5, had["best_epoch"])
    assert refit.chosen == had["chosen"] != {}
    asked: list[Any] = []
    monkeypatch.setattr(run_module, "evaluate", lambda model, split, targets, **how: (
        asked.append(targets), evaluate(model, split, targets, **how))[1])  # fmt: skip
    made = again(task, tmp_path / "first", tmp_path / "again", make)
    assert len(asked) == 1
    assert asked[0] is task.split.test
    assert (made.record.variant, made.record.epochs) == (REFIT, had["best_epoch"])
    said = made.record.settings
    assert (said["val"], said["best_epoch"]) == (None, 0)
    assert said["chosen"] == had["chosen"]
    assert said["refit_of"].startswith("tgt_bert4rec seed 0, ")
    assert {k: said[k] for k in refit.config} == {k: had[k] for k in refit.config}
    # Drawn candidates and groups are those of the board, whatever was fitted on.
    assert {g: f["users"] for g, f in made.record.groups.items()} == {
        g: f["users"] for g, f in finished.record.groups.items()
    }
    assert made.record.metrics != finished.record.metrics
    assert read_run(tmp_path / "again").record.to_json() == made.record.to_json()
    loaded = load_model(tmp_path / "again" / "model", {"m": type(make(task.split, "tgt_bert4rec"))})
    assert {k: loaded.config[k] for k in refit.chosen} == refit.chosen
    figures = evaluate(loaded, task.split, task.split.test).metrics()["full"]
    assert figures == made.record.metrics["full"]


def test_an_interrupted_refit_goes_on_to_the_same_figures(
    task: Task, falling: TrainSettings, tmp_path: Path, interfering: Make, stop: Make, make: Make
) -> None:
    first = tmp_path / "first"
    run("sasrec", make(task.split), task, falling, first, show=False)
    whole = again(task, first, tmp_path / "whole", make)
    refit, fitted_on = read_refit(first), task.fitted_on(True)

    def part(at: dict[int, Any], **how: Any) -> RankedRun:
        model = interfering(at)
        assert model.config == make(fitted_on).config
        return run("sasrec", model, task, refit.settings, tmp_path / "part", show=False,
                   refit=refit, **how)  # fmt: skip

    with pytest.raises(TrainingInterrupted, match="in epoch 2, nothing measured yet"):
        part({5: stop(signal.SIGTERM)})
    assert not (tmp_path / "part" / "metrics.json").exists()
    rest = part({}, resume=True)
    assert rest.record.metrics == whole.record.metrics
    assert rest.record.variant == REFIT


def test_counts_are_made_anew(task: Task, tmp_path: Path, make: Make) -> None:
    settings = TrainSettings()
    first = run("markov", make(task.split, "markov"), task, settings, tmp_path / "a", show=False)
    made = again(task, tmp_path / "a", tmp_path / "b", make)
    assert (first.record.variant, made.record.variant) == ("", REFIT)
    assert made.record.settings["stop_after"] is None


def test_what_cannot_be_refitted(
    finished: RankedRun, task: Task, tmp_path: Path, make: Make, falling: TrainSettings
) -> None:
    first = tmp_path / "first"
    again(task, first, tmp_path / "again", make)
    with pytest.raises(ValueError, match="is a refit itself; give the run that it was made from"):
        read_refit(tmp_path / "again")
    run("m", make(task.split), task, falling, tmp_path / "c", train=False, show=False)
    with pytest.raises(ValueError, match="has chosen no epoch on validation"):
        read_refit(tmp_path / "c")
    run("m", make(task.split), task, falling, tmp_path / "d", show=False,
        further_settings={"weights": "0123"})  # fmt: skip
    with pytest.raises(ValueError, match=r"began with what was trained before \(weights\)"):
        read_refit(tmp_path / "d")
    config = json.loads((first / "config.json").read_text())
    config["settings"]["of_tomorrow"] = 1
    (first / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="holds settings of another version .*of_tomorrow"):
        read_refit(first)
