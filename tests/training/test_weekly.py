"""Weekly interest: how it trains, and what it refuses to train on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.models.weekly_interest import UserInteractionPredictor
from tgrec.training.weekly import fit_links, fit_weeks, link_parameters, make_model, week_parameters
from tgrec.training.weekly_settings import Fitted, WeeklySettings, Weeks


def gradients(model: UserInteractionPredictor, parameters: list[Any]) -> list[bool]:
    names = {id(p): n for n, p in model.named_parameters()}
    return [names[id(p)] for p in parameters if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("joint", [False, True])
def test_every_trained_parameter_gets_a_gradient_and_moves(
    weeks: Weeks, joint: bool, tiny: WeeklySettings
) -> None:
    past, model = weeks.until(len(weeks) - 1), make_model(weeks.graph, tiny)
    if not joint:
        before = [p.detach().clone() for p in link_parameters(model)]
        fit_links(model, past, tiny)
        assert gradients(model, link_parameters(model)) == []
        pairs = zip(before, link_parameters(model), strict=True)
        assert not any(torch.equal(a, b) for a, b in pairs)
    chosen = week_parameters(model, joint)
    assert (len(chosen) == len(list(model.parameters()))) == joint
    before = [p.detach().clone() for p in model.parameters()]
    fit_weeks(model, past, tiny, joint=joint)
    assert gradients(model, chosen) == []
    trained = {id(p) for p in chosen}
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new.detach()) == (id(new) not in trained)


def test_the_transformer_learns(weeks: Weeks, tiny: WeeklySettings) -> None:
    past, settings = weeks.until(len(weeks) - 1), replace(tiny, epochs=10)
    model = make_model(past.graph, settings)
    fitted = fit_weeks(model, past, settings)
    assert fitted.losses[-1] < fitted.losses[0] - 0.02
    assert fitted.epochs == 10


def test_the_best_weights_of_the_validation_stay_and_patience_stops(
    weeks: Weeks, tiny: WeeklySettings
) -> None:
    past = weeks.until(len(weeks) - 1)
    settings = replace(tiny, epochs=9, patience=2)
    values = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    model, kept = make_model(past.graph, settings), []

    def validate() -> float:
        kept.append(model.project.weight.detach().clone())
        return next(values)

    said: list[str] = []
    fitted = fit_weeks(model, past, settings, validate=validate, say=said.append)
    assert (fitted.epochs, fitted.best) == (4, 2)
    assert torch.equal(model.project.weight, kept[1])
    assert len(said) == 4
    assert "s left" in said[0]
    assert Fitted(3, [], {1: 0.2, 2: 0.2, 3: 0.1}, 0.0).best == 1


def test_training_for_the_chosen_epochs_is_the_same_training(
    weeks: Weeks, tiny: WeeklySettings
) -> None:
    """The final weights follow the schedule of the search, up to the epoch that was chosen."""
    past = weeks.until(len(weeks) - 1)
    whole, part = make_model(past.graph, tiny), make_model(past.graph, tiny)
    seen: list[Tensor] = []
    fit_weeks(whole, past, tiny, validate=lambda: _note(seen, whole))
    fit_weeks(part, past, tiny, epochs=2)
    assert torch.equal(part.project.weight, seen[1])


def _note(seen: list[Tensor], model: UserInteractionPredictor) -> float:
    seen.append(model.project.weight.detach().clone())
    return 0.0


def test_only_the_latest_weeks_are_learned_where_asked(weeks: Weeks, tiny: WeeklySettings) -> None:
    past, said = weeks.until(len(weeks) - 1), []
    short = replace(tiny, weeks_to_learn=1)
    fit_weeks(make_model(past.graph, short), past, short, say=said.append)
    chunks = -(-past.links(len(weeks) - 2)[0].unique().numel() // tiny.batch_size)
    assert chunks == 2
    with pytest.raises(ValueError, match="'weeks_to_learn' needs to be a positive"):
        replace(tiny, weeks_to_learn=0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_neighbors", (10, 0), "with 0 a node would hear of nobody"),
        ("num_neighbors", (), "a number per hop"),
        ("num_neighbors", (-2,), "positive or -1"),
        ("weeks_of_history", 0, "'weeks_of_history' needs to be a positive integer"),
        ("epochs", 0, "'epochs' needs to be a positive integer"),
        ("batch_size", True, "'batch_size' needs to be a positive integer"),
        ("lr", 0.0, "'lr' needs to be a positive number"),
        ("seed", -1, "'seed' needs to be an integer in"),
    ],
)
def test_settings_that_cannot_be(name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WeeklySettings(**{name: value})


def test_a_loss_that_is_no_number_is_an_error(weeks: Weeks, tiny: WeeklySettings) -> None:
    past, model = weeks.until(4), make_model(weeks.graph, tiny)
    with torch.no_grad():
        model.project.weight.fill_(torch.nan)
    with pytest.raises(ArithmeticError, match="the loss is nan in epoch 1; a smaller learning"):
        fit_weeks(model, past, tiny)


def test_too_few_weeks_to_learn_from(weeks: Weeks, tiny: WeeklySettings) -> None:
    one = weeks.until(1)
    for fit in (fit_links, fit_weeks):
        with pytest.raises(ValueError, match="no two weeks with events"):
            fit(make_model(one.graph, tiny), one, tiny)


def test_weeks_refuse_what_they_cannot_cut(weeks: Weeks) -> None:
    with pytest.raises(ValueError, match="'cuts' needs to be ascending"):
        Weeks(weeks.graph, (0, 5, 3))
    several = weeks.graph.before(weeks.graph.num_events)
    several["user", "other", "item"].event_id = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="'graph' needs one kind of events"):
        Weeks(several, (0, 1))
