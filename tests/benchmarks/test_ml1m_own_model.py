"""``--model FILE.py:CLASS``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
GOOD = """
from __future__ import annotations

from dataclasses import dataclass

import torch

from tgrec.models import RecModel, SASRec
from tgrec.data import Sampling


@dataclass(frozen=True)
class Constants:  # dataclasses look their own module up
    scale: float = 2.0


class Mine(RecModel):
    def __init__(self, num_items, power: float = 1.0):
        super().__init__(num_items, power=power)
        self.sampling = Sampling(max_len=5)
        self.bias = torch.nn.Parameter(torch.zeros(num_items))

    def score(self, batch):
        return (Constants().scale * self.bias).expand(batch.user.numel(), -1)

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(self.score(batch), batch.item)


class NoModel:
    pass


number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "json.py"  # a name that a module of Python has
    path.write_text(GOOD)
    return path


def test_a_class_of_ones_own_is_trained_and_measured(file: Path, call: Call) -> None:
    before = sys.modules["json"]
    done = call(f"--models popularity {file}:Mine --epochs 3 --lr 0.1")
    assert done.code == 0
    assert done.folders == ["Mine-simulated-loo-T1-seed0", "popularity-simulated-loo-T1-seed0"]
    assert "Mine seed 0" in done.out
    assert sys.modules["json"] is before
    folder = done.runs / done.folders[0]
    again = call(f"--model {file}:Mine --eval-only --weights {folder}")
    assert again.code == 0
    # Another class of this name would have to be given the same way.
    assert "not one of ['SASRec']" in call(f"--model sasrec --eval-only --weights {folder}").error


def test_a_flag_that_it_does_not_have_is_refused(file: Path, call: Call) -> None:
    assert "--d_model: none of ['Mine'] has" in call(f"--model {file}:Mine --d_model 8").error


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{file}", "which class of it? Write {file}:CLASS"),
        ("{file}:Mien", "has no RecModel 'Mien'; did you mean 'Mine'?"),
        ("{file}:NoModel", "has no RecModel 'NoModel'"),
        ("{file}:number", "has no RecModel 'number'"),
        ("{file}:", "has no RecModel ''; there are ['Mine']"),
        ("{folder}/missing.py:Mine", "there is no file '{folder}/missing.py'"),
        ("{folder}:Mine", "is no name and no FILE.py:CLASS"),
    ],
)
def test_what_is_not_there_is_named(name: str, said: str, file: Path, call: Call) -> None:
    names = {"file": file, "folder": file.parent}
    done = call("--model", name.format(**names))
    assert said.format(**names) in done.error
    assert done.folders == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\n\nraise RuntimeError('by itself')\n", "(line 3: RuntimeError: by itself)"),
        ("def f(:\n", "(SyntaxError: invalid syntax"),
        ("import not_installed_anywhere\n", "No module named 'not_installed_anywhere'"),
        ("x = 1 / 0\n", "(line 1: ZeroDivisionError: division by zero)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(
    text: str, said: str, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    done = call(f"--model {path}:Mine")
    assert done.code == 2
    assert f"{path} cannot be imported" in done.error
    assert said in done.error
    assert done.folders == []
