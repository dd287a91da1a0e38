"""What the checks share: a class to check, its small settings, and how a failure is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tgrec.data import RecBatch, TemporalRecGraph
from tgrec.loader import Track
from tgrec.models.base import RecModel

TRACKS: tuple[Track, Track] = ("T1", "T2")


class ModelCheckError(AssertionError):
    """A model breaks a promise; the message says which, and how it was seen."""


@dataclass(frozen=True)
class Subject:
    """A class to check and the arguments to make it with."""

    model_class: type[RecModel]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """For messages."""
        return self.model_class.__name__

    def make(self, graph: TemporalRecGraph) -> RecModel:
        """A new model, the same every time."""
        torch.manual_seed(0)
        with explained(f"{self.name}.from_graph failed"):
            return self.model_class.from_graph(graph, **self.kwargs)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns any exception into a :class:`ModelCheckError` that says what was tried."""
    try:
        yield
    except ModelCheckError:
        raise
    except Exception as error:
        raise ModelCheckError(f"{what}: {type(error).__name__}: {error}") from error


def require(holds: bool, message: str) -> None:
    """Raises :class:`ModelCheckError` unless ``holds``."""
    if not holds:
        raise ModelCheckError(message)


@torch.no_grad()
def score(model: RecModel, batch: RecBatch) -> Tensor:
    """Scores of a batch, checked for shape and type."""
    name = type(model).__name__
    with explained(f"{name}.score failed (a batch to score holds no item, item_time and key)"):
        scores = model.score(batch)
    wanted = [batch.user.numel(), model.num_items]
    got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    require(got == wanted, f"{name}.score returned {got}, not [B, N] = {wanted}")
    require(
        scores.dtype == torch.float32, f"{name}.score returned {scores.dtype}, not torch.float32"
    )
    return scores
