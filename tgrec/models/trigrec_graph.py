"""The graph beside the sequences: what others did next, inside a domain and across domains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from tgrec.data import Sampling, TemporalRecGraph
from tgrec.data.reverse import reverse_type
from tgrec.data.temporal_graph import EdgeType
from tgrec.data.transitions import add_transitions
from tgrec.models.trigrec_sequences import DomainCloze
from tgrec.nn.sage import SAGEEncoder

# Messages come from the items that were chosen next.
KINDS: tuple[EdgeType, ...] = (("item", "rev_inside", "item"), ("item", "rev_across", "item"))
# Of each kind the heaviest of an item, counted over steps of up to max_lag.
NUM_NEIGHBORS, MAX_LAG, DECAY = 8, 3, 0.8
ROUNDING = 1e-4  # of sums of weights, the least of which is DECAY ** (MAX_LAG - 1)


class TransitionEdges(nn.Module):
    """The heaviest item-item transitions of each item, inside its domain and across domains.

    Args:
        num_items: N.
        num_kinds: 1 where there is one domain, else 2: inside, across.
        num_neighbors: K, how many per item and kind are heard.
        max_lag: Largest step counted.
        decay: Weight of one more step.
    """

    def __init__(
        self,
        num_items: int,
        num_kinds: int,
        num_neighbors: int = NUM_NEIGHBORS,
        max_lag: int = MAX_LAG,
        decay: float = DECAY,
    ) -> None:
        super().__init__()
        self.kinds, self.max_lag, self.decay = KINDS[:num_kinds], max_lag, decay
        self.num_neighbors = num_neighbors
        # Some more than are heard, in the place of those that are of the asker alone.
        shape = (num_items, num_kinds, num_neighbors + max_lag)
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
        for kind in range(len(self.kinds)):
            mine = kept & (across == bool(kind)) if len(self.kinds) > 1 else kept
            rows = mine.nonzero().view(-1)
            rows = rows[torch.argsort(weight[rows], descending=True, stable=True)]
            rows = rows[torch.argsort(source[rows], stable=True)]
            count = torch.bincount(source[rows], minlength=self.weight.size(0))
            first = count.cumsum(0) - count
            place = torch.arange(rows.numel()) - first[source[rows]]
            rows, place = (x[place < self.weight.size(2)] for x in (rows, place))
            self.neighbor[source[rows], kind, place] = target[rows].int()
            self.weight[source[rows], kind, place] = weight[rows]

    def graph(self) -> TemporalRecGraph:
        """The edges as a graph that samplers walk, ``edge_weight`` being their counts."""
        out = TemporalRecGraph()
        out["item"].num_nodes = self.weight.size(0)
        for kind, edge_type in enumerate(self.kinds):
            item, place = (self.weight[:, kind] > 0).nonzero(as_tuple=True)
            out[edge_type].edge_index = torch.stack([self.neighbor[item, kind, place].long(), item])
            out[edge_type].edge_weight = self.weight[item, kind, place]
        return out

    def sampling(self, max_len: int, relations: Sequence[str], asked: int | None) -> Sampling:
        """Histories, and beside them trees: a user's events of each domain, what followed those."""
        events = [reverse_type(("user", relation, "item")) for relation in relations]
        fan_outs = {e: (max_len, 0) for e in events}
        fan_outs |= {e: (0, self.weight.size(2)) for e in self.kinds}
        return Sampling(max_len, fan_outs, relation=asked, derived=self.graph)

    def without_own(self, tree: HeteroData, cloze: DomainCloze) -> dict[EdgeType, Tensor]:
        """Weights ``[E]`` of the transitions of a tree without what its own user has added.

        Counts of training events hold the transitions of the very user who is asked about, those
        into the target among them. What is taken away is what the events of the row have added,
        then the K heaviest of each item are kept: as if they had never been counted, where a row
        has no item twice. What followed the row, in other domains or windows, stays counted. In a
        test the row also has events that were never counted, the validation target and what
        followed it in other domains: what is taken away for these is a little of what other users
        have added (0.5 % of the graph's vector on average).

        Args:
            tree: Of :class:`tgrec.loader.NeighborhoodReader`.
            cloze: The rows, of which ``target`` and ``mask`` are read.
        """
        nodes, size, item = tree["item"], self.weight.size(0) + 1, cloze.target
        row, pairs, shares = torch.arange(item.size(0), device=item.device).unsqueeze(1), [], []
        for step in range(1, min(self.max_lag, item.size(1) - 1) + 1):
            pair = (row * size + item[:, :-step]) * size + item[:, step:]
            pairs.append(pair[cloze.mask[:, :-step]])
            shares.append(torch.full_like(pairs[-1], self.decay ** (step - 1), dtype=torch.float32))
        pair, place = torch.cat(pairs).unique(return_inverse=True)
        own = torch.zeros_like(pair, dtype=torch.float32).index_add(0, place, torch.cat(shares))
        out = {}
        for edge_type in self.kinds:
            later, earlier = tree[edge_type].edge_index
            wanted = (nodes.batch[earlier] * size + nodes.n_id[earlier]) * size + nodes.n_id[later]
            place = torch.searchsorted(pair, wanted).clamp(max=pair.numel() - 1)
            left = tree[edge_type].edge_weight - own[place] * (pair[place] == wanted)
            left = torch.where(left > ROUNDING, left, 0)
            out[edge_type] = left * (rank_of_each(left, earlier) < self.num_neighbors)
        return out


def rank_of_each(weight: Tensor, group: Tensor) -> Tensor:
    """``[E]`` how many of the same group ``[E]`` are heavier, or as heavy and before it."""
    order = torch.argsort(weight, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    count = torch.bincount(group)
    first = (count.cumsum(0) - count)[group[order]]
    place = torch.arange(order.numel(), device=order.device)
    return torch.empty_like(order).scatter_(0, order, place - first)


def places_of(tree: HeteroData, width: int) -> Tensor:
    """``[n]`` where the items of the first hop stand in rows of ``width``; -1 for all others.

    Rows end with the event that is asked for; before it stand the user's events of all domains,
    the newest, which has lag 0, last: in rows of 5 it stands at 3.
    """
    place = torch.full_like(tree["item"].n_id, -1)
    for edge_type in tree.edge_types:
        if edge_type[2] == "user":
            store = tree[edge_type]
            place[store.edge_index[0]] = (width - 2 - store.lag).clamp(min=-1)
    return place


class DomainGraphEncoder(nn.Module):
    r"""GraphSAGE (Hamilton et al., NeurIPS 2017) over two hops: user, items, items chosen next.

    .. math:: m_{ij} = e_j \odot 2\,\sigma(v_k \log(1 + w_{ij}) + b_k), \qquad
              x_i = \mathrm{SAGE}\big(e_i, \mathrm{mean}_{j \in N_k(i)}\, m_{ij}\big), \qquad
              g_u = \mathrm{SAGE}\big(x_u, \mathrm{mean}_{i \in H_d(u)}\, x_i\big)

    with :math:`N_k(i)` the items chosen next, by kind k of transition, w their weights and
    :math:`H_d(u)` the user's events in domain d.

    The trees come from the sampler that all models share: a user's strictly earlier events, each
    domain a kind of edge, and below each the transitions that are heaviest, inside its domain and
    across domains (:meth:`TransitionEdges.sampling`). The layers are those of
    :class:`tgrec.nn.sage.SAGEEncoder`; messages of transitions know their weight. The user has no
    vector of its own.

    Args:
        channels: D.
        relations: Names of the domains.
        kinds: Edge types of the transitions.
        dropout: In [0, 1).
    """

    def __init__(
        self, channels: int, relations: Sequence[str], kinds: Sequence[EdgeType], dropout: float
    ) -> None:
        super().__init__()
        self.events = [reverse_type(("user", relation, "item")) for relation in relations]
        self.encoder = SAGEEncoder(
            {"user": channels, "item": channels}, [*self.events, *kinds], channels, 2,
            dropout=dropout, edge_dim=dict.fromkeys(kinds, 1), out_types=("user",), gate=True,
        )  # fmt: skip
        self.user = nn.Parameter(torch.empty(channels).normal_(std=0.02))

    def forward(
        self, tree: HeteroData, cloze: DomainCloze, items: Tensor, edges: TransitionEdges
    ) -> tuple[Tensor, Tensor]:
        """``[B, D]`` vectors, and ``[B]`` bool whether anything is known that they are made of.

        What hangs at a hole, or at an event that the row does not hold, is cut off.

        Args:
            tree: The neighbourhoods of the users.
            cloze: The events, with holes.
            items: ``[N + 1, D]`` the vectors of all items.
            edges: The transitions.
        """
        nodes, scale = tree["item"], math.sqrt(items.size(1))
        place = places_of(tree, cloze.item.size(1))
        shown = (place >= 0) & cloze.known[nodes.batch, place.clamp(min=0)]
        kept, attrs, counts = {}, {}, {}  # counts: edges of the first and of the second hop
        known = torch.zeros_like(cloze.mask[:, 0])
        for edge_type in self.events:
            edge_index = tree[edge_type].edge_index
            kept[edge_type] = edge_index[:, shown[edge_index[0]]]
            counts[edge_type] = [kept[edge_type].size(1), 0]
            known = known.index_fill(0, kept[edge_type][1], True)
        for edge_type, weight in edges.without_own(tree, cloze).items():
            edge_index = tree[edge_type].edge_index
            some = (weight > 0) & shown[edge_index[1]]
            kept[edge_type] = edge_index[:, some]
            attrs[edge_type] = weight[some].log1p().unsqueeze(1)
            counts[edge_type] = [0, kept[edge_type].size(1)]
        out = self.encoder(
            {"user": self.user.expand(known.numel(), -1) * scale,
             "item": F.embedding(nodes.n_id, items) * scale},
            kept, attrs, tree.collect("num_sampled_nodes"), counts,
        )  # fmt: skip
        return out["user"], known


def pooled(x: Tensor, known: Tensor) -> Tensor:
    """``[B, D]`` mean of ``x`` ``[B, S, D]`` where ``known``, 0 if nowhere."""
    weight = known.unsqueeze(2).to(x.dtype)
    total: Tensor = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
    return total
