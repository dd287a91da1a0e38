"""TCN-BERT4Rec: a bidirectional masked branch and a causal convolutional one, joined by a gate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import RecBatch
from tgrec.models.bert4rec import BERT4Rec
from tgrec.models.sasrec import next_item_loss
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.tcn import TCNEncoder
from tgrec.nn.transformer import Positions


class TCNBERT4Rec(BERT4Rec):
    r"""Two readers of the user's events over one item table E, and a scalar gate.

    * **BERT branch**: :class:`BERT4Rec`; ``h_bert`` stands at a mask token after the history.
    * **TCN branch**: dilated causal convolutions (:class:`tgrec.nn.tcn.TCNEncoder`), trained on
      every next event; ``h_tcn`` stands at the newest event, of which it sees the last 29.

    .. math:: h = \alpha\, h_{bert} + (1 - \alpha)\, h_{tcn}, \qquad z = h E^\top

    The loss is the mean cross-entropy over the whole catalogue of three kinds of predictions: of
    z for the last event of each sequence, of ``h_bert`` at the masked positions, of ``h_tcn`` at
    all positions. The model is that of seed 000 (no paper); there it is trained by one sampled
    negative on the fused vector alone, nothing is masked, and padding is convolved as if it were
    events. The seed's gate starts at 0.5, but passes through a sigmoid once too often; here it
    starts at ``fusion_alpha`` exactly.

    Args:
        num_items: N.
        d_model: D.
        n_heads: Attention heads (BERT branch).
        n_blocks: Blocks (BERT branch).
        d_ff: Width of the feed-forward layers (BERT branch).
        max_len: L, how many of the latest events are read.
        dropout: In [0, 1).
        mask_prob: Share of positions masked (BERT branch).
        last_prob: Share of training sequences in which only the last position is masked.
        positions: ``learned``, ``sinusoidal`` or ``relative`` (BERT branch).
        levels: Levels of the TCN branch.
        kernel_size: Positions that a convolution reads.
        fusion_alpha: Share of the BERT branch at the start, in (0, 1).
        learnable_fusion: Whether it is learned.
    """

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
        levels: int = 3,
        kernel_size: int = 3,
        fusion_alpha: float = 0.5,
        learnable_fusion: bool = True,
    ) -> None:
        super().__init__(
            num_items, d_model, n_heads, n_blocks, d_ff, max_len, dropout, mask_prob, last_prob,
            positions,
        )  # fmt: skip
        self.config |= {
            "levels": levels,
            "kernel_size": kernel_size,
            "fusion_alpha": fusion_alpha,
            "learnable_fusion": learnable_fusion,
        }
        if not 0 < fusion_alpha < 1:
            raise ValueError(
                f"'fusion_alpha' needs to be in (0, 1) (got {fusion_alpha}); BERT4Rec is the BERT "
                f"branch alone"
            )
        for name in ("levels", "kernel_size"):
            if self.config[name] < 1:
                raise ValueError(f"'{name}' needs to be positive (got {self.config[name]})")
        self.tcn = TCNEncoder(d_model, levels, kernel_size, dropout)
        gate = torch.logit(torch.tensor(fusion_alpha, dtype=torch.float64)).float()
        self.gate = nn.Parameter(gate, requires_grad=learnable_fusion)

    @property
    def alpha(self) -> Tensor:
        """The share of the BERT branch, a scalar."""
        return torch.sigmoid(self.gate)

    def mixture(self, events: int) -> tuple[float, str, str]:
        """The share of the BERT branch."""
        return float(self.alpha.detach()), "masked sequence", "convolutions"

    def monitor(self) -> dict[str, float]:
        """The gate."""
        return {"alpha": float(self.alpha.detach())}

    def next_states(self, batch: RecBatch) -> Tensor:
        """``[B, L, D]`` of the TCN branch; see :meth:`RecModel.next_states`."""
        history = batch.history
        assert history is not None
        hidden: Tensor = self.tcn(F.embedding(history.item, self.item), history.mask)
        return hidden

    def fuse(self, bert: Tensor, tcn: Tensor) -> Tensor:
        """``alpha * bert + (1 - alpha) * tcn``."""
        return self.alpha * bert + (1 - self.alpha) * tcn

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the fused representation."""
        assert batch.history is not None
        return self.fuse(super().encode_user(batch), self.next_states(batch)[:, -1])

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropies of the BERT branch, of the TCN branch and of the fused scores."""
        assert batch.item is not None
        bert_sum, bert_count, bert = self.cloze_loss(batch)
        states = self.next_states(batch)
        tcn_sum, tcn_count = next_item_loss(states, self.encode_item(), batch)
        fused = self.fuse(bert, states[:, -1])
        fused_sum = linear_cross_entropy(fused, self.encode_item(), batch.item).view(1)
        fused_count = torch.full_like(bert_count, float(batch.item.numel()))
        sums, counts = (bert_sum, tcn_sum, fused_sum), (bert_count, tcn_count, fused_count)
        return torch.cat(sums), torch.cat(counts)
