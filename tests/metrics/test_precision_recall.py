from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.metrics import LinkPredPrecision, LinkPredRecall

from tgrec.metrics import (
    bootstrap_interval,
    hit_ratio,
    precision_recall_at_k,
    target_ranks,
    top_k,
)


def pairs(*rows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    table = torch.tensor(rows, dtype=torch.int64).view(-1, 2)
    return table[:, 0], table[:, 1]


def lists(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def drawn(seed: int, users: int = 30, items: int = 40, k: int = 7) -> tuple[Tensor, Any]:
    """Lists of distinct items, and on average as many targets, for some users none."""
    g = torch.Generator().manual_seed(seed)
    top = torch.stack([torch.randperm(items, generator=g)[:k] for _ in range(users)])
    wanted = torch.rand(users, items, generator=g) < 0.15
    wanted[::5] = False
    return top, wanted.nonzero(as_tuple=True)


def test_by_hand() -> None:
    top = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 5, 1], [2, 1, -1]])
    targets = pairs((0, 0), (0, 2), (0, 4), (0, 5), (2, 9), (3, 1), (3, 1), (3, 2))
    out = precision_recall_at_k(top, targets, num_items=10)
    assert out.k == 3
    assert out.row.tolist() == [0, 2, 3]  # user 1 has no target and no value
    assert out.precision.tolist() == [2 / 3, 0.0, 2 / 3]
    assert out.recall.tolist() == [2 / 4, 0.0, 2 / 2]  # the repeated pair counts once
    assert {out.precision.dtype, out.recall.dtype} == {torch.float64}
    summary = out.summary()
    assert list(summary) == ["users", "Precision@3", "Recall@3"]
    assert summary["users"] == 3
    assert summary["Precision@3"] == pytest.approx(4 / 9, abs=1e-15)
    assert summary["Recall@3"] == 0.5


def test_padding_is_never_a_hit() -> None:
    # Row 1 with -1 would meet the last item of row 0, were rows and items only added up.
    out = precision_recall_at_k(torch.tensor([[0, -1], [-1, -1]]), pairs((0, 4), (1, 4)), 5)
    assert out.recall.tolist() == [0.0, 0.0]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 8), st.integers(1, 8))
def test_equals_a_naive_loop(seed: int, items: int, k: int, users: int) -> None:
    k = min(k, items)
    g = torch.Generator().manual_seed(seed)
    top = torch.stack([torch.randperm(items, generator=g)[:k] for _ in range(users)])
    top[torch.rand(users, k, generator=g) < 0.2] = -1
    size = int(torch.randint(0, 20, (), generator=g))
    rows = torch.randint(users, (size,), generator=g)
    cols = torch.randint(items, (size,), generator=g)
    expected = []
    for user in range(users):
        wanted = {c for r, c in zip(rows.tolist(), cols.tolist(), strict=True) if r == user}
        if wanted:
            hits = len(wanted & set(top[user].tolist()))
            expected.append((user, hits / k, hits / len(wanted)))
    out = precision_recall_at_k(top, (rows, cols), items)
    columns = (out.row.tolist(), out.precision.tolist(), out.recall.tolist())
    assert list(zip(*columns, strict=True)) == expected
    if expected:
        mean = math.fsum(e[2] for e in expected) / len(expected)
        assert out.summary()[f"Recall@{k}"] == pytest.approx(mean, abs=1e-15)


@pytest.mark.parametrize("k", [1, 5, 20, 40])
@pytest.mark.parametrize("seed", range(4))
def test_pyg_gives_the_same_figures(seed: int, k: int) -> None:
    top, targets = drawn(seed, k=k)
    out = precision_recall_at_k(top, targets, 40).summary()
    for kind, ours in ((LinkPredPrecision, "Precision"), (LinkPredRecall, "Recall")):
        metric = kind(k)
        metric.update(top, targets)
        assert out[f"{ours}@{k}"] == pytest.approx(float(metric.compute()), abs=1e-6)


def test_with_one_target_recall_is_the_hit_ratio() -> None:
    scores = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
    target = torch.arange(50) % 20
    out = precision_recall_at_k(top_k(scores, 5), (torch.arange(50), target), 20)
    hits = hit_ratio(target_ranks(scores, target), 5)
    assert torch.equal(out.recall, hits)
    assert torch.equal(out.precision, hits / 5)


def test_all_items_listed_recalls_everything() -> None:
    top, targets = drawn(3, k=40)
    assert set(precision_recall_at_k(top, targets, 40).recall.tolist()) == {1.0}


def test_the_order_of_users_lists_and_pairs_changes_nothing() -> None:
    top, (rows, cols) = drawn(5)
    whole = precision_recall_at_k(top, (rows, cols), 40)
    g = torch.Generator().manual_seed(0)
    place, mixed = torch.randperm(30, generator=g), torch.randperm(rows.numel(), generator=g)
    back = torch.argsort(place)
    moved = precision_recall_at_k(top.flip(1)[place], (back[rows[mixed]], cols[mixed]), 40)
    assert moved.summary() == whole.summary()  # to the last bit


def test_one_value_a_user_makes_an_interval() -> None:
    out = precision_recall_at_k(*drawn(2), 40)
    low, high = bootstrap_interval(out.recall)
    assert low < out.summary()["Recall@7"] < high


def test_more_than_there_are_items_names_both() -> None:
    with pytest.raises(ValueError, match="k = 6 items of num_items = 5"):
        precision_recall_at_k(torch.full((2, 6), -1), pairs((0, 1)), 5)


def test_nobody_has_a_target() -> None:
    out = precision_recall_at_k(torch.tensor([[0]]), pairs(), 5)
    assert out.recall.numel() == 0
    with pytest.raises(ValueError, match="no user has a target"):
        out.summary()


@pytest.mark.parametrize(
    ("top", "targets", "items", "error", "message"),
    [
        (torch.zeros(1, 1), pairs((0, 0)), 5, TypeError, "top must be an int64 tensor"),
        ([[0]], pairs((0, 0)), 5, TypeError, "top must be an int64 tensor, got list"),
        (lists([0, 1])[0], pairs((0, 0)), 5, ValueError, r"top must be \[B, k\]"),
        (lists([0])[:, :0], pairs((0, 0)), 5, ValueError, r"top must be \[B, k\]"),
        (lists([0, 5]), pairs((0, 0)), 5, ValueError, r"top\[0, 1\] is 5, outside -1..4"),
        (lists([0, -2]), pairs((0, 0)), 5, ValueError, "is -2, outside"),
        (lists([0, 1], [3, 3]), pairs((0, 0)), 5, ValueError, "top row 1 lists item 3 twice"),
        (lists([0]), pairs((1, 0)), 5, ValueError, "targets rows"),
        (lists([0]), pairs((0, 5)), 5, ValueError, "targets cols"),
        (lists([0]), [0, 1], 5, TypeError, "targets must be a tuple"),
        (lists([0]), pairs((0, 0)), 0, ValueError, "num_items must be an int of at least 1"),
        (lists([0]), pairs((0, 0)), True, ValueError, "num_items must be"),
    ],
)
def test_bad_arguments_are_refused(
    top: Any, targets: Any, items: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        precision_recall_at_k(top, targets, items)
