from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.metrics import bootstrap_interval, ndcg, paired_bootstrap


def user_figures(count: int, generator: torch.Generator) -> Tensor:
    """Per-user NDCG@10 as models give it: mostly zeros, a heavy tail."""
    ranks = (torch.rand(count, generator=generator, dtype=torch.float64) ** -1.2).long()
    return ndcg(ranks.clamp(min=1), 10)


def test_the_interval_holds_the_mean_and_has_the_width_of_theory() -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.randn(4000, generator=g, dtype=torch.float64) + 3
    low, high = bootstrap_interval(values)
    mean, error = float(values.mean()), float(values.std()) / 4000**0.5
    assert low < mean < high
    assert low == pytest.approx(mean - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.25 * error)


def test_the_interval_is_deterministic_and_leaves_the_global_stream_alone() -> None:
    values = user_figures(300, torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    first = bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) == first
    assert bootstrap_interval(values, seed=5) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_resampling_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = user_figures(300, torch.Generator().manual_seed(1))
    whole = bootstrap_interval(values)
    monkeypatch.setattr("tgrec.metrics.compare._CHUNK", 5000)
    assert bootstrap_interval(values) == whole


def test_a_higher_level_gives_a_wider_interval() -> None:
    values = user_figures(500, torch.Generator().manual_seed(2))
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_constant_values_give_an_interval_of_no_width() -> None:
    assert bootstrap_interval(torch.full((50,), 0.25, dtype=torch.float64)) == (0.25, 0.25)


def test_the_interval_covers_the_truth_in_about_95_of_100_samples() -> None:
    g = torch.Generator().manual_seed(3)
    truth = float(user_figures(2_000_000, g).mean())
    hits = 0
    for simulation in range(400):
        low, high = bootstrap_interval(user_figures(150, g), draws=300, seed=simulation)
        hits += low <= truth <= high
    # 400 draws at .95 have a standard error of .011.
    assert 0.92 <= hits / 400 <= 0.98


def test_the_paired_test_keeps_its_level_under_the_null() -> None:
    g = torch.Generator().manual_seed(4)
    rejected = covered = 0
    for simulation in range(400):
        common = user_figures(120, g)
        swap = torch.rand(120, generator=g) < 0.5
        other = user_figures(120, g)
        a, b = torch.where(swap, common, other), torch.where(swap, other, common)
        test = paired_bootstrap(a, b, draws=300, seed=simulation)
        rejected += test.p_value <= 0.05
        covered += test.low <= 0.0 <= test.high
    assert 0.02 <= rejected / 400 <= 0.085
    assert 0.915 <= covered / 400 <= 0.98


def test_the_paired_test_sees_a_difference_that_unpaired_intervals_hide() -> None:
    g = torch.Generator().manual_seed(5)
    b = user_figures(400, g)
    a = b + 0.01 + 0.02 * torch.rand(400, generator=g, dtype=torch.float64)
    test = paired_bootstrap(a, b)
    assert test.p_value == 1 / 2001
    assert 0.018 < test.low < test.difference < test.high < 0.022
    assert bootstrap_interval(a)[0] < bootstrap_interval(b)[1]  # these overlap


def test_paired_test_by_hand() -> None:
    a = torch.tensor([1.0, 0.5, 0.0, 0.5], dtype=torch.float64)
    b = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    test = paired_bootstrap(a, b)
    assert test.difference == 0.25
    assert test.relative == 1.0
    back = paired_bootstrap(b, a)
    assert (back.difference, back.low, back.high) == (-0.25, -test.high, -test.low)
    assert back.p_value == test.p_value


def test_equal_models_give_p_of_one() -> None:
    a = user_figures(100, torch.Generator().manual_seed(6))
    test = paired_bootstrap(a, a.clone())
    assert (test.difference, test.low, test.high, test.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_baseline_of_zero_has_no_relative_difference() -> None:
    zero = torch.zeros(10, dtype=torch.float64)
    assert paired_bootstrap(zero + 0.5, zero).relative is None


def test_other_users_are_refused() -> None:
    a = torch.zeros(3, dtype=torch.float64)
    ids = torch.tensor([4, 5, 6])
    assert paired_bootstrap(a, a, users=(ids, ids.clone())).p_value == 1.0
    with pytest.raises(ValueError, match="a has 3 users and b 2"):
        paired_bootstrap(a, a[:2])
    with pytest.raises(ValueError, match="users differ from row 1 on"):
        paired_bootstrap(a, a, users=(ids, ids[[0, 2, 1]]))
    with pytest.raises(ValueError, match="3 and 2 ids for 3 values"):
        paired_bootstrap(a, a, users=(ids, ids[:2]))


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (torch.zeros(5), {}, TypeError, "values must be torch.float64"),
        (torch.zeros(1, dtype=torch.float64), {}, ValueError, "needs at least 2"),
        (torch.tensor([0, torch.nan], dtype=torch.float64), {}, ValueError, "values.1. is nan"),
        (torch.zeros(5, dtype=torch.float64), {"level": 1.0}, ValueError, "level must lie"),
        (torch.zeros(5, dtype=torch.float64), {"draws": 0}, ValueError, "draws must be"),
        (torch.zeros(5, dtype=torch.float64), {"draws": 10.0}, TypeError, "draws must be"),
    ],
)
def test_bad_arguments_are_refused(
    values: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bootstrap_interval(values, **options)
