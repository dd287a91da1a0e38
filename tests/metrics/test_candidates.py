from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgrec.data.random import uniform64
from tgrec.metrics import candidate_ranks, candidates, pairs_of, sampled_negatives, target_ranks

NOTHING = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
HALF = torch.full((1, 9), 0.5, dtype=torch.float64)


def draws_for(user: Tensor, num_items: int, seed: int = 0) -> Tensor:
    """Draws keyed by (seed, user, item), as an evaluation makes them."""
    return uniform64(seed, user.unsqueeze(1), torch.arange(num_items, device=user.device))


def too_large(statistic: float, freedom: int) -> bool:
    """Whether a chi-square statistic is beyond its 1 - 1e-5 quantile (Wilson and Hilferty)."""
    z, scale = 4.265, 2 / (9 * freedom)
    return statistic > freedom * (1 - scale + z * math.sqrt(scale)) ** 3


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def random_pairs(seed: int, num_rows: int, num_items: int, count: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(num_rows, (count,), generator=g)
    return rows, torch.randint(num_items, (count,), generator=g)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 15),
    st.integers(1, 20),
    st.integers(0, 40),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_draws_are_distinct_allowed_and_as_many_as_there_are(
    num_rows: int, num_items: int, k: int, count: int, weighted: bool, seed: int
) -> None:
    pairs = random_pairs(seed, num_rows, num_items, count)
    weight = None
    if weighted:
        g = torch.Generator().manual_seed(seed)
        weight = torch.randint(0, 4, (num_items,), generator=g)  # zeros among them
    draws = draws_for(torch.arange(num_rows) * 7 + 3, num_items, seed)
    before = draws.clone()
    drawn = sampled_negatives(draws, k, pairs, weight)
    assert torch.equal(draws, before)  # the caller's draws are not written into
    assert drawn.shape == (num_rows, k)
    for row in range(num_rows):
        banned = set(pairs[1][pairs[0] == row].tolist())
        real = [item for item in drawn[row].tolist() if item != -1]
        assert len(set(real)) == len(real) == min(k, num_items - len(banned))
        assert not banned & set(real)
        assert set(real) <= set(range(num_items))
        assert drawn[row, : len(real)].tolist() == real  # padding stands at the end


@pytest.mark.parametrize("weighted", [False, True])
def test_the_draw_belongs_to_the_user_not_to_the_batch(weighted: bool) -> None:
    user = torch.arange(0, 6000, 60)
    rows, cols = random_pairs(0, 100, 300, 4000)
    weight = torch.arange(300) if weighted else None
    whole = sampled_negatives(draws_for(user, 300, 5), 20, (rows, cols), weight)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    moved = sampled_negatives(
        draws_for(user[order], 300, 5), 20, (order.argsort()[rows], cols), weight
    )
    assert torch.equal(moved, whole[order])
    for size in (1, 7, 64):
        parts = []
        for part in torch.arange(100).split(size):
            here = (rows >= part[0]) & (rows <= part[-1])
            pairs = (rows[here] - part[0], cols[here])
            parts.append(sampled_negatives(draws_for(user[part], 300, 5), 20, pairs, weight))
        assert torch.equal(torch.cat(parts), whole)
    other = sampled_negatives(draws_for(user, 300, 6), 20, (rows, cols), weight)
    assert not bool((other == whole).all(dim=1).any())


def test_the_internal_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, pairs = draws_for(torch.arange(50), 40), random_pairs(2, 50, 40, 300)
    whole = sampled_negatives(draws, 10, pairs)
    monkeypatch.setattr("tgrec.metrics.candidates._CHUNK", 90)  # two rows at a time
    assert torch.equal(sampled_negatives(draws, 10, pairs), whole)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 1500),
    st.sampled_from(["uniform", "counts", "mostly zero", "one dominates", "whole range"]),
    st.integers(0, 10**6),
)
def test_looking_at_few_items_first_draws_the_same(
    num_rows: int, k: int, count: int, kind: str, seed: int
) -> None:
    items = 150
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(items, generator=g, dtype=torch.float64)
    weight = {
        "uniform": None,
        "counts": (1 / noise).long(),
        "mostly zero": torch.where(noise < 0.4, noise, 0.0),
        "one dominates": torch.where(noise == noise.max(), 1e12, noise),
        "whole range": 10 ** (600 * noise - 300),
    }[kind]
    # Up to all of a row's items are left out, so that many rows have too few small keys.
    pairs = random_pairs(seed, num_rows, items, count)
    draws = draws_for(torch.arange(num_rows), items, seed)
    few = sampled_negatives(draws, k, pairs, weight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_small", lambda *args: None)
        assert torch.equal(few, sampled_negatives(draws, k, pairs, weight))


@pytest.mark.parametrize("weighted", [False, True])
def test_few_rows_need_all_of_their_items(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, real = [0, 0], candidates._first

    def spy(draws: Tensor, allowed: Tensor, kept: int, rate: Any, small: Any) -> Tensor:
        rows[small is None] += len(draws)
        return real(draws, allowed, kept, rate, small)

    monkeypatch.setattr(candidates, "_first", spy)
    weight = 1 / torch.arange(1, 2001) if weighted else None
    sampled_negatives(draws_for(torch.arange(200), 2000), 100, NOTHING, weight)
    assert rows[0] == 200
    assert rows[1] < 4


def test_a_smaller_draw_is_the_beginning_of_a_larger_one() -> None:
    draws, pairs = draws_for(torch.arange(80), 200), random_pairs(3, 80, 200, 1000)
    for weight in (None, torch.arange(200) + 1):
        hundred = sampled_negatives(draws, 100, pairs, weight)
        assert torch.equal(sampled_negatives(draws, 28, pairs, weight), hundred[:, :28])


def test_equal_weights_are_the_uniform_draw() -> None:
    draws = draws_for(torch.arange(60), 100)
    even = sampled_negatives(draws, 10, NOTHING, torch.full((100,), 3.5))
    assert torch.equal(even, sampled_negatives(draws, 10, NOTHING))


def test_the_smallest_keys_win() -> None:
    draws = torch.tensor([[0.5, 0.2, 0.9, 0.3]], dtype=torch.float64)
    assert sampled_negatives(draws, 4, NOTHING).tolist() == [[1, 3, 0, 2]]
    # -log(1 - u) / w: 0.693 / 1, 0.223 / 0.1, 2.303 / 5 and 0.357 / 1
    weight = torch.tensor([1.0, 0.1, 5.0, 1.0])
    assert sampled_negatives(draws, 4, NOTHING, weight).tolist() == [[3, 2, 0, 1]]


def test_excluding_another_item_leaves_the_rest_of_the_draw_alone() -> None:
    draws = draws_for(torch.tensor([11]), 50)
    drawn = sampled_negatives(draws, 50, NOTHING)[0]
    less = sampled_negatives(draws, 49, (torch.tensor([0]), drawn[4:5]))[0]
    assert less.tolist() == [item for i, item in enumerate(drawn.tolist()) if i != 4]


def test_the_uniform_draw_is_uniform_over_items_and_over_pairs() -> None:
    drawn = sampled_negatives(draws_for(torch.arange(30_000), 12, 1), 2, NOTHING)
    for column in (0, 1):
        counts = torch.bincount(drawn[:, column], minlength=12).double()
        assert not too_large(chi_square(counts, torch.full((12,), 2500.0)), 11)
    both = torch.bincount(drawn[:, 0] * 12 + drawn[:, 1], minlength=144).double()
    off_diagonal = ~torch.eye(12, dtype=torch.bool).flatten()
    expected = torch.full((132,), 30_000 / 132)
    assert not too_large(chi_square(both[off_diagonal], expected), 131)


def test_the_weighted_draw_is_sequential_sampling_without_replacement() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 6.0])
    drawn = sampled_negatives(draws_for(torch.arange(40_000), 4, 2), 2, NOTHING, weight)
    pairs = list(itertools.permutations(range(4), 2))
    total = float(weight.sum())
    expected = torch.tensor(
        [float(weight[i] / total * weight[j] / (total - weight[i])) for i, j in pairs]
    )
    counts = torch.tensor([((drawn[:, 0] == i) & (drawn[:, 1] == j)).sum() for i, j in pairs])
    assert not too_large(chi_square(counts.double(), 40_000 * expected), len(pairs) - 1)
    # The test has teeth: it refuses the uniform draw, and weights drawn with replacement.
    assert too_large(chi_square(counts.double(), torch.full((12,), 40_000 / 12)), 11)
    naive = torch.tensor([float(weight[i] * weight[j]) for i, j in pairs])
    assert too_large(chi_square(counts.double(), 40_000 * naive / naive.sum()), 11)


def test_users_draw_independently() -> None:
    drawn = sampled_negatives(draws_for(torch.arange(20_000), 10), 1, NOTHING)[:, 0]
    both = torch.bincount(drawn[:-1] * 10 + drawn[1:], minlength=100).double()
    assert not too_large(chi_square(both, torch.full((100,), 19_999 / 100)), 99)


def test_items_of_weight_zero_come_last_and_only_when_needed() -> None:
    weight, draws = torch.tensor([0, 5, 0, 1, 0, 2]), draws_for(torch.arange(200), 6)
    drawn = sampled_negatives(draws, 5, NOTHING, weight)
    assert set(drawn[:, :3].flatten().tolist()) == {1, 3, 5}
    assert set(drawn[:, 3:].flatten().tolist()) == {0, 2, 4}
    counts = torch.bincount(drawn[:, 3], minlength=6)
    assert bool((counts[[0, 2, 4]] > 40).all())  # evenly among themselves
    none = sampled_negatives(draws, 5, NOTHING, torch.zeros(6))
    assert bool((none >= 0).all())


def test_weights_may_span_the_whole_range_of_floats() -> None:
    weight = torch.tensor([1e-300, 1e300, 0.0], dtype=torch.float64)
    drawn = sampled_negatives(draws_for(torch.arange(20), 3), 3, NOTHING, weight)
    assert drawn.tolist() == [[1, 0, 2]] * 20


def test_too_few_items_pad_and_padding_does_not_count_as_a_negative() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.9, 0.5, 0.1]])
    target = torch.tensor([0])
    seen = (torch.tensor([0, 0]), torch.tensor([0, 4]))
    drawn = sampled_negatives(draws_for(torch.tensor([42]), 5), 100, seen)
    assert sorted(drawn[0, :3].tolist()) == [1, 2, 3]
    assert drawn[0, 3:].unique().tolist() == [-1]
    assert candidate_ranks(scores, target, drawn).tolist() == [3]
    assert torch.equal(candidate_ranks(scores, target, drawn), target_ranks(scores, target, seen))


def test_pairs_of_a_padded_history() -> None:
    item = torch.tensor([[0, 0, 4], [7, 4, 7]])
    mask = torch.tensor([[False, False, True], [True, True, True]])
    rows, cols = pairs_of(item, mask)
    assert rows.tolist() == [0, 1, 1, 1]
    assert cols.tolist() == [4, 7, 4, 7]
    with pytest.raises(ValueError, match=r"must both be \[B, L\]"):
        pairs_of(item, mask[:1])
    with pytest.raises(TypeError, match="mask bool"):
        pairs_of(item, mask.long())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_negatives": 0}, ValueError, "num_negatives must be at least 1"),
        ({"num_negatives": True}, TypeError, "num_negatives must be an int"),
        ({"draws": torch.full((1, 9), 0.5)}, TypeError, "torch.float64 tensor, got torch.float32"),
        ({"draws": [[0.5]]}, TypeError, "torch.float64 tensor, got list"),
        ({"draws": HALF[0]}, ValueError, r"draws must be \[B, N\]"),
        ({"draws": HALF[:, :0]}, ValueError, r"draws must be \[B, N\]"),
        ({"draws": HALF.index_fill(1, torch.tensor(4), 1.0)}, ValueError, r"draws\[0, 4\] is 1.0"),
        ({"draws": HALF.index_fill(1, torch.tensor(4), 0.0)}, ValueError, r"draws\[0, 4\] is 0.0"),
        ({"draws": HALF.index_fill(1, torch.tensor(4), math.nan)}, ValueError, "4. is nan"),
        ({"exclude": (torch.tensor([0]), torch.tensor([9]))}, ValueError, "cols.0. is 9"),
        ({"exclude": None}, TypeError, "exclude must be a tuple"),
        ({"weight": torch.ones(8)}, ValueError, r"weight must be \[9\]"),
        ({"weight": -torch.ones(9)}, ValueError, r"weight\[0\] is -1.0"),
        ({"weight": torch.full((9,), math.nan)}, ValueError, r"weight\[0\] is nan"),
        ({"weight": torch.full((9,), math.inf)}, ValueError, r"weight\[0\] is inf"),
        ({"weight": torch.ones(9, dtype=torch.bool)}, TypeError, "weight must be a tensor"),
    ],
)
def test_bad_arguments_are_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    good: dict[str, Any] = {
        "draws": HALF,
        "num_negatives": 3,
        "exclude": NOTHING,
    }
    with pytest.raises(error, match=message):
        sampled_negatives(**{**good, **change})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("weighted", [False, True])
def test_cuda_draws_the_same_negatives(weighted: bool) -> None:
    user, (rows, cols) = torch.arange(300), random_pairs(0, 300, 500, 9000)
    weight = torch.arange(500) if weighted else None
    there = draws_for(user.cuda(), 500)
    assert torch.equal(there.cpu(), draws_for(user, 500))
    drawn = sampled_negatives(there, 100, (rows.cuda(), cols.cuda()), weight)
    here = sampled_negatives(draws_for(user, 500), 100, (rows, cols), weight)
    assert torch.equal(drawn.cpu(), here)
