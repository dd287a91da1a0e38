"""What says that it can be captured in a CUDA graph is held to it, without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import RecBatch, leave_one_out
from tgrec.models import HSTU, MODELS, BERT4Rec, GRU4Rec, RecModel, SASRec, TGTBERT4Rec
from tgrec.nn import transition
from tgrec.testing import ModelCheckError, noise_graph
from tgrec.testing.static_step import HostReadError, check_static_step, watched

SPLIT = leave_one_out(noise_graph())
# As in benchmarks/golden.py, only smaller.
GOLDEN: dict[str, Any] = {
    "n_blocks": 1, "tgt_blocks": 2, "tgt_gated": True, "temperature": 0.07, "fusion_alpha": 0.1,
    "learnable_fusion": False, "positions": "relative", "time_vectors": True,
}  # fmt: skip


def model_of(cls: type[RecModel], **kwargs: Any) -> RecModel:
    torch.manual_seed(0)
    return cls.from_graph(SPLIT.train, **{"max_len": 16, "d_model": 16, **kwargs})


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (SASRec, {}),
        (SASRec, {"positions": "relative"}),
        (BERT4Rec, {}),
        (BERT4Rec, {"mask_prob": 1.0, "last_prob": 0.0}),
        (BERT4Rec, {"mask_prob": 0.0}),
        (HSTU, {"n_blocks": 2}),
        (GRU4Rec, {}),
        (TGTBERT4Rec, {}),
        (TGTBERT4Rec, GOLDEN),
        (TGTBERT4Rec, {"use_time": False}),
        (TGTBERT4Rec, {"fusion_alpha": 0.0}),
    ],
)
def test_a_step_reads_nothing_back_and_is_the_same_one(
    cls: type[RecModel], kwargs: dict[str, Any]
) -> None:
    model = model_of(cls, **kwargs)
    assert model.has_static_step
    check_static_step(cls.__name__, model, SPLIT)


def test_who_says_so() -> None:
    says = {name for name, cls in MODELS.items() if cls(60).has_static_step}
    assert says == {"sasrec", "bert4rec", "hstu", "gru4rec", "tgt_bert4rec"}

    class Other(SASRec):
        pass

    assert not model_of(Other).has_static_step


def test_counts_that_are_read_one_by_one_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(TGTBERT4Rec)
    monkeypatch.setattr(transition, "DENSE_BYTES", 0)
    assert not model.has_static_step
    assert model_of(TGTBERT4Rec, fusion_alpha=1.0).has_static_step
    assert model_of(TGTBERT4Rec, use_graph=False).has_static_step


# ---- planted bugs -----------------------------------------------------------------------------


class Rows(SASRec):
    static_step = True

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        assert batch.history is not None
        lost = self.next_states(batch)[batch.history.mask].square().sum().view(1)
        return lost, batch.history.mask.sum().float().view(1)


class ReadsBack(SASRec):
    static_step = True

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        sums, counts = super().loss_terms(batch)
        return (sums * 2 if float(sums.detach()) > 0 else sums), counts


class ReadsBackInTraining(SASRec):
    static_step = True

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        sums, counts = super().loss_terms(batch)
        return (sums * 2 if self.training and float(sums.detach()) > 0 else sums), counts


class HandsIn(SASRec):
    static_step = True

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        sums, counts = super().loss_terms(batch)
        return sums * torch.tensor([1.0]), counts


class Grows(SASRec):
    static_step = True

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        sums, counts = super().loss_terms(batch)
        self.calls = getattr(self, "calls", 0) + 1
        return sums + self.item.new_zeros(self.calls).sum(), counts


class ForgetsPadding(SASRec):
    static_step = True

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        sums, counts = super().loss_terms(batch)
        assert batch.history is not None
        if batch.history.mask.is_cuda:
            return sums, counts * 0 + float(batch.history.mask.numel())
        return sums, counts


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Rows, "HostReadError: aten::(nonzero|index)"),
        (ReadsBack, "HostReadError: aten::_local_scalar_dense"),
        (ReadsBackInTraining, "HostReadError: aten::_local_scalar_dense"),
        (HandsIn, "HostReadError: tensor stops the host"),
        (Grows, "depends on values"),
        (ForgetsPadding, "another one on CUDA"),
    ],
)
def test_a_planted_bug_is_found(cls: type[RecModel], said: str) -> None:
    with pytest.raises(ModelCheckError, match=said):
        check_static_step(cls.__name__, model_of(cls), SPLIT)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x[x > 0],
        lambda x: x.clone().index_put_((x > 0,), x.new_zeros(2)),
        lambda x: x.nonzero(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.unique(),
        lambda x: torch.repeat_interleave(x.long()),
        lambda x: torch.bincount(x.long()),
        lambda x: x.cpu(),
        lambda x: x.cuda(),
        lambda x: x.new_tensor([1.0]),
        lambda x: x.bernoulli(generator=torch.Generator()),
    ],
)
def test_what_stops_the_host_is_seen(work: Any) -> None:
    with pytest.raises(HostReadError):
        watched(lambda: work(torch.tensor([1.0, 2.0])[:]))
    assert not torch.ones(1).is_cuda


def test_what_does_not_is_let_through() -> None:
    x = torch.arange(6.0)
    out, seen = watched(lambda: F.dropout(x[x.long()].where(x > 0, 0).cumsum(0), 0.5))
    assert out.shape == (6,)
    assert ("aten::cumsum", (torch.Size([6]),)) in seen
