"""The optimizer."""

from __future__ import annotations

from typing import Any

import torch

from tgrec.models.base import RecModel
from tgrec.training.settings import TrainSettings


def adam(model: RecModel, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW in one fused kernel; without weight decay it is Adam."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        fused=settings.device != "mps",
    )
