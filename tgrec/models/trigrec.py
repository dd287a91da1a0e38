"""TriGRec: users in several domains, and a recommender of one of them that reads them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.models.base import RecModel, arguments, choose_value, inner_products
from tgrec.models.bert4rec import BERTBranch
from tgrec.models.markov import SkipMarkov, counted_logits
from tgrec.models.tokens import shut_pairs
from tgrec.models.trigrec_config import Inputs, Stage, check_config
from tgrec.models.trigrec_graph import TransitionEdges
from tgrec.models.trigrec_sequences import (
    DomainCloze,
    known_domains,
    last_of_all,
    number_of,
    question,
    training_cloze,
    user_features,
)
from tgrec.models.trigrec_users import Catalogues, Terms, UserEncoders
from tgrec.nn.domain_adversary import reversal_strength
from tgrec.nn.gated_memory import GatedMemory
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.transformer import Positions

GRAPH_WEIGHTS = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)  # what choose_weight tries


class TriGRec(RecModel):
    r"""Recommends in one domain from what a user did in all of them.

    Domains are relations of the graph. **Stage 1** (:class:`UserEncoders`) learns specific, common
    and cross vectors of a user, beside them one of a GraphSAGE over sampled neighbourhoods
    (user-item edges of each domain, item-item transitions inside and across domains). **Stage 2**
    is a BERT4Rec of the target domain whose masked positions look at these vectors through a gate
    (:class:`GatedMemory`), :math:`h' = h + g \odot c`, and at the counted transitions of the graph:

    .. math:: z = h' E^\top + w \log(1 + p / 0.0003)

    with p the score of :class:`SkipMarkov`, whose steps go from domain to domain. w is a
    setting, or chosen on validation (``choose_weight``), and the counts have no part in the loss:
    what is learned knows the training events by heart, so a weight learned beside it there comes
    out too small.

    The vectors are computed from the same masked sequence that stage 2 reads, so none is made of
    an item that is asked for (but for the tenth of the holes that BERT leaves as they are), nor of
    anything at or past the cut; the counts are of all training events, less those of the row.
    A sequence whose only hole is its last position is read from left to right (one encoder for
    both, as in UniLM, Dong et al., arXiv 1905.03197), as at inference; in training every earlier
    position predicts its item too, from the sequence alone: the vectors hold what comes after it.

    TriGRec (github.com/moon2y/TriGRec) is the idea. Different: the same users in the distances,
    pooling over real positions, a masked-item loss on every encoder, full cross-entropy over the
    domain, a residual beside the gate, the graph, and no vectors of items that are asked for.

    Stages: ``users`` trains stage 1 alone (scores are those of its readings), ``recommender``
    trains stage 2 on frozen vectors (:meth:`second_stage`, or read from the graph with
    ``loaded``), ``joint`` trains both at once. Ablations: ``adversary=0`` and so on, ``use_graph``
    and ``encode_graph``, ``inputs="sequence"`` (no vectors of users) and ``"vectors"`` (no sequence
    of the target domain).

    Args:
        num_items: N.
        relations: Names of the C domains, filled by :meth:`from_graph`.
        target: The relation that is asked for, by number; :meth:`from_graph` takes its name too.
        d_model: D.
        n_heads: Attention heads of each encoder.
        n_blocks: Blocks of each encoder.
        d_ff: Width of the feed-forward layers.
        max_len: L, how many of the latest events, of all domains, are read.
        dropout: In [0, 1).
        mask_prob: Share of positions masked.
        last_prob: Share of sequences in which only the last position is masked. Stage 2 reads
            from left to right what has no other hole in its domain: these, and some short ones.
        positions: ``learned``, ``sinusoidal`` or ``relative``.
        stage: What is trained.
        inputs: What stage 2 reads.
        adversary: Weight of the domain discriminator; 0 is none.
        alignment: Weight of the distance between cross and common vectors; 0 is none.
        separation: Weight of the margin between cross and specific vectors; 0 is none.
        use_graph: Whether the graph is read, by its encoder and by the counts.
        encode_graph: Whether its encoder is there; without it the counts are what is read of it.
        graph_weight: w.
        choose_weight: Whether w is chosen on validation when stage 2 has been trained.
        loaded: Names of user features ``[U, D]`` of the graph, which
            :func:`tgrec.training.with_user_vectors` puts there, to read instead of making vectors;
            of events before each user's validation cut, so they hold items that training asks for.
        num_users: U, filled by :meth:`from_graph` where vectors are loaded.
        num_edges: E of the counts, filled by :meth:`from_graph`.
    """

    def __init__(
        self,
        num_items: int,
        relations: Sequence[str] = ("rates",),
        target: int = 0,
        d_model: int = 64,
        n_heads: int = 2,
        n_blocks: int = 2,
        d_ff: int = 256,
        max_len: int = 50,
        dropout: float = 0.2,
        mask_prob: float = 0.3,
        last_prob: float = 0.3,
        positions: Positions = "learned",
        stage: Stage = "joint",
        inputs: Inputs = "both",
        adversary: float = 0.1,
        alignment: float = 0.1,
        separation: float = 0.1,
        use_graph: bool = True,
        encode_graph: bool = True,
        graph_weight: float = 1.0,
        choose_weight: bool = False,
        loaded: Sequence[str] = (),
        num_users: int = 1,
        num_edges: int | None = None,
    ) -> None:
        super().__init__(
            **{**arguments(locals()), "relations": list(relations), "loaded": list(loaded)}
        )
        check_config(self.config)
        num_domains, asked = len(relations), None if stage == "users" else target
        self.sampling = Sampling(max_len=max_len, relation=asked)
        self.stage, self.inputs, self.target = stage, inputs, target
        # With no sequence to fill in, only the question behind it is left to train on.
        self.mask_prob, self.last_prob = mask_prob, 1.0 if inputs == "vectors" else last_prob
        self.register_buffer("item_domain", torch.full((num_items,), 0 if num_domains == 1 else -1))
        self.item_domain: Tensor
        size = (d_model, n_heads, n_blocks, d_ff, max_len, dropout, positions)
        self.users: UserEncoders | None = None
        if inputs != "sequence" and not loaded:
            encoded = use_graph and encode_graph
            edges = TransitionEdges(num_items, min(2, num_domains)) if encoded else None
            if edges is not None:
                self.sampling = edges.sampling(max_len, relations, asked)
            losses = adversary, alignment, separation
            self.users = UserEncoders(num_items, relations, *size, *losses, edges)
        self.counts: SkipMarkov | None = None
        self.graph_weight = graph_weight
        self.item: nn.Parameter | None = None
        self.sequence: BERTBranch | None = None
        self.query: nn.Parameter | None = None
        self.memory: GatedMemory | None = None
        if stage == "users":
            return
        self._build_recommender(size)
        if stage == "recommender" and self.users is not None:
            self.users.requires_grad_(False)
        if num_edges is not None:
            self._set_counts(SkipMarkov(num_items, (num_edges,)))

    def _build_recommender(self, size: tuple[int, int, int, int, int, float, Positions]) -> None:
        d_model, inputs = size[0], self.inputs
        if self.stage != "joint" or self.users is None:
            self.item = nn.Parameter(torch.empty(self.num_items + 1, d_model).normal_(std=0.02))
        self.sequence = BERTBranch(*size)
        if inputs == "vectors":
            self.query = nn.Parameter(torch.empty(d_model).normal_(std=0.02))
            self.sequence.encoder = None  # type: ignore[assignment]  # only its head is read
        if inputs != "sequence":
            count = len(self.config["loaded"] or (self.users.names if self.users else ()))
            self.memory = GatedMemory(d_model, count)
        if self.config["loaded"]:
            shape = (self.config["num_users"], len(self.config["loaded"]), d_model)
            self.register_buffer("user_vectors", torch.zeros(shape))

    @classmethod
    def from_graph(
        cls,
        graph: TemporalRecGraph,
        target: int | str = 0,
        loaded: Sequence[str] = (),
        **kwargs: Any,
    ) -> Self:
        """Builds the model and counts the transitions of ``graph`` (training events only).

        Args:
            graph: Its relations are the domains; items may have ``domain`` (their number).
            target: The relation that is asked for, by name or number.
            loaded: As the class takes it.
            kwargs: As the class takes them.
        """
        target = number_of(target, graph)
        features = user_features(graph, loaded)
        if features:
            kwargs.update(loaded=loaded, num_users=graph.num_users, d_model=features[0].size(1))
        model = cls(graph.num_items, [t[1] for t in graph.interaction_types], target, **kwargs)
        model.item_domain.copy_(known_domains(graph))
        if features:
            model.user_vectors.copy_(torch.stack(features, dim=1))  # type: ignore[operator]
        if model.users is not None and model.users.edges is not None:
            model.users.edges.fill(graph, model.item_domain)
        if model.config["use_graph"] and model.stage != "users":
            model._set_counts(SkipMarkov.from_graph(graph))
        return model

    @classmethod
    def asked_relation(cls, graph: TemporalRecGraph, **settings: Any) -> str | None:
        """The target's; see :meth:`RecModel.asked_relation`."""
        return graph.interaction_types[number_of(settings.get("target", 0), graph)][1]

    @classmethod
    def second_stage(cls, first: TriGRec, graph: TemporalRecGraph, **kwargs: Any) -> TriGRec:
        """The recommender on the frozen encoders of a trained first stage.

        Args:
            first: Of stage ``users``.
            graph: The training events.
            kwargs: What is to differ, for example ``target``.
        """
        same = {k: v for k, v in first.config.items() if k not in ("num_items", "relations")}
        model = cls.from_graph(graph, **{**same, "stage": "recommender", **kwargs})
        if first.users is None or model.users is None or model.item is None:
            raise ValueError("'first' needs vectors of users; it has none")
        model.users.load_state_dict(first.users.state_dict())
        with torch.no_grad():
            model.item.copy_(first.users.item)
        return model

    def _set_counts(self, counts: SkipMarkov) -> None:
        self.counts = counts
        self.config["num_edges"] = counts.config["num_edges"][0]

    def train(self, mode: bool = True) -> Self:
        """Frozen encoders stay without dropout."""
        super().train(mode)
        if self.users is not None and self.stage == "recommender":
            self.users.eval()
        return self

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Sets the strength of the reversed gradient, see :func:`reversal_strength`."""
        if self.users is not None:
            self.users.strength = reversal_strength(epoch / max(1, epochs))

    def choose(self, measure: Callable[[], float]) -> None:
        """With ``choose_weight``: w takes the best of its values."""
        if self.config["choose_weight"] and self.counts is not None:
            put = partial(self.put_chosen, "graph_weight")
            choose_value(measure, measure(), self.graph_weight, GRAPH_WEIGHTS, put)

    def monitor(self) -> dict[str, float]:
        """Accuracy of the discriminator in the epoch, strength of the reversal."""
        accuracy = None if self.users is None else self.users.accuracy()
        if self.users is None or accuracy is None:
            return {}
        return {"discriminator": accuracy, "reversal": self.users.strength}

    # ---- the recommender --------------------------------------------------------------------

    def encode_item(self) -> Tensor:
        """``[N, D]``, the table that the inputs are read from."""
        return self._table()[: self.num_items]

    def _table(self) -> Tensor:
        if self.item is not None:
            return self.item
        assert self.users is not None
        return self.users.item

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the prediction at a mask token in the target domain."""
        assert batch.history is not None
        return self._encode(batch, question(batch.history, self.num_items, self.target))

    def _encode(self, batch: RecBatch, cloze: DomainCloze) -> Tensor:
        if self.stage == "users":
            return self._readings(batch, cloze)
        own = cloze.only(self.target)
        return self._predict(own, self._states(own), *self.user_memory(batch, cloze))[0]

    def _readings(self, batch: RecBatch, cloze: DomainCloze) -> Tensor:
        """What the specific, common and cross reading of the target domain look for, together."""
        assert self.users is not None
        made = self.users(cloze, batch.graph)
        asked = [s for i, s in enumerate(made.states) if i % self.users.num_domains == self.target
                 or s[0] == "cross"]  # fmt: skip
        parts = [self.users.predictions(name, hidden[:, -1]) for name, _, hidden in asked]
        return torch.stack(parts).mean(0)

    def user_memory(self, batch: RecBatch, cloze: DomainCloze) -> tuple[Tensor, Tensor]:
        """``[B, K, D]`` vectors of the users and ``[B, K]`` whether they are known."""
        if self.config["loaded"]:
            table: Tensor = self.user_vectors  # type: ignore[assignment]
            vectors = table.index_select(0, batch.user)
            return vectors, (vectors != 0).any(2)
        if self.users is None:
            none = self.encode_item().new_zeros(batch.user.numel(), 0, self.config["d_model"])
            return none, none.any(2)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage == "joint"):
            made = self.users(cloze, batch.graph)
        return made.vectors, made.known

    @property
    def vector_names(self) -> list[str]:
        """Names of the K vectors that :meth:`represent` makes."""
        return [] if self.users is None else self.users.names

    def represent(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """``[B, K, D]`` vectors of the users of a batch, ``[B, K]`` whether they are known."""
        assert batch.history is not None
        return self.user_memory(batch, question(batch.history, self.num_items, self.target))

    def _states(self, own: DomainCloze) -> Tensor | None:
        """``[B, S, D]`` what the sequence says of each position; None where none is read."""
        if self.query is not None:
            return None
        assert self.sequence is not None
        both_sides = own.hole.sum(1) > 1
        item = torch.where(both_sides.unsqueeze(1), own.item, own.shifted(self.num_items))
        pairs = shut_pairs(own.mask, both_sides).to(torch.uint8)
        states: Tensor = self.sequence.encoder(F.embedding(item, self._table()), own.mask, pairs)
        return states

    def _predict(
        self, own: DomainCloze, states: Tensor | None, memory: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``[R, D]`` at the holes, in row order; weights ``[R, K]`` and gates ``[R]``."""
        row = own.hole.nonzero()[:, 0]
        if states is not None:
            state = states[own.hole]
        else:
            assert self.query is not None
            state = self.query.expand(row.numel(), -1)
        weight, gate = known[row].float(), torch.zeros_like(state[:, 0])
        if self.memory is not None:
            state, weight, gate = self.memory(state, memory[row], known[row])
        assert self.sequence is not None
        return self.sequence.head(state), weight, gate

    @torch.no_grad()
    def gates(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """``[B, K]`` the weights of the vectors at a question, and ``[B]`` how open the gate is."""
        assert batch.history is not None
        cloze = question(batch.history, self.num_items, self.target)
        own = cloze.only(self.target)
        return self._predict(own, self._states(own), *self.user_memory(batch, cloze))[1:]

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` the product and what the counts add to it; other domains' items come last."""
        scores = super().score(batch)
        if self.counts is not None:
            scores = scores + self._logits(self.counts.score(batch))
        return last_of_all(scores, (self.item_domain >= 0) & (self.item_domain != self.target))

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """See :meth:`RecModel.score_left_out`; the graph's vector leaves the target out, too."""
        assert batch.history is not None
        cloze = question(batch.history, self.num_items, self.target, batch.item)
        scores = inner_products(self._encode(batch, cloze), self.encode_item())
        counts = self.counts
        return scores if counts is None else scores + self._logits(counts.score_left_out(batch))

    def _logits(self, counted: Tensor) -> Tensor:
        return self.graph_weight * counted_logits(counted)

    # ---- the loss -----------------------------------------------------------------------------

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropy at the holes of the target domain, then the parts of stage 1."""
        catalogues = Catalogues.of(self.item_domain, len(self.config["relations"]))
        cloze = training_cloze(batch, self.item_domain, self.mask_prob, self.last_prob)
        terms: Terms = []
        if self.stage == "users" or (self.stage == "joint" and self.users is not None):
            assert self.users is not None
            made = self.users(cloze, batch.graph)
            terms = self.users.loss_terms(made, cloze, catalogues)
            memory = made.vectors, made.known
        else:
            memory = self.user_memory(batch, cloze)
        if self.stage != "users":
            own = cloze.only(self.target)
            terms = [self._recommender_term(own, *memory, catalogues), *terms]
        sums, counts = zip(*terms, strict=True)
        return torch.cat(sums), torch.cat(counts)

    def _recommender_term(
        self, own: DomainCloze, memory: Tensor, known: Tensor, where: Catalogues
    ) -> tuple[Tensor, Tensor]:
        table = self.encode_item().index_select(0, where.items[self.target])
        states = self._states(own)
        assert self.sequence is not None
        hidden, target = self._predict(own, states, memory, known)[0], own.target[own.hole]
        if states is not None:  # the other positions of what is read from left to right
            rows = own.mask & ~own.hole & (own.hole.sum(1, keepdim=True) == 1)
            hidden = torch.cat([hidden, self.sequence.head(states)[rows]])
            target = torch.cat([target, own.target[rows]])
        total = linear_cross_entropy(hidden, table, where.place[self.target][target])
        return total.view(1), total.new_full((1,), float(hidden.size(0)))
