"""The bias of a pair of events, in a table of kinds and distances; looked up by all layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PairCells", "Tile", "heads_apart", "heads_joined"]

# Queries of a tile. A causal tile of early queries has no late keys, which saves 3 / 8 of all pairs
# of 200 events; what one tile holds stays in the cache of a CPU.
_QUERIES = 50
# Entries of a kind that no distance tells apart: with one, half of all pairs would add their
# gradients to a handful of cells, each waiting for the one before.
_TURNS = 8


class Tile(NamedTuple):
    """Some queries of every history, the keys that they may see, and the cells of these pairs.

    Args:
        rows: The queries, among the M.
        keys: The first so many keys.
        cells: int64 ``[B * rows * keys]``, places in the flattened table.
    """

    rows: slice
    keys: int
    cells: Tensor

    # In one piece: a product on the CPU copies what is not, and transposed, which is slow.
    def by_row(self, x: Tensor) -> Tensor:
        """``[H * B, rows, d]`` of ``[H * B, M, d]``."""
        return x[:, self.rows].contiguous()

    def by_key(self, x: Tensor) -> Tensor:
        """``[H * B, keys, d]`` of ``[H * B, L, d]``."""
        return x[:, : self.keys].contiguous()


@dataclass(frozen=True, eq=False)
class PairCells:
    """Where each pair (query i, key j) reads its bias: one cell per kind and distance.

    Kind and distance make one index, so that a layer adds both biases by one lookup, and finds
    their gradients by one sum: neighbours in a row lie at other distances, so that the sum never
    waits for a cell that it has just written. Made once a batch, for all layers and heads.

    Args:
        pairs: ``[B, M, L]`` uint8, the kind of each pair of the last M of L positions, in
            ``[0, kinds]``; ``kinds`` is a pair that must not attend.
        kinds: U.
        places: P, entries per kind: the distance ``i - j + origin``; what is beyond either end
            shares the last entry there.
        origin: The entry of distance 0.
        causal: Whether ``j > i`` is shut whatever ``pairs`` says.

    Raises:
        ValueError: If ``pairs`` does not fit.
    """

    pairs: Tensor
    kinds: int
    places: int = 1
    origin: int = 0
    causal: bool = False

    def __post_init__(self) -> None:
        shape = self.pairs.shape
        if self.pairs.dtype != torch.uint8 or len(shape) != 3 or shape[1] > shape[2]:
            raise ValueError(
                f"'pairs' needs to be uint8 [B, M, L] with M <= L (got {self.pairs.dtype} "
                f"{list(shape)}); gap_pairs makes it"
            )

    def last(self, queries: int) -> Self:
        """Those of the last ``queries`` positions only."""
        have = self.pairs.size(1)
        return self if queries == have else replace(self, pairs=self.pairs[:, have - queries :])

    @property
    def entries(self) -> int:
        """Of each kind in the flattened table: P, or several alike where P is 1."""
        return self.places if self.places > 1 else _TURNS

    @cached_property
    def tiles(self) -> list[Tile]:
        """Tiles that cover every pair that may attend; on CUDA one."""
        _, queries, length = self.pairs.shape
        count = 1 if self.pairs.is_cuda else max(1, queries // _QUERIES)
        key = torch.arange(length, device=self.pairs.device)
        distance = key[length - queries :, None] - key
        place = turn = distance.remainder(self.entries)
        if self.places > 1:
            place = (distance + self.origin).clamp_(0, self.places - 1)
        if self.causal:  # any entry of what is shut will do
            place = torch.where(distance < 0, turn, place)
        future = (distance < 0) * self.pairs.new_full((), self.kinds)
        tiles = []
        for i in range(count):
            rows = slice(queries * i // count, queries * (i + 1) // count)
            keys = length - queries + rows.stop if self.causal else length
            kind = self.pairs[:, rows, :keys]
            if self.causal:  # what is shut has the largest kind
                kind = torch.maximum(kind, future[rows, :keys])
            cells = kind.long().mul_(self.entries).add_(place[rows, :keys])
            tiles.append(Tile(rows, keys, cells.reshape(-1)))  # pairs may be transposed
        return tiles

    def table(self, heads: int, by_kind: Tensor, by_place: Tensor | None, shut: float) -> Tensor:
        """``[H, U + 1, entries]``: a bias by kind ``[H, U]`` plus one by distance ``[H, P]``.

        ``shut`` is what a pair that must not attend has in the place of the former.

        Raises:
            ValueError: If a table does not fit.
        """
        sizes = {"kind": (by_kind, self.kinds), "distance": (by_place, self.places)}
        for name, (given, size) in sizes.items():
            if given is not None and list(given.shape) != [heads, size]:
                raise ValueError(
                    f"the table by {name} needs to be [{heads}, {size}] (got {list(given.shape)})"
                )
        table = F.pad(by_kind, (0, 1), value=shut).unsqueeze(2)
        if by_place is not None:
            table = table + by_place.unsqueeze(1)
        return table.expand(-1, -1, self.entries)

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raises a :class:`ValueError` if the shapes of queries, keys and values do not fit."""
        batch, queries, length = self.pairs.shape
        fits = q.dim() == k.dim() == 4 and k.shape == v.shape
        if not fits or (q.shape[:2], q.size(3)) != (k.shape[:2], k.size(3)):
            shapes = [list(t.shape) for t in (q, k, v)]
            raise ValueError(f"k and v must be [B, H, L, d], and q [B, H, M, d] (got {shapes})")
        if (q.size(0), q.size(2), k.size(2)) != (batch, queries, length):
            raise ValueError(
                f"'pairs' needs to be [{q.size(0)}, {q.size(2)}, {k.size(2)}], as q and k are "
                f"(got {list(self.pairs.shape)})"
            )


def heads_apart(x: Tensor) -> Tensor:
    """``[B, H, L, d]`` of any strides to ``[H * B, L, d]`` in one piece."""
    return x.transpose(0, 1).reshape(-1, x.size(2), x.size(3))


def heads_joined(x: Tensor, heads: int) -> Tensor:
    """``[H * B, L, d]`` to a view ``[B, H, L, d]``."""
    return x.view(heads, -1, x.size(1), x.size(2)).transpose(0, 1)


def biased_scores(q: Tensor, k: Tensor, lookup: Tensor, tile: Tile) -> Tensor:
    """``q . k`` and the bias of each pair of a tile, ``[H * B, rows, keys]``.

    Args:
        q: ``[H * B, M, d]``.
        k: ``[H * B, L, d]``.
        lookup: ``[H, cells]``, of the same dtype.
        tile: The pairs.
    """
    bias = lookup.new_empty(lookup.size(0), tile.cells.numel())
    # Head by head from a row of the table: half the time of one gather for all heads.
    for row, out in zip(lookup, bias, strict=True):
        torch.index_select(row, 0, tile.cells, out=out)
    bias = bias.view(q.size(0), -1, tile.keys)
    asked, seen = tile.by_row(q), tile.by_key(k)
    score: Tensor = bias.baddbmm_(asked, seen.transpose(1, 2))
    return score


def add_to_cells(total: Tensor, score: Tensor, tile: Tile) -> None:
    """Adds ``[H * B, rows, keys]`` to the cells ``[H, cells]`` that the scores were read from."""
    values = score.to(total.dtype).reshape(total.size(0), -1)
    total.scatter_add_(1, tile.cells.expand_as(values), values)
