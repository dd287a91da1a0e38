"""What evaluation refuses, what it leaves as it was, and what it tells the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, Split
from tgrec.models import Popularity, RecModel, SASRec
from tgrec.training import evaluate

ITEMS = 9
Draw = Callable[[int], Split]


def refused(split: Split, scores: Any, error: type[Exception], message: str) -> None:
    class Bad(RecModel):
        sampling = Sampling()

        def score(self, batch: RecBatch) -> Tensor:
            return scores(batch.user.numel())

    model = Bad(ITEMS).train()
    with pytest.raises(error, match=message):
        evaluate(model, split, split.test)
    assert model.training  # put back even so


def test_scores_that_cannot_be_ranked(random_split: Draw) -> None:
    def one_nan(rows: int) -> Tensor:
        scores = torch.zeros(rows, ITEMS)
        scores[rows // 2, 3] = torch.nan
        return scores

    split = random_split(0)
    refused(split, one_nan, ValueError, r"scores\[\d+, 3\] is NaN \(1 of \d+ rows")
    refused(
        split,
        lambda rows: torch.zeros(rows, ITEMS + 1),
        ValueError,
        r"Bad.score returned \[\d+, 10\] for \d+ users and 9 items; was the model made for another",
    )
    refused(split, lambda rows: torch.zeros(1, ITEMS), ValueError, r"Bad.score returned \[1, 9\]")
    refused(
        split, lambda rows: torch.zeros(rows, ITEMS).double(), TypeError, "must be torch.float32"
    )


def test_a_product_that_autocast_rounds_is_made_again(random_split: Draw) -> None:
    class Linear(RecModel):
        sampling = Sampling()

        def __init__(self) -> None:
            super().__init__(ITEMS)
            torch.manual_seed(0)
            self.user = nn.Embedding(12, 8)
            self.out = nn.Linear(8, ITEMS)

        def score(self, batch: RecBatch) -> Tensor:
            return self.out(self.user(batch.user))

    split, model = random_split(0), Linear()
    exact = evaluate(model, split, split.test)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.score(RecBatch(torch.arange(3))).dtype == torch.bfloat16
        rounded = evaluate(model, split, split.test)
    assert torch.equal(exact.ranks["full"], rounded.ranks["full"])


def test_amp_runs_the_model_in_bfloat16_and_the_ranking_in_float32(random_split: Draw) -> None:
    class Precise(SASRec):
        seen: list[bool] = []

        def score(self, batch: RecBatch) -> Tensor:
            self.seen.append(torch.is_autocast_enabled("cpu"))
            return super().score(batch)

    split = random_split(0)
    torch.manual_seed(0)
    model = Precise(ITEMS, d_model=64, n_blocks=2, d_ff=64, max_len=6)
    exact = evaluate(model, split, split.test)
    assert not any(Precise.seen)
    Precise.seen.clear()
    rounded = evaluate(model, split, split.test, amp=True)
    assert all(Precise.seen)
    for name in exact.ranks:
        assert ((exact.ranks[name] - rounded.ranks[name]).abs() <= 1).all()  # close scores swap
    assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):  # what the caller has set stays
        Precise.seen.clear()
        evaluate(model, split, split.test)
        assert all(Precise.seen)


def test_the_model_and_the_gradients_are_left_alone(random_split: Draw) -> None:
    split = random_split(0)
    model = SASRec(ITEMS, d_model=8, n_blocks=1, d_ff=8, max_len=6, dropout=0.5)
    for training in (True, False):
        model.train(training)
        first, second = (evaluate(model, split, split.test) for _ in range(2))
        assert torch.equal(first.ranks["full"], second.ranks["full"])  # no dropout
        assert model.training == training
        assert all(p.grad is None for p in model.parameters())


def test_track_t2_asks_with_the_time_of_the_target(random_split: Draw) -> None:
    class Clock(RecModel):
        sampling = Sampling(max_len=3)
        heard: list[Tensor | None] = []

        def score(self, batch: RecBatch) -> Tensor:
            self.heard.append(batch.query_time)
            return torch.zeros(batch.user.numel(), ITEMS)

    split = random_split(0)
    evaluate(Clock(ITEMS), split, split.test)
    assert Clock.heard == [None]
    evaluate(Clock(ITEMS), split, split.test, track="T2")
    heard = Clock.heard[-1]
    assert heard is not None
    assert split.test.time is not None
    assert sorted(heard[:, -1].tolist()) == sorted(split.test.time.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_the_same_on_a_gpu(random_split: Draw) -> None:
    split = random_split(6)
    model = Popularity.from_graph(split.train)
    here = evaluate(model, split, split.test)
    there = evaluate(model.cuda(), split, split.test, device="cuda")
    for name in here.ranks:
        assert torch.equal(here.ranks[name], there.ranks[name])
