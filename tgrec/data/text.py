"""Strings as tensors: one row of bytes and the offsets of each string.

PyG treats any list or array that is as long as the nodes as a node attribute and tries to index
it in every mini-batch. Titles and string ids are therefore kept as ``[1, total]`` bytes with
``[N + 1]`` offsets: neither has N rows, both move with ``.to(device)`` and safetensors keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def encode_strings(strings: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Packs N strings into UTF-8 bytes ``[1, total]`` (uint8) and offsets ``[N + 1]`` (int64)."""
    encoded = [s.encode("utf-8") for s in strings]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(b) for b in encoded], out=offsets[1:])
    packed = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    return torch.from_numpy(packed).view(1, -1), torch.from_numpy(offsets)


def decode_strings(packed: Tensor, offsets: Tensor) -> list[str]:
    """The inverse of :func:`encode_strings`."""
    raw = packed.cpu().numpy().tobytes()
    bounds = offsets.tolist()
    return [raw[a:b].decode("utf-8") for a, b in zip(bounds, bounds[1:], strict=False)]
