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
from torch import Tensor, nn

from tgrec.data import RecBatch, Split
from tgrec.data.files import make_folder, write_text
from tgrec.loader import SeedLoader
from tgrec.metrics import NanScoreError
from tgrec.models.base import RecModel
from tgrec.models.io import load_parameters, node_digests, parameters_copy, parameters_digest
from tgrec.sampler import EventIndex
from tgrec.training.allocator import keep_freed_memory, peak_memory_mb
from tgrec.training.checkpoint import Progress, load_checkpoint, read_history, save_checkpoint
from tgrec.training.distill import TaughtLoader, Teacher
from tgrec.training.distributed import Workers, start_workers, wrap
from tgrec.training.evaluate import evaluate
from tgrec.training.optimizer import adam
from tgrec.training.parts import examples_of, parts_of
from tgrec.training.progress import Clock, ProgressLine
from tgrec.training.result import FitResult
from tgrec.training.settings import TrainSettings, autocast, check_device
from tgrec.training.stop import NotFiniteError, stop_signals
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
    terms: nn.Module
    optimizer: torch.optim.Optimizer
    split: Split
    settings: TrainSettings
    workers: Workers
    folder: Path | None
    loader: SeedLoader
    full_index: EventIndex
    steps_per_epoch: int
    progress: Progress = field(default_factory=Progress)
    counted: Tensor | None = None  # predictions in the gradients so far, None after a step
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
        loader = SeedLoader(EventIndex(split.train, device), model.sampling, settings.track)
        if teacher is not None:
            loader = TaughtLoader(**vars(loader), teacher=teacher, amp=settings.amp)
        _, steps = examples_of(loader, settings, workers, epoch=0)
        return cls(
            model=model,
            terms=wrap(model, workers, teacher),
            optimizer=adam(model, settings),
            split=split,
            settings=settings,
            workers=workers,
            folder=folder,
            loader=loader,
            full_index=EventIndex(split.graph, device),
            steps_per_epoch=steps,
        )

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device)

    def train_epoch(self, line: ProgressLine, should_stop: Callable[[], bool]) -> bool:
        """The rest of the epoch under way; False if it was interrupted."""
        settings, progress, workers = self.settings, self.progress, self.workers
        started = time.perf_counter()
        self.model.train()
        self.model.start_epoch(progress.epoch, settings.epochs)
        seeds, self.steps_per_epoch = examples_of(self.loader, settings, workers, progress.epoch)
        batches = self.loader.train_batches(
            seeds, settings.batch_size, settings.seed, progress.epoch, progress.step,
            workers.rank, workers.world_size,
        )  # fmt: skip
        for batch in batches:
            sums, counts = self._step(batch)
            progress.step += 1
            progress.sums = _add(progress.sums, sums)
            progress.counts = _add(progress.counts, counts)
            line.step_done(progress)
            last = progress.step == self.steps_per_epoch
            if not last and progress.step % settings.accumulate == 0 and should_stop():
                progress.train_seconds += time.perf_counter() - started
                return False
        progress.train_seconds += time.perf_counter() - started
        return True

    def _step(self, batch: RecBatch) -> tuple[list[float], list[float]]:
        """Gradients of one batch, and the optimizer's step where it is due."""
        settings, progress = self.settings, self.progress
        where = f"epoch {progress.epoch + 1}, step {progress.step + 1} of {self.steps_per_epoch}"
        parts = parts_of(batch, settings, self.workers)
        sums, counts = zip(*[self._add_gradients(part, where) for part in parts], strict=True)
        last = progress.step + 1 == self.steps_per_epoch
        if last or (progress.step + 1) % settings.accumulate == 0:
            self.counted = None
            if settings.clip:
                norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
                if not torch.isfinite(norm):
                    self._fail(f"the gradient is not finite at {where}")
            step = progress.epoch * self.steps_per_epoch + progress.step
            for group in self.optimizer.param_groups:
                group["lr"] = settings.lr_at(step, settings.epochs * self.steps_per_epoch)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return torch.stack(sums).sum(0).tolist(), torch.stack(counts).sum(0).tolist()

    def _add_gradients(self, batch: RecBatch, where: str) -> tuple[Tensor, Tensor]:
        """Gradients of one part of a step; returns its sums and counts over all processes."""
        workers, before = self.workers, self.counted
        with autocast(self.settings):
            sums, counts = self.terms(batch)
        total = workers.total(counts.detach())
        self.counted = total.sum() if before is None else before + total.sum()
        count = self.counted.clamp(min=1)
        # DistributedDataParallel averages gradients; the loss is a sum over the global count.
        loss = sums.sum() / count * workers.world_size
        if not torch.isfinite(workers.total(loss.detach())):
            self._fail(f"the loss is {loss.item()} at {where}")
        if before is not None:  # the gradients so far were means over fewer predictions
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(before / count)
        loss.backward()
        return workers.total(sums.detach().double()), total.double()

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
        entry["lr"] = self.optimizer.param_groups[0]["lr"]
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

        It may wait longer, and train longer unless the learning rate falls towards the last epoch.
        """
        falling = self.settings.lr_decay == "cosine"
        free = {"patience", "stop_after"} if falling else {"patience", "stop_after", "epochs"}
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


def _add(total: list[float], part: list[float]) -> list[float]:
    return [a + b for a, b in zip(total, part, strict=True)] if total else part
