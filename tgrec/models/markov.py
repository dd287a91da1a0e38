"""Counted transitions: the floors that a learned model has to beat."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.data.transitions import add_transitions, transition_types
from tgrec.models.base import RecModel
from tgrec.models.popularity import item_counts
from tgrec.nn.transition import TransitionTable

# Classes of time between two events: the same second, 1-29 s, 30-119 s, 2-30 min, to a day, more.
GAPS = (0, 1, 30, 120, 1800, 86400)


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
        self.max_lag, self.lag_decay, self.age_decay = max_lag, lag_decay, age_decay
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
        history = batch.history
        assert history is not None
        return self.untyped(
            history.item, torch.zeros_like(history.item), age_weights(history.mask, self.age_decay)
        )


class GapMarkov(SkipMarkov):
    r"""Transition counts typed by the time between the two events, mixed with untyped ones.

    One table per class of gap (:data:`GAPS`). The table read for a past event is that of the gap
    from it to the question: to the query time on T2, to the last event on T1, where the query
    time is not known.

    .. math:: s = m\, s^{\text{typed}} + (1 - m)\, s^{\text{untyped}}

    with ``m = typed_weight`` 0.7 on T2 and 0.3 on T1 unless given.
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
        history = batch.history
        assert history is not None
        weight = age_weights(history.mask, self.age_decay)
        typed = self.typed(history.item, gap_classes(batch), weight)
        default = 0.3 if batch.query_time is None else 0.7
        m = default if self.typed_weight is None else self.typed_weight
        return m * typed + (1 - m) * super().score(batch)


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


def age_weights(mask: Tensor, decay: float) -> Tensor:
    """``[B, L]``: ``decay ** k`` for the k-th latest event, 0 at padding."""
    age = torch.arange(mask.size(1) - 1, -1, -1, device=mask.device)
    return decay**age * mask


def gap_classes(batch: RecBatch) -> Tensor:
    """``[B, L]`` class of the time from each past event to the question."""
    history = batch.history
    assert history is not None
    now = history.time[:, -1:] if batch.query_time is None else batch.query_time[:, -1:]
    bounds = torch.tensor(GAPS, device=now.device)
    gap = (now - history.time).clamp(min=0)
    return torch.searchsorted(bounds, gap, right=True) - 1
