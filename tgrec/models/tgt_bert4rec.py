"""TGT-BERT4Rec: a bidirectional masked branch and a temporal graph branch, joined by a gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import History, RecBatch, Sampling, TemporalRecGraph
from tgrec.models.base import RecModel, arguments, choose_value, inner_products
from tgrec.models.bert4rec import BERTBranch, append_mask, hole_loss, holes, make_cloze
from tgrec.models.markov import COUNTS, SkipMarkov, counted_logits, counts_class
from tgrec.models.sasrec import next_item_loss
from tgrec.models.seed_format import read_seed_batch, reorder, shift_right
from tgrec.models.side_information import asked_features
from tgrec.models.side_information import item_features as item_features_of
from tgrec.models.tgt_branch import TGTBranch
from tgrec.models.tgt_config import ALPHAS, BRANCHES, GRAPH_WEIGHTS, check_config, unread
from tgrec.nn.item_features import ItemFeatures
from tgrec.nn.transformer import Positions


class TGTBERT4Rec(RecModel):
    r"""Two readers of the same temporal edges over one item table E, and a scalar gate.

    * **BERT branch** (Sun et al., CIKM 2019, arXiv 1904.06690): a bidirectional Transformer over
      the items, trained on masked ones; ``h_bert`` stands at a mask token after the history.
    * **TGT branch** (:class:`TGTBranch`): a causal Transformer over the user's edges whose
      attention reads their real times, trained on every next edge; ``h_tgt`` stands at the newest
      edge.
    * **Graph** (part of the TGT branch): item-item edges counted from training events and typed
      by their time gap (:class:`GapMarkov`, ours) lead from the user's latest items to the next
      ones; p is their mixture. During training the edges that lead into the very target are left
      out of the counts.
    * **Gate** (the seed's): :math:`\alpha` and w, fixed, or learned from exactly ``fusion_alpha``
      and ``graph_weight``:

      .. math:: h = \alpha\, h_{bert} + (1 - \alpha)\, h_{tgt}, \qquad
                z = h E^\top + (1 - \alpha)\, w \log(1 + p / 0.0003)

    With a ``temperature`` T the rows of E in z, and h of each branch before the gate, are
    divided by their norms, and h by T: cosine logits, as in HSTU.

    Gates are learned from events that the branches know by heart, and from counts that leave these
    events out: on MovieLens-1M they give the BERT branch too much and the graph too little, so the
    golden setting chooses both on validation (``choose_gates``).

    The loss is the mean cross-entropy over the whole catalogue of three kinds of predictions: of
    z for the last event of each sequence, of ``h_bert`` at all masked positions, of ``h_tgt`` at
    all positions.

    Ablations: ``fusion_alpha=1`` is the BERT branch alone and ``0`` the TGT branch alone (the
    other one is then not built), ``learnable_fusion=False`` fixes the gate, ``use_time=False``
    takes all time out of the TGT branch and of the types of edges, ``use_graph=False`` leaves
    the user's own edges only.

    Args:
        num_items: N.
        d_model: D.
        n_heads: Attention heads of each branch.
        n_blocks: Blocks of each branch.
        d_ff: Width of the feed-forward layers.
        tgt_blocks: Blocks of the TGT branch, if they are not ``n_blocks``.
        tgt_d_ff: Width of its feed-forward layers, if it is not ``d_ff``.
        tgt_gated: Whether it has gates in the place of feed-forward layers, as HSTU has.
        time_vectors: Whether it also reads vectors of the gap before each edge, of the gap until
            the question and of the period (:class:`tgrec.nn.event_time.EventTimeEmbedding`).
        max_len: L, how many of the latest events are read.
        dropout: In [0, 1).
        fusion_alpha: Share of the BERT branch, in [0, 1].
        learnable_fusion: Whether the gate (only if ``0 < fusion_alpha < 1``) and the weight of
            the graph are learned.
        graph_weight: w, at least 0; where it starts, if it is learned.
        choose_gates: Whether both, not learned then, are chosen on validation after training.
        mask_prob: Share of positions masked for the BERT branch.
        last_prob: Share of sequences in which only the last position is masked.
        positions: ``learned``, ``sinusoidal`` or ``relative``.
        use_time: Whether the TGT branch reads times.
        use_graph: Whether the TGT branch reads item-item edges (they come from
            :meth:`from_graph`; a model made by hand has none).
        item_features: Whether genres and years of the items are part of E, where the graph has
            them (:class:`tgrec.nn.item_features.ItemFeatures`).
        temperature: Logits are cosines divided by a learned temperature that starts here; with 0
            they are inner products.
        num_features: Columns of these features, filled by :meth:`from_graph`.
        num_edges: E of the two transition tables, filled by :meth:`from_graph`.
    """

    static_step = True

    def __init__(
        self,
        num_items: int,
        d_model: int = 64,
        n_heads: int = 2,
        n_blocks: int = 2,
        d_ff: int = 256,
        tgt_blocks: int | None = None,
        tgt_d_ff: int | None = None,
        tgt_gated: bool = False,
        time_vectors: bool = False,
        max_len: int = 200,
        dropout: float = 0.2,
        fusion_alpha: float = 0.3,
        learnable_fusion: bool = True,
        graph_weight: float = 2.0,
        choose_gates: bool = False,
        mask_prob: float = 0.2,
        last_prob: float = 0.1,
        positions: Positions = "learned",
        use_time: bool = True,
        use_graph: bool = True,
        item_features: bool = False,
        temperature: float = 0.0,
        num_features: int = 0,
        num_edges: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(**arguments(locals()))
        check_config(self.config)
        self.sampling = Sampling(max_len=max_len)
        self.mask_prob, self.last_prob = mask_prob, last_prob
        self.use_time, self.use_graph = use_time, use_graph
        # Row num_items is the mask token; it exists only for the branch that reads it.
        rows = num_items + (fusion_alpha > 0)
        self.item = nn.Parameter(torch.empty(rows, d_model).normal_(std=0.02))
        self.features = ItemFeatures(num_items, num_features, d_model) if num_features else None
        self.bert: BERTBranch | None = None
        self.tgt: TGTBranch | None = None
        if fusion_alpha > 0:
            self.bert = BERTBranch(d_model, n_heads, n_blocks, d_ff, max_len, dropout, positions)
        if fusion_alpha < 1:
            self.tgt = TGTBranch(
                d_model, n_heads, tgt_blocks or n_blocks, None if tgt_gated else tgt_d_ff or d_ff,
                max_len, dropout, positions, use_time, time_vectors,
            )  # fmt: skip
        self.sharpness: nn.Parameter | None = None
        if temperature > 0:
            self.sharpness = nn.Parameter(torch.tensor(-math.log(temperature)))
        gate = torch.tensor(float(fusion_alpha))
        self.gate: Tensor
        if learnable_fusion and 0 < fusion_alpha < 1:
            self.gate = nn.Parameter(torch.logit(gate.double()).float())
        else:
            self.register_buffer("gate", gate)
        self.graph: SkipMarkov | None = None
        self.graph_weight: Tensor | float = graph_weight
        if num_edges is not None:
            self._set_graph(counts_class(use_time)(num_items, tuple(num_edges), **COUNTS))

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Builds the model and counts the transitions of ``graph`` (training events only)."""
        if not graph.has_time:
            kwargs = {**kwargs, "use_time": False}
        known = asked_features(graph) if kwargs.get("item_features") else torch.zeros(0, 0)
        model = cls(graph.num_items, num_features=known.size(1), **kwargs)
        if model.features is not None:
            model.features.values.copy_(known)
        if model.tgt is not None and model.use_time:
            model.tgt.set_span(graph)
        if model.use_graph and model.tgt is not None:
            model._set_graph(counts_class(model.use_time).from_graph(graph, **COUNTS))
        return model

    def row_meanings(self, graph: TemporalRecGraph) -> dict[str, Sequence[Hashable]]:
        """Of periods, genres and years; see :meth:`RecModel.row_meanings`."""
        times = None if self.tgt is None else self.tgt.times
        periods = {} if times is None else {"tgt.times.period": times.periods()}
        known = {} if self.features is None else {"features.weight": item_features_of(graph)[1]}
        return {**periods, **known}

    @classmethod
    def name_of(cls, name: str, settings: Mapping[str, Any]) -> str:
        """See :meth:`RecModel.name_of`."""
        return BRANCHES.get(settings.get("fusion_alpha"), name)

    def unread(self) -> dict[str, str]:
        """See :meth:`RecModel.unread`."""
        return {**super().unread(), **unread(self.config)}

    def _set_graph(self, graph: SkipMarkov) -> None:
        self.graph = graph
        if self.config["learnable_fusion"]:
            self.graph_weight = nn.Parameter(torch.tensor(float(self.config["graph_weight"])))
        self.config["num_edges"] = graph.config["num_edges"]

    @property
    def alpha(self) -> Tensor:
        """The share of the BERT branch, a scalar."""
        return torch.sigmoid(self.gate) if isinstance(self.gate, nn.Parameter) else self.gate

    def mixture(self, events: int) -> tuple[float, str, str]:
        """The share of the BERT branch."""
        return float(self.alpha.detach()), "sequence", "temporal graph"

    def monitor(self) -> dict[str, float]:
        """The gate, the weight of the graph and the temperature, as far as they are there."""
        out = {"alpha": float(self.alpha.detach())}
        if self.graph is not None:
            out["graph_weight"] = float(torch.as_tensor(self.graph_weight).detach())
        if self.sharpness is not None:
            out["temperature"] = math.exp(-float(self.sharpness.detach()))
        return out

    def choose(self, measure: Callable[[], float]) -> None:
        """With ``choose_gates``: one gate after the other takes the best of its values."""
        if not self.config["choose_gates"]:
            return
        weights = GRAPH_WEIGHTS if self.graph is not None else ()
        alphas = ALPHAS if self.bert is not None and self.tgt is not None else ()
        reached = measure()
        for name, values in (("graph_weight", weights), ("fusion_alpha", alphas)):
            put = partial(self.put_chosen, name)
            reached = choose_value(measure, reached, self.config[name], values, put)

    def put_chosen(self, name: str, value: float) -> None:
        """See :meth:`RecModel.put_chosen`."""
        self.config[name] = value
        if name == "fusion_alpha":
            self.gate.fill_(value)
        else:
            self.graph_weight = value

    # ---- the two branches ---------------------------------------------------------------------

    def table(self) -> Tensor:
        """``[N (+ 1), D]`` E, and the mask token behind it for the branch that reads it."""
        return self.item if self.features is None else self.features(self.item)

    def bert_hidden(
        self, item: Tensor, mask: Tensor, rows: Tensor | None = None, last: bool = False
    ) -> Tensor:
        """:class:`BERTBranch` for items with mask tokens among them."""
        assert self.bert is not None
        return self._sharpen(self.bert(F.embedding(item, self.table()), mask, rows, last))

    def tgt_hidden(self, history: History, query_time: Tensor | None, last: bool = False) -> Tensor:
        """:meth:`TGTBranch.read` for the user's edges."""
        assert self.tgt is not None
        vectors = F.embedding(history.item, self.table())
        return self._sharpen(self.tgt.read(vectors, history, query_time, last))

    @property
    def has_next_states(self) -> bool:
        """Whether there is a TGT branch."""
        return self.tgt is not None

    def next_states(self, batch: RecBatch) -> Tensor:
        """``[B, L, D]`` of the TGT branch, without counts; see :meth:`RecModel.next_states`."""
        assert batch.history is not None
        return self.tgt_hidden(batch.history, batch.query_time)

    def _sharpen(self, hidden: Tensor) -> Tensor:
        """Directions, as long as the temperature is low, where logits are cosines."""
        if self.sharpness is None:
            return hidden
        return F.normalize(hidden.float(), dim=-1) * self.sharpness.exp()

    def fuse(self, bert: Tensor | None, tgt: Tensor | None) -> Tensor:
        """``alpha * bert + (1 - alpha) * tgt``; a branch that is not built has share 0."""
        if bert is None or tgt is None:
            hidden = bert if tgt is None else tgt
            assert hidden is not None
            return hidden
        return self.alpha * bert + (1 - self.alpha) * tgt

    # ---- the recommender ----------------------------------------------------------------------

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` the fused representation (without the graph's item-item edges)."""
        assert batch.history is not None
        bert = tgt = None
        if self.bert is not None:
            bert = self.bert_hidden(*append_mask(batch.history, self.num_items), last=True)
        if self.tgt is not None:
            tgt = self.tgt_hidden(batch.history, batch.query_time, last=True)
        return self.fuse(bert, tgt)

    def encode_item(self) -> Tensor:
        """``[N, D]``, the table that both branches read from, or its directions."""
        table = self.table()[: self.num_items]
        return table if self.sharpness is None else F.normalize(table.float(), dim=1)

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` the fused product and what the graph adds to it."""
        if self.graph is None:
            return super().score(batch)
        return super().score(batch) + self._graph_logits(self.graph.score(batch))

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """See :meth:`RecModel.score_left_out`."""
        if self.graph is None:
            return self.score(batch)
        return super().score(batch) + self._graph_logits(self.graph.score_left_out(batch))

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Cross-entropies of the fused scores, of the BERT branch and of the TGT branch."""
        item = batch.item
        assert item is not None
        items = self.encode_item()
        terms: list[tuple[Tensor, Tensor]] = []
        bert = tgt = None
        if self.bert is not None:
            cloze = make_cloze(batch, self.num_items, self.mask_prob, self.last_prob)
            rows, kept = holes(cloze, self.mask_prob)
            hidden = self.bert_hidden(cloze.item, cloze.mask, rows)
            *term, bert = hole_loss(hidden, items, cloze, rows, kept)
            terms.append((term[0], term[1]))
        if self.tgt is not None:
            states = self.next_states(batch)
            terms.append(next_item_loss(states, items, batch))
            tgt = states[:, -1]
            scores = inner_products(self.fuse(bert, tgt), items)
            if self.graph is not None:
                scores = scores + self._graph_logits(self.graph.score_left_out(batch))
            total = F.cross_entropy(scores, item, reduction="sum")
            terms.append((total.view(1), total.new_full((1,), item.numel())))
        sums, counts = zip(*terms, strict=True)
        return torch.cat(sums), torch.cat(counts)

    def _graph_logits(self, counted: Tensor) -> Tensor:
        return (1 - self.alpha) * self.graph_weight * counted_logits(counted)

    # ---- the seed's call ----------------------------------------------------------------------

    @overload
    def forward(self, input_ids: Tensor, timestamps: Tensor, mask: Tensor) -> Tensor: ...

    @overload
    def forward(
        self, input_ids: Tensor, timestamps: Tensor, mask: Tensor, return_fusion_info: Literal[True]
    ) -> tuple[Tensor, dict[str, Tensor]]: ...

    def forward(
        self, input_ids: Tensor, timestamps: Tensor, mask: Tensor, return_fusion_info: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits at every position, under the seed's conventions.

        Position j of the result is about the item *at* j, as in a cloze test: the BERT branch
        reads the sequence as given (put ``num_items + 1``, the mask token, where it shall not see
        the item), the TGT branch reads the edges before j.

        Args:
            input_ids: ``[B, L]`` int64, ids ``1..num_items``, 0 pads (on either side).
            timestamps: ``[B, L]`` Unix seconds (integers), or already scaled times (floats).
            mask: ``[B, L]`` bool, True at real events.
            return_fusion_info: Also return ``alpha``, ``bert_hidden``, ``tgt_hidden``, ``fused``.

        Returns:
            ``[B, L, num_items + 1]`` logits (column 0, the padding, is -inf), and the dict.
        """
        given = (input_ids, timestamps, mask)
        history, order = read_seed_batch(*given, self.num_items, self.config["max_len"])
        bert = None if self.bert is None else self.bert_hidden(history.item, history.mask)
        tgt = None
        if self.tgt is not None:
            event = history.mask & (history.item < self.num_items)  # a mask token is no edge
            known = History(
                item=shift_right(history.item.clamp(max=self.num_items - 1)),
                time=shift_right(history.time),
                event_id=shift_right(history.event_id),
                relation=shift_right(history.relation),
                mask=shift_right(event),
            )
            tgt = self.tgt_hidden(known, None)
        fused = self.fuse(bert, tgt)
        logits = F.pad(inner_products(fused, self.encode_item()), (1, 0), value=-math.inf)
        back = torch.argsort(order, dim=1)
        logits = reorder(logits, back)
        if not return_fusion_info:
            return logits
        none = torch.zeros_like(fused)
        parts = {"bert_hidden": bert, "tgt_hidden": tgt, "fused": fused}
        info = {name: reorder(none if x is None else x, back) for name, x in parts.items()}
        return logits, {"alpha": self.alpha, **info}

    @torch.no_grad()
    def predict(self, input_ids: Tensor, timestamps: Tensor, mask: Tensor) -> Tensor:
        """Scores ``[B, num_items + 1]`` of what follows the sequence, under the seed's conventions.

        Column 0, the padding, is -inf. Dropout is off. See :meth:`forward` for the arguments.
        """
        was_training = self.training
        self.eval()
        given = (input_ids, timestamps, mask)
        history, _ = read_seed_batch(*given, self.num_items, self.config["max_len"])
        if (history.item == self.num_items).any():
            raise ValueError("'input_ids' holds mask tokens; predict reads events only")
        scores = self.score(RecBatch(torch.arange(input_ids.size(0)), history))
        self.train(was_training)
        return F.pad(scores, (1, 0), value=-math.inf)


# The seed's spelling.
TGT_BERT4Rec = TGTBERT4Rec
