"""Errors of ratings by hand, and the bias model at its optimum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, leave_one_out
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, toy_graph
from tgrec.training import bias_model, rating_rmse


class Always:
    """Foretells one number for each item."""

    sampling = Sampling(max_len=4, rating=True)

    def __init__(self, table: list[float]) -> None:
        self.table = torch.tensor(table, dtype=torch.float32)

    def rate(self, batch: RecBatch, item: Tensor) -> Tensor:
        assert batch.rating is None  # the answer is not in a question
        return self.table[item]


def test_errors_by_hand() -> None:
    split = leave_one_out(toy_graph())
    # Last events: ann jam 5, bob rye 4, cat ham 4 (dan has one event only).
    found = rating_rmse(Always([0, 3, 5, 2, 0]), split, split.test)
    assert found["targets"] == 3
    assert found["model"] == pytest.approx(((0 + 2**2 + 1) / 3) ** 0.5)
    rating = EventIndex(split.train).rating
    assert rating is not None
    mean = float(rating.mean())
    assert found["mean"] == pytest.approx((((5 - mean) ** 2 + 2 * (4 - mean) ** 2) / 3) ** 0.5)


def test_the_bias_model_stands_where_its_gradient_is_zero() -> None:
    graph, reg = toy_graph(), 2.0
    mean, user, item = bias_model(graph, reg, rounds=200)
    index = EventIndex(graph)
    assert index.rating is not None
    left = index.rating.double() - mean - user[index.user] - item[index.item]
    for bias, node in ((user, index.user), (item, index.item)):
        slope = torch.zeros_like(bias).index_add_(0, node, left) - reg * bias
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)


def test_without_ratings() -> None:
    split = leave_one_out(noise_graph())
    with pytest.raises(ValueError, match="no target has a rating"):
        rating_rmse(Always([1.0] * 12), split, split.test)
    with pytest.raises(ValueError, match="'graph' has no ratings"):
        bias_model(split.train)
