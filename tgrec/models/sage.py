"""GraphSAGE over each user's temporal neighbourhood, as the user tower of a two-tower model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.data.batch import Strategy
from tgrec.data.reverse import reverse_type
from tgrec.models.two_tower import TwoTower
from tgrec.nn.node_input import decays
from tgrec.nn.sage import EdgeType, SAGEEncoder
from tgrec.nn.transformer import Dropout

# Scales of the ages of messages: numbers of newer events, and seconds (less than one, a minute, an
# hour, a day, a month, a year).
LAGS = (0.5, 2.0, 8.0, 32.0, 128.0)
GAPS = (0.2, 60.0, 3600.0, 86400.0, 30 * 86400.0, 365 * 86400.0)
EDGE_DIM = len(LAGS) + len(GAPS)


class SAGE(TwoTower):
    r"""Inductive two-tower recommendation on the temporal graph.

    The user's vector is computed by GraphSAGE (Hamilton et al., NeurIPS 2017, arXiv 1706.02216)
    from the sampled events before the cut: the user's items, the users who had met these items by
    then, and so on. Messages know their age (see :class:`tgrec.nn.sage.SAGEEncoder`):

    .. math:: m_{ij} = \mathrm{ReLU}(x_j + V\,[\mathrm{decays}(\text{lag}),
              \mathrm{decays}(\text{gap})])

    with ``lag`` the number of newer events of node i and ``gap`` the seconds between event ij and
    the time of node i: the event that led to it, or for the user the newest one on T1 and the
    question on T2. The user who is asked about has no vector of its own, and items are scored by
    inner products with a table (see :class:`tgrec.models.two_tower.TwoTower`).

    Differs from the paper: temporal trees instead of one static sub-graph, messages with ages, and
    cross-entropy over the whole catalogue instead of sampled negatives. A model with an item table
    and sampled neighbourhoods of users is close to PinSage (Ying et al., KDD 2018), without its
    random walks.

    Args:
        num_items: N.
        num_users: U; filled by :meth:`from_graph`.
        hidden_channels: D.
        num_neighbors: Events per node in each hop, the user's own first; as many layers as hops.
        aggr: As PyG names it.
        dropout: In [0, 1).
        train_strategy: ``last`` or ``uniform``, see :class:`tgrec.data.Sampling`.
        seeds_per_user: Events of each user that are predicted in an epoch; None is all of them.
        relations: Kinds of events to hear; filled by :meth:`from_graph`.
        num_features: F of the items; filled by :meth:`from_graph`.
        num_user_features: G of the users; filled by :meth:`from_graph`.
    """

    def __init__(
        self,
        num_items: int,
        num_users: int = 1,
        hidden_channels: int = 64,
        num_neighbors: Sequence[int] = (20, 3),
        aggr: str = "mean",
        dropout: float = 0.1,
        train_strategy: Strategy = "last",
        seeds_per_user: int | None = 20,
        relations: Sequence[str] = ("rates",),
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
            aggr=aggr,
            dropout=dropout,
            train_strategy=train_strategy,
            seeds_per_user=seeds_per_user,
            relations=list(relations),
        )
        forward: list[EdgeType] = [("user", r, "item") for r in relations]
        self.edge_types = [*forward, *(reverse_type(e) for e in forward)]
        self.encoder = SAGEEncoder(
            {"user": hidden_channels, "item": hidden_channels},
            self.edge_types,
            hidden_channels,
            len(num_neighbors),
            aggr,
            dropout,
            edge_dim=EDGE_DIM,
            out_types=("user",),
        )
        self.drop = Dropout(dropout)
        self.seed = nn.Parameter(torch.empty(hidden_channels).normal_(std=0.02))

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Builds the model for the nodes, features and kinds of events of a graph."""
        return super().from_graph(
            graph, relations=[t[1] for t in graph.interaction_types], **kwargs
        )

    def tower(self, batch: RecBatch, items: Tensor) -> Tensor:
        """``[B, D]`` what GraphSAGE makes of the neighbourhoods."""
        graph = batch.graph
        assert graph is not None
        # Vectors of items start small, since they also score; as inputs they are scaled up.
        scale = math.sqrt(items.size(1))
        item = F.embedding(graph["item"].n_id, items * scale)
        seeds = self.seed.expand(batch.user.numel(), -1)
        user = self.user_inputs(graph["user"].n_id, seeds, scale)
        out = self.encoder(
            {"user": self.drop(user), "item": self.drop(item)},
            graph.edge_index_dict,
            {e: ages(graph, e) for e in self.edge_types},
            graph.collect("num_sampled_nodes"),
            graph.collect("num_sampled_edges"),
        )
        users: Tensor = out["user"]
        return users


def ages(graph: HeteroData, edge_type: EdgeType) -> Tensor:
    """``[E, EDGE_DIM]`` how old each message is, in events and in seconds."""
    store = graph[edge_type]
    now = graph[edge_type[2]].time.index_select(0, store.edge_index[1])
    return torch.cat([decays(store.lag, LAGS), decays(now - store.time, GAPS)], dim=1)
