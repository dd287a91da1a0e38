"""Runs small enough to repeat, and models that misbehave on command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tgrec.data import RecBatch, Split, TemporalRecGraph, leave_one_out
from tgrec.datasets import simulate_weekly, weekly_graph
from tgrec.models import MODELS, RecModel, SASRec
from tgrec.testing import cycle_graph, noise_graph
from tgrec.training import FitResult, TrainSettings, fit, graphed_step
from tgrec.training.weekly_settings import WeeklySettings, Weeks

SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 32, "max_len": 8}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bit-equality is promised at one count of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def split() -> Split:
    """48 users on a cycle of 24 items; three steps an epoch at a batch size of 16."""
    return leave_one_out(cycle_graph())


@pytest.fixture(scope="session")
def random_split() -> Callable[[int], Split]:
    """``random_split(seed)``: 12 users with 3 to 12 of 9 items."""

    def build(seed: int) -> Split:
        return leave_one_out(noise_graph(num_users=12, num_items=9, length=(3, 12), seed=seed))

    return build


@pytest.fixture(scope="session")
def settings() -> TrainSettings:
    return TrainSettings(epochs=3, batch_size=16, lr=1e-2, precision="fp32")


@pytest.fixture
def make() -> Callable[..., RecModel]:
    """``make(split, "sasrec", seed=0, dropout=0.3)``: a small model."""

    def build(split: Split, name: str = "sasrec", seed: int = 0, **kwargs: Any) -> RecModel:
        torch.manual_seed(seed)
        small = SMALL if name in ("sasrec", "bert4rec", "tgt_bert4rec") else {}
        return MODELS[name].from_graph(split.train, **{**small, **kwargs})

    return build


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces Adam by gradient descent with rate 1, so that a step is minus the gradient."""

    def descent(model: RecModel, settings: TrainSettings) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1.0)

    # The module; ``tgrec.training.fit`` is also the name of its function.
    monkeypatch.setattr(sys.modules[fit.__module__], "adam", descent)
    monkeypatch.setattr(TrainSettings, "lr_at", lambda self, step, total: 1.0)


class Interfering(SASRec):
    """SASRec that calls ``at[n]`` with itself and its loss at its n-th training step (from 1)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at: dict[int, Callable[[SASRec, Tensor], Tensor | None]] = {}
        self.steps = 0

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        sums, counts = super().loss_terms(batch)
        self.steps += 1
        changed = self.at.get(self.steps, lambda model, loss: None)(self, sums)
        return (sums if changed is None else changed), counts


@pytest.fixture
def interfering(split: Split) -> Callable[..., Interfering]:
    """``interfering({step: what to do})``."""

    def build(at: dict[int, Any], seed: int = 0, **kwargs: Any) -> Interfering:
        torch.manual_seed(seed)
        model = Interfering.from_graph(split.train, **{**SMALL, **kwargs})
        model.at = at
        return model

    return build


class Recorder:
    """Stands in for a recorder of CUDA graphs: a recording is the work itself."""

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
def recorder_class() -> type[Recorder]:
    return Recorder


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is told that it is on CUDA, and records with :class:`Recorder`."""
    monkeypatch.setattr(TrainSettings, "on_cuda", True)
    monkeypatch.setattr(graphed_step, "CudaRecorder", Recorder)
    Recorder.made.clear()


@pytest.fixture(scope="session")
def many_shapes() -> Split:
    """Histories of 8, 16 and 24 positions, in batches of many shapes."""
    return leave_one_out(noise_graph(num_users=60, num_items=20, length=(4, 30), seed=2))


@pytest.fixture(scope="session")
def exact() -> TrainSettings:
    """The learning rate is exact in float32, in which a device has it."""
    return TrainSettings(epochs=4, batch_size=8, lr=2.0**-7, precision="fp32", windows="random")


@pytest.fixture(scope="session")
def model_of(many_shapes: Split) -> Callable[..., RecModel]:
    """``model_of("sasrec", dropout=0.5)``: a small model for ``many_shapes``."""

    def build(name: str, **kwargs: Any) -> RecModel:
        torch.manual_seed(0)
        given = {"d_model": 8, "n_heads": 2, "n_blocks": 1, "max_len": 24, **kwargs}
        if name == "gru4rec":
            given.pop("n_heads")
        return MODELS[name].from_graph(many_shapes.train, **given)

    return build


@pytest.fixture(scope="session")
def tiny() -> WeeklySettings:
    """Settings of weekly interest, for ``weeks``."""
    return WeeklySettings(hidden=16, n_heads=2, num_neighbors=(4, 2), weeks_of_history=4, epochs=3,
                          eval_every=1, link_epochs=2, links_per_epoch=256,
                          batch_size=32)  # fmt: skip


@pytest.fixture(scope="session")
def table_weeks() -> Callable[[TemporalRecGraph, int], Weeks]:
    """The weeks 1 to ``num_weeks`` of a graph of :func:`weekly_graph`."""

    def cut(graph: TemporalRecGraph, num_weeks: int) -> Weeks:
        times = [345_600 + 604_800 * week for week in range(1, num_weeks + 2)]
        return Weeks(graph, tuple(graph.event_id_at(t) for t in times))

    return cut


@pytest.fixture(scope="session")
def weeks(table_weeks: Callable[[TemporalRecGraph, int], Weeks]) -> Weeks:
    """60 users and 24 events in 6 weeks."""
    frame, _ = simulate_weekly(60, 24, 6, seed=3, num_communities=3)
    return table_weeks(weekly_graph(frame), 6)


@pytest.fixture
def stop() -> Callable[..., Callable[..., None]]:
    """``stop(SIGTERM)``: an interference that sends this process a signal."""

    def build(number: int = signal.SIGTERM) -> Callable[..., None]:
        return lambda model, loss: signal.raise_signal(number)

    return build


@pytest.fixture
def quiet(split: Split, settings: TrainSettings) -> Callable[..., FitResult]:
    """``quiet(model, epochs=5)`` on the common split."""
    return lambda model, **kwargs: fit(model, split, settings, show=False, **kwargs)


@pytest.fixture
def run() -> Callable[..., FitResult]:
    """``run(model, split, settings, folder, resume=True)``."""
    return lambda model, split, settings, folder, **kwargs: fit(
        model, split, settings, folder=folder, show=False, **kwargs
    )


@pytest.fixture
def checkpoint(
    tmp_path: Path,
    split: Split,
    settings: TrainSettings,
    make: Callable[..., RecModel],
    run: Callable[..., FitResult],
) -> Path:
    """The folder of a finished run of one epoch that may go on to three."""
    run(make(split), split, settings, tmp_path, epochs=1)
    return tmp_path


@pytest.fixture
def no_litter(tmp_path: Path) -> Iterator[None]:
    """Whatever happens in a test, no temporary file is left."""
    yield
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture
def holds() -> Callable[[RecModel, dict[str, Tensor]], bool]:
    """Whether a model's parameters have the bits of a copy of them."""

    def compare(model: RecModel, weights: dict[str, Tensor]) -> bool:
        return all(torch.equal(p, weights[name]) for name, p in model.named_parameters())

    return compare


@pytest.fixture
def same_files() -> Callable[[Path, Path], None]:
    """Asserts that two safetensors files hold the same bits under the same names."""

    def compare(a: Path, b: Path) -> None:
        left, right = load_file(a), load_file(b)
        assert left.keys() == right.keys()
        differing = [k for k in left if not torch.equal(left[k], right[k])]
        assert differing == []

    return compare
