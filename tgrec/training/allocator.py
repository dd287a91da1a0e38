"""Memory that stays with the process between steps, and how much of it there was."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

if sys.platform != "win32":
    import resource

# From malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# How many products each of them keeps: those of a few steps. Compiling one takes milliseconds.
PRODUCT_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "16"}


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed blocks of up to 32 MB; returns whether it took that.

    Training frees and takes the same megabytes at every step. By default glibc may map each such
    block anew, and the page faults of a fresh mapping cost as much as the arithmetic on it. (Never
    mapping any block is no better: the heap then breaks into pieces and grows to gigabytes.) Other
    C libraries (macOS, musl, Windows) are left as they are.

    Also bounds two caches of products in bfloat16, unless their environment variables are set:
    oneDNN's of compiled ones and torch's of their descriptions. Each keeps up to 1024 shapes,
    batches have new ones at almost every step, and each takes a quarter to half a gigabyte, spread
    over the heap so that larger blocks no longer fit between its entries. Both are read once, so
    this has to come before the first product in bfloat16.
    """
    for name, capacity in PRODUCT_CACHES.items():
        os.environ.setdefault(name, capacity)
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (raises where the library is not glibc)
        set_option = library.mallopt
    except (OSError, TypeError, AttributeError):
        return False
    options = ((_M_MMAP_THRESHOLD, 32 * 2**20), (_M_TRIM_THRESHOLD, 512 * 2**20))
    return all(set_option(ctypes.c_int(key), ctypes.c_int(value)) for key, value in options)


def peak_memory_mb(device: str) -> float:
    """Most memory in MiB that this process held so far, on the GPU if that is the device.

    0 on Windows, where Python does not know it.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "win32":
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
