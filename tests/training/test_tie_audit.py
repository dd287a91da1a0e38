from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch

from tgrec.data import Split, TemporalRecGraph, leave_one_out
from tgrec.models import MODELS
from tgrec.testing import cycle_graph, noise_graph, toy_graph
from tgrec.training import audited_splits, evaluate, permute_ties


def rows(graph: TemporalRecGraph) -> list[tuple[int, int, int, int]]:
    """(event id, user, time, item) of all events."""
    store = graph[graph.interaction_types[0]]
    user, item = store.edge_index.tolist()
    return list(zip(store.event_id.tolist(), user, store.time.tolist(), item, strict=True))


@pytest.fixture(scope="module")
def graph() -> TemporalRecGraph:
    """24 users whose events lie in a dozen seconds: most of them tie."""
    return noise_graph(spread=8, length=(6, 10))


@pytest.mark.parametrize("seed", range(5))
def test_only_the_items_of_ties_change_places(graph: TemporalRecGraph, seed: int) -> None:
    before, after = rows(graph), rows(permute_ties(graph, seed))
    assert [row[:3] for row in before] == [row[:3] for row in after]  # clocks and users stay
    group = Counter(row[1:3] for row in before)
    moved = [a for a, b in zip(before, after, strict=True) if a != b]
    assert len(moved) > 20
    assert all(group[row[1:3]] > 1 for row in moved)
    # The multiset of (user, second, item) is the same.
    assert Counter(row[1:] for row in before) == Counter(row[1:] for row in after)


def test_the_graph_given_is_left_alone_and_the_draw_is_repeatable(graph: TemporalRecGraph) -> None:
    before = rows(graph)
    first = rows(permute_ties(graph, 1))
    assert rows(graph) == before
    assert rows(permute_ties(graph, 1)) == first
    assert rows(permute_ties(graph, 2)) != first


def test_every_order_of_a_tie_comes_up_equally_often() -> None:
    table = pd.DataFrame({"user_id": 1, "item_id": [5, 6, 7], "timestamp": 100})
    graph = TemporalRecGraph.from_pandas(table)
    orders = Counter(tuple(row[3] for row in rows(permute_ties(graph, s))) for s in range(600))
    assert len(orders) == 6
    assert all(55 < count < 145 for count in orders.values())  # 100 and five deviations


def test_kept_events_stay_and_the_others_of_their_second_still_move() -> None:
    table = pd.DataFrame({"user_id": 1, "item_id": [5, 6, 7, 8], "timestamp": 100})
    graph = TemporalRecGraph.from_pandas(table)
    seen = set()
    for seed in range(40):
        items = [row[3] for row in rows(permute_ties(graph, seed, keep=torch.tensor([1, 3])))]
        assert (items[1], items[3]) == (1, 3)
        seen.add((items[0], items[2]))
    assert seen == {(0, 2), (2, 0)}


def test_ratings_and_other_columns_of_an_edge_move_with_its_item() -> None:
    table = pd.DataFrame(
        {"user_id": 1, "item_id": [5, 6, 7], "timestamp": 100, "rating": [1.0, 2.0, 3.0]}
    )
    graph = TemporalRecGraph.from_pandas(table, rating="rating")
    edge_type = graph.interaction_types[0]
    graph[edge_type].edge_attr = torch.tensor([[10.0], [20.0], [30.0]])
    for seed in range(6):
        store = permute_ties(graph, seed)[edge_type]
        assert torch.equal(store.rating, store.edge_index[1] + 1.0)
        assert torch.equal(store.edge_attr[:, 0], store.rating * 10)
        assert store.event_id.tolist() == [0, 1, 2]


def test_without_ties_nothing_changes() -> None:
    split = leave_one_out(cycle_graph())
    assert rows(permute_ties(split.graph, 3)) == rows(split.graph)
    model = MODELS["markov"].from_graph(split.train)
    value = evaluate(model, split, split.test).metrics()
    for audited in audited_splits(split, split.test, draws=2):
        assert evaluate(model, audited, audited.test).metrics() == value


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_audit_keeps_training_events_and_targets(graph: TemporalRecGraph, part: str) -> None:
    split = leave_one_out(graph)
    targets, others = getattr(split, part), getattr(split, {"val": "test", "test": "val"}[part])
    audits = audited_splits(split, targets, draws=3)
    histories = {tuple(rows(audit.graph)) for audit in audits}
    assert len(histories) == 3
    for audit in audits:
        assert audit.train is split.train
        assert audit.test is split.test
        assert audit.val is split.val
        for cut, moves in ((targets.cut, False), (others.cut, True)):
            asked = set(cut.tolist())
            now = [row for row in rows(audit.graph) if row[0] in asked]
            # The event of validation is history of the test, and part of its ties.
            assert (now != [row for row in rows(split.graph) if row[0] in asked]) == moves


def test_a_model_that_reads_the_order_is_moved_by_it() -> None:
    """The audit bites: item k of a tie foretells item 10 + k only while it stands last."""
    table = pd.DataFrame(
        [
            (user, item, time)
            for user in range(80)
            for k in [user % 2]
            for item, time in ((2 + k, 1), (k, 1), (10 + k, 2), (20, 3), (21, 4))[: 5 - user // 40]
        ],
        columns=["user_id", "item_id", "timestamp"],
    )
    split: Split = leave_one_out(TemporalRecGraph.from_pandas(table))
    split = replace(split, val=split.val.select(split.val.user >= 40))
    model = MODELS["markov"].from_graph(split.train, last=1, max_lag=1)
    hits = [
        evaluate(model, s, s.val, sampled=False).metrics()["full"]["NDCG@5"]
        for s in (split, *audited_splits(split, split.val, draws=3))
    ]
    assert hits[0] == 1.0
    assert all(0.2 < value < 0.8 for value in hits[1:]), hits


def test_graphs_that_cannot_be_audited_are_refused() -> None:
    graph = toy_graph()
    del graph[graph.interaction_types[0]].time
    with pytest.raises(ValueError, match="needs event times and one kind of events"):
        permute_ties(graph, 0)
