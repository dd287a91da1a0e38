"""Enhanced BERT4Rec: what is hidden is hidden."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import History, RecBatch
from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import EnhancedBERT4Rec
from tgrec.models import enhanced_bert4rec as module
from tgrec.models.tokens import Tokens, carried_time, cloze_tokens, token_pairs
from tgrec.sampler import EventIndex


@torch.no_grad()
def test_the_event_that_is_asked_for_is_not_counted_in_training(
    enhanced_kit: SimpleNamespace,
) -> None:
    """Counts that hold the target would tell it, rare items above all."""
    model = enhanced_kit.build(features=["popularity"], task_weights={"item_prediction": 0.0})
    model.unknown_prob = 0.0
    batch = enhanced_kit.training_batch(model)
    history, item, count = batch.history, batch.item, model.inputs.item_count
    assert history is not None
    assert item is not None
    row, weight = torch.arange(batch.user.numel()), model.inputs.popularity
    by_hand = model.score(batch)
    by_hand[row, item] += weight * ((count[item] - 1).log1p() - count[item].log1p())
    torch.testing.assert_close(model.score_left_out(batch), by_hand)
    # The loss, of every event of every user.
    states = model.next_item(states_of(model, batch))
    lost = []
    for user in row:
        for place in range(1, history.mask.size(1) + 1):
            if history.mask[user, place - 1]:  # of whom nothing is known nothing is asked
                target = item[user] if place == history.mask.size(1) else history.item[user, place]
                less = count - torch.nn.functional.one_hot(target, model.num_items)
                scores = model.encode_item() @ states[user, place] + weight * less.log1p()
                lost.append(-scores[model.inputs.item_trained].log_softmax(0))
                lost[-1] = lost[-1][(model.inputs.item_trained.cumsum(0) - 1)[target]]
    sums, counts = model.loss_terms(batch)
    assert float(counts[0]) == len(lost)
    torch.testing.assert_close(sums[0] / counts[0], torch.stack(lost).mean())


@torch.no_grad()
def test_on_t1_nobody_reads_when_the_first_event_was_before_it_is_known(
    enhanced_kit: SimpleNamespace,
) -> None:
    """The start token of a row has the time of its first event, as a place holder."""
    model = enhanced_kit.build(features=["gap", "calendar"])
    batch = enhanced_kit.training_batch(model)
    history = batch.history
    assert history is not None
    first = history.mask & ~torch.nn.functional.pad(history.mask, (1, 0))[:, :-1]
    moved = replace(history, time=torch.where(first, history.time - 86_400 * 9, history.time))
    before, after = states_of(model, batch), states_of(model, replace(batch, history=moved))
    start = torch.nn.functional.pad(first, (0, 1))
    assert int(start.sum()) == batch.user.numel()
    torch.testing.assert_close(after[start], before[start])
    assert not torch.equal(after[:, -1], before[:, -1])


def masked_is_hidden(model: Any, enhanced_kit: SimpleNamespace) -> None:
    """Rating, time, genres and year of what a mask token stands for change no prediction."""
    batch = enhanced_kit.training_batch(model)
    history, item, rating = batch.history, batch.item, batch.rating
    assert history is not None
    assert item is not None
    assert history.rating is not None
    assert rating is not None
    token = module.make_cloze(batch, model.num_items, 0.4, 0.0).item == model.num_items
    holes = module.uniform(batch.key, module.BOTH_SIDES) < model.cloze_prob
    assert 0 < int(holes.sum()) < len(holes)
    assert token[:, :-1].any()
    hidden = token[:, :-1] & history.mask
    changed = replace(
        batch,
        history=replace(
            history,
            item=torch.where(hidden, (history.item + 7) % model.num_items, history.item),
            time=torch.where(hidden, history.time + 3600 * 5, history.time),
            rating=torch.where(hidden, 6 - history.rating, history.rating),
        ),
        item=(item + 5) % model.num_items,
        rating=6 - rating,
        item_time=torch.zeros_like(item),
    )
    states: list[Tensor] = []
    model.hidden, original = (
        lambda *a, **k: states.append(original(*a, **k)) or states[-1],
        model.hidden,
    )
    for one in (batch, changed):
        model.loss_terms(one)
    del model.hidden
    torch.testing.assert_close(states[0][holes], states[1][holes])


@torch.no_grad()
def test_a_masked_item_hides_its_side_information(
    monkeypatch: pytest.MonkeyPatch, enhanced_kit: SimpleNamespace
) -> None:
    model = enhanced_kit.build(mask_prob=0.4, unknown_prob=0.0)
    masked_is_hidden(model, enhanced_kit)

    def leaky(history: Any, asked: Any, item: Tensor, mask: Tensor, known: Tensor) -> Any:
        return cloze_tokens(history, asked, item, mask, mask)  # as the seed: all but the id

    monkeypatch.setattr(module, "cloze_tokens", leaky)
    with pytest.raises(AssertionError):
        masked_is_hidden(model, enhanced_kit)


def without_last(history: History, events: int) -> History:
    columns = {f.name: getattr(history, f.name) for f in fields(history)}
    return History(**{k: None if x is None else x[:, :-events] for k, x in columns.items()})


def states_of(model: Any, batch: RecBatch) -> Tensor:
    """``[B, S, D]`` from left to right."""
    facts, _ = model.inputs.facts(batch.user)
    out: Tensor = model.hidden(model._question(batch), model.encode_item(), facts)
    return out


def looks_back_only(model: Any, track: Track, enhanced_kit: SimpleNamespace) -> None:
    """What is asked for at a position, and all that is after it, changes nothing there."""
    index = EventIndex(enhanced_kit.graph)
    batch = SeedLoader(index, model.sampling, track).batch(training_seeds(index, 12), key=3)
    history, asked_at = batch.history, batch.query_time
    assert history is not None
    assert history.rating is not None
    before = states_of(model, batch)
    for place in (0, 4, 7, 11):
        later = torch.arange(history.mask.size(1)) >= place
        changed = replace(
            history,
            item=torch.where(later, (history.item + 7) % model.num_items, history.item),
            time=torch.where(later, history.time + 3600 * 5, history.time),
            rating=torch.where(later, 6 - history.rating, history.rating),
        )
        if asked_at is not None:  # the question at ``place`` stays, those after it do not
            asked_at = asked_at + 3600 * 5 * (torch.arange(asked_at.size(1)) > place)
        after = states_of(model, replace(batch, history=changed, query_time=asked_at))
        real = torch.cat([history.mask, torch.ones_like(history.mask[:, :1])], dim=1)
        same, differs = real[:, : place + 1], real[:, place + 1 :]
        torch.testing.assert_close(after[:, : place + 1][same], before[:, : place + 1][same])
        assert not torch.equal(after[:, place + 1 :][differs], before[:, place + 1 :][differs])
        asked_at = batch.query_time


@torch.no_grad()
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_the_next_item_is_foretold_from_what_is_before_it(
    track: Track, monkeypatch: pytest.MonkeyPatch, enhanced_kit: SimpleNamespace
) -> None:
    model = enhanced_kit.build(n_blocks=2)
    looks_back_only(model, track, enhanced_kit)

    def leaky(tokens: Tokens, both_sides: Tensor | None, gaps: bool) -> Tensor:
        return token_pairs(tokens, torch.ones_like(tokens.mask[:, 0]), gaps)

    monkeypatch.setattr(module, "token_pairs", leaky)
    with pytest.raises(AssertionError):
        looks_back_only(model, track, enhanced_kit)


@torch.no_grad()
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_in_training_a_position_reads_what_it_will_read_when_it_is_asked(
    track: Track, enhanced_kit: SimpleNamespace
) -> None:
    model = enhanced_kit.build(n_blocks=2, features=["rating", "gap", "calendar", "gender"])
    model.encoder.positions.table.zero_()  # they count from the end, which is elsewhere
    index = EventIndex(enhanced_kit.graph)
    batch = SeedLoader(index, model.sampling, track).batch(training_seeds(index, 12), key=3)
    history = batch.history
    assert history is not None
    states = states_of(model, batch)
    for gone in (1, 3, history.mask.size(1)):
        asked_at = None if batch.query_time is None else batch.query_time[:, :-gone]
        shorter = replace(batch, history=without_last(history, gone), query_time=asked_at)
        there = history.mask[:, -gone]
        torch.testing.assert_close(states_of(model, shorter)[there, -1], states[there, -1 - gone])


@torch.no_grad()
def test_who_has_no_past_in_training_reads_nothing_of_it(enhanced_kit: SimpleNamespace) -> None:
    """Every position is then the question of somebody new, and of nobody else."""
    model = enhanced_kit.build(
        unknown_prob=1.0, cloze_prob=0.0, features=["rating", "gap", "calendar"]
    )
    model.encoder.positions.table.zero_()
    batch = enhanced_kit.training_batch(model)
    states: list[Tensor] = []
    model.hidden = lambda *a: states.append(EnhancedBERT4Rec.hidden(model, *a)) or states[-1]
    model.loss_terms(batch)
    history = batch.history
    assert history is not None
    nobody = states_of(model, replace(batch, history=without_last(history, history.mask.size(1))))
    seen = states[0][model._question(batch).mask]
    torch.testing.assert_close(seen, nobody[0, -1].expand_as(seen))


def test_times_that_are_not_known_are_carried_on() -> None:
    time = torch.tensor([[0, 5, 7, 9, 0], [0, 0, 4, 8, 0], [1, 2, 3, 4, 5]])
    known = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    wanted = [[5, 5, 5, 9, 9], [8, 8, 8, 8, 8], [0, 0, 0, 0, 0]]
    assert carried_time(time, known).tolist() == wanted


@torch.no_grad()
def test_t2_reads_the_time_of_the_question_and_t1_does_not(enhanced_kit: SimpleNamespace) -> None:
    model, test = enhanced_kit.build(), enhanced_kit.split.test
    assert test.time is not None
    later = replace(test, time=test.time + 86_400 * 40 + 3600)
    assert torch.equal(
        model.score(enhanced_kit.asked(model)), model.score(enhanced_kit.asked(model, "T1", later))
    )
    assert not torch.equal(
        model.score(enhanced_kit.asked(model, "T2")),
        model.score(enhanced_kit.asked(model, "T2", later)),
    )
