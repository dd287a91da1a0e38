"""SASRec with the full cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling
from tgrec.models.base import RecModel, arguments
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.soft_cross_entropy import soft_linear_cross_entropy
from tgrec.nn.transformer import Positions, SequenceEncoder


class SASRec(RecModel):
    r"""Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018, arXiv 1808.09781).

    A causal Transformer over the user's last events; position j predicts event j + 1:

    .. math:: z_j = h_j E^\top, \qquad \mathcal{L} = -\sum_j \log \mathrm{softmax}(z_j)_{i_{j+1}}

    Differs from the paper: cross-entropy over the whole catalogue instead of one sampled negative
    (Klenitskiy and Vasilev, RecSys 2023, arXiv 2309.07602), pre-norm blocks, GELU, and no dropout
    on attention weights.

    Args:
        num_items: N.
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers.
        max_len: L, how many of the latest events are read.
        dropout: In [0, 1).
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
        positions: Positions = "learned",
    ) -> None:
        super().__init__(**arguments(locals()))
        self.sampling = Sampling(max_len=max_len)
        self.item = nn.Parameter(torch.empty(num_items, d_model).normal_(std=0.02))
        self.encoder = SequenceEncoder(
            d_model, n_heads, n_blocks, d_ff, max_len, dropout, causal=True, positions=positions
        )

    def hidden(self, history: History, last: bool = False) -> Tensor:
        """``[B, L, D]``: position j holds what is looked for after event j; or the ``last``."""
        vectors = F.embedding(history.item, self.item)
        out: Tensor = self.encoder(vectors, history.mask, last=last)
        return out

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the last position."""
        assert batch.history is not None
        return self.hidden(batch.history, last=True)

    def next_states(self, batch: RecBatch) -> Tensor:
        """``[B, L, D]``; see :meth:`RecModel.next_states`."""
        assert batch.history is not None
        return self.hidden(batch.history)

    def encode_item(self) -> Tensor:
        """``[N, D]``, the table that the inputs are read from."""
        return self.item

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy at every real position."""
        return next_item_loss(self.next_states(batch), self.encode_item(), batch)


def next_item_loss(hidden: Tensor, table: Tensor, batch: RecBatch) -> tuple[Tensor, Tensor]:
    """``(sum [1], count [1])`` of the cross-entropy of every position's next item.

    Args:
        hidden: ``[B, L, D]``.
        table: ``[N, D]``.
        batch: Its history ``[B, L]``, the items ``[B]`` behind it and, if there are, soft labels.
    """
    history, item, soft = batch.history, batch.item, batch.soft
    assert history is not None
    assert item is not None
    target = torch.cat([history.item[:, 1:], item.unsqueeze(1)], dim=1).flatten()
    if soft is None and history.mask.is_cuda:  # to find the rows would stop the host
        kept = history.mask.flatten()
        total = linear_cross_entropy(hidden.flatten(0, 1), table, target, kept=kept)
        return total.view(1), kept.sum().float().view(1)
    rows = history.mask.flatten().nonzero().view(-1)
    target, states = target[rows], hidden.flatten(0, 1)[rows]
    if soft is None:
        total = linear_cross_entropy(states, table, target)
    else:
        told = soft.hidden.flatten(0, 1)[rows]
        total = soft_linear_cross_entropy(states, table, target, told, soft.table, soft.share)
    return total.view(1), torch.full((1,), float(rows.numel()), device=item.device)
