"""Runs that go on where they were stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tgrec.data import Split
from tgrec.models import SASRec
from tgrec.models.io import CHECKSUM
from tgrec.training import FitResult, TrainSettings
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY

pytestmark = pytest.mark.usefixtures("no_litter")
Make = Callable[..., Any]


def untimed(result: FitResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in result.history]


def progress_of(folder: Path) -> dict[str, Any]:
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        saved: dict[str, Any] = json.loads(file.metadata()["progress"])
    return {k: v for k, v in saved.items() if "seconds" not in k}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(
    accumulate: int,
    tmp_path: Path,
    split: Split,
    settings: TrainSettings,
    interfering: Make,
    stop: Make,
    same_files: Make,
    run: Make,
) -> None:
    settings = replace(settings, accumulate=accumulate, warmup_steps=3, lr_decay="cosine")
    whole = interfering({}, dropout=0.3)
    expected = run(whole, split, settings, tmp_path / "whole")
    assert whole.steps == 9
    for step in range(1, 9):
        folder = tmp_path / f"step {step}"
        first = interfering({step: stop()}, dropout=0.3)
        assert run(first, split, settings, folder).stopped == "interrupted"
        # The next update of the weights: after every second batch, and after the third of an epoch.
        assert first.steps == (step if accumulate == 1 or step % 3 != 1 else step + 1)
        second = interfering({}, seed=99, dropout=0.3)  # its own weights must not matter
        result = run(second, split, settings, folder, resume=True)
        assert (result.stopped, result.best, result.best_epoch) == (
            "epochs", expected.best, expected.best_epoch,
        )  # fmt: skip
        assert untimed(result) == untimed(expected)
        assert all(
            torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True)
        )
        same_files(folder / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)
        assert progress_of(folder) == progress_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "windows"), [("bert4rec", "random"), ("tgt_bert4rec", "last"), ("sasrec", "all")]
)
def test_every_model_goes_on_to_the_same_bits(
    name: str,
    windows: Any,
    tmp_path: Path,
    split: Split,
    settings: TrainSettings,
    make: Make,
    same_files: Make,
    monkeypatch: pytest.MonkeyPatch,
    run: Make,
) -> None:
    settings = replace(settings, windows=windows)
    expected = run(make(split, name), split, settings, tmp_path / "whole")
    model, calls = make(split, name), 0
    terms = type(model).loss_terms

    def stopping(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
        return terms(self, batch)

    monkeypatch.setattr(type(model), "loss_terms", stopping)
    assert run(model, split, settings, tmp_path / "parts").stopped == "interrupted"
    result = run(make(split, name, seed=5), split, settings, tmp_path / "parts", resume=True)
    assert untimed(result) == untimed(expected)
    same_files(tmp_path / "parts" / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)


def test_a_finished_run_can_train_longer_unless_the_rate_falls_to_its_end(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, tmp_path: Path, run: Make
) -> None:
    expected = run(make(split), split, settings, tmp_path / "whole")
    result = run(make(split), split, settings, checkpoint, resume=True, patience=7)
    assert untimed(result) == untimed(expected)
    cosine = replace(settings, lr_decay="cosine")
    run(make(split), split, cosine, tmp_path / "cosine", epochs=1)
    with pytest.raises(ValueError, match=r"other settings \(epochs: 1 -> 3\)"):
        run(make(split), split, cosine, tmp_path / "cosine", resume=True)


def test_a_finished_run_is_not_trained_again(
    checkpoint: Path,
    split: Split,
    settings: TrainSettings,
    interfering: Make,
    make: Make,
    run: Make,
) -> None:
    once = make(split)
    first = run(once, split, settings, checkpoint, resume=True)
    again = interfering({})
    again.__class__ = SASRec  # the class is part of what must agree
    result = run(again, split, settings, checkpoint, resume=True)
    assert again.steps == 0
    assert untimed(result) == untimed(first)
    assert all(
        torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True)
    )


def test_the_history_may_be_an_epoch_ahead_of_the_checkpoint(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, run: Make
) -> None:
    before = (checkpoint / HISTORY).read_text()
    (checkpoint / HISTORY).write_text(before + '{"epoch": 2, "loss": 0.0}\n')
    result = run(make(split), split, settings, checkpoint, resume=True)
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    assert result.history[1]["loss"] > 0
    assert (checkpoint / HISTORY).read_text().startswith(before)


def test_a_checkpoint_of_a_version_without_checksums_is_gone_on_with(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, tmp_path: Path, run: Make
) -> None:
    path = checkpoint / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about.pop(CHECKSUM).startswith("sha256:")
    save_file(load_file(path), path, metadata=about)
    expected = run(make(split), split, settings, tmp_path / "whole")
    assert untimed(run(make(split), split, settings, checkpoint, resume=True)) == untimed(expected)
