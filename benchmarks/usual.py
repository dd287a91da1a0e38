"""SASRec and BERT4Rec as they are usually written: the other side of benchmarks/throughput.py.

A Python ``Dataset`` pads every sequence to ``max_len``, a ``DataLoader`` stacks them, stock
Transformer layers run in float32, and ``cross_entropy`` takes the logits of every position.
The weights are copied from our models, so that both compute the same loss.
"""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from tgrec.models import BERT4Rec, SASRec
from tgrec.nn.transformer import Block, SequenceEncoder

IGNORED = -100


class PaddedSequences(Dataset[tuple[Tensor, Tensor]]):
    """One user per entry: padded inputs and the target of every position (-100 for none)."""

    def __init__(
        self, sequences: list[list[int]], max_len: int, num_items: int, mask_prob: float | None
    ) -> None:
        self.sequences, self.max_len = sequences, max_len
        self.num_items, self.mask_prob = num_items, mask_prob

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        sequence = self.sequences[row][-(self.max_len + 1) :]
        if self.mask_prob is None:
            inputs, targets = sequence[:-1], sequence[1:]
            length = self.max_len
        else:
            inputs, targets = self._mask(sequence)
            length = self.max_len + 1
        pad = length - len(inputs)
        return torch.tensor([-1] * pad + inputs), torch.tensor([IGNORED] * pad + targets)

    def _mask(self, sequence: list[int]) -> tuple[list[int], list[int]]:
        inputs, targets = [], []
        for place, item in enumerate(sequence):
            if place == len(sequence) - 1 or random.random() < (self.mask_prob or 0):
                show = random.random() if place < len(sequence) - 1 else 0.0
                inputs.append(
                    self.num_items
                    if show < 0.8
                    else random.randrange(self.num_items)
                    if show < 0.9
                    else item
                )
                targets.append(item)
            else:
                inputs.append(item)
                targets.append(IGNORED)
        return inputs, targets


class UsualEncoder(nn.Module):
    """``nn.TransformerEncoder`` over padded sequences, with logits at every position."""

    def __init__(self, model: SASRec | BERT4Rec) -> None:
        super().__init__()
        config = model.config
        self.causal = isinstance(model, SASRec)
        self.item = nn.Parameter(model.item.detach().clone())
        encoder: SequenceEncoder = (
            model.encoder if isinstance(model, SASRec) else model.branch.encoder
        )
        self.position = nn.Parameter(encoder.positions.table.detach().clone())
        self.layers = nn.ModuleList(_layer(block, config) for block in encoder.blocks)  # type: ignore[arg-type]
        self.norm = encoder.norm
        self.head = (
            nn.Identity()
            if isinstance(model, SASRec)
            else nn.Sequential(model.branch.project, nn.GELU(), model.branch.norm)
        )
        self.drop = nn.Dropout(config["dropout"])
        self.num_items, self.n_heads = model.num_items, int(config["n_heads"])

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the positions with a target."""
        padding = inputs < 0
        x = F.embedding(inputs.clamp(min=0), self.item) * self.item.size(1) ** 0.5
        x = self.drop(x + self.position[-inputs.size(1) :])
        length = inputs.size(1)
        shut = None
        if self.causal:
            shut = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        if shut is not None:  # a padded query must see something, or stock attention gives NaN
            own = torch.eye(length, dtype=torch.bool, device=inputs.device)
            shut = (shut | padding[:, None, :]) & ~own
            shut = shut.repeat_interleave(self.n_heads, dim=0)
        for layer in self.layers:
            x = layer(x, src_mask=shut, src_key_padding_mask=None if self.causal else padding)
        logits = self.head(self.norm(x)) @ self.item[: self.num_items].t()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _layer(block: Block, config: dict[str, Any]) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        config["d_model"],
        config["n_heads"],
        config["d_ff"],
        config["dropout"],
        "gelu",
        batch_first=True,
        norm_first=True,
    )
    copies = {
        "self_attn.in_proj_weight": block.qkv.weight,
        "self_attn.in_proj_bias": block.qkv.bias,
        "self_attn.out_proj.weight": block.out.weight,
        "self_attn.out_proj.bias": block.out.bias,
        "linear1.weight": block.up.weight,
        "linear1.bias": block.up.bias,
        "linear2.weight": block.down.weight,
        "linear2.bias": block.down.bias,
        "norm1.weight": block.norm_1.weight,
        "norm1.bias": block.norm_1.bias,
        "norm2.weight": block.norm_2.weight,
        "norm2.bias": block.norm_2.bias,
    }
    layer.load_state_dict({name: value.detach().clone() for name, value in copies.items()})
    return layer
