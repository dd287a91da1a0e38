from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.metrics import (
    LinkPredHitRatio,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredRecall,
)

from tgrec.metrics import (
    MISS,
    group_summaries,
    hit_ratio,
    length_groups,
    mrr,
    ndcg,
    summarize,
    target_ranks,
    top_k,
)

KEYS = ["HR@1", "HR@5", "HR@10", "HR@20", "NDCG@5", "NDCG@10", "NDCG@20", "MRR"]
rank_lists = st.lists(st.one_of(st.integers(1, 25), st.integers(1, 4000)), min_size=1, max_size=40)


def naive_summary(ranks: list[int]) -> dict[str, float]:
    out: dict[str, float] = {}
    for k in (1, 5, 10, 20):
        out[f"HR@{k}"] = sum(1 for r in ranks if r <= k) / len(ranks)
    for k in (5, 10, 20):
        out[f"NDCG@{k}"] = sum(1 / math.log2(r + 1) for r in ranks if r <= k) / len(ranks)
    out["MRR"] = sum(1 / r for r in ranks) / len(ranks)
    return out


def test_metrics_by_hand() -> None:
    ranks = torch.tensor([1, 3, 10, 11])
    assert hit_ratio(ranks, 10).tolist() == [1, 1, 1, 0]
    # log2(2) = 1, log2(4) = 2
    assert ndcg(ranks, 5).tolist() == [1, 0.5, 0, 0]
    assert ndcg(ranks, 10)[2].item() == pytest.approx(1 / math.log2(11), abs=1e-15)
    assert mrr(ranks).tolist() == [1, 1 / 3, 0.1, 1 / 11]
    assert {hit_ratio(ranks, 1).dtype, ndcg(ranks, 1).dtype, mrr(ranks).dtype} == {torch.float64}


def test_summary_by_hand() -> None:
    out = summarize(torch.tensor([1, 3, 7, 100]))
    assert list(out) == KEYS
    assert [out[f"HR@{k}"] for k in (1, 5, 10, 20)] == [0.25, 0.5, 0.75, 0.75]
    assert out["NDCG@5"] == 1.5 / 4
    assert out["NDCG@10"] == pytest.approx((1.5 + 1 / 3) / 4, abs=1e-15)  # log2(8) = 3
    assert out["MRR"] == pytest.approx((1 + 1 / 3 + 1 / 7 + 0.01) / 4, abs=1e-15)


@settings(max_examples=500, deadline=None)
@given(rank_lists)
def test_summary_equals_the_naive_loop(ranks: list[int]) -> None:
    out, expected = summarize(torch.tensor(ranks)), naive_summary(ranks)
    assert list(out) == list(expected)
    assert all(abs(out[key] - expected[key]) <= 1e-12 for key in KEYS)


@settings(max_examples=200, deadline=None)
@given(rank_lists, st.randoms(use_true_random=False))
def test_summary_properties(ranks: list[int], random: Any) -> None:
    out = summarize(torch.tensor(ranks))
    assert all(0 <= value <= 1 for value in out.values())
    assert out["HR@1"] <= out["HR@5"] <= out["HR@10"] <= out["HR@20"]
    assert out["NDCG@5"] <= out["NDCG@10"] <= out["NDCG@20"] <= out["HR@20"]
    moved = ranks[:]
    random.shuffle(moved)
    assert summarize(torch.tensor(moved)) == out  # to the last bit
    assert summarize(torch.tensor(ranks + ranks)) == pytest.approx(out, abs=1e-15)
    best = [max(1, r - 1) for r in ranks]
    assert all(summarize(torch.tensor(best))[key] >= out[key] for key in KEYS)


def test_a_perfect_ranking_is_one_and_a_miss_is_zero() -> None:
    assert set(summarize(torch.ones(9, dtype=torch.int64)).values()) == {1.0}
    assert set(summarize(torch.full((9,), MISS)).values()) == {0.0}
    ranks = torch.tensor([1, 2, 3, 50])
    assert torch.equal(hit_ratio(ranks, 1), ndcg(ranks, 1))


def test_hit_at_all_items_is_one() -> None:
    scores = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    ranks = target_ranks(scores, torch.arange(20) % 9)
    assert hit_ratio(ranks, 9).tolist() == [1.0] * 20


@pytest.mark.parametrize("k", [1, 5, 10, 20, 100])
@pytest.mark.parametrize("seed", range(6))
def test_pyg_gives_the_same_figures_from_the_same_lists(k: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    # Permutations, so that no score ties: PyG sees a list and cannot know of ties.
    scores = torch.stack([torch.randperm(130, generator=g) for _ in range(50)]).float()
    target = torch.randint(130, (50,), generator=g)
    rows = torch.arange(50).repeat_interleave(9)
    cols = torch.randint(130, (450,), generator=g)
    kept = cols != target[rows]
    seen = (rows[kept], cols[kept])
    ranks = target_ranks(scores, target, seen)
    lists = top_k(scores, k, seen)
    label = (torch.arange(50), target)
    ours = {
        LinkPredNDCG: ndcg(ranks, k),
        LinkPredHitRatio: hit_ratio(ranks, k),
        LinkPredRecall: hit_ratio(ranks, k),
        LinkPredMRR: mrr(ranks) * hit_ratio(ranks, k),
    }
    for kind, values in ours.items():
        metric = kind(k)
        metric.update(lists, label)
        assert float(metric.compute()) == pytest.approx(float(values.mean()), abs=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 9, 10])
def test_pyg_agrees_on_each_single_rank(rank: int) -> None:
    lists = torch.arange(1, 11).unsqueeze(0)
    lists[0, rank - 1] = 99
    metric = LinkPredNDCG(10)
    metric.update(lists, (torch.tensor([0]), torch.tensor([99])))
    assert float(metric.compute()) == pytest.approx(float(ndcg(torch.tensor([rank]), 10)), abs=1e-6)


def test_groups_by_history_length() -> None:
    ranks = torch.tensor([1, 2, 4, 8, 16])
    lengths = torch.tensor([0, 50, 51, 200, 201])
    out = group_summaries(ranks, length_groups(lengths))
    assert list(out) == ["<=50", "51-100", "101-200", ">200"]
    assert [out[name]["users"] for name in out] == [2, 1, 1, 1]
    assert [list(out[name]) for name in out] == [["users", *KEYS]] * 4
    assert out["<=50"]["MRR"] == 0.75
    assert out["51-100"]["MRR"] == 0.25
    assert out["101-200"]["MRR"] == 0.125
    assert out[">200"]["HR@20"] == 1.0


def test_groups_cover_every_user_once_and_average_to_the_whole() -> None:
    g = torch.Generator().manual_seed(0)
    ranks = torch.randint(1, 300, (500,), generator=g)
    out = group_summaries(ranks, length_groups(torch.randint(0, 400, (500,), generator=g)))
    users = [group["users"] for group in out.values()]
    assert sum(users) == 500
    for key in KEYS:
        total = sum(n * group[key] for n, group in zip(users, out.values(), strict=True))
        assert total / 500 == pytest.approx(summarize(ranks)[key], abs=1e-12)


def test_a_group_without_users_is_left_out() -> None:
    assert list(group_summaries(torch.tensor([3]), length_groups(torch.tensor([70])))) == ["51-100"]


def test_bad_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ranks\[1\] is 0; ranks start at 1"):
        ndcg(torch.tensor([1, 0]), 10)
    with pytest.raises(TypeError, match="ranks must be torch.int64"):
        mrr(torch.tensor([1.0]))
    with pytest.raises(ValueError, match="one dimension"):
        hit_ratio(torch.tensor([[1]]), 10)
    with pytest.raises(ValueError, match="ranks is empty"):
        summarize(torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="the group '<=50' has 1 users but ranks 2"):
        group_summaries(torch.tensor([1, 2]), length_groups(torch.tensor([5])))
    with pytest.raises(ValueError, match="history_length holds -1"):
        length_groups(torch.tensor([-1]))


@pytest.mark.parametrize("metric", [hit_ratio, ndcg])
@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (-3, ValueError), (True, TypeError), (2.0, TypeError)]
)
def test_bad_cutoffs_are_refused(metric: Any, k: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="k must be"):
        metric(torch.tensor([1]), k)
