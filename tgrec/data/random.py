"""A counter-based random stream: a draw is a function of its key, not of who draws it when.

Keys are integers such as (seed, epoch, event id, slot). Draws are therefore the same for every
batch size, order of batches, thread count, process and device, and a resumed run continues with
exactly the draws that it would have made. The mixing function is the finalizer of SplitMix64
(Steele, Lea and Flood, OOPSLA 2014); int64 arithmetic wraps as two's complement on every device,
so the integers agree exactly between them.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The constants of SplitMix64 as signed 64-bit numbers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def hash_keys(*keys: Tensor | int) -> Tensor:
    """Hashes integer keys that broadcast against each other to int64 in the full 64-bit range.

    The keys are absorbed one after the other, so their order matters and (1, 2) is not (2, 1).
    The values are part of the interface: a resumed run must go on with the draws it began with.

    Args:
        keys: ints within 64 bits or int64 tensors of one device (the CPU if all are ints).

    Raises:
        TypeError: If a key is neither an int nor an int64 tensor.
    """
    state = torch.zeros((), dtype=torch.int64)
    for key in keys:
        if isinstance(key, Tensor):
            if key.dtype != torch.int64:
                raise TypeError(f"'keys' need to be ints or int64 tensors (got {key.dtype})")
            if state.device.type == "cpu" != key.device.type:
                # A copy would stop the host until the device is done; a fill does not.
                state = torch.full((), int(state), dtype=torch.int64, device=key.device)
        elif isinstance(key, bool) or not isinstance(key, int):
            raise TypeError(f"'keys' need to be ints or int64 tensors (got {key!r})")
        state = _mix((state ^ key) + _GAMMA)
    return state


def uniform(*keys: Tensor | int) -> Tensor:
    """Uniform draws in [0, 1), float32 with 24 random bits, one per broadcast key.

    Exact in float32 and therefore the same on every device, those without float64 included.

    Args:
        keys: As in :func:`hash_keys`.

    Raises:
        TypeError: As in :func:`hash_keys`.
    """
    return _shift_right(hash_keys(*keys), 40).to(torch.float32) * 2.0**-24


def uniform64(*keys: Tensor | int) -> Tensor:
    """Uniform draws in the open interval (0, 1), float64 with 52 random bits.

    For draws that are sorted or whose logarithm is taken: among thousands 24 bits would tie. The
    upper bits of the hash are centred in their cell: ``(bits + 1/2) / 2^52`` is exact in float64
    and never 0 or 1.

    Args:
        keys: As in :func:`hash_keys`; on a device that has float64 (MPS has none).

    Raises:
        TypeError: As in :func:`hash_keys`.
    """
    return _shift_right(hash_keys(*keys), 12).to(torch.float64).add_(0.5).mul_(2.0**-52)


def below(bits: Tensor, bound: Tensor | int) -> Tensor:
    """Draws from ``0..bound-1`` made of 64 random bits, in integers and so alike on every device.

    Args:
        bits: int64, from :func:`hash_keys`.
        bound: ints below 2^31, broadcast against ``bits``; the result is 0 where a bound is 0.
    """
    # The upper 32 bits as a fraction of 2^32; with a bound below 2^31 nothing overflows.
    return _shift_right(bits, 32) * bound >> 32


def permutation(size: int, *keys: int) -> Tensor:
    """A permutation of ``0..size-1`` that is a function of the keys."""
    return torch.argsort(hash_keys(*keys, torch.arange(size)), stable=True)


def _mix(z: Tensor) -> Tensor:
    """In place: ``z`` is a temporary, and evaluation hashes every user with every item."""
    z.bitwise_xor_(_shift_right(z, 30)).mul_(_MIX_1)
    z.bitwise_xor_(_shift_right(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift_right(z, 31))


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift; ``>>`` on int64 would copy the sign bit in."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)
