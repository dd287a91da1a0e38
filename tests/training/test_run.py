from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tgrec.data import RecBatch, Split
from tgrec.metrics import group_summaries, length_groups, summarize
from tgrec.models import MODELS, SASRec, load_model
from tgrec.models.io import CONFIG as MODEL_CONFIG
from tgrec.training import (
    NotFiniteError,
    RankedRun,
    Task,
    TrainingInterrupted,
    TrainSettings,
    evaluate,
    latest_folder,
    new_folder,
    read_ranks,
    run,
)
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY
from tgrec.training.run import CONFIG, METRICS, MODEL, RANKS

pytestmark = pytest.mark.usefixtures("no_litter")
Make = Callable[..., Any]
FILES = {CONFIG, HISTORY, CHECKPOINT, METRICS, RANKS, MODEL}


@pytest.fixture(scope="module")
def task(split: Split) -> Task:
    return Task("toy-loo", "SIMULATED (a cycle)", "c0ffee", split, remove_seen=True)


@pytest.fixture
def finished(tmp_path: Path, task: Task, settings: TrainSettings, make: Make) -> RankedRun:
    model = make(task.split)
    return run("sasrec", model, task, settings, tmp_path, show=False, extra={"options": {"a": 1}})


def read(path: Path) -> Any:
    return json.loads(path.read_text())


class Precise(SASRec):
    """Notes for each batch that it trains on or scores whether products are in bfloat16."""

    heard: dict[bool, set[bool]]

    def _note(self, training: bool) -> None:
        self.heard.setdefault(training, set()).add(torch.is_autocast_enabled("cpu"))

    def loss_terms(self, batch: RecBatch) -> tuple[torch.Tensor, torch.Tensor]:
        self._note(True)
        return super().loss_terms(batch)

    def score(self, batch: RecBatch) -> torch.Tensor:
        self._note(False)
        return super().score(batch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("train", [True, False])
def test_the_test_is_measured_in_fp32_whatever_training_and_validation_run_in(
    precision: Any, train: bool, task: Task, settings: TrainSettings, tmp_path: Path
) -> None:
    model = Precise.from_graph(task.split.train, d_model=16, d_ff=16, max_len=8)
    model.heard = {}
    settings = replace(settings, precision=precision, epochs=1)
    run("precise", model, task, settings, tmp_path, train=train, show=False)
    # Training hears only its own precision; outside of it validation does too, the test is exact.
    own = precision == "bf16"
    assert model.heard == ({True: {own}, False: {own, False}} if train else {False: {False}})


# ---- what a run leaves ------------------------------------------------------------------------


def test_the_folder_holds_everything_and_no_more(finished: RankedRun, tmp_path: Path) -> None:
    assert {p.name for p in tmp_path.iterdir()} == FILES
    config = read(tmp_path / CONFIG)
    assert config["data"] == "SIMULATED (a cycle)"
    assert config["data_checksum"] == "c0ffee"
    assert config["settings"]["lr"] == 1e-2
    assert config["model_config"]["d_model"] == 16
    assert config["options"] == {"a": 1}
    assert {"torch", "python", "numpy", "tgrec"} <= config["versions"].keys()
    assert {"command", "commit", "dirty", "hardware", "date"} <= config.keys()
    entries = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    assert all({"loss", "lr", "val", "seconds"} <= entry.keys() for entry in entries)


def test_metrics_json_has_the_keys_of_the_protocol(finished: RankedRun, tmp_path: Path) -> None:
    metrics = read(tmp_path / METRICS)
    assert metrics["protocol"] == "toy-loo T1"
    assert metrics["data"] == "SIMULATED (a cycle)"
    assert metrics["metrics"].keys() == {"full", "uniform-100", "popularity-100", "uniform-28"}
    assert {"NDCG@10", "HR@10", "MRR"} <= metrics["metrics"]["full"].keys()
    assert metrics["groups"]["<=50"]["users"] == 48
    assert metrics["params"] == finished.record.parameters > 0
    assert (metrics["seed"], metrics["epochs"]) == (0, 3)
    assert 1 <= metrics["best_epoch"] <= 3
    assert 0 < metrics["seconds_to_best"] <= metrics["fit"]["seconds"]
    assert 0 < metrics["seconds_per_epoch"] * 3 <= metrics["fit"]["seconds"]
    assert metrics["peak_memory_mb"] > 50
    assert 0 <= metrics["validation"]["NDCG@10"] <= 1
    assert finished.record.metrics == metrics["metrics"]
    assert finished.record.settings["d_model"] == 16
    assert finished.record.settings["batch_size"] == 16


def test_every_figure_can_be_had_again_from_the_ranks(
    finished: RankedRun, tmp_path: Path, task: Task
) -> None:
    metrics, ranks = read(tmp_path / METRICS), read_ranks(tmp_path / RANKS)
    assert {name: summarize(values) for name, values in ranks.items()} == metrics["metrics"]
    with np.load(tmp_path / RANKS, allow_pickle=False) as arrays:
        length = length_groups(torch.from_numpy(arrays["history_length"]))
        for name in ("user", "item", "cut"):
            assert arrays[name].tolist() == getattr(task.split.test, name).tolist()
    groups = read_ranks(tmp_path / RANKS, "group")
    assert all(torch.equal(groups[name], mask) for name, mask in length.items())
    assert group_summaries(ranks["full"], groups) == metrics["groups"]
    assert all(torch.equal(groups[name], finished.groups[name]) for name in groups)
    assert all(torch.equal(ranks[name], finished.ranks[name]) for name in ranks)


def test_the_model_loads_anywhere_and_measures_the_same(
    finished: RankedRun, tmp_path: Path, task: Task, make: Make, settings: TrainSettings
) -> None:
    (tmp_path / MODEL).rename(tmp_path / "moved")
    loaded = load_model(tmp_path / "moved", MODELS, catalogue="c0ffee")
    again = evaluate(loaded, task.split, task.split.test)
    assert again.metrics() == finished.record.metrics
    assert read(tmp_path / "moved" / MODEL_CONFIG)["board"] == "toy-loo"
    # The same through a run that only evaluates.
    out = new_folder(tmp_path, "again")
    ranked = run("sasrec", loaded, task, settings, out, train=False, show=False)
    assert ranked.record.metrics == finished.record.metrics
    assert (ranked.record.epochs, ranked.record.seconds_per_epoch) == (0, None)
    assert {p.name for p in out.iterdir()} == {CONFIG, METRICS, RANKS, MODEL}
    assert read(out / METRICS)["fit"]["stopped"] == "not trained"


def test_counting_models_leave_a_folder_too(
    tmp_path: Path, task: Task, settings: TrainSettings, make: Make
) -> None:
    ranked = run("markov", make(task.split, "markov"), task, settings, tmp_path, show=False)
    assert {p.name for p in tmp_path.iterdir()} == {CONFIG, METRICS, RANKS, MODEL}
    metrics = read(tmp_path / METRICS)
    assert (metrics["epochs"], metrics["params"], metrics["validation"]) == (
        0,
        0,
        {"NDCG@10": None},
    )
    assert ranked.record.metrics["full"]["HR@10"] == 1.0  # the cycle is what it counts
    (tmp_path / METRICS).unlink()  # killed while it was measured, for example
    again = run("markov", make(task.split, "markov"), task, settings, tmp_path, show=False,
                resume=True)  # fmt: skip
    assert again.record.metrics == ranked.record.metrics
    assert (tmp_path / METRICS).is_file()


# ---- runs that do not end as planned ----------------------------------------------------------


def test_an_interrupted_run_asks_the_test_only_when_it_was_resumed(
    tmp_path: Path, task: Task, settings: TrainSettings, interfering: Make, stop: Make
) -> None:
    whole = run("m", interfering({}), task, settings, tmp_path / "whole", show=False)
    said = r"interrupted in epoch 2, validation NDCG@10 \d\.\d{4} so far \(epoch 1\)"
    with pytest.raises(TrainingInterrupted, match=said):
        run("m", interfering({5: stop()}), task, settings, tmp_path / "part", show=False)
    assert {p.name for p in (tmp_path / "part").iterdir()} == FILES - {METRICS, RANKS}
    rest = run("m", interfering({}), task, settings, tmp_path / "part", resume=True, show=False)
    assert rest.record.metrics == whole.record.metrics
    assert rest.record.epochs == 3
    times = ("seconds_per_epoch", "seconds_to_best", "peak_memory_mb", "fit")
    both = [read(tmp_path / name / METRICS) for name in ("whole", "part")]
    assert {k: v for k, v in both[0].items() if k not in times} == {
        k: v for k, v in both[1].items() if k not in times
    }


def test_a_finished_run_that_goes_on_and_is_interrupted_keeps_no_old_figures(
    tmp_path: Path, task: Task, settings: TrainSettings, interfering: Make, stop: Make
) -> None:
    run("m", interfering({}), task, settings, tmp_path, show=False)
    longer = replace(settings, epochs=5)
    with pytest.raises(TrainingInterrupted, match="interrupted in epoch 4"):
        run("m", interfering({2: stop()}), task, longer, tmp_path, resume=True, show=False)
    assert {p.name for p in tmp_path.iterdir()} == FILES - {METRICS, RANKS}


def test_before_the_first_measurement_there_are_no_best_weights(
    tmp_path: Path, task: Task, settings: TrainSettings, interfering: Make, stop: Make
) -> None:
    with pytest.raises(TrainingInterrupted, match="in epoch 1, nothing measured yet"):
        run("m", interfering({2: stop()}), task, settings, tmp_path, show=False)
    assert {p.name for p in tmp_path.iterdir()} == {CONFIG, HISTORY, CHECKPOINT}


def test_a_resume_that_does_not_fit_changes_no_file(
    finished: RankedRun, tmp_path: Path, task: Task, settings: TrainSettings, make: Make
) -> None:
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="other settings .lr: 0.01 -> 0.5."):
        run("sasrec", make(task.split), task, replace(settings, lr=0.5), tmp_path, resume=True,
            show=False)  # fmt: skip
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("step", "kept"), [(2, False), (8, True)])
def test_nan_leaves_the_best_model_if_there_is_one_and_no_figures(
    step: int, kept: bool, tmp_path: Path, task: Task, settings: TrainSettings, interfering: Make
) -> None:
    model = interfering({step: lambda model, loss: loss * float("nan")})
    with pytest.raises(NotFiniteError, match=f"step {(step - 1) % 3 + 1} of 3"):
        run("m", model, task, settings, tmp_path, show=False)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == ({CONFIG, HISTORY, CHECKPOINT, MODEL} if kept else {CONFIG})
    if kept:
        loaded = load_model(tmp_path / MODEL, {"m": type(model)})
        lines = (tmp_path / HISTORY).read_text().splitlines()
        best = max(json.loads(line)["val"]["NDCG@10"] for line in lines)
        value = evaluate(loaded, task.split, task.split.val, sampled=False).metrics()["full"]
        assert value["NDCG@10"] == pytest.approx(best, abs=1e-12)


# ---- folders ----------------------------------------------------------------------------------


def test_no_run_writes_into_the_folder_of_another(tmp_path: Path) -> None:
    names = [new_folder(tmp_path / "runs", "sasrec-seed1").name for _ in range(3)]
    assert names == ["sasrec-seed1", "sasrec-seed1-2", "sasrec-seed1-3"]


RACE = """
import os, sys
from tgrec.training.run import new_folder
if os.fork() == 0:
    name = "child"
else:
    name = "parent"
for _ in range(40):
    (new_folder(sys.argv[1], "run") / name).touch(exist_ok=False)
if name == "parent":
    os.wait()
"""


@pytest.mark.timeout(200)
def test_two_processes_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], check=True, timeout=190)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 80
    owners = [[p.name for p in folder.iterdir()] for folder in folders]
    assert sorted(owners) == [["child"]] * 40 + [["parent"]] * 40


def test_the_newest_folder_of_a_name_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    for _ in range(11):
        new_folder(tmp_path, "sasrec-seed1")
    assert latest_folder(tmp_path, "sasrec-seed1").name == "sasrec-seed1-11"


@pytest.mark.parametrize(
    "other", ["sasrec-seed10", "sasrec-seed1x", "sasrec-seed1-", "a-sasrec-seed1"]
)
def test_folders_of_other_runs_are_never_resumed(other: str, tmp_path: Path) -> None:
    (tmp_path / other).mkdir()
    (tmp_path / "sasrec-seed1-9").touch()  # not a folder
    with pytest.raises(FileNotFoundError, match="no run 'sasrec-seed1' .*without --resume"):
        latest_folder(tmp_path, "sasrec-seed1")
    with pytest.raises(FileNotFoundError, match="no run"):
        latest_folder(tmp_path / "nowhere", "sasrec-seed1")
