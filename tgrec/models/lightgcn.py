"""LightGCN over each user's temporal neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling
from tgrec.data.batch import Strategy
from tgrec.models.two_tower import TwoTower
from tgrec.nn.lightgcn import LightGCNEncoder


class LightGCN(TwoTower):
    r"""LightGCN (He et al., SIGIR 2020, arXiv 2002.02126) as a user tower over temporal trees.

    .. math:: h_u = \frac{1}{L + 1} \sum_{k=0}^{L} x_u^{(k)}, \qquad
              x_i^{(k+1)} = \sqrt{d_i}\; \mathrm{mean}_{j \to i}\, x_j^{(k)} / \sqrt{d_j}

    over the sampled events before the cut, with the degrees of that time (see
    :class:`tgrec.nn.lightgcn.LightGCNEncoder`). It knows which items a user met lately, not in
    which order.

    Differs from the paper: the neighbourhood is the user's newest events, not all of a static
    graph; the user who is asked about has no vector of its own, ``x_u^{(0)} = 0``; items are
    scored by their own vectors, not by propagated ones; these vectors include projected features
    (:class:`tgrec.models.two_tower.TwoTower`); cross-entropy over the whole catalogue, at a
    learned temperature, instead of BPR.

    Args:
        num_items: N.
        num_users: U; filled by :meth:`from_graph`.
        hidden_channels: D.
        num_neighbors: Events per node in each hop, the user's own first; as many layers as hops.
        train_strategy: ``last`` or ``uniform``, see :class:`tgrec.data.Sampling`.
        seeds_per_user: Events of each user that are predicted in an epoch; None is all of them.
        num_features: F of the items; filled by :meth:`from_graph`.
        num_user_features: G of the users; filled by :meth:`from_graph`.
    """

    learns = "pairs"

    def __init__(
        self,
        num_items: int,
        num_users: int = 1,
        hidden_channels: int = 64,
        num_neighbors: Sequence[int] = (20, 3),
        train_strategy: Strategy = "last",
        seeds_per_user: int | None = 20,
        num_features: int = 0,
        num_user_features: int = 0,
    ) -> None:
        super().__init__(
            num_items,
            num_users,
            hidden_channels,
            num_features,
            num_user_features,
            Sampling(None, tuple(num_neighbors), train_strategy, seeds_per_user),
            hidden_channels=hidden_channels,
            num_neighbors=list(num_neighbors),
            train_strategy=train_strategy,
            seeds_per_user=seeds_per_user,
        )
        self.encoder = LightGCNEncoder(len(num_neighbors))
        # A mean of few vectors divided by degrees is short; the loss needs logits of some size.
        self.scale = nn.Parameter(torch.tensor(float(hidden_channels)))

    def tower(self, batch: RecBatch, items: Tensor) -> Tensor:
        """``[B, D]`` the mean over the layers of the propagation, times the inverse temperature."""
        graph = batch.graph
        assert graph is not None
        nobody = items.new_zeros(batch.user.numel(), items.size(1))
        out = self.encoder(
            {
                "user": self.user_inputs(graph["user"].n_id, nobody),
                "item": F.embedding(graph["item"].n_id, items),
            },
            graph.edge_index_dict,
            graph.collect("degree"),
            graph.collect("num_sampled_nodes"),
        )
        users: Tensor = self.scale * out["user"]
        return users
