"""Enhanced BERT4Rec: the cloze test and the next item, with side information."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.data.random import uniform
from tgrec.models.base import RecModel, arguments, choose_value, inner_products
from tgrec.models.bert4rec import make_cloze
from tgrec.models.enhanced_config import all_weights, check_config, possible_tasks
from tgrec.models.markov import COUNTS, SkipMarkov, counted_logits, counts_class
from tgrec.models.side_information import chosen_features, feature_bins, genres
from tgrec.models.side_inputs import SideInputs
from tgrec.models.tokens import Tokens, causal_tokens, choose_rows, cloze_tokens, token_pairs
from tgrec.nn.context_attention import ContextAttention, recent_mean
from tgrec.nn.gap_attention import NUM_BUCKETS
from tgrec.nn.heads import ItemHead, RatingHead
from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.task_weights import TaskWeights
from tgrec.nn.transformer import Dropout, SequenceEncoder

# Streams of the draws of a seed; 0 to 3 are those of make_cloze.
NO_ID, NO_PROFILE, NO_PAST, BOTH_SIDES = 4, 5, 6, 7
GRAPH_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # what choose_weight tries


class EnhancedBERT4Rec(RecModel):
    r"""BERT4Rec (Sun et al., CIKM 2019, arXiv 1904.06690) with side information and four tasks.

    One encoder reads a training sequence in one of two ways, as UniLM does (Dong et al., NeurIPS
    2019, arXiv 1905.03197): a share ``cloze_prob`` of them from both sides, with holes to fill in,
    the others from left to right, each position predicting the next event. The second is how users
    are read afterwards, and what makes the scores. The architecture is that of seed 001.

    * **Items** are vectors :math:`v_i = E_i + \bar G_{g(i)} + Y_{y(i)}` of the item, its genres
      and its year, read at the input and scored by at the output. Items without training events
      have no E (their part is the mean of the others', which is taken out of all), so that new
      items are scored by their features. The mask token has no features: what it hides is hidden
      altogether.
    * **Events** add their rating and their calendar time (day of year, hour, weekday), positions
      are sinusoidal, and attention has a bias per bucket of the time between two events
      (:func:`tgrec.nn.gap_attention.gap_pairs`). Of an event that is to be predicted neither is
      known; on T2, where the time of the question is given, the time is.
    * **Cross-attention** from each position to facts about the user, each a key of its own: user
      id, gender, age, occupation, and the mean of the latest items up to that position
      (:class:`tgrec.nn.context_attention.ContextAttention`).
    * **Popularity**: scores add a learned weight times the log of an item's training events (the
      usual number of its genres if it has none), so that somebody unknown is shown what is popular.
      The event that is asked for is not counted in training.
    * **Graph** (``use_graph``): scores add :math:`w \log(1 + p / 0.0003)`, with p the counted
      item-item transitions of the store (:class:`GapMarkov`; :class:`SkipMarkov` where the gaps
      are not read). The counts have no part in the loss, and nothing to say for new items.
    * **Heads**: masked items; the next item, its rating if it is given, and its genres, whose
      target is data and not a learned vector, so that it cannot collapse.

    Every prediction of a task weighs as much as ``task_weights`` (or ``uncertainty_weighting``)
    says (:class:`tgrec.nn.task_weights.TaskWeights`); the few holes are not weighed up, since their
    noise would drown the others. Cross-entropies are over the items that occur in training.

    The vector of a user's id is learned from ratings alone, and otherwise only read: learned from
    items, it would soon hold by heart what the user was trained on, and the model look at nothing
    else. Without ratings there is none.

    In a share ``unknown_prob`` of the sequences the user's id is hidden, in as many the profile,
    in as many (of those read from left to right) the whole past and the id: what the model says to
    somebody new is trained, too, and by these sequences alone: of the others the first event is not
    asked for. A mask token stands before it, so that somebody without a past is read as well. Users
    without training events are always read as unknown.

    Args:
        num_items: N.
        num_users: U; :meth:`from_graph` fills it, as ``features``, ``bins`` and ``num_genres``.
        d_model: D.
        n_heads: Attention heads.
        n_blocks: Blocks.
        d_ff: Width of the feed-forward layers.
        max_len: L, how many of the latest events are read (a mask token comes on top).
        dropout: In [0, 1).
        cloze_prob: Share of training sequences that are read from both sides, below 1.
        mask_prob: Share of their positions that are masked.
        features: Which of :data:`tgrec.models.side_information.FEATURES` are read. In
            :meth:`from_graph`, None means all that the graph has; ``config`` says which.
        bins: Feature -> edges of its bins.
        num_genres: G.
        task_weights: Task -> weight, where it shall differ from :data:`TASK_WEIGHTS`; a task of
            weight 0 is left out, as is one that the features do not allow.
        uncertainty_weighting: Whether the weights are learned from there.
        unknown_prob: Share of sequences in which the user's id is hidden, of those in which the
            profile is, and of those in which the past and the id are.
        recent: Number of latest items that make the recent profile.
        use_graph: Whether counted transitions are added to the scores.
        graph_weight: w, at least 0.
        choose_weight: Whether w is chosen on validation after training.
        gradient_checkpointing: Less memory for more time, see :class:`SequenceEncoder`.
        num_edges: E of the two transition tables, filled by :meth:`from_graph`.
    """

    def __init__(
        self,
        num_items: int,
        num_users: int = 1,
        d_model: int = 64,
        n_heads: int = 2,
        n_blocks: int = 2,
        d_ff: int = 256,
        max_len: int = 200,
        dropout: float = 0.2,
        cloze_prob: float = 0.3,
        mask_prob: float = 0.2,
        features: Sequence[str] = (),
        bins: Mapping[str, Sequence[float]] | None = None,
        num_genres: int = 0,
        task_weights: Mapping[str, float] | None = None,
        uncertainty_weighting: bool = False,
        unknown_prob: float = 0.1,
        recent: int = 10,
        use_graph: bool = False,
        graph_weight: float = 1.0,
        choose_weight: bool = False,
        gradient_checkpointing: bool = False,
        num_edges: tuple[int, ...] | None = None,
    ) -> None:
        given = arguments(locals())
        weights = all_weights(task_weights or {})
        if not ("rating" in features and weights["rating_prediction"]):
            features = [name for name in features if name != "user"]  # nothing to learn it from
        bins = {name: list(edges) for name, edges in (bins or {}).items() if name in features}
        built = {"features": list(features), "bins": bins, "task_weights": weights}
        super().__init__(**{**given, **built})
        check_config(self.config)
        self.features, self.bins, self.recent = tuple(features), bins, recent
        self.mask_prob, self.unknown_prob = mask_prob, unknown_prob
        self.cloze_prob = cloze_prob if weights["item_prediction"] and mask_prob else 0.0
        self.sampling = Sampling(max_len=max_len, rating="rating" in features)
        self.inputs = SideInputs(num_items, num_users, num_genres, d_model, features, bins)
        self.context = ContextAttention(d_model, n_heads)
        self.encoder = SequenceEncoder(
            d_model, n_heads, n_blocks, d_ff, max_len + 1, dropout, causal=False,
            positions="sinusoidal", pair_kinds=NUM_BUCKETS if "gap" in features else 0,
            gradient_checkpointing=gradient_checkpointing,
        )  # fmt: skip
        self.drop = Dropout(dropout)
        tasks = possible_tasks(weights, features, self.cloze_prob)
        self.next_item = ItemHead(d_model)
        self.masked_item = ItemHead(d_model) if "item_prediction" in tasks else None
        self.rating = RatingHead(d_model, num_items) if "rating_prediction" in tasks else None
        self.preference = nn.Linear(d_model, num_genres) if "user_preference" in tasks else None
        self.tasks = TaskWeights(tasks, uncertainty_weighting)
        self.graph: SkipMarkov | None = None
        self.graph_weight = graph_weight
        if num_edges is not None:
            self._set_graph(counts_class("gap" in features)(num_items, tuple(num_edges), **COUNTS))

    @classmethod
    def from_graph(
        cls, graph: TemporalRecGraph, features: Iterable[str] | None = None, **kwargs: Any
    ) -> Self:
        """Builds the model for the nodes of a graph, copies their features, counts transitions."""
        names = chosen_features(graph, features)
        model = cls(
            graph.num_items,
            num_users=max(graph.num_users, 1),
            features=names,
            bins=feature_bins(graph, names),
            num_genres=genres(graph).size(1) if "genre" in names else 0,
            **kwargs,
        )
        model.inputs.fill(graph)
        if model.config["use_graph"]:
            model._set_graph(counts_class("gap" in names).from_graph(graph, **COUNTS))
        return model

    def _set_graph(self, graph: SkipMarkov) -> None:
        self.graph = graph
        self.config["num_edges"] = graph.config["num_edges"]

    def row_meanings(self, graph: TemporalRecGraph) -> dict[str, Sequence[Hashable]]:
        """Of genres and binned features; see :meth:`RecModel.row_meanings`."""
        own = self.inputs.row_meanings(graph)
        heads = {} if self.preference is None else dict(self.preference.named_parameters())
        return {f"inputs.{name}": rows for name, rows in own.items()} | {
            f"preference.{name}": own["genre"] for name in heads
        }

    # ---- what comes out -----------------------------------------------------------------------

    def encode_item(self) -> Tensor:
        """``[N, D]``, the table that the inputs are read from too."""
        return self.inputs.items()

    def _question(self, batch: RecBatch) -> Tokens:
        """The history after a mask token; its last position is asked for what comes next."""
        assert batch.history is not None
        return causal_tokens(batch.history, batch.query_time, self.num_items)

    def hidden(
        self,
        tokens: Tokens,
        items: Tensor,
        facts: Tensor,
        both_sides: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """``[B, S, D]``, or the ``last`` position ``[B, D]``; see :func:`token_pairs`."""
        x, context, _ = self._read(tokens, items, facts)
        pairs = token_pairs(tokens, both_sides, gaps="gap" in self.features)
        out: Tensor = self.encoder(x + self.drop(context), tokens.mask, pairs, last)
        return out

    def _read(self, tokens: Tokens, items: Tensor, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors and contexts ``[B, S, D]`` of all positions, and the weights of the facts."""
        x = F.embedding(tokens.item, torch.cat([items, self.inputs.mask_token]))
        recent = recent_mean(x, tokens.known, self.recent)
        if self.inputs.calendar is not None:
            x = x + self.inputs.calendar(tokens.asked, tokens.timed)
        if tokens.rating is not None:
            x = x + self.inputs.binned("rating", tokens.rating)
        query = x * math.sqrt(x.size(2)) + self.encoder.positions(x.size(1))
        context, weights = self.context(query, facts, recent)
        return x, context, weights

    def _user(
        self, batch: RecBatch, items: Tensor, profile: Mapping[str, float] | None = None
    ) -> Tensor:
        """``[B, D]`` the state after the history."""
        facts, _ = self.inputs.facts(batch.user, profile)
        return self.hidden(self._question(batch), items, facts, last=True)

    def encode_user(self, batch: RecBatch, profile: Mapping[str, float] | None = None) -> Tensor:
        """``[B, D]`` what is looked for next (:meth:`score` adds popularity and graph to it).

        Args:
            batch: A ``user`` that is no node of the graph (-1, for example) is somebody unknown.
            profile: For people who are not in the graph: their values of ``profile_names``, coded
                as in the graph. Whose batch it is does not matter then.
        """
        out: Tensor = self.next_item(self._user(batch, self.encode_item(), profile))
        return out

    def score(self, batch: RecBatch, profile: Mapping[str, float] | None = None) -> Tensor:
        """``[B, N]`` float32 scores; arguments as in :meth:`encode_user`."""
        scores = self._scores(batch, profile)
        if self.graph is not None:
            scores = scores + self.graph_weight * counted_logits(self.graph.score(batch))
        return scores

    def _scores(self, batch: RecBatch, profile: Mapping[str, float] | None = None) -> Tensor:
        """Without the graph."""
        items = self.encode_item()
        state = self.next_item(self._user(batch, items, profile))
        return inner_products(state, items) + self.inputs.popularity_logits()

    def choose(self, measure: Callable[[], float]) -> None:
        """With ``choose_weight``: w takes the best of its values."""
        if self.config["choose_weight"] and self.graph is not None:
            put = partial(self.put_chosen, "graph_weight")
            choose_value(measure, measure(), self.graph_weight, GRAPH_WEIGHTS, put)

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """See :meth:`RecModel.score_left_out`."""
        scores = self._scores(batch)
        if self.graph is not None:
            scores = scores + self.graph_weight * counted_logits(self.graph.score_left_out(batch))
        assert batch.item is not None
        rows = torch.arange(scores.size(0), device=scores.device)
        return scores.index_put((rows, batch.item), self.inputs.left_out(batch.item), True)

    def rate(
        self, batch: RecBatch, item: Tensor, profile: Mapping[str, float] | None = None
    ) -> Tensor:
        """``[B]`` float32 ratings that the users would give to ``item`` ``[B]``, as in the data.

        Raises:
            ValueError: If the model has no rating head.
        """
        if self.rating is None:
            raise ValueError("this model has no rating head: the task 'rating_prediction' needs a "
                             "graph with ratings and a weight")  # fmt: skip
        items = self.encode_item()
        state = self._user(batch, items, profile)
        own = self.inputs.facts(batch.user, profile)[1]
        mean, spread, low, high = self.inputs.rating_scale
        rated: Tensor = self.rating(state, own, item, F.embedding(item, items))
        return torch.clamp(mean + spread * rated, low, high)

    def genre_preference(
        self, batch: RecBatch, profile: Mapping[str, float] | None = None
    ) -> Tensor:
        """``[B, G]`` float32 shares of genres in what comes next; rows add up to 1.

        Raises:
            ValueError: If the model has no preference head.
        """
        if self.preference is None:
            raise ValueError("this model has no preference head: the task 'user_preference' needs "
                             "a graph with genres and a weight")  # fmt: skip
        logits: Tensor = self.preference(self._user(batch, self.encode_item(), profile))
        return logits.float().softmax(1)

    def context_weights(
        self, batch: RecBatch, profile: Mapping[str, float] | None = None
    ) -> Tensor:
        """``[B, L + 1, H, C]`` how much each position attends to each of ``inputs.fact_names``."""
        facts, _ = self.inputs.facts(batch.user, profile)
        return self._read(self._question(batch), self.encode_item(), facts)[2]

    # ---- training -----------------------------------------------------------------------------

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """Weighted sums and counts of the tasks, in the order of ``tasks.tasks``."""
        history, item, key = batch.history, batch.item, batch.key
        assert history is not None
        assert item is not None
        cloze = make_cloze(batch, self.num_items, self.mask_prob, 0.0)
        assert key is not None
        no_id, no_profile, no_past = (
            uniform(key, stream) < self.unknown_prob for stream in (NO_ID, NO_PROFILE, NO_PAST)
        )
        both_sides = uniform(key, BOTH_SIDES) < self.cloze_prob
        known = cloze.mask & ~cloze.hole
        tokens = choose_rows(
            both_sides,
            cloze_tokens(history, batch.query_time, cloze.item, cloze.mask, known),
            causal_tokens(history, batch.query_time, self.num_items, no_past),
        )
        no_id = no_id | (no_past & ~both_sides)
        facts, own = self.inputs.facts(batch.user, None, no_id, no_profile)
        items = self.encode_item()
        hidden = self.hidden(tokens, items, facts, both_sides)
        # What somebody does first is what was put before them. Who is asked for without a past has
        # one that is not known: any event of theirs, and the first is one of many.
        past = no_past.unsqueeze(1) | (tokens.known.cumsum(1) > 0)
        every = cloze.mask & ~both_sides.unsqueeze(1) & past
        terms = {"next_item": self._item_loss(self.next_item, items, hidden, every, cloze.target)}
        if self.masked_item is not None:
            hole = cloze.hole & both_sides.unsqueeze(1)
            lost = self._item_loss(self.masked_item, items, hidden, hole, cloze.target)
            terms["item_prediction"] = lost
        if self.rating is not None:
            rated = self._rating_loss(batch, items, hidden, every, cloze.target, own)
            terms["rating_prediction"] = rated
        if self.preference is not None:
            share = self.inputs.item_genre[cloze.target[every]]
            logits = F.log_softmax(self.preference(hidden)[every].float(), dim=1)
            terms["user_preference"] = -(share * logits).sum(), (share.sum(1) > 0).sum()
        out: tuple[Tensor, Tensor] = self.tasks(terms)
        return out

    def _item_loss(
        self, head: nn.Module, items: Tensor, hidden: Tensor, rows: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the items that occur in training, at the True ``rows`` ``[B, S]``.

        As negatives of every prediction, items that never occur would teach what they have in
        common with no chosen item: their genres and years.
        """
        trained, target = self.inputs.trained, target[rows]
        place = self.inputs.trained_place.index_select(0, target)
        biases: tuple[Tensor, ...] = ()
        if self.inputs.popularity is not None:
            popular = self.inputs.popularity_logits().index_select(0, trained)
            biases = popular, self.inputs.left_out(target)
        hidden, items = head(hidden)[rows], items.index_select(0, trained)
        return linear_cross_entropy(hidden, items, place, *biases), rows.sum()

    def _rating_loss(
        self,
        batch: RecBatch,
        items: Tensor,
        hidden: Tensor,
        rows: Tensor,
        target: Tensor,
        own: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Squared errors at the ``rows`` whose rating is known, in units of the variance."""
        assert batch.history is not None
        assert self.rating is not None
        assert batch.history.rating is not None
        assert batch.rating is not None
        rating = torch.cat([batch.history.rating, batch.rating.unsqueeze(1)], dim=1)
        rows = rows & rating.isfinite()
        item, own = target[rows], own.unsqueeze(1).expand_as(hidden)[rows]
        guess = self.rating(hidden[rows], own, item, F.embedding(item, items))
        wanted = (rating[rows] - self.inputs.rating_scale[0]) / self.inputs.rating_scale[1]
        return (guess - wanted).square().sum(), rows.sum()

    def monitor(self) -> dict[str, float]:
        """The mean loss of each task since the last call, learned weights, and w."""
        weight = self.inputs.popularity
        popular = {} if weight is None else {"popularity": float(weight.detach())}
        return self.tasks.monitor() | popular
