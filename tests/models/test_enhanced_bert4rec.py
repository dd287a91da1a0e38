"""Enhanced BERT4Rec: every feature is alive, what is hidden is hidden, heads know what they say."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tgrec.data import History, RecBatch, Targets, TemporalRecGraph, leave_one_out
from tgrec.datasets import simulate_movielens
from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import EnhancedBERT4Rec
from tgrec.models import enhanced_bert4rec as module
from tgrec.models.enhanced_config import TASK_WEIGHTS
from tgrec.models.markov import GapMarkov, SkipMarkov
from tgrec.models.side_information import FEATURES, bin_codes, bin_edges
from tgrec.models.side_inputs import usual_count
from tgrec.models.tokens import Tokens, carried_time, cloze_tokens, token_pairs
from tgrec.sampler import EventIndex
from tgrec.testing import check_model, noise_graph, toy_graph

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
    model = build(features=["popularity"], task_weights={"item_prediction": 0.0})
    model.unknown_prob = 0.0
    batch = training_batch(model)
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


@torch.no_grad()
def test_every_prediction_of_a_task_weighs_the_same() -> None:
    model = build(cloze_prob=0.3, mask_prob=0.4, unknown_prob=0.0)
    batch = training_batch(model)
    assert batch.history is not None
    assert batch.rating is not None
    cloze = module.make_cloze(batch, model.num_items, 0.4, 0.0)
    both = (module.uniform(batch.key, module.BOTH_SIDES) < 0.3).unsqueeze(1)
    # What nothing is known of is not asked for, but where the past is hidden.
    after_one = cloze.mask & torch.nn.functional.pad(cloze.mask, (1, 0))[:, :-1]
    every, rated = after_one & ~both, batch.history.rating
    assert rated is not None
    rated = torch.cat([rated, batch.rating.unsqueeze(1)], dim=1)
    wanted = {
        "next_item": every.sum(),
        "item_prediction": (cloze.hole & both).sum(),
        "rating_prediction": (every & rated.isfinite()).sum(),
        "user_preference": (GRAPH["item"].genre[cloze.target].any(2) & every).sum(),
    }
    sums, counts = model.loss_terms(batch)
    for i, (task, number) in enumerate(zip(model.tasks.tasks, counts, strict=True)):
        assert float(number) == pytest.approx(TASK_WEIGHTS[task] * float(wanted[task]))
        heavy = build(task_weights={task: 2.5}, cloze_prob=0.3, mask_prob=0.4, unknown_prob=0.0)
        heavy.load_state_dict(model.state_dict())
        others = heavy.loss_terms(batch)
        torch.testing.assert_close(others[0][i] / others[1][i], sums[i] / number)
        assert float(others[1][i]) == pytest.approx(2.5 * float(wanted[task]))


@torch.no_grad()
def test_on_t1_nobody_reads_when_the_first_event_was_before_it_is_known() -> None:
    """The start token of a row has the time of its first event, as a place holder."""
    model = build(features=["gap", "calendar"])
    batch = training_batch(model)
    history = batch.history
    assert history is not None
    first = history.mask & ~torch.nn.functional.pad(history.mask, (1, 0))[:, :-1]
    moved = replace(history, time=torch.where(first, history.time - 86_400 * 9, history.time))
    before, after = states_of(model, batch), states_of(model, replace(batch, history=moved))
    start = torch.nn.functional.pad(first, (0, 1))
    assert int(start.sum()) == batch.user.numel()
    torch.testing.assert_close(after[start], before[start])
    assert not torch.equal(after[:, -1], before[:, -1])


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
    """Rating, time, genres and year of what a mask token stands for change no prediction."""
    batch = training_batch(model)
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
def test_a_masked_item_hides_its_side_information(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(mask_prob=0.4, unknown_prob=0.0)
    masked_is_hidden(model)

    def leaky(history: Any, asked: Any, item: Tensor, mask: Tensor, known: Tensor) -> Any:
        return cloze_tokens(history, asked, item, mask, mask)  # as the seed: all but the id

    monkeypatch.setattr(module, "cloze_tokens", leaky)
    with pytest.raises(AssertionError):
        masked_is_hidden(model)


def without_last(history: History, events: int) -> History:
    columns = {f.name: getattr(history, f.name) for f in fields(history)}
    return History(**{k: None if x is None else x[:, :-events] for k, x in columns.items()})


def states_of(model: Any, batch: RecBatch) -> Tensor:
    """``[B, S, D]`` from left to right."""
    facts, _ = model.inputs.facts(batch.user)
    out: Tensor = model.hidden(model._question(batch), model.encode_item(), facts)
    return out


def looks_back_only(model: Any, track: Track) -> None:
    """What is asked for at a position, and all that is after it, changes nothing there."""
    index = EventIndex(GRAPH)
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
    track: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(n_blocks=2)
    looks_back_only(model, track)

    def leaky(tokens: Tokens, both_sides: Tensor | None, gaps: bool) -> Tensor:
        return token_pairs(tokens, torch.ones_like(tokens.mask[:, 0]), gaps)

    monkeypatch.setattr(module, "token_pairs", leaky)
    with pytest.raises(AssertionError):
        looks_back_only(model, track)


@torch.no_grad()
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_in_training_a_position_reads_what_it_will_read_when_it_is_asked(track: Track) -> None:
    model = build(n_blocks=2, features=["rating", "gap", "calendar", "gender"])
    model.encoder.positions.table.zero_()  # they count from the end, which is elsewhere
    index = EventIndex(GRAPH)
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
def test_who_has_no_past_in_training_reads_nothing_of_it() -> None:
    """Every position is then the question of somebody new, and of nobody else."""
    model = build(unknown_prob=1.0, cloze_prob=0.0, features=["rating", "gap", "calendar"])
    model.encoder.positions.table.zero_()
    batch = training_batch(model)
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
def test_t2_reads_the_time_of_the_question_and_t1_does_not() -> None:
    model, test = build(), SPLIT.test
    assert test.time is not None
    later = replace(test, time=test.time + 86_400 * 40 + 3600)
    assert torch.equal(model.score(asked(model)), model.score(asked(model, "T1", later)))
    assert not torch.equal(model.score(asked(model, "T2")), model.score(asked(model, "T2", later)))


@torch.no_grad()
def test_the_mask_token_is_no_negative_and_new_items_neither() -> None:
    model = build(features=["genre"])
    model.inputs.set_trained(torch.arange(40) >= 5)
    items, states = model.encode_item(), torch.randn(3, 2, 16)
    rows = torch.tensor([[0, 1], [1, 1], [0, 0]]).bool()
    target = torch.tensor([[1, 5], [39, 8], [2, 3]])
    head = torch.nn.Identity()
    lost, count = model._item_loss(head, items, states, rows, target)
    logits = states[rows] @ items[5:].t()
    wanted = torch.nn.functional.cross_entropy(logits, target[rows] - 5, reduction="sum")
    torch.testing.assert_close(lost, wanted)
    assert int(count) == 3


def by_masks(model: Any, items: Tensor, states: Tensor, rows: Tensor, target: Tensor) -> Tensor:
    """The loss of items, whose rows are picked by a mask at every call."""
    trained, target = model.inputs.item_trained, target[rows]
    place = (trained.cumsum(0) - 1)[target]
    biases = model.inputs.popularity_logits()[trained], model.inputs.left_out(target)
    states = model.next_item(states)[rows]
    return module.linear_cross_entropy(states, items[trained], place, *biases)


def test_numbers_of_trained_items_follow_the_mask() -> None:
    """Losses and gradients have the same bits, however the mask has come to the model."""
    gone = SPLIT.train[GRAPH.interaction_types[0]].edge_index[1] % 3 == 1
    train = SPLIT.train.select_events(~gone, GRAPH.interaction_types[0][1])
    made, loaded = build(train), build()
    by_hand = EnhancedBERT4Rec(**made.config).eval()
    assert by_hand.inputs.trained.tolist() == list(range(40))
    loaded.load_state_dict(made.state_dict())
    by_hand.load_state_dict(copy.deepcopy(made.state_dict()), assign=True)
    there = made.inputs.item_trained
    assert 0 < int(there.sum()) < 40
    states, rows = torch.randn(6, 3, 16), torch.rand(6, 3) < 0.7
    target = there.nonzero()[torch.randint(int(there.sum()), (6, 3)), 0]
    for model in (made, loaded, by_hand, copy.deepcopy(loaded)):
        assert model.inputs.trained.tolist() == there.nonzero()[:, 0].tolist()
        found = []
        for way in (partial(model._item_loss, model.next_item), partial(by_masks, model)):
            model.zero_grad()
            lost = way(model.encode_item(), states, rows, target)
            lost = lost[0] if isinstance(lost, tuple) else lost
            lost.backward()
            found.append([lost, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert len(found[0]) == len(found[1]) > 4
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Masks(TorchDispatchMode):
    """Notes the lengths of masks ``[N]`` by which rows are picked: a GPU is waited for there."""

    lengths: set[int]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.nonzero.default):
            picked = args[1] if func is torch.ops.aten.index.Tensor else args[:1]
            masks = [m for m in picked if m is not None and m.dtype == torch.bool]
            self.lengths |= {m.numel() for m in masks if m.dim() == 1}
        return func(*args, **(kwargs or {}))


def test_no_step_picks_items_by_a_mask() -> None:
    model = build()
    batch = training_batch(model)
    with Masks() as masks:
        masks.lengths = set()
        by_masks(model, model.encode_item(), torch.randn(1, 1, 16), torch.ones(1, 1).bool(),
                 batch.item[:1].unsqueeze(1))  # fmt: skip
        assert masks.lengths == {model.num_items}
        masks.lengths = set()
        model.loss(batch).backward()
        assert model.num_items not in masks.lengths


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
    for task in TASK_WEIGHTS:
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
    model.inputs.set_trained(torch.arange(40) >= 2)
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


# ---- the graph ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("left_out", [False, True])
def test_the_graph_adds_its_logits_with_its_weight(left_out: bool) -> None:
    """w stands before log(1 + p / floor); in training, p knows nothing of the target."""
    plain, model = build(), build(use_graph=True, graph_weight=1.5)
    batch = training_batch(model) if left_out else asked(model)
    name = "score_left_out" if left_out else "score"
    assert isinstance(model.graph, GapMarkov)
    counted = getattr(model.graph, name)(batch)
    added = getattr(model, name)(batch) - getattr(plain, name)(batch)
    torch.testing.assert_close(added, 1.5 * torch.log1p(counted / 3e-4), atol=1e-4, rtol=1e-4)
    assert float(added.max()) > 0.1
    assert type(build(toy_graph(), features=["popularity"], use_graph=True).graph) is SkipMarkov
    assert plain.graph is None
    with pytest.raises(ValueError, match="'graph_weight' needs to be a number of at least 0"):
        EnhancedBERT4Rec(40, **SMALL, graph_weight=float("nan"))


def test_counts_have_no_part_in_the_loss() -> None:
    plain, model = build(loud=False), build(loud=False, use_graph=True, graph_weight=9.0)
    batch = training_batch(model)
    assert torch.equal(plain.loss(batch), model.loss(batch))
    assert plain.num_parameters() == model.num_parameters()


def test_the_weight_of_the_graph_is_chosen_where_the_measure_is_best() -> None:
    def choose(best: float, **kwargs: Any) -> float:
        model = build(graph_weight=0.6, **kwargs)
        model.choose(lambda: -abs(model.graph_weight - best))
        assert model.graph_weight == model.config["graph_weight"]
        return float(model.graph_weight)

    assert choose(1.5, use_graph=True, choose_weight=True) == 1.5
    assert choose(0.61, use_graph=True, choose_weight=True) == 0.6, "nothing else is nearer"
    assert choose(1.5, use_graph=True) == 0.6
    assert choose(1.5, choose_weight=True) == 0.6


def test_with_the_graph_it_passes_all_checks() -> None:
    check_model(EnhancedBERT4Rec, use_graph=True)
