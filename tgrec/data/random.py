"""A counter-based random stream: a draw is a function of its key, not of who draws it when.

Keys are integers such as (seed, epoch, event id, slot). Draws are therefore the same for every
batch size, order of batches, thread count, process and device, and a resumed run continues with
exactly the draws that it would have made.
"""

from __future__ import annotations

import torch
from torch import Tensor

# splitmix64 (Steele, Lea, Flood 2014), written with wrapping int64 arithmetic.
_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # logical: torch shifts int64 arithmetically


def hash_keys(*keys: Tensor | int) -> Tensor:
    """Mixes broadcastable int64 keys into one int64 hash each."""
    state = torch.zeros((), dtype=torch.int64)
    for key in keys:
        if isinstance(key, Tensor):
            state = state.to(key.device)
        state = _mix((state ^ key) + _GAMMA)
    return state


def uniform(*keys: Tensor | int) -> Tensor:
    """Uniform draws in [0, 1), float32 with 24 random bits, one per broadcast key."""
    return _shift_right(hash_keys(*keys), 40).to(torch.float32) * 2.0**-24


def permutation(size: int, *keys: int) -> Tensor:
    """A permutation of ``0..size-1`` that is a function of the keys."""
    return torch.argsort(hash_keys(*keys, torch.arange(size)), stable=True)
