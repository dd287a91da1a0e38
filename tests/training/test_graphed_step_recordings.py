"""Steps that are replayed: what is copied, how many are recorded, and for whom none is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch_geometric.data import HeteroData

from tgrec.data import History, RecBatch, Sampling, SoftLabels, Split
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, RecModel, SASRec
from tgrec.nn.transition import TransitionTable
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph
from tgrec.training import FitResult, Teacher, TrainSettings, fit, graphed_step
from tgrec.training.distributed import Workers, wrap
from tgrec.training.graphed_step import GraphedStep, clone_of, columns_of, copy_into, shapes_of
from tgrec.training.optimizer import adam
from tgrec.training.step import TrainStep

Make = Callable[..., Any]


@pytest.fixture
def batches(many_shapes: Split) -> Make:
    """``batches(model, epochs=2)``: what it would be trained on."""

    def read(model: RecModel, epochs: int = 1) -> list[RecBatch]:
        loader = SeedLoader(EventIndex(many_shapes.train), model.sampling, "T2", steady=True)
        seeds = training_seeds(loader.index, 24)
        return [b for epoch in range(epochs) for b in loader.train_batches(seeds, 4, 0, epoch)]

    return read


def test_copies_are_of_all_columns_and_share_no_memory(batches: Make, model_of: Make) -> None:
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


def test_no_more_are_recorded_than_asked_for(
    model_of: Make, batches: Make, recorder_class: Any
) -> None:
    model = model_of("sasrec")
    recorder, done = recorder_class(), []  # type: Recorder, list[RecBatch]
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


def test_weights_that_have_moved_are_recorded_anew(
    model_of: Make, recorder_class: Any, batches: Make
) -> None:
    model, recorder = model_of("tgt_bert4rec"), recorder_class()
    step = GraphedStep(lambda batch: None, model, recorder)
    batch = batches(model)[0]
    table = next(m for m in model.modules() if isinstance(m, TransitionTable))
    for moved in (None, None, "weights", None, "counts", None):
        if moved == "weights":
            model.item.data = model.item.data.clone()
        if moved == "counts":  # as loading weights leaves them, until they are read again
            table.dense = torch.ones(1)
        step.start_epoch()
        for _ in range(3):
            step(batch)
    assert (recorder.ran, recorder.recorded) == (3, 3)


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


# ---- who is not recorded ----------------------------------------------------------------------


class Own(SASRec):
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
    exact: TrainSettings,
    many_shapes: Split,
    recorder_class: Any,
) -> None:
    for asked in (True, None):
        model = cls.from_graph(many_shapes.train)
        teacher = Teacher(MODELS["markov"].from_graph(many_shapes.train)) if taught else None
        once = replace(exact, epochs=2, batch_size=64, cuda_graphs=asked, **settings)
        result: FitResult = fit(model, many_shapes, once, show=False, teacher=teacher)
        assert result.epochs == 2
        err = capsys.readouterr().err
        assert err.count("cuda_graphs: the steps are not captured") == (asked is True)
        assert (said in err) == (asked is True)
    assert recorder_class.made == []


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("name", ["sasrec", "tgt_bert4rec"])
def test_a_step_that_cannot_be_recorded_is_run_as_it_is(
    name: str,
    model_of: Make,
    many_shapes: Split,
    exact: TrainSettings,
    recorder_class: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def record(self: Any, work: Callable[[], None]) -> Callable[[], None]:
        def refuse(self: TrainStep) -> None:
            raise RuntimeError("no capture")

        with monkeypatch.context() as patch:  # the backward pass has been seen by then
            patch.setattr(TrainStep, "_update", refuse)
            work()
        raise AssertionError

    monkeypatch.setattr(recorder_class, "record", record)
    runs = []
    for asked in (None, False):
        model = model_of(name, dropout=0.0)  # whose draws the vain attempt would move
        result = fit(model, many_shapes, replace(exact, cuda_graphs=asked), show=False)
        runs.append(([e["loss"] for e in result.history], [p.detach() for p in model.parameters()]))
        err = capsys.readouterr().err
        assert err.count("not captured, for one could not be: no capture") == (asked is None)
    assert runs[0][0] == runs[1][0]
    assert all(map(torch.equal, runs[0][1], runs[1][1]))
    with pytest.raises(RuntimeError, match="no capture"):
        fit(model_of(name), many_shapes, replace(exact, cuda_graphs=True))


@pytest.mark.parametrize("value", [1, "yes", 0.0])
def test_a_setting_that_is_no_switch_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="'cuda_graphs' needs to be True, False or None"):
        TrainSettings(cuda_graphs=value)


def test_on_a_cpu_they_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="'cuda_graphs' needs to be left out, or device='cuda'"):
        TrainSettings(cuda_graphs=True)
    assert TrainSettings(cuda_graphs=True, device="cuda").cuda_graphs
    assert TrainSettings(cuda_graphs=False).cuda_graphs is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_replays_draw_other_dropout_every_time_and_wait_for_nothing(
    exact: TrainSettings, model_of: Make, batches: Make
) -> None:
    settings = replace(exact, device="cuda", epochs=1)
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
