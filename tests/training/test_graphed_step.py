"""Steps as on CUDA, on the CPU: nothing read back within an epoch, and steps that are replayed.

There is no GPU here. What is told of being on CUDA works as it would there: figures stay on the
device, the learning rate is a tensor, batches are copied to fixed places, and a recording is the
step itself, done again on what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tgrec.data import RecBatch, Split
from tgrec.loader import SeedLoader
from tgrec.models import RecModel
from tgrec.sampler import EventIndex
from tgrec.sampler.event_index import EventList
from tgrec.testing.static_step import Watch, as_on_cuda
from tgrec.training import TrainSettings, fit, graphed_step
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.graphed_step import columns_of
from tgrec.training.step import TrainStep

Make = Callable[..., Any]
GOLDEN: dict[str, Any] = {"tgt_gated": True, "positions": "relative", "time_vectors": True,
                          "temperature": 0.07, "learnable_fusion": False}  # fmt: skip


@pytest.fixture(scope="module")
def trained(model_of: Make, many_shapes: Split, exact: TrainSettings) -> Make:
    """``trained("sasrec", settings)``: losses of all epochs, and the model."""

    def run(name: str, settings: TrainSettings = exact, **kwargs: Any) -> tuple[Any, RecModel]:
        model = model_of(name, **kwargs)
        result = fit(model, many_shapes, settings, show=False)
        return [(e["loss"], e["val"], e["lr"]) for e in result.history], model

    return run


def same(one: RecModel, other: RecModel) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---- the same bits ----------------------------------------------------------------------------


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("sasrec", {}), ("bert4rec", {}), ("hstu", {}), ("gru4rec", {}), ("tgt_bert4rec", GOLDEN)],
)
def test_replayed_steps_are_the_steps_themselves(
    name: str, kwargs: dict[str, Any], trained: Make, recorder_class: Any, exact: TrainSettings
) -> None:
    losses, model = trained(name, replace(exact, lr_decay="cosine", warmup_steps=5), **kwargs)
    (recorder,) = recorder_class.made
    assert recorder.recorded >= 3
    assert recorder.replayed > 2 * recorder.recorded
    eager = replace(exact, lr_decay="cosine", warmup_steps=5, cuda_graphs=False)
    others, other = trained(name, eager, **kwargs)
    assert len(recorder_class.made) == 1
    assert losses == others
    assert same(model, other)


def test_reading_once_an_epoch_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch,
    split: Split,
    make: Make,
    recorder_class: Any,
    exact: TrainSettings,
) -> None:
    runs = []
    for on_cuda in (False, True):  # batches have one length here, and are the same on CUDA
        monkeypatch.setattr(TrainSettings, "on_cuda", on_cuda)
        monkeypatch.setattr(graphed_step, "CudaRecorder", recorder_class)
        model = make(split, "tgt_bert4rec")
        settings = replace(exact, batch_size=16, weight_decay=0.1, windows="last")
        result = fit(model, split, settings, show=False)
        runs.append(([(e["loss"], e["losses"], e["val"]) for e in result.history], model))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


@pytest.mark.usefixtures("on_cuda")
def test_an_interrupted_run_goes_on_to_the_same_bits_with_and_without_graphs(
    tmp_path: Path, interfering: Make, stop: Make, split: Split, make: Make, exact: TrainSettings
) -> None:
    settings = replace(exact, batch_size=16, windows="last")
    whole = make(split)
    history = fit(whole, split, settings, show=False).history
    half = interfering({5: stop()})
    assert fit(half, split, settings, folder=tmp_path, show=False).stopped == "interrupted"
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        assert "cuda_graphs" not in json.loads(file.metadata()["settings"])
    other = interfering({})
    eager = replace(settings, cuda_graphs=False)
    result = fit(other, split, eager, folder=tmp_path, resume=True, show=False)
    assert [e["loss"] for e in result.history] == [e["loss"] for e in history]
    assert same(other, whole)


# ---- planted bugs -----------------------------------------------------------------------------


READ = [
    "RecBatch.item", "RecBatch.item_time", "RecBatch.query_time", "RecBatch.key", "History.item",
    "History.time", "History.mask",
]  # fmt: skip


@pytest.fixture(scope="module")
def eager(trained: Make, exact: TrainSettings) -> tuple[Any, RecModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainSettings, "on_cuda", True)
        return trained("tgt_bert4rec", replace(exact, track="T2", cuda_graphs=False), **GOLDEN)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("forgotten", [None, *READ])
def test_a_forgotten_column_is_noticed(
    forgotten: str | None,
    eager: tuple[Any, RecModel],
    monkeypatch: pytest.MonkeyPatch,
    trained: Make,
    exact: TrainSettings,
) -> None:
    def forgetful(static: RecBatch, batch: RecBatch) -> None:
        values = columns_of(batch)
        for name, column in columns_of(static).items():
            if name != forgotten:
                column.copy_(values[name])

    monkeypatch.setattr(graphed_step, "copy_into", forgetful)
    losses, model = trained("tgt_bert4rec", replace(exact, track="T2"), **GOLDEN)
    assert (losses == eager[0]) == (forgotten is None)
    assert same(model, eager[1]) == (forgotten is None)


# ---- nothing is read back ---------------------------------------------------------------------


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(("name", "kwargs"), [("sasrec", {}), ("tgt_bert4rec", GOLDEN)])
def test_within_an_epoch_the_host_never_waits(
    name: str,
    kwargs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    exact: TrainSettings,
    many_shapes: Split,
    model_of: Make,
) -> None:
    step, read, looked = TrainStep.__call__, SeedLoader.batch, Watch()

    def watched_step(self: TrainStep, batch: RecBatch, due: bool = True) -> None:
        if self.optimizer.state:  # the very first step makes what is kept
            with as_on_cuda(), looked:
                step(self, batch, due)
        else:
            with as_on_cuda():
                step(self, batch, due)

    def watched_read(self: SeedLoader, *args: Any, **kwargs: Any) -> RecBatch:
        if kwargs.get("key") is None:
            return read(self, *args, **kwargs)
        with as_on_cuda(), looked:
            return read(self, *args, **kwargs)

    def past(self: EventList, node: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
        start = self.ptr.index_select(0, node)
        return start, torch.searchsorted(self.key, self._wanted(node, cut))

    # What asks for the device by name, in its form for CUDA.
    monkeypatch.setattr(EventList, "past", past)
    monkeypatch.setattr(EventIndex, "check_nodes", lambda *args: None)
    monkeypatch.setattr(TrainStep, "__call__", watched_step)
    monkeypatch.setattr(SeedLoader, "batch", watched_read)
    settings = replace(exact, epochs=2, track="T2")
    result = fit(model_of(name, **kwargs), many_shapes, settings, show=False)
    assert result.epochs == 2
    names = {name for name, _ in looked.seen}
    assert {"aten::_fused_adamw_.tensor_lr", "aten::searchsorted.Tensor"} <= names


# ---- on a GPU ---------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("sasrec", {}), ("bert4rec", {}), ("hstu", {}), ("gru4rec", {}), ("tgt_bert4rec", GOLDEN)],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_graphs_train_as_steps_do(
    name: str,
    kwargs: dict[str, Any],
    precision: Literal["fp32", "bf16"],
    exact: TrainSettings,
    trained: Make,
) -> None:
    there = replace(exact, device="cuda", precision=precision)
    without = {**kwargs, "dropout": 0.0}
    losses = [[e[0] for e in trained(name, s, **without)[0]]
              for s in (there, replace(there, cuda_graphs=False), exact)]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if precision == "fp32" else 2e-2)
    assert losses[0][0] == pytest.approx(losses[2][0], rel=0.05)  # other batches on the CPU
