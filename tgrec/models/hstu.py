"""HSTU with the full cross-entropy and cosine logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling
from tgrec.models.base import RecModel, arguments
from tgrec.models.sasrec import next_item_loss
from tgrec.nn.gap_attention import gap_pairs
from tgrec.nn.hstu import HSTUEncoder


class HSTU(RecModel):
    r"""Hierarchical sequential transduction units (Zhai et al., ICML 2024, arXiv 2402.17152).

    Layers of pointwise gated attention over the user's last events
    (:class:`tgrec.nn.hstu.HSTUBlock`), whose biases read how many events and how much time lie
    between two of them; position j predicts event j + 1 by the cosine:

    .. math:: z_j = \frac{1}{T} \frac{h_j}{|h_j|} \cdot \frac{E}{|E|}, \qquad
              \mathcal{L} = -\sum_j \log \mathrm{softmax}(z_j)_{i_{j+1}}

    The time between is that from event k to event j on T1, and to the question after event j on
    T2.

    Differs from the paper: cross-entropy over the whole catalogue instead of sampled negatives;
    no vectors of absolute positions, since the biases tell distances; items only, no actions;
    time in half-octave buckets (:func:`tgrec.nn.gap_attention.gap_bucket`).

    Args:
        num_items: N.
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Layers.
        max_len: L, how many of the latest events are read.
        dropout: In [0, 1).
        temperature: T.
        use_time: Whether the biases read times, or distances only.
    """

    static_step = True

    def __init__(
        self,
        num_items: int,
        d_model: int = 64,
        n_heads: int = 2,
        n_blocks: int = 8,
        max_len: int = 200,
        dropout: float = 0.2,
        temperature: float = 0.05,
        use_time: bool = True,
    ) -> None:
        super().__init__(**arguments(locals()))
        if not temperature > 0:
            raise ValueError(f"'temperature' needs to be positive (got {temperature})")
        self.sampling = Sampling(max_len=max_len)
        self.temperature, self.use_time = temperature, use_time
        self.item = nn.Parameter(torch.empty(num_items, d_model).normal_(std=0.02))
        self.encoder = HSTUEncoder(d_model, n_heads, n_blocks, max_len, dropout)

    def hidden(self, history: History, query_time: Tensor | None, last: bool = False) -> Tensor:
        """``[B, L, D]`` of length 1 / T: what is looked for after event j; or the ``last``."""
        asked = history.time if query_time is None else query_time[:, 1:]
        times = (asked, history.time)
        if not self.use_time:
            times = (torch.zeros_like(asked), torch.zeros_like(asked))
        pairs = gap_pairs(*times, history.mask)
        states = self.encoder(F.embedding(history.item, self.item), history.mask, pairs, last)
        return F.normalize(states.float(), dim=-1) / self.temperature

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the last position."""
        assert batch.history is not None
        return self.hidden(batch.history, batch.query_time, last=True)

    def next_states(self, batch: RecBatch) -> Tensor:
        """``[B, L, D]``; see :meth:`RecModel.next_states`."""
        assert batch.history is not None
        return self.hidden(batch.history, batch.query_time)

    def encode_item(self) -> Tensor:
        """``[N, D]`` of length 1, of the table that the inputs are read from."""
        return F.normalize(self.item, dim=1)

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy at every real position."""
        return next_item_loss(self.next_states(batch), self.encode_item(), batch)
