from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, TemporalRecGraph, global_time_split, leave_one_out
from tgrec.data.random import uniform64
from tgrec.metrics import MISS, summarize
from tgrec.models.base import RecModel
from tgrec.models.popularity import item_counts
from tgrec.training import SAMPLED, evaluate
from tgrec.training.evaluate import _STREAM


class Table(RecModel):
    """Scores are looked up in a table [users, N]."""

    sampling = Sampling()

    def __init__(self, scores: Tensor) -> None:
        super().__init__(scores.size(1))
        self.scores = scores

    def score(self, batch: RecBatch) -> Tensor:
        return self.scores[batch.user]


def random_graph(num_users: int, num_items: int, length: int) -> TemporalRecGraph:
    g = torch.Generator().manual_seed(0)
    user = torch.arange(num_users).repeat_interleave(length)
    item = torch.randint(num_items, (num_users * length,), generator=g)
    rows = {"user_id": user, "item_id": item, "timestamp": torch.arange(user.numel())}
    frame = pd.DataFrame({name: column.numpy() for name, column in rows.items()})
    return TemporalRecGraph.from_pandas(frame, items=pd.DataFrame({"item_id": range(num_items)}))


def test_sampled_ranks_equal_those_counted_by_hand() -> None:
    split = leave_one_out(random_graph(30, 150, 20))
    scores = torch.randint(0, 40, (30, 150), generator=torch.Generator().manual_seed(4)).float()
    result = evaluate(Table(scores), split, split.test)
    assert list(result.ranks) == ["full", *SAMPLED]
    popularity = item_counts(split.train)
    users, items = split.graph["user", "interacts", "item"].edge_index
    for name, (kind, size) in SAMPLED.items():
        for row, (user, item) in enumerate(
            zip(split.test.user.tolist(), split.test.item.tolist(), strict=True)
        ):
            met = set(items[users == user].tolist())  # the past and the target
            draws = uniform64(_STREAM[kind], user, torch.arange(150)).tolist()
            weight = popularity.tolist() if kind == "popularity" else [1.0] * 150
            # Items without training events come after all others.
            keys = [
                (0, -math.log1p(-u) / w) if w else (1, u)
                for u, w in zip(draws, weight, strict=True)
            ]
            order = sorted(range(150), key=keys.__getitem__)
            chosen = [i for i in order if i not in met][:size]
            rank = 1 + sum(float(scores[user, i]) >= float(scores[user, item]) for i in chosen)
            assert int(result.ranks[name][row]) == rank


def test_each_kind_is_drawn_once_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("tgrec.training.evaluate")  # tgrec.training.evaluate is the function
    drawn: list[int] = []
    real = module.sampled_negatives

    def spy(draws: Tensor, number: int, *rest: Any) -> Any:
        drawn.append(number)
        return real(draws, number, *rest)

    monkeypatch.setattr(module, "sampled_negatives", spy)
    split = leave_one_out(random_graph(30, 150, 20))
    evaluate(Table(torch.rand(30, 150)), split, split.test)
    assert drawn == [100, 100]


def test_batches_do_not_show() -> None:
    split = leave_one_out(random_graph(150, 130, 9))
    model = Table(torch.rand(150, 130, generator=torch.Generator().manual_seed(1)))
    whole = evaluate(model, split, split.test)
    for batch_size in (1, 7, 64, 100):
        part = evaluate(model, split, split.test, batch_size=batch_size)
        for name in whole.ranks:
            assert torch.equal(part.ranks[name], whole.ranks[name])


def test_a_cold_target_is_a_miss_in_every_candidate_set_even_if_it_is_scored_best() -> None:
    train = [(user, item, 10 * user + item) for user in range(8) for item in range(5)]
    val = [(user, 1, 150 + user) for user in range(3, 7)]
    test = [(0, 4, 200), (1, 99, 201), (77, 2, 202), (2, 3, 203)]  # item 99 and user 77 are new
    rows = pd.DataFrame(train + val + test, columns=["user_id", "item_id", "timestamp"])
    graph = TemporalRecGraph.from_pandas(rows)
    split = global_time_split(graph, val=0.08, test=0.08)
    best = torch.zeros(graph.num_users, graph.num_items)
    best[split.test.user, split.test.item] = 1.0
    result = evaluate(Table(best), split, split.test, remove_seen=False)
    cold_item = split.test.item == graph.index_of("item", [99])
    cold_user = split.test.user == graph.index_of("user", [77])
    assert torch.equal(result.groups["cold item"], cold_item)
    assert torch.equal(result.groups["cold user"], cold_user)
    assert int(cold_item.sum()) == int(cold_user.sum()) == 1
    expected = torch.where(cold_item | cold_user, MISS, 1)
    for name, ranks in result.ranks.items():
        assert torch.equal(ranks, expected), name
        assert set(summarize(ranks).values()) == {0.5}
    groups = result.group_metrics()
    assert {v for k, v in groups["cold item"].items() if k != "users"} == {0.0}
    assert {v for k, v in groups["warm"].items() if k != "users"} == {1.0}
