"""Training anew on train and validation together, as a finished run has found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tgrec.training.record import RunRecord, run_identity
from tgrec.training.settings import TrainSettings


@dataclass(frozen=True)
class Refit:
    """What to train anew, and what the run chose on validation.

    Args:
        record: Of the run.
        config: Settings of its model, for ``from_graph``.
        settings: Those of the run, which end after the epoch of its best weights.
        chosen: What the model chose when training was over (:meth:`RecModel.choose`).
    """

    record: RunRecord
    config: dict[str, Any]
    settings: TrainSettings
    chosen: dict[str, Any]

    @property
    def identity(self) -> str:
        """What tells the run from all others."""
        return run_identity(self.record)
