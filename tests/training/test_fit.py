"""Which weights training leaves, and what it reads."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import Split
from tgrec.loader import SeedLoader
from tgrec.models import RecModel
from tgrec.models.io import parameters_copy
from tgrec.sampler import EventIndex
from tgrec.testing import scramble_future
from tgrec.training import TrainSettings, evaluate, fit
from tgrec.training import fit as fit_function

Make = Callable[..., Any]
module = __import__(fit_function.__module__, fromlist=["fit"])


class Scripted:
    """Stands in for ``evaluate``: answers with the values given, keeps the weights it was shown."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.shown: list[dict[str, Tensor]] = []

    def __call__(self, model: RecModel, *args: Any, **kwargs: Any) -> Scripted:
        self.shown.append(parameters_copy(model))
        return self

    def metrics(self) -> dict[str, dict[str, float]]:
        return {"full": {"NDCG@10": self.values[len(self.shown) - 1]}}


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
    holds: Make,
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
    quiet: Make, make: Make, split: Split, monkeypatch: pytest.MonkeyPatch, holds: Make
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
    name: str, split: Split, make: Make, settings: TrainSettings, holds: Make
) -> None:
    once = replace(settings, eval_every=3)  # one measurement, so the last weights are the best
    model, other = make(split, name), make(split, name)
    result = fit(model, split, once, show=False)
    moved = fit(other, other_future(split), once, show=False)
    assert [e["loss"] for e in result.history] == [e["loss"] for e in moved.history]
    assert result.best != moved.best  # the other future was looked at, for choosing weights
    assert holds(model, parameters_copy(other))


def test_the_detector_sees_a_planted_leak(
    split: Split, make: Make, settings: TrainSettings, holds: Make
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
