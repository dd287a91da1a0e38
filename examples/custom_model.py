"""A model of your own in one file.

    python benchmarks/ml1m.py --model examples/custom_model.py:LastFew --dataset simulated
    python examples/custom_model.py        # runs check_model on it

What the library does for it: histories strictly before the cut, batches, training with early
stopping, full ranking, the run folder, the table with intervals and paired tests.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling
from tgrec.models import RecModel


class LastFew(RecModel):
    r"""The next item from a weighted sum of the last few.

    .. math:: h_j = \sum_{k < \text{window}} w_k\, E^{in}_{i_{j-k}}, \qquad z_j = h_j {E^{out}}^\top

    trained with the cross-entropy over the whole catalogue at every position.

    Args:
        num_items: N.
        d_model: D.
        max_len: L, how many of the latest events a training example holds.
        window: How many of them a prediction reads.
    """

    def __init__(
        self, num_items: int, d_model: int = 64, max_len: int = 200, window: int = 4
    ) -> None:
        # Everything given here is saved with the weights and rebuilds the model.
        super().__init__(num_items, d_model=d_model, max_len=max_len, window=window)
        self.sampling = Sampling(max_len=max_len)
        self.window = window
        # Products of rows have a variance of 1, so that differences show from the first step.
        self.items_in = nn.Parameter(torch.randn(num_items, d_model) * d_model**-0.25)
        self.items_out = nn.Parameter(torch.randn(num_items, d_model) * d_model**-0.25)
        self.weight = nn.Parameter(0.5 ** torch.arange(window - 1, -1, -1.0))  # newest last

    def hidden(self, history: History) -> Tensor:
        """``[B, L, D]``: position j holds what is looked for after event j."""
        x = F.embedding(history.item, self.items_in) * history.mask.unsqueeze(2)
        x = F.pad(x, (0, 0, self.window - 1, 0))  # nothing stands before the first position
        return x.unfold(1, self.window, 1) @ self.weight

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the newest position."""
        assert batch.history is not None
        return self.hidden(batch.history)[:, -1]

    def encode_item(self) -> Tensor:
        """``[N, D]``."""
        return self.items_out

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Sum and number of the cross-entropies of every real position's next item."""
        history, item = batch.history, batch.item
        assert history is not None
        assert item is not None
        following = torch.cat([history.item[:, 1:], item.unsqueeze(1)], dim=1)
        logits = self.hidden(history)[history.mask] @ self.items_out.t()  # [real positions, N]
        total = F.cross_entropy(logits.float(), following[history.mask], reduction="sum")
        return total.view(1), torch.tensor([float(logits.size(0))], device=item.device)


if __name__ == "__main__":
    from tgrec.testing import check_model

    check_model(LastFew)
    print("LastFew passes check_model")
