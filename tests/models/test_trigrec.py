"""TriGRec: sequences by domain, what it may see, stages, ablations."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import History, RecBatch, Split, TemporalRecGraph, leave_one_out_in
from tgrec.data.transitions import add_transitions
from tgrec.datasets import simulate_domains
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, TriGRec, load_model, save_model
from tgrec.models import trigrec as module
from tgrec.models.tokens import shut_pairs
from tgrec.models.trigrec_graph import (
    KINDS,
    DomainGraphEncoder,
    TransitionEdges,
    places_of,
    pooled,
)
from tgrec.models.trigrec_sequences import (
    DomainCloze,
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
def test_items_of_several_domains_are_refused(told: bool) -> None:
    rows = [(1, "a", "food"), (1, "b", "toys"), (2, "b", "food"), (2, "c", "food")]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "domain"])
    graph = TemporalRecGraph.from_pandas(table, time=None, relation="domain")
    if told:
        graph["item"].domain = torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match=r"item 1 has events of others too .*: \[1, 1\].*'food:1'"):
        TriGRec.from_graph(graph, target="food", **SMALL)


# ---- the graph -----------------------------------------------------------------------------------


def edges_of(graph: TemporalRecGraph, num_neighbors: int) -> TransitionEdges:
    edges = TransitionEdges(graph.num_items, 2, num_neighbors, max_lag=3, decay=0.8)
    edges.fill(graph, graph["item"].domain)
    return edges


def rows_and_trees(
    split: Split, edges: TransitionEdges, max_len: int = 16, last_prob: float = 1.0
) -> tuple[DomainCloze, HeteroData]:
    """Training rows of all users and the neighbourhoods beside them."""
    sampling = edges.sampling(max_len, ["food", "kitchen"], None)
    loader = SeedLoader(EventIndex(split.train), sampling)
    batch = loader.batch(training_seeds(loader.index, max_len), key=0)
    assert batch.graph is not None
    return training_cloze(batch, split.train["item"].domain, 0.5, last_prob), batch.graph


def lists(seed: int, repeats: bool) -> TemporalRecGraph:
    """24 users in two domains, 2 to 9 events each, some of them the same item again."""
    draw, rows = random.Random(seed), []
    for user in range(24):
        items = [draw.randrange(12) for _ in range(draw.randrange(2, 10))]
        rows += [(user, item) for item in (items if repeats else dict.fromkeys(items))]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    table["domain"] = ["ab"[item % 2] for item in table.item_id]
    items = pd.DataFrame({"item_id": range(12)})
    return TemporalRecGraph.from_pandas(table, time=None, relation="domain", items=items)


def left_of_each(
    graph: TemporalRecGraph, edges: TransitionEdges
) -> Iterator[tuple[int, int, int, list[tuple[float, int]]]]:
    """(user, item, kind, heard): weights and items that hang at each node of each user's row."""
    sampling = edges.sampling(16, ["a", "b"], None)
    loader = SeedLoader(EventIndex(graph), sampling)
    batch = loader.batch(training_seeds(loader.index, 16), key=0)
    tree = batch.graph
    assert tree is not None
    nodes = tree["item"]
    cloze = training_cloze(batch, known_domains(graph), 0.0, 1.0)
    for kind, (edge_type, weight) in enumerate(edges.without_own(tree, cloze).items()):
        later, earlier = tree[edge_type].edge_index
        for node in earlier.unique().tolist():
            mine = (earlier == node) & (weight > 0)
            heard = list(zip(weight[mine].tolist(), nodes.n_id[later[mine]].tolist(), strict=True))
            user = int(batch.user[nodes.batch[node]])
            yield user, int(nodes.n_id[node]), kind, sorted(heard, reverse=True)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("num_neighbors", [1, 2, 12])
def test_a_users_own_transitions_are_left_out(repeats: bool, num_neighbors: int) -> None:
    """What a row hears of the graph is what it would be had its user never been there.

    With repeats more of an item's own transitions than are kept in stock can be the user's own, so
    fewer may be left; none is heavier than it should be.
    """
    compared = 0
    for seed in range(3):
        graph = lists(seed, repeats)
        domain, found = known_domains(graph), {}
        edges = TransitionEdges(12, 2, num_neighbors, max_lag=3, decay=0.8)
        edges.fill(graph, domain)
        for user, item, kind, heard in left_of_each(graph, edges):
            if user not in found:
                others = graph
                for edge_type in graph.interaction_types:
                    keep = graph[edge_type].edge_index[0] != user
                    others = others.select_events(keep, relation=edge_type[1])
                found[user] = add_transitions(others, 3, 0.8)["item", "next", "item"]
            store = found[user]
            mine = (store.edge_index[0] == item) & (store.edge_index[1] != item)
            mine &= (domain[store.edge_index[1]] != domain[item]) == bool(kind)
            wanted = store.edge_weight[mine].sort(descending=True).values.tolist()
            by_item = dict(zip(store.edge_index[1, mine].tolist(), store.edge_weight[mine].tolist(),
                               strict=True))  # fmt: skip
            assert all(weight == pytest.approx(by_item[other]) for weight, other in heard)
            if not repeats or num_neighbors == 12:
                expected = wanted[:num_neighbors]
                assert [weight for weight, _ in heard] == pytest.approx(expected)
                compared += len(expected)
    assert compared > 400 or (repeats and num_neighbors < 12)


@torch.no_grad()
def test_with_the_target_left_out_no_transition_into_it_is_heard() -> None:
    """Nobody else has met the items of user 8, so that nothing of the graph is left for them."""
    rows = [(u, i) for u in range(8) for i in range(4)] + [(8, 4), (8, 5), (8, 6)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    graph = TemporalRecGraph.from_pandas(table, time=None)
    model = TriGRec.from_graph(graph, stage="joint", **SMALL).eval()
    model.counts = None  # beside the score; they leave it out by themselves
    index = EventIndex(graph)
    seeds = training_seeds(index, 16)
    seeds = seeds.select(seeds.user == 8)
    batch = SeedLoader(index, model.sampling).batch(seeds, key=0)
    assert model.users is not None
    assert model.users.edges is not None
    told, left_out = model.score(batch), model.score_left_out(batch)
    model.users.edges.weight[4:7] = 0
    nothing = model.score(SeedLoader(index, model.sampling).batch(seeds, key=0))
    assert torch.equal(left_out, nothing)
    assert not torch.equal(told, nothing)


def test_transitions_inside_and_across_domains(split: Split) -> None:
    domain, edges = split.train["item"].domain, edges_of(split.train, 4)
    counted = add_transitions(split.train, 3, 0.8)["item", "next", "item"]
    for kind, edge_type in enumerate(KINDS):
        store = edges.graph()[edge_type]
        source, target = store.edge_index
        assert ((domain[source] != domain[target]) == bool(kind)).all()
        for item in target.unique().tolist():
            mine = (counted.edge_index[0] == item) & (counted.edge_index[1] != item)
            mine &= (domain[counted.edge_index[1]] != domain[item]) == bool(kind)
            heaviest = counted.edge_weight[mine].sort(descending=True).values[: 4 + 3]
            kept = store.edge_weight[target == item].sort(descending=True).values
            torch.testing.assert_close(kept, heaviest)


@pytest.mark.parametrize("max_len", [3, 16])
def test_trees_stand_where_the_rows_do(max_len: int, split: Split) -> None:
    """Every event of a row has a node of its item at its place, of its domain; none has another."""
    edges = edges_of(split.train, 4)
    cloze, tree = rows_and_trees(split, edges, max_len)
    place, nodes = places_of(tree, cloze.item.size(1)), tree["item"]
    found = torch.full_like(cloze.target, -1)
    relation = found.clone()
    for code, name in enumerate(("food", "kitchen")):
        item, row = tree["item", f"rev_{name}", "user"].edge_index
        there = place[item] >= 0
        found[row[there], place[item[there]]] = nodes.n_id[item[there]]
        relation[row[there], place[item[there]]] = code
    before = cloze.mask.clone()
    before[:, -1] = False  # the event that is asked for
    assert torch.equal(found >= 0, before)
    assert torch.equal(found[before], cloze.target[before])
    assert torch.equal(relation[before], cloze.relation[before])
    assert (place == -1).any()  # items that were chosen next


@torch.no_grad()
def test_what_hangs_at_a_hole_is_not_heard(split: Split) -> None:
    """Without the edges to hidden items the vectors are the same, without others they are not."""
    torch.manual_seed(0)
    edges = edges_of(split.train, 4)
    encoder = DomainGraphEncoder(8, ["food", "kitchen"], edges.kinds, 0.0)
    items = torch.randn(split.train.num_items + 1, 8)
    cloze, tree = rows_and_trees(split, edges, last_prob=0.0)
    before, known = encoder(tree, cloze, items, edges)
    assert torch.equal(known, cloze.known[:, :-1].any(1))
    place = places_of(tree, cloze.item.size(1))
    for cut, same in ((cloze.hole, True), (cloze.known, False)):
        other = copy.deepcopy(tree)
        for name in ("food", "kitchen"):
            store = other["item", f"rev_{name}", "user"]
            item, row = store.edge_index
            kept = ~cut[row, place[item]]
            assert not kept.all()
            store.edge_index, store.lag = store.edge_index[:, kept], store.lag[kept]
        assert torch.equal(encoder(other, cloze, items, edges)[0], before) == same


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
    model = make(split, use_graph=False)  # the graph: see its own tests
    loader = SeedLoader(EventIndex(split.train), model.sampling)
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
def test_positions_without_a_hole_are_learned_from_the_sequence_alone(split: Split) -> None:
    """Where a row is read from left to right: all of them, and vectors of users are not read."""
    model = make(split)
    loader = SeedLoader(EventIndex(split.train), model.sampling)
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


def test_only_events_of_the_domain_are_asked_for() -> None:
    """Whoever has none is left out, and so is who has nothing before it."""
    rows = [(0, "a1"), (0, "b1"), (0, "a2"), (0, "b2"), (1, "b1"), (1, "b2"), (1, "b3"), (2, "a1"),
            (2, "b1"), (2, "b2"), (3, "b1"), (3, "a3"), (3, "a1")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    table["domain"] = table.item_id.str[0]
    graph = TemporalRecGraph.from_pandas(table, time=None, relation="domain")
    model = TriGRec.from_graph(graph, target="a", **SMALL)
    index = EventIndex(graph)
    seeds = training_seeds(index, 16, relation=model.sampling.relation)
    titles = [rows[event][1] for event in seeds.cut.tolist()]
    assert list(zip(seeds.user.tolist(), titles, strict=True)) == [(0, "a2"), (3, "a1")]
    sums, counts = model.loss_terms(SeedLoader(index, model.sampling).batch(seeds, key=0))
    assert bool(counts[0] > 0)
    assert sums.isfinite().all()
    users = TriGRec.from_graph(graph, target="a", stage="users", **SMALL)
    assert users.sampling.relation is None  # stage 1 learns from all domains


def test_nobody_to_ask_is_explained() -> None:
    rows = [(u, f"b{i}") for u in range(6) for i in range(4)] + [(u, "a1") for u in range(6)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    table["domain"] = table.item_id.str[0]
    split = leave_one_out_in(TemporalRecGraph.from_pandas(table, time=None, relation="domain"), "b")
    model = TriGRec.from_graph(split.train, target="a", **SMALL)
    with pytest.raises(ValueError, match="no user has two training events, the later of the kind"):
        fit(model, split, epochs=1, show=False)


def test_distances_are_between_vectors_of_the_same_user(split: Split) -> None:
    model = make(split, use_graph=False)
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
        ({"encode_graph": False}, "users.graph"),
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


def test_vectors_from_the_graph(split: Split, tmp_path: Path) -> None:
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
    # Without what the events say, they are found again by their names.
    save_model(model, tmp_path, learned_only=True)
    with torch.no_grad():
        again = load_model(tmp_path, MODELS, train=graph)
        assert torch.equal(again.score(batch), model.score(batch))
    with pytest.raises(ValueError, match="the graph has no 'spe'; with_user_vectors"):
        load_model(tmp_path, MODELS, train=split.train)


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
