"""How a model is trained: plain values, all of them in the record of the run."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tgrec.loader import TRACKS, WINDOWS, Track
from tgrec.metrics import summarize
from tgrec.nn.linear_cross_entropy import fast_dtype

METRICS = tuple(summarize(torch.tensor([1])))


@dataclass(frozen=True)
class TrainSettings:
    """Settings of :func:`tgrec.training.fit`.

    Args:
        epochs: At most so many passes over the training seeds.
        stop_after: End after so many of them, on the way to ``epochs`` that the learning rate and
            other schedules are made for; None for all.
        patience: Stop after so many evaluations without a better validation value.
        eval_every: Evaluate after every so many epochs.
        batch_size: Seeds per step, on average (see :meth:`SeedLoader.train_batches`).
        lr: Learning rate of Adam after warm-up.
        weight_decay: Decoupled (AdamW), on matrices only.
        warmup_steps: Steps in which the learning rate rises linearly from 0.
        lr_decay: ``none`` keeps it, ``cosine`` lets it fall to 1 % of it over ``epochs``.
        accumulate: Batches per step of the optimizer, as if they were one.
        events_at_once: Larger batches, in events with padding, are read in parts and their
            gradients added up, which bounds the memory of a step. None is 16,384 on the CPU and
            no bound elsewhere. Parts change neither loss nor gradient (but which random numbers
            dropout draws), unless what a model loses on a row depends on the other rows.
        clip: Largest norm of the gradient; 0 leaves it alone.
        windows: ``last`` reads the last ``max_len`` events of each user, ``all`` all of them in
            windows, ``random`` a window that ends elsewhere every epoch, ``early`` one that often
            ends after a few events (see :func:`tgrec.loader.training_seeds`).
        track: What the model may know about the time of the question.
        metric: The validation metric (full ranking) that chooses the weights.
        remove_seen: Whether items of the past are left out of the validation ranking.
        seed: Of the order of batches, masks and dropout, in 0..2**32 - 1.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: ``bf16`` runs products in bfloat16, ``fp32`` does not, ``auto`` is bf16 where
            the hardware has it.
    """

    epochs: int = 200
    patience: int = 20
    eval_every: int = 1
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0
    lr_decay: Literal["none", "cosine"] = "none"
    accumulate: int = 1
    events_at_once: int | None = None
    clip: float = 1.0
    windows: Literal["last", "all", "random", "early"] = "last"
    track: Track = "T1"
    metric: str = "NDCG@10"
    remove_seen: bool = True
    seed: int = 0
    device: str = "cpu"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    stop_after: int | None = None

    def __post_init__(self) -> None:
        counts = ["epochs", "patience", "eval_every", "batch_size", "accumulate"]
        optional = [n for n in ("events_at_once", "stop_after") if getattr(self, n) is not None]
        for name in counts + optional:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
        if self.last_epoch > self.epochs:
            raise ValueError(
                f"'stop_after' needs to be at most 'epochs', {self.epochs} (got {self.stop_after})"
            )
        for name in ("lr", "weight_decay", "clip", "warmup_steps"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and math.isfinite(value) and value >= 0
            if not number or (name == "lr" and value == 0):
                kind = "a positive number" if name == "lr" else "a number of at least 0"
                raise ValueError(f"'{name}' needs to be {kind} (got {value!r})")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed >> 32:
            raise ValueError(f"'seed' needs to be an integer in 0..2**32 - 1 (got {self.seed!r})")
        choices = {"lr_decay": ("none", "cosine"), "windows": WINDOWS, "track": TRACKS,
                   "precision": ("auto", "bf16", "fp32"), "metric": METRICS}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"'{name}' needs to be one of {list(allowed)} (got {getattr(self, name)!r})"
                )

    @property
    def last_epoch(self) -> int:
        """The epoch (from 1) after which training ends, if it does not end before."""
        return self.epochs if self.stop_after is None else self.stop_after

    @property
    def amp(self) -> bool:
        """Whether products run in bfloat16, in training and in evaluation."""
        fast = fast_dtype(torch.device(self.device)) == torch.bfloat16
        return self.precision == "bf16" or (self.precision == "auto" and fast)

    def lr_at(self, step: int, total: int) -> float:
        """The learning rate of step ``step`` (from 0) of ``total``."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.lr_decay == "none":
            return self.lr * rise
        done = max(0, step - self.warmup_steps) / max(1, total - self.warmup_steps)
        return self.lr * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def check_device(device: torch.device | str) -> torch.device:
    """The device; raises ValueError unless tensors can be made there."""
    try:
        if device is None:  # torch would take it for the CPU, but not everywhere
            raise TypeError("None is no device")
        return torch.empty(1, device=device).add(1).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"'device' {str(device)!r} cannot be used here ({reason}); use device='cpu'; "
            f"`tgrec doctor` says what there is"
        ) from error


def autocast(settings: TrainSettings) -> AbstractContextManager[Any]:
    """The precision context of the settings."""
    if not settings.amp:
        return nullcontext()
    return torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16)
