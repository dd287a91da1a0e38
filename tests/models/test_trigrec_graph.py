"""TriGRec: transitions between items, and what a row hears of them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData

from tgrec.data import Split, TemporalRecGraph
from tgrec.data.transitions import add_transitions
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import TriGRec
from tgrec.models.trigrec_graph import KINDS, DomainGraphEncoder, TransitionEdges, places_of
from tgrec.models.trigrec_sequences import DomainCloze, known_domains, training_cloze
from tgrec.sampler import EventIndex


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
def test_with_the_target_left_out_no_transition_into_it_is_heard(
    trigrec_kit: SimpleNamespace,
) -> None:
    """Nobody else has met the items of user 8, so that nothing of the graph is left for them."""
    rows = [(u, i) for u in range(8) for i in range(4)] + [(8, 4), (8, 5), (8, 6)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    graph = TemporalRecGraph.from_pandas(table, time=None)
    model = TriGRec.from_graph(graph, stage="joint", **trigrec_kit.SMALL).eval()
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


def test_transitions_inside_and_across_domains(food_split: Split) -> None:
    domain, edges = food_split.train["item"].domain, edges_of(food_split.train, 4)
    counted = add_transitions(food_split.train, 3, 0.8)["item", "next", "item"]
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
def test_trees_stand_where_the_rows_do(max_len: int, food_split: Split) -> None:
    """Every event of a row has a node of its item at its place, of its domain; none has another."""
    edges = edges_of(food_split.train, 4)
    cloze, tree = rows_and_trees(food_split, edges, max_len)
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
def test_what_hangs_at_a_hole_is_not_heard(food_split: Split) -> None:
    """Without the edges to hidden items the vectors are the same, without others they are not."""
    torch.manual_seed(0)
    edges = edges_of(food_split.train, 4)
    encoder = DomainGraphEncoder(8, ["food", "kitchen"], edges.kinds, 0.0)
    items = torch.randn(food_split.train.num_items + 1, 8)
    cloze, tree = rows_and_trees(food_split, edges, last_prob=0.0)
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
