"""Losses that are no numbers, and being told to stop."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tgrec.data import Split
from tgrec.models.io import parameters_copy
from tgrec.training import FitResult, NotFiniteError
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY

Make = Callable[..., Any]


# ---- losses that are no numbers ---------------------------------------------------------------


def test_nan_names_the_step_and_keeps_the_best_weights(
    tmp_path: Path, interfering: Make, quiet: Make, holds: Make
) -> None:
    kept: dict[int, dict[str, Tensor]] = {}
    at = {  # as epochs 1 and 2 left them
        4: lambda model, loss: kept.update({1: parameters_copy(model)}),
        7: lambda model, loss: kept.update({2: parameters_copy(model)}),
        8: lambda model, loss: loss * math.nan,
    }
    model = interfering(at)
    with pytest.raises(NotFiniteError) as caught:
        quiet(model, folder=tmp_path, epochs=5)
    assert str(caught.value).startswith("the loss is nan at epoch 3, step 2 of 3; ")
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, HISTORY]
    history = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    reached = {entry["epoch"]: entry["val"]["NDCG@10"] for entry in history}
    assert list(reached) == [1, 2]
    best = max(reached, key=lambda epoch: reached[epoch])
    assert f"the best weights (epoch {best}) are kept" in str(caught.value)
    assert "lr=0.01" in str(caught.value)
    assert caught.value.best_epoch == best
    assert holds(model, kept[best])
    assert not holds(model, kept[3 - best])
    # The checkpoint is the last good one, so a run that did not meet the NaN goes on from it.
    assert quiet(interfering({}), folder=tmp_path, epochs=5, resume=True).epochs == 5


@pytest.mark.parametrize("batch_size", [16, 10**6])  # three steps an epoch, or one
def test_a_learning_rate_far_too_large_is_found_out(
    batch_size: int, make: Make, split: Split, quiet: Make
) -> None:
    with pytest.raises(NotFiniteError, match="epoch 1.*no weights were measured") as caught:
        quiet(make(split), lr=1e30, batch_size=batch_size)
    assert caught.value.best_epoch == 0


def test_a_gradient_that_is_no_number_changes_nothing(
    interfering: Make, quiet: Make, holds: Make
) -> None:
    before: dict[str, Tensor] = {}

    def bad(model: Any, loss: Tensor) -> Tensor:
        before.update(parameters_copy(model))
        return loss + (model.item[0, 0] * 0.0).abs().sqrt()  # 0, with an infinite slope

    model = interfering({2: bad})
    with pytest.raises(NotFiniteError, match="the gradient is not finite at epoch 1, step 2 of 3"):
        quiet(model)
    assert holds(model, before)


# ---- being told to stop -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_step_with_the_best_weights(
    number: int, tmp_path: Path, interfering: Make, quiet: Make, stop: Make, holds: Make
) -> None:
    handler, kept = signal.getsignal(number), {}  # type: Any, dict[str, Tensor]
    at = {4: lambda model, loss: kept.update(parameters_copy(model)), 5: stop(number)}
    model = interfering(at)
    result = quiet(model, folder=tmp_path)
    assert (result.stopped, result.epochs, result.best_epoch, model.steps) == (
        "interrupted",
        1,
        1,
        5,
    )
    assert holds(model, kept)
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_acts_at_once(
    second: int, interfering: Make, quiet: Make, stop: Make
) -> None:
    class Killed(Exception):
        pass

    def die(number: int, frame: Any) -> None:
        raise Killed

    before = {n: signal.signal(n, die) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        # Both within one step, so that the first one has had no chance to end it.
        def twice(model: Any, loss: Tensor) -> None:
            stop(signal.SIGINT)(model, loss)
            stop(second)(model, loss)

        model = interfering({2: twice})
        with pytest.raises(Killed):
            quiet(model)
        assert model.steps == 2
        assert signal.getsignal(second) is die
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_epochs_of_one_step_can_be_stopped_too(
    interfering: Make, quiet: Make, stop: Make, tmp_path: Path
) -> None:
    model = interfering({2: stop()})
    result = quiet(model, batch_size=10**6, epochs=12, folder=tmp_path)
    assert (result.stopped, result.epochs, model.steps) == ("interrupted", 2, 2)
    assert quiet(interfering({}), batch_size=10**6, epochs=12, folder=tmp_path, resume=True,
                 patience=50).epochs == 12  # fmt: skip


def test_it_trains_outside_the_main_thread(quiet: Make, make: Make, split: Split) -> None:
    results: list[FitResult] = []
    thread = threading.Thread(target=lambda: results.append(quiet(make(split))))
    thread.start()
    thread.join()
    assert results[0].epochs == 3
