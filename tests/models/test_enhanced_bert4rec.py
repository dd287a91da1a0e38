"""Enhanced BERT4Rec: heads know what they say, of somebody and something new too."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tgrec.models import EnhancedBERT4Rec
from tgrec.models.markov import GapMarkov, SkipMarkov
from tgrec.testing import check_model, toy_graph

# ---- attention and heads ---------------------------------------------------------------------


@torch.no_grad()
def test_the_cross_attention_depends_on_the_query(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build()
    weights = model.context_weights(enhanced_kit.asked(model))
    names = model.inputs.fact_names
    assert names == ("nothing", "user", "gender", "age", "occupation", "recent")
    assert weights.shape[3] == len(names)
    torch.testing.assert_close(weights.sum(3), torch.ones(weights.shape[:3]))
    inside = weights[:, -3:].amax(1) - weights[:, -3:].amin(1)
    assert float(inside.amax()) > 0.1


@torch.no_grad()
def test_the_rating_depends_on_the_item_and_lies_on_the_scale(
    enhanced_kit: SimpleNamespace,
) -> None:
    model, batch = enhanced_kit.build(), enhanced_kit.asked(enhanced_kit.build())
    ratings = torch.stack([model.rate(batch, torch.full_like(batch.user, i)) for i in range(8)])
    assert float(ratings.std(0).amin()) > 0
    assert float(ratings.min()) >= 1
    assert float(ratings.max()) <= 5
    with pytest.raises(ValueError, match="no rating head"):
        enhanced_kit.build(features=["genre"]).rate(batch, batch.user)


def test_the_preference_head_does_not_collapse(enhanced_kit: SimpleNamespace) -> None:
    """Its best constant is the mean of genres; learned from two kinds of people, it tells them."""
    model = enhanced_kit.build(loud=False, unknown_prob=0.0, dropout=0.0).train()
    share = torch.zeros(enhanced_kit.graph.num_items, enhanced_kit.graph["item"].genre.size(1))
    share[:20, 0] = 1.0
    share[20:, 1] = 1.0
    model.inputs.item_genre.copy_(share)
    batch = enhanced_kit.training_batch(model)
    assert batch.item is not None
    assert batch.history is not None
    kind = 20 * (batch.user % 2)
    past = batch.history.item % 20 + kind.unsqueeze(1)
    batch = replace(batch, item=batch.item % 20 + kind, history=replace(batch.history, item=past))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    told = model.eval().genre_preference(batch).detach()
    torch.testing.assert_close(told.sum(1), torch.ones(len(told)))
    first = kind == 0
    assert float(told[first, 0].mean() - told[~first, 0].mean()) > 0.5


# ---- somebody and something new ----------------------------------------------------------------


@torch.no_grad()
def test_somebody_new_is_scored_by_what_is_known(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build()
    stranger = replace(
        enhanced_kit.asked(model), user=torch.full((len(enhanced_kit.split.test),), -1)
    )
    nobody = model.score(stranger)
    assert nobody.isfinite().all()
    told = model.score(stranger, profile={"gender": 1, "age": 3, "occupation": 2})
    assert float((told - nobody).abs().amax(1).min()) > 1e-4
    torch.testing.assert_close(model.score(stranger, profile={}), nobody)
    with pytest.raises(ValueError, match="'profile' has \\['zip'\\], which this model"):
        model.score(stranger, profile={"zip": 1})
    # A node without training events has its profile and no id of its own.
    model.inputs.user_trained[:] = False
    values = model.inputs.user_values[enhanced_kit.split.test.user[0]].tolist()
    profile = dict(zip(model.inputs.profile_names, values, strict=True))
    known = model.score(enhanced_kit.asked(model))[0]
    torch.testing.assert_close(model.score(stranger, profile=profile)[0], known)


@torch.no_grad()
def test_a_new_item_is_scored_by_its_genres_and_year(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build()
    model.inputs.set_trained(torch.arange(40) >= 2)
    items = model.encode_item()
    for item in (0, 1):
        genre = enhanced_kit.graph["item"].genre[item].nonzero().view(-1).tolist()
        year = int(enhanced_kit.graph["item"].year[item])
        torch.testing.assert_close(items[item], model.inputs.item_vector(genre, year))
    # Those with training events have a part of their own, none on the whole.
    own = items - model.inputs._described(model.inputs.item_genre, model.inputs.item_year)
    torch.testing.assert_close(own.sum(0), torch.zeros(16), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="'genre' needs to hold numbers below"):
        model.inputs.item_vector([99])


# ---- the graph ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("left_out", [False, True])
def test_the_graph_adds_its_logits_with_its_weight(
    left_out: bool, enhanced_kit: SimpleNamespace
) -> None:
    """w stands before log(1 + p / floor); in training, p knows nothing of the target."""
    plain, model = enhanced_kit.build(), enhanced_kit.build(use_graph=True, graph_weight=1.5)
    batch = enhanced_kit.training_batch(model) if left_out else enhanced_kit.asked(model)
    name = "score_left_out" if left_out else "score"
    assert isinstance(model.graph, GapMarkov)
    counted = getattr(model.graph, name)(batch)
    added = getattr(model, name)(batch) - getattr(plain, name)(batch)
    torch.testing.assert_close(added, 1.5 * torch.log1p(counted / 3e-4), atol=1e-4, rtol=1e-4)
    assert float(added.max()) > 0.1
    assert (
        type(enhanced_kit.build(toy_graph(), features=["popularity"], use_graph=True).graph)
        is SkipMarkov
    )
    assert plain.graph is None
    with pytest.raises(ValueError, match="'graph_weight' needs to be a number of at least 0"):
        EnhancedBERT4Rec(40, **enhanced_kit.SMALL, graph_weight=float("nan"))


def test_the_weight_of_the_graph_is_chosen_where_the_measure_is_best(
    enhanced_kit: SimpleNamespace,
) -> None:
    def choose(best: float, **kwargs: Any) -> float:
        model = enhanced_kit.build(graph_weight=0.6, **kwargs)
        model.choose(lambda: -abs(model.graph_weight - best))
        assert model.graph_weight == model.config["graph_weight"]
        return float(model.graph_weight)

    assert choose(1.5, use_graph=True, choose_weight=True) == 1.5
    assert choose(0.61, use_graph=True, choose_weight=True) == 0.6, "nothing else is nearer"
    assert choose(1.5, use_graph=True) == 0.6
    assert choose(1.5, choose_weight=True) == 0.6


def test_with_the_graph_it_passes_all_checks() -> None:
    check_model(EnhancedBERT4Rec, use_graph=True)
