"""Weekly interest: what each user will turn to next week, from the graphs of the weeks before.

:class:`GNNEncoder` makes vectors of users and events from one graph;
:class:`UserInteractionPredictor` reads those of several weeks in their order. An *event* is here
what a user is interested in: a node ``item`` of a :class:`tgrec.data.TemporalRecGraph`, or a node
``event`` of a plain ``HeteroData``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from tgrec.models.weekly_encoder import GNNEncoder, interaction_type, interactions
from tgrec.nn.attention import padded_attention
from tgrec.nn.positional import PositionalEncoding
from tgrec.nn.transformer import Block, Dropout

__all__ = ["GNNEncoder", "UserInteractionPredictor", "WeekEncoder", "WeeklyVectors"]

_NOTHING = 1e-9  # the share of an event that a user has never met; its logarithm must exist


class WeekEncoder(nn.Module):
    r"""A Transformer over the weeks of a node.

    .. math:: t_w = x_w + V\,[\ell_w,\; \ell_w - \bar\ell] + \mathrm{PE}_w, \qquad
              h = \mathrm{LN}\Big(\mathrm{Blocks}(t)_L + \tfrac1L \textstyle\sum_w x_w\Big), \qquad
              \ell_w = \log(1 + n_w)

    with :math:`n_w` the interactions of the node in week w, which a mean over its neighbours does
    not tell. The last position speaks of how things move, the mean of what lasts.

    Args:
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        max_weeks: The longest sequence.
        dropout: In [0, 1).
    """

    def __init__(
        self, d_model: int, n_heads: int, n_blocks: int, max_weeks: int, dropout: float
    ) -> None:
        super().__init__()
        self.positions = PositionalEncoding(d_model, max_weeks)
        self.totals = nn.Linear(2, d_model, bias=False)
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, 4 * d_model, dropout) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(d_model)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, total: Tensor) -> Tensor:
        """``[n, D]`` from ``x`` ``[n, L, D]`` and ``total`` ``[n, L]``, the newest week last."""
        level = torch.log1p(total)
        course = level - level.mean(dim=1, keepdim=True)
        hidden = x + self.totals(torch.stack([level, course], dim=2))
        hidden = self.drop(self.positions(hidden))
        for place, block in enumerate(self.blocks):
            last = place == len(self.blocks) - 1
            hidden = block(hidden, padded_attention, last)
        out: Tensor = self.norm(hidden[:, -1] + x.mean(dim=1))
        return out


@dataclass(frozen=True)
class WeeklyVectors:
    """What L weeks say of each node, the newest last.

    Args:
        user: ``[U, L, D]`` vectors of :class:`GNNEncoder`.
        event: ``[N, L, D]``.
        user_total: ``[U, L]`` interactions of each user in each week.
        event_total: ``[N, L]``.
    """

    user: Tensor
    event: Tensor
    user_total: Tensor
    event_total: Tensor

    def weeks(self, start: int, stop: int) -> WeeklyVectors:
        """The weeks ``start..stop-1`` (views)."""
        parts = (self.user, self.event, self.user_total, self.event_total)
        return WeeklyVectors(*(part[:, start:stop] for part in parts))


class UserInteractionPredictor(nn.Module):
    r"""SAGE on the graph of each week, then a Transformer over the weeks of each user and event.

    The rate at which user u turns to event e next week is what is new plus what is repeated, times
    the event's own course:

    .. math:: s_{ue} = b(z_e) + \log\Big(e^{\langle h_u, P z_e \rangle / \sqrt D}
              + e^{g(h_u)}\, r_{ue}\Big), \qquad
              r_{ue} = \frac{\sum_w a_{L - w}\, c_{uew}}{\sum_{e'} \sum_w a_{L - w}\, c_{ue'w}}

    with :math:`h_u, z_e` the outputs of two :class:`WeekEncoder`, :math:`c_{uew}` the counts on
    the user's own edges, :math:`a` learned weights by age, :math:`b` and :math:`g` linear. The sum
    of a distribution over all events and one over those met before is that of RepeatNet (Ren et
    al., AAAI 2019) and of pointer-generator networks (See et al., ACL 2017). Nothing in it is
    constant over the events of a user, so every part takes part in the ranking.

    Args:
        user_feature_dim: As :class:`GNNEncoder` takes it, like all up to ``dropout``.
        event_feature_dim: Likewise.
        gnn_hidden_dim: D.
        num_gnn_layers: Layers of SAGE.
        sage_aggr: How messages are aggregated.
        dropout: In [0, 1), of SAGE and of the Transformer.
        n_heads: Attention heads.
        n_blocks: Blocks of the Transformer.
        max_weeks: Weeks that are read; earlier ones are left out.
        num_users: As :class:`GNNEncoder` takes it.
        num_events: Likewise.

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
        n_heads: int = 4,
        n_blocks: int = 2,
        max_weeks: int = 8,
        num_users: int | None = None,
        num_events: int | None = None,
    ) -> None:
        super().__init__()
        self.gnn_encoder = GNNEncoder(
            user_feature_dim, event_feature_dim, gnn_hidden_dim, num_gnn_layers, sage_aggr,
            dropout, num_users, num_events,
        )  # fmt: skip
        for name, value in (("n_blocks", n_blocks), ("max_weeks", max_weeks)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
        self.max_weeks = max_weeks
        self.user_weeks = WeekEncoder(gnn_hidden_dim, n_heads, n_blocks, max_weeks, dropout)
        self.event_weeks = WeekEncoder(gnn_hidden_dim, n_heads, n_blocks, max_weeks, dropout)
        self.project = nn.Linear(gnn_hidden_dim, gnn_hidden_dim, bias=False)
        self.trend = nn.Linear(gnn_hidden_dim, 1)
        self.repeat = nn.Linear(gnn_hidden_dim, 1)
        # Logarithms; before anything is learned a count is worth 1 / (1 + its age in weeks).
        self.age_weight = nn.Parameter(-torch.log1p(torch.arange(max_weeks).float()))

    def forward(
        self,
        user_embeddings: Tensor,
        event_embeddings: Tensor,
        edge_label_index: Tensor,
        own: Tensor | None = None,
    ) -> Tensor:
        """Logits of links, positives and negatives alike; their labels say which they are.

        Args:
            user_embeddings: ``[U, D]``, such as :class:`GNNEncoder` returns for a sampled batch.
            event_embeddings: ``[N, D]``.
            edge_label_index: ``[2, P]`` rows of the two.
            own: ``[P]`` shares r of :meth:`own_interest`; None leaves repeated interest out.

        Returns:
            ``[P]`` float32.
        """
        user = user_embeddings.index_select(0, edge_label_index[0])
        event = event_embeddings.index_select(0, edge_label_index[1])
        new = (user * self.project(event)).sum(dim=1) / math.sqrt(user.size(1))
        total = self._with_repeats(new, self.repeat(user)[:, 0], own)
        out: Tensor = total + self.trend(event)[:, 0]
        return out

    def score(self, user: Tensor, event: Tensor, own: Tensor | None = None) -> Tensor:
        """The logits of all pairs: ``[B, N]`` of ``[B, D]``, ``[N, D]`` and shares ``[B, N]``."""
        new = user @ self.project(event).t() / math.sqrt(user.size(1))
        total = self._with_repeats(new, self.repeat(user), own)
        out: Tensor = total + self.trend(event)[:, 0]
        return out

    def weekly_vectors(
        self, snapshots: Sequence[HeteroData], device: torch.device | str | None = None,
        *, train_gnn: bool = False,
    ) -> WeeklyVectors:  # fmt: skip
        """Runs SAGE on the graph of each week.

        Args:
            snapshots: One graph per week, the newest last, all with the same nodes.
            device: As :meth:`GNNEncoder.inference` takes it.
            train_gnn: Keep gradients and dropout (otherwise :meth:`GNNEncoder.inference`).
        """
        if not snapshots:
            raise ValueError("'snapshots' is empty; at least one week needs to be past")
        run = self.gnn_encoder if train_gnn else self.gnn_encoder.inference
        if device is not None:
            self.to(device)
        vectors = [run(data) for data in snapshots]
        user, event = (torch.stack(parts, dim=1) for parts in zip(*vectors, strict=True))
        totals: list[list[Tensor]] = [[], []]
        for data in snapshots:
            edges, count = interactions(data, user.device)
            for side, size in enumerate((user.size(0), event.size(0))):
                total = torch.zeros(size, device=user.device)
                totals[side].append(total.index_add_(0, edges[side], count))
        return WeeklyVectors(user, event, *(torch.stack(total, dim=1) for total in totals))

    def temporal(
        self, vectors: WeeklyVectors, users: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the Transformers over the weeks.

        Args:
            vectors: Of at most ``max_weeks`` weeks.
            users: ``[B]`` int64 rows that are wanted; by default all.

        Returns:
            ``[B, D]`` users and ``[N, D]`` events as they stand after the last week.
        """
        x, total = vectors.user, vectors.user_total
        if users is not None:
            x, total = x.index_select(0, users), total.index_select(0, users)
        event = self.event_weeks(vectors.event, vectors.event_total)
        return self.user_weeks(x, total), event

    def own_interest(self, snapshots: Sequence[HeteroData], users: Tensor | None = None) -> Tensor:
        """``[B, N]`` shares r: what part of a user's past, weighted by age, each event has.

        Args:
            snapshots: The graphs of the weeks, the newest last; the latest ``max_weeks`` are read.
            users: ``[B]`` int64; by default all. A user without a past has a row of zeros.
        """
        snapshots, device = snapshots[-self.max_weeks :], self.age_weight.device
        size = [int(snapshots[-1][t].num_nodes or 0) for t in interaction_type(snapshots[-1])[::2]]
        users = torch.arange(size[0], device=device) if users is None else users
        row_of = torch.full((size[0],), -1, device=device)
        row_of[users] = torch.arange(users.numel(), device=device)
        rows, cols, values = [], [], []
        for age, data in enumerate(reversed(snapshots)):
            (user, event), count = interactions(data, device)
            row = row_of.index_select(0, user)
            kept = (row >= 0).nonzero().view(-1)
            rows.append(row[kept])
            cols.append(event[kept])
            values.append(count[kept] * self.age_weight[age].exp())
        out = torch.zeros(users.numel(), size[1], device=device)
        out = out.index_put((torch.cat(rows), torch.cat(cols)), torch.cat(values), accumulate=True)
        return out / out.sum(dim=1, keepdim=True).clamp(min=_NOTHING)

    @torch.no_grad()
    def get_temporal_embeddings(
        self, snapshots: Sequence[HeteroData], device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Users and events after a sequence of weeks, for ranking.

        Args:
            snapshots: One graph per week, the newest last; the latest ``max_weeks`` are read. What
                is to be predicted must not be among them.
            device: Where to compute; the weights are moved there. By default where they are.

        Returns:
            ``[U, D]`` and ``[N, D]``, without gradients and without dropout.
        """
        was_training = self.training
        self.eval()
        out = self.temporal(self.weekly_vectors(snapshots[-self.max_weeks :], device))
        self.train(was_training)
        return out

    @torch.no_grad()
    def predict_top_k_for_user(
        self,
        user_embedding: Tensor,
        event_embeddings: Tensor,
        k: int = 5,
        own: Tensor | None = None,
    ) -> tuple[list[int], list[float]]:
        """The k events that a user most likely turns to.

        Args:
            user_embedding: ``[D]`` one row of what :meth:`get_temporal_embeddings` returns.
            event_embeddings: ``[N, D]`` the other part of it.
            k: How many, at most N.
            own: ``[N]`` the user's row of :meth:`own_interest`; None leaves repeats out.

        Returns:
            Event indices, best first (equal scores by index), and their scores.

        Raises:
            ValueError: If k is not in 1..N.
        """
        size = event_embeddings.size(0)
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= size:
            raise ValueError(f"'k' needs to be in 1..{size}, the number of events (got {k!r})")
        row = None if own is None else own.unsqueeze(0)
        scores = self.score(user_embedding.unsqueeze(0), event_embeddings, row)[0]
        best, place = scores.sort(descending=True, stable=True)
        return place[:k].tolist(), best[:k].tolist()

    @staticmethod
    def _with_repeats(new: Tensor, gate: Tensor, own: Tensor | None) -> Tensor:
        return new if own is None else torch.logaddexp(new, gate + (own + _NOTHING).log())
