"""The oracle test of the loss: honest models pass it at any seed, and no leak does."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling, TemporalRecGraph
from tgrec.models import MODELS, BERT4Rec, RecModel, SASRec, TGTBERT4Rec
from tgrec.models.bert4rec import Cloze, make_cloze
from tgrec.nn.gap_attention import gap_pairs
from tgrec.testing import ModelCheckError, _training, check_model, noise_graph
from tgrec.testing._subject import Subject
from tgrec.testing.checks import _small

LEAK = "the loss sees its own answers"


@pytest.fixture(params=[0, 1])
def _seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*args: Any, seed: int) -> TemporalRecGraph:
        return noise_graph(*args, seed=seed + 1000 * request.param)

    monkeypatch.setattr(_training, "noise_graph", shifted)


def check(model_class: type[RecModel], **kwargs: Any) -> None:
    """Only the part of ``check_model`` that this file is about."""
    subject = Subject(model_class, {**_small(model_class), **kwargs})
    _training.check_loss_sees_no_answer(subject)


def custom_model() -> type[RecModel]:
    path = Path(__file__).parents[2] / "examples" / "custom_model.py"
    spec = spec_from_file_location("custom_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[RecModel] = module.LastFew
    return found


# ---- no false alarm ------------------------------------------------------------------------------


@pytest.mark.usefixtures("_seed")
@pytest.mark.parametrize(
    ("model_class", "kwargs"),
    [
        *[(model_class, {}) for model_class in MODELS.values()],
        (TGTBERT4Rec, {"fusion_alpha": 0.0}),
        (TGTBERT4Rec, {"use_time": False, "use_graph": False}),
        (custom_model(), {}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_honest_models_pass(model_class: type[RecModel], kwargs: dict[str, Any]) -> None:
    check(model_class, **kwargs)


class OddParts(RecModel):
    """Parts that say nothing about leaks: always zero, negative, and without terms at times."""

    def __init__(self, num_items: int, max_len: int = 8) -> None:
        super().__init__(num_items, max_len=max_len)
        self.sampling = Sampling(max_len=max_len)
        self.logits = nn.Parameter(torch.zeros(num_items))

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        assert batch.history is not None
        assert batch.item is not None
        size = batch.item.numel()
        predicted = F.cross_entropy(self.logits.expand(size, -1), batch.item, reduction="sum")
        negative = (self.logits.sigmoid() - 2).sum()
        long = batch.history.mask[:, -2].sum()  # none where there is a single event
        sums = torch.stack([predicted, predicted * 0, negative, predicted * 0 * long])
        return sums, torch.stack([torch.tensor(float(n)) for n in (size, size, 1, long)])


def test_parts_that_say_nothing_raise_no_alarm() -> None:
    check(OddParts)


# ---- leaks ---------------------------------------------------------------------------------------


class NoCausalMask(SASRec):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder.causal = False


class NoCausalMaskInTGT(TGTBERT4Rec):
    """Neither the encoder nor the kinds of pairs shut the future out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.tgt is not None
        self.tgt.causal = False

    def tgt_hidden(self, history: History, query_time: Tensor | None, last: bool = False) -> Tensor:
        assert self.tgt is not None
        pairs = None
        if self.use_time:
            pairs = gap_pairs(history.time, history.time, history.mask, causal=False)
        hidden: Tensor = self.tgt(F.embedding(history.item, self.item), history.mask, pairs, last)
        return hidden


def unmasked(*args: Any) -> Cloze:
    cloze = make_cloze(*args)
    return Cloze(cloze.target, cloze.mask, cloze.hole, cloze.target)


@pytest.mark.parametrize(
    "kwargs",
    [{"use_time": False}, {"use_graph": False}, {"fusion_alpha": 0.0}, {"fusion_alpha": 0.05}],
    ids=str,
)
def test_a_branch_of_tgt_bert4rec_that_sees_the_future_is_found(kwargs: dict[str, Any]) -> None:
    part = 0 if kwargs.get("fusion_alpha") == 0 else 1
    with pytest.raises(ModelCheckError, match=f"InTGT: .* part {part} of loss_terms .*{LEAK}"):
        check(NoCausalMaskInTGT, **kwargs)


@pytest.mark.parametrize(
    ("model_class", "module", "which"),
    [(BERT4Rec, "bert4rec", "its loss"), (TGTBERT4Rec, "tgt_bert4rec", "part 0 of loss_terms")],
)
def test_a_cloze_that_shows_what_it_asks_is_found(
    model_class: type[RecModel], module: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module(f"tgrec.models.{module}"), "make_cloze", unmasked)
    with pytest.raises(ModelCheckError, match=f"{which} on other noise.*{LEAK}"):
        check(model_class)


@pytest.mark.parametrize(
    "whole", [lambda: check_model(NoCausalMask), lambda: check_model(NoCausalMaskInTGT)]
)
def test_check_model_finds_a_missing_causal_mask(whole: Callable[[], None]) -> None:
    with pytest.raises(ModelCheckError, match=LEAK):
        whole()
