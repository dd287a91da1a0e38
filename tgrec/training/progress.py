"""What a person sees while a model trains."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tgrec.training.checkpoint import Progress as RunProgress
from tgrec.training.settings import TrainSettings

TIMED = 20  # steps behind the first one, of which the time of all is foretold


class Clock:
    """Seconds since the run began, over all its sessions."""

    def __init__(self, before: float) -> None:
        self.start = time.perf_counter() - before

    def __call__(self) -> float:
        """The seconds until now."""
        return time.perf_counter() - self.start


class ProgressLine:
    """A bar with the time left on a terminal, one line per ``eval_every`` epochs elsewhere.

    On both, after some steps of a first epoch that is longer than that, one line that says how long
    all of them will take.

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
        self.task = self.bar.add_task("epoch 1", total=settings.last_epoch * steps)
        self.seen, self.since = 0, 0.0  # steps of this session, and when the first one ended
        self.first: int | None = None  # epoch that it began with

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
        """Moves the bar, and once says how long it will take."""
        done = progress.epoch * self.steps + progress.step
        if self.live:
            self.bar.update(self.task, completed=done)
        self.seen += 1
        self.first = progress.epoch if self.first is None else self.first
        if self.seen == 1:  # the first step also makes what the others find ready
            self.since = time.perf_counter()
        elif self.show and self.seen == 1 + TIMED and progress.epoch == self.first:
            each = (time.perf_counter() - self.since) / TIMED
            left = self.settings.last_epoch * self.steps - done
            epochs = self.settings.last_epoch - progress.epoch
            count = "1 epoch" if epochs == 1 else f"{epochs} epochs"
            self._say(f"{duration(left * each)} for {count} here, evaluations not counted")

    def epoch_done(self, entry: dict[str, Any], progress: RunProgress) -> None:
        """Says how the epoch went; without a terminal only where an evaluation is due."""
        if not self.show:
            return
        metric = self.settings.metric
        text = f"epoch {entry['epoch']}/{self.settings.last_epoch}  loss {entry['loss']:.4f}"
        if "val" in entry:
            value = entry["val"].get(metric, float("nan"))
            best = f"best {progress.best:.4f}, epoch {progress.best_epoch}"
            text += f"  val {metric} {value:.4f} ({best})"
        if self.live:
            self.bar.update(self.task, description=text)
        elif "val" in entry or entry["epoch"] % self.settings.eval_every == 0:
            left = entry["seconds"] / entry["epoch"] * (self.settings.last_epoch - entry["epoch"])
            self._say(f"{text}  {entry['seconds']:.0f} s, at most {left:.0f} s left")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time that is a guess, in words."""
    if seconds < 60:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes <= 120:
        return f"about {minutes} minute{'s' * (minutes > 1)}"
    return f"about {seconds / 3600:.1f} hours"
