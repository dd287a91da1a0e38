"""Counted transitions: the floors that a learned model has to beat."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor

from tgrec.data import History, RecBatch, Sampling, TemporalRecGraph
from tgrec.data.transitions import add_transitions, transition_types
from tgrec.models.base import RecModel
from tgrec.models.popularity import item_counts
from tgrec.nn.transition import TransitionTable

# Classes of time between two events: the same second, 1-29 s, 30-119 s, 2-30 min, to a day, more.
GAPS = (0, 1, 30, 120, 1800, 86400)
# Of the scores in counted_logits: below it a count says little. Of 1e-5 to 1e-2 this value gives
# the counts alone the best likelihood on validation of ml1m-loo, with a weight of 2.
FLOOR = 3e-4
# Settings of the counts that learned models add to their scores on one domain.
COUNTS: dict[str, Any] = {"max_lag": 20, "lag_decay": 0.85, "last": 30, "age_decay": 0.85}


def counts_class(use_time: bool) -> type[SkipMarkov]:
    """Which transitions are counted."""
    return GapMarkov if use_time else SkipMarkov


def counted_logits(counted: Tensor) -> Tensor:
    """``log(1 + p / 0.0003)``: what scores p of counts add, times a weight, to learned logits."""
    return torch.log1p(counted / FLOOR)


class SkipMarkov(RecModel):
    r"""Skip-Markov counts, nothing learned.

    .. math:: s_j = \sum_{k < \text{last}} \text{age\_decay}^{\,k}\, T_{i_{n-k},\,j}

    over the user's ``last`` latest items, with T the row-normalised item-item edges of
    :func:`tgrec.data.transitions.add_transitions` (see :class:`TransitionTable`).

    Args:
        num_items: N.
        num_edges: E of the tables, one number per table; filled by :meth:`from_graph`.
        max_lag: Largest step counted.
        lag_decay: Weight of one more step.
        last: How many of the latest events are read.
        age_decay: Weight of one more event back.
    """

    MASS: Literal["weights", "events"] = "events"

    def __init__(
        self,
        num_items: int,
        num_edges: tuple[int, ...] = (0,),
        max_lag: int = 8,
        lag_decay: float = 0.75,
        last: int = 15,
        age_decay: float = 0.75,
    ) -> None:
        super().__init__(
            num_items,
            num_edges=list(num_edges),
            max_lag=max_lag,
            lag_decay=lag_decay,
            last=last,
            age_decay=age_decay,
        )
        self.sampling = Sampling(max_len=last)
        self.max_lag, self.lag_decay = max_lag, lag_decay
        self.last, self.age_decay = last, age_decay
        self.untyped = TransitionTable(num_items, 1, num_edges[0])

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Counts the transitions of ``graph``."""
        model = cls(graph.num_items, **kwargs)
        model.untyped = count_transitions(graph, model.max_lag, model.lag_decay, (), cls.MASS)
        model.config["num_edges"] = [model.untyped.target.numel()]
        return model

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` the weighted sum of the rows of the latest items."""
        return self._rows(batch, self.untyped, typed=False, leave_out=False)

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """:meth:`score` of a training batch as if its targets had not been counted.

        The transitions into a training target are among the counts, so a model that trains on
        top of them would learn to trust them too much: they are taken out exactly, per seed.
        """
        return self._rows(batch, self.untyped, typed=False, leave_out=True)

    def _rows(
        self, batch: RecBatch, table: TransitionTable, typed: bool, leave_out: bool
    ) -> Tensor:
        assert batch.history is not None
        history = batch.history.latest(self.last)
        now = history.time[:, -1:] if batch.query_time is None else batch.query_time[:, -1:]
        classes = gap_classes(history, now) if typed else torch.zeros_like(history.item)
        from_end = torch.arange(history.mask.size(1) - 1, -1, -1, device=now.device)
        weight = self.age_decay**from_end * history.mask
        if not leave_out:
            return table.forward(history.item, classes, weight)
        assert batch.item is not None
        own = self.lag_decay**from_end * (from_end < self.max_lag) * history.mask
        counted = classes
        if typed:
            assert batch.item_time is not None
            counted = gap_classes(history, batch.item_time.unsqueeze(1))
        in_mass = self.MASS == "weights"
        return table.leaving_out(history.item, classes, weight, batch.item, own, counted, in_mass)


class GapMarkov(SkipMarkov):
    r"""Transition counts typed by the time between the two events, mixed with untyped ones.

    One table per class of gap (:data:`GAPS`). The table read for a past event is that of the gap
    from it to the question: to the query time on T2, to the last event on T1, where the query
    time is not known.

    .. math:: s = m\, s^{\text{typed}} + (1 - m)\, s^{\text{untyped}}

    Args:
        num_items: N.
        num_edges: E of the untyped and of the typed tables; filled by :meth:`from_graph`.
        max_lag: Largest step counted.
        lag_decay: Weight of one more step.
        last: How many of the latest events are read.
        age_decay: Weight of one more event back.
        typed_weight: m, in [0, 1]; 0.7 on T2 and 0.3 on T1 if left out.
    """

    MASS = "weights"

    def __init__(
        self,
        num_items: int,
        num_edges: tuple[int, ...] = (0, 0),
        max_lag: int = 20,
        lag_decay: float = 0.85,
        last: int = 30,
        age_decay: float = 0.85,
        typed_weight: float | None = None,
    ) -> None:
        super().__init__(num_items, num_edges[:1], max_lag, lag_decay, last, age_decay)
        self.config |= {"num_edges": list(num_edges), "typed_weight": typed_weight}
        self.typed_weight = typed_weight
        self.typed = TransitionTable(num_items, len(GAPS), num_edges[1])

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Counts the typed and untyped transitions of ``graph``."""
        model = super().from_graph(graph, **kwargs)
        model.typed = count_transitions(graph, model.max_lag, model.lag_decay, GAPS)
        model.config["num_edges"].append(model.typed.target.numel())
        return model

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` the mixture of both tables."""
        return self._mix(batch, leave_out=False)

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """See :meth:`SkipMarkov.score_left_out`."""
        return self._mix(batch, leave_out=True)

    def _mix(self, batch: RecBatch, leave_out: bool) -> Tensor:
        default = 0.3 if batch.query_time is None else 0.7
        m = default if self.typed_weight is None else self.typed_weight
        typed = self._rows(batch, self.typed, True, leave_out)
        return m * typed + (1 - m) * self._rows(batch, self.untyped, False, leave_out)


def count_transitions(
    graph: TemporalRecGraph,
    max_lag: int,
    decay: float,
    gaps: tuple[int, ...],
    mass: Literal["weights", "events"] = "weights",
) -> TransitionTable:
    """The normalised table of the derived edges of ``graph``."""
    counted = add_transitions(graph, max_lag, decay, gaps)
    stores = [counted[t] for t in transition_types("next", len(gaps))]
    edges = [(s.edge_index, s.edge_weight) for s in stores]
    return TransitionTable.fill(edges, item_counts(graph), mass)


def gap_classes(history: History, now: Tensor) -> Tensor:
    """``[B, L]`` class of the time from each past event to ``now`` ``[B, 1]`` (Unix s)."""
    gap = (now - history.time).clamp(min=0)
    # Not a search: the bounds would have to be copied to the device, which stops the host.
    return torch.stack([gap >= bound for bound in GAPS[1:]]).sum(0)
