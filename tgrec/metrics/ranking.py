"""Metrics of a ranking with one relevant item per user, all from one vector of ranks.

With a single relevant item the ideal DCG is 1, so NDCG@k is `1 / log2(rank + 1)` inside the
first k places and 0 outside (Jarvelin and Kekalainen, TOIS 2002).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from tgrec.metrics._check import check_k, check_vector

MISS: Final = torch.iinfo(torch.int64).max
"""The rank of a target that could not be ranked (an unknown user or item): every metric is 0."""

HR_CUTOFFS: Final = (1, 5, 10, 20)
NDCG_CUTOFFS: Final = (5, 10, 20)
GROUPS: Final = (("<=50", 0, 50), ("51-100", 51, 100), ("101-200", 101, 200), (">200", 201, None))
"""Groups of users by the number of events before the target: name, first, last (inclusive)."""


def hit_ratio(ranks: Tensor, k: int) -> Tensor:
    """1 where the target stands in the first `k` places, else 0.

    Args:
        ranks: int64 `[n]`, from 1.
        k: cutoff, at least 1.

    Returns:
        float64 `[n]`.

    Raises:
        TypeError: `ranks` is not int64 or `k` not an int.
        ValueError: a rank or `k` is below 1.
    """
    check_k(k)
    return (_check_ranks(ranks) <= k).to(torch.float64)


def ndcg(ranks: Tensor, k: int) -> Tensor:
    """`1 / log2(rank + 1)` where `rank <= k`, else 0.

    Args:
        ranks: int64 `[n]`, from 1.
        k: cutoff, at least 1.

    Returns:
        float64 `[n]`.

    Raises:
        TypeError: `ranks` is not int64 or `k` not an int.
        ValueError: a rank or `k` is below 1.
    """
    check_k(k)
    inside = _check_ranks(ranks) <= k
    gain = 1.0 / torch.log2(ranks.clamp(max=k).to(torch.float64) + 1.0)
    return torch.where(inside, gain, 0.0)


def mrr(ranks: Tensor) -> Tensor:
    """Reciprocal rank `1 / rank` without a cutoff (0 for `MISS`).

    Args:
        ranks: int64 `[n]`, from 1.

    Returns:
        float64 `[n]`.

    Raises:
        TypeError: `ranks` is not int64.
        ValueError: a rank is below 1.
    """
    _check_ranks(ranks)
    return torch.where(ranks == MISS, 0.0, 1.0 / ranks.to(torch.float64))


def summarize(ranks: Tensor) -> dict[str, float]:
    """Means over users of the protocol's metrics.

    The sum is exact before it is rounded (`math.fsum`), so neither the order of the users nor
    the split into batches changes a bit of it.

    Args:
        ranks: int64 `[n]`, n >= 1.

    Returns:
        The keys HR@1, HR@5, HR@10, HR@20, NDCG@5, NDCG@10, NDCG@20, MRR, in this order.

    Raises:
        TypeError: `ranks` is not int64.
        ValueError: `ranks` is empty or holds a rank below 1.
    """
    if _check_ranks(ranks).numel() == 0:
        raise ValueError("ranks is empty; a mean over no users does not exist")
    out = {f"HR@{k}": _mean(hit_ratio(ranks, k)) for k in HR_CUTOFFS}
    out |= {f"NDCG@{k}": _mean(ndcg(ranks, k)) for k in NDCG_CUTOFFS}
    out["MRR"] = _mean(mrr(ranks))
    return out


def length_groups(history_length: Tensor) -> dict[str, Tensor]:
    """Who has how many events before the target.

    Args:
        history_length: int64 `[n]`, all events before the target, not cut to what the model reads.

    Returns:
        By name (`<=50`, `51-100`, `101-200`, `>200`, in this order) a bool mask `[n]`.

    Raises:
        TypeError: it is not int64.
        ValueError: a length is negative.
    """
    check_vector("history_length", history_length)
    if bool((history_length < 0).any()):
        raise ValueError(f"history_length holds {int(history_length.min())}; lengths start at 0")
    return {
        name: (history_length >= first) & (history_length <= (math.inf if last is None else last))
        for name, first, last in GROUPS
    }


def group_summaries(ranks: Tensor, groups: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """`summarize` for each group of targets.

    Args:
        ranks: int64 `[n]`.
        groups: name -> bool mask `[n]`, as :func:`length_groups` makes them.

    Returns:
        By name the metrics and the count `users`. A group without users is left out.

    Raises:
        TypeError: `ranks` is not int64.
        ValueError: lengths differ.
    """
    _check_ranks(ranks)
    for name, mask in groups.items():
        if mask.shape != ranks.shape:
            raise ValueError(
                f"the group {name!r} has {mask.numel()} users but ranks {ranks.numel()}"
            )
    return {
        name: {"users": int(mask.sum()), **summarize(ranks[mask])}
        for name, mask in groups.items()
        if bool(mask.any())
    }


def _mean(values: Tensor) -> float:
    return math.fsum(values.tolist()) / values.numel()


def _check_ranks(ranks: Tensor) -> Tensor:
    check_vector("ranks", ranks)
    if ranks.numel() and int(ranks.min()) < 1:
        row = int((ranks < 1).nonzero()[0])
        raise ValueError(f"ranks[{row}] is {int(ranks[row])}; ranks start at 1")
    return ranks
