"""TriGRec: sequences by domain, what it may see, stages, ablations."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History, RecBatch, Split, TemporalRecGraph, leave_one_out_in
from tgrec.datasets import simulate_domains
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, TriGRec, load_model, save_model
from tgrec.models import trigrec as module
from tgrec.models.tokens import shut_pairs
from tgrec.models.trigrec_graph import TransitionNeighbors, pooled
from tgrec.models.trigrec_sequences import (
    DomainCloze,
    end_at,
    known_domains,
    question,
    training_cloze,
)
from tgrec.sampler import EventIndex
from tgrec.testing import scramble_future
from tgrec.training import fit

SMALL: dict[str, Any] = {"d_model": 8, "n_heads": 2, "n_blocks": 1, "d_ff": 16, "max_len": 16}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out_in(simulate_domains(num_users=60, num_items=30)[0], "food")


def make(split: Split, **kwargs: Any) -> TriGRec:
    torch.manual_seed(0)
    return TriGRec.from_graph(split.train, **{**SMALL, "target": "food", **kwargs}).eval()


def asked(model: TriGRec, split: Split) -> RecBatch:
    return SeedLoader(EventIndex(split.graph), model.sampling).batch(split.test)


def trained(model: TriGRec, split: Split, epochs: int = 2, **kwargs: Any) -> TriGRec:
    fit(
        model, split, epochs=epochs, eval_every=epochs, batch_size=16, lr=1e-2, show=False, **kwargs
    )
    return model.eval()


def row(items: list[int], relations: list[int], width: int) -> History:
    """One left-padded history."""
    pad = width - len(items)
    item = torch.tensor([[0] * pad + items])
    mask = torch.arange(width).unsqueeze(0) >= pad
    relation = torch.tensor([[0] * pad + relations])
    event_id = torch.where(mask, torch.arange(width), -1)
    return History(item, item * 10, event_id, relation, mask)


# ---- sequences -----------------------------------------------------------------------------------


def test_a_row_ends_at_the_last_event_of_the_domain() -> None:
    domain = torch.tensor([0, 0, 0, 1, 1, 1])
    history = row([0, 3, 1, 4], [0, 1, 0, 1], 6)
    batch = RecBatch(torch.tensor([7]), history, torch.tensor([5]), key=torch.tensor([9]))
    cut = end_at(batch, 0, domain)
    assert cut.history is not None
    assert cut.item is not None
    assert cut.item.tolist() == [1]  # the kitchen events 4 and 5 behind it are gone
    assert cut.history.item[cut.history.mask].tolist() == [0, 3]
    assert cut.history.mask.tolist() == [[False] * 4 + [True] * 2]
    assert cut.history.relation.tolist() == [[0, 0, 0, 0, 0, 1]]
    # Asked for the other domain, the row stays whole.
    whole = end_at(batch, 1, domain)
    assert whole.item is not None
    assert whole.history is not None
    assert whole.item.tolist() == [5]
    assert torch.equal(whole.history.item, history.item)


def test_rows_without_a_question_in_the_domain_are_left_out() -> None:
    domain = torch.tensor([0, 0, 1, 1])
    first = RecBatch(torch.tensor([7]), row([0, 2], [0, 1], 4), torch.tensor([3]))
    assert end_at(first, 0, domain).user.numel() == 0  # nothing stands before item 0
    none = RecBatch(torch.tensor([7]), row([2], [1], 4), torch.tensor([3]))
    assert end_at(none, 0, domain).user.numel() == 0


def test_one_domain_of_a_row() -> None:
    history = row([0, 3, 1, 4], [0, 1, 0, 1], 6)
    cloze = question(history, 10, 0)
    food = cloze.only(0)
    assert food.item.tolist() == [[0, 1, 10]]
    assert food.hole.tolist() == [[False, False, True]]
    assert cloze.only(1).item.tolist() == [[3, 4]]
    assert not cloze.only(1).hole.any()


def test_vectors_are_means_over_real_positions_that_are_shown() -> None:
    x = torch.arange(24.0).view(1, 6, 4)
    known = torch.tensor([[False, False, True, False, True, False]])
    assert torch.equal(pooled(x, known), (x[:, 2] + x[:, 4]) / 2)
    assert not pooled(x, known & False).any()


def test_domains_of_items_without_a_column() -> None:
    rows = [(1, "a", "food"), (1, "b", "toys"), (2, "b", "toys"), (2, "c", "food")]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "domain"])
    graph = TemporalRecGraph.from_pandas(table, time=None, relation="domain")
    assert known_domains(graph).tolist() == [0, 1, 0]
    assert known_domains(graph.before(2)).tolist() == [0, 1, -1]


# ---- the graph -----------------------------------------------------------------------------------


def test_a_users_own_transitions_are_left_out(split: Split) -> None:
    """What a row reads of the graph is what it would be had its user never been there."""
    domain, train = split.train["item"].domain, split.train
    user = int(split.test.user[0])
    without = train
    for edge_type in train.interaction_types:
        keep = train[edge_type].edge_index[0] != user
        without = without.select_events(keep, relation=edge_type[1])
    size = train.num_items
    whole, alone = (TransitionNeighbors(size, 2, size, 3, 0.8) for _ in range(2))
    whole.fill(train, domain)
    alone.fill(without, domain)
    index = EventIndex(train)
    loader = SeedLoader(index, make(split).sampling)
    seeds = training_seeds(index, 16).select(training_seeds(index, 16).user == user)
    cloze = training_cloze(loader.batch(seeds, key=0), domain, 0.0, 1.0)
    assert cloze.mask.sum() == (index.user == user).sum()

    def dense(ids: Tensor, weight: Tensor) -> Tensor:
        return torch.zeros(*ids.shape[:3], size).scatter_add_(3, ids.long(), weight)[cloze.mask]

    found = dense(*whole.others(cloze))
    expected = dense(alone.neighbor[cloze.target], alone.weight[cloze.target])
    if_it_were_kept = whole.weight[cloze.target[cloze.mask]].sum()
    assert torch.allclose(found, expected, atol=1e-5)
    assert float(found.sum()) < float(if_it_were_kept)


def test_transitions_inside_and_across_domains(split: Split) -> None:
    domain = split.train["item"].domain
    neighbors = TransitionNeighbors(split.train.num_items, 2, 4, 3, 0.8)
    neighbors.fill(split.train, domain)
    item, kind, place = (neighbors.weight > 0).nonzero(as_tuple=True)
    other = domain[neighbors.neighbor[item, kind, place].long()] != domain[item]
    assert torch.equal(other, kind == 1)
    assert (neighbors.weight.diff(dim=2) <= 0).all()  # the strongest first


# ---- what it may see -----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["users", "joint"])
def test_later_events_of_any_domain_change_nothing(stage: str, split: Split) -> None:
    model = trained(make(split, stage=stage), split, epochs=1)
    for cut in torch.quantile(split.test.cut.double(), torch.tensor([0.2, 0.8]).double()).long():
        seeds = replace(split.test, cut=torch.full_like(split.test.cut, int(cut)))
        loaders = [
            SeedLoader(EventIndex(g), model.sampling)
            for g in (split.graph, scramble_future(split.graph, int(cut)))
        ]
        with torch.no_grad():
            scores = [model.score(loader.batch(seeds)) for loader in loaders]
        assert torch.equal(*scores)


def test_the_past_of_both_domains_is_read(split: Split) -> None:
    model = trained(make(split), split)
    batch = asked(model, split)
    assert batch.history is not None
    history = batch.history
    with torch.no_grad():
        scores = model.score(batch)
        for relation in (0, 1):
            mine = history.mask & (history.relation == relation)
            other = torch.where(mine, history.item.roll(1, 0) * 0 + 3 + 30 * relation, history.item)
            changed = model.score(replace(batch, history=replace(history, item=other)))
            assert (changed != scores).any(1).float().mean() > 0.9


def test_sequence_and_vectors_have_their_say(split: Split) -> None:
    """Both, a shuffled sequence and other vectors, change the scores of stage 2."""
    model = trained(make(split, use_graph=False), split)
    batch = asked(model, split)
    assert batch.history is not None
    cloze = question(batch.history, model.num_items, 0)
    own = cloze.only(0)
    turned = replace(own, item=torch.where(own.known, own.item.flip(1).clamp(max=29), own.item))
    with torch.no_grad():
        memory, known = model.user_memory(batch, cloze)
        states = model._states(own)
        before = model._predict(own, states, memory, known)[0]
        other = model._predict(turned, model._states(turned), memory, known)[0]
        assert (other != before).any(1).all()
        swapped = model._predict(own, states, memory.roll(1, 0), known)[0]
        assert (swapped != before).any(1).all()
        assert torch.equal(model._predict(own, states, memory, known)[0], before)


def reads_what_is_before(model: TriGRec, split: Split) -> None:
    """In rows without other holes, what stands at a position or after it changes nothing there."""
    loader = SeedLoader(EventIndex(split.train), model.sampling)
    batch = end_at(
        loader.batch(training_seeds(loader.index, 16), key=3), model.target, model.item_domain
    )
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
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(split)
    reads_what_is_before(model, split)
    history = asked(model, split).history
    assert history is not None
    own = question(history, model.num_items, 0).only(0)
    shown = own.shifted(model.num_items)
    assert torch.equal(shown[:, 1:][own.known[:, :-1]], own.item[own.known])
    assert (shown.gather(1, own.mask.long().argmax(1, keepdim=True)) == model.num_items).all()
    monkeypatch.setattr(module, "shut_pairs", lambda mask, both: shut_pairs(mask, mask.any(1)))
    with pytest.raises(AssertionError):
        reads_what_is_before(model, split)


def test_vectors_while_training_hold_nothing_that_is_asked_for(split: Split) -> None:
    """Two rows that differ in hidden items only have the same vectors."""
    model = make(split)
    loader = SeedLoader(EventIndex(split.train), model.sampling)
    batch = loader.batch(training_seeds(loader.index, 16), key=3)
    cloze = training_cloze(batch, model.item_domain, 0.5, 0.0)
    hidden = cloze.hole & (cloze.item == model.num_items)  # a hole may also show an item
    only = replace(cloze, hole=hidden)
    other = replace(only, target=torch.where(hidden, (cloze.target + 1) % 30, cloze.target))
    assert model.users is not None
    model.users.neighbors = None
    model.users.graph = None
    with torch.no_grad():
        made = [model.users(c).vectors for c in (only, other)]
    assert torch.equal(*made)


@torch.no_grad()
def test_positions_without_a_hole_are_learned_from_the_sequence_alone(split: Split) -> None:
    """Where a row is read from left to right: all of them, and vectors of users are not read."""
    model = make(split)
    loader = SeedLoader(EventIndex(split.train), model.sampling)
    batch = end_at(
        loader.batch(training_seeds(loader.index, 16), key=3), model.target, model.item_domain
    )
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


def test_the_weight_of_the_counts_is_chosen_where_the_measure_is_best(split: Split) -> None:
    def choose(best: float, **kwargs: Any) -> float:
        model = make(split, graph_weight=5.0, **kwargs)
        model.choose(lambda: -abs(model.graph_weight - best))
        assert model.graph_weight == model.config["graph_weight"]
        return model.graph_weight

    assert choose(12.0, choose_weight=True) == 12.0
    assert choose(5.1, choose_weight=True) == 5.0, "nothing else is nearer"
    assert choose(12.0) == 5.0
    for without in ({"use_graph": False}, {"stage": "users"}):
        assert choose(12.0, choose_weight=True, **without) == 5.0


@pytest.mark.parametrize("stage", ["users", "joint"])
def test_items_of_other_domains_come_last(stage: str, split: Split) -> None:
    """Behind every item of the target's domain, whose scores stay as they are, to the last bit."""
    model = trained(make(split, stage=stage), split)
    batch = asked(model, split)
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
def test_scores_are_finite_where_all_items_are_of_other_domains(split: Split) -> None:
    model = make(split)
    model.item_domain.fill_(1)
    assert model.score(asked(model, split)).isfinite().all()


# ---- losses --------------------------------------------------------------------------------------


def rows_without_food(split: Split) -> RecBatch:
    """Two rows of kitchen events and nothing else, which ask for no food."""
    loader = SeedLoader(EventIndex(split.train), make(split).sampling)
    batch = loader.batch(training_seeds(loader.index, 16), key=0)
    kitchen = int((split.train["item"].domain == 1).nonzero()[0])
    history = batch.history
    assert history is not None
    item = torch.where(history.mask, kitchen + history.item % 5, 0)[:2]
    columns = (item, history.time[:2], history.event_id[:2], history.mask[:2].long())
    assert batch.key is not None
    return RecBatch(batch.user[:2], History(*columns, history.mask[:2]), item[:, -1] * 0 + kitchen,
                    key=batch.key[:2])  # fmt: skip


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"inputs": "sequence"}, {"inputs": "vectors"}, {"use_graph": False}, {"adversary": 0.0},
     {"positions": "relative"}, {"stage": "recommender"}],
)  # fmt: skip
def test_a_batch_that_asks_for_nothing_teaches_nothing(
    kwargs: dict[str, Any], split: Split
) -> None:
    """As many terms as any batch has, all zero, and the same parameters have a gradient."""
    model, batch = make(split, **kwargs).train(), rows_without_food(split)
    assert end_at(batch, 0, model.item_domain).user.numel() == 0
    loader = SeedLoader(EventIndex(split.train), model.sampling)
    usual = model.loss_terms(loader.batch(training_seeds(loader.index, 16), key=0))
    usual[0].sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    sums, counts = model.loss_terms(batch)
    assert sums.shape == counts.shape == usual[0].shape
    assert not sums.any()
    assert not counts.any()
    sums.sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == reached
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_training_goes_on_over_batches_that_ask_for_nothing() -> None:
    draw = random.Random(0)
    rows = [(u, "abc"[draw.choices(range(3), (2, 49, 49))[0]]) for u in range(40) for _ in range(6)]
    rows += [(u, "a") for u in range(3) for _ in range(4)]  # who are asked
    table = pd.DataFrame(rows, columns=["user_id", "domain"])
    table["item_id"] = [f"{d}{draw.randrange(9)}" for d in table.domain]
    split = leave_one_out_in(TemporalRecGraph.from_pandas(table, time=None, relation="domain"), "a")
    model = TriGRec.from_graph(split.train, target="a", **SMALL)
    result = fit(model, split, epochs=1, batch_size=2, eval_every=1, show=False)
    assert result.epochs == 1
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_distances_are_between_vectors_of_the_same_user(split: Split) -> None:
    model = make(split)
    users = model.users
    assert users is not None
    history = row([0, 31, 2], [0, 1, 0], 4)
    cloze = question(history, model.num_items, 0)
    made = users(DomainCloze(*(torch.cat([c, c]) for c in (
        cloze.item, cloze.mask, cloze.hole, cloze.target, cloze.relation))))  # fmt: skip
    mean = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    names = users.names
    vectors = made.vectors.clone()
    vectors[:, names.index("cross")] = mean
    for d in range(2):
        vectors[:, names.index(f"common_{d}")] = mean  # each user's own: no distance
        vectors[:, names.index(f"specific_{d}")] = mean
    terms = users._domain_terms(replace(made, vectors=vectors))
    adversary, align, separate = (float((s / c).detach()) for s, c in terms)
    assert adversary > 0
    assert align == pytest.approx(0, abs=1e-9)
    assert separate == pytest.approx(0.1, abs=1e-4)  # weight times the whole margin
    swapped = vectors.clone()
    swapped[:, names.index("cross")] = mean.flip(0)
    assert float(users._domain_terms(replace(made, vectors=swapped))[1][0].detach()) > 0.01


def test_the_adversary_follows_its_schedule_and_is_watched(split: Split) -> None:
    model = make(split, stage="users")
    result = fit(model, split, epochs=3, eval_every=3, batch_size=16, show=False)
    strength = [entry["reversal"] for entry in result.history]
    assert strength[0] == 0
    assert strength == sorted(strength)
    assert all(0 <= entry["discriminator"] <= 1 for entry in result.history)
    assert "discriminator" not in model.monitor()  # asked for once an epoch


@pytest.mark.parametrize(
    ("kwargs", "gone"),
    [
        ({"adversary": 0.0}, "users.discriminator"),
        ({"use_graph": False}, "users.graph"),
        ({"inputs": "sequence"}, "users."),
        ({"inputs": "vectors"}, "sequence.encoder"),
    ],
)
def test_ablations_leave_parts_out(kwargs: dict[str, Any], gone: str, split: Split) -> None:
    names = {name for name, _ in make(split).named_parameters()}
    left = {name for name, _ in make(split, **kwargs).named_parameters()}
    assert any(name.startswith(gone) for name in names)
    assert not any(name.startswith(gone) for name in left)


@pytest.mark.parametrize("part", ["adversary", "alignment", "separation"])
def test_a_weight_of_zero_leaves_out_its_loss(part: str, split: Split) -> None:
    loader = SeedLoader(EventIndex(split.train), make(split).sampling)
    batch = loader.batch(training_seeds(loader.index, 16), key=0)
    sizes = [len(make(split, **k).loss_terms(batch)[0]) for k in ({}, {part: 0.0})]
    assert sizes[0] == sizes[1] + 1


# ---- stages --------------------------------------------------------------------------------------


def test_the_second_stage_leaves_the_first_as_it_was(split: Split, tmp_path: Path) -> None:
    first = trained(make(split, stage="users"), split)
    assert first.users is not None
    before = {k: v.clone() for k, v in first.users.state_dict().items()}
    second = TriGRec.second_stage(first, split.train, inputs="both")
    assert second.users is not None
    assert not any(p.requires_grad for p in second.users.parameters())
    assert torch.equal(second._table(), first.users.item)
    trained(second, split)
    second.train()
    assert not second.users.training
    assert all(torch.equal(before[k], v) for k, v in second.users.state_dict().items())
    assert not torch.equal(second._table(), first.users.item)
    save_model(second.eval(), tmp_path)
    loaded = load_model(tmp_path, MODELS)
    batch = asked(second, split)
    with torch.no_grad():
        assert torch.equal(loaded.score(batch), second.score(batch))


def test_vectors_from_the_graph(split: Split) -> None:
    graph = split.train.before(split.graph.num_events)
    graph["user"].spe = torch.randn(graph.num_users, 8)
    graph["user"].cross = torch.randn(graph.num_users, 8)
    torch.manual_seed(0)
    model = TriGRec.from_graph(graph, target="food", stage="recommender", loaded=["spe", "cross"],
                               **SMALL)  # fmt: skip
    assert model.users is None
    model = trained(model, split, epochs=1)
    batch = asked(model, split)
    other = replace(batch, user=batch.user.roll(1))
    with torch.no_grad():
        assert not torch.equal(model.score(batch), model.score(other))


def test_vectors_of_different_widths_are_refused(split: Split) -> None:
    graph = split.train.before(split.graph.num_events)
    graph["user"].spe = torch.randn(graph.num_users, 8)
    graph["user"].cross = torch.randn(graph.num_users, 6)
    with pytest.raises(ValueError, match=r"one width \(got {'spe': 8, 'cross': 6}\)"):
        TriGRec.from_graph(graph, target="food", stage="recommender", loaded=["spe", "cross"])


def test_a_run_that_was_killed_goes_on_bit_equal(split: Split, tmp_path: Path) -> None:
    how: dict[str, Any] = {"epochs": 2, "batch_size": 32, "eval_every": 2, "show": False}

    def kill(epoch: int) -> None:
        raise RuntimeError(f"killed after epoch {epoch}")

    whole, half = make(split, stage="users"), make(split, stage="users")
    fit(whole, split, **how)
    with pytest.raises(RuntimeError, match="killed after epoch 1"):
        fit(half, split, folder=tmp_path, after_epoch=kill, **how)
    again = make(split, stage="users")
    fit(again, split, folder=tmp_path, resume=True, **how)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target": "toys"}, r"'target' needs to be one of \['food', 'kitchen'\]"),
        ({"target": 2}, r"'target' needs to be in 0\.\.1"),
        ({"stage": "third"}, "'stage' needs to be one of"),
        ({"inputs": "none"}, "'inputs' needs to be one of"),
        ({"mask_prob": 2}, "'mask_prob' needs to be in"),
        ({"adversary": -1.0}, "'adversary' needs to be a weight of at least 0"),
        ({"stage": "users", "inputs": "sequence"}, "has no vectors of users to train"),
    ],
)
def test_wrong_arguments(kwargs: dict[str, Any], message: str, split: Split) -> None:
    with pytest.raises(ValueError, match=message):
        make(split, **kwargs)
