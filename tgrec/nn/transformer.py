"""The one Transformer encoder behind SASRec, BERT4Rec and the temporal graph branch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tgrec.nn import dropout as random_bytes
from tgrec.nn.attention import padded_attention
from tgrec.nn.pair_attention import pair_attention
from tgrec.nn.pair_cells import PairCells

Positions = Literal["learned", "sinusoidal", "relative"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Dropout(nn.Module):
    """Dropout whose random bits cost one byte an element (on the CPU p is rounded to 1/256)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"'dropout' needs to be in [0, 1) (got {p})")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return random_bytes.dropout(x, self.p, self.training)


class RightAlignedPositions(nn.Module):
    """A vector per position, counted from the newest event, so that padding does not shift it.

    Args:
        length: Longest history.
        channels: D.
        kind: ``learned``, ``sinusoidal`` (Vaswani et al., arXiv 1706.03762), or ``relative``: all
            zeros, where attention knows the distances (:class:`DistanceBias`).
    """

    def __init__(self, length: int, channels: int, kind: Positions = "learned") -> None:
        super().__init__()
        if kind == "learned":
            self.table: Tensor = nn.Parameter(torch.empty(length, channels).normal_(std=0.02))
        elif kind in ("sinusoidal", "relative"):
            table = sinusoids(length, channels) * (kind == "sinusoidal")
            self.register_buffer("table", table, persistent=False)
        else:
            raise ValueError(
                f"'positions' needs to be 'learned', 'sinusoidal' or 'relative' (got {kind!r})"
            )

    def forward(self, length: int) -> Tensor:
        """``[length, D]``, the newest position last."""
        return self.table[self.table.size(0) - length :]


def sinusoids(length: int, channels: int) -> Tensor:
    """``[length, channels]``: sines and cosines of geometric wavelengths up to 10000 * 2 pi."""
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angle = torch.arange(length).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :channels].contiguous()


class DistanceBias(nn.Module):
    r"""A learned bias of attention per head and signed distance in events (Shaw et al., 2018).

    Heads start by looking at near events (the slopes of ALiBi, Press et al., arXiv 2108.12409),
    those of an even number at what is before, the others at what is behind, where they may.

    Args:
        length: Longest sequence, L.
        n_heads: H.
    """

    def __init__(self, length: int, n_heads: int) -> None:
        super().__init__()
        distance = torch.arange(1 - length, length)  # of the key, seen from the query
        side = torch.tensor([-1, 1]).repeat(n_heads)[:n_heads].unsqueeze(1)
        bias = -0.5 * distance.abs() - 2.0 * (distance.sign() == -side)
        self.bias = nn.Parameter(bias.clamp(min=-8.0))

    def forward(self, queries: int, length: int) -> Tensor:
        """``[H, queries, length]``, for the last ``queries`` of ``length`` positions."""
        place = torch.arange(length, device=self.bias.device)
        index = place - place[length - queries :].unsqueeze(1) + self.bias.size(1) // 2
        return self.bias[:, index]

    def by_distance(self, causal: bool) -> Tensor:
        """``[H, P]``, by ``i - j`` from 0 (if not ``causal`` from ``1 - L``) to ``L - 1``."""
        length = self.bias.size(1) // 2 + 1
        return (self.bias[:, :length] if causal else self.bias).flip(1)


class Projections(nn.Module):
    """What blocks share: the norm before attention, and the maps into it and out of it."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"'d_model' ({d_model}) needs to be divisible by 'n_heads' ({n_heads})"
            )
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.drop = Dropout(dropout)

    def copy_values(self) -> None:
        """Lets attention start by copying what it looks at: values and output are the identity."""
        channels = self.out.in_features
        nn.init.eye_(self.out.weight)
        with torch.no_grad():
            nn.init.eye_(self.qkv.weight[2 * channels :])

    def heads(self, n: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[B, H, L, D / H]``; with ``last`` the last query only."""
        if not last:
            q, k, v = self._split(self.qkv(n))
            return q, k, v
        channels = self.out.in_features
        # The first D rows of the joint projection make queries, the others keys and values.
        (to_q, to_kv), (bias_q, bias_kv) = (
            value.tensor_split([channels]) for value in (self.qkv.weight, self.qkv.bias)
        )
        (q,) = self._split(F.linear(n[:, -1:], to_q, bias_q))
        k, v = self._split(F.linear(n, to_kv, bias_kv))
        return q, k, v

    def _split(self, x: Tensor) -> list[Tensor]:
        """``[B, L, P D]`` to the P projections, ``[B, H, L, D / H]`` each."""
        channels = self.out.in_features
        x = x.view(*x.shape[:2], -1, self.n_heads, channels // self.n_heads)
        # Unbound where they lie, so that the gradients are joined by one copy.
        return [y.transpose(1, 2) for y in x.unbind(2)]


class Block(Projections):
    r"""A pre-norm Transformer block.

    .. math:: x \leftarrow x + W_o\,\mathrm{attend}(W_q n, W_k n, W_v n),\quad n = LN(x) \\
              x \leftarrow x + W_2\,\mathrm{GELU}(W_1\,LN(x))

    Dropout stands on both residual branches; none on the attention weights, where it costs more
    than the attention itself.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float) -> None:
        super().__init__(d_model, n_heads, dropout)
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor, attend: Attend, last: bool = False) -> Tensor:
        """``x`` ``[B, L, D]``; ``attend`` maps q, k, v ``[B, H, L, D / H]`` to the same shape.

        With ``last`` only the last position is computed, from the keys and values of all: q and
        what ``attend`` returns are then ``[B, H, 1, D / H]``, and the result ``[B, 1, D]``.
        """
        q, k, v = self.heads(self.norm_1(x), last)
        x = x[:, -1:] if last else x
        mixed = attend(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.drop(self.out(mixed))
        out: Tensor = x + self.drop(self.down(F.gelu(self.up(self.norm_2(x)))))
        return out


class GatedBlock(Projections):
    r"""A block with a gate in the place of the feed-forward layer (HSTU, arXiv 2402.17152).

    .. math:: x \leftarrow x + W_o\,(\mathrm{SiLU}(W_u n) \odot
              LN(\mathrm{attend}(W_q n, W_k n, \mathrm{SiLU}(W_v n)))),\quad n = LN(x)

    What ``attend`` does is left to it; that of HSTU has no softmax
    (:class:`tgrec.nn.hstu.HSTUBlock`). Dropout stands on what :math:`W_o` reads.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__(d_model, n_heads, dropout)
        self.gate = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, attend: Attend, last: bool = False) -> Tensor:
        """As :meth:`Block.forward`."""
        n = self.norm_1(x)
        q, k, v = self.heads(n, last)
        x, n = (x[:, -1:], n[:, -1:]) if last else (x, n)
        # In one piece, as its gradient comes: the backward pass of SiLU is slow where they differ.
        mixed = attend(q, k, F.silu(v.contiguous())).transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.out(self.drop(F.silu(self.gate(n)) * self.norm_2(mixed)))
        return out


class SequenceEncoder(nn.Module):
    """Positions, blocks and a last norm over left-padded sequences of vectors.

    Args:
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers; None for gates in their place (:class:`GatedBlock`).
        max_len: Longest sequence.
        dropout: In [0, 1).
        causal: Whether a position sees only itself and what is before it.
        positions: Kind of position vectors, or ``relative``: none, and a bias of attention per
            head and distance (:class:`DistanceBias`).
        pair_kinds: U; if positive, attention has a learned bias per head and kind of pair.
        gradient_checkpointing: Keep the inputs of the blocks only and compute what is inside them
            again in the backward pass (Chen et al., arXiv 1604.06174): the same numbers from a
            fraction of the memory, for about a third more time.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_blocks: int,
        d_ff: int | None,
        max_len: int,
        dropout: float,
        *,
        causal: bool,
        positions: Positions = "learned",
        pair_kinds: int = 0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.gradient_checkpointing = gradient_checkpointing
        self.positions = RightAlignedPositions(max_len, d_model, positions)
        self.distance: nn.ModuleList | None = None
        if positions == "relative":
            self.distance = nn.ModuleList(DistanceBias(max_len, n_heads) for _ in range(n_blocks))
        blocks: list[Block | GatedBlock] = [
            GatedBlock(d_model, n_heads, dropout)
            if d_ff is None
            else Block(d_model, n_heads, d_ff, dropout)
            for _ in range(n_blocks)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.pair_bias: nn.Parameter | None = None
        if pair_kinds:
            self.pair_bias = nn.Parameter(torch.zeros(n_blocks, n_heads, pair_kinds))
        self.norm = nn.LayerNorm(d_model)
        self.drop = Dropout(dropout)
        self.apply(_initialise)
        if not causal:
            # A mask token has nothing of its own: what it looks at comes in as it is, so that items
            # which stand together grow alike, as they do in a causal encoder, where an item itself
            # predicts the next one. Through random maps that took many times as long.
            for block in blocks:
                block.copy_values()

    def forward(
        self, x: Tensor, mask: Tensor, pairs: Tensor | None = None, last: bool = False
    ) -> Tensor:
        """Encodes.

        Args:
            x: ``[B, L, D]``, anything at padding, where it counts as 0.
            mask: ``[B, L]`` bool, True at real positions.
            pairs: ``[B, L, L]`` uint8 kinds of pairs, below U, or U where a position must not see
                another; without ``pair_kinds`` U is 1. It stands for ``mask`` then.
            last: Only the last position is wanted, as for the vector of a user. The last block
                then works on one query instead of L, about half of the work of two blocks.

        Returns:
            ``[B, L, D]``; what stands at padding depends on nothing outside its row. With ``last``
            its last position, ``[B, D]``.
        """
        # An empty history is read at a padded position, which must not look like an item.
        x = torch.where(mask.unsqueeze(2), x, torch.zeros((), dtype=x.dtype, device=x.device))
        # Item vectors start small, since they also score; as inputs they are scaled up (Vaswani et
        # al., section 3.4). Without it, training rests on the level of popularity for epochs.
        x = self.drop(x * math.sqrt(x.size(2)) + self.positions(x.size(1)))
        cells = None if pairs is None else self.cells(pairs)
        for layer, block in enumerate(self.blocks):
            only_last = last and layer == len(self.blocks) - 1
            attend = self.attention(layer, mask, cells)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, attend, only_last, use_reentrant=False)
            else:
                x = block(x, attend, only_last)
        out: Tensor = self.norm(x[:, -1] if last else x)
        return out

    def cells(self, pairs: Tensor) -> PairCells:
        """Of kinds of pairs as :meth:`forward` takes them, for the attention of all blocks."""
        kinds = 1 if self.pair_bias is None else self.pair_bias.size(2)
        length = self.positions.table.size(0)
        places, origin = (1, 0) if self.distance is None else (2 * length - 1, length - 1)
        if self.causal and self.distance is not None:
            places, origin = length, 0
        return PairCells(pairs, kinds, places, origin, self.causal)

    def attention(self, layer: int, mask: Tensor, cells: PairCells | None) -> Attend:
        """The attention of one block, as a function of q, k and v (see :class:`Block`)."""
        distance = None if self.distance is None else self.distance[layer]
        assert distance is None or isinstance(distance, DistanceBias)
        table = None if self.pair_bias is None else self.pair_bias[layer]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if cells is None:
                near = None if distance is None else distance(q.size(2), k.size(2))
                return padded_attention(q, k, v, mask, near, causal=self.causal)
            kinds = q.new_zeros(self.n_heads, 1, dtype=torch.float32) if table is None else table
            by_distance = None if distance is None else distance.by_distance(self.causal)
            return pair_attention(q, k, v, cells.last(q.size(2)), kinds, by_distance)

        return attend


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
