"""The graph beside the sequences: what others did next, inside a domain and across domains."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import TemporalRecGraph
from tgrec.data.transitions import add_transitions
from tgrec.models.trigrec_sequences import DomainCloze
from tgrec.nn.transformer import Dropout


class TransitionNeighbors(nn.Module):
    """The strongest item-item transitions of each item, inside its domain and across domains.

    Args:
        num_items: N.
        num_kinds: 1 where there is one domain, else 2: inside, across.
        num_neighbors: K kept per item and kind.
        max_lag: Largest step counted.
        decay: Weight of one more step.
    """

    def __init__(
        self, num_items: int, num_kinds: int, num_neighbors: int, max_lag: int, decay: float
    ) -> None:
        super().__init__()
        self.num_kinds, self.max_lag, self.decay = num_kinds, max_lag, decay
        # The mask token, which stands at the question, has no neighbours.
        shape = (num_items + 1, num_kinds, num_neighbors)
        self.register_buffer("neighbor", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("weight", torch.zeros(shape))
        self.neighbor: Tensor
        self.weight: Tensor

    def fill(self, graph: TemporalRecGraph, item_domain: Tensor) -> None:
        """Counts the transitions of ``graph``, which holds training events only."""
        store = add_transitions(graph, self.max_lag, self.decay)["item", "next", "item"]
        (source, target), weight = store.edge_index, store.edge_weight
        across = item_domain[source] != item_domain[target]
        kept = source != target
        for kind in range(self.num_kinds):
            rows = (
                (kept & (across == bool(kind)) if self.num_kinds > 1 else kept).nonzero().view(-1)
            )
            rows = rows[torch.argsort(weight[rows], descending=True, stable=True)]
            rows = rows[torch.argsort(source[rows], stable=True)]
            count = torch.bincount(source[rows], minlength=self.weight.size(0))
            first = count.cumsum(0) - count
            place = torch.arange(rows.numel()) - first[source[rows]]
            rows, place = (x[place < self.weight.size(2)] for x in (rows, place))
            self.neighbor[source[rows], kind, place] = target[rows].int()
            self.weight[source[rows], kind, place] = weight[rows]

    def others(self, cloze: DomainCloze) -> tuple[Tensor, Tensor]:
        """Neighbours and weights ``[B, S, kinds, K]`` of each position, its user's own left out.

        Counts of training events hold the transitions of the very user who is asked about, those
        into the target among them. While training, what is taken away is what this row has added.
        In a test the row also has events that were never counted, the validation target and what
        followed it in other domains: what is taken away for these is a little of what other users
        have added (0.5 % of the graph's vector on average).
        """
        item = cloze.target
        neighbor = self.neighbor[item].long()
        weight = self.weight[item]
        own = torch.zeros_like(weight)
        for step in range(1, min(self.max_lag, item.size(1) - 1) + 1):
            later = F.pad(item[:, step:], (0, step))
            there = F.pad(cloze.mask[:, step:], (0, step)) & cloze.mask
            hit = (neighbor == later[:, :, None, None]) & there[:, :, None, None]
            own = own + hit * self.decay ** (step - 1)
        return neighbor, (weight - own).clamp(min=0)


class DomainGraphEncoder(nn.Module):
    r"""GraphSAGE (Hamilton et al., NeurIPS 2017) over two hops: user, items, items chosen next.

    .. math:: x_i = \mathrm{GELU}\Big(W e_i + \sum_{k} W_k
              \frac{\sum_j w^k_{ij} e_j}{\sum_j w^k_{ij} + 1}\Big), \qquad
              g_u = \mathrm{LN}\Big(\sum_d W_d \,\mathrm{mean}_{i \in H_d(u)}\, x_i\Big)

    with k the kind of transition (inside a domain, across domains) and :math:`H_d(u)` the user's
    strictly earlier events in domain d, a one-hop sample of the user's edges of that relation.

    Args:
        channels: D.
        num_domains: Domains.
        num_kinds: Kinds of transitions.
        dropout: In [0, 1).
    """

    def __init__(self, channels: int, num_domains: int, num_kinds: int, dropout: float) -> None:
        super().__init__()
        self.root = nn.Linear(channels, channels)
        self.next = nn.ModuleList(
            nn.Linear(channels, channels, bias=False) for _ in range(num_kinds)
        )
        self.domain = nn.ModuleList(
            nn.Linear(channels, channels, bias=False) for _ in range(num_domains)
        )
        self.norm = nn.LayerNorm(channels)
        self.drop = Dropout(dropout)

    def forward(
        self, cloze: DomainCloze, x: Tensor, items: Tensor, neighbors: TransitionNeighbors
    ) -> Tensor:
        """``[B, D]``, for which holes count for nothing.

        Args:
            cloze: The events.
            x: ``[B, S, D]`` the vectors of their items.
            items: ``[N + 1, D]`` the vectors of all items.
            neighbors: The transitions.
        """
        scale = math.sqrt(items.size(1))
        neighbor, weight = neighbors.others(cloze)
        share = weight / (weight.sum(3, keepdim=True) + 1)
        # All kinds in one call: its gradient is as large as the table of items.
        mixed = F.embedding_bag(
            neighbor.flatten(0, 2), items, per_sample_weights=share.flatten(0, 2), mode="sum"
        )
        mixed = mixed.view(*weight.shape[:3], -1) * scale
        x = self.root(x * scale)
        for kind, lin in enumerate(self.next):
            x = x + lin(mixed[:, :, kind])
        x = self.drop(F.gelu(x))
        total = torch.zeros_like(x[:, 0])
        for d, lin in enumerate(self.domain):
            total = total + lin(pooled(x, cloze.known & (cloze.relation == d)))
        out: Tensor = self.norm(total)
        return out


def pooled(x: Tensor, known: Tensor) -> Tensor:
    """``[B, D]`` mean of ``x`` ``[B, S, D]`` where ``known``, 0 if nowhere."""
    weight = known.unsqueeze(2).to(x.dtype)
    total: Tensor = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
    return total
