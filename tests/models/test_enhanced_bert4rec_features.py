"""Enhanced BERT4Rec: every feature is alive."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models.side_information import FEATURES, bin_codes, bin_edges
from tgrec.models.side_inputs import usual_count
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, toy_graph


def test_a_graph_is_asked_what_it_has(enhanced_kit: SimpleNamespace) -> None:
    assert enhanced_kit.build().config["features"] == list(FEATURES)
    assert enhanced_kit.build(noise_graph()).config["features"] == ["popularity", "calendar", "gap"]
    known = ["popularity", "user", "rating", "calendar", "gap"]
    assert enhanced_kit.build(toy_graph()).config["features"] == known
    assert enhanced_kit.build(features=["year", "gap"]).config["features"] == ["year", "gap"]
    assert enhanced_kit.build(task_weights={"rating_prediction": 0}).inputs.user is None
    with pytest.raises(ValueError, match="asks for 'genre', which the graph does not have"):
        enhanced_kit.build(toy_graph(), features=["genre"])
    with pytest.raises(ValueError, match="needs to be some of .* \\(got 'zip'\\)"):
        enhanced_kit.build(features=["zip"])


def without_order(graph: TemporalRecGraph, name: str) -> TemporalRecGraph:
    """A copy in which the values of one feature stand at other nodes or events."""
    out, g = copy.copy(graph), torch.Generator().manual_seed(1)
    store = {"genre": "item", "year": "item"}.get(name, "user")
    out = out.clone()
    if name == "rating":
        edges = out[out.interaction_types[0]]
        edges.rating = 6 - edges.rating
    elif name in ("calendar", "gap"):
        edges = out[out.interaction_types[0]]
        # Another season and hour; or other gaps, at the same hours.
        shift = torch.arange(edges.time.numel()) * 86_400 * 7 * (name == "gap")
        edges.time = edges.time + (86_400 * 100 + 3 * 3600 if name == "calendar" else shift)
    else:
        value = out[store][name]
        out[store][name] = value[torch.randperm(value.size(0), generator=g)]
    return out


@torch.no_grad()
@pytest.mark.parametrize("name", [f for f in FEATURES if f not in ("user", "popularity")])
def test_every_feature_changes_the_scores(name: str, enhanced_kit: SimpleNamespace) -> None:
    """The seed's year was clamped to one value: whatever stood there, nothing changed."""
    model, other = enhanced_kit.build(features=[name]), without_order(enhanced_kit.graph, name)
    loader = SeedLoader(EventIndex(other), model.sampling)
    before = model.score(enhanced_kit.asked(model))
    model.inputs.fill(leave_one_out(other).train)
    after = model.score(loader.batch(enhanced_kit.split.test))
    changed = (before - after).abs().amax(1) > 1e-4
    assert float(changed.float().mean()) > 0.3  # half of the people keep their gender


@torch.no_grad()
def test_the_id_of_a_user_changes_the_scores(enhanced_kit: SimpleNamespace) -> None:
    model, batch = enhanced_kit.build(), enhanced_kit.asked(enhanced_kit.build())
    other = model.inputs.user_values
    other[:] = other[:1].clone()  # everybody has one profile; who they are differs
    scores = model.score(batch)
    moved = model.score(replace(batch, user=(batch.user + 1) % enhanced_kit.graph.num_users))
    assert float((scores - moved).abs().amax(1).min()) > 1e-4


def test_every_table_gets_a_gradient(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build(loud=False).train()
    model.loss(enhanced_kit.training_batch(model)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    for name in ("item", "genre", "user", "mask_token"):
        assert getattr(model.inputs, name).grad.any(), name
    for name, table in model.inputs.tables.items():
        assert table.grad.any(), name
    assert all(table.grad.any() for table in model.inputs.calendar.tables)


def test_ids_are_learned_from_ratings_alone(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build(unknown_prob=0.0)
    batch = enhanced_kit.training_batch(model)
    sums, _ = model.loss_terms(batch)
    for task, total in zip(model.tasks.tasks, sums, strict=True):
        (grad,) = torch.autograd.grad(
            total, model.inputs.user, retain_graph=True, allow_unused=True
        )
        assert (grad is not None and bool(grad.any())) == (task == "rating_prediction"), task


@torch.no_grad()
def test_popularity_is_in_the_scores_once(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build(features=["popularity"])
    batch = enhanced_kit.asked(model)
    counts = torch.bincount(
        enhanced_kit.split.train[enhanced_kit.graph.interaction_types[0]].edge_index[1],
        minlength=40,
    )
    assert torch.equal(model.inputs.item_count[counts > 0], counts[counts > 0].float())
    assert counts.max() > 1
    with_it = model.score(batch)
    model.inputs.popularity.zero_()
    without = model.score(batch)
    model.inputs.popularity.fill_(2.0)
    wanted = without + 2 * model.inputs.item_count.log1p()
    torch.testing.assert_close(model.score(batch), wanted)
    assert not torch.equal(with_it, without)


def test_the_usual_count_of_new_items_is_that_of_their_genres() -> None:
    counts = torch.tensor([9.0, 1.0, 3.0, 0.0, 0.0, 0.0])
    share = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]])
    one_plus = torch.tensor([10.0, 2.0, 4.0]).log()
    first = (one_plus[0] + 0.5 * one_plus[1]) / 1.5
    wanted = torch.stack([first, one_plus.mean(), one_plus.mean()]).expm1()
    torch.testing.assert_close(usual_count(counts, share.float(), share[3:].float()), wanted)
    assert usual_count(torch.zeros(2), torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [0, 0]


@torch.no_grad()
def test_new_items_are_as_popular_as_their_genres(enhanced_kit: SimpleNamespace) -> None:
    """In the graph without training events, or not in the graph at all; none without genres."""
    gone = enhanced_kit.split.train[enhanced_kit.graph.interaction_types[0]].edge_index[1] < 3
    train = enhanced_kit.split.train.select_events(
        ~gone, enhanced_kit.graph.interaction_types[0][1]
    )
    for features in (["genre", "popularity"], ["popularity"]):
        inputs = enhanced_kit.build(train, features=features, loud=False).inputs
        known = inputs.item_count[inputs.item_trained].log1p()
        for item in range(3):
            genre = enhanced_kit.graph["item"].genre[item].nonzero().view(-1).tolist() * (
                "genre" in features
            )
            wanted = inputs.popularity * inputs.item_count[item].log1p()
            torch.testing.assert_close(inputs.item_popularity(genre), wanted)
            assert torch.isclose(wanted, known.mean()) != ("genre" in features)


def test_bins() -> None:
    years = torch.tensor([0.0, 1995, 1919, 2000, 1995])
    edges = bin_edges("year", years)
    assert bin_codes("year", years, edges).tolist() == [3, 1, 0, 2, 1]
    assert bin_codes("year", torch.tensor([1900.0, 2024]), edges).tolist() == [0, 2]
    ages = torch.tensor([7.0, 18, 24, 35, 73, -1])  # MovieLens-100K has years, 1M has groups
    assert bin_codes("age", ages, bin_edges("age", ages)).tolist() == [0, 1, 1, 3, 6, 7]
    groups = torch.arange(7.0)
    assert bin_codes("age", groups, bin_edges("age", groups)).tolist() == list(range(7))
    many = torch.linspace(1, 9, 5000)
    assert len(bin_edges("rating", many)) == 127
