"""check_model passes every model, and fails every planted bug with a message that names it."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, Targets, TemporalRecGraph
from tgrec.loader import SeedLoader, query_times
from tgrec.models import (
    MODELS,
    GapMarkov,
    Popularity,
    RecModel,
    SASRec,
    SkipMarkov,
    TGTBERT4Rec,
)
from tgrec.testing import ModelCheckError, check_model, checks


@pytest.mark.parametrize("name", MODELS)
def test_every_model_passes(name: str) -> None:
    check_model(MODELS[name])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"fusion_alpha": 0.0},
        {"fusion_alpha": 1.0},
        {"learnable_fusion": False},
        {"use_time": False},
        {"use_graph": False},
        {"tgt_gated": True, "time_vectors": True, "positions": "relative"},
    ],
    ids=str,
)
def test_every_ablation_of_tgt_bert4rec_passes(kwargs: dict[str, Any]) -> None:
    check_model(TGTBERT4Rec, **kwargs)


class LastItem(RecModel):
    """A model of one file as a user would write it: it overrides only ``loss``."""

    rated = False

    def __init__(self, num_items: int, max_len: int = 8, d_model: int = 16) -> None:
        super().__init__(num_items, max_len=max_len, d_model=d_model)
        self.sampling = Sampling(max_len=max_len, rating=self.rated)
        self.source = nn.Embedding(num_items, d_model)
        self.target = nn.Linear(d_model, num_items)

    def score(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        last = self.source(batch.history.item[:, -1]) * batch.history.mask[:, -1:]
        return self.target(last)

    def loss(self, batch: RecBatch) -> Tensor:
        assert batch.item is not None
        return F.cross_entropy(self.score(batch), batch.item)


class Pairs(SkipMarkov):
    learns = "pairs"


def test_arguments_reach_the_model() -> None:
    check_model(SASRec, positions="sinusoidal", n_blocks=2, dropout=0.0)


def test_models_of_users_pass() -> None:
    check_model(LastItem)
    check_model(Pairs)


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    before = torch.get_rng_state()
    check_model(Popularity)
    assert torch.equal(before, torch.get_rng_state())


# ---- planted bugs: what a model reads ------------------------------------------------------------


class ReadsTarget(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        scores = super().score(batch)
        return scores if batch.item is None else scores + F.one_hot(batch.item, self.num_items)


class NeedsTarget(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        assert batch.item is not None
        return super().score(batch)


class ReadsTargetTime(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        scores = super().score(batch)
        return scores if batch.item_time is None else scores + batch.item_time[:, None] % 7


class ReadsTargetRating(LastItem):
    rated = True

    def score(self, batch: RecBatch) -> Tensor:
        scores = super().score(batch)
        return scores if batch.rating is None else scores + batch.rating.nan_to_num()[:, None]


class ReadsUnknownRatings(ReadsTargetRating):
    def score(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        said = batch.history.rating[batch.history.mask]
        return super().score(batch) + (0.0 if said.isnan().all() else said.sum())


class ReadsPaddingContent(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        return self.target(self.source(batch.history.item[:, -1]))


class ReadsPaddingAmount(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        return self.target(self.source(batch.history.item).mean(1))


class LossReadsPadding(LastItem):
    def loss(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        return super().loss(batch) + self.source(batch.history.item).square().mean()


class LeftPositions(SASRec):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        table = self.encoder.positions.table
        self.encoder.positions.forward = lambda length: table[:length]  # type: ignore[method-assign]


class BatchNormalised(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        scores = super().score(batch)
        return scores - scores.mean(0)


class PlaceInBatch(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        return super().score(batch) + torch.arange(batch.user.numel()).unsqueeze(1)


class AlwaysDropout(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        return F.dropout(super().score(batch), 0.5, training=True)


# ---- planted bugs: what a model returns ----------------------------------------------------------


class NotANumber(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        return super().score(batch).masked_fill(torch.arange(self.num_items) == 3, torch.nan)

    def loss(self, batch: RecBatch) -> Tensor:
        assert batch.item is not None
        return F.cross_entropy(super().score(batch), batch.item)


class MeanOfNothing(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        mask = batch.history.mask.float().unsqueeze(2)
        return self.target((self.source(batch.history.item) * mask).sum(1) / mask.sum(1))


class OneItemShort(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        return super().score(batch)[:, 1:]

    def loss(self, batch: RecBatch) -> Tensor:
        assert batch.item is not None
        return F.cross_entropy(LastItem.score(self, batch), batch.item)


class HalfPrecision(LastItem):
    def score(self, batch: RecBatch) -> Tensor:
        return super().score(batch).bfloat16()


# ---- planted bugs: training ----------------------------------------------------------------------


class DeadParameter(LastItem):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spare = nn.Parameter(torch.ones(3))


class DetachedBranch(LastItem):
    def loss(self, batch: RecBatch) -> Tensor:
        assert batch.item is not None
        return F.cross_entropy(self.score(batch).detach() + self.target.bias, batch.item)


class AccumulatesGraph(LastItem):
    total: Tensor | float = 0.0

    def loss(self, batch: RecBatch) -> Tensor:
        self.total = self.total + super().loss(batch)
        return self.total


class AccumulatesValue(LastItem):
    total = 0.0

    def loss(self, batch: RecBatch) -> Tensor:
        loss = super().loss(batch)
        self.total += float(loss.detach())
        return loss * self.total


class CallsBackward(LastItem):
    def loss(self, batch: RecBatch) -> Tensor:
        loss = super().loss(batch)
        loss.backward(retain_graph=True)
        return loss


class InfiniteLoss(LastItem):
    def loss(self, batch: RecBatch) -> Tensor:
        return super().loss(batch) / 0


class SqrtOfZero(LastItem):
    def loss(self, batch: RecBatch) -> Tensor:
        return super().loss(batch) + (self.target.bias * 0).square().sum().sqrt()


class CountsOnly(Popularity):
    learns = "order"


class CountsBackwards(Popularity):
    def score(self, batch: RecBatch) -> Tensor:
        return -super().score(batch)


class CountsAsPairs(Popularity):
    learns = "pairs"


class LearnsMagic(Popularity):
    learns = "magic"


# ---- planted bugs: saving ------------------------------------------------------------------------


class WeightsInAnAttribute(Popularity):
    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        model = super().from_graph(graph, **kwargs)
        model.bonus = torch.arange(graph.num_items) * 0.5
        return model

    def score(self, batch: RecBatch) -> Tensor:
        return super().score(batch) + getattr(self, "bonus", 0.0)


class ArgumentNotInConfig(LastItem):
    def __init__(self, num_items: int, scale: float = 1.0) -> None:
        super().__init__(num_items)
        self.config = {"num_items": num_items}
        self.scale = scale

    def score(self, batch: RecBatch) -> Tensor:
        return super().score(batch) * self.scale


class ConfigWithTensor(LastItem):
    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.config = {"num_items": torch.tensor(num_items)}


class ConfigWithUnknown(LastItem):
    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.config = {"num_items": num_items, "colour": "blue"}


PLANTED: list[tuple[type[RecModel], str]] = [
    (ReadsTarget, "score reads the target"),
    (NeedsTarget, r"a batch to score holds no item.*AssertionError"),
    (ReadsTargetTime, "score reads the target"),
    (ReadsTargetRating, "score reads the target"),
    (ReadsUnknownRatings, "rows of scores on T1 hold NaN .* a rating that is not known is NaN"),
    (ReadsPaddingContent, "scores read padding"),
    (ReadsPaddingAmount, "scores change with the amount of padding"),
    (LossReadsPadding, "the loss reads padding"),
    (LeftPositions, "scores change with the amount of padding.*from the left"),
    (BatchNormalised, "scores depend on the other users of the batch"),
    (PlaceInBatch, "scores depend on the other users of the batch"),
    (AlwaysDropout, "two calls of score on one batch differ"),
    (NotANumber, "rows of scores on T1 hold NaN"),
    (MeanOfNothing, "a user with an empty history are not finite"),
    (OneItemShort, r"returned \[\d+, 11\], not \[B, N\] = \[\d+, 12\]"),
    (HalfPrecision, "returned torch.bfloat16, not torch.float32"),
    (DeadParameter, "no gradient ever reaches spare;"),
    (DetachedBranch, "no gradient ever reaches source.weight, target.weight;"),
    (AccumulatesGraph, "accumulate from batch to batch.*second time"),
    (AccumulatesValue, "something accumulates between calls"),
    (CallsBackward, "loss fills gradients by itself"),
    (InfiniteLoss, "the loss is inf"),
    (SqrtOfZero, "the gradient of target.bias is not finite"),
    (CountsOnly, "does not learn the next item of a cycle graph.* not 0.9"),
    (CountsBackwards, "does not order items by their number of training events"),
    (CountsAsPairs, "does not learn the block of a user"),
    (LearnsMagic, r"learns needs to be one of .* \(got 'magic'\)"),
    (WeightsInAnAttribute, "the loaded model scores differently"),
    (ConfigWithTensor, "config is not JSON.*Tensor"),
    (ConfigWithUnknown, "does not survive save_model and load_model.*colour"),
]


@pytest.mark.parametrize(("bad", "message"), PLANTED, ids=[bad.__name__ for bad, _ in PLANTED])
def test_planted_bug_is_found(bad: type[RecModel], message: str) -> None:
    with pytest.raises(ModelCheckError, match=f"{bad.__name__}.*{message}"):
        check_model(bad)


def test_argument_that_config_lacks_is_found() -> None:
    with pytest.raises(ModelCheckError, match="every argument in config"):
        check_model(ArgumentNotInConfig, scale=2.0)


def test_wrong_argument_is_explained() -> None:
    with pytest.raises(ModelCheckError, match="SASRec.from_graph failed: TypeError.*'d_modle'"):
        check_model(SASRec, d_modle=8)


# ---- planted bugs: the loader and the loop -------------------------------------------------------


class LateLoader(SeedLoader):
    """One event too many: the history ends with the target itself."""

    def batch(self, seeds: Targets, max_len: int | None = None, key: int | None = None) -> RecBatch:
        return super().batch(late(seeds), max_len, key)

    def lengths(self, seeds: Targets) -> Tensor:
        return super().lengths(late(seeds))


def late(seeds: Targets) -> Targets:
    return Targets(seeds.user, seeds.cut + (seeds.cut > 0), seeds.item, seeds.time)


class TellingLoader(SeedLoader):
    """Gives the time of the target on T1 too."""

    def batch(self, seeds: Targets, max_len: int | None = None, key: int | None = None) -> RecBatch:
        batch = super().batch(seeds, max_len, key)
        asked = query_times("T2", batch.history, seeds.time)  # type: ignore[arg-type]
        return RecBatch(batch.user, batch.history, batch.item, batch.item_time, asked, batch.key)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (LateLoader, "scores on T1 change when the events at or past the cut do"),
        (TellingLoader, "scores on T1 change with the time of the target"),
    ],
)
def test_leaking_loader_is_found(
    loader: type[SeedLoader], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SeedLoader", loader)
    with pytest.raises(ModelCheckError, match=message):
        check_model(GapMarkov)


def test_evaluation_that_sees_the_future_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("tgrec.training.evaluate"), "SeedLoader", LateLoader)
    with pytest.raises(ModelCheckError, match="ranks on T1 change when the events at or past"):
        check_model(SkipMarkov)


def test_loop_that_forgets_zero_grad_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "zero_grad", lambda self, set_to_none=True: None)
    with pytest.raises(ModelCheckError, match="gradients are left after fit"):
        check_model(LastItem)
