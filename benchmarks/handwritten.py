"""A compiled hand-written loop: the honest side of benchmarks/throughput.py.

What somebody would write who knows what they are doing: all sequences padded once and kept on the
device, masks drawn there, the usual encoder (usual.py) under ``torch.compile``, bfloat16 where the
hardware has it, and one fused Adam. On CUDA ``mode="reduce-overhead"`` replays CUDA graphs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch
from torch import Tensor
from usual import IGNORED, UsualEncoder

from tgrec.training import TrainSettings, autocast


def why_not_compiled(device: str) -> str:
    """Why the loop cannot be compiled here; empty if it can."""
    if device.startswith("cuda") or any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return ""
    return "there is no C++ compiler"


class HandWritten:
    """Epochs over sequences that lie on the device.

    Args:
        model: On the device.
        inputs: ``[n, L]`` as usual.py pads them, nothing masked.
        targets: ``[n, L]`` likewise; for a cloze the items themselves.
        mask_prob: Share of positions to mask anew in every batch; None for next items.
        batch_size: Rows per step; those that fill no batch wait for the next epoch.
        settings: Device and precision.
    """

    def __init__(
        self,
        model: UsualEncoder,
        inputs: Tensor,
        targets: Tensor,
        mask_prob: float | None,
        batch_size: int,
        settings: TrainSettings,
    ) -> None:
        self.model, self.mask_prob, self.settings = model, mask_prob, settings
        self.inputs, self.targets = inputs.to(settings.device), targets.to(settings.device)
        self.batch_size = min(batch_size, len(inputs))
        self.optimizer = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
        mode = "reduce-overhead" if settings.on_cuda else None
        self.loss: Callable[[Tensor, Tensor], Tensor] = torch.compile(
            model.loss, mode=mode, dynamic=False
        )

    def epoch(self) -> None:
        """One pass."""
        order = torch.randperm(len(self.inputs), device=self.inputs.device)
        self.model.train()
        for rows in order.split(self.batch_size)[: len(order) // self.batch_size]:
            inputs, targets = self.inputs[rows], self.targets[rows]
            if self.mask_prob is not None:
                inputs, targets = self._mask(inputs, targets)
            with autocast(self.settings):
                loss = self.loss(inputs, targets)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @property
    def share(self) -> float:
        """Of the rows that an epoch reads."""
        rows = len(self.inputs)
        return rows // self.batch_size * self.batch_size / rows

    def _mask(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A cloze as :class:`PaddedSequences` makes one."""
        items, real = self.model.num_items, inputs >= 0
        draw, show = torch.rand(2, *inputs.shape, device=inputs.device)
        hole = real & (draw < (self.mask_prob or 0.0))
        hole[:, -1] = True
        show[:, -1] = 0.0
        noise = torch.randint_like(inputs, items)
        shown = torch.where(show < 0.8, items, torch.where(show < 0.9, noise, inputs))
        return torch.where(hole, shown, inputs), torch.where(hole, targets, IGNORED)
