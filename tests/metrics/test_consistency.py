from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.metrics import (
    check_consistent,
    feasible_mrr,
    feasible_ndcg,
    hit_ratio,
    mrr,
    ndcg,
    summarize,
)

# A seed document's table: HR@10, MRR, NDCG@10, and what a linear programme over the histograms of
# ranks 1..10, solved elsewhere, allows for NDCG@10 and for MRR@10.
SEED_TABLE = {
    "SASRec": (0.941, 0.458, 0.716, (0.559, 0.584), (0.636, 0.656)),
    "BERT4Rec": (0.949, 0.489, 0.767, (0.586, 0.609), (0.702, 0.719)),
    "BERT hybrid": (0.951, 0.491, 0.769, (0.588, 0.611), (0.704, 0.721)),
    "TCN": (0.953, 0.494, 0.774, (0.590, 0.614), (0.710, 0.726)),
    "TGT target": (0.96, 0.52, 0.82, (0.612, 0.635), (0.770, 0.783)),
}
# Measured figures of the same seed's result files, rounded to four digits.
COLUMNS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "MRR@10", "HR@20", "NDCG@20")
MEASURED = {
    "bert_hybrid_fixed": (0.0852, 0.0524, 0.1485, 0.0727, 0.0499, 0.2511, 0.0984),
    "tgt_bert4rec": (0.0820, 0.0477, 0.1480, 0.0689, 0.0452, 0.2444, 0.0930),
    "bert_hybrid_discrete": (0.0832, 0.0492, 0.1427, 0.0682, 0.0459, 0.2317, 0.0905),
    "tcn_bert4rec": (0.0754, 0.0449, 0.1385, 0.0652, 0.0433, 0.2325, 0.0888),
    "bert4rec": (0.0757, 0.0453, 0.1374, 0.0652, 0.0437, 0.2274, 0.0879),
    "caser": (0.0684, 0.0397, 0.1260, 0.0581, 0.0379, 0.2135, 0.0801),
    "sasrec": (0.0515, 0.0298, 0.0979, 0.0446, 0.0287, 0.1767, 0.0643),
    "gru4rec": (0.0365, 0.0214, 0.0708, 0.0324, 0.0210, 0.1173, 0.0440),
    "lightgcn": (0.0121, 0.0065, 0.0247, 0.0106, 0.0064, 0.0467, 0.0161),
}
ranks_of_users = st.lists(
    st.one_of(st.integers(1, 3), st.integers(1, 22), st.integers(1, 4000)),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize("name", SEED_TABLE)
@pytest.mark.parametrize("key", ["MRR", "MRR@10"])
def test_every_row_of_the_seeds_table_is_impossible(name: str, key: str) -> None:
    hr, mrr_value, ndcg_value, _, _ = SEED_TABLE[name]
    row = {"HR@10": hr, "NDCG@10": ndcg_value, key: mrr_value}
    with pytest.raises(ValueError, match=r"HR@10 .* allow NDCG@10 in \[0\.(5|6)"):
        check_consistent(row, tolerance=5e-4)


@pytest.mark.parametrize("name", SEED_TABLE)
def test_the_intervals_are_those_of_the_linear_programme(name: str) -> None:
    hr, mrr_value, ndcg_value, allowed_ndcg, allowed_mrr = SEED_TABLE[name]
    assert feasible_ndcg(hr, mrr_value, 10) == pytest.approx(allowed_ndcg, abs=1e-3)
    assert feasible_mrr(hr, ndcg_value, 10) == pytest.approx(allowed_mrr, abs=1e-3)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_figures_pass(name: str) -> None:
    check_consistent(dict(zip(COLUMNS, MEASURED[name], strict=True)), tolerance=5e-4)


def test_the_measured_interval_of_the_reference() -> None:
    low, high = feasible_ndcg(0.1480, 0.0452, 10)
    assert (low, high) == pytest.approx((0.0668, 0.0706), abs=1e-4)


@settings(max_examples=800, deadline=None)
@given(ranks_of_users)
def test_no_true_ranking_is_refused(ranks: list[int]) -> None:
    vector = torch.tensor(ranks)
    metrics = summarize(vector)
    check_consistent(metrics)
    cut = {f"MRR@{k}": float((mrr(vector) * hit_ratio(vector, k)).mean()) for k in (1, 5, 10, 20)}
    check_consistent({**metrics, **cut})
    check_consistent({**metrics, "users": 6040, "P@5": 7.0})
    for dropped in metrics:
        check_consistent({key: value for key, value in metrics.items() if key != dropped})


@settings(max_examples=400, deadline=None)
@given(ranks_of_users, st.sampled_from([1, 2, 5, 10, 20]))
def test_the_feasible_intervals_hold_the_truth(ranks: list[int], k: int) -> None:
    vector = torch.tensor(ranks)
    hr, gain = float(hit_ratio(vector, k).mean()), float(ndcg(vector, k).mean())
    whole, cut = float(mrr(vector).mean()), float((mrr(vector) * hit_ratio(vector, k)).mean())
    for value, is_cut in ((cut, True), (whole, False)):
        low, high = feasible_ndcg(hr, value, k, cut=is_cut)
        assert low - 1e-12 <= gain <= high + 1e-12
        low, high = feasible_mrr(hr, gain, k, cut=is_cut)
        assert low - 1e-12 <= value <= high + 1e-12


@pytest.mark.parametrize("k", [3, 10])
def test_the_ends_are_attained_and_never_passed(k: int) -> None:
    """Many random histograms with one HR and MRR approach both ends and pass neither."""
    g = torch.Generator().manual_seed(k)
    x = 1.0 / torch.arange(1, k + 1, dtype=torch.float64)
    y = 1.0 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    mean = 0.42
    # Mixtures of one histogram above and one below the mean of x, weighted to meet it.
    three = torch.rand(40_000, k, generator=g, dtype=torch.float64) ** 12
    three = three / three.sum(dim=1, keepdim=True)
    at, value = three @ x, three @ y
    upper, lower = at > mean, at < mean
    count = int(min(upper.sum(), lower.sum()))
    ua, ub = at[upper][:count], value[upper][:count]
    la, lb = at[lower][:count], value[lower][:count]
    share = (mean - la) / (ua - la)
    reached = share * ub + (1 - share) * lb
    low, high = feasible_ndcg(1.0, mean, k)
    assert low - 1e-12 <= float(reached.min()) < low + 0.005
    assert high - 0.005 < float(reached.max()) <= high + 1e-12


def test_intervals_by_hand() -> None:
    # Half of the users at rank 1 and half at rank 2 is the only way to MRR@2 = 3/4 with HR@2 = 1.
    exact = 0.5 + 0.5 / math.log2(3)
    assert feasible_ndcg(1.0, 0.75, 2) == pytest.approx((exact, exact), abs=1e-12)
    assert feasible_mrr(1.0, exact, 2) == pytest.approx((0.75, 0.75), abs=1e-12)
    assert feasible_ndcg(0.0, 0.0, 10) == (0.0, 0.0)
    assert feasible_ndcg(0.3, 0.3, 1) == (0.3, 0.3)
    # Without a cutoff, MRR .1 with no hit in ten places is possible up to 1/11, so not at all.
    with pytest.raises(ValueError, match="no ranking has HR@10 = 0.0 with MRR = 0.1"):
        feasible_ndcg(0.0, 0.1, 10, cut=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"HR@5": 0.9}, "HR@5 = 0.9 is larger than HR@10"),
        ({"NDCG@5": 0.9}, "NDCG@5 = 0.9 is larger than NDCG@10"),
        ({"NDCG@10": 0.51, "NDCG@20": 0.52}, "HR@10 = 0.5 "),
        ({"MRR": 0.6}, r"HR@1 = 0.2 allows MRR in \[0.2, 0.6\], not 0.6|no ranking"),
        ({"MRR": 0.19}, "HR@1 = 0.2 allows MRR in"),
        ({"MRR": 0.45}, "allow"),
        ({"HR@10": 1.2}, "HR@10 is 1.2, outside"),
        ({"NDCG@10": -0.1}, "NDCG@10 is -0.1, outside"),
        ({"MRR": math.nan}, "MRR is nan, outside"),
        ({"MRR@10": 0.4}, "MRR@10 = 0.4 is larger than NDCG@10"),
    ],
)
def test_impossible_changes_are_named(changes: dict[str, Any], message: str) -> None:
    ranks = [1, 1, 4, 7, 9, 15, 30, 60, 80, 100]
    metrics = summarize(torch.tensor(ranks))
    assert metrics["HR@10"] == 0.5
    with pytest.raises(ValueError, match=message):
        check_consistent({**metrics, **changes})


def test_the_joint_check_is_stricter_than_each_pair() -> None:
    """All of the mass at ranks 5 and 20 fixes the MRR, though each cutoff alone leaves it open."""
    metrics = summarize(torch.tensor([5] * 30 + [20] * 70))
    off = {**metrics, "MRR": metrics["MRR"] + 0.012}
    for k in (5, 10, 20):
        check_consistent({key: off[key] for key in (f"HR@{k}", f"NDCG@{k}", "MRR")})
    with pytest.raises(ValueError, match="together allow MRR in"):
        check_consistent(off)


def test_the_growth_between_two_cutoffs_is_checked() -> None:
    """A tenth of the users on ranks 11..20 can add at most .1 / log2(12) = .0279 to the NDCG."""
    metrics = {"HR@10": 0.5, "NDCG@10": 0.3, "HR@20": 0.6, "NDCG@20": 0.3278}
    check_consistent(metrics)
    with pytest.raises(ValueError, match="beyond HR@10, NDCG@10: 0.1 of the users on ranks 11..20"):
        check_consistent({**metrics, "NDCG@20": 0.33})
    with pytest.raises(ValueError, match="not 0.02"):
        check_consistent({**metrics, "NDCG@20": 0.32})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_figures_outside_the_unit_interval_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="hr is"):
        feasible_ndcg(value, 0.1, 10)
    with pytest.raises(ValueError, match="ndcg is"):
        feasible_mrr(0.5, value, 10)


def test_impossible_inputs_and_cutoffs_are_refused() -> None:
    with pytest.raises(ValueError, match="no ranking has HR@10 = 0.5 with MRR = 0.6"):
        feasible_ndcg(0.5, 0.6, 10)
    with pytest.raises(ValueError, match="no ranking has HR@10 = 0.5 with MRR = 0.04"):
        feasible_ndcg(0.5, 0.04, 10)
    with pytest.raises(ValueError, match="no ranking has HR@10 = 0.5 with NDCG@10 = 0.6"):
        feasible_mrr(0.5, 0.6, 10)
    with pytest.raises(ValueError, match="k must be at least 1"):
        feasible_mrr(0.5, 0.4, 0)
