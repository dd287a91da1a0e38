r"""Distillation: a model learns from the scores of another one beside the labels.

.. math:: \mathcal{L} = (1 - w)\, \mathcal{L}_{\text{labels}} +
    w\, T^2\, \mathrm{KL}\big(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T)\big)

with the scores t of the teacher and s of the student for all items (Hinton, Vinyals and Dean,
2015, arXiv 1503.02531). The teacher is asked the question at the end of each training row, with
the user's events before the same cut, whatever it reads of them: the two models need not read
the same.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import RecBatch, Targets
from tgrec.loader import SeedLoader
from tgrec.models.base import RecModel


@dataclass(frozen=True)
class Teacher:
    """A trained model that another one learns from.

    It answers in evaluation mode, without gradient, and does not change. Models that hold counts
    are asked for :meth:`RecModel.score_left_out`, so that they do not read the label off the
    transition that was counted there. What a teacher has *learned* from the labels it was trained
    on stays in its scores; it has to be fitted on the same training events, or it may have seen
    what is held out here.

    Args:
        model: Of the same items. Its scores are taken for logits; those of models that only count
            lie close together and need a small temperature.
        weight: Share of the teacher in the loss, in (0, 1]; the rest is that of the labels.
        temperature: T; the larger, the more the order of unlikely items counts.
    """

    model: RecModel
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        weight, temperature = self.weight, self.temperature
        if not (isinstance(weight, int | float) and 0 < weight <= 1):
            raise ValueError(f"'weight' of a teacher needs to be in (0, 1] (got {weight!r})")
        number = isinstance(temperature, int | float)
        if not (number and math.isfinite(temperature) and temperature > 0):
            raise ValueError(
                f"'temperature' of a teacher needs to be a positive number (got {temperature!r})"
            )

    def ready_for(self, student: RecModel, device: torch.device) -> Teacher:
        """The same with a copy of the model that nobody else can change.

        Raises:
            ValueError: If the student learns nothing, or the models are of different items.
        """
        if student.num_parameters() == 0:
            raise ValueError(
                f"'teacher': {type(student).__name__} has no parameters and cannot learn from one; "
                f"leave it out"
            )
        if self.model.num_items != student.num_items:
            raise ValueError(
                f"'teacher': {type(self.model).__name__} scores {self.model.num_items} items and "
                f"{type(student).__name__} {student.num_items}; make both from the same split.train"
            )
        model = copy.deepcopy(self.model).to(device).eval().requires_grad_(False)
        return replace(self, model=model)

    @cached_property
    def identity(self) -> str:
        """What a resumed run must share."""
        digest = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        name = type(self.model).__name__
        return f"{name} {digest.hexdigest()[:16]}, {self.weight} at {self.temperature}"


@dataclass(frozen=True)
class TaughtBatch(RecBatch):
    """A training batch and what the teacher says to it.

    Args:
        teacher_score: ``[B, N]`` float32.
    """

    teacher_score: Tensor = field(kw_only=True)


@dataclass(frozen=True)
class TaughtLoader(SeedLoader):
    """A loader whose training batches hold what a teacher says.

    Args:
        teacher: On the device of the index.
    """

    teacher: Teacher = field(kw_only=True)

    @cached_property
    def reader(self) -> SeedLoader:
        """Reads what the teacher asks for."""
        return SeedLoader(self.index, self.teacher.model.sampling, self.track)

    def batch(self, seeds: Targets, max_len: int | None = None, key: int | None = None) -> RecBatch:
        """See :meth:`SeedLoader.batch`; with ``key`` a :class:`TaughtBatch`."""
        batch = super().batch(seeds, max_len, key)
        if key is None:
            return batch
        columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
        return TaughtBatch(**columns, teacher_score=self._answers(seeds))

    @torch.no_grad()
    def _answers(self, seeds: Targets) -> Tensor:
        longest = int(self.reader.lengths(seeds).max().clamp(min=1))  # models need one position
        # Without a key, as if to be evaluated: nothing is drawn. The labels are for leaving out.
        asked = replace(
            self.reader.batch(seeds, longest),
            item=seeds.item,
            item_time=seeds.time if self.index.has_time else None,
        )
        return self.teacher.model.score_left_out(asked).float()


def loss_terms(model: RecModel, batch: RecBatch, teacher: Teacher | None) -> tuple[Tensor, Tensor]:
    """``model.loss_terms``, and the teacher's part behind them if there is one.

    The parts are weighted such that sum over count is the loss above: the soft part counts as
    ``w / (1 - w)`` times as many predictions as all parts of the labels together. In it a row
    weighs as much as its history has events, as it does in most models among the labels; parts of
    a batch (``events_at_once``) then add up to the same.
    """
    sums, counts = model.loss_terms(batch)
    if teacher is None:
        return sums, counts
    assert isinstance(batch, TaughtBatch)
    lost = soft_loss(model.score_left_out(batch), batch.teacher_score, teacher.temperature)
    events = torch.ones_like(lost) if batch.history is None else batch.history.mask.sum(1)
    events = events.clamp(min=1)
    weight, size = teacher.weight, counts.sum().detach()
    soft = ((lost * events).sum() / events.sum() * size).view(1).to(sums.dtype)
    return (
        torch.cat([(1 - weight) * sums, weight * soft]),
        torch.cat([(1 - weight) * counts, weight * size.view(1)]),
    )


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``[B]`` the divergence of the students' scores ``[B, N]`` from the teacher's, times T^2.

    (By T^2, as gradients shrink by that much: weights then mean the same at every temperature.)
    """
    wanted = (teacher.float() / temperature).softmax(1)
    told = (student.float() / temperature).log_softmax(1)
    return F.kl_div(told, wanted, reduction="none").sum(1) * temperature**2
