"""A counter-based random stream: a hash of integer keys, no state.

The number drawn for (seed, user, item) is a function of these three and of nothing else, so a
draw does not depend on batch size, order of the users, device or thread. The mixing function is
the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which passes every single-bit
avalanche test; int64 arithmetic wraps as two's complement on CPU and CUDA alike, so the integers
agree exactly between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The constants of SplitMix64 as signed 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLY_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLY_2 = 0x94D049BB133111EB - (1 << 64)


def hash_keys(*keys: Tensor | int) -> Tensor:
    """Hash integer keys that broadcast against each other to int64 in the full 64-bit range.

    The keys are absorbed one after the other, so their order matters and (1, 2) is not (2, 1).

    Args:
        keys: ints within 64 bits or int64 tensors; at least one tensor.

    Raises:
        TypeError: no key is a tensor, or one is neither an int nor an int64 tensor.
    """
    tensors = [key for key in keys if isinstance(key, Tensor)]
    if not tensors:
        raise TypeError("hash_keys needs at least one tensor among its keys")
    state = torch.zeros((), dtype=torch.int64, device=tensors[0].device)
    for key in keys:
        if isinstance(key, Tensor):
            if key.dtype != torch.int64:
                raise TypeError(f"keys must be int64 tensors or ints, got {key.dtype}")
        elif isinstance(key, bool) or not isinstance(key, int):
            raise TypeError(f"keys must be int64 tensors or ints, got {type(key).__name__}")
        state = _mix((state + _GOLDEN) ^ key)
    return state


def uniform(*keys: Tensor | int) -> Tensor:
    """Float64 in the open interval (0, 1), one number for each broadcast key.

    The upper 52 bits of the hash, centred in their cell: `(bits + 1/2) / 2^52` is exact in
    float64 and never 0 or 1, so that its logarithm is always finite.

    Args:
        keys: as in `hash_keys`.

    Raises:
        TypeError: as in `hash_keys`.
    """
    return (_shift(hash_keys(*keys), 12).to(torch.float64) + 0.5) * 2.0**-52


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; `>>` on int64 would copy the sign bit in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MULTIPLY_1
    x = (x ^ _shift(x, 27)) * _MULTIPLY_2
    return x ^ _shift(x, 31)
