"""GraphSAGE over users and what they are interested in, for :mod:`tgrec.models.weekly_interest`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import EdgeStorage

from tgrec.data.reverse import reverse_type
from tgrec.data.temporal_graph import EdgeType
from tgrec.nn.node_input import NodeInput, decays
from tgrec.nn.sage import SAGEEncoder
from tgrec.nn.transformer import Dropout

AGES = (1.0, 2.0, 4.0, 8.0)  # scales of the ages of messages, in weeks
EDGE_DIM = 1 + len(AGES)
# The encoder's own names of the kinds of edges, whatever those of a graph are.
FORWARD: EdgeType = ("user", "interacts", "item")
REVERSE: EdgeType = reverse_type(FORWARD)


class GNNEncoder(nn.Module):
    """GraphSAGE over users and events; messages know the count and the age of their edge.

    Built on :class:`tgrec.nn.sage.SAGEEncoder`, whose layers have norms per node instead of a batch
    norm, and in which users and events hear of each other at once. Nodes that have neither features
    nor a learned table share one learned vector: they are then known by what they did alone.

    Args:
        user_feature_dim: Width of ``data["user"].x``; 0 where users have no features.
        event_feature_dim: The same for events.
        gnn_hidden_dim: D.
        num_gnn_layers: Layers, that is how many edges away a node hears of others.
        sage_aggr: How messages are aggregated, as PyG names it.
        dropout: In [0, 1).
        num_users: Rows of a learned table of users, added to their features; None for none.
        num_events: The same for events.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        user_feature_dim: int,
        event_feature_dim: int,
        gnn_hidden_dim: int = 128,
        num_gnn_layers: int = 2,
        sage_aggr: str = "mean",
        dropout: float = 0.1,
        num_users: int | None = None,
        num_events: int | None = None,
    ) -> None:
        super().__init__()
        self.sage = SAGEEncoder(
            {"user": gnn_hidden_dim, "item": gnn_hidden_dim},
            [FORWARD, REVERSE],
            gnn_hidden_dim,
            num_gnn_layers,
            sage_aggr,
            dropout,
            edge_dim=EDGE_DIM,
            gate=True,
        )
        self.user = _node_input("user", gnn_hidden_dim, num_users, user_feature_dim)
        self.event = _node_input("event", gnn_hidden_dim, num_events, event_feature_dim)
        self.tables = {"user": num_users is not None, "event": num_events is not None}
        self.drop = Dropout(dropout)

    def forward(self, data: HeteroData) -> tuple[Tensor, Tensor]:
        """Vectors of users and events.

        Args:
            data: A whole graph, or a batch of :func:`tgrec.loader.link_neighbor_loader`, of which
                the seeds are returned. It has one kind of edges from ``user`` to ``item`` (or
                ``event``), with ``edge_attr`` ``[E, 1]``, their counts (else each counts one), and
                ``age`` ``[E]``, the full weeks since their own week ended (else 0). Reverse edges
                are made where there are none.

        Returns:
            ``[U, D]`` and ``[N, D]``.

        Raises:
            ValueError: If the graph has another form or other features.
        """
        kind = interaction_type(data)
        nodes, edges = None, None
        if "num_sampled_nodes" in data["user"]:
            nodes = {
                t: data[name].num_sampled_nodes
                for t, name in zip(("user", "item"), kind[::2], strict=True)
            }
            kinds = {FORWARD: kind, REVERSE: reverse_type(kind)}
            edges = {e: data[name].num_sampled_edges for e, name in kinds.items()}
        out = self.sage(self._nodes(data), *_messages(data, self.device), nodes, edges)
        return out["user"], out["item"]

    @torch.no_grad()
    def inference(
        self, data: HeteroData, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """:meth:`forward` of a whole graph, layer by layer, every node from all of its edges.

        Args:
            data: A whole graph. What must not be seen must not be in it.
            device: Where to compute; the weights are moved there. By default where they are.

        Returns:
            ``[U, D]`` and ``[N, D]``, without gradients and without dropout.
        """
        if device is not None:
            self.to(device)
        was_training = self.training
        self.eval()
        out = self.sage.inference(self._nodes(data), *_messages(data, self.device))
        self.train(was_training)
        return out["user"], out["item"]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def _nodes(self, data: HeteroData) -> dict[str, Tensor]:
        """The inputs of all nodes of a graph."""
        event = interaction_type(data)[2]
        return {
            "user": self._inputs("user", self.user, data, "user"),
            "item": self._inputs("event", self.event, data, event),
        }

    def _inputs(self, name: str, inputs: NodeInput, data: HeteroData, node_type: str) -> Tensor:
        store, x = data[node_type], None
        size = int(store.num_nodes or 0)
        if inputs.lin is not None:
            width = store.x.size(-1) if "x" in store else 0
            if width != inputs.lin.in_features:
                raise ValueError(
                    f"'{name}_feature_dim' is {inputs.lin.in_features} and data[{node_type!r}].x "
                    f"has a width of {width}; both need to be the same"
                )
            x = store.x.to(self.device)
        n_id = store.n_id.to(self.device) if "n_id" in store else None
        if inputs.table is not None and not self.tables[name]:
            n_id = torch.zeros(size, dtype=torch.int64, device=self.device)  # the shared vector
        elif inputs.table is not None and n_id is None and inputs.table.size(0) != size:
            raise ValueError(
                f"'num_{name}s' is {inputs.table.size(0)} and the graph has {size}; a learned "
                f"table belongs to the nodes that it was made for"
            )
        out = inputs(n_id, x)
        # Inputs start small, with a deviation of 0.02; the layers expect about one.
        scaled: Tensor = self.drop(out * math.sqrt(out.size(1)))
        return scaled


def interaction_type(data: HeteroData) -> EdgeType:
    """The one kind of edges from users to events.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [e for e in data.edge_types if e[0] == "user" and e[2] in ("item", "event")]
    if len(found) != 1:
        raise ValueError(
            f"'data' needs one kind of edges from 'user' to 'item' or 'event' (got {found})"
        )
    return found[0]


def interactions(data: HeteroData, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """``[2, E]`` int64 users and events, and ``[E]`` float32 counts."""
    store = data[interaction_type(data)]
    return store.edge_index.to(device), _counts(store).to(device)


def _messages(
    data: HeteroData, device: torch.device
) -> tuple[dict[EdgeType, Tensor], dict[EdgeType, Tensor]]:
    """The edges of both directions and their features, under the encoder's own names."""
    kind = interaction_type(data)
    forward = data[kind]
    edges, attrs = forward.edge_index.to(device), _edge_features(forward).to(device)
    back, back_attrs = edges.flip(0), attrs
    if reverse_type(kind) in data.edge_types:
        reverse = data[reverse_type(kind)]
        back, back_attrs = reverse.edge_index.to(device), _edge_features(reverse).to(device)
    return {FORWARD: edges, REVERSE: back}, {FORWARD: attrs, REVERSE: back_attrs}


def _edge_features(store: EdgeStorage) -> Tensor:
    """``[E, EDGE_DIM]``: the logarithm of the count, and the age in soft buckets."""
    count = _counts(store)
    age = store.age if "age" in store else torch.zeros_like(count)
    return torch.cat([torch.log1p(count).unsqueeze(1), decays(age, AGES)], dim=1)


def _counts(store: EdgeStorage) -> Tensor:
    """``[E]`` float32."""
    size = store.edge_index.size(1)
    if "edge_attr" not in store:
        return torch.ones(size, device=store.edge_index.device)
    count: Tensor = store.edge_attr
    if count.numel() != size:
        raise ValueError(
            f"'edge_attr' needs one count per edge, of shape [{size}, 1] (got {list(count.shape)})"
        )
    return count.reshape(-1).float()


def _node_input(name: str, channels: int, num_nodes: int | None, width: int) -> NodeInput:
    if isinstance(width, bool) or not isinstance(width, int) or width < 0:
        raise ValueError(
            f"'{name}_feature_dim' needs to be an integer of at least 0 (got {width!r})"
        )
    if num_nodes is None and width == 0:
        num_nodes = 1  # one vector for all of them
    return NodeInput(channels, num_nodes, width or None)
