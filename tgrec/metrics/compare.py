"""Uncertainty over users: bootstrap intervals, and the paired test of two models.

Both treat the users as the sample (Efron and Tibshirani 1993); the spread over training seeds is
another matter and stands beside it in the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tgrec.metrics._check import check_k, check_vector

_CHUNK = 1 << 21  # resampled values held at a time


@dataclass(frozen=True)
class PairedTest:
    """Outcome of `paired_bootstrap` for the means of `a` and `b` over the same users.

    Attributes:
        difference: mean of a - mean of b.
        relative: difference / mean of b, or None where the mean of b is 0.
        low: lower end of the interval of the difference.
        high: upper end of the interval of the difference.
        p_value: two-sided, for the hypothesis that the true difference is 0.
    """

    difference: float
    relative: float | None
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    values: Tensor, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users.

    Args:
        values: float64 `[n]`, one figure a user, n >= 2.
        level: coverage, inside (0, 1).
        draws: number of resamples.
        seed: of the resampling; the same arguments give the same interval.

    Returns:
        `(low, high)`.

    Raises:
        TypeError: `values` is not float64, or `draws` not an int.
        ValueError: fewer than 2 users, a value that is not finite, or `level` outside (0, 1).
    """
    means = _resampled_means(_check_values("values", values), draws, seed)
    return _interval(means, level)


def paired_bootstrap(
    a: Tensor,
    b: Tensor,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    users: tuple[Tensor, Tensor] | None = None,
) -> PairedTest:
    """Test whether `a` and `b` differ in their mean, resampling users.

    The interval is the percentile interval of the mean of `a - b`. The p-value moves the
    resampled means to the null hypothesis: `p = (1 + #{|mean* - mean| >= |mean|}) / (draws + 1)`,
    so it is never 0 and its resolution is `1 / (draws + 1)`.

    Args:
        a: float64 `[n]`, a figure a user of the one model.
        b: float64 `[n]`, of the other model, the same users in the same order.
        level: coverage of the interval, inside (0, 1).
        draws: number of resamples.
        seed: of the resampling.
        users: the user ids of `a` and of `b`, compared if given (equal lengths alone do not
            prove that the rows belong together).

    Raises:
        TypeError: values are not float64, user ids not int64, or `draws` not an int.
        ValueError: lengths or users differ, fewer than 2 users, or a value is not finite.
    """
    _check_values("a", a)
    _check_values("b", b)
    if a.numel() != b.numel():
        raise ValueError(
            f"a has {a.numel()} users and b {b.numel()}; a paired test needs the same users"
        )
    if users is not None:
        _check_users(users, a.numel())
    gap = a.cpu() - b.cpu()
    difference = float(gap.mean())
    base = float(b.mean())
    means = _resampled_means(gap, draws, seed)
    low, high = _interval(means, level)
    # Differences of hits are multiples of 1/n: rounding must not decide whether two are equal.
    extreme = int(((means - difference).abs() >= abs(difference) * (1.0 - 1e-9)).sum())
    return PairedTest(
        difference=difference,
        relative=difference / base if base != 0.0 else None,
        low=low,
        high=high,
        p_value=(1 + extreme) / (draws + 1),
    )


def _check_values(name: str, values: Tensor) -> Tensor:
    check_vector(name, values, torch.float64)
    if values.numel() < 2:
        raise ValueError(f"{name} has {values.numel()} users; an interval needs at least 2")
    if not bool(values.isfinite().all()):
        row = int((~values.isfinite()).nonzero()[0])
        raise ValueError(f"{name}[{row}] is {float(values[row])}; values must be finite")
    return values


def _check_users(users: tuple[Tensor, Tensor], count: int) -> None:
    first, second = (check_vector(f"users[{i}]", users[i]).cpu() for i in range(2))
    if first.numel() != count or second.numel() != count:
        raise ValueError(
            f"users have {first.numel()} and {second.numel()} ids for {count} values each"
        )
    if not torch.equal(first, second):
        row = int((first != second).nonzero()[0])
        raise ValueError(
            f"users differ from row {row} on ({int(first[row])} and {int(second[row])}); "
            "a paired test needs the same users in the same order"
        )


def _interval(means: Tensor, level: float) -> tuple[float, float]:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie inside (0, 1), got {level}")
    tail = (1.0 - level) / 2.0
    ends = torch.quantile(means, torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def _resampled_means(values: Tensor, draws: int, seed: int) -> Tensor:
    """Means of `draws` resamples with replacement, float64 `[draws]`, on the CPU."""
    check_k(draws, "draws")
    # On the CPU whatever the device: its random stream is then the same everywhere.
    values = values.cpu()
    return torch.cat([values[rows].mean(dim=1) for rows in _resamples(len(values), draws, seed)])


def _resamples(count: int, draws: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _CHUNK // count)
    for first in range(0, draws, step):
        size = (min(step, draws - first), count)
        yield torch.randint(count, size, generator=generator)
