"""Whether a training step could be captured in a CUDA graph, seen without a GPU.

Code that does one thing on CUDA and another elsewhere asks a tensor ``is_cuda``. While
:func:`as_on_cuda` lasts every tensor says yes, so that what was written for CUDA runs on the CPU,
where all of its operations can be watched (:class:`Watch`) and its results compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product, zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tgrec.data import RecBatch, Split
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models.base import RecModel
from tgrec.sampler import EventIndex
from tgrec.testing._subject import TRACKS, explained, require

__all__ = ["HostReadError", "Watch", "as_on_cuda", "check_static_step", "watched"]

T = TypeVar("T")
Operation = tuple[str, tuple[torch.Size, ...]]

# Operations of which the host has to know a value before it can go on, or at least a size.
READS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal",
    "aten::bincount", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
}  # fmt: skip
TOLERANCE = 1e-4
# Copies from and to the host, which on the CPU are none.
COPIES = {
    Tensor.tolist, Tensor.cpu, Tensor.cuda, Tensor.numpy, Tensor.__array__, Tensor.new_tensor,
    torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy,
}  # fmt: skip


class HostReadError(AssertionError):
    """An operation for which the host would have to wait for a CUDA device."""


class Watch(TorchDispatchMode):
    """Writes down every operation and its shapes; raises at one that the host must wait for.

    Attributes:
        seen: Name of the operation and shapes of its results, in order. Of a step that can be
            captured they depend on the shapes of its batch only.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Looks at one operation and carries it out."""
        kwargs, name = kwargs or {}, func.name()
        short = name.partition(".")[0]
        by_mask = short.startswith(("aten::index", "aten::_index")) and any(
            isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)
            for x in tree_leaves(args[1:2])
        )
        repeats = name == "aten::repeat_interleave.Tensor" and kwargs.get("output_size") is None
        if short in READS or by_mask or repeats:
            raise HostReadError(f"{name}{' with a mask' * by_mask} stops the host on CUDA")
        if kwargs.get("generator") is not None:
            raise HostReadError(f"{name} draws from a generator whose state no replay moves")
        out = func(*args, **kwargs)
        self.seen.append((name, tuple(x.shape for x in tree_leaves(out) if isinstance(x, Tensor))))
        return out


class _NoCopies(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in COPIES:
            raise HostReadError(f"{func.__name__} stops the host on CUDA")
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Lets every tensor say that it is on CUDA."""
    torch.Tensor.is_cuda = True
    try:
        yield
    finally:
        del torch.Tensor.is_cuda  # what it inherits shows again


def watched(work: Callable[[], T]) -> tuple[T, list[Operation]]:
    """Runs ``work`` as on CUDA; returns its result and its operations.

    Raises:
        HostReadError: If the host would have to wait in it.
    """
    watch = Watch()
    with as_on_cuda(), _NoCopies(), watch:
        return work(), watch.seen


def check_static_step(name: str, model: RecModel, split: Split) -> None:
    """Holds a model to :attr:`RecModel.static_step`, if it says so.

    Nothing is read back and, for two batches of one shape, the same operations follow each other.
    Without dropout, whose draws differ, loss and gradients are those of the code for other devices.
    """
    if not model.has_static_step:
        return
    for track, training in product(TRACKS, (True, False)):
        model.train(training)
        loader = SeedLoader(EventIndex(split.train), model.sampling, track)
        seeds = training_seeds(loader.index, model.sampling.max_len, "all")
        place = torch.arange(len(seeds) // 2 * 2).view(2, -1)
        one, other = (loader.batch(seeds.select(rows), key=key) for key, rows in enumerate(place))
        plain = _gradients(model, one)
        with explained(f"{name}: 'static_step' is True, but on CUDA its step cannot be captured"):
            with as_on_cuda():
                _gradients(model, one)  # what is made at the first call only may be read back
            got, seen = watched(partial(_gradients, model, one))
            _, again = watched(partial(_gradients, model, other))
        apart = next(((a, b) for a, b in zip_longest(seen, again) if a != b), None)
        require(
            apart is None,
            f"{name}: 'static_step' is True, but what it does depends on values: {apart}",
        )
        for there, here in () if training else zip(got, plain, strict=True):
            gap = float((there - here).norm())
            require(
                gap <= TOLERANCE * (1 + float(here.norm())),
                f"{name}: loss or gradient is another one on CUDA (by {gap:.2g})",
            )


def _gradients(model: RecModel, batch: RecBatch) -> list[Tensor]:
    """Sums and counts of the loss, and all gradients."""
    model.zero_grad(set_to_none=True)
    sums, counts = model.loss_terms(batch)
    (sums.sum() / counts.sum()).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return [sums.detach(), counts, *grads]
