"""Checks of arguments shared by the metric files: every message names argument, value, remedy."""

from __future__ import annotations

import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor]
"""`(rows, cols)`, two int64 vectors of one length: item `cols[i]` in row `rows[i]` of the batch."""


def check_k(k: int, name: str = "k") -> int:
    """Return `k` if it is an int of at least 1 (a bool or a float is a TypeError)."""
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"{name} must be an int, got {k!r} of type {type(k).__name__}")
    if k < 1:
        raise ValueError(f"{name} must be at least 1, got {k}")
    return k


def check_vector(name: str, value: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return `value` if it is a one-dimensional tensor of `dtype`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {value.dtype}; convert it with .to({dtype})")
    if value.dim() != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(value.shape)}")
    return value


def check_ids(name: str, ids: Tensor, size: int, lowest: int = 0) -> None:
    """Raise unless every id lies in `lowest..size-1`.

    Indexing with an id out of range wraps silently when it is negative and kills the CUDA
    context when it is too large, so ids are compared on the host before they index anything.
    """
    if ids.numel() == 0:
        return
    low, high = (int(x) for x in torch.aminmax(ids))
    if low < lowest or high >= size:
        where = ((ids < lowest) | (ids >= size)).nonzero()[0].tolist()
        raise ValueError(
            f"{name}{where} is {int(ids[tuple(where)])}, outside {lowest}..{size - 1}; "
            "map raw ids to positions first"
        )


def check_pairs(pairs: Pairs, num_rows: int, num_items: int, name: str = "exclude") -> Pairs:
    """Return `pairs` as `(rows, cols)` if both are id vectors of one length and within range."""
    if not isinstance(pairs, tuple) or len(pairs) != 2:
        raise TypeError(f"{name} must be a tuple (rows, cols), got {type(pairs).__name__}")
    rows = check_vector(f"{name} rows", pairs[0])
    cols = check_vector(f"{name} cols", pairs[1])
    if rows.numel() != cols.numel():
        raise ValueError(f"{name} has {rows.numel()} rows but {cols.numel()} cols; they are pairs")
    check_ids(f"{name} rows", rows, num_rows)
    check_ids(f"{name} cols", cols, num_items)
    return rows, cols


class NanScoreError(ValueError):
    """A score is NaN: the model that gave it has diverged."""


def check_scores(scores: Tensor) -> None:
    """Raise unless `scores` is a float32 matrix `[B, N]`, N >= 1, that holds no NaN."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores must be a tensor, got {type(scores).__name__}")
    if scores.dtype != torch.float32:
        raise TypeError(
            f"scores must be torch.float32, got {scores.dtype}; compute the product in float32 "
            "(a cast afterwards keeps the ties that lower precision made)"
        )
    if scores.dim() != 2 or scores.size(1) == 0:
        raise ValueError(f"scores must be [B, N] with N >= 1, got shape {tuple(scores.shape)}")
    # amax hands a NaN on and reads the batch once; isnan() would write a second batch.
    bad = scores.amax(dim=1).isnan()
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        col = int(scores[row].isnan().nonzero()[0])
        raise NanScoreError(
            f"scores[{row}, {col}] is NaN ({int(bad.sum())} of {len(bad)} rows hold one); "
            "a NaN compares false with everything and would rank first"
        )
