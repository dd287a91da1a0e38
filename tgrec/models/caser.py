"""Caser with the full cross-entropy, trained at every position."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling
from tgrec.models.base import RecModel, arguments
from tgrec.models.sasrec import next_item_loss
from tgrec.nn.tcn import runs
from tgrec.nn.transformer import Dropout


class Caser(RecModel):
    r"""Convolutions over the last w events as an image (Tang and Wang, WSDM 2018).

    With X the ``[w, D]`` vectors of the last w events (zeros where there are fewer), horizontal
    filters :math:`F^k_h` of every height h and vertical filters :math:`G^k` of one column,

    .. math:: o_{hk} = \max_t \mathrm{ReLU}(F^k_h \cdot X_{t:t+h} + c_{hk}), \qquad
              \tilde{o}_k = \sum_{t=1}^{w} G^k_t X_t, \qquad
              y = W_2\, \mathrm{ReLU}(W_1 [o, \tilde{o}] + b_1) + b_2, \qquad z = y E^\top

    Every position predicts the next event from its own w events. The convolutions of neighbouring
    positions share their products: each filter runs over the history once, and the maximum over
    the ``w - h + 1`` places inside of a window is a pooling with stride 1.

    Differs from the paper: cross-entropy over the whole catalogue instead of 3 sampled negatives;
    one table for inputs and outputs, so that :math:`W_2` stands for the paper's output matrix
    (with a tied table and without it, users would have no negative coordinate); no user vectors
    :math:`P_u` (optional in the paper, its p = V H against p = P V H), which would be 387 K
    parameters on MovieLens-1M and know nobody new. It therefore knows the last w events only.

    Args:
        num_items: N.
        d_model: D.
        window: w, how many events a position sees.
        num_horizontal: Horizontal filters of each height 1..w.
        num_vertical: Vertical filters.
        max_len: L, how many of the latest events are trained on.
        dropout: In [0, 1), on what the two linear layers read.
    """

    def __init__(
        self,
        num_items: int,
        d_model: int = 64,
        window: int = 5,
        num_horizontal: int = 16,
        num_vertical: int = 4,
        max_len: int = 200,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(**arguments(locals()))
        for name in ("window", "num_horizontal", "num_vertical"):
            if self.config[name] < 1:
                raise ValueError(f"'{name}' needs to be positive (got {self.config[name]})")
        self.sampling = Sampling(max_len=max_len)
        self.window = window
        self.item = nn.Parameter(torch.empty(num_items, d_model).normal_(std=0.02))
        self.horizontal = nn.ModuleList(
            nn.Linear(height * d_model, num_horizontal) for height in range(1, window + 1)
        )
        self.vertical = nn.Linear(window, num_vertical, bias=False)
        self.hide = nn.Linear(window * num_horizontal + num_vertical * d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.drop = Dropout(dropout)

    def hidden(self, history: History) -> Tensor:
        """``[B, L, D]``: position j holds what is looked for after event j."""
        x = F.embedding(history.item, self.item) * math.sqrt(self.item.size(1))
        x = x.masked_fill(~history.mask.unsqueeze(2), 0.0)
        x = F.pad(x, (0, 0, self.window - 1, 0))  # the first window holds one event
        features = [
            F.relu(filters(runs(x, height))).unfold(1, self.window - height + 1, 1).amax(3)
            for height, filters in enumerate(self.horizontal, start=1)
        ]
        columns = self.vertical(x.unfold(1, self.window, 1))  # [B, L, D, num_vertical]
        features.append(columns.flatten(2))
        y = F.relu(self.hide(self.drop(torch.cat(features, dim=2))))
        out: Tensor = self.out(self.drop(y))
        return out

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the last position, of which the last w events are all that it reads."""
        assert batch.history is not None
        return self.hidden(batch.history.latest(self.window))[:, -1]

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
