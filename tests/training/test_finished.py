from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tgrec.data import Split
from tgrec.models import Popularity
from tgrec.training import RankedRun, Task, TrainSettings, read_run, run, same_run
from tgrec.training.run import CONFIG, METRICS, RANKS

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def task(split: Split) -> Task:
    return Task("toy-loo", "SIMULATED (a cycle)", "c0ffee", split, remove_seen=True)


@pytest.fixture
def finished(tmp_path: Path, task: Task, settings: TrainSettings, make: Make) -> RankedRun:
    return run("sasrec", make(task.split), task, settings, tmp_path, show=False)


def test_a_run_is_read_back_as_it_was(finished: RankedRun, tmp_path: Path) -> None:
    found = read_run(tmp_path)
    assert found.record.to_json() == finished.record.to_json()
    assert same_run(found.record, finished.record)
    assert found.ranks.keys() == finished.ranks.keys()
    assert all((found.ranks[name] == finished.ranks[name]).all() for name in found.ranks)
    assert found.user is not None
    assert finished.user is not None
    assert found.user.tolist() == finished.user.tolist()


def test_what_training_chose_stands_beside_what_was_given(
    tmp_path: Path, task: Task, settings: TrainSettings, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says both; a run that only measures has chosen nothing."""
    model = make(task.split)

    def choose(measure: Callable[[], float]) -> None:
        measure()
        model.config["dropout"] = 0.75

    monkeypatch.setattr(model, "choose", choose)
    given = model.config["dropout"]
    made = run("sasrec", model, task, settings, tmp_path / "trained", show=False).record
    assert (made.settings["dropout"], made.settings["chosen"]) == (given, {"dropout": 0.75})
    assert (
        json.loads((tmp_path / "trained" / CONFIG).read_text())["model_config"]["dropout"] == given
    )
    assert read_run(tmp_path / "trained").record.to_json() == made.to_json()
    measured = run("sasrec", model, task, settings, tmp_path / "again", train=False, show=False)
    assert "chosen" not in measured.record.settings
    assert read_run(tmp_path / "again").record.to_json() == measured.record.to_json()


def test_further_settings_and_frozen_parameters_are_in_the_record(
    tmp_path: Path, task: Task, settings: TrainSettings, make: Make
) -> None:
    model = make(task.split)
    model.item.requires_grad_(False)
    further = {"stage1": {"epoch": 3}}
    made = run("m", model, task, settings, tmp_path, show=False, further_settings=further)
    assert made.record.settings["stage1"] == {"epoch": 3}
    assert made.record.parameters == model.num_parameters() + model.item.numel()
    assert read_run(tmp_path).record.to_json() == made.record.to_json()


def test_a_model_that_only_counts_is_read_back_too(
    tmp_path: Path, task: Task, settings: TrainSettings
) -> None:
    model = Popularity.from_graph(task.split.train)
    made = run("popularity", model, task, settings, tmp_path, show=False)
    assert read_run(tmp_path).record.to_json() == made.record.to_json()


def test_an_interrupted_run_says_so(finished: RankedRun, tmp_path: Path) -> None:
    path = tmp_path / METRICS
    measured = json.loads(path.read_text())
    measured["fit"]["stopped"] = "interrupted"
    path.write_text(json.dumps(measured))
    with pytest.raises(ValueError, match="was interrupted; finish it with --resume"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", [CONFIG, METRICS, RANKS])
def test_a_run_that_has_not_ended(name: str, finished: RankedRun, tmp_path: Path) -> None:
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}; the run has not come to its end"):
        read_run(tmp_path)


def test_damage_and_ranks_of_another_run(finished: RankedRun, tmp_path: Path) -> None:
    with np.load(tmp_path / RANKS, allow_pickle=False) as file:
        arrays = dict(file)
    arrays["rank/full"] = arrays["rank/full"] + 1
    np.savez(tmp_path / RANKS, **arrays)
    with pytest.raises(ValueError, match="are of different runs"):
        read_run(tmp_path)
    whole = (tmp_path / RANKS).read_bytes()
    del arrays["user"]
    np.savez(tmp_path / RANKS, **arrays)
    for damaged in ((tmp_path / RANKS).read_bytes(), b"", whole[:-100], b"ranks"):
        (tmp_path / RANKS).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{RANKS} is damaged .*; run it again"):
            read_run(tmp_path)
    (tmp_path / RANKS).write_bytes(whole)
    (tmp_path / METRICS).write_text("{}")
    with pytest.raises(ValueError, match=r"is damaged \(KeyError: 'best_epoch'\)"):
        read_run(tmp_path)
