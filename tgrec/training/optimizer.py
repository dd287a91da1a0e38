"""The optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tgrec.models.base import RecModel
from tgrec.training.settings import TrainSettings


def adam(model: RecModel, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW in one fused kernel; without weight decay it is Adam.

    On CUDA the learning rate is a tensor, so that a captured step reads what it is by then.
    """
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    lr = torch.tensor(settings.lr, device=settings.device) if settings.on_cuda else settings.lr
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=lr,
        weight_decay=settings.weight_decay,
        fused=settings.device != "mps",
        capturable=settings.on_cuda,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
