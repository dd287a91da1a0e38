"""BERT4Rec: fill in what is masked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling
from tgrec.data.random import uniform
from tgrec.models.base import RecModel, arguments
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.transformer import Positions, SequenceEncoder


@dataclass(frozen=True)
class Cloze:
    """A sequence with holes.

    Args:
        item: ``[B, S]`` what the model reads, ``num_items`` being the mask token.
        mask: ``[B, S]`` bool, True at real positions.
        hole: ``[B, S]`` bool, True where the item is to be predicted.
        target: ``[B, S]`` the items before masking.
    """

    item: Tensor
    mask: Tensor
    hole: Tensor
    target: Tensor


def make_cloze(batch: RecBatch, num_items: int, mask_prob: float, last_prob: float) -> Cloze:
    """Masks the training sequence (history and target) as BERT4Rec does.

    The last position is always a hole, since that is the question at inference. In a share
    ``last_prob`` of the sequences it is the only one; in the others every position is a hole with
    probability ``mask_prob``, shown as the mask token (80 %), a random item (10 %) or itself
    (10 %). Draws are keyed by the seed and the distance from the end, so neither padding nor
    batches change them.
    """
    history, item, key = batch.history, batch.item, batch.key
    assert history is not None
    assert item is not None
    if key is None:
        raise ValueError("a training batch needs 'key' for its random draws; use a SeedLoader")
    target = torch.cat([history.item, item.unsqueeze(1)], dim=1)
    mask = torch.cat([history.mask, torch.ones_like(history.mask[:, :1])], dim=1)
    length = target.size(1)
    from_end = torch.arange(length - 1, -1, -1, device=target.device)
    key = key.unsqueeze(1)
    cloze_row = uniform(key, 0) >= last_prob
    streams = torch.arange(1, 4, device=target.device).view(3, 1, 1)
    hide, show, other = uniform(key, streams, from_end)  # [3, B, S] in one call
    hole = mask & cloze_row & (hide < mask_prob)
    noise = (other * num_items).long().clamp(max=num_items - 1)
    shown = torch.where(show < 0.8, num_items, torch.where(show < 0.9, noise, target))
    last = from_end == 0
    hole = hole | last
    shown = torch.where(last, num_items, shown)
    return Cloze(torch.where(hole, shown, target), mask, hole, target)


def holes(cloze: Cloze, mask_prob: float) -> tuple[Tensor, Tensor | None]:
    """Where the holes are: ``[R]`` positions in the flat ``[B * S]``, in their order.

    On CUDA, where the host would have to wait to learn how many there are, R is a number that they
    stay below (:func:`holes_at_most`); the second result, ``[R]`` bool, is then False where there
    is no hole. Elsewhere it is None.
    """
    hole = cloze.hole.flatten()
    if not hole.is_cuda:
        return hole.nonzero().view(-1), None
    most = holes_at_most(cloze.hole.size(0), cloze.hole.size(1), mask_prob)
    at = torch.arange(hole.numel(), device=hole.device)
    # The n-th hole goes to place n, all the rest behind the end.
    place = torch.where(hole, hole.cumsum(0) - 1, most).clamp(max=most)
    rows = at.new_zeros(most + 1).scatter_(0, place, at)[:most]
    return rows, at[:most] < hole.sum()


def holes_at_most(rows: int, length: int, mask_prob: float) -> int:
    """A number of holes in ``rows`` sequences of ``length`` that is not met in practice.

    The last positions, and of the others, if none were left out, eight standard deviations more
    than ``mask_prob`` of them: once in 10^14 batches there are more, and the last of these are
    then not learned from.
    """
    others = rows * (length - 1)
    spread = 8 * math.sqrt(others * mask_prob * (1 - mask_prob))
    return min(rows * length, rows + math.ceil(others * mask_prob + spread))


def hole_loss(
    hidden: Tensor, table: Tensor, cloze: Cloze, rows: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """``(sum [1], count [1])`` of the cross-entropy at the holes, and ``[B, D]`` at the last ones.

    Args:
        hidden: ``[R, D]`` what is looked for at ``rows``.
        table: ``[N, D]``.
        cloze: ``[B, S]``.
        rows: From :func:`holes`.
        kept: Likewise.
    """
    total = linear_cross_entropy(hidden, table, cloze.target.flatten()[rows], kept=kept)
    last = cloze.hole.sum(1).cumsum(0) - 1  # the last position is always a hole
    if kept is None:
        return total.view(1), total.new_full((1,), hidden.size(0)), hidden[last]
    count = kept.sum().to(total.dtype)
    return total.view(1), count.view(1), hidden[last.clamp(max=hidden.size(0) - 1)]


def append_mask(history: History, num_items: int) -> tuple[Tensor, Tensor]:
    """The question at inference: the history and one mask token; items and mask ``[B, L + 1]``."""
    item = F.pad(history.item, (0, 1), value=num_items)
    return item, F.pad(history.mask, (0, 1), value=True)


class BERT4Rec(RecModel):
    r"""Bidirectional encoder for next items (Sun et al., CIKM 2019, arXiv 1904.06690).

    A Transformer that sees both sides predicts masked items; at inference one mask token stands
    after the history.

    .. math:: z_j = \mathrm{LN}(\mathrm{GELU}(W h_j + b))\, E^\top

    Differs from the paper: pre-norm blocks, no output bias, no dropout on attention weights, and
    the sequences whose only hole is the last one are drawn (``last_prob``) instead of added.

    Args:
        num_items: N.
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers.
        max_len: L, how many of the latest events are read (the mask token comes on top).
        dropout: In [0, 1).
        mask_prob: Share of positions masked.
        last_prob: Share of training sequences in which only the last position is masked.
        positions: ``learned``, ``sinusoidal`` or ``relative``.
    """

    static_step = True

    def __init__(
        self,
        num_items: int,
        d_model: int = 64,
        n_heads: int = 2,
        n_blocks: int = 2,
        d_ff: int = 256,
        max_len: int = 200,
        dropout: float = 0.2,
        mask_prob: float = 0.2,
        last_prob: float = 0.1,
        positions: Positions = "learned",
    ) -> None:
        super().__init__(**arguments(locals()))
        for name, share in (("mask_prob", mask_prob), ("last_prob", last_prob)):
            if not 0 <= share <= 1:
                raise ValueError(f"'{name}' needs to be in [0, 1] (got {share})")
        self.sampling = Sampling(max_len=max_len)
        self.mask_prob, self.last_prob = mask_prob, last_prob
        # Row num_items is the mask token.
        self.item = nn.Parameter(torch.empty(num_items + 1, d_model).normal_(std=0.02))
        self.branch = BERTBranch(d_model, n_heads, n_blocks, d_ff, max_len, dropout, positions)

    def embed(self, item: Tensor, history: History) -> Tensor:
        """``[B, S, D]`` what the branch reads at items and mask tokens ``[B, S]``.

        Args:
            item: What is read, ``num_items`` being the mask token.
            history: What is known of the users: a subclass may want to look at it.
        """
        return F.embedding(item, self.item)

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the prediction at a mask token after the history."""
        assert batch.history is not None
        item, mask = append_mask(batch.history, self.num_items)
        hidden: Tensor = self.branch(self.embed(item, batch.history), mask, last=True)
        return hidden

    def encode_item(self) -> Tensor:
        """``[N, D]``, the table that the inputs are read from, without the mask token."""
        return self.item[: self.num_items]

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy at the holes."""
        return self.cloze_loss(batch)[:2]

    def cloze_loss(self, batch: RecBatch) -> tuple[Tensor, Tensor, Tensor]:
        """``(sum [1], count [1])`` over the holes, and ``[B, D]`` the prediction at the last."""
        assert batch.history is not None
        cloze = make_cloze(batch, self.num_items, self.mask_prob, self.last_prob)
        rows, kept = holes(cloze, self.mask_prob)
        hidden = self.branch(self.embed(cloze.item, batch.history), cloze.mask, rows)
        return hole_loss(hidden, self.encode_item(), cloze, rows, kept)


class BERTBranch(nn.Module):
    """The bidirectional encoder with the projection of BERT's output head."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_blocks: int,
        d_ff: int,
        max_len: int,
        dropout: float,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.encoder = SequenceEncoder(
            d_model,
            n_heads,
            n_blocks,
            d_ff,
            max_len + 1,
            dropout,
            causal=False,
            positions=positions,
        )
        self.project = nn.Linear(d_model, d_model)
        nn.init.eye_(self.project.weight)  # as the values of the encoder, and for the same reason
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, x: Tensor, mask: Tensor, rows: Tensor | None = None, last: bool = False
    ) -> Tensor:
        """``[B, S, D]``.

        Or ``[R, D]`` at the positions ``rows`` ``[R]`` of the flat ``[B * S]``, or ``[B, D]`` at
        the ``last``.
        """
        hidden = self.encoder(x, mask, last=last)
        # Of all positions: products of as many rows as there are holes would be new ones each time.
        out = self.head(hidden)
        return out if rows is None else out.flatten(0, 1).index_select(0, rows)

    def head(self, hidden: Tensor) -> Tensor:
        """``[..., D]`` what is looked for at states of the encoder."""
        out: Tensor = self.norm(F.gelu(self.project(hidden)))
        return out
