"""Sequences as the project's seed passed them: ids from 1, 0 pads, a mask of real events."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History


def read_seed_batch(
    input_ids: Tensor, timestamps: Tensor, mask: Tensor, num_items: int, max_len: int
) -> tuple[History, Tensor]:
    """Left-pads (ids from 0) and returns where each position came from, ``[B, L]``.

    Args:
        input_ids: ``[B, L]`` int64, ids ``1..num_items``, ``num_items + 1`` for the mask token, 0
            pads (on either side).
        timestamps: ``[B, L]`` Unix seconds (integers), or already scaled times (floats).
        mask: ``[B, L]`` bool, True at real events.
        num_items: N.
        max_len: The longest sequence.

    Raises:
        ValueError: If the three do not fit each other, N or the length.
    """
    for name, value in (("timestamps", timestamps), ("mask", mask)):
        if value.shape != input_ids.shape or input_ids.dim() != 2:
            raise ValueError(
                f"'{name}' needs the shape [B, L] of 'input_ids' (got {list(value.shape)} and "
                f"{list(input_ids.shape)})"
            )
    if mask.dtype != torch.bool:
        raise ValueError(f"'mask' needs to be bool, True at real events (got {mask.dtype})")
    wrong = (input_ids != 0) != mask
    if wrong.any():
        raise ValueError(
            f"'mask' and 'input_ids' disagree at {int(wrong.sum())} positions: mask is True "
            f"exactly where an id is not 0; is it inverted?"
        )
    if int(input_ids.min()) < 0 or int(input_ids.max()) > num_items + 1:
        raise ValueError(
            f"'input_ids' needs ids in 0..{num_items + 1} (got {int(input_ids.min())}.."
            f"{int(input_ids.max())})"
        )
    if input_ids.size(1) > max_len:
        raise ValueError(
            f"'input_ids' is longer than max_len={max_len}; keep the last {max_len} events"
        )
    order = torch.argsort(mask.long(), dim=1, stable=True)  # padding first, events in order
    ids, real = input_ids.gather(1, order), mask.gather(1, order)
    times = timestamps.gather(1, order)
    if times.is_floating_point():
        # Scaled times have lost their unit: spread them over the span of whole seconds of a year.
        times = (times.double() * 365 * 86400).round()
    item = torch.where(real, ids - 1, 0)
    zero = torch.zeros_like(item)
    return History(item, torch.where(real, times.long(), 0), zero, zero, real), order


def shift_right(x: Tensor) -> Tensor:
    """Moves every position one to the right, so that position j knows what is before it."""
    return F.pad(x[:, :-1], (1, 0))


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """``[B, L, D]`` with the positions ``order`` ``[B, L]``."""
    return x.gather(1, order.unsqueeze(2).expand(-1, -1, x.size(2)))
