from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, Split, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models import RecModel
from tgrec.models.io import parameters_copy
from tgrec.sampler import EventIndex
from tgrec.testing import block_graph, scramble_future
from tgrec.training import FitResult, NotFiniteError, TrainSettings, evaluate, fit
from tgrec.training import fit as fit_function
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY

Make = Callable[..., Any]
module = __import__(fit_function.__module__, fromlist=["fit"])


@pytest.fixture
def quiet(split: Split, settings: TrainSettings) -> Callable[..., FitResult]:
    """``quiet(model, epochs=5)`` on the common split."""
    return lambda model, **kwargs: fit(model, split, settings, show=False, **kwargs)


class Scripted:
    """Stands in for ``evaluate``: answers with the values given, keeps the weights it was shown."""

    def __init__(self, values: list[float]) -> None:
        self.values, self.shown = values, []  # type: tuple[list[float], list[dict[str, Tensor]]]

    def __call__(self, model: RecModel, *args: Any, **kwargs: Any) -> Scripted:
        self.shown.append(parameters_copy(model))
        return self

    def metrics(self) -> dict[str, dict[str, float]]:
        return {"full": {"NDCG@10": self.values[len(self.shown) - 1]}}


def holds(model: RecModel, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


# ---- which weights, and when it ends ----------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "limits", "epochs", "best_epoch", "stopped"),
    [
        ([0.1, 0.3, 0.3, 0.2, 0.9], {"epochs": 9, "patience": 2}, 4, 2, "patience"),  # a tie waits
        ([0.1, 0.2, 0.3], {"epochs": 3, "patience": 2}, 3, 3, "epochs"),
        ([0.4, 0.3, 0.2, 0.5], {"epochs": 4, "patience": 3}, 4, 4, "epochs"),
        ([0.3, 0.2, 0.1], {"epochs": 9, "patience": 2, "eval_every": 2}, 6, 2, "patience"),
        ([0.1, 0.2, 0.3], {"epochs": 5, "patience": 9, "eval_every": 2}, 5, 5, "epochs"),
        ([0.0, 0.0], {"epochs": 9, "patience": 1}, 2, 1, "patience"),
        ([math.nan, 0.1, math.nan], {"epochs": 3}, 3, 2, "epochs"),
    ],
)
def test_the_best_weights_are_left_in_the_model(
    values: list[float],
    limits: dict[str, int],
    epochs: int,
    best_epoch: int,
    stopped: str,
    quiet: Make,
    make: Make,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted, model = Scripted(values), make(split)
    monkeypatch.setattr(module, "evaluate", scripted)
    result = quiet(model, **limits)
    assert (result.epochs, result.best_epoch, result.stopped) == (epochs, best_epoch, stopped)
    assert len(result.history) == epochs
    measured = [entry["epoch"] for entry in result.history if "val" in entry]
    assert result.best == values[measured.index(best_epoch)]
    assert holds(model, scripted.shown[measured.index(best_epoch)])
    if best_epoch != epochs:
        assert not holds(model, scripted.shown[-1])
    assert 0 <= result.seconds_to_best <= result.seconds
    assert result.seconds_per_epoch * epochs <= result.seconds


def test_what_training_cannot_learn_is_chosen_with_the_best_weights_in_place(
    quiet: Make, make: Make, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted, model = Scripted([0.1, 0.3, 0.2, 0.5, 0.4]), make(split)
    told: list[float] = []
    monkeypatch.setattr(module, "evaluate", scripted)
    monkeypatch.setattr(model, "choose", lambda measure: told.extend((measure(), measure())))
    result = quiet(model, epochs=3, patience=9)
    assert told == [0.5, 0.4]
    assert all(holds(model, shown) for shown in (scripted.shown[1], *scripted.shown[3:]))
    assert (result.best, result.best_epoch) == (0.5, 2)
    assert [entry["val"]["NDCG@10"] for entry in result.history] == [0.1, 0.3, 0.2]


def test_an_interrupted_run_chooses_nothing(
    interfering: Make, quiet: Make, stop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interfering({5: stop(signal.SIGINT)})
    asked: list[bool] = []
    monkeypatch.setattr(model, "choose", lambda measure: asked.append(True))
    assert quiet(model).stopped == "interrupted"
    assert not asked


def test_it_learns_and_its_best_value_can_be_measured_again(
    quiet: Make, make: Make, split: Split
) -> None:
    model = make(split)
    result = quiet(model, epochs=12)
    again = evaluate(model, split, split.val, sampled=False).metrics()["full"]["NDCG@10"]
    assert result.best == pytest.approx(again, abs=1e-12)
    assert result.best == max(entry["val"]["NDCG@10"] for entry in result.history)
    losses = [entry["loss"] for entry in result.history]
    assert losses[0] == pytest.approx(math.log(24), rel=0.1)  # a fresh model knows nothing
    assert losses[-1] < 0.7 * losses[0]
    assert result.best > 0.8


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    quiet: Make, make: Make, split: Split
) -> None:
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(sum(map(len, str(runs))))  # whatever was drawn before does not matter
        model = make(split)
        runs.append((quiet(model, seed=seed).history, parameters_copy(model)))
    (first, weights), (second, same), (_, other) = runs
    assert [e["loss"] for e in first] == [e["loss"] for e in second]
    assert all(torch.equal(weights[k], same[k]) for k in weights)
    assert not all(torch.equal(weights[k], other[k]) for k in weights)


def test_models_that_only_count_pass_through(
    quiet: Make, make: Make, split: Split, tmp_path: Path
) -> None:
    model = make(split, "markov")
    batch = SeedLoader(EventIndex(split.graph), model.sampling).batch(split.val)
    before = model.score(batch)
    result = quiet(model)
    assert (result.stopped, result.epochs, result.history) == ("no parameters", 0, [])
    assert torch.equal(model.score(batch), before)
    with pytest.raises(ValueError, match="'resume': SkipMarkov has no parameters.*leave it out"):
        quiet(model, folder=tmp_path, resume=True)


# ---- what it reads ----------------------------------------------------------------------------


def other_future(split: Split) -> Split:
    """The same training events, everything held out replaced: items, times, who comes next."""
    held_out = torch.cat([split.val.cut, split.test.cut])
    graph = scramble_future(split.graph, 0, seed=3)
    targets = replace(split.val, item=(split.val.item + 11) % split.graph.num_items)
    assert not torch.isin(split.train[split.train.interaction_types[0]].event_id, held_out).any()
    return Split(graph, split.train, targets, targets)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "tgt_bert4rec"])
def test_training_reads_no_held_out_event(
    name: str, split: Split, make: Make, settings: TrainSettings
) -> None:
    once = replace(settings, eval_every=3)  # one measurement, so the last weights are the best
    model, other = make(split, name), make(split, name)
    result = fit(model, split, once, show=False)
    moved = fit(other, other_future(split), once, show=False)
    assert [e["loss"] for e in result.history] == [e["loss"] for e in moved.history]
    assert result.best != moved.best  # the other future was looked at, for choosing weights
    assert holds(model, parameters_copy(other))


def test_the_detector_sees_a_planted_leak(
    split: Split, make: Make, settings: TrainSettings
) -> None:
    leaking = replace(split, train=split.graph)
    model, other = make(split), make(split)
    once = replace(settings, eval_every=3)
    fit(model, split, once, show=False)
    fit(other, leaking, once, show=False)
    assert not holds(model, parameters_copy(other))


def test_the_test_targets_are_never_asked(
    split: Split, make: Make, quiet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = module.evaluate

    def watching(model: RecModel, split: Split, targets: Any, **kwargs: Any) -> Any:
        asked.append(targets)
        return real(model, split, targets, **kwargs)

    monkeypatch.setattr(module, "evaluate", watching)
    quiet(make(split))
    assert len(asked) == 3
    assert all(targets is split.val for targets in asked)


# ---- the update -------------------------------------------------------------------------------


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces Adam by gradient descent with rate 1, so that a step is minus the gradient."""
    descent = lambda model, settings: torch.optim.SGD(model.parameters(), lr=1.0)  # noqa: E731
    monkeypatch.setattr(module, "adam", descent)
    monkeypatch.setattr(TrainSettings, "lr_at", lambda self, step, total: 1.0)


def step_of(model: RecModel, split: Split, **settings: Any) -> Tensor:
    """All parameters' change in one epoch, flat."""
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    fit(model, split, epochs=1, precision="fp32", show=False, **settings)
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "tgt_bert4rec"])
def test_two_half_batches_make_the_gradient_of_one(name: str, make: Make) -> None:
    split = leave_one_out(block_graph())  # histories of one length: halves of one weight
    kwargs = {"dropout": 0.0, **({} if name == "sasrec" else {"mask_prob": 0.0})}
    whole = step_of(make(split, name, **kwargs), split, batch_size=48, clip=0.0)
    halves = step_of(make(split, name, **kwargs), split, batch_size=24, clip=0.0, accumulate=2)
    assert whole.norm() > 1e-2
    torch.testing.assert_close(halves, whole, atol=1e-6, rtol=1e-5)
    apart = step_of(make(split, name, **kwargs), split, batch_size=24, clip=0.0)
    assert (apart - whole).norm() > 0.1 * whole.norm()


@pytest.mark.usefixtures("plain_descent")
def test_clipping_shortens_the_gradient_and_keeps_its_direction(make: Make, split: Split) -> None:
    free = step_of(make(split, dropout=0.0), split, batch_size=48, clip=0.0)
    clipped = step_of(make(split, dropout=0.0), split, batch_size=48, clip=0.01)
    wide = step_of(make(split, dropout=0.0), split, batch_size=48, clip=1e3)
    assert free.norm() > 0.02
    assert clipped.norm() == pytest.approx(0.01, rel=1e-4)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wide, free)


class Still(RecModel):
    """A matrix and a vector that the loss does not move."""

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.sampling = Sampling()
        self.matrix, self.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

    def score(self, batch: RecBatch) -> Tensor:
        return torch.zeros(batch.user.numel(), self.num_items)

    def loss(self, batch: RecBatch) -> Tensor:
        return (self.matrix.sum() + self.vector.sum()) * 0.0


def test_weight_decay_shrinks_matrices_only(split: Split) -> None:
    model = Still.from_graph(split.train)
    result = fit(model, split, epochs=1, batch_size=10**6, lr=0.1, weight_decay=0.5, show=False)
    assert result.history[0]["loss"] == 0.0
    torch.testing.assert_close(model.matrix.detach(), torch.full((2, 2), 1 - 0.1 * 0.5))
    assert torch.equal(model.vector.detach(), torch.ones(2))
    fit(model, split, epochs=1, batch_size=10**6, lr=0.1, show=False)
    torch.testing.assert_close(model.matrix.detach(), torch.full((2, 2), 0.95))


def test_the_learning_rate_follows_its_formula_step_by_step(
    make: Make, split: Split, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = replace(settings, lr=1.0, warmup_steps=4, lr_decay="cosine", accumulate=2)
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watching(self: Any, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        assert len({group["lr"] for group in self.param_groups}) == 1
        for group in self.param_groups:
            group["lr"] *= 0.01
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watching)
    fit(make(split), split, falling, show=False)
    # Three batches an epoch, updates after the second and the third.
    assert rates == pytest.approx([falling.lr_at(s, 9) for s in (1, 2, 4, 5, 7, 8)])
    assert rates[:2] == pytest.approx([0.5, 0.75])


# ---- losses that are no numbers ---------------------------------------------------------------


def test_nan_names_the_step_and_keeps_the_best_weights(
    tmp_path: Path, interfering: Make, quiet: Make
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


def test_a_gradient_that_is_no_number_changes_nothing(interfering: Make, quiet: Make) -> None:
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
    number: int, tmp_path: Path, interfering: Make, quiet: Make, stop: Make
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


# ---- bad input --------------------------------------------------------------------------------


def test_bad_calls_say_what_is_wrong(make: Make, split: Split, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="epoch"):
        fit(make(split), split, epoch=3)
    with pytest.raises(ValueError, match="'epochs' needs to be a positive integer .got 0."):
        fit(make(split), split, epochs=0)
    alone = replace(split, train=split.train.before(3))  # three users with one event each
    with pytest.raises(ValueError, match="no user has two training events"):
        fit(make(split), alone, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
