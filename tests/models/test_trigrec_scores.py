"""TriGRec: what its scores may see, and what they do see."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import Split
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import TriGRec
from tgrec.models import trigrec as module
from tgrec.models.tokens import shut_pairs
from tgrec.models.trigrec_sequences import question, training_cloze
from tgrec.sampler import EventIndex
from tgrec.testing import scramble_future


@pytest.mark.parametrize("stage", ["users", "joint"])
def test_later_events_of_any_domain_change_nothing(
    stage: str, food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    model = trigrec_kit.trained(trigrec_kit.make(food_split, stage=stage), food_split, epochs=1)
    for cut in torch.quantile(
        food_split.test.cut.double(), torch.tensor([0.2, 0.8]).double()
    ).long():
        seeds = replace(food_split.test, cut=torch.full_like(food_split.test.cut, int(cut)))
        loaders = [
            SeedLoader(EventIndex(g), model.sampling)
            for g in (food_split.graph, scramble_future(food_split.graph, int(cut)))
        ]
        with torch.no_grad():
            scores = [model.score(loader.batch(seeds)) for loader in loaders]
        assert torch.equal(*scores)


def test_the_past_of_both_domains_is_read(food_split: Split, trigrec_kit: SimpleNamespace) -> None:
    model = trigrec_kit.trained(trigrec_kit.make(food_split), food_split)
    batch = trigrec_kit.asked(model, food_split)
    assert batch.history is not None
    history = batch.history
    with torch.no_grad():
        scores = model.score(batch)
        for relation in (0, 1):
            mine = history.mask & (history.relation == relation)
            other = torch.where(mine, history.item.roll(1, 0) * 0 + 3 + 30 * relation, history.item)
            changed = model.score(replace(batch, history=replace(history, item=other)))
            assert (changed != scores).any(1).float().mean() > 0.9


def test_sequence_and_vectors_have_their_say(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    """Both, a shuffled sequence and other vectors, change the scores of stage 2."""
    model = trigrec_kit.trained(trigrec_kit.make(food_split, use_graph=False), food_split)
    batch = trigrec_kit.asked(model, food_split)
    assert batch.history is not None
    cloze = question(batch.history, model.num_items, 0)
    own = cloze.only(0)
    turned = replace(own, item=own.item.clone())
    moved = torch.zeros(own.item.size(0), dtype=torch.bool)
    for row, known in enumerate(own.known):  # the same events, the other way round
        turned.item[row, known] = own.item[row, known].flip(0)
        moved[row] = not torch.equal(turned.item[row], own.item[row])
    assert float(moved.float().mean()) > 0.9
    with torch.no_grad():
        memory, known = model.user_memory(batch, cloze)
        states = model._states(own)
        before = model._predict(own, states, memory, known)[0]
        other = model._predict(turned, model._states(turned), memory, known)[0]
        assert torch.equal((other != before).any(1), moved)
        swapped = model._predict(own, states, memory.roll(1, 0), known)[0]
        assert (swapped != before).any(1).all()
        assert torch.equal(model._predict(own, states, memory, known)[0], before)


def reads_what_is_before(model: TriGRec, split: Split) -> None:
    """In rows without other holes, what stands at a position or after it changes nothing there."""
    loader = SeedLoader(EventIndex(split.train), model.sampling)
    seeds = training_seeds(loader.index, 16, relation=model.target)
    batch = loader.batch(seeds, key=3)
    own = training_cloze(batch, model.item_domain, 0.5, 0.5).only(model.target)
    row = own.hole.sum(1) == 1
    assert 0.2 < float(row.float().mean()) < 0.9
    before = model._states(own)
    assert before is not None
    for back in (1, 2):
        later = torch.arange(own.item.size(1)) >= own.item.size(1) - back
        changed = replace(own, item=torch.where(later, (own.item + 1) % 30, own.item))
        after = model._states(changed)
        assert after is not None
        there = own.mask[row, -back]
        assert torch.equal(after[row, -back][there], before[row, -back][there])
        assert not torch.equal(after[~row, -back], before[~row, -back])


@torch.no_grad()
def test_rows_with_one_hole_are_read_from_left_to_right(
    food_split: Split, monkeypatch: pytest.MonkeyPatch, trigrec_kit: SimpleNamespace
) -> None:
    model = trigrec_kit.make(food_split)
    reads_what_is_before(model, food_split)
    history = trigrec_kit.asked(model, food_split).history
    assert history is not None
    own = question(history, model.num_items, 0).only(0)
    shown = own.shifted(model.num_items)
    assert torch.equal(shown[:, 1:][own.known[:, :-1]], own.item[own.known])
    assert (shown.gather(1, own.mask.long().argmax(1, keepdim=True)) == model.num_items).all()
    monkeypatch.setattr(module, "shut_pairs", lambda mask, both: shut_pairs(mask, mask.any(1)))
    with pytest.raises(AssertionError):
        reads_what_is_before(model, food_split)


def test_vectors_while_training_hold_nothing_that_is_asked_for(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    """Two rows that differ in hidden items only have the same vectors."""
    model = trigrec_kit.make(food_split, use_graph=False)  # the graph: see its own tests
    loader = SeedLoader(EventIndex(food_split.train), model.sampling)
    batch = loader.batch(training_seeds(loader.index, 16), key=3)
    cloze = training_cloze(batch, model.item_domain, 0.5, 0.0)
    hidden = cloze.hole & (cloze.item == model.num_items)  # a hole may also show an item
    only = replace(cloze, hole=hidden)
    other = replace(only, target=torch.where(hidden, (cloze.target + 1) % 30, cloze.target))
    users = model.users
    assert users is not None
    with torch.no_grad():
        made = [users(c, None).vectors for c in (only, other)]
    assert torch.equal(*made)


@torch.no_grad()
def test_positions_without_a_hole_are_learned_from_the_sequence_alone(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    """Where a row is read from left to right: all of them, and vectors of users are not read."""
    model = trigrec_kit.make(food_split)
    loader = SeedLoader(EventIndex(food_split.train), model.sampling)
    seeds = training_seeds(loader.index, 16, relation=model.target)
    batch = loader.batch(seeds, key=3)
    cloze = training_cloze(batch, model.item_domain, 0.5, 0.5)
    own, where = cloze.only(model.target), module.Catalogues.of(model.item_domain, 2)
    memory, known = model.user_memory(batch, cloze)
    one = own.hole.sum(1) == 1
    others = own.mask & ~own.hole & one.unsqueeze(1)
    assert int(others.sum()) > 5

    def lost(memory: Tensor) -> Tensor:
        total, count = model._recommender_term(own, memory, known, where)
        assert float(count) == float((own.hole | others).sum())
        return total

    hidden, _, _ = model._predict(own, model._states(own), memory, known)
    swapped, _, _ = model._predict(own, model._states(own), memory.roll(1, 0), known)
    table = model.encode_item()[where.items[0]]
    goal = where.place[0][own.target[own.hole]]
    at_holes = [F.cross_entropy(h @ table.t(), goal, reduction="sum") for h in (hidden, swapped)]
    assert not torch.equal(*at_holes)
    torch.testing.assert_close(lost(memory) - at_holes[0], lost(memory.roll(1, 0)) - at_holes[1])


def test_the_weight_of_the_counts_is_chosen_where_the_measure_is_best(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    def choose(best: float, **kwargs: Any) -> float:
        model = trigrec_kit.make(food_split, graph_weight=5.0, **kwargs)
        model.choose(lambda: -abs(model.graph_weight - best))
        assert model.graph_weight == model.config["graph_weight"]
        return model.graph_weight

    assert choose(12.0, choose_weight=True) == 12.0
    assert choose(5.1, choose_weight=True) == 5.0, "nothing else is nearer"
    assert choose(12.0) == 5.0
    for without in ({"use_graph": False}, {"stage": "users"}):
        assert choose(12.0, choose_weight=True, **without) == 5.0


@pytest.mark.parametrize("stage", ["users", "joint"])
def test_items_of_other_domains_come_last(
    stage: str, food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    """Behind every item of the target's domain, whose scores stay as they are, to the last bit."""
    model = trigrec_kit.trained(trigrec_kit.make(food_split, stage=stage), food_split)
    batch = trigrec_kit.asked(model, food_split)
    other = model.item_domain == 1
    with torch.no_grad():
        found = model.score(batch)
        model.item_domain.fill_(-1)  # of an unknown domain: none is put last
        before = model.score(batch)
    assert torch.equal(found[:, ~other], before[:, ~other])
    assert (before[:, other].amax(1) > before[:, ~other].amin(1)).all()
    assert (found[:, other].amax(1) < found[:, ~other].amin(1)).all()
    assert found.isfinite().all()
    assert found.dtype == torch.float32


@torch.no_grad()
def test_scores_are_finite_where_all_items_are_of_other_domains(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    model = trigrec_kit.make(food_split)
    model.item_domain.fill_(1)
    assert model.score(trigrec_kit.asked(model, food_split)).isfinite().all()
