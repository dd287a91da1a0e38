"""Trackers get every epoch, flat and numeric; packages that are not there are named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tgrec.data import Split
from tgrec.models import RecModel
from tgrec.training import TrainSettings, fit
from tgrec.training.trackers import mlflow, scalars, tensorboard, wandb

ENTRY = {"epoch": 3, "loss": 2.0, "losses": [1.5, 2.5], "val": {"NDCG@10": 0.25}, "note": "x"}
FLAT = {"loss": 2.0, "losses/0": 1.5, "losses/1": 2.5, "val/NDCG@10": 0.25}


def test_entries_are_flattened() -> None:
    assert scalars(ENTRY) == FLAT


def test_fit_calls_the_tracker_after_every_epoch(
    make: Callable[..., RecModel], split: Split, settings: TrainSettings
) -> None:
    entries: list[Any] = []
    result = fit(make(split), split, settings, show=False, tracker=entries.append)
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    assert entries == result.history


class Recorder(SimpleNamespace):
    """A package that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Recorder]:
        def call(*args: Any, **kwargs: Any) -> Recorder:
            self.calls.append((name, args, kwargs))
            return self

        return call


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Recorder()
    monkeypatch.setitem(sys.modules, "tensorboard", fake)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    tensorboard(tmp_path)(ENTRY)
    assert fake.calls[0] == ("SummaryWriter", (str(tmp_path),), {})
    assert fake.calls[1:-1] == [("add_scalar", (name, v, 3), {}) for name, v in FLAT.items()]
    assert fake.calls[-1][0] == "flush"


def test_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    wandb("films", mode="offline")(ENTRY)
    assert fake.calls == [
        ("init", (), {"project": "films", "reinit": True, "mode": "offline"}),
        ("log", (FLAT,), {"step": 3}),
    ]


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    mlflow("films", run_name="one")(ENTRY)
    assert fake.calls[:3] == [
        ("set_experiment", ("films",), {}),
        ("end_run", (), {}),
        ("start_run", (), {"run_name": "one"}),
    ]
    values = {name.replace("@", "_at_"): v for name, v in FLAT.items()}
    assert fake.calls[3:] == [("log_metrics", (values,), {"step": 3})]


@pytest.mark.parametrize("package", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    make = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}[package]
    with pytest.raises(ImportError, match=f"python -m pip install {package}"):
        make("x")
