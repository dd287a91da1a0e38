"""Ranking among the items of one domain, by brute force."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, Split, leave_one_out_in
from tgrec.datasets import simulate_domains
from tgrec.models import Popularity, RecModel
from tgrec.sampler import EventIndex, past_items
from tgrec.training import evaluate


class Noise(RecModel):
    """Scores drawn by user and item."""

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.sampling = Sampling(max_len=4)

    def score(self, batch: RecBatch) -> Tensor:
        draw = torch.sin(batch.user.unsqueeze(1) * 12.9 + torch.arange(self.num_items) * 78.2)
        return draw + 3.0 * (torch.arange(self.num_items) >= 30)  # the other domain is in front


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out_in(simulate_domains(num_users=40, num_items=30)[0], "food")


def test_only_candidates_are_ranked(split: Split) -> None:
    model = Noise(60)
    ranks = evaluate(model, split, split.test, sampled=False, batch_size=7).ranks["full"]
    scores = model.score(RecBatch(split.test.user))
    rows, seen = past_items(EventIndex(split.graph), split.test.user, split.test.cut)
    assert split.candidates is not None
    for row, item in enumerate(split.test.item.tolist()):
        met = set(seen[rows == row].tolist())
        others = [i for i in range(60) if split.candidates[i] and i not in met and i != item]
        assert ranks[row] == 1 + sum(bool(scores[row, i] >= scores[row, item]) for i in others)
    everywhere = evaluate(model, replace(split, candidates=None), split.test, sampled=False)
    assert (everywhere.ranks["full"] > ranks).all()


def test_negatives_are_candidates(split: Split) -> None:
    """With as many negatives as items, the sampled rank is the full one."""
    found = evaluate(Noise(60), split, split.test, sampled={"uniform-999": ("uniform", 999)}).ranks
    assert list(found) == ["full", "uniform-999"]
    assert torch.equal(found["full"], found["uniform-999"])
    few = evaluate(Noise(60), split, split.test, sampled={"uniform-5": ("uniform", 5)}).ranks
    assert int(few["uniform-5"].max()) <= 6
    assert (few["uniform-5"] <= few["full"]).all()


def test_a_target_that_is_no_candidate(split: Split) -> None:
    wrong = replace(split.test, item=split.test.item + 30)
    with pytest.raises(ValueError, match="40 items that are no candidates"):
        evaluate(Popularity.from_graph(split.train), split, wrong)
