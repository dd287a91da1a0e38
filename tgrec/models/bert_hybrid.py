"""BERT4Rec that reads items as their own vectors and as what a graph of items makes of them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, TemporalRecGraph
from tgrec.data.transitions import add_transitions
from tgrec.models.bert4rec import BERT4Rec
from tgrec.nn.item_graph import ItemGraph
from tgrec.nn.transformer import Positions

Fusion = Literal["fixed", "discrete", "learned", "continuous"]
# Share of an item's own vector: the seed's best fixed one, and those for short, middle and long
# histories, which end at 10 and at 50 events.
FIXED, BY_LENGTH, LENGTHS = 0.3, (0.3, 0.5, 0.7), (10, 50)
# The graph: items that follow each other within 3 events, at least 5 times.
WINDOW, MIN_COUNT = 3, 5


class BERTHybrid(BERT4Rec):
    r""":class:`BERT4Rec` over items fused with LightGCN's, by the length n of the history.

    .. math:: x_j = \alpha(n)\, E_{i_j} + (1 - \alpha(n))\, W\, G_{i_j}, \qquad
              G = \mathrm{LightGCN}(E)

    over the graph of items that stand within 3 events of each other in at least 5 places of the
    training histories (:class:`tgrec.nn.item_graph.ItemGraph`, weights are counts). Short
    histories are to lean on the graph. The forms of alpha, one subclass each:

    * ``fixed``: 0.3.
    * ``discrete``: 0.3, 0.5, 0.7 up to 10, up to 50 and above 50 events.
    * ``learned``: the same three, as the start of parameters under a sigmoid.
    * ``continuous``: :math:`\sigma(w_2^\top \mathrm{ReLU}(w_1 \log(n + 1) + b_1) + b_2)`, 32 wide.

    The model is that of seed 000 (no paper; LightGCN is He et al., SIGIR 2020, arXiv 2002.02126).
    As there, only what is read is fused: scores are products with E. Differs from the seed: edges
    are divided by weighted degrees, so that sums stay bounded (the seed divides counts by the
    numbers of neighbours); the learned shares start at the values that are named, not at their
    sigmoids; the mask token, which is no item, is read as it is; only the items of a batch are
    fused; the training is that of :class:`BERT4Rec`. n counts the events that are read, at most
    ``max_len``. The graph knows the training events alone, among them those that are being
    predicted: each is one count of at least 5.

    Args:
        num_items: N.
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers.
        max_len: L, how many of the latest events are read.
        dropout: In [0, 1).
        mask_prob: Share of positions masked.
        last_prob: Share of training sequences in which only the last position is masked.
        positions: ``learned``, ``sinusoidal`` or ``relative``.
        graph_layers: K of the LightGCN.
        num_edges: E of the graph; filled by :meth:`from_graph` (a model made by hand has none).
    """

    fusion: ClassVar[Fusion]

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
        graph_layers: int = 2,
        num_edges: int | None = None,
    ) -> None:
        super().__init__(
            num_items, d_model, n_heads, n_blocks, d_ff, max_len, dropout, mask_prob, last_prob,
            positions,
        )  # fmt: skip
        self.config |= {"graph_layers": graph_layers, "num_edges": num_edges}
        self.graph = ItemGraph(num_items, graph_layers, num_edges)
        self.to_read = nn.Linear(d_model, d_model, bias=False)
        nn.init.eye_(self.to_read.weight)  # at the start both halves of the mixture are alike
        self.share = LengthShare(self.fusion)

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Builds the model and counts the neighbours in ``graph`` (training events only)."""
        edge_index, edge_weight = neighbor_counts(graph)
        model = cls(graph.num_items, num_edges=edge_weight.numel(), **kwargs)
        model.graph.fill(edge_index, edge_weight)
        return model

    def embed(self, item: Tensor, history: History) -> Tensor:
        """``[B, S, D]`` the mixture of both vectors, which depends on the length of the history."""
        alpha: Tensor = self.share(history.mask.sum(1))[:, None, None]
        graph = self.to_read(self.graph(self.encode_item()))
        graph = torch.cat([graph, self.item[self.num_items :]])  # the mask token
        return alpha * F.embedding(item, self.item) + (1 - alpha) * F.embedding(item, graph)

    @torch.no_grad()
    def mixture(self, events: int) -> tuple[float, str, str]:
        """The share of the items' own vectors after so many events."""
        share = self.share(torch.tensor([events], device=self.item.device))
        return float(share), "items themselves", "item graph"

    @torch.no_grad()
    def monitor(self) -> dict[str, float]:
        """The share of an item's own vector after 5, 30 and 150 events."""
        lengths = torch.tensor([5, 30, 150], device=self.item.device)
        shares = self.share(lengths).tolist()
        return dict(zip(("alpha_short", "alpha_middle", "alpha_long"), shares, strict=True))


class BERTHybridFixed(BERTHybrid):
    """:class:`BERTHybrid` with the same mixture for everybody."""

    fusion = "fixed"


class BERTHybridDiscrete(BERTHybrid):
    """:class:`BERTHybrid` with three given mixtures, by the length of the history."""

    fusion = "discrete"


class BERTHybridLearned(BERTHybrid):
    """:class:`BERTHybrid` with three learned mixtures, by the length of the history."""

    fusion = "learned"


class BERTHybridContinuous(BERTHybrid):
    """:class:`BERTHybrid` with a mixture that is a learned function of the history's length."""

    fusion = "continuous"


class LengthShare(nn.Module):
    """The share ``alpha(n)`` of :class:`BERTHybrid`, in (0, 1)."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion
        self.register_buffer("lengths", torch.tensor(LENGTHS), persistent=False)
        values = torch.tensor([FIXED] * 3 if fusion == "fixed" else BY_LENGTH)
        if fusion == "continuous":
            self.curve = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1))
        elif fusion == "learned":
            self.values: Tensor = nn.Parameter(torch.logit(values))
        else:
            self.register_buffer("values", values, persistent=False)

    lengths: Tensor

    def forward(self, n: Tensor) -> Tensor:
        """``[B]`` int64 lengths to ``[B]`` float32 shares."""
        if self.fusion == "continuous":
            out: Tensor = self.curve(torch.log1p(n.float()).unsqueeze(1)).float().sigmoid()
            return out.squeeze(1)
        values = self.values.sigmoid() if self.fusion == "learned" else self.values
        return values[torch.bucketize(n, self.lengths)]


def neighbor_counts(graph: TemporalRecGraph) -> tuple[Tensor, Tensor]:
    """How often two items stand near each other in the histories of ``graph``.

    Returns:
        ``edge_index`` ``[2, E]`` and ``edge_weight`` ``[E]``: undirected (every edge in both
        directions), of at least :data:`MIN_COUNT` counts, and a loop of weight 1 at every item.
    """
    follows = add_transitions(graph, WINDOW, 1.0)["item", "next", "item"]
    index, count = follows.edge_index, follows.edge_weight
    index, count = torch.cat([index, index.flip(0)], dim=1), torch.cat([count, count])
    pair, place = torch.unique(index[0] * graph.num_items + index[1], return_inverse=True)
    count = torch.zeros(pair.numel()).index_add_(0, place, count)
    row, col = pair // graph.num_items, pair % graph.num_items
    kept = (count >= MIN_COUNT) & (row != col)
    loop = torch.arange(graph.num_items)
    edge_index = torch.stack([torch.cat([row[kept], loop]), torch.cat([col[kept], loop])])
    return edge_index, torch.cat([count[kept], torch.ones(graph.num_items)])
