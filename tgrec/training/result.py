"""What training gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tgrec.training.stop import TrainingInterrupted


@dataclass(frozen=True)
class FitResult:
    """What happened; the model itself holds the best weights.

    Args:
        best: Validation value of these weights (NaN if none was measured).
        best_epoch: Epoch (from 1) after which it was measured.
        epochs: Epochs finished.
        seconds: Wall-clock time of all, evaluation included.
        seconds_to_best: Until the best weights were there.
        seconds_per_epoch: Mean time of the training steps of an epoch.
        peak_memory_mb: Largest memory of this process so far, of the GPU's if trained there.
        stopped: Why training ended: ``epochs``, ``patience``, ``interrupted`` or ``no parameters``.
        history: One entry per epoch, as in ``history.jsonl``.
    """

    best: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    seconds_to_best: float = 0.0
    seconds_per_epoch: float = 0.0
    peak_memory_mb: float = 0.0
    stopped: str = "epochs"
    history: list[dict[str, Any]] = field(default_factory=list)

    def check_finished(self, metric: str) -> None:
        """Raises TrainingInterrupted, which says how far training came, if it was interrupted."""
        if self.stopped != "interrupted":
            return
        reached = f"validation {metric} {self.best:.4f} so far (epoch {self.best_epoch})"
        measured = reached if self.best_epoch else "nothing measured yet"
        raise TrainingInterrupted(f"interrupted in epoch {self.epochs + 1}, {measured}")
