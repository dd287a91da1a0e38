"""Enhanced BERT4Rec: every feature is alive, what is hidden is hidden, heads know what they say."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import RecBatch, Targets, TemporalRecGraph, leave_one_out
from tgrec.datasets import simulate_movielens
from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import EnhancedBERT4Rec
from tgrec.models import enhanced_bert4rec as module
from tgrec.models.side_information import FEATURES, bin_codes, bin_edges
from tgrec.models.side_inputs import usual_count
from tgrec.models.tokens import carried_time, make_tokens
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, toy_graph

SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 16, "max_len": 12}
GRAPH = simulate_movielens(num_users=50, num_items=40, mean_events=10)[0]
SPLIT = leave_one_out(GRAPH)
INDEX = EventIndex(GRAPH)


def build(graph: TemporalRecGraph = SPLIT.train, loud: bool = True, **kwargs: Any) -> Any:
    """A model; a loud one has large weights, so that everything that is read is heard."""
    torch.manual_seed(0)
    model = EnhancedBERT4Rec.from_graph(graph, **{**SMALL, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if loud:
                parameter.normal_(std=0.3)
    return model


def asked(model: Any, track: Track = "T1", targets: Targets = SPLIT.test) -> RecBatch:
    return SeedLoader(INDEX, model.sampling, track).batch(targets)


def training_batch(model: Any, graph: TemporalRecGraph = SPLIT.train) -> RecBatch:
    index = EventIndex(graph)
    return SeedLoader(index, model.sampling).batch(training_seeds(index, 12), key=3)


# ---- features ----------------------------------------------------------------------------------


def test_a_graph_is_asked_what_it_has() -> None:
    assert build().config["features"] == list(FEATURES)
    assert build(noise_graph()).config["features"] == ["popularity", "calendar", "gap"]
    known = ["popularity", "user", "rating", "calendar", "gap"]
    assert build(toy_graph()).config["features"] == known
    assert build(features=["year", "gap"]).config["features"] == ["year", "gap"]
    assert build(task_weights={"rating_prediction": 0}).inputs.user is None
    with pytest.raises(ValueError, match="asks for 'genre', which the graph does not have"):
        build(toy_graph(), features=["genre"])
    with pytest.raises(ValueError, match="needs to be some of .* \\(got 'zip'\\)"):
        build(features=["zip"])


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
def test_every_feature_changes_the_scores(name: str) -> None:
    """The seed's year was clamped to one value: whatever stood there, nothing changed."""
    model, other = build(features=[name]), without_order(GRAPH, name)
    loader = SeedLoader(EventIndex(other), model.sampling)
    before = model.score(asked(model))
    model.inputs.fill(leave_one_out(other).train)
    after = model.score(loader.batch(SPLIT.test))
    changed = (before - after).abs().amax(1) > 1e-4
    assert float(changed.float().mean()) > 0.3  # half of the people keep their gender


@torch.no_grad()
def test_the_id_of_a_user_changes_the_scores() -> None:
    model, batch = build(), asked(build())
    other = model.inputs.user_values
    other[:] = other[:1].clone()  # everybody has one profile; who they are differs
    scores = model.score(batch)
    moved = model.score(replace(batch, user=(batch.user + 1) % GRAPH.num_users))
    assert float((scores - moved).abs().amax(1).min()) > 1e-4


def test_every_table_gets_a_gradient() -> None:
    model = build(loud=False).train()
    model.loss(training_batch(model)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    for name in ("item", "genre", "user", "mask_token"):
        assert getattr(model.inputs, name).grad.any(), name
    for name, table in model.inputs.tables.items():
        assert table.grad.any(), name
    assert all(table.grad.any() for table in model.inputs.calendar.tables)


def test_ids_are_learned_from_ratings_alone() -> None:
    model = build(unknown_prob=0.0)
    batch = training_batch(model)
    sums, _ = model.loss_terms(batch)
    for task, total in zip(model.tasks.tasks, sums, strict=True):
        (grad,) = torch.autograd.grad(
            total, model.inputs.user, retain_graph=True, allow_unused=True
        )
        assert (grad is not None and bool(grad.any())) == (task == "rating_prediction"), task


@torch.no_grad()
def test_popularity_is_in_the_scores_once() -> None:
    model = build(features=["popularity"])
    batch = asked(model)
    counts = torch.bincount(SPLIT.train[GRAPH.interaction_types[0]].edge_index[1], minlength=40)
    assert torch.equal(model.inputs.item_count[counts > 0], counts[counts > 0].float())
    assert counts.max() > 1
    with_it = model.score(batch)
    model.inputs.popularity.zero_()
    without = model.score(batch)
    model.inputs.popularity.fill_(2.0)
    wanted = without + 2 * model.inputs.item_count.log1p()
    torch.testing.assert_close(model.score(batch), wanted)
    assert not torch.equal(with_it, without)


@torch.no_grad()
def test_the_event_that_is_asked_for_is_not_counted_in_training() -> None:
    """Counts that hold the target would tell it, rare items above all."""
    model = build(features=["popularity"], task_weights={"item_prediction": 0.0}, last_prob=1.0)
    model.unknown_prob = 0.0
    batch = training_batch(model)
    row, weight = torch.arange(batch.user.numel()), model.inputs.popularity
    one_less = (model.inputs.item_count[batch.item] - 1).log1p()
    by_hand = model.score(batch)
    by_hand[row, batch.item] += weight * (one_less - model.inputs.item_count[batch.item].log1p())
    torch.testing.assert_close(model.score_left_out(batch), by_hand)
    sums, counts = model.loss_terms(batch)
    items = model.inputs.item_trained
    lost = -by_hand.masked_fill(~items, -torch.inf).log_softmax(1)[row, batch.item]
    torch.testing.assert_close(sums[0] / counts[0], lost.mean())


def test_the_usual_count_of_new_items_is_that_of_their_genres() -> None:
    counts = torch.tensor([9.0, 1.0, 3.0, 0.0, 0.0, 0.0])
    share = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]])
    one_plus = torch.tensor([10.0, 2.0, 4.0]).log()
    first = (one_plus[0] + 0.5 * one_plus[1]) / 1.5
    wanted = torch.stack([first, one_plus.mean(), one_plus.mean()]).expm1()
    torch.testing.assert_close(usual_count(counts, share.float(), share[3:].float()), wanted)
    assert usual_count(torch.zeros(2), torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [0, 0]


@torch.no_grad()
def test_new_items_are_as_popular_as_their_genres() -> None:
    """In the graph without training events, or not in the graph at all; none without genres."""
    gone = SPLIT.train[GRAPH.interaction_types[0]].edge_index[1] < 3
    train = SPLIT.train.select_events(~gone, GRAPH.interaction_types[0][1])
    for features in (["genre", "popularity"], ["popularity"]):
        inputs = build(train, features=features, loud=False).inputs
        known = inputs.item_count[inputs.item_trained].log1p()
        for item in range(3):
            genre = GRAPH["item"].genre[item].nonzero().view(-1).tolist() * ("genre" in features)
            wanted = inputs.popularity * inputs.item_count[item].log1p()
            torch.testing.assert_close(inputs.item_popularity(genre), wanted)
            assert torch.isclose(wanted, known.mean()) != ("genre" in features)


def test_tasks_see_as_many_events_as_an_average_user_has() -> None:
    """At most ``max_len``: what the last positions weigh in the loss."""
    events = SPLIT.train[GRAPH.interaction_types[0]].edge_index[0].bincount()
    mean = float(events[events > 0].float().mean())
    for max_len, per_row in ((4, 4.0), (200, mean)):
        model = build(max_len=max_len, unknown_prob=0.0)
        assert float(model.inputs.events_per_user) == pytest.approx(mean)
        batch = training_batch(model)
        _, counts = model.loss_terms(batch)
        count = float(counts[list(model.tasks.tasks).index("next_item")])
        assert count == pytest.approx(per_row * batch.user.numel(), rel=1e-5)


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


# ---- what is hidden ------------------------------------------------------------------------------


def masked_is_hidden(model: Any) -> None:
    """Rating, time, genres and year of what a mask token stands for change no prediction there."""
    batch = training_batch(model)
    history, item, rating = batch.history, batch.item, batch.rating
    assert history is not None
    assert item is not None
    assert history.rating is not None
    assert rating is not None
    token = module.make_cloze(batch, model.num_items, 0.4, 0.0).item == model.num_items
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
    torch.testing.assert_close(states[0], states[1])


@torch.no_grad()
def test_a_masked_item_hides_its_side_information(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(mask_prob=0.4, last_prob=0.0, unknown_prob=0.0)
    masked_is_hidden(model)

    def leaky(history: Any, asked: Any, item: Tensor, mask: Tensor, known: Tensor) -> Any:
        return make_tokens(history, asked, item, mask, mask)  # as the seed: all but the id

    monkeypatch.setattr(module, "make_tokens", leaky)
    with pytest.raises(AssertionError):
        masked_is_hidden(model)


def test_times_that_are_not_known_are_carried_on() -> None:
    time = torch.tensor([[0, 5, 7, 9, 0], [0, 0, 4, 8, 0], [1, 2, 3, 4, 5]])
    known = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    wanted = [[5, 5, 5, 9, 9], [8, 8, 8, 8, 8], [0, 0, 0, 0, 0]]
    assert carried_time(time, known).tolist() == wanted


@torch.no_grad()
def test_t2_reads_the_time_of_the_question_and_t1_does_not() -> None:
    model, test = build(), SPLIT.test
    assert test.time is not None
    later = replace(test, time=test.time + 86_400 * 40 + 3600)
    assert torch.equal(model.score(asked(model)), model.score(asked(model, "T1", later)))
    assert not torch.equal(model.score(asked(model, "T2")), model.score(asked(model, "T2", later)))


def test_the_mask_token_is_no_negative_and_new_items_neither() -> None:
    model = build()
    model.inputs.item_trained[:5] = False
    items = model.encode_item()
    catalogue, place = model._catalogue(items, torch.tensor([[5, 39]]))
    assert torch.equal(catalogue, items[5:])
    assert place.tolist() == [[0, 34]]


# ---- attention and heads ---------------------------------------------------------------------


@torch.no_grad()
def test_the_cross_attention_depends_on_the_query() -> None:
    model = build()
    weights = model.context_weights(asked(model))
    names = model.inputs.fact_names
    assert names == ("nothing", "user", "gender", "age", "occupation", "recent")
    assert weights.shape[3] == len(names)
    torch.testing.assert_close(weights.sum(3), torch.ones(weights.shape[:3]))
    inside = weights[:, -3:].amax(1) - weights[:, -3:].amin(1)
    assert float(inside.amax()) > 0.1


@torch.no_grad()
def test_the_rating_depends_on_the_item_and_lies_on_the_scale() -> None:
    model, batch = build(), asked(build())
    ratings = torch.stack([model.rate(batch, torch.full_like(batch.user, i)) for i in range(8)])
    assert float(ratings.std(0).amin()) > 0
    assert float(ratings.min()) >= 1
    assert float(ratings.max()) <= 5
    with pytest.raises(ValueError, match="no rating head"):
        build(features=["genre"]).rate(batch, batch.user)


def test_the_preference_head_does_not_collapse() -> None:
    """Its best constant is the mean of genres; learned from two kinds of people, it tells them."""
    model = build(loud=False, unknown_prob=0.0, dropout=0.0).train()
    share = torch.zeros(GRAPH.num_items, GRAPH["item"].genre.size(1))
    share[:20, 0] = 1.0
    share[20:, 1] = 1.0
    model.inputs.item_genre.copy_(share)
    batch = training_batch(model)
    assert batch.item is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    told = model.eval().genre_preference(batch).detach()
    torch.testing.assert_close(told.sum(1), torch.ones(len(told)))
    first = batch.item < 20
    assert float(told[first, 0].mean() - told[~first, 0].mean()) > 0.5


def test_learned_weights_move_and_are_reported() -> None:
    model = build(loud=False, uncertainty_weighting=True).train()
    before = model.monitor()
    assert before["weight_user_preference"] == pytest.approx(0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(training_batch(model)).backward()
        optimizer.step()
    after = model.monitor()
    for task in module.TASK_WEIGHTS:
        assert after[f"weight_{task}"] != before[f"weight_{task}"]
        assert after[f"loss_{task}"] > 0


@pytest.mark.parametrize("bad", [{"next_item": 0.0}, {"rating": 1.0}, {"next_item": -1.0}])
def test_bad_task_weights_are_explained(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="'task_weights' needs"):
        build(task_weights=bad)


def test_checkpointing_changes_no_number() -> None:
    grads = []
    for flag in (False, True):
        model = build(gradient_checkpointing=flag, n_blocks=2).train()
        batch = training_batch(model)
        torch.manual_seed(5)
        model.loss(batch).backward()
        grads.append([p.grad for p in model.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)


# ---- somebody and something new ----------------------------------------------------------------


@torch.no_grad()
def test_somebody_new_is_scored_by_what_is_known() -> None:
    model = build()
    stranger = replace(asked(model), user=torch.full((len(SPLIT.test),), -1))
    nobody = model.score(stranger)
    assert nobody.isfinite().all()
    told = model.score(stranger, profile={"gender": 1, "age": 3, "occupation": 2})
    assert float((told - nobody).abs().amax(1).min()) > 1e-4
    torch.testing.assert_close(model.score(stranger, profile={}), nobody)
    with pytest.raises(ValueError, match="'profile' has \\['zip'\\], which this model"):
        model.score(stranger, profile={"zip": 1})
    # A node without training events has its profile and no id of its own.
    model.inputs.user_trained[:] = False
    values = model.inputs.user_values[SPLIT.test.user[0]].tolist()
    profile = dict(zip(model.inputs.profile_names, values, strict=True))
    known = model.score(asked(model))[0]
    torch.testing.assert_close(model.score(stranger, profile=profile)[0], known)


@torch.no_grad()
def test_a_new_item_is_scored_by_its_genres_and_year() -> None:
    model = build()
    model.inputs.item_trained[:2] = False
    items = model.encode_item()
    for item in (0, 1):
        genre = GRAPH["item"].genre[item].nonzero().view(-1).tolist()
        year = int(GRAPH["item"].year[item])
        torch.testing.assert_close(items[item], model.inputs.item_vector(genre, year))
    # Those with training events have a part of their own, none on the whole.
    own = items - model.inputs._described(model.inputs.item_genre, model.inputs.item_year)
    torch.testing.assert_close(own.sum(0), torch.zeros(16), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="'genre' needs to hold numbers below"):
        model.inputs.item_vector([99])
