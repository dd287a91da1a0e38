"""The temporal graph branch of TGT-BERT4Rec."""

from __future__ import annotations

import torch
from torch import Tensor

from tgrec.data import History, TemporalRecGraph
from tgrec.nn.event_time import EventTimeEmbedding
from tgrec.nn.gap_attention import NUM_BUCKETS, gap_pairs
from tgrec.nn.transformer import Positions, SequenceEncoder


class TGTBranch(SequenceEncoder):
    r"""A causal encoder of the user's edges that reads their real times.

    For head h, with :math:`t_j` the time of edge j and :math:`\tau_i` that of edge i (T1) or of the
    question after it (T2), in half-octave buckets:

    .. math:: A_{ij} = \mathrm{softmax}_j\!\left(q_i \cdot k_j / \sqrt{d_h}
              + b_h[\mathrm{bucket}(\tau_i - t_j)]\right)

    Time-aware attention over a user's edges is the idea of TGT (Xia et al., TKDE 2022,
    akaxlh/TGT); its form here is the relative time bias of HSTU (Zhai et al., ICML 2024, arXiv
    2402.17152) under a softmax. TGT's behaviour types and slot sub-users are not part of it.

    Args:
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers; None for gates in their place.
        max_len: L.
        dropout: In [0, 1).
        positions: As :class:`SequenceEncoder` takes them.
        use_time: Whether the attention reads times.
        time_vectors: Whether vectors of the times are added to those of the items
            (:class:`EventTimeEmbedding`).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_blocks: int,
        d_ff: int | None,
        max_len: int,
        dropout: float,
        positions: Positions,
        use_time: bool,
        time_vectors: bool,
    ) -> None:
        super().__init__(
            d_model, n_heads, n_blocks, d_ff, max_len, dropout,
            causal=True, positions=positions,
            pair_kinds=NUM_BUCKETS if use_time else 0,
        )  # fmt: skip
        self.times = EventTimeEmbedding(d_model) if use_time and time_vectors else None

    def set_span(self, graph: TemporalRecGraph) -> None:
        """Lets periods cover the time of the events of ``graph``."""
        if self.times is not None:
            times = torch.cat([graph[t].time for t in graph.interaction_types])
            self.times.span.copy_(torch.stack([times.min(), times.max()]))

    def read(
        self, vectors: Tensor, history: History, query_time: Tensor | None, last: bool = False
    ) -> Tensor:
        """``[B, L, D]``: position j holds what is looked for after edge j; or the ``last``.

        Args:
            vectors: ``[B, L, D]`` of the items of the edges.
            history: The edges.
            query_time: ``[B, L + 1]``; entry j + 1 is when the event after edge j is asked for.
                None on T1.
            last: Only the last position is wanted, ``[B, D]``.
        """
        vectors, pairs = self.timed(vectors, history, query_time)
        out: Tensor = self(vectors, history.mask, pairs, last)
        return out

    def timed(
        self, vectors: Tensor, history: History, query_time: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the encoder is given: vectors with those of the times, and the kinds of pairs."""
        if self.pair_bias is None:
            return vectors, None
        asked = history.time if query_time is None else query_time[:, 1:]
        if self.times is not None:
            vectors = vectors + self.times(history.time, history.mask, asked)
        return vectors, gap_pairs(asked, history.time, history.mask)
