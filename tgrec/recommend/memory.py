"""What helps if memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def naming_remedies(
    doing: str, device: torch.device | str, remedies: Sequence[str]
) -> Iterator[None]:
    """Running out of memory in the block becomes a MemoryError that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        said = "allocate memory" in str(error) or "out of memory" in str(error)
        if not said and not isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        raise MemoryError(
            f"{doing} needs more memory than {device} has; what helps: {'; '.join(remedies)}"
        ) from error
