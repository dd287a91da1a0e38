"""Several losses in one: weights, parts, learned uncertainty, what is reported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tgrec.nn.task_weights import TaskWeights

WEIGHTS = {"a": 1.0, "b": 0.3}


def terms(**values: tuple[float, float]) -> dict[str, tuple[Tensor, Tensor]]:
    return {k: (torch.tensor(s), torch.tensor(c)) for k, (s, c) in values.items()}


def test_the_loss_is_the_weighted_mean() -> None:
    sums, counts = TaskWeights(WEIGHTS)(terms(a=(20.0, 10.0), b=(50.0, 10.0)))
    assert float(sums.sum() / counts.sum()) == pytest.approx((1 * 2 + 0.3 * 5) / 1.3)
    assert (sums / counts).tolist() == pytest.approx([2.0, 5.0])  # each task's own mean


@pytest.mark.parametrize("learned", [False, True])
def test_parts_add_up(learned: bool) -> None:
    tasks = TaskWeights(WEIGHTS, learned)
    whole = tasks(terms(a=(9.0, 7.0), b=(5.0, 3.0)))
    one, two = tasks(terms(a=(2.0, 3.0), b=(1.0, 3.0))), tasks(terms(a=(7.0, 4.0), b=(4.0, 0.0)))
    for all_of_it, x, y in zip(whole, one, two, strict=True):
        torch.testing.assert_close(all_of_it, x + y)


def test_uncertainty_starts_at_the_weights_and_finds_its_minimum() -> None:
    tasks = TaskWeights(WEIGHTS, learned=True)
    assert tasks.monitor()["weight_b"] == pytest.approx(0.3)
    optimizer = torch.optim.Adam(tasks.parameters(), lr=0.05)
    for _ in range(400):
        sums, counts = tasks(terms(a=(40.0, 10.0), b=(1.0, 10.0)))
        optimizer.zero_grad()
        (sums.sum() / counts.sum()).backward()
        optimizer.step()
    # d/ds (e^-s L + s / 2) = 0 at e^-s = 1 / (2 L).
    found = tasks.monitor()
    assert found["weight_a"] == pytest.approx(1 / 8, rel=0.02)
    assert found["weight_b"] == pytest.approx(5.0, rel=0.02)


def test_the_monitor_means_over_an_epoch_and_starts_anew() -> None:
    tasks = TaskWeights(WEIGHTS)
    tasks(terms(a=(2.0, 1.0), b=(0.0, 0.0)))
    tasks(terms(a=(10.0, 3.0), b=(3.0, 6.0)))
    assert tasks.monitor() == pytest.approx({"loss_a": 3.0, "loss_b": 0.5})
    assert tasks.monitor() == {}
    tasks.eval()(terms(a=(2.0, 1.0), b=(0.0, 0.0)))
    assert tasks.monitor() == {}


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": float("nan")}])
def test_weights_are_positive(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="'weights' needs positive numbers"):
        TaskWeights(weights)
