"""What the graph models share: a tower of items with features, and the loss over the catalogue."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.models.base import RecModel
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.node_input import NodeInput

# Integers with more values than this are numbers, not codes, and no feature.
MAX_CODES = 128


class TwoTower(RecModel):
    r"""Users and items as vectors, scored by inner products; a subclass makes the users' vectors.

    .. math:: z_u = h_u V^\top, \qquad v_i = E_i + W f_i, \qquad
              \mathcal{L} = -\log \mathrm{softmax}(z_u)_i

    with the cross-entropy over the whole catalogue at every training seed. The vectors of items
    are a table plus projected features (genres, year), so that rare items share what others have
    learned. The vectors of users, which are inputs only and needed from the second hop on, are
    made likewise.

    Args:
        num_items: N.
        num_users: U; :meth:`from_graph` fills it.
        channels: D.
        num_features: F of the items; :meth:`from_graph` fills it, 0 is none.
        num_user_features: G of the users, likewise.
        sampling: What a batch must hold.
        config: The keyword arguments of the subclass.
    """

    def __init__(
        self,
        num_items: int,
        num_users: int,
        channels: int,
        num_features: int,
        num_user_features: int,
        sampling: Sampling,
        **config: Any,
    ) -> None:
        super().__init__(
            num_items,
            num_users=num_users,
            num_features=num_features,
            num_user_features=num_user_features,
            **config,
        )
        self.sampling = sampling
        self.item = NodeInput(channels, num_items, num_features or None)
        self.user: NodeInput | None = None
        if sampling.meets_others:
            self.user = NodeInput(channels, num_users, num_user_features or None)
        self.register_buffer("item_features", torch.zeros(num_items, num_features))
        self.register_buffer("user_features", torch.zeros(num_users, num_user_features))
        self.item_features: Tensor
        self.user_features: Tensor

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Builds the model for the nodes of a graph and copies their features."""
        items, users = node_features(graph, "item"), node_features(graph, "user")
        model = cls(
            graph.num_items,
            num_users=graph.num_users,
            num_features=items.size(1),
            num_user_features=users.size(1),
            **kwargs,
        )
        model.item_features.copy_(items)
        model.user_features.copy_(users)
        return model

    def encode_item(self) -> Tensor:
        """``[N, D]``, the table that the inputs are read from too."""
        out: Tensor = self.item(x=self.item_features)
        return out

    def user_inputs(self, n_id: Tensor, seeds: Tensor, scale: float = 1.0) -> Tensor:
        """``[n, D]`` what an encoder reads at users.

        Users that are reached have vectors of their own, those who are asked about have not:
        with one, a model learns users by heart, and without, new users are served like old ones.

        Args:
            n_id: ``[n]`` int64, those who are asked about first.
            seeds: ``[B, D]`` what is read at these.
            scale: Factor on the others.
        """
        if self.user is None:
            return seeds
        table = self.user(x=self.user_features) * scale
        return torch.cat([seeds, F.embedding(n_id[seeds.size(0) :], table)])

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]``."""
        return self.tower(batch, self.encode_item())

    def tower(self, batch: RecBatch, items: Tensor) -> Tensor:
        """``[B, D]`` of the users of a batch, from the vectors ``[N, D]`` of all items."""
        raise NotImplementedError(f"{type(self).__name__} does not implement tower")

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy at every seed."""
        assert batch.item is not None
        items = self.encode_item()
        total = linear_cross_entropy(self.tower(batch, items), items, batch.item)
        return total.view(1), torch.full((1,), float(batch.item.numel()), device=total.device)


def node_features(graph: TemporalRecGraph, node_type: str) -> Tensor:
    """``[N, F]`` float32: all that the nodes of a type carry beside ids and names.

    Floats ``[N]`` or ``[N, F]`` are taken as they are, integers and bools ``[N]`` of at most
    :data:`MAX_CODES` different values as codes (one column per value).
    """
    size = int(graph[node_type].num_nodes or 0)
    columns: list[Tensor] = []
    for name, value in sorted(graph[node_type].items()):
        per_node = isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == size
        if not per_node or name == "raw_id" or name.endswith(("_bytes", "_offsets")):
            continue
        if value.is_floating_point() and value.dim() <= 2:
            columns.append(value.view(size, -1).float().cpu())
        elif not value.is_floating_point() and value.dim() == 1:
            known, code = value.cpu().unique(return_inverse=True)
            if 1 < known.numel() <= MAX_CODES:
                columns.append(F.one_hot(code, known.numel()).float())
    return torch.cat(columns, dim=1) if columns else torch.zeros(size, 0)
