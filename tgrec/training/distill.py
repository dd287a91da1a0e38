r"""Distillation: a model learns from the scores of another one beside the labels.

.. math:: \mathcal{L} = (1 - w)\, \mathcal{L}_{\text{labels}} +
    w\, T^2\, \mathrm{KL}\big(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T)\big)

with the scores t of the teacher and s of the student for all items (Hinton, Vinyals and Dean,
2015, arXiv 1503.02531). The teacher is asked the question at the end of each training row, with
the user's events before the same cut, whatever it reads of them: the two models need not read
the same.

Models that predict the next item at every position (:meth:`RecModel.next_states`) can be taught at
all of them. The share w of the teacher then replaces as much of the labels in the loss of the
next items, at T = 1, and other parts of the loss stay as they are (in ``tgt_bert4rec`` masked items
and fused scores); a teacher answers by these states alone, without what it adds to them at the end
of a history:

.. math:: -\sum_n \big[(1 - w)\, 1_{n = y} + w\, \mathrm{softmax}(t)_n\big]
    \log \mathrm{softmax}(s)_n

A teacher may know more of the question than its student: one of T2, which knows when an event of
the past happened, tells a student of T1 what it does at such times, of which the student learns the
mean (privileged information; Lopez-Paz et al., ICLR 2016, arXiv 1511.03643).
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import RecBatch, SoftLabels, Targets
from tgrec.loader import SeedLoader, Track
from tgrec.loader.tracks import TRACKS
from tgrec.models.base import RecModel

Positions = Literal["end", "all"]
POSITIONS: tuple[Positions, ...] = get_args(Positions)


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
        temperature: T; the larger, the more the order of unlikely items counts. None is 2, and 1
            at all positions, where there is no other.
        at: ``end`` asks at the end of each training row, ``all`` after each of its events.
        track: What the teacher may know about the time of the question, if not what the student
            may.
        prefix: What stands before the names of these arguments where they were given, such as
            ``distill_`` before ``weight``; errors name them so.
    """

    model: RecModel
    weight: float = 0.5
    temperature: float | None = None
    at: Positions = "end"
    track: Track | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        prefix = self.prefix
        for name, given, allowed in (("at", self.at, POSITIONS), ("track", self.track, TRACKS)):
            if given not in allowed and (name, given) != ("track", None):
                raise ValueError(
                    f"'{prefix}{name}' of a teacher needs to be one of {list(allowed)} (got "
                    f"{given!r})"
                )
        weight, temperature = self.weight, self.divisor
        if not (isinstance(weight, int | float) and 0 < weight <= 1):
            raise ValueError(
                f"'{prefix}weight' of a teacher needs to be in (0, 1] (got {weight!r})"
            )
        number = isinstance(temperature, int | float)
        if not (number and math.isfinite(temperature) and temperature > 0):
            raise ValueError(
                f"'{prefix}temperature' of a teacher needs to be a positive number (got "
                f"{temperature!r})"
            )
        if self.at == "all" and temperature != 1:
            raise ValueError(
                f"'{prefix}temperature' of a teacher needs to be 1, or left out, with "
                f"{prefix}at='all' (got {temperature!r})"
            )

    @property
    def divisor(self) -> float:
        """T, also where it is left out."""
        if self.temperature is not None:
            return self.temperature
        return 2.0 if self.at == "end" else 1.0

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
        if self.at == "all":
            self._check_positions(student)
        model = copy.deepcopy(self.model).to(device).eval().requires_grad_(False)
        return replace(self, model=model)

    def _check_positions(self, student: RecModel) -> None:
        at = f"{self.prefix}at"
        for model in (self.model, student):
            if not model.has_next_states:
                raise ValueError(
                    f"'teacher' with {at}='all' needs two models that predict the next item at "
                    f"every position, and {type(model).__name__} does not; use {at}='end'"
                )
        own, theirs = student.sampling.max_len, self.model.sampling.max_len
        if own != theirs:
            raise ValueError(
                f"'teacher' with {at}='all' needs to read as many events as its student (got "
                f"'max_len' of {theirs} and {own}); use {at}='end', or the same 'max_len'"
            )

    @cached_property
    def identity(self) -> str:
        """What a resumed run must share."""
        digest = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        name = type(self.model).__name__
        how = f"{self.weight} at {self.divisor}"
        further = [] if self.at == "end" else ["all positions"]
        further += [] if self.track is None else [self.track]
        return ", ".join([f"{name} {digest.hexdigest()[:16]}", how, *further])


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
        amp: Whether its products run in bfloat16.
    """

    teacher: Teacher = field(kw_only=True)
    amp: bool = False

    @cached_property
    def reader(self) -> SeedLoader:
        """Reads what the teacher asks for."""
        track = self.teacher.track or self.track
        return SeedLoader(self.index, self.teacher.model.sampling, track)

    def batch(self, seeds: Targets, max_len: int | None = None, key: int | None = None) -> RecBatch:
        """See :meth:`SeedLoader.batch`; with ``key`` a :class:`TaughtBatch`, or soft labels."""
        batch = super().batch(seeds, max_len, key)
        if key is None:
            return batch
        with torch.autocast(self.index.device.type, torch.bfloat16, enabled=self.amp):
            if self.teacher.at == "all":
                return replace(batch, soft=self._soft(seeds, max_len))
            columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
            return TaughtBatch(**columns, teacher_score=self._answers(seeds))

    @torch.no_grad()
    def _soft(self, seeds: Targets, max_len: int | None) -> SoftLabels:
        model = self.teacher.model
        states = model.next_states(self.reader.batch(seeds, max_len))
        return SoftLabels(states, model.next_table(), self.teacher.weight)

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
    if teacher is None or teacher.at == "all":  # soft labels are in the loss of next items
        return sums, counts
    assert isinstance(batch, TaughtBatch)
    lost = soft_loss(model.score_left_out(batch), batch.teacher_score, teacher.divisor)
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
