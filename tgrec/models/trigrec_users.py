"""Stage 1 of TriGRec: specific, common and cross vectors of users over several domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from tgrec.models.bert4rec import BERTBranch
from tgrec.models.trigrec_graph import DomainGraphEncoder, TransitionEdges, pooled
from tgrec.models.trigrec_sequences import DomainCloze
from tgrec.nn.domain_adversary import DomainDiscriminator
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.transformer import Positions

MARGIN = 1.0  # of the distance between unit vectors, which is 0 to 2
Terms = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class UserVectors:
    """What stage 1 makes of a batch.

    Args:
        vectors: ``[B, K, D]``: specific of each domain, common of each domain, cross, and graph
            where there is one.
        known: ``[B, K]`` bool: whether the user has events that the vector is made of.
        states: The hidden states ``[B, S, D]`` of each reading, with the sequence that was read:
            (reading, sequence, states), reading being ``specific``, ``common`` or ``cross``.
    """

    vectors: Tensor
    known: Tensor
    states: list[tuple[str, DomainCloze, Tensor]]


@dataclass(frozen=True)
class Catalogues:
    """The items of each domain, ``[M_d]`` ascending, and the place ``[C, N]`` of each item."""

    items: list[Tensor]
    place: Tensor

    @classmethod
    def of(cls, item_domain: Tensor, num_domains: int) -> Catalogues:
        """Items of an unknown domain (-1) count to all."""
        inside = [(item_domain == d) | (item_domain < 0) for d in range(num_domains)]
        place = torch.stack([mask.long().cumsum(0) - 1 for mask in inside])
        return cls([mask.nonzero().view(-1) for mask in inside], place)


class UserEncoders(nn.Module):
    r"""Three readings of the same events, which differ in what they read and what they are for.

    * **specific**: the events of one domain, by themselves;
    * **common**: the same, but trained against a discriminator that tells which domain it was
      (Ganin and Lempitsky, ICML 2015). That the domain cannot be read from the vectors afterwards
      is not reached: items of different domains have different vectors (benchmarks/LOG.md);
    * **cross**: the events of all domains, merged in their order.

    Each is a Transformer of one kind that fills in masked items, so that none can do without
    reading; a user's vector is the mean of its states at the real positions whose item is shown.
    With :math:`\hat z` for unit vectors and means over the domains of the **same user**,

    .. math:: \mathcal L_{align} = \|\hat z_x - \mathrm{sg}[\hat{\bar z}_c]\|^2, \qquad
              \mathcal L_{sep} = \max(0, 1 - \|\hat z_x - \hat{\bar z}_s\|)

    so the cross vector takes what is common and not what is specific.

    Args:
        num_items: N.
        relations: Names of the C domains; with one there is nothing to tell apart, align or
            separate.
        d_model, n_heads, n_blocks, d_ff, max_len, dropout, positions: Of each encoder.
        adversary: Weight of the discriminator's loss, 0 for none.
        alignment: Weight of :math:`\mathcal L_{align}`.
        separation: Weight of :math:`\mathcal L_{sep}`.
        edges: The transitions behind the graph encoder; None for no graph encoder.
    """

    def __init__(
        self,
        num_items: int,
        relations: Sequence[str],
        d_model: int,
        n_heads: int,
        n_blocks: int,
        d_ff: int,
        max_len: int,
        dropout: float,
        positions: Positions,
        adversary: float,
        alignment: float,
        separation: float,
        edges: TransitionEdges | None,
    ) -> None:
        super().__init__()
        num_domains = len(relations)
        self.num_items, self.num_domains = num_items, num_domains
        self.weights = {"adversary": adversary, "align": alignment, "separate": separation}
        # Row num_items is the mask token.
        self.item = nn.Parameter(torch.empty(num_items + 1, d_model).normal_(std=0.02))
        size = (d_model, n_heads, n_blocks, d_ff, max_len, dropout, positions)
        self.specific, self.common, self.cross = (BERTBranch(*size) for _ in range(3))
        self.domain: nn.Parameter | None = None
        self.discriminator: DomainDiscriminator | None = None
        if num_domains > 1:
            self.domain = nn.Parameter(torch.empty(num_domains, d_model).normal_(std=0.02))
            if adversary > 0:
                self.discriminator = DomainDiscriminator(d_model, num_domains)
        self.edges = edges
        self.graph: DomainGraphEncoder | None = None
        if edges is not None:
            self.graph = DomainGraphEncoder(d_model, relations, edges.kinds, dropout)
        self.strength = 0.0  # of the reversed gradient
        self.guessed: list[Tensor] = []  # right answers and answers of the discriminator

    @property
    def names(self) -> list[str]:
        """The K vectors by name: ``specific_0``, ``common_0``, ..., ``cross``, ``graph``."""
        kinds = [f"{kind}_{d}" for kind in ("specific", "common") for d in range(self.num_domains)]
        return [*kinds, "cross"] + ["graph"] * (self.graph is not None)

    def forward(self, cloze: DomainCloze, tree: HeteroData | None) -> UserVectors:
        """The vectors of the users of a batch, of nothing but what the sequences show.

        Args:
            cloze: The events.
            tree: The neighbourhoods, for a graph encoder.
        """
        # One look into the table of items for all readings: each has a gradient as large as it.
        x = F.embedding(cloze.item, self.item)
        places = [cloze.places(d) for d in range(self.num_domains)]
        parts = [
            (cloze.only(d, place), x.gather(1, place.unsqueeze(2).expand(-1, -1, x.size(2))))
            for d, place in enumerate(places)
        ]
        vectors, known, states = [], [], []
        for name, branch in (("specific", self.specific), ("common", self.common)):
            for part, read in parts:
                hidden = branch.encoder(read, part.mask)
                vectors.append(pooled(hidden, part.known))
                known.append(part.known.any(1))
                states.append((name, part, hidden))
        merged = x if self.domain is None else x + F.embedding(cloze.relation, self.domain)
        hidden = self.cross.encoder(merged, cloze.mask)
        vectors.append(pooled(hidden, cloze.known))
        known.append(cloze.known.any(1))
        states.append(("cross", cloze, hidden))
        if self.graph is not None:
            assert self.edges is not None
            assert tree is not None
            vector, some = self.graph(tree, cloze, self.item, self.edges)
            vectors.append(vector)
            known.append(some)
        return UserVectors(torch.stack(vectors, dim=1), torch.stack(known, dim=1), states)

    def predictions(self, name: str, hidden: Tensor) -> Tensor:
        """``[R, D]`` what is looked for at hidden states ``[R, D]`` of a reading."""
        branch: BERTBranch = getattr(self, name)
        return branch.head(hidden)

    def graph_loss(
        self, made: UserVectors, cloze: DomainCloze, catalogues: Catalogues, tables: list[Tensor]
    ) -> Terms:
        """The graph's vector predicts the last item, from the items before it."""
        if self.graph is None:
            return []
        last = made.known[:, -1].nonzero().view(-1)
        return [self._masked(made.vectors[last, -1], cloze.target[last, -1],
                             cloze.relation[last, -1], catalogues, tables)]  # fmt: skip

    def loss_terms(self, made: UserVectors, cloze: DomainCloze, catalogues: Catalogues) -> Terms:
        """(sum, count) of each part: masked items of each reading, graph, adversary, distances."""
        tables = self.tables(catalogues)
        terms: dict[str, tuple[Tensor, Tensor]] = {}
        for name, part, hidden in made.states:
            rows = self.predictions(name, hidden[part.hole])
            loss = self._masked(
                rows, part.target[part.hole], part.relation[part.hole], catalogues, tables
            )
            before = terms.get(name)
            terms[name] = loss if before is None else (before[0] + loss[0], before[1] + loss[1])
        out = [*terms.values(), *self.graph_loss(made, cloze, catalogues, tables)]
        return out if self.num_domains == 1 else [*out, *self._domain_terms(made)]

    def tables(self, catalogues: Catalogues) -> list[Tensor]:
        """The vectors ``[M_d, D]`` of the items of each domain."""
        whole = self.item[: self.num_items]
        return [
            whole if items.numel() == self.num_items else whole.index_select(0, items)
            for items in catalogues.items
        ]

    def _masked(
        self,
        rows: Tensor,
        target: Tensor,
        relation: Tensor,
        catalogues: Catalogues,
        tables: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of rows ``[R, D]``, each over the items of its domain."""
        total = rows.new_zeros((), dtype=torch.float32)
        for d, table in enumerate(tables):
            mine = (relation == d).nonzero().view(-1)
            if mine.numel() == 0:  # a reading of another domain
                continue
            goal = catalogues.place[d].index_select(0, target[mine])
            total = total + linear_cross_entropy(rows[mine], table, goal)
        return total.view(1), total.new_full((1,), float(rows.size(0)))

    def _domain_terms(self, made: UserVectors) -> Terms:
        """Adversary, alignment and separation, as far as they have a weight."""
        n, terms = self.num_domains, []
        specific, common = made.vectors[:, :n], made.vectors[:, n : 2 * n]
        known, cross = made.known[:, :n], made.vectors[:, 2 * n]
        if self.discriminator is not None:
            asked = common[known]
            answer = torch.arange(n, device=asked.device).expand_as(known)[known]
            logits = self.discriminator(asked, self.strength)
            loss = F.cross_entropy(logits.float(), answer, reduction="sum")
            terms.append((loss * self.weights["adversary"], answer.numel()))
            if self.training:
                right = (logits.argmax(1) == answer).sum()
                self.guessed.append(torch.stack([right, right.new_tensor(answer.numel())]).detach())
        rows = known.any(1).nonzero().view(-1)
        unit = F.normalize(cross[rows].float(), dim=1)

        def mean(vectors: Tensor) -> Tensor:
            return F.normalize(pooled(vectors[rows].float(), known[rows]), dim=1)

        if self.weights["align"] > 0:
            loss = (unit - mean(common).detach()).pow(2).sum()
            terms.append((loss * self.weights["align"], rows.numel()))
        if self.weights["separate"] > 0:
            apart = torch.linalg.vector_norm(unit - mean(specific) + 1e-6, dim=1)
            terms.append((F.relu(MARGIN - apart).sum() * self.weights["separate"], rows.numel()))
        return [(loss.view(1), loss.new_full((1,), float(count))) for loss, count in terms]

    def accuracy(self) -> float | None:
        """Share of right answers of the discriminator since it was last asked for; None without."""
        if not self.guessed:
            return None
        right, asked = torch.stack(self.guessed).sum(0).tolist()
        self.guessed = []
        return float(right) / max(1.0, float(asked))
