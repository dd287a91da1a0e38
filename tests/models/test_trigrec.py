"""TriGRec: sequences by domain, losses, stages, ablations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.data import History, Split, TemporalRecGraph, leave_one_out_in
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, TriGRec, load_model, save_model
from tgrec.models.trigrec_graph import pooled
from tgrec.models.trigrec_sequences import DomainCloze, known_domains, question
from tgrec.sampler import EventIndex
from tgrec.training import fit


def row(items: list[int], relations: list[int], width: int) -> History:
    """One left-padded history."""
    pad = width - len(items)
    item = torch.tensor([[0] * pad + items])
    mask = torch.arange(width).unsqueeze(0) >= pad
    relation = torch.tensor([[0] * pad + relations])
    event_id = torch.where(mask, torch.arange(width), -1)
    return History(item, item * 10, event_id, relation, mask)


# ---- sequences -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("told", [True, False])
def test_items_of_several_domains_are_refused(told: bool, trigrec_kit: SimpleNamespace) -> None:
    rows = [(1, "a", "food"), (1, "b", "toys"), (2, "b", "food"), (2, "c", "food")]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "domain"])
    graph = TemporalRecGraph.from_pandas(table, time=None, relation="domain")
    if told:
        graph["item"].domain = torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match=r"item 1 has events of others too .*: \[1, 1\].*'food:1'"):
        TriGRec.from_graph(graph, target="food", **trigrec_kit.SMALL)


# ---- losses --------------------------------------------------------------------------------------


def test_only_events_of_the_domain_are_asked_for(trigrec_kit: SimpleNamespace) -> None:
    """Whoever has none is left out, and so is who has nothing before it."""
    rows = [(0, "a1"), (0, "b1"), (0, "a2"), (0, "b2"), (1, "b1"), (1, "b2"), (1, "b3"), (2, "a1"),
            (2, "b1"), (2, "b2"), (3, "b1"), (3, "a3"), (3, "a1")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    table["domain"] = table.item_id.str[0]
    graph = TemporalRecGraph.from_pandas(table, time=None, relation="domain")
    model = TriGRec.from_graph(graph, target="a", **trigrec_kit.SMALL)
    index = EventIndex(graph)
    seeds = training_seeds(index, 16, relation=model.sampling.relation)
    titles = [rows[event][1] for event in seeds.cut.tolist()]
    assert list(zip(seeds.user.tolist(), titles, strict=True)) == [(0, "a2"), (3, "a1")]
    sums, counts = model.loss_terms(SeedLoader(index, model.sampling).batch(seeds, key=0))
    assert bool(counts[0] > 0)
    assert sums.isfinite().all()
    users = TriGRec.from_graph(graph, target="a", stage="users", **trigrec_kit.SMALL)
    assert users.sampling.relation is None  # stage 1 learns from all domains


def test_nobody_to_ask_is_explained(trigrec_kit: SimpleNamespace) -> None:
    rows = [(u, f"b{i}") for u in range(6) for i in range(4)] + [(u, "a1") for u in range(6)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    table["domain"] = table.item_id.str[0]
    split = leave_one_out_in(TemporalRecGraph.from_pandas(table, time=None, relation="domain"), "b")
    model = TriGRec.from_graph(split.train, target="a", **trigrec_kit.SMALL)
    with pytest.raises(ValueError, match="no user has two training events, the later of the kind"):
        fit(model, split, epochs=1, show=False)


def test_distances_are_between_vectors_of_the_same_user(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    model = trigrec_kit.make(food_split, use_graph=False)
    users = model.users
    assert users is not None
    history = row([0, 31, 2], [0, 1, 0], 4)
    cloze = question(history, model.num_items, 0)
    made = users(DomainCloze(*(torch.cat([c, c]) for c in (
        cloze.item, cloze.mask, cloze.hole, cloze.target, cloze.relation))), None)  # fmt: skip
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


def test_the_adversary_follows_its_schedule_and_is_watched(
    food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    model = trigrec_kit.make(food_split, stage="users")
    result = fit(model, food_split, epochs=3, eval_every=3, batch_size=16, show=False)
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
        ({"encode_graph": False}, "users.graph"),
        ({"inputs": "sequence"}, "users."),
        ({"inputs": "vectors"}, "sequence.encoder"),
    ],
)
def test_ablations_leave_parts_out(
    kwargs: dict[str, Any], gone: str, food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    names = {name for name, _ in trigrec_kit.make(food_split).named_parameters()}
    left = {name for name, _ in trigrec_kit.make(food_split, **kwargs).named_parameters()}
    assert any(name.startswith(gone) for name in names)
    assert not any(name.startswith(gone) for name in left)


@pytest.mark.parametrize("part", ["adversary", "alignment", "separation"])
def test_a_weight_of_zero_leaves_out_its_loss(
    part: str, food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    loader = SeedLoader(EventIndex(food_split.train), trigrec_kit.make(food_split).sampling)
    batch = loader.batch(training_seeds(loader.index, 16), key=0)
    sizes = [len(trigrec_kit.make(food_split, **k).loss_terms(batch)[0]) for k in ({}, {part: 0.0})]
    assert sizes[0] == sizes[1] + 1


# ---- stages --------------------------------------------------------------------------------------


def test_the_second_stage_leaves_the_first_as_it_was(
    food_split: Split, tmp_path: Path, trigrec_kit: SimpleNamespace
) -> None:
    first = trigrec_kit.trained(trigrec_kit.make(food_split, stage="users"), food_split)
    assert first.users is not None
    before = {k: v.clone() for k, v in first.users.state_dict().items()}
    second = TriGRec.second_stage(first, food_split.train, inputs="both")
    assert second.users is not None
    assert not any(p.requires_grad for p in second.users.parameters())
    assert torch.equal(second._table(), first.users.item)
    trigrec_kit.trained(second, food_split)
    second.train()
    assert not second.users.training
    assert all(torch.equal(before[k], v) for k, v in second.users.state_dict().items())
    assert not torch.equal(second._table(), first.users.item)
    save_model(second.eval(), tmp_path)
    loaded = load_model(tmp_path, MODELS)
    batch = trigrec_kit.asked(second, food_split)
    with torch.no_grad():
        assert torch.equal(loaded.score(batch), second.score(batch))


def test_vectors_from_the_graph(
    food_split: Split, tmp_path: Path, trigrec_kit: SimpleNamespace
) -> None:
    graph = food_split.train.before(food_split.graph.num_events)
    graph["user"].spe = torch.randn(graph.num_users, 8)
    graph["user"].cross = torch.randn(graph.num_users, 8)
    torch.manual_seed(0)
    model = TriGRec.from_graph(graph, target="food", stage="recommender", loaded=["spe", "cross"],
                               **trigrec_kit.SMALL)  # fmt: skip
    assert model.users is None
    model = trigrec_kit.trained(model, food_split, epochs=1)
    batch = trigrec_kit.asked(model, food_split)
    other = replace(batch, user=batch.user.roll(1))
    with torch.no_grad():
        assert not torch.equal(model.score(batch), model.score(other))
    # Without what the events say, they are found again by their names.
    save_model(model, tmp_path, learned_only=True)
    with torch.no_grad():
        again = load_model(tmp_path, MODELS, train=graph)
        assert torch.equal(again.score(batch), model.score(batch))
    with pytest.raises(ValueError, match="the graph has no 'spe'; with_user_vectors"):
        load_model(tmp_path, MODELS, train=food_split.train)


def test_vectors_of_different_widths_are_refused(food_split: Split) -> None:
    graph = food_split.train.before(food_split.graph.num_events)
    graph["user"].spe = torch.randn(graph.num_users, 8)
    graph["user"].cross = torch.randn(graph.num_users, 6)
    with pytest.raises(ValueError, match=r"one width \(got {'spe': 8, 'cross': 6}\)"):
        TriGRec.from_graph(graph, target="food", stage="recommender", loaded=["spe", "cross"])


def test_a_run_that_was_killed_goes_on_bit_equal(
    food_split: Split, tmp_path: Path, trigrec_kit: SimpleNamespace
) -> None:
    how: dict[str, Any] = {"epochs": 2, "batch_size": 32, "eval_every": 2, "show": False}

    def kill(epoch: int) -> None:
        raise RuntimeError(f"killed after epoch {epoch}")

    whole, half = (
        trigrec_kit.make(food_split, stage="users"),
        trigrec_kit.make(food_split, stage="users"),
    )
    fit(whole, food_split, **how)
    with pytest.raises(RuntimeError, match="killed after epoch 1"):
        fit(half, food_split, folder=tmp_path, after_epoch=kill, **how)
    again = trigrec_kit.make(food_split, stage="users")
    fit(again, food_split, folder=tmp_path, resume=True, **how)
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
def test_wrong_arguments(
    kwargs: dict[str, Any], message: str, food_split: Split, trigrec_kit: SimpleNamespace
) -> None:
    with pytest.raises(ValueError, match=message):
        trigrec_kit.make(food_split, **kwargs)
