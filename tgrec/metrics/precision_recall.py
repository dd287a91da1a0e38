"""Precision and recall of lists where a user may have any number of targets.

The metrics of a week's interests: what share of the list is right, and what share of what the user
did is in the list. With one target per user recall is the hit ratio of :mod:`ranking`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tgrec.metrics._check import Pairs, check_ids, check_pairs


@dataclass(frozen=True)
class PrecisionRecall:
    """Outcome of `precision_recall_at_k`, for the n users with at least one target.

    Attributes:
        k: length of the lists.
        row: int64 `[n]`, the rows of these users in the lists, ascending.
        precision: float64 `[n]`, one value a user, as `bootstrap_interval` takes it.
        recall: float64 `[n]`.
    """

    k: int
    row: Tensor
    precision: Tensor
    recall: Tensor

    def summary(self) -> dict[str, float]:
        """`users`, `Precision@k` and `Recall@k`: the number of users and the means over them.

        Raises:
            ValueError: no user has a target.
        """
        users = self.row.numel()
        if users == 0:
            raise ValueError("no user has a target; a mean over no users does not exist")
        return {
            "users": users,
            f"Precision@{self.k}": math.fsum(self.precision.tolist()) / users,
            f"Recall@{self.k}": math.fsum(self.recall.tolist()) / users,
        }


def precision_recall_at_k(top: Tensor, targets: Pairs, num_items: int) -> PrecisionRecall:
    """Precision@k and Recall@k of each user with at least one target.

    With T the targets of a user and L the k items listed: `precision = |L and T| / k` and
    `recall = |L and T| / |T|`. Precision divides by k also where a user has fewer than k targets
    or a list is padded, so its best value may be below 1.

    Args:
        top: int64 `[B, k]`, the lists, as `top_k` gives them; -1 is padding.
        targets: `(rows, cols)`: item `cols[i]` is a target of the user in row `rows[i]`; a pair
            may stand more than once and counts once.
        num_items: N, of which the lists choose.

    Returns:
        One value a user. Users without a target have neither metric and are left out.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: k exceeds `num_items`, a shape is wrong, an id is out of range, or a list holds
            an item twice.
    """
    _check_lists(top, num_items)
    num_rows, k = top.shape
    rows, cols = check_pairs(targets, num_rows, num_items, "targets")
    wanted = torch.unique(rows * num_items + cols)
    size = torch.bincount(wanted // num_items, minlength=num_rows)
    listed = torch.arange(num_rows, device=top.device).view(-1, 1) * num_items + top
    hits = (torch.isin(listed, wanted) & (top >= 0)).sum(dim=1)
    row = size.nonzero().view(-1)
    hit, total = hits[row].to(torch.float64), size[row].to(torch.float64)
    return PrecisionRecall(k, row, hit / k, hit / total)


def _check_lists(top: Tensor, num_items: int) -> None:
    if not isinstance(top, Tensor) or top.dtype != torch.int64:
        kind = top.dtype if isinstance(top, Tensor) else type(top).__name__
        raise TypeError(f"top must be an int64 tensor, got {kind}")
    if top.dim() != 2 or top.size(1) == 0:
        raise ValueError(f"top must be [B, k] with k >= 1, got shape {tuple(top.shape)}")
    if isinstance(num_items, bool) or not isinstance(num_items, int) or num_items < 1:
        raise ValueError(f"num_items must be an int of at least 1, got {num_items!r}")
    if top.size(1) > num_items:
        raise ValueError(
            f"top lists k = {top.size(1)} items of num_items = {num_items}; "
            "a list cannot be longer than the catalogue"
        )
    check_ids("top", top, num_items, lowest=-1)
    ordered = top.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool(twice.any()):
        row, place = twice.nonzero()[0].tolist()
        raise ValueError(f"top row {row} lists item {int(ordered[row, place])} twice")
