"""What the steps of an epoch add up to, on the host or on the device that computes them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class NotANumberError(ArithmeticError):
    """A loss or a gradient that is not finite.

    Attributes:
        step: Of its epoch, from 1.
    """

    def __init__(self, what: str, step: int) -> None:
        super().__init__(what)
        self.step = step


class Tally(Protocol):
    """Sums and counts of the loss over the steps of an epoch, and whether all were numbers."""

    def start(self, step: int, sums: list[float], counts: list[float]) -> None:
        """Begins an epoch behind its first ``step`` steps, which came to ``sums``, ``counts``."""

    def check_loss(self, loss: Tensor) -> None:
        """Takes note of the loss of the step under way."""

    def check_gradient(self, norm: Tensor) -> None:
        """Takes note of the norm of its gradient."""

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Ends the step under way."""

    def read(self) -> tuple[list[float], list[float]]:
        """Sums and counts so far.

        Raises:
            NotANumberError: At the latest now, if a loss or a gradient was not finite.
        """


class HostTally:
    """Reads the figures of every step at once; the first that is no number ends the step."""

    def __init__(self) -> None:
        self.start(0, [], [])

    def start(self, step: int, sums: list[float], counts: list[float]) -> None:
        """See :class:`Tally`."""
        self.step, self.sums, self.counts = step, sums, counts

    def check_loss(self, loss: Tensor) -> None:
        """See :class:`Tally`."""
        if not torch.isfinite(loss):
            raise NotANumberError(f"the loss is {loss.item()}", self.step + 1)

    def check_gradient(self, norm: Tensor) -> None:
        """See :class:`Tally`."""
        if not torch.isfinite(norm):
            raise NotANumberError("the gradient is not finite", self.step + 1)

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """See :class:`Tally`."""
        self.step += 1
        self.sums = _add(self.sums, sums.tolist())
        self.counts = _add(self.counts, counts.tolist())

    def read(self) -> tuple[list[float], list[float]]:
        """See :class:`Tally`."""
        return self.sums, self.counts


class DeviceTally:
    """Keeps everything on the device, at fixed places, until :meth:`read` waits for it.

    Attributes:
        bad: 1 from the first step on whose loss or gradient is not finite, else 0. An optimizer
            that has it as ``found_inf`` moves nothing any more from then on.
    """

    def __init__(self, device: torch.device) -> None:
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        # The steps at which a loss and a gradient were not finite for the first time; 0 for none.
        self.failed = torch.zeros(2, dtype=torch.int64, device=device)
        self.bad = torch.zeros((), device=device)
        # Sums, then counts; how many there are is known after the first step.
        self.total: Tensor | None = None
        self.before: list[float] = []

    def start(self, step: int, sums: list[float], counts: list[float]) -> None:
        """See :class:`Tally`."""
        self.step.fill_(step)
        self.failed.zero_()
        self.bad.zero_()
        self.before = [*sums, *counts]
        if self.total is not None:
            self.total.copy_(self._begin(self.total))

    def check_loss(self, loss: Tensor) -> None:
        """See :class:`Tally`."""
        self._note(self.failed[0], loss)

    def check_gradient(self, norm: Tensor) -> None:
        """See :class:`Tally`."""
        self._note(self.failed[1], norm)

    def _note(self, failed: Tensor, value: Tensor) -> None:
        first = ~torch.isfinite(value) & (failed == 0)
        failed += first * (self.step + 1)
        self.bad.copy_((self.failed > 0).any())

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """See :class:`Tally`."""
        self.step += 1
        figures = torch.cat([sums, counts])
        if self.total is None:
            self.total = self._begin(figures)
        self.total += figures

    def _begin(self, like: Tensor) -> Tensor:
        return like.new_tensor(self.before) if self.before else torch.zeros_like(like)

    def read(self) -> tuple[list[float], list[float]]:
        """See :class:`Tally`; the only place where the host waits."""
        if self.total is None:
            half = len(self.before) // 2
            return self.before[:half], self.before[half:]
        loss, gradient, *figures = torch.cat([self.failed.double(), self.total]).tolist()
        if loss and not 0 < gradient < loss:
            raise NotANumberError("the loss is not finite", int(loss))
        if gradient:
            raise NotANumberError("the gradient is not finite", int(gradient))
        half = len(figures) // 2
        return figures[:half], figures[half:]


def _add(total: list[float], part: list[float]) -> list[float]:
    return [a + b for a, b in zip(total, part, strict=True)] if total else part
