"""Scores from counted item-item transitions: sparse rows, mixed per user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Tables of up to this size are also held as a dense matrix: ml1m-loo has 330 MB in six classes.
DENSE_BYTES = 2**29


class TransitionTable(nn.Module):
    r"""Row-normalised transition counts in CSR form, one block of N rows per gap class.

    .. math:: T_{g,i,j} = \frac{w^g_{ij}}{(s^g_i + 10)\,(n_j + 10)^{0.15}}

    where :math:`n_j` counts the events of item j and :math:`s^g_i` is the mass of a row: its own
    sum of weights :math:`\sum_j w^g_{ij}`, or the events of item i. The row smoothing distrusts
    rows that were seen rarely, the column power takes back part of what popularity alone explains.

    Args:
        num_items: N.
        num_classes: G, the number of gap classes (1 for untyped counts).
        num_edges: E, how many counts are kept; they are filled by :meth:`fill` or by loading.

    Attributes:
        dense: ``[G * N, N]`` the same with all zeros, made when it is first read, if it fits.
    """

    ROW_SMOOTHING = 10.0
    COLUMN_SMOOTHING = 10.0
    COLUMN_POWER = 0.15

    def __init__(self, num_items: int, num_classes: int, num_edges: int) -> None:
        super().__init__()
        self.num_items, self.num_classes = num_items, num_classes
        rows = num_items * num_classes
        if num_edges >= 2**31:
            raise ValueError(f"'num_edges' needs to be below 2**31 (got {num_edges})")
        self.register_buffer("ptr", torch.zeros(rows + 1, dtype=torch.int32))
        self.register_buffer("target", torch.zeros(num_edges, dtype=torch.int32))
        self.register_buffer("value", torch.zeros(num_edges))
        self.register_buffer("mass", torch.zeros(rows))
        self.register_buffer("column", torch.ones(num_items))
        self.dense: Tensor | None = None
        self._filled = False  # until it has been seen to be, so that one look is enough

    ptr: Tensor
    target: Tensor
    value: Tensor
    mass: Tensor
    column: Tensor

    @classmethod
    def fill(
        cls,
        edges: list[tuple[Tensor, Tensor]],
        occurrences: Tensor,
        mass: Literal["weights", "events"] = "weights",
    ) -> TransitionTable:
        """Builds the table.

        Args:
            edges: Per gap class ``edge_index`` ``[2, E]`` sorted by (source, target), and
                ``edge_weight`` ``[E]``.
            occurrences: ``[N]`` events per item.
            mass: What normalises a row: the sum of its weights, or the events of its item.
        """
        num_items = occurrences.numel()
        table = cls(num_items, len(edges), sum(w.numel() for _, w in edges))
        row = torch.cat([e[0] + g * num_items for g, (e, _) in enumerate(edges)])
        weight = torch.cat([w for _, w in edges])
        table.target.copy_(torch.cat([e[1] for e, _ in edges]))
        table.ptr[1:] = torch.bincount(row, minlength=table.mass.numel()).cumsum(0)
        if mass == "weights":
            table.mass.index_add_(0, row, weight)
        else:
            table.mass.copy_(occurrences.repeat(len(edges)))
        table.column.copy_((occurrences + cls.COLUMN_SMOOTHING) ** -cls.COLUMN_POWER)
        norm = table.mass[row] + cls.ROW_SMOOTHING
        table.value.copy_(weight / norm * table.column[table.target.long()])
        return table

    def forward(self, item: Tensor, gap_class: Tensor, weight: Tensor) -> Tensor:
        """Mixes rows: ``out[b] = sum_l weight[b, l] * T[gap_class[b, l], item[b, l]]``.

        Args:
            item: ``[B, L]`` int64.
            gap_class: ``[B, L]`` int64 in ``0..G-1``.
            weight: ``[B, L]`` float, 0 at padding.

        Returns:
            ``[B, N]`` float32.

        Raises:
            RuntimeError: If the counts that ``num_edges`` announced have never come.
        """
        rows, width = item.shape
        if rows == 0 or width == 0:
            return self.column.new_zeros(rows, self.num_items)
        self._check_filled()
        row, weight = gap_class * self.num_items + item, weight.float()
        if self.dense is None and self.fits_dense:
            self.dense = self._make_dense()
        if self.dense is None:
            return self._add_up(row, weight)
        with torch.autocast(item.device.type, enabled=False):
            return F.embedding_bag(row, self.dense, per_sample_weights=weight, mode="sum")

    @property
    def fits_dense(self) -> bool:
        """Whether whole rows are read; then no shape depends on which rows they are."""
        return 4 * self.mass.numel() * self.num_items <= DENSE_BYTES

    def _check_filled(self) -> None:
        if self._filled:
            return
        held, announced = int(self.ptr[-1]), self.target.numel()
        if held != announced:
            raise RuntimeError(
                f"'num_edges' announced {announced} counts, and the TransitionTable holds {held}: "
                f"make the model with from_graph, which counts, or load its weights"
            )
        self._filled = True

    def _make_dense(self) -> Tensor:
        """``[G * N, N]``: where it fits, reading whole rows is ten times as fast."""
        dense = self.value.new_zeros(self.mass.numel(), self.num_items)
        row = torch.arange(dense.size(0), device=dense.device).repeat_interleave(self.ptr.diff())
        # Not an indexed assignment: its temporaries are three times as large as the table.
        return (
            dense.flatten()
            .scatter_(0, row * self.num_items + self.target, self.value)
            .view_as(dense)
        )

    def _add_up(self, row: Tensor, weight: Tensor) -> Tensor:
        """The same from the sparse rows: every count of every row is added where it belongs.

        (A product of two sparse matrices would do, but torch's loses memory at every call on the
        CPU: 3 MB for 64 users of MovieLens-1M.)
        """
        out = weight.new_zeros(row.size(0) * self.num_items)
        start, size = self.ptr[row].long(), self.ptr.diff()[row].long()
        size = torch.where(weight == 0, 0, size)
        entry = torch.repeat_interleave(
            torch.arange(row.numel(), device=row.device), size.flatten()
        )
        # Entry e is the k-th count of its row, k = e - (entries of the rows before).
        first = start.flatten() - (size.flatten().cumsum(0) - size.flatten())
        place = torch.arange(entry.numel(), device=row.device) + first[entry]
        user = torch.div(entry, row.size(1), rounding_mode="floor")
        value = self.value[place] * weight.flatten()[entry]
        out.index_add_(0, user * self.num_items + self.target[place], value)
        return out.view(row.size(0), self.num_items)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.value
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (self.value.device, self.value.dtype) != (before.device, before.dtype):
            self.dense = None  # it is made again where the table has moved to
        return moved

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.dense, self._filled = None, False
        super()._load_from_state_dict(*args, **kwargs)

    def leaving_out(
        self,
        item: Tensor,
        gap_class: Tensor,
        weight: Tensor,
        target: Tensor,
        own: Tensor,
        own_class: Tensor,
        in_mass: bool = True,
    ) -> Tensor:
        """:meth:`forward` as if some counts had not been made.

        Args:
            item: As in :meth:`forward`.
            gap_class: As in :meth:`forward`.
            weight: As in :meth:`forward`.
            target: ``[B]`` the item that was counted as following.
            own: ``[B, L]`` what it added to the count from ``item[b, l]`` to ``target[b]``; 0
                where it added nothing.
            own_class: ``[B, L]`` int64, the class of that count.
            in_mass: Whether counts are part of the mass of their row (``mass="weights"``).
        """
        row, counted = (c * self.num_items + item for c in (gap_class, own_class))
        # What a row lacks may come from several events, where items repeat in a history.
        own = ((row.unsqueeze(2) == counted.unsqueeze(1)) * own.unsqueeze(1)).sum(2)
        norm = self.mass[row] + self.ROW_SMOOTHING
        if in_mass:  # the row without them has a smaller sum
            weight = weight * norm / (norm - own)
        out = self.forward(item, gap_class, weight)
        excess = (weight * own / norm).sum(1) * self.column[target]
        left = out.gather(1, target.unsqueeze(1)).squeeze(1) - excess
        return out.scatter(1, target.unsqueeze(1), left.clamp(min=0).unsqueeze(1))
