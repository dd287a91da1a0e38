"""What a person sees while a model trains."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tgrec.training.checkpoint import Progress as RunProgress
from tgrec.training.settings import TrainSettings


class Clock:
    """Seconds since the run began, over all its sessions."""

    def __init__(self, before: float) -> None:
        self.start = time.perf_counter() - before

    def __call__(self) -> float:
        """The seconds until now."""
        return time.perf_counter() - self.start


class ProgressLine:
    """A bar with the time left on a terminal, one line per evaluation elsewhere.

    Args:
        settings: Of the run.
        steps: Steps per epoch.
        show: Whether to show anything.
        console: Where to; stderr by default.
    """

    def __init__(
        self, settings: TrainSettings, steps: int, show: bool, console: Console | None = None
    ) -> None:
        self.settings, self.steps, self.show = settings, steps, show
        self.console = Console(stderr=True) if console is None else console
        self.live = show and self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            TimeElapsedColumn(),
            TextColumn("left at most"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("epoch 1", total=settings.epochs * steps)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def step_done(self, progress: RunProgress) -> None:
        """Moves the bar."""
        if self.live:
            done = progress.epoch * self.steps + progress.step
            self.bar.update(self.task, completed=done)

    def epoch_done(self, entry: dict[str, Any], progress: RunProgress) -> None:
        """Says how the epoch went; without a terminal only after an evaluation."""
        if not self.show:
            return
        metric = self.settings.metric
        text = f"epoch {entry['epoch']}/{self.settings.epochs}  loss {entry['loss']:.4f}"
        if "val" in entry:
            value = entry["val"].get(metric, float("nan"))
            best = f"best {progress.best:.4f}, epoch {progress.best_epoch}"
            text += f"  val {metric} {value:.4f} ({best})"
        if self.live:
            self.bar.update(self.task, description=text)
        elif "val" in entry:
            left = entry["seconds"] / entry["epoch"] * (self.settings.epochs - entry["epoch"])
            self.console.print(
                f"{text}  {entry['seconds']:.0f} s, at most {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )
