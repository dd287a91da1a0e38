"""Losses that are no numbers, where figures are read back once an epoch only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import Split
from tgrec.models.io import parameters_copy
from tgrec.training import NotFiniteError, TrainSettings, fit
from tgrec.training.tally import DeviceTally, HostTally, NotANumberError

Make = Callable[..., Any]


@pytest.mark.usefixtures("on_cuda")
def test_nan_names_the_step_and_moves_nothing_from_there(
    interfering: Make, split: Split, tmp_path: Path, exact: TrainSettings
) -> None:
    kept: dict[str, Tensor] = {}
    at = {
        2: lambda model, loss: loss * math.nan,
        3: lambda model, loss: loss * math.inf,
    }
    settings = replace(exact, batch_size=16, windows="last")
    model = interfering(at)
    with pytest.raises(NotFiniteError, match="the loss is not finite at epoch 1, step 2 of 3; no"):
        fit(model, split, settings, show=False)
    # The step before was the last that moved anything.
    first = interfering({2: lambda model, loss: kept.update(parameters_copy(model))})
    fit(first, split, replace(settings, epochs=1), show=False)
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters())

    later = interfering({8: at[2]})
    with pytest.raises(NotFiniteError, match="not finite at epoch 3, step 2 of 3; the best") as got:
        fit(later, split, settings, folder=tmp_path, show=False)
    assert got.value.best_epoch in (1, 2)
    again = fit(interfering({}), split, settings, folder=tmp_path, resume=True, show=False)
    assert again.epochs == 4


@pytest.mark.usefixtures("on_cuda")
def test_a_gradient_that_is_no_number_is_told_from_a_loss(
    interfering: Make, split: Split, exact: TrainSettings
) -> None:
    steep = {2: lambda model, loss: loss + (model.item[0, 0] * 0.0).abs().sqrt()}
    settings = replace(exact, batch_size=16, windows="last")
    with pytest.raises(NotFiniteError, match="the gradient is not finite at epoch 1, step 2 of 3"):
        fit(interfering(steep), split, settings, show=False)


def test_both_tallies_say_the_same() -> None:
    for tally in (HostTally(), DeviceTally(torch.device("cpu"))):
        for before in ([], [1.5, 2.0]):
            tally.start(3, list(before), [2.0, 1.0][: len(before)])
            for n in (1.0, 2.0):
                tally.check_loss(torch.tensor(n))
                tally.check_gradient(torch.tensor(n))
                tally.add(torch.tensor([n, 2 * n]).double(), torch.tensor([1.0, n]).double())
            sums, counts = tally.read()
            assert sums == ([3.0, 6.0] if not before else [4.5, 8.0])
            assert counts == ([2.0, 3.0] if not before else [4.0, 4.0])
    assert DeviceTally(torch.device("cpu")).read() == ([], [])


@pytest.mark.parametrize(
    ("losses", "norms", "said", "step"),
    [
        ([1.0, math.nan, 1.0], [1.0, math.nan, math.nan], "the loss is not finite", 2),
        ([1.0, 1.0, math.inf], [1.0, math.nan, 1.0], "the gradient is not finite", 2),
        ([1.0, 1.0, 1.0], [math.inf, 1.0, 1.0], "the gradient is not finite", 1),
    ],
)
def test_the_first_step_that_went_wrong_is_named(
    losses: list[float], norms: list[float], said: str, step: int
) -> None:
    tally = DeviceTally(torch.device("cpu"))
    tally.start(0, [], [])
    for n, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        tally.check_loss(torch.tensor(loss))
        tally.check_gradient(torch.tensor(norm))
        tally.add(torch.ones(1).double(), torch.ones(1).double())
        assert float(tally.bad) == (n >= step)  # for good
    with pytest.raises(NotANumberError, match=said) as caught:
        tally.read()
    assert caught.value.step == step
    tally.start(0, [], [])
    tally.add(torch.ones(1).double(), torch.ones(1).double())
    assert tally.read() == ([1.0], [1.0])
