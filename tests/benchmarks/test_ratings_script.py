"""``benchmarks/ratings.py``: the errors of a run's model beside those of what needs none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.models import EnhancedBERT4Rec, load_model
from tgrec.training import rating_rmse

Call = Callable[..., Any]


@pytest.fixture
def script(ml1m: ModuleType) -> ModuleType:
    return importlib.import_module("ratings")


def test_a_run_is_measured_on_its_own_board(
    script: ModuleType, call: Call, tiny: TemporalRecGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call("--model enhanced_bert4rec", small=True)
    (name,) = done.folders
    script.main(done.runs / name)
    printed = capsys.readouterr().out
    split = leave_one_out(tiny)
    model = load_model(
        done.runs / name / "model", {"EnhancedBERT4Rec": EnhancedBERT4Rec}, train=split.train
    ).eval()
    wanted = rating_rmse(model, split, split.test)
    for kind in ("model", "mean", "bias"):
        assert f"{wanted[kind]:.4f}" in printed
    assert f"{len(split.test)} ratings" in printed


def test_models_without_a_rating_head_are_refused(script: ModuleType, call: Call) -> None:
    done = call("--model sasrec", small=True)
    with pytest.raises(ValueError, match="is a SASRec without a rating head; only enhanced"):
        script.main(done.runs / done.folders[0])
