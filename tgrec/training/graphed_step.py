"""Whole training steps as CUDA graphs: hundreds of small kernels launched as one.

A step of these models is made of kernels of a few microseconds, and launching one takes as long. A
CUDA graph is a recording of launches. It knows addresses and nothing else: of every shape of batch
there is one, and what a batch holds is copied to where the recording reads it. Forward and backward
pass, clipping, the optimizer's step and the bookkeeping are all in it
(:class:`tgrec.training.step.TrainStep`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tgrec.data import History, RecBatch
from tgrec.nn.transition import TransitionTable
from tgrec.training.step import TrainStep

# Shapes that are recorded. An epoch of MovieLens-1M has about twenty; a recording takes a few MB
# beside the memory that all of them share.
MOST_GRAPHS = 64
Work = Callable[[], None]
Shapes = tuple[tuple[str, torch.Size, torch.dtype], ...]


class Recorder(Protocol):
    """How a step is run and recorded."""

    def run(self, work: Work) -> None:
        """Does the work now, as what is recorded will do it."""

    def record(self, work: Work) -> Work:
        """Records the work without doing it; returns what does it, as often as it is called."""


class CudaRecorder:
    """CUDA graphs on one stream, with one pool of memory for all of them.

    They may share it because they run one after the other and keep nothing there: what outlives a
    step (weights, moments, sums) was made before the first of them.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> None:
        """See :class:`Recorder`; on the stream of the recordings, as CUDA libraries ask for."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            work()
        current.wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        """See :class:`Recorder`."""
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.stream.device)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                work()
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # where a recording that cannot be ended leaves it
            error.add_note("a training step could not be captured; use cuda_graphs=False")
            raise
        replay: Work = graph.replay
        return replay


class GraphedStep:
    """Runs a step: the first batch of a shape as it is, the second recorded, later ones replayed.

    The first one makes what lives longer than a step. Batches that hold anything but tensors and a
    history (sampled neighbourhoods, a teacher's answers) are never recorded.

    Args:
        work: The step. Everything that it leaves behind stands at fixed places.
        model: Whose weights it reads; if they are found elsewhere at the start of an epoch, all
            is run and recorded anew.
        recorder: How.
        most: Recordings at most; further shapes are run as they are.
        give_up: Called with the error if a step cannot be recorded: raises it, or says so and
            leaves the step ready for the batch, which is then run as it is, as are all shapes
            that have not been recorded before.
    """

    def __init__(
        self,
        work: Callable[[RecBatch], None],
        model: nn.Module,
        recorder: Recorder,
        most: int = MOST_GRAPHS,
        give_up: Callable[[RuntimeError], None] | None = None,
    ) -> None:
        self.work, self.model, self.recorder, self.most = work, model, recorder, most
        self.give_up = give_up
        self.places: list[int] = []
        self.seen: set[Shapes] = set()
        self.graphs: dict[Shapes, tuple[RecBatch, Work]] = {}

    def start_epoch(self) -> None:
        """Forgets the recordings if the weights have moved since."""
        tables = [m.dense for m in self.model.modules() if isinstance(m, TransitionTable)]
        tensors = (*self.model.parameters(), *self.model.buffers(), *tables)
        places = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        if places != self.places:
            self.graphs.clear()
            self.seen.clear()
        self.places = places

    def __call__(self, batch: RecBatch) -> None:
        """One step."""
        shapes = shapes_of(batch)
        if shapes in self.graphs:
            static, replay = self.graphs[shapes]
            copy_into(static, batch)
            replay()
        elif shapes is None or shapes not in self.seen or len(self.graphs) >= self.most:
            self.recorder.run(partial(self.work, batch))
            self.seen |= set() if shapes is None else {shapes}
        else:
            self._record(shapes, batch)

    def _record(self, shapes: Shapes, batch: RecBatch) -> None:
        static = clone_of(batch)
        try:
            replay = self.recorder.record(partial(self.work, static))
        except RuntimeError as error:
            if self.give_up is None:
                raise
            self.give_up(error)
            self.most = 0
            self.recorder.run(partial(self.work, batch))
            return
        self.graphs[shapes] = static, replay
        replay()


def graphed(step: TrainStep, taught: bool) -> GraphedStep | None:
    """The step, recorded; None where it is not, which is said on stderr if it was asked for.

    Args:
        step: Of a run.
        taught: Whether a teacher is asked in it.
    """
    reason = why_not_graphed(step, taught)
    if not reason:
        recorder = CudaRecorder(torch.device(step.settings.device))
        asked_for = step.settings.cuda_graphs is True
        return GraphedStep(
            step, step.model, recorder, give_up=None if asked_for else partial(_give_up, step)
        )
    if step.settings.cuda_graphs and step.workers.is_main:
        print(f"cuda_graphs: the steps are not captured, for {reason}", file=sys.stderr)
    return None


def _give_up(step: TrainStep, error: RuntimeError) -> None:
    """Says so. What was to be recorded was not done: only what Python saw of it is undone."""
    print(f"the steps are not captured, for one could not be: {error}", file=sys.stderr)
    step.start_anew()


def why_not_graphed(step: TrainStep, taught: bool) -> str:
    """Why the steps of a run are not recorded; empty if they are."""
    settings, model, name = step.settings, step.model, type(step.model).__name__
    reasons = {
        "cuda_graphs is False": settings.cuda_graphs is False,
        f"the device is {settings.device!r}": not settings.on_cuda,
        f"{name} reads sampled neighbourhoods": model.sampling.num_neighbors is not None,
        f"{name} does not say that it can be (RecModel.static_step)": not model.has_static_step,
        "a teacher is asked in every step": taught,
        "several processes train together": step.workers.world_size > 1,
        "'accumulate' spreads an update over several steps": settings.accumulate > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def shapes_of(batch: RecBatch) -> Shapes | None:
    """What a recording depends on; None of batches that cannot be copied into another one."""
    if type(batch) is not RecBatch or batch.graph is not None or batch.soft is not None:
        return None
    return tuple((name, x.shape, x.dtype) for name, x in columns_of(batch).items())


def columns_of(batch: RecBatch) -> dict[str, Tensor]:
    """All tensors of a batch and of its history, by name."""
    out: dict[str, Tensor] = {}
    for part in (batch, batch.history):
        for f in fields(part) if part is not None else ():
            if isinstance(value := getattr(part, f.name), Tensor):
                out[f"{type(part).__name__}.{f.name}"] = value
    return out


def copy_into(static: RecBatch, batch: RecBatch) -> None:
    """Gives the tensors of ``static`` the values of a batch of the same shapes."""
    values = columns_of(batch)
    for name, column in columns_of(static).items():
        column.copy_(values[name])


def clone_of(batch: RecBatch) -> RecBatch:
    """The same batch in memory of its own."""
    copied: dict[str, Any] = _clones(batch)
    if batch.history is not None:
        copied["history"] = replace(batch.history, **_clones(batch.history))
    return replace(batch, **copied)


def _clones(part: RecBatch | History) -> dict[str, Any]:
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {name: x.clone() for name, x in values.items() if isinstance(x, Tensor)}
