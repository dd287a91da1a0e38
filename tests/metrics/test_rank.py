from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tgrec.metrics import candidate_ranks, target_ranks, top_k

Case = tuple[Tensor, Tensor, tuple[Tensor, Tensor]]
INF = math.inf


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small batches with many ties, infinities, repeated exclusions and excluded targets."""
    num_rows, num_items = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    value = st.sampled_from([-INF, -1.5, -0.0, 0.0, 0.25, 2.0, INF])
    scores = [[draw(value) for _ in range(num_items)] for _ in range(num_rows)]
    target = [draw(st.integers(0, num_items - 1)) for _ in range(num_rows)]
    pair = st.tuples(st.integers(0, num_rows - 1), st.integers(0, num_items - 1))
    pairs = draw(st.lists(pair, max_size=20))
    rows, cols = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return torch.tensor(scores), torch.tensor(target), (rows, cols)


def naive_rank(scores: list[float], target: int, excluded: set[int]) -> int:
    rank = 1
    for item, score in enumerate(scores):
        if item != target and item not in excluded and score >= scores[target]:
            rank += 1
    return rank


def naive_top(scores: list[float], k: int, excluded: set[int]) -> list[int]:
    items = [item for item in range(len(scores)) if item not in excluded]
    best = sorted(items, key=lambda item: (-scores[item], item))[:k]
    return best + [-1] * (k - len(best))


def excluded_of(row: int, pairs: tuple[Tensor, Tensor]) -> set[int]:
    return {int(c) for r, c in zip(*pairs, strict=True) if int(r) == row}


def random_case(seed: int, num_rows: int = 40, num_items: int = 60) -> Case:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(num_rows, num_items, generator=g).round(decimals=1)
    target = torch.randint(num_items, (num_rows,), generator=g)
    rows = torch.randint(num_rows, (300,), generator=g)
    return scores, target, (rows, torch.randint(num_items, (300,), generator=g))


def test_ranks_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.5], [3.0, 2.0, 1.0, 0.0]])
    target = torch.tensor([2, 3])
    # Row 0: 0.9 is above and the other 0.5 ties. Row 1: all three others are above.
    assert target_ranks(scores, target).tolist() == [3, 4]
    seen = (torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]))
    assert target_ranks(scores, target, seen).tolist() == [2, 2]


@settings(max_examples=600, deadline=None)
@given(cases())
def test_ranks_equal_the_naive_loop(case: Case) -> None:
    scores, target, pairs = case
    expected = [
        naive_rank(scores[i].tolist(), int(target[i]), excluded_of(i, pairs))
        for i in range(len(scores))
    ]
    assert target_ranks(scores, target, pairs).tolist() == expected


@settings(max_examples=600, deadline=None)
@given(cases(), st.integers(1, 12))
def test_top_k_equals_the_naive_sort(case: Case, k: int) -> None:
    scores, _, pairs = case
    expected = [naive_top(scores[i].tolist(), k, excluded_of(i, pairs)) for i in range(len(scores))]
    assert top_k(scores, k, pairs).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_candidate_ranks_equal_the_naive_loop(case: Case, random: Any) -> None:
    scores, target, _ = case
    num_items = scores.size(1)
    negatives = [
        [random.choice([j for j in range(-1, num_items) if j != int(t)]) for _ in range(4)]
        for t in target
    ]
    expected = [
        1 + sum(j >= 0 and float(row[j]) >= float(row[int(t)]) for j in drawn)
        for row, t, drawn in zip(scores, target, negatives, strict=True)
    ]
    assert candidate_ranks(scores, target, torch.tensor(negatives)).tolist() == expected


@pytest.mark.parametrize("constant", [0.0, -3.0, INF, -INF])
def test_constant_scores_give_the_worst_rank(constant: float) -> None:
    scores = torch.full((3, 7), constant)
    target = torch.tensor([0, 3, 6])  # the target in column 0 must not win either
    assert target_ranks(scores, target).tolist() == [7, 7, 7]
    negatives = torch.tensor([[1, 2], [0, 1], [0, -1]])
    assert candidate_ranks(scores, target, negatives).tolist() == [3, 3, 2]


def test_the_target_is_never_excluded() -> None:
    scores, target, pairs = random_case(0)
    own = (
        torch.cat([pairs[0], torch.arange(len(target))]),
        torch.cat([pairs[1], target]),
    )
    assert torch.equal(target_ranks(scores, target, own), target_ranks(scores, target, pairs))
    everything = torch.ones_like(scores, dtype=torch.bool).nonzero(as_tuple=True)
    assert target_ranks(scores, target, (everything[0], everything[1])).unique().tolist() == [1]


def test_an_infinite_target_follows_the_ties_rule() -> None:
    scores = torch.tensor([[INF, INF, 0.0], [-INF, -INF, 0.0]])
    assert target_ranks(scores, torch.tensor([0, 0])).tolist() == [2, 3]


def test_all_items_as_negatives_give_the_full_rank() -> None:
    scores, target, _ = random_case(1)
    items = torch.arange(scores.size(1))
    negatives = torch.stack([torch.where(items == t, -1, items) for t in target])
    assert torch.equal(candidate_ranks(scores, target, negatives), target_ranks(scores, target))


@pytest.mark.parametrize("seed", range(5))
def test_ranks_survive_every_strictly_increasing_transform(seed: int) -> None:
    scores, target, pairs = random_case(seed)
    # Multiples of 1/8 and powers of two: exact in float32, so that no transform makes a tie.
    scores = (scores * 8).round() / 8
    ranks = target_ranks(scores, target, pairs)
    for moved in (scores + 16, scores - 64, scores * 4, scores.exp(), scores.atan()):
        assert torch.equal(target_ranks(moved, target, pairs), ranks)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_survive_permutations_of_items_and_users_and_batch_splits(seed: int) -> None:
    scores, target, (rows, cols) = random_case(seed)
    ranks = target_ranks(scores, target, (rows, cols))
    g = torch.Generator().manual_seed(seed)
    items = torch.randperm(scores.size(1), generator=g)  # new column j is old items[j]
    place = items.argsort()
    assert torch.equal(target_ranks(scores[:, items], place[target], (rows, place[cols])), ranks)
    users = torch.randperm(len(scores), generator=g)
    moved = target_ranks(scores[users], target[users], (users.argsort()[rows], cols))
    assert torch.equal(moved, ranks[users])
    parts = []
    for part in torch.arange(len(scores)).split(7):
        here = (rows >= part[0]) & (rows <= part[-1])
        pairs = (rows[here] - part[0], cols[here])
        parts.append(target_ranks(scores[part], target[part], pairs))
    assert torch.equal(torch.cat(parts), ranks)


def test_a_better_score_never_lowers_the_rank() -> None:
    scores, target, pairs = random_case(3)
    ranks = target_ranks(scores, target, pairs)
    scores[torch.arange(len(scores)), target] += 0.3
    assert bool((target_ranks(scores, target, pairs) <= ranks).all())


def test_top_k_holds_the_target_exactly_where_the_rank_says_without_ties() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.stack([torch.randperm(50, generator=g) for _ in range(30)]).float()
    target = torch.randint(50, (30,), generator=g)
    ranks = target_ranks(scores, target)
    best = top_k(scores, 50)
    assert torch.equal((best == target.unsqueeze(1)).nonzero()[:, 1] + 1, ranks)


def test_top_k_of_constant_scores_is_ascending_ids() -> None:
    scores = torch.zeros(2, 5000)
    scores[1, ::2] = -0.0  # equal to 0.0, whatever its bits
    assert top_k(scores, 4).tolist() == [[0, 1, 2, 3]] * 2
    seen = (torch.tensor([0, 0]), torch.tensor([0, 2]))
    assert top_k(scores, 3, seen).tolist() == [[1, 3, 4], [0, 1, 2]]


def test_top_k_beyond_the_candidates_pads() -> None:
    scores = torch.tensor([[1.0, -INF, 2.0]])
    assert top_k(scores, 5).tolist() == [[2, 0, 1, -1, -1]]
    seen = (torch.tensor([0]), torch.tensor([2]))
    assert top_k(scores, 3, seen).tolist() == [[0, 1, -1]]


def test_an_empty_batch_is_no_error() -> None:
    scores, target = torch.empty(0, 4), torch.empty(0, dtype=torch.int64)
    assert target_ranks(scores, target).shape == (0,)
    assert top_k(scores, 2).shape == (0, 2)


def test_arguments_are_not_written_to() -> None:
    scores, target, pairs = random_case(2)
    before = scores.clone()
    target_ranks(scores, target, pairs)
    top_k(scores, 5, pairs)
    assert torch.equal(scores, before)


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self.bytes = max(self.bytes, value.nbytes)
        return out


def test_nothing_larger_than_the_batch_is_built() -> None:
    scores, target = torch.randn(64, 500), torch.arange(64)
    pairs = (torch.arange(64), torch.arange(64) + 1)
    with LargestTensor() as seen:
        target_ranks(scores, target, pairs)
        top_k(scores, 10, pairs)
    assert 0 < seen.bytes <= scores.nbytes


@pytest.mark.parametrize("excluded", [False, True])
def test_nan_is_an_error_that_names_the_row(excluded: bool) -> None:
    scores, target, _ = random_case(0, 4, 6)
    scores[2, 5] = math.nan
    scores[3] = math.nan
    pairs = (torch.tensor([2]), torch.tensor([5])) if excluded else None
    with pytest.raises(ValueError, match=r"scores\[2, 5\] is NaN \(2 of 4 rows"):
        target_ranks(scores, target, pairs)
    with pytest.raises(ValueError, match=r"scores\[2, 5\] is NaN"):
        top_k(scores, 2, pairs)
    with pytest.raises(ValueError, match=r"scores\[2, 5\] is NaN"):
        candidate_ranks(scores, target, torch.full((4, 1), -1))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_scores_of_another_dtype_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="scores must be torch.float32"):
        target_ranks(torch.zeros(2, 3).to(dtype), torch.tensor([0, 1]))


def test_wrong_shapes_and_ids_are_refused() -> None:
    scores, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"scores must be \[B, N\]"):
        target_ranks(scores[0], target)
    with pytest.raises(ValueError, match="target has 1 rows but scores 2"):
        target_ranks(scores, target[:1])
    with pytest.raises(TypeError, match="target must be torch.int64"):
        target_ranks(scores, target.int())
    with pytest.raises(ValueError, match=r"target\[1\] is 3, outside 0..2"):
        target_ranks(scores, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"target\[0\] is -1, outside 0..2"):
        target_ranks(scores, torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match=r"exclude cols\[0\] is 3, outside 0..2"):
        target_ranks(scores, target, (torch.tensor([0]), torch.tensor([3])))
    with pytest.raises(ValueError, match=r"exclude rows\[0\] is 2, outside 0..1"):
        target_ranks(scores, target, (torch.tensor([2]), torch.tensor([0])))
    with pytest.raises(ValueError, match="exclude has 1 rows but 2 cols"):
        target_ranks(scores, target, (torch.tensor([0]), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"negatives must be \[B, K\]"):
        candidate_ranks(scores, target, torch.tensor([[1]]))
    with pytest.raises(ValueError, match="negatives row 1 holds its own target 1"):
        candidate_ranks(scores, target, torch.tensor([[1], [1]]))
    with pytest.raises(ValueError, match=r"negatives\[0, 0\] is -2"):
        candidate_ranks(scores, target, torch.tensor([[-2], [0]]))


@pytest.mark.parametrize("k", [0, -1])
def test_top_k_needs_a_positive_k(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        top_k(torch.zeros(1, 3), k)


@pytest.mark.parametrize("k", [True, 1.0, "1", None])
def test_top_k_needs_an_int(k: Any) -> None:
    with pytest.raises(TypeError, match="k must be an int"):
        top_k(torch.zeros(1, 3), k)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_ranks_and_lists() -> None:
    scores, target, pairs = random_case(5)
    there = (pairs[0].cuda(), pairs[1].cuda())
    ranks = target_ranks(scores.cuda(), target.cuda(), there)
    assert torch.equal(ranks.cpu(), target_ranks(scores, target, pairs))
    assert torch.equal(top_k(scores.cuda(), 9, there).cpu(), top_k(scores, 9, pairs))
