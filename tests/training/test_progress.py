from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tgrec.training import TrainSettings
from tgrec.training.checkpoint import Progress
from tgrec.training.progress import ProgressLine, duration


def line(terminal: bool, show: bool = True) -> tuple[ProgressLine, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    made = ProgressLine(TrainSettings(epochs=10, eval_every=2), 3, show, console)
    return made, out


def run(made: ProgressLine) -> None:
    with made:
        for epoch in range(1, 5):
            progress = Progress(epoch=epoch - 1, best=0.25, best_epoch=2)
            for progress.step in range(1, 4):
                made.step_done(progress)
            entry: dict[str, Any] = {"epoch": epoch, "loss": 1.0 / epoch, "seconds": 6.0 * epoch}
            if epoch % 2 == 0:
                entry["val"] = {"NDCG@10": epoch / 8}
            made.epoch_done(entry, Progress(epoch=epoch, best=0.25, best_epoch=2))


def test_without_a_terminal_one_line_per_measurement() -> None:
    made, out = line(terminal=False)
    run(made)
    best = "(best 0.2500, epoch 2)"
    assert out.getvalue().splitlines() == [
        f"epoch 2/10  loss 0.5000  val NDCG@10 0.2500 {best}  12 s, at most 48 s left",
        f"epoch 4/10  loss 0.2500  val NDCG@10 0.5000 {best}  24 s, at most 36 s left",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_after_some_steps_it_says_once_how_long_all_will_take(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 0.0
    monkeypatch.setattr("tgrec.training.progress.time.perf_counter", lambda: seconds)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    settings = TrainSettings(epochs=30)
    with ProgressLine(settings, 50, True, console) as made:
        for step in range(1, 51):
            seconds += 100.0 if step == 1 else 1.0  # the first one is no measure
            made.step_done(Progress(step=step))
    said = "about 25 minutes for 30 epochs here, evaluations not counted"
    assert out.getvalue().count(said) == 1
    if not terminal:
        assert out.getvalue() == said + "\n"


def test_epochs_of_a_few_steps_are_over_before_anything_is_foretold() -> None:
    out = io.StringIO()
    with ProgressLine(TrainSettings(epochs=30), 5, True, Console(file=out, width=200)) as made:
        for step in range(100):
            made.step_done(Progress(epoch=step // 5, step=step % 5 + 1))
    assert out.getvalue() == ""


def test_times_in_words() -> None:
    words = [duration(s) for s in (5, 61, 1500, 7199, 9000)]
    assert words == ["less than a minute", "about 1 minute", "about 25 minutes",
                     "about 120 minutes", "about 2.5 hours"]  # fmt: skip


def test_on_a_terminal_the_bar_moves_by_steps() -> None:
    made, out = line(terminal=True)
    run(made)
    assert made.bar.tasks[0].completed == 12
    assert made.bar.tasks[0].total == 30
    assert "12/30 steps" in out.getvalue()
    assert "epoch 4/10  loss 0.2500" in out.getvalue()
    assert made.bar.finished is False


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_where_nothing_shall_be(terminal: bool) -> None:
    made, out = line(terminal, show=False)
    run(made)
    assert out.getvalue() == ""


def test_a_resumed_run_begins_where_it_was() -> None:
    made, _ = line(terminal=True)
    with made:
        made.step_done(Progress(epoch=5, step=1))
    assert made.bar.tasks[0].completed == 16


def test_on_cuda_nothing_is_foretold_of_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    for on_cuda in (False, True):
        monkeypatch.setattr(TrainSettings, "on_cuda", on_cuda)
        out = io.StringIO()
        made = ProgressLine(TrainSettings(epochs=2), 40, True, Console(file=out, width=200))
        progress = Progress()
        with made:
            for progress.step in range(1, 41):
                made.step_done(progress)
        assert ("for 2 epochs here" in out.getvalue()) != on_cuda
