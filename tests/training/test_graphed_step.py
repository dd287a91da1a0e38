"""Steps as on CUDA, on the CPU: nothing read back within an epoch, and steps that are replayed.

There is no GPU here. What is told of being on CUDA works as it would there: figures stay on the
device, the learning rate is a tensor, batches are copied to fixed places, and a recording is the
step itself, done again on what stands there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import History, RecBatch, Sampling, SoftLabels, Split, leave_one_out
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, RecModel
from tgrec.models.io import parameters_copy
from tgrec.sampler import EventIndex
from tgrec.sampler.event_index import EventList
from tgrec.testing import noise_graph
from tgrec.testing.static_step import Watch, as_on_cuda
from tgrec.training import FitResult, NotFiniteError, Teacher, TrainSettings, fit, graphed_step
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.distributed import Workers, wrap
from tgrec.training.graphed_step import GraphedStep, clone_of, columns_of, copy_into, shapes_of
from tgrec.training.optimizer import adam
from tgrec.training.step import TrainStep
from tgrec.training.tally import DeviceTally, HostTally, NotANumberError

Make = Callable[..., Any]
# Histories of 8, 16 and 24 positions, in batches of many shapes.
SPLIT = leave_one_out(noise_graph(num_users=60, num_items=20, length=(4, 30), seed=2))
SMALL: dict[str, Any] = {"d_model": 8, "n_heads": 2, "n_blocks": 1, "max_len": 24}
GOLDEN: dict[str, Any] = {"tgt_gated": True, "positions": "relative", "time_vectors": True,
                          "temperature": 0.07, "learnable_fusion": False}  # fmt: skip
# Exact in float32, in which a device has it.
SETTINGS = TrainSettings(epochs=4, batch_size=8, lr=2.0**-7, precision="fp32", windows="random")


class Recorder:
    """A recording is the work itself."""

    made: list[Recorder] = []

    def __init__(self, device: torch.device | None = None) -> None:
        self.recorded = self.replayed = self.ran = 0
        self.made.append(self)

    def run(self, work: Callable[[], None]) -> None:
        self.ran += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        return partial(self._replay, work)

    def _replay(self, work: Callable[[], None]) -> None:
        self.replayed += 1
        work()


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainSettings, "on_cuda", True)
    monkeypatch.setattr(graphed_step, "CudaRecorder", Recorder)
    Recorder.made.clear()


def model_of(name: str, split: Split = SPLIT, **kwargs: Any) -> RecModel:
    torch.manual_seed(0)
    given = {**SMALL, **kwargs}
    if name == "gru4rec":
        given.pop("n_heads")
    return MODELS[name].from_graph(split.train, **given)


def trained(name: str, settings: TrainSettings = SETTINGS, **kwargs: Any) -> tuple[Any, RecModel]:
    """Losses of all epochs, and the model."""
    model = model_of(name, **kwargs)
    result = fit(model, SPLIT, settings, show=False)
    return [(e["loss"], e["val"], e["lr"]) for e in result.history], model


def same(one: RecModel, other: RecModel) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---- the same bits ----------------------------------------------------------------------------


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("sasrec", {}), ("bert4rec", {}), ("hstu", {}), ("gru4rec", {}), ("tgt_bert4rec", GOLDEN)],
)
def test_replayed_steps_are_the_steps_themselves(name: str, kwargs: dict[str, Any]) -> None:
    losses, model = trained(name, replace(SETTINGS, lr_decay="cosine", warmup_steps=5), **kwargs)
    (recorder,) = Recorder.made
    assert recorder.recorded >= 3
    assert recorder.replayed > 2 * recorder.recorded
    eager = replace(SETTINGS, lr_decay="cosine", warmup_steps=5, cuda_graphs=False)
    others, other = trained(name, eager, **kwargs)
    assert len(Recorder.made) == 1
    assert losses == others
    assert same(model, other)


def test_reading_once_an_epoch_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, split: Split, make: Make
) -> None:
    runs = []
    for on_cuda in (False, True):  # batches have one length here, and are the same on CUDA
        monkeypatch.setattr(TrainSettings, "on_cuda", on_cuda)
        monkeypatch.setattr(graphed_step, "CudaRecorder", Recorder)
        model = make(split, "tgt_bert4rec")
        settings = replace(SETTINGS, batch_size=16, weight_decay=0.1, windows="last")
        result = fit(model, split, settings, show=False)
        runs.append(([(e["loss"], e["losses"], e["val"]) for e in result.history], model))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


@pytest.mark.usefixtures("on_cuda")
def test_an_interrupted_run_goes_on_to_the_same_bits_with_and_without_graphs(
    tmp_path: Path, interfering: Make, stop: Make, split: Split, make: Make
) -> None:
    settings = replace(SETTINGS, batch_size=16, windows="last")
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
def eager() -> tuple[Any, RecModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainSettings, "on_cuda", True)
        return trained("tgt_bert4rec", replace(SETTINGS, track="T2", cuda_graphs=False), **GOLDEN)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("forgotten", [None, *READ])
def test_a_forgotten_column_is_noticed(
    forgotten: str | None, eager: tuple[Any, RecModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(static: RecBatch, batch: RecBatch) -> None:
        values = columns_of(batch)
        for name, column in columns_of(static).items():
            if name != forgotten:
                column.copy_(values[name])

    monkeypatch.setattr(graphed_step, "copy_into", forgetful)
    losses, model = trained("tgt_bert4rec", replace(SETTINGS, track="T2"), **GOLDEN)
    assert (losses == eager[0]) == (forgotten is None)
    assert same(model, eager[1]) == (forgotten is None)


def batches(model: RecModel, epochs: int = 1) -> list[RecBatch]:
    loader = SeedLoader(EventIndex(SPLIT.train), model.sampling, "T2", steady=True)
    seeds = training_seeds(loader.index, 24)
    return [b for epoch in range(epochs) for b in loader.train_batches(seeds, 4, 0, epoch)]


def test_copies_are_of_all_columns_and_share_no_memory() -> None:
    one, other = batches(model_of("tgt_bert4rec"))[:1] * 2
    assert len(columns_of(one)) == 10
    copy = clone_of(one)
    assert shapes_of(copy) == shapes_of(one)
    for name, column in columns_of(copy).items():
        assert torch.equal(column, columns_of(one)[name])
        assert column.data_ptr() != columns_of(one)[name].data_ptr()
        column.zero_()
    copy_into(copy, other)
    for name, column in columns_of(copy).items():
        assert torch.equal(column, columns_of(other)[name])


def test_what_is_more_than_tensors_and_a_history_is_not_copied() -> None:
    class Further(RecBatch):
        pass

    history = History(*(torch.zeros(2, 3, dtype=torch.int64) for _ in range(4)), torch.ones(2, 3))
    plain = RecBatch(torch.arange(2), history)
    assert shapes_of(plain) == tuple(
        (name, x.shape, x.dtype) for name, x in columns_of(plain).items()
    )
    assert shapes_of(replace(plain, rating=torch.ones(2))) != shapes_of(plain)
    assert shapes_of(replace(plain, graph=HeteroData())) is None
    soft = SoftLabels(torch.ones(2, 3, 1), torch.ones(4, 1), 0.5)
    assert shapes_of(replace(plain, soft=soft)) is None
    assert shapes_of(Further(torch.arange(2))) is None


# ---- how many, and when anew ------------------------------------------------------------------


def test_no_more_are_recorded_than_asked_for() -> None:
    model = model_of("sasrec")
    recorder, done = Recorder(), []  # type: Recorder, list[RecBatch]
    step = GraphedStep(lambda batch: done.append(clone_of(batch)), model, recorder, most=2)
    step.start_epoch()
    asked = batches(model, epochs=4)
    shapes = {shapes_of(batch) for batch in asked}
    assert len(shapes) > 3
    for batch in asked:
        step(batch)
    assert recorder.recorded == len(step.graphs) == 2
    assert recorder.ran + recorder.replayed == len(asked)
    for batch, seen in zip(asked, done, strict=True):  # each step had its own batch
        assert all(torch.equal(x, columns_of(seen)[n]) for n, x in columns_of(batch).items())


def test_weights_that_have_moved_are_recorded_anew() -> None:
    model, recorder = model_of("sasrec"), Recorder()
    step = GraphedStep(lambda batch: None, model, recorder)
    batch = batches(model)[0]
    for moved in (False, False, True, False):
        if moved:
            model.item.data = model.item.data.clone()
        step.start_epoch()
        for _ in range(3):
            step(batch)
    assert (recorder.ran, recorder.recorded) == (1, 2)


def test_steady_batches_have_shapes_that_come_back() -> None:
    graph = noise_graph(num_users=400, num_items=60, length=(4, 150), seed=2)
    often, kinds = [], []
    for steady in (False, True):
        loader = SeedLoader(EventIndex(graph), Sampling(max_len=128), steady=steady)
        shapes: list[tuple[int, int]] = []
        for epoch in range(25):
            seeds = training_seeds(loader.index, 128, "random", key=epoch)
            plan = loader.plan(seeds, 64, 0, epoch)
            assert sorted(torch.cat(plan).tolist()) == list(range(len(seeds)))
            length = loader._padded(loader.lengths(seeds))
            shapes += [(len(rows), int(length[rows].max())) for rows in plan]
        often.append(sum(shapes.count(shape) >= 10 for shape in shapes) / len(shapes))
        kinds.append(len(set(shapes)))
    assert often[1] > 2 * often[0]  # 0.71 and 0.25
    assert often[1] > 0.6
    assert kinds[1] < 0.7 * kinds[0]


# ---- losses that are no numbers ---------------------------------------------------------------


@pytest.mark.usefixtures("on_cuda")
def test_nan_names_the_step_and_moves_nothing_from_there(
    interfering: Make, split: Split, tmp_path: Path
) -> None:
    kept: dict[str, Tensor] = {}
    at = {
        2: lambda model, loss: loss * math.nan,
        3: lambda model, loss: loss * math.inf,
    }
    settings = replace(SETTINGS, batch_size=16, windows="last")
    model = interfering(at)
    with pytest.raises(NotFiniteError, match="the loss is not finite at epoch 1, step 2 of 3; no"):
        fit(model, split, settings, show=False)
    # The step before was the last that moved anything.
    first = interfering({2: lambda model, loss: kept.update(parameters_copy(model))})
    fit(first, split, replace(settings, epochs=1), show=False)
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters())

    later = interfering({8: at[2]})
    with pytest.raises(NotFiniteError, match="not finite at epoch 3, step 2 of 3; the best") as got:
        fit(later, split, settings, folder=tmp_path, show=False)
    assert got.value.best_epoch in (1, 2)
    again = fit(interfering({}), split, settings, folder=tmp_path, resume=True, show=False)
    assert again.epochs == 4


@pytest.mark.usefixtures("on_cuda")
def test_a_gradient_that_is_no_number_is_told_from_a_loss(interfering: Make, split: Split) -> None:
    steep = {2: lambda model, loss: loss + (model.item[0, 0] * 0.0).abs().sqrt()}
    settings = replace(SETTINGS, batch_size=16, windows="last")
    with pytest.raises(NotFiniteError, match="the gradient is not finite at epoch 1, step 2 of 3"):
        fit(interfering(steep), split, settings, show=False)


def test_both_tallies_say_the_same() -> None:
    for tally in (HostTally(), DeviceTally(torch.device("cpu"))):
        for before in ([], [1.5, 2.0]):
            tally.start(3, list(before), [2.0, 1.0][: len(before)])
            for n in (1.0, 2.0):
                tally.check_loss(torch.tensor(n))
                tally.check_gradient(torch.tensor(n))
                tally.add(torch.tensor([n, 2 * n]).double(), torch.tensor([1.0, n]).double())
            sums, counts = tally.read()
            assert sums == ([3.0, 6.0] if not before else [4.5, 8.0])
            assert counts == ([2.0, 3.0] if not before else [4.0, 4.0])
    assert DeviceTally(torch.device("cpu")).read() == ([], [])


@pytest.mark.parametrize(
    ("losses", "norms", "said", "step"),
    [
        ([1.0, math.nan, 1.0], [1.0, math.nan, math.nan], "the loss is not finite", 2),
        ([1.0, 1.0, math.inf], [1.0, math.nan, 1.0], "the gradient is not finite", 2),
        ([1.0, 1.0, 1.0], [math.inf, 1.0, 1.0], "the gradient is not finite", 1),
    ],
)
def test_the_first_step_that_went_wrong_is_named(
    losses: list[float], norms: list[float], said: str, step: int
) -> None:
    tally = DeviceTally(torch.device("cpu"))
    tally.start(0, [], [])
    for n, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        tally.check_loss(torch.tensor(loss))
        tally.check_gradient(torch.tensor(norm))
        tally.add(torch.ones(1).double(), torch.ones(1).double())
        assert float(tally.bad) == (n >= step)  # for good
    with pytest.raises(NotANumberError, match=said) as caught:
        tally.read()
    assert caught.value.step == step
    tally.start(0, [], [])
    tally.add(torch.ones(1).double(), torch.ones(1).double())
    assert tally.read() == ([1.0], [1.0])


# ---- nothing is read back ---------------------------------------------------------------------


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(("name", "kwargs"), [("sasrec", {}), ("tgt_bert4rec", GOLDEN)])
def test_within_an_epoch_the_host_never_waits(
    name: str, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
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
    settings = replace(SETTINGS, epochs=2, track="T2")
    result = fit(model_of(name, **kwargs), SPLIT, settings, show=False)
    assert result.epochs == 2
    names = {name for name, _ in looked.seen}
    assert {"aten::_fused_adamw_.tensor_lr", "aten::searchsorted.Tensor"} <= names


# ---- who is not recorded ----------------------------------------------------------------------


class Own(MODELS["sasrec"]):  # type: ignore[misc]
    pass


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(
    ("cls", "settings", "taught", "said"),
    [
        (Own, {}, False, "Own does not say that it can be (RecModel.static_step)"),
        (MODELS["caser"], {}, False, "Caser does not say that it can be"),
        (MODELS["sasrec"], {"accumulate": 2}, False, "'accumulate' spreads an update"),
        (MODELS["sasrec"], {}, True, "a teacher is asked in every step"),
        (MODELS["sage"], {}, False, "SAGE reads sampled neighbourhoods"),
    ],
)
def test_who_asks_for_what_cannot_be_is_told_once(
    cls: type[RecModel],
    settings: dict[str, Any],
    taught: bool,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for asked in (True, None):
        model = cls.from_graph(SPLIT.train)
        teacher = Teacher(MODELS["markov"].from_graph(SPLIT.train)) if taught else None
        once = replace(SETTINGS, epochs=2, batch_size=64, cuda_graphs=asked, **settings)
        result: FitResult = fit(model, SPLIT, once, show=False, teacher=teacher)
        assert result.epochs == 2
        err = capsys.readouterr().err
        assert err.count("cuda_graphs: the steps are not captured") == (asked is True)
        assert (said in err) == (asked is True)
    assert Recorder.made == []


@pytest.mark.parametrize("value", [1, "yes", 0.0])
def test_a_setting_that_is_no_switch_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="'cuda_graphs' needs to be True, False or None"):
        TrainSettings(cuda_graphs=value)


def test_on_a_cpu_they_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="'cuda_graphs' needs to be left out, or device='cuda'"):
        TrainSettings(cuda_graphs=True)
    assert TrainSettings(cuda_graphs=True, device="cuda").cuda_graphs
    assert TrainSettings(cuda_graphs=False).cuda_graphs is False


# ---- on a GPU ---------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("sasrec", {}), ("bert4rec", {}), ("hstu", {}), ("gru4rec", {}), ("tgt_bert4rec", GOLDEN)],
)
def test_cuda_graphs_train_as_steps_do(name: str, kwargs: dict[str, Any]) -> None:
    there = replace(SETTINGS, device="cuda")
    without = {**kwargs, "dropout": 0.0}
    losses = [[e[0] for e in trained(name, s, **without)[0]]
              for s in (there, replace(there, cuda_graphs=False), SETTINGS)]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][0] == pytest.approx(losses[2][0], rel=0.05)  # other batches on the CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_replays_draw_other_dropout_every_time_and_wait_for_nothing() -> None:
    settings = replace(SETTINGS, device="cuda", epochs=1)
    model = model_of("sasrec", dropout=0.5).cuda()
    optimizer = adam(model, replace(settings, lr=1e-30))
    step = TrainStep(model, wrap(model, Workers()), optimizer, settings, Workers())
    graphs = graphed_step.graphed(step, False)
    assert graphs is not None
    batch = batches(model)[0].to("cuda")
    graphs.start_epoch()
    step.tally.start(0, [], [])
    sums = []
    for n in range(6):
        torch.cuda.set_sync_debug_mode("error" if n > 2 else "default")
        graphs(batch)
        torch.cuda.set_sync_debug_mode("default")
        sums.append(step.tally.read()[0][0])
    steps = [b - a for a, b in zip([0.0, *sums], sums, strict=False)]
    assert len({round(s, 4) for s in steps}) == 6
