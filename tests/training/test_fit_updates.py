"""The update: gradients, clipping, weight decay and the learning rate, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, Split, leave_one_out
from tgrec.models import RecModel
from tgrec.testing import block_graph
from tgrec.training import TrainSettings, fit
from tgrec.training import fit as fit_function

Make = Callable[..., Any]
module = __import__(fit_function.__module__, fromlist=["fit"])


def step_of(model: RecModel, split: Split, **settings: Any) -> Tensor:
    """All parameters' change in one epoch, flat."""
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    fit(model, split, epochs=1, precision="fp32", show=False, **settings)
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "tgt_bert4rec"])
def test_two_half_batches_make_the_gradient_of_one(name: str, make: Make) -> None:
    split = leave_one_out(block_graph())  # histories of one length: halves of one weight
    kwargs = {"dropout": 0.0, **({} if name == "sasrec" else {"mask_prob": 0.0})}
    whole = step_of(make(split, name, **kwargs), split, batch_size=48, clip=0.0)
    halves = step_of(make(split, name, **kwargs), split, batch_size=24, clip=0.0, accumulate=2)
    assert whole.norm() > 1e-2
    torch.testing.assert_close(halves, whole, atol=1e-6, rtol=1e-5)
    apart = step_of(make(split, name, **kwargs), split, batch_size=24, clip=0.0)
    assert (apart - whole).norm() > 0.1 * whole.norm()


@pytest.mark.usefixtures("plain_descent")
def test_clipping_shortens_the_gradient_and_keeps_its_direction(make: Make, split: Split) -> None:
    free = step_of(make(split, dropout=0.0), split, batch_size=48, clip=0.0)
    clipped = step_of(make(split, dropout=0.0), split, batch_size=48, clip=0.01)
    wide = step_of(make(split, dropout=0.0), split, batch_size=48, clip=1e3)
    assert free.norm() > 0.02
    assert clipped.norm() == pytest.approx(0.01, rel=1e-4)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wide, free)


class Still(RecModel):
    """A matrix and a vector that the loss does not move."""

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.sampling = Sampling()
        self.matrix, self.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

    def score(self, batch: RecBatch) -> Tensor:
        return torch.zeros(batch.user.numel(), self.num_items)

    def loss(self, batch: RecBatch) -> Tensor:
        return (self.matrix.sum() + self.vector.sum()) * 0.0


def test_weight_decay_shrinks_matrices_only(split: Split) -> None:
    model = Still.from_graph(split.train)
    result = fit(model, split, epochs=1, batch_size=10**6, lr=0.1, weight_decay=0.5, show=False)
    assert result.history[0]["loss"] == 0.0
    torch.testing.assert_close(model.matrix.detach(), torch.full((2, 2), 1 - 0.1 * 0.5))
    assert torch.equal(model.vector.detach(), torch.ones(2))
    fit(model, split, epochs=1, batch_size=10**6, lr=0.1, show=False)
    torch.testing.assert_close(model.matrix.detach(), torch.full((2, 2), 0.95))


def test_the_learning_rate_follows_its_formula_step_by_step(
    make: Make, split: Split, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = replace(settings, lr=1.0, warmup_steps=4, lr_decay="cosine", accumulate=2)
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watching(self: Any, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        assert len({group["lr"] for group in self.param_groups}) == 1
        for group in self.param_groups:
            group["lr"] *= 0.01
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watching)
    fit(make(split), split, falling, show=False)
    # Three batches an epoch, updates after the second and the third.
    assert rates == pytest.approx([falling.lr_at(s, 9) for s in (1, 2, 4, 5, 7, 8)])
    assert rates[:2] == pytest.approx([0.5, 0.75])
