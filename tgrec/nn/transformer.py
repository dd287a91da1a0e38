"""The one Transformer encoder behind SASRec, BERT4Rec and the temporal graph branch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.nn import dropout as random_bytes
from tgrec.nn.attention import padded_attention, pair_attention

Positions = Literal["learned", "sinusoidal"]


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
        kind: ``learned``, or ``sinusoidal`` (Vaswani et al., arXiv 1706.03762).
    """

    def __init__(self, length: int, channels: int, kind: Positions = "learned") -> None:
        super().__init__()
        if kind == "learned":
            self.table: Tensor = nn.Parameter(torch.empty(length, channels).normal_(std=0.02))
        elif kind == "sinusoidal":
            self.register_buffer("table", sinusoids(length, channels), persistent=False)
        else:
            raise ValueError(f"'positions' needs to be 'learned' or 'sinusoidal' (got {kind!r})")

    def forward(self, length: int) -> Tensor:
        """``[length, D]``, the newest position last."""
        return self.table[self.table.size(0) - length :]


def sinusoids(length: int, channels: int) -> Tensor:
    """``[length, channels]``: sines and cosines of geometric wavelengths up to 10000 * 2 pi."""
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angle = torch.arange(length).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :channels].contiguous()


class Block(nn.Module):
    r"""A pre-norm Transformer block.

    .. math:: x \leftarrow x + W_o\,\mathrm{attend}(W_q n, W_k n, W_v n),\quad n = LN(x) \\
              x \leftarrow x + W_2\,\mathrm{GELU}(W_1\,LN(x))

    Dropout stands on both residual branches; none on the attention weights, where it costs more
    than the attention itself.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"'d_model' ({d_model}) needs to be divisible by 'n_heads' ({n_heads})"
            )
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """``x`` ``[B, L, D]``; ``attend`` maps q, k, v ``[B, H, L, D / H]`` to the same shape."""
        batch, length, channels = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, length, 3, self.n_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, L, D / H]
        mixed = attend(q, k, v).transpose(1, 2).reshape(batch, length, channels)
        x = x + self.drop(self.out(mixed))
        out: Tensor = x + self.drop(self.down(F.gelu(self.up(self.norm_2(x)))))
        return out


class SequenceEncoder(nn.Module):
    """Positions, blocks and a last norm over left-padded sequences of vectors.

    Args:
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers.
        max_len: Longest sequence.
        dropout: In [0, 1).
        causal: Whether a position sees only itself and what is before it.
        positions: Kind of position vectors.
        pair_kinds: U; if positive, attention has a learned bias per head and kind of pair.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_blocks: int,
        d_ff: int,
        max_len: int,
        dropout: float,
        *,
        causal: bool,
        positions: Positions = "learned",
        pair_kinds: int = 0,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.positions = RightAlignedPositions(max_len, d_model, positions)
        self.blocks = nn.ModuleList(Block(d_model, n_heads, d_ff, dropout) for _ in range(n_blocks))
        self.pair_bias: nn.Parameter | None = None
        if pair_kinds:
            self.pair_bias = nn.Parameter(torch.zeros(n_blocks, n_heads, pair_kinds))
        self.norm = nn.LayerNorm(d_model)
        self.drop = Dropout(dropout)
        self.apply(_initialise)

    def forward(self, x: Tensor, mask: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Encodes.

        Args:
            x: ``[B, L, D]``, anything at padding, where it counts as 0.
            mask: ``[B, L]`` bool, True at real positions.
            pairs: ``[B, L, L]`` uint8 kinds of pairs (shut pairs are U or more), if the encoder
                has ``pair_kinds``.

        Returns:
            ``[B, L, D]``; what stands at padding depends on nothing outside its row.
        """
        # An empty history is read at a padded position, which must not look like an item.
        x = torch.where(mask.unsqueeze(2), x, torch.zeros((), dtype=x.dtype, device=x.device))
        # Item vectors start small, since they also score; as inputs they are scaled up (Vaswani et
        # al., section 3.4). Without it, training rests on the level of popularity for epochs.
        x = self.drop(x * math.sqrt(x.size(2)) + self.positions(x.size(1)))
        for layer, block in enumerate(self.blocks):
            x = block(x, self._attention(layer, mask, pairs))
        out: Tensor = self.norm(x)
        return out

    def _attention(
        self, layer: int, mask: Tensor, pairs: Tensor | None
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        if self.pair_bias is None or pairs is None:
            return lambda q, k, v: padded_attention(q, k, v, mask, causal=self.causal)
        table = self.pair_bias[layer]
        return lambda q, k, v: pair_attention(q, k, v, pairs, table, causal=self.causal)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
