"""Which metrics can belong to one ranking: arithmetic that exposes impossible tables.

With one relevant item per user every metric is a linear function of the histogram of ranks. Given
HR@k and MRR, NDCG@k can only lie in the interval that a linear programme over the ranks 1..k
yields; a published table outside it was not measured. (A seed document of this project printed
HR@10 .949, MRR .489, NDCG@10 .767, where [.586, .609] is possible.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from tgrec.metrics._check import check_k

Interval = tuple[float, float]

_KEY = re.compile(r"(HR|NDCG|MRR)@([1-9]\d*)")
_ROUNDING = 1e-12  # a quotient of two exact means may leave its interval by this much


def feasible_ndcg(hr: float, mrr: float, k: int, cut: bool = True) -> Interval:
    """The NDCG@k that some ranking with this HR@k and MRR can have.

    Args:
        hr: HR@k.
        mrr: MRR@k (0 beyond place k) or, with `cut=False`, MRR without a cutoff.
        k: cutoff, at least 1.
        cut: whether `mrr` counts the first k places only.

    Returns:
        `(low, high)`, both attained (with `cut=False` in the limit of ranks far beyond k).

    Raises:
        TypeError: `k` is not an int.
        ValueError: a figure lies outside [0, 1], or no ranking has this HR@k with this MRR.
    """
    check_k(k)
    _check_unit("hr", hr)
    _check_unit("mrr", mrr)
    least = mrr if cut else mrr - (1.0 - hr) / (k + 1)
    least, most = max(least, hr / k), min(mrr, hr)
    if least > most + _ROUNDING:
        raise ValueError(f"no ranking has HR@{k} = {hr} with MRR = {mrr}")
    x, y = _reciprocals(1, k), _discounts(1, k)
    # Both ends rise with the part of the MRR that the first k places carry.
    return _extremes(x, y, hr, least)[0], _extremes(x, y, hr, most)[1]


def feasible_mrr(hr: float, ndcg: float, k: int, cut: bool = True) -> Interval:
    """The MRR that some ranking with this HR@k and NDCG@k can have.

    Args:
        hr: HR@k.
        ndcg: NDCG@k.
        k: cutoff, at least 1.
        cut: whether the MRR counts the first k places only; without the cutoff the users beyond
            place k add between 0 and `(1 - hr) / (k + 1)`.

    Returns:
        `(low, high)`.

    Raises:
        TypeError: `k` is not an int.
        ValueError: a figure lies outside [0, 1], or no ranking has this HR@k with this NDCG@k.
    """
    check_k(k)
    _check_unit("hr", hr)
    _check_unit("ndcg", ndcg)
    if not hr / math.log2(k + 1) - _ROUNDING <= ndcg <= hr + _ROUNDING:
        raise ValueError(f"no ranking has HR@{k} = {hr} with NDCG@{k} = {ndcg}")
    low, high = _extremes(_discounts(1, k), _reciprocals(1, k), hr, ndcg)
    return low, high if cut else high + (1.0 - hr) / (k + 1)


def check_consistent(metrics: Mapping[str, float], tolerance: float = 1e-9) -> None:
    """Raise if no vector of ranks can have these metrics.

    Checked: every figure lies in [0, 1]; HR, NDCG and MRR at a cutoff never fall as the cutoff
    rises; MRR@k <= NDCG@k <= HR@k; between two cutoffs, the growth of NDCG fits the growth of
    HR; for each k, NDCG@k fits HR@k and the MRR (`feasible_ndcg`); and the MRR fits all HR and
    NDCG together. Keys: `HR@k`, `NDCG@k`, `MRR@k`, and `MRR` without a cutoff; other keys are
    left alone.

    Args:
        metrics: means over users by name.
        tolerance: slack on every comparison; for a table rounded to four digits use 5e-4.

    Raises:
        ValueError: names the figures that exclude each other.
    """
    tables: dict[str, dict[int, float]] = {"HR": {}, "NDCG": {}, "MRR": {}}
    for key, value in metrics.items():
        match = _KEY.fullmatch(key)
        if match or key == "MRR":
            _check_unit(key, value)
        if match:
            tables[match[1]][int(match[2])] = value
    hr, ndcg, mrr_cut = ({k: t[k] for k in sorted(t)} for t in tables.values())
    _check_monotone("HR", hr, tolerance)
    _check_monotone("NDCG", ndcg, tolerance)
    _check_monotone("MRR", mrr_cut, tolerance)
    for k in ndcg.keys() & mrr_cut.keys():
        _require(mrr_cut[k] <= ndcg[k] + tolerance, f"MRR@{k}", mrr_cut[k], f"NDCG@{k}", ndcg[k])
    for k in hr.keys() & mrr_cut.keys():
        _check_pair(hr[k], mrr_cut[k], ndcg.get(k), k, True, tolerance)
    if "MRR" in metrics:
        for k, value in mrr_cut.items():
            _require(value <= metrics["MRR"] + tolerance, f"MRR@{k}", value, "MRR", metrics["MRR"])
        for k in hr:
            _check_pair(hr[k], metrics["MRR"], ndcg.get(k), k, False, tolerance)
    _check_blocks(hr, ndcg, metrics.get("MRR"), tolerance)


def _check_pair(
    hr: float, mrr: float, ndcg: float | None, k: int, cut: bool, tolerance: float
) -> None:
    """HR@k, MRR and NDCG@k against each other; figures off by `tolerance` are moved inside."""
    name = f"MRR@{k}" if cut else "MRR"
    beyond = 0.0 if cut else (1.0 - hr) / (k + 1)
    low, high = hr / k, hr + beyond
    if not low - tolerance <= mrr <= high + tolerance:
        raise ValueError(
            f"HR@{k} = {hr:.6g} allows {name} in [{low:.6g}, {high:.6g}], not {mrr:.6g}: "
            "no ranking has both"
        )
    if ndcg is None:
        return
    low, high = feasible_ndcg(hr, min(max(mrr, low), high), k, cut)
    if not low - tolerance <= ndcg <= high + tolerance:
        raise ValueError(
            f"HR@{k} = {hr:.6g} and {name} = {mrr:.6g} allow NDCG@{k} in "
            f"[{low:.6g}, {high:.6g}], not {ndcg:.6g}: no ranking has all three"
        )


def _check_blocks(
    hr: dict[int, float], ndcg: dict[int, float], mrr: float | None, tolerance: float
) -> None:
    """The joint check: between two cutoffs the growth of HR is mass on the ranks in between.

    Blocks of ranks share no rank, so the extremes of their contributions to the MRR add up.
    """
    ndcg = {1: hr[1], **ndcg} if 1 in hr else ndcg  # NDCG@1 is HR@1
    cutoffs = sorted(hr.keys() & ndcg.keys())
    low = high = mass = gain = 0.0
    before = 0
    for k in cutoffs:
        added, grown = hr[k] - mass, ndcg[k] - gain
        least, most = added / math.log2(k + 1), added / math.log2(before + 2)
        if not least - tolerance <= grown <= most + tolerance:
            start = f" beyond HR@{before}, NDCG@{before}" if before else ""
            raise ValueError(
                f"HR@{k} = {hr[k]:.6g} and NDCG@{k} = {ndcg[k]:.6g}{start}: {added:.6g} of the "
                f"users on ranks {before + 1}..{k} give NDCG in [{least:.6g}, {most:.6g}], "
                f"not {grown:.6g}"
            )
        x, y = _discounts(before + 1, k), _reciprocals(before + 1, k)
        ends = _extremes(x, y, max(added, 0.0), min(max(grown, least), most))
        low, high = low + ends[0], high + ends[1]
        before, mass, gain = k, hr[k], ndcg[k]
    high += (1.0 - mass) / (before + 1)
    if mrr is not None and cutoffs and not low - tolerance <= mrr <= high + tolerance:
        names = ", ".join(f"HR@{k}, NDCG@{k}" for k in cutoffs)
        raise ValueError(
            f"{names} together allow MRR in [{low:.6g}, {high:.6g}], not {mrr:.6g}: "
            "no ranking has all of them"
        )


def _check_monotone(name: str, values: dict[int, float], tolerance: float) -> None:
    for (k, value), (later, larger) in pairwise(values.items()):
        _require(value <= larger + tolerance, f"{name}@{k}", value, f"{name}@{later}", larger)


def _require(holds: bool, name: str, value: float, other: str, bound: float) -> None:
    if not holds:
        raise ValueError(
            f"{name} = {value:.6g} is larger than {other} = {bound:.6g}: no ranking has both"
        )


def _extremes(x: Sequence[float], y: Sequence[float], mass: float, total: float) -> Interval:
    """Least and greatest `sum p_i y_i` over `p >= 0` with `sum p_i = mass`, `sum p_i x_i = total`.

    A linear programme with two equalities has its extremes at points with at most two positive
    `p_i`, so the pairs of ranks are all there is to try; `x` must be strictly decreasing.
    """
    if mass <= 0.0:
        return 0.0, 0.0
    mean = min(max(total / mass, x[-1]), x[0])
    low, high = math.inf, -math.inf
    for i in range(len(x)):
        for j in range(i, len(x)):
            if not x[j] <= mean <= x[i]:
                continue
            share = (mean - x[j]) / (x[i] - x[j]) if i != j else 1.0
            value = share * y[i] + (1.0 - share) * y[j]
            low, high = min(low, value), max(high, value)
    return mass * low, mass * high


def _reciprocals(first: int, last: int) -> list[float]:
    return [1.0 / rank for rank in range(first, last + 1)]


def _discounts(first: int, last: int) -> list[float]:
    return [1.0 / math.log2(rank + 1) for rank in range(first, last + 1)]


def _check_unit(name: str, value: float) -> None:
    # Written so that NaN fails too.
    if not -_ROUNDING <= value <= 1.0 + _ROUNDING:
        raise ValueError(f"{name} is {value}, outside [0, 1]")
