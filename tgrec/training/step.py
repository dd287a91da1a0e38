"""One step of training: gradients of a batch, and the optimizer's step where it is due."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgrec.data import RecBatch
from tgrec.models.base import RecModel
from tgrec.training.distributed import Workers
from tgrec.training.parts import parts_of
from tgrec.training.settings import TrainSettings, autocast
from tgrec.training.tally import DeviceTally, HostTally, Tally


class TrainStep:
    """Steps of training, and what they come to.

    On CUDA nothing in it waits for the device: figures stay there until ``tally`` is read, and
    from the first one on that is no number the weights do not move any more.

    Args:
        model: What is trained.
        terms: Its loss terms as a module (see :func:`tgrec.training.distributed.wrap`).
        optimizer: Of its parameters.
        settings: Of the run.
        workers: The processes that train together.
    """

    def __init__(
        self,
        model: RecModel,
        terms: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainSettings,
        workers: Workers,
    ) -> None:
        self.model, self.terms, self.optimizer = model, terms, optimizer
        self.settings, self.workers = settings, workers
        self.counted: Tensor | None = None  # predictions in the gradients so far, None after a step
        self.tally: Tally = HostTally()
        if settings.on_cuda:
            self.tally = tally = DeviceTally(torch.device(settings.device))
            optimizer.found_inf = tally.bad  # type: ignore[attr-defined]

    def __call__(self, batch: RecBatch, due: bool = True) -> None:
        """Adds the gradients of ``batch``; takes the optimizer's step if it is ``due``.

        Raises:
            NotANumberError: On devices other than CUDA, if the loss or the gradient is not finite.
        """
        parts = parts_of(batch, self.settings, self.workers)
        sums, counts = zip(*[self._add_gradients(part) for part in parts], strict=True)
        if due:
            self._update()
        self.tally.add(torch.stack(sums).sum(0), torch.stack(counts).sum(0))

    def start_anew(self) -> None:
        """Forgets a step that was begun and has no end."""
        self.counted = None
        self.optimizer.zero_grad(set_to_none=True)

    def _update(self) -> None:
        self.counted = None
        if self.settings.clip:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.tally.check_gradient(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _add_gradients(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Gradients of one part of a step; returns its sums and counts over all processes."""
        workers, before = self.workers, self.counted
        with autocast(self.settings):
            sums, counts = self.terms(batch)
        total = workers.total(counts.detach())
        self.counted = total.sum() if before is None else before + total.sum()
        count = self.counted.clamp(min=1)
        # DistributedDataParallel averages gradients; the loss is a sum over the global count.
        loss = sums.sum() / count * workers.world_size
        self.tally.check_loss(workers.total(loss.detach()))
        if before is not None:  # the gradients so far were means over fewer predictions
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(before / count)
        loss.backward()
        return workers.total(sums.detach().double()), total.double()
