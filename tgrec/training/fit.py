"""The training loop, once for all models."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from tgrec.data import Split
from tgrec.data.files import make_folder, write_text
from tgrec.loader import SeedLoader
from tgrec.metrics import NanScoreError
from tgrec.models.base import RecModel
from tgrec.models.io import load_parameters, node_digests, parameters_copy, parameters_digest
from tgrec.sampler import EventIndex
from tgrec.training.allocator import keep_freed_memory, peak_memory_mb
from tgrec.training.checkpoint import Progress, load_checkpoint, read_history, save_checkpoint
from tgrec.training.distill import TaughtLoader, Teacher
from tgrec.training.distributed import Workers, start_workers, take_device, wrap
from tgrec.training.evaluate import evaluate
from tgrec.training.graphed_step import GraphedStep, graphed
from tgrec.training.optimizer import adam, set_rate
from tgrec.training.parts import examples_of
from tgrec.training.progress import Clock, ProgressLine
from tgrec.training.result import FitResult
from tgrec.training.settings import TrainSettings, check_device
from tgrec.training.step import TrainStep
from tgrec.training.stop import NotFiniteError, stop_signals
from tgrec.training.tally import NotANumberError
from tgrec.training.trackers import Tracker

HISTORY = "history.jsonl"
AfterEpoch = Callable[[int], None] | None


def fit(
    model: RecModel,
    split: Split,
    settings: TrainSettings | None = None,
    *,
    folder: Path | None = None,
    resume: bool = False,
    show: bool = True,
    after_epoch: AfterEpoch = None,
    tracker: Tracker | None = None,
    teacher: Teacher | None = None,
    **overrides: Any,
) -> FitResult:
    """Trains on ``split.train``, chooses the weights on ``split.val``, leaves them in ``model``.

    Ctrl-C or SIGTERM ends training after the step under way; the best weights are put back and
    reported, and with ``folder`` the run can be resumed at that step. Under ``torchrun`` every
    process trains on its share of each batch and the loss is averaged over all of it.

    Args:
        model: From ``from_graph(split.train)``. Models without parameters are returned as they are,
            and have nothing to ``resume``.
        split: Histories for training come from ``split.train`` only. Where ``split.val`` is empty
            (:meth:`Split.with_validation`), ``settings.stop_after`` says when the weights are good.
        settings: How; ``overrides`` change single values, as in ``fit(model, split, epochs=5)``.
        folder: Where ``history.jsonl`` and the checkpoint go after every epoch.
        resume: Go on from the checkpoint in ``folder``, bit-equal to never having stopped.
        show: Print progress.
        after_epoch: Called after every epoch with its number, when the model holds its weights.
        tracker: Called with the entry of every epoch (see :mod:`tgrec.training.trackers`).
        teacher: A trained model to learn from (see :mod:`tgrec.training.distill`).
        **overrides: Single values of ``settings``.

    Raises:
        NotFiniteError: If the loss is NaN or infinite; names the epoch and step.
        ValueError: If there is nothing to train on, to choose by or to resume, no such device, or
            checkpoint or teacher do not fit.
    """
    settings = replace(settings or TrainSettings(), **overrides)
    if not (tracker is None or callable(tracker)):
        raise TypeError(
            f"'tracker' needs to be a function of an epoch's entry, for example "
            f"tgrec.training.trackers.tensorboard('logs') (got {tracker!r})"
        )
    device = check_device(settings.device)
    take_device(device)
    teacher = teacher and teacher.ready_for(model, device)
    if model.num_parameters() == 0:
        if resume:
            raise ValueError(
                f"'resume': {type(model).__name__} has no parameters, it counts the events anew "
                f"every time; leave it out"
            )
        return FitResult(stopped="no parameters", peak_memory_mb=peak_memory_mb(settings.device))
    if not len(split.val) and settings.stop_after is None:
        raise ValueError(
            "'split.val' is empty, so that no epoch can be chosen: give targets to validate on, or "
            "say after how many epochs to end (stop_after=)"
        )
    keep_freed_memory()
    model.to(device)
    workers = start_workers(device)
    loop = _Loop.start(model, split, settings, workers, folder, teacher)
    loop.tracker = tracker
    if folder is not None and workers.is_main:
        make_folder(folder)  # before the first epoch is lost on one that cannot be
    torch.manual_seed(settings.seed * 1_000_003 + workers.rank)
    if resume:
        loop.resume()
    line = ProgressLine(settings, loop.steps_per_epoch, show and workers.is_main)
    with stop_signals() as stop_asked, line:
        stopped = _run(loop, line, stop_asked, after_epoch)
    loop.restore_best()
    if stopped != "interrupted" and len(split.val):
        loop.choose(show and workers.is_main)
    return loop.result(stopped)


def _run(
    loop: _Loop, line: ProgressLine, stop_asked: threading.Event, after_epoch: AfterEpoch
) -> str:
    """Epochs until there is a reason to stop; returns it."""
    progress, settings = loop.progress, loop.settings
    clock = Clock(progress.seconds)

    def should_stop() -> bool:
        return loop.workers.agree(float(stop_asked.is_set()), loop.device) > 0

    while progress.epoch < settings.last_epoch and progress.waited < settings.patience:
        # Between epochs too: an epoch may be a single step.
        finished = not should_stop() and loop.train_epoch(line, should_stop)
        progress.seconds = clock()
        if not finished:
            loop.save()
            return "interrupted"
        entry = loop.close_epoch()
        due = progress.epoch % settings.eval_every == 0 or progress.epoch == settings.last_epoch
        if due and len(loop.split.val):
            entry |= loop.validate(clock)
        entry["seconds"] = round(clock(), 3)
        progress.seconds = clock()
        loop.history.append(entry)
        loop.save()
        if loop.tracker is not None and loop.workers.is_main:
            loop.tracker(entry)
        if after_epoch is not None and loop.workers.is_main:
            after_epoch(progress.epoch)
        line.epoch_done(entry, progress)
    return "patience" if progress.waited >= settings.patience else "epochs"


@dataclass
class _Loop:
    """The state of one run."""

    model: RecModel
    optimizer: torch.optim.Optimizer
    step: TrainStep
    graphed: GraphedStep | None  # the same, recorded, where that can be done
    split: Split
    settings: TrainSettings
    workers: Workers
    folder: Path | None
    loader: SeedLoader
    full_index: EventIndex
    steps_per_epoch: int
    progress: Progress = field(default_factory=Progress)
    rate: float = 0.0  # of the last update
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    tracker: Tracker | None = None

    @classmethod
    def start(
        cls,
        model: RecModel,
        split: Split,
        settings: TrainSettings,
        workers: Workers,
        folder: Path | None,
        teacher: Teacher | None,
    ) -> _Loop:
        device = torch.device(settings.device)
        index = EventIndex(split.train, device)
        loader = SeedLoader(index, model.sampling, settings.track, steady=settings.on_cuda)
        if teacher is not None:
            loader = TaughtLoader(**vars(loader), teacher=teacher, amp=settings.amp)
        _, plan = examples_of(loader, settings, workers, epoch=0)
        optimizer = adam(model, settings)
        step = TrainStep(model, wrap(model, workers, teacher), optimizer, settings, workers)
        return cls(
            model=model,
            optimizer=optimizer,
            step=step,
            graphed=graphed(step, teacher is not None),
            split=split,
            settings=settings,
            workers=workers,
            folder=folder,
            loader=loader,
            full_index=EventIndex(split.graph, device),
            steps_per_epoch=len(plan),
        )

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device)

    def train_epoch(self, line: ProgressLine, should_stop: Callable[[], bool]) -> bool:
        """The rest of the epoch under way; False if it was interrupted."""
        settings, progress = self.settings, self.progress
        started = time.perf_counter()
        self.model.train()
        self.model.start_epoch(progress.epoch, settings.epochs)
        if self.graphed is not None:
            self.graphed.start_epoch()
        tally = self.step.tally
        tally.start(progress.step, progress.sums, progress.counts)
        try:
            finished = self._take_steps(line, should_stop)
            progress.sums, progress.counts = tally.read()
        except NotANumberError as error:
            where = f"epoch {progress.epoch + 1}, step {error.step} of {self.steps_per_epoch}"
            self._fail(f"{error} at {where}")
        progress.train_seconds += time.perf_counter() - started
        return finished

    def _take_steps(self, line: ProgressLine, should_stop: Callable[[], bool]) -> bool:
        settings, progress, workers = self.settings, self.progress, self.workers
        seeds, plan = examples_of(self.loader, settings, workers, progress.epoch)
        self.steps_per_epoch = len(plan)
        batches = self.loader.train_batches(
            seeds, settings.batch_size, settings.seed, progress.epoch, progress.step,
            workers.rank, workers.world_size, plan,
        )  # fmt: skip
        for batch in batches:
            last = progress.step + 1 == self.steps_per_epoch
            due = last or (progress.step + 1) % settings.accumulate == 0
            if due:
                step = progress.epoch * self.steps_per_epoch + progress.step
                self.rate = settings.lr_at(step, settings.epochs * self.steps_per_epoch)
                set_rate(self.optimizer, self.rate)
            if self.graphed is None:
                self.step(batch, due)
            else:
                self.graphed(batch)
            progress.step += 1
            line.step_done(progress)
            if due and not last and should_stop():
                return False
        return True

    def _fail(self, what: str) -> NoReturn:
        self.restore_best()
        kept = (
            f"the best weights (epoch {self.progress.best_epoch}) are kept"
            if self.best
            else "no weights were measured before, so none are kept"
        )
        raise NotFiniteError(
            f"{what}; {kept}. A smaller learning rate (lr={self.settings.lr}) usually helps",
            self.progress.best_epoch,
        )

    def close_epoch(self) -> dict[str, Any]:
        """Counts the epoch and says what it was like."""
        progress = self.progress
        loss = sum(progress.sums) / max(sum(progress.counts), 1.0)
        losses = [s / max(c, 1.0) for s, c in zip(progress.sums, progress.counts, strict=True)]
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.counts = [], []
        entry: dict[str, Any] = {"epoch": progress.epoch, "loss": loss}
        if len(losses) > 1:
            entry["losses"] = losses
        entry["lr"] = self.rate
        return entry | self.model.monitor()

    def validate(self, clock: Callable[[], float]) -> dict[str, Any]:
        """Measures the weights and keeps them if they are the best so far."""
        progress = self.progress
        value, metrics = self.measure()
        progress.waited += 1
        if value > progress.best:
            progress.best, progress.best_epoch, progress.waited = value, progress.epoch, 0
            progress.seconds_to_best = clock()
            self.best = parameters_copy(self.model)
        return {"val": metrics}

    def measure(self) -> tuple[float, dict[str, float]]:
        """The validation metric, alike in all processes, and all metrics in the main one."""
        settings, metrics, value = self.settings, {}, 0.0
        if self.workers.is_main:
            try:
                evaluation = evaluate(
                    self.model, self.split, self.split.val, track=settings.track,
                    remove_seen=settings.remove_seen, sampled=False, device=self.device,
                    index=self.full_index, amp=settings.amp,
                )  # fmt: skip
            except NanScoreError as error:
                self._fail(f"after epoch {self.progress.epoch} {error}")
            metrics = evaluation.metrics()["full"]
            value = metrics[settings.metric]
        return self.workers.agree(value, self.device), metrics

    def choose(self, show: bool) -> None:
        """Lets the model choose on validation what it could not learn."""
        values, clock = [self.progress.best], Clock(self.progress.seconds)

        def measure() -> float:
            if show and len(values) == 1:
                print("choosing on validation what is not learned", file=sys.stderr)
            values.append(self.measure()[0])
            return values[-1]

        self.model.choose(measure)
        self.progress.best, self.progress.seconds = max(values), clock()

    def save(self) -> None:
        if self.folder is None or not self.workers.is_main:
            return
        lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
        write_text(self.folder / HISTORY, lines)
        state = (self.model, self.optimizer, self.best, self.progress, self.identity())
        save_checkpoint(self.folder, *state)

    def resume(self) -> None:
        if self.folder is None:
            raise ValueError("'resume' needs the 'folder' of the run")
        self.progress, self.best = load_checkpoint(
            self.folder, self.model, self.optimizer, self.identity()
        )
        self.history = read_history(self.folder / HISTORY, self.progress.epoch)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share.

        It may wait longer, and train longer unless the learning rate falls towards the last epoch,
        and its steps need not be recorded as CUDA graphs.
        """
        free = {"patience", "stop_after", "cuda_graphs"}
        free |= {"epochs"} if self.settings.lr_decay != "cosine" else set()
        settings = {k: v for k, v in asdict(self.settings).items() if k not in free}
        config = {f"model.{k}": v for k, v in self.model.config.items()}
        about: dict[str, Any] = {
            "model": type(self.model).__name__,
            "events": self.loader.index.num_events,
        }
        frozen = {k: p for k, p in self.model.named_parameters() if not p.requires_grad}
        if frozen:
            about["digest of the frozen parameters"] = parameters_digest(frozen)
        for name, digest in node_digests(self.model).items():
            about[f"digest of the features of users or items in {name}"] = digest
        taught = isinstance(self.loader, TaughtLoader) and self.loader.teacher.identity
        return {**settings, **config, **about, "teacher": taught or None}

    def restore_best(self) -> None:
        if self.best:
            load_parameters(self.model, self.best)

    def result(self, stopped: str) -> FitResult:
        progress = self.progress
        done = progress.epoch + progress.step / self.steps_per_epoch
        return FitResult(
            best=progress.best if progress.best_epoch else math.nan,
            best_epoch=progress.best_epoch,
            epochs=progress.epoch,
            seconds=progress.seconds,
            seconds_to_best=progress.seconds_to_best,
            seconds_per_epoch=progress.train_seconds / max(done, 1e-9),
            peak_memory_mb=peak_memory_mb(self.settings.device),
            stopped=stopped,
            history=self.history,
        )
