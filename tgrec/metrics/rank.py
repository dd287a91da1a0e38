"""From scores to ranks: the only place where a score is compared with another.

Ties count against the model: a constant score gives the worst rank, never the best
(seed repositories and several libraries give rank 1 instead).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tgrec.metrics._check import Pairs, check_ids, check_k, check_pairs, check_scores, check_vector


def target_ranks(scores: Tensor, target: Tensor, exclude: Pairs | None = None) -> Tensor:
    """Rank of each row's target among all items, ties against the model.

    `rank = 1 + #{other items, not excluded, with score >= the target's}`. The target is never
    excluded, even if it is named in `exclude`. Infinite scores are allowed and follow the same
    rule: a target at -inf ranks behind every item that is not excluded, and a target at +inf
    behind every other +inf.

    Args:
        scores: float32 `[B, N]`, one row a user, one column an item.
        target: int64 `[B]`, the item to find in each row.
        exclude: `(rows, cols)` of the items that do not count (those the user has seen);
            a pair may stand more than once.

    Returns:
        int64 `[B]`, each in `1..N`.

    Raises:
        TypeError: `scores` is not float32, or ids are not int64.
        ValueError: a score is NaN (names the row), a shape is wrong or an id out of range.
    """
    own = _target_scores(scores, target)
    above = scores >= own
    if exclude is not None:
        # Written into the comparison, not subtracted: a repeated pair must count once.
        above[check_pairs(exclude, *scores.shape)] = False
    # The target's own column is the "1 +", and putting it back undoes its exclusion.
    above.scatter_(1, target.unsqueeze(1), True)
    return above.sum(dim=1)


def candidate_ranks(scores: Tensor, target: Tensor, negatives: Tensor) -> Tensor:
    """Rank of each row's target among its sampled negatives, from the scores of the full ranking.

    `rank = 1 + #{negatives with score >= the target's}`.

    Args:
        scores: float32 `[B, N]`.
        target: int64 `[B]`.
        negatives: int64 `[B, K]`, as `sampled_negatives` draws them; -1 is padding and ignored.

    Returns:
        int64 `[B]`, each in `1..K+1`.

    Raises:
        TypeError: `scores` is not float32, or ids are not int64.
        ValueError: a score is NaN, a shape is wrong, an id is out of range, or the target stands
            among its own negatives (it would tie with itself).
    """
    own = _target_scores(scores, target)
    if not isinstance(negatives, Tensor) or negatives.dtype != torch.int64:
        kind = negatives.dtype if isinstance(negatives, Tensor) else type(negatives).__name__
        raise TypeError(f"negatives must be an int64 tensor, got {kind}")
    if negatives.dim() != 2 or negatives.size(0) != scores.size(0):
        raise ValueError(
            f"negatives must be [B, K] with B = {scores.size(0)}, got {tuple(negatives.shape)}"
        )
    check_ids("negatives", negatives, scores.size(1), lowest=-1)
    clash = negatives == target.unsqueeze(1)
    if bool(clash.any()):
        row = int(clash.nonzero()[0, 0])
        raise ValueError(
            f"negatives row {row} holds its own target {int(target[row])}; "
            "exclude the targets when drawing negatives"
        )
    above = scores.gather(1, negatives.clamp(min=0)) >= own
    return 1 + (above & (negatives >= 0)).sum(dim=1)


def top_k(scores: Tensor, k: int, exclude: Pairs | None = None) -> Tensor:
    """The `k` best items of each row, by descending score, equal scores by ascending item id.

    `torch.topk` orders equal scores as it likes (and differently on CPU and CUDA), so it only
    finds the k-th score here; which of the items tied at that score are kept is decided by id.

    Args:
        scores: float32 `[B, N]`.
        k: how many items, at least 1; may exceed the number of candidates.
        exclude: `(rows, cols)` of items not to return.

    Returns:
        int64 `[B, k]`; rows with fewer than `k` candidates hold all of them, then -1.

    Raises:
        TypeError: `k` is not an int (a bool is not), or dtypes are wrong.
        ValueError: `k` < 1, a score is NaN, a shape is wrong or an id out of range.
    """
    check_k(k)
    check_scores(scores)
    num_rows, num_items = scores.shape
    # A copy to mark excluded items in; adding zero also turns -0.0 into 0.0, which a sort on
    # bits would tell apart although they compare equal.
    work = scores + 0.0
    allowed = torch.ones_like(work, dtype=torch.bool)
    if exclude is not None:
        pairs = check_pairs(exclude, num_rows, num_items)
        work[pairs] = -torch.inf
        allowed[pairs] = False
    kept = min(k, num_items)
    kth = work.topk(kept, dim=1).values[:, -1:]
    better = work > kth
    tied = (work == kth) & allowed
    room = kept - better.sum(dim=1, keepdim=True)
    chosen = better | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))
    rows, cols = chosen.nonzero(as_tuple=True)
    place = chosen.cumsum(dim=1, dtype=torch.int32)[rows, cols] - 1
    ids = torch.full((num_rows, k), -1, dtype=torch.int64, device=scores.device)
    ids[rows, place.long()] = cols
    # Ids stand in ascending order now, so a stable sort by score leaves ties ordered by id, and
    # padding, sorted as -inf from the end of the row, stays behind real items at -inf.
    value = work.gather(1, ids.clamp(min=0)).masked_fill_(ids < 0, -torch.inf)
    order = value.sort(dim=1, descending=True, stable=True).indices
    return ids.gather(1, order)


def _target_scores(scores: Tensor, target: Tensor) -> Tensor:
    """Check both arguments and return the targets' scores, `[B, 1]`, from the same product."""
    check_scores(scores)
    check_vector("target", target)
    if target.numel() != scores.size(0):
        raise ValueError(f"target has {target.numel()} rows but scores {scores.size(0)}")
    check_ids("target", target, scores.size(1))
    return scores.gather(1, target.unsqueeze(1))
