"""Ctrl-C and SIGTERM as a request to stop after the step under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class NotFiniteError(ArithmeticError):
    """The loss or a gradient stopped being a number; the best weights so far are kept.

    Attributes:
        best_epoch: After which epoch the weights that the model now holds were measured; 0 if
            there were none to go back to.
    """

    def __init__(self, message: str, best_epoch: int = 0) -> None:
        super().__init__(message)
        self.best_epoch = best_epoch


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run after the step under way; its folder is ready to be resumed."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second signal acts at once, as it did before.

    Outside the main thread, where Python delivers no signals, nothing sets it.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        asked.set()
        restore()

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        restore()
