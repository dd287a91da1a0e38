"""What the loop needs of ``torch.distributed``, and what it is without it."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tgrec.data import RecBatch
from tgrec.models.base import RecModel
from tgrec.training.distill import Teacher, loss_terms


@dataclass(frozen=True)
class Workers:
    """This process among those that train together (``torchrun`` starts them).

    Args:
        rank: 0 is the one that reports and writes.
        world_size: 1 without ``torchrun``.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def agree(self, value: float, device: torch.device) -> float:
        """The value that the main process has."""
        if self.world_size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, src=0)
        return float(shared)


def take_device(device: torch.device) -> None:
    """Makes a CUDA device the current one; of ``torchrun``'s processes each has its own ``cuda``.

    Raises:
        ValueError: If it is one and the same for several processes.
    """
    if device.type != "cuda":
        return
    if device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"'device' {str(device)!r} is one device, and several processes train together; with "
            f"'cuda' each has its own"
        )
    local = os.environ.get("LOCAL_RANK") if device.index is None else device.index
    if local is not None:
        torch.cuda.set_device(int(local))


def start_workers(device: torch.device) -> Workers:
    """Joins the other processes if ``torchrun`` started this one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Workers()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # Left alone, its threads can outlive the interpreter, which then aborts at the very end.
        atexit.register(dist.destroy_process_group)
    return Workers(dist.get_rank(), world_size)


class LossTerms(nn.Module):
    """``model.loss_terms`` as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: RecModel, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher

    def forward(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """See :func:`tgrec.training.distill.loss_terms`."""
        return loss_terms(self.model, batch, self.teacher)


def wrap(model: RecModel, workers: Workers, teacher: Teacher | None = None) -> nn.Module:
    """The module to call for the loss terms; averages gradients over processes if there are any."""
    terms = LossTerms(model, teacher)
    if workers.world_size == 1:
        return terms
    return cast(nn.Module, DistributedDataParallel(terms))
