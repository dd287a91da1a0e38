"""The ranking code against brute force."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tgrec.data import (
    RecBatch,
    Sampling,
    Split,
    Targets,
    TemporalRecGraph,
    global_time_split,
    leave_one_out,
)
from tgrec.metrics import MISS
from tgrec.models import Popularity, RecModel, SASRec
from tgrec.models.popularity import item_counts
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph
from tgrec.training import evaluate

ITEMS = 9
Draw = Callable[[int], Split]


class Fixed(RecModel):
    """Scores of each user, given."""

    sampling = Sampling(max_len=4)

    def __init__(self, scores: Tensor) -> None:
        super().__init__(scores.size(1))
        self.table = scores

    def score(self, batch: RecBatch) -> Tensor:
        return self.table[batch.user]


def random_scores(users: int, seed: int, levels: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (users, ITEMS), generator=g).float()


def pasts(split: Split, targets: Targets) -> list[set[int]]:
    log = defaultdict(list)
    index = EventIndex(split.graph)
    for user, item, event in zip(
        index.user.tolist(), index.item.tolist(), index.event_id.tolist(), strict=True
    ):
        log[user].append((event, item))
    return [
        {item for event, item in log[user] if event < cut}
        for user, cut in zip(targets.user.tolist(), targets.cut.tolist(), strict=True)
    ]


def brute(scores: Tensor, targets: Targets, seen: list[set[int]]) -> list[int]:
    ranks = []
    for user, item, past in zip(targets.user.tolist(), targets.item.tolist(), seen, strict=True):
        own = scores[user, item]
        ranks.append(
            1
            + sum(1 for j in range(ITEMS) if j != item and j not in past and scores[user, j] >= own)
        )
    return ranks


# ---- ranks -----------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 14))
@settings(max_examples=60, deadline=None)
def test_ranks_by_brute_force(
    random_split: Draw, seed: int, remove_seen: bool, batch_size: int
) -> None:
    split, scores = random_split(seed % 7), random_scores(12, seed)
    for targets in (split.val, split.test):
        seen = pasts(split, targets)
        out = evaluate(
            Fixed(scores),
            split,
            targets,
            remove_seen=remove_seen,
            sampled=False,
            batch_size=batch_size,
        )
        assert out.ranks["full"].tolist() == brute(
            scores, targets, seen if remove_seen else [set()] * len(seen)
        )
        assert out.ranks.keys() == {"full"}


def test_what_are_no_candidate_sets(random_split: Draw) -> None:
    split = random_split(0)
    no_sets: tuple[Any, ...] = ("uniform-100", None, 100)
    for sets in no_sets:
        with pytest.raises(ValueError, match="'sampled' needs to be True, False or a mapping"):
            evaluate(Fixed(random_scores(12, 0)), split, split.test, sampled=sets)


def test_several_seen_and_a_target_that_was_seen_before() -> None:
    # Items 0..3 in order, then 1 again: the target is in the past and is not removed.
    rows = [(0, i, t) for t, i in enumerate([0, 1, 2, 3, 1])]
    graph = TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]),
        items=pd.DataFrame({"item_id": range(ITEMS)}),
    )
    split = leave_one_out(graph)
    scores = torch.tensor([[9.0, 5, 8, 7, 6, 5, 4, 5, 0]])
    # Above or equal to item 1: 0, 2, 3 (seen), 4, 5, 7.
    assert evaluate(Fixed(scores), split, split.test).ranks["full"].tolist() == [4]
    kept = evaluate(Fixed(scores), split, split.test, remove_seen=False)
    assert kept.ranks["full"].tolist() == [7]


def test_constant_scores_get_the_worst_rank(random_split: Draw) -> None:
    split = random_split(1)
    out = evaluate(Fixed(torch.zeros(12, ITEMS)), split, split.test, remove_seen=False)
    assert out.ranks["full"].tolist() == [ITEMS] * len(split.test)


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_targets_is_that_of_the_ranks(random_split: Draw, order: list[int]) -> None:
    split, scores = random_split(2), random_scores(12, 3)
    rows = torch.tensor([k for k in order if k < len(split.test)])
    whole = evaluate(Fixed(scores), split, split.test, batch_size=5)
    part = evaluate(Fixed(scores), split, split.test.select(rows), batch_size=4)
    for name in whole.ranks:
        assert torch.equal(part.ranks[name], whole.ranks[name][rows])
    assert torch.equal(part.history_length, whole.history_length[rows])


def test_an_index_can_be_shared(random_split: Draw) -> None:
    split, scores = random_split(6), random_scores(12, 9)
    index = EventIndex(split.graph)
    a = evaluate(Fixed(scores), split, split.test, index=index)
    b = evaluate(Fixed(scores), split, split.test)
    assert all(torch.equal(a.ranks[k], b.ranks[k]) for k in b.ranks)


def test_history_lengths_and_groups(random_split: Draw) -> None:
    split = random_split(3)
    out = evaluate(Fixed(random_scores(12, 0)), split, split.test)
    index = EventIndex(split.graph)
    wanted = [
        int(((index.user == u) & (index.event_id < c)).sum())
        for u, c in zip(split.test.user, split.test.cut, strict=True)
    ]
    assert out.history_length.tolist() == wanted
    assert out.group_metrics().keys() == {"<=50", "rare item"}
    assert out.group_metrics()["<=50"]["users"] == len(split.test)
    share = float((out.ranks["full"] <= 5).double().mean())
    assert out.metrics()["full"]["HR@5"] == pytest.approx(share)


def test_rare_items_are_the_rarer_half_of_those_with_training_events() -> None:
    # The last two of each are for validation and test; item 7 has no training event.
    lists = [[0, 0, 0, 1, 2], [3, 3, 3, 3, 1, 1, 2, 0, 0], [0, 1, 7], [3, 0, 1]]
    rows = [(user, item, 9 * user + t) for user, x in enumerate(lists) for t, item in enumerate(x)]
    graph = TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]),
        items=pd.DataFrame({"item_id": range(ITEMS)}),
    )
    split = leave_one_out(graph)
    assert item_counts(split.train).tolist()[:4] == [4, 2, 1, 5]
    out = evaluate(Fixed(torch.rand(4, ITEMS)), split, split.test)
    assert split.test.item.tolist() == [2, 0, 7, 1]
    assert out.groups["rare item"].tolist() == [True, False, False, True]
    assert out.group_metrics()["rare item"]["users"] == 2
    # Among candidates 0 to 2 alone, item 1 is the one in the middle.
    fewer = replace(split, candidates=torch.arange(ITEMS) < 3)
    targets = fewer.test.select(fewer.test.item < 3)
    out = evaluate(Fixed(torch.rand(4, ITEMS)), fewer, targets, sampled=False)
    assert targets.item.tolist() == [2, 0, 1]
    assert out.groups["rare item"].tolist() == [True, False, True]
    fewer = replace(split, candidates=torch.tensor([i in (1, 3, 7) for i in range(ITEMS)]))
    targets = fewer.test.select(fewer.test.item == 1)
    out = evaluate(Fixed(torch.rand(4, ITEMS)), fewer, targets, sampled=False)
    assert out.groups["rare item"].tolist() == [True]


def test_histories_are_those_of_the_whole_graph() -> None:
    class Last(RecModel):
        sampling = Sampling(max_len=3)

        def score(self, batch: RecBatch) -> Tensor:
            assert batch.history is not None
            last = batch.history.item[:, -1]
            return nn.functional.one_hot(last, ITEMS).float()

    # Everybody ends on x, x: the validation item is the last of the test history.
    rows = [(u, i, t) for u in range(5) for t, i in enumerate([u, (u + 1) % 5, 7, 7])]
    split = leave_one_out(
        TemporalRecGraph.from_pandas(
            pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]),
            items=pd.DataFrame({"item_id": range(ITEMS)}),
        )
    )
    test = evaluate(Last(ITEMS), split, split.test, remove_seen=False)
    assert test.ranks["full"].tolist() == [1] * 5
    val = evaluate(Last(ITEMS), split, split.val, remove_seen=False)
    assert (val.ranks["full"] == ITEMS).all()


# ---- sampled candidates ----------------------------------------------------------------------


def test_candidates_hold_neither_past_nor_target(random_split: Draw) -> None:
    split = random_split(4)
    seen = pasts(split, split.test)
    scores = torch.zeros(12, ITEMS)
    for user, past in zip(split.test.user.tolist(), seen, strict=True):
        scores[user, list(past)] = 5.0  # whoever draws these loses
    for user, item in zip(split.test.user.tolist(), split.test.item.tolist(), strict=True):
        scores[user, item] = 1.0
    out = evaluate(Fixed(scores), split, split.test)
    for name in ("uniform-100", "popularity-100", "uniform-28"):
        assert (out.ranks[name] == 1).all()


def test_a_constant_model_ties_with_every_candidate() -> None:
    split = leave_one_out(noise_graph(num_users=6, num_items=300, length=(3, 6), seed=2))
    out = evaluate(Fixed300(), split, split.test)
    assert out.ranks["uniform-100"].tolist() == [101] * len(split.test)
    assert out.ranks["popularity-100"].tolist() == [101] * len(split.test)
    assert out.ranks["uniform-28"].tolist() == [29] * len(split.test)


class Fixed300(RecModel):
    sampling = Sampling()

    def __init__(self) -> None:
        super().__init__(300)

    def score(self, batch: RecBatch) -> Tensor:
        return torch.zeros(batch.user.numel(), 300)


def test_candidates_are_the_same_for_every_model_and_batch_size() -> None:
    split = leave_one_out(noise_graph(num_users=20, num_items=200, length=(3, 9), seed=3))
    ranks = [
        evaluate(Popularity.from_graph(split.train), split, split.test, batch_size=size).ranks
        for size in (1, 7, 64)
    ]
    for name in ranks[0]:
        assert torch.equal(ranks[0][name], ranks[1][name])
        assert torch.equal(ranks[0][name], ranks[2][name])


# ---- cold targets ----------------------------------------------------------------------------


def test_what_training_never_saw_is_a_miss() -> None:
    rows = [
        (u, i, t) for t, (u, i) in enumerate([(0, 0), (1, 1), (0, 1), (1, 0), (0, 2), (1, 1)] * 2)
    ]
    rows += [(0, 8, 20), (1, 1, 21), (2, 0, 22)]  # item 8 and user 2 are new
    graph = TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]),
        items=pd.DataFrame({"item_id": range(ITEMS)}),
    )
    split = global_time_split(graph, val=0.2, test=0.2)
    best = torch.zeros(3, ITEMS)
    best[split.test.user, split.test.item] = 9.0  # scored best, all the same
    out = evaluate(Fixed(best), split, split.test)
    assert out.ranks["full"].tolist() == [MISS, 1, MISS]
    assert out.ranks["uniform-28"].tolist() == [MISS, 1, MISS]
    assert out.groups["cold item"].tolist() == [True, False, False]
    assert out.groups["cold user"].tolist() == [False, False, True]
    assert out.groups["warm"].tolist() == [False, True, False]
    assert out.metrics()["full"]["HR@10"] == pytest.approx(1 / 3)
    assert out.group_metrics()["warm"]["HR@1"] == 1.0
    # Under leave-one-out nothing is a miss by rule.
    same = evaluate(Fixed(best), replace(split, cold_is_miss=False), split.test)
    assert same.ranks["full"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_users_without_a_past_are_ranked_too(batch_size: int, random_split: Draw) -> None:
    split = random_split(5)
    nobody = replace(split.test, cut=split.test.cut * 0)
    torch.manual_seed(0)
    model = SASRec(ITEMS, d_model=8, n_blocks=1, d_ff=8, max_len=6)
    out = evaluate(model, split, nobody, batch_size=batch_size)
    assert (out.history_length == 0).all()
    assert ((out.ranks["full"] >= 1) & (out.ranks["full"] <= ITEMS)).all()
