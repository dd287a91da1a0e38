"""GRU4Rec with the full cross-entropy."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling
from tgrec.models.base import RecModel, arguments
from tgrec.models.sasrec import next_item_loss
from tgrec.nn.transformer import Dropout


class GRU4Rec(RecModel):
    r"""Recurrent network over the user's events (Hidasi et al., ICLR 2016, arXiv 1511.06939).

    .. math:: s_j = \mathrm{GRU}(s_{j-1}, E_{i_j}), \qquad z_j = (W s_j + b)\, E^\top, \qquad
              \mathcal{L} = -\sum_j \log \mathrm{softmax}(z_j)_{i_{j+1}}

    Differs from the paper: cross-entropy over the whole catalogue (Hidasi and Karatzoglou, CIKM
    2018, arXiv 1706.03847, sample it) instead of TOP1 over the items of the batch; whole histories
    instead of sessions that run in parallel; one table for inputs and outputs, which W leads to.

    Args:
        num_items: N.
        d_model: D, of the vectors of items.
        hidden_channels: Width of the state.
        n_blocks: Layers of the GRU.
        max_len: L, how many of the latest events are read.
        dropout: In [0, 1), on inputs and on states.
    """

    static_step = True

    def __init__(
        self,
        num_items: int,
        d_model: int = 64,
        hidden_channels: int = 128,
        n_blocks: int = 1,
        max_len: int = 200,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(**arguments(locals()))
        self.sampling = Sampling(max_len=max_len)
        self.item = nn.Parameter(torch.empty(num_items, d_model).normal_(std=0.02))
        self.gru = nn.GRU(d_model, hidden_channels, n_blocks, batch_first=True)
        self.project = nn.Linear(hidden_channels, d_model)
        self.drop = Dropout(dropout)

    def hidden(self, history: History) -> Tensor:
        """``[B, L, D]``: position j holds what is looked for after event j."""
        return self._project(self._states(history), history.mask)

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the last position."""
        assert batch.history is not None
        last = self._states(batch.history)[:, -1:]
        return self._project(last, batch.history.mask[:, -1:])[:, 0]

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

    def _states(self, history: History) -> Tensor:
        """``[B, L, hidden_channels]``, anything at padding."""
        # The first event has to meet the first state: padding goes to the right and back.
        padding = history.mask.size(1) - history.mask.sum(1)
        x = self.drop(F.embedding(history.item, self.item) * math.sqrt(self.item.size(1)))
        # On CUDA autocast runs a GRU in float16, whatever it is asked for, and nothing here scales
        # the loss for that.
        on_cuda = x.is_cuda
        with torch.autocast("cuda", enabled=False) if on_cuda else nullcontext():
            states, _ = self.gru(rotate(x.float() if on_cuda else x, -padding))
        return rotate(states, padding)

    def _project(self, states: Tensor, mask: Tensor) -> Tensor:
        states = states.masked_fill(~mask.unsqueeze(2), 0.0)  # an empty history is state 0
        out: Tensor = self.project(self.drop(states))
        return out


def rotate(x: Tensor, steps: Tensor) -> Tensor:
    """Moves the positions of row b of ``x`` ``[B, L, D]`` to the right by ``steps[b]``, in a ring.

    Args:
        x: ``[B, L, D]``.
        steps: ``[B]`` int64; below 0 is to the left.
    """
    place = torch.arange(x.size(1), device=x.device) - steps.unsqueeze(1)
    place = place.remainder(max(1, x.size(1))).unsqueeze(2)
    return x.gather(1, place.expand(x.shape))
