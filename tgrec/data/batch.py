"""The nouns that models see: what was sampled, and nothing that was not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data.temporal_graph import EdgeType, TemporalRecGraph

FanOut = tuple[int, ...]
T = TypeVar("T", "History", "RecBatch", "SoftLabels", "Targets")
Strategy = Literal["last", "uniform"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def _to(value: T, device: torch.device | str) -> T:
    moved: dict[str, Any] = {
        f.name: v.to(device)
        for f in fields(value)
        if isinstance(v := getattr(value, f.name), Tensor | History | SoftLabels)
    }
    graph = getattr(value, "graph", None)
    if graph is not None:
        moved["graph"] = copy.copy(graph).to(device)  # PyG moves in place
    return replace(value, **moved)


@dataclass(frozen=True)
class History:
    """The last events of B users before their cuts, newest last, padded on the left.

    Args:
        item: ``[B, L]`` int64, 0 where ``mask`` is False.
        time: ``[B, L]`` int64 Unix seconds, 0 where ``mask`` is False or the data have no time.
        event_id: ``[B, L]`` int64, -1 where ``mask`` is False.
        relation: ``[B, L]`` int64 index into ``EventIndex.relations``.
        mask: ``[B, L]`` bool, True at real events.
        rating: ``[B, L]`` float32, NaN where ``mask`` is False or the rating is not known; None for
            models that do not ask for it (``Sampling.rating``).
    """

    item: Tensor
    time: Tensor
    event_id: Tensor
    relation: Tensor
    mask: Tensor
    rating: Tensor | None = None

    def to(self, device: torch.device | str) -> History:
        """The same history on another device."""
        return _to(self, device)

    def latest(self, length: int) -> History:
        """The last ``length`` positions."""
        columns: dict[str, Any] = {
            f.name: x[:, -length:]
            for f in fields(self)
            if isinstance(x := getattr(self, f.name), Tensor)
        }
        return replace(self, **columns)


@dataclass(frozen=True)
class SoftLabels:
    """What a teacher expects after each event of the histories of a batch.

    Args:
        hidden: ``[B, L, D']``; its products with ``table`` are the teacher's logits.
        table: ``[N, D']``.
        share: Of these answers in the loss; the rest is that of the labels.
    """

    hidden: Tensor
    table: Tensor
    share: float

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same on another device."""
        return _to(self, device)


@dataclass(frozen=True)
class RecBatch:
    """One batch of seeds as a model sees it.

    There is no cut in it on purpose: a cut is a position in the global order of events and so
    tells the time of the target. On the history-only track (T1) ``query_time`` is None.

    Args:
        user: ``[B]`` int64.
        history: The users' events strictly before the cut of each seed.
        item: ``[B]`` int64 targets, None when scoring.
        item_time: ``[B]`` int64 Unix seconds of the targets, part of the answer: None when
            scoring, and only for leaving a training event out of counts that contain it.
        query_time: ``[B, L + 1]`` int64 Unix seconds (T2): entry j is when the event after the
            first j positions of the row is asked for, the last entry is the seed's own question;
            ``[B, 1]`` for models that read no history.
        key: ``[B]`` int64, a hash of (seed, epoch, event): the key of every random draw made for
            this seed while training, so that draws depend on neither batch nor device. None when
            scoring: scores are deterministic.
        graph: The sampled neighbourhoods of the users, as a PyG batch with the users of the seeds
            first (see :class:`tgrec.loader.NeighborhoodReader`).
        rating: ``[B]`` float32 ratings of the targets, NaN where not known; part of the answer,
            too: None when scoring, and for models that do not ask for it.
        soft: What a teacher says, for models that are taught at every position
            (:mod:`tgrec.training.distill`); None when scoring, and without a teacher.
    """

    user: Tensor
    history: History | None = None
    item: Tensor | None = None
    item_time: Tensor | None = None
    query_time: Tensor | None = None
    key: Tensor | None = None
    graph: HeteroData | None = None
    rating: Tensor | None = None
    soft: SoftLabels | None = None

    def to(self, device: torch.device | str) -> RecBatch:
        """The same batch on another device."""
        return _to(self, device)


@dataclass(frozen=True)
class Sampling:
    """What a model needs in a batch.

    ``Sampling(max_len=200)`` asks for histories, ``Sampling(num_neighbors=(20, 5))`` for sampled
    neighbourhoods.

    Args:
        max_len: Events of history per seed; None for models that read no history.
        num_neighbors: Edges per node in each hop, -1 for all of them: the items of the user, the
            users of these items and so on. Or by edge type, as the sampler takes them: types that
            are left out are not walked. None for models that read no neighbourhood.
        train_strategy: Which edges while training: ``last`` the newest, ``uniform`` any. Scores
            are always computed from the newest, so that they are deterministic.
        seeds_per_user: Training examples that a model without histories takes of each user in an
            epoch, other ones every epoch; None takes all events.
        rating: Whether the ratings of past events are read too (and, while training, that of the
            target).
        relation: The kind of event that is asked for in training, by number; None for any.
        derived: Returns the graph with the derived edge types (no clock) that ``num_neighbors``
            names, such as counted transitions. A function, because they are data of the model:
            loaded with it, and filled after it is made.
    """

    max_len: int | None = None
    num_neighbors: FanOut | Mapping[EdgeType, FanOut] | None = None
    train_strategy: Strategy = "last"
    seeds_per_user: int | None = None
    rating: bool = False
    relation: int | None = None
    derived: Callable[[], TemporalRecGraph] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_len is not None and (isinstance(self.max_len, bool) or self.max_len < 1):
            raise ValueError(
                f"'max_len' needs to be a positive integer (got {self.max_len}); it is the number "
                f"of past events that a model reads"
            )
        hops = self.num_neighbors
        if isinstance(hops, Mapping):  # the sampler, which knows the edge types, checks the rest
            if bad := [fan_out for fan_out in hops.values() if not isinstance(fan_out, tuple)]:
                raise ValueError(
                    f"'num_neighbors' needs a tuple with a number per hop for each edge type (got "
                    f"{bad[0]!r})"
                )
        elif hops is not None and not (hops and all(k == -1 or _is_count(k) for k in hops)):
            raise ValueError(
                f"'num_neighbors' needs one positive integer per hop, or -1 for all edges (got "
                f"{hops})"
            )
        if self.relation is not None and not (self.relation == 0 or _is_count(self.relation)):
            raise ValueError(
                f"'relation' needs the number of a kind of events (got {self.relation!r})"
            )
        if self.train_strategy not in STRATEGIES:
            raise ValueError(
                f"'train_strategy' needs to be one of {list(STRATEGIES)} (got "
                f"{self.train_strategy!r})"
            )
        if self.seeds_per_user is not None and not _is_count(self.seeds_per_user):
            raise ValueError(
                f"'seeds_per_user' needs to be a positive integer, or None for all events (got "
                f"{self.seeds_per_user})"
            )

    @property
    def fan_outs(self) -> list[FanOut]:
        """Of each kind of edge that is walked; one for all of them without edge types."""
        hops = self.num_neighbors or {}
        return [*hops.values()] if isinstance(hops, Mapping) else [hops]

    @property
    def meets_others(self) -> bool:
        """Whether the neighbourhoods reach events of other users."""
        hops = self.num_neighbors or ()
        if not isinstance(hops, Mapping):
            return len(hops) > 1
        return any(any(fan_out[1:]) for e, fan_out in hops.items() if e[0] != e[2])

    def hops(self, chosen: slice) -> Sampling:
        """The same with some of the hops; where none of them draws anything, without any."""
        hops = self.num_neighbors
        if isinstance(hops, Mapping):
            some = {edge_type: fan_out[chosen] for edge_type, fan_out in hops.items()}
            hops = {edge_type: fan_out for edge_type, fan_out in some.items() if any(fan_out)}
        elif hops is not None:
            hops = hops[chosen]
        walks_derived = isinstance(hops, Mapping) and any(e[0] == e[2] for e in hops)
        derived = self.derived if walks_derived else None
        return replace(self, num_neighbors=hops or None, derived=derived)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Targets:
    """What is to be predicted: for each row, which item ``user`` chose at ``cut``.

    Args:
        user: ``[n]`` int64.
        cut: ``[n]`` int64: only events with ``event_id < cut`` may be seen.
        item: ``[n]`` int64.
        time: ``[n]`` int64 Unix seconds of the target, None where the data have no times.
    """

    user: Tensor
    cut: Tensor
    item: Tensor
    time: Tensor | None = None

    def __len__(self) -> int:
        return self.user.numel()

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return _to(self, device)

    def select(self, index: Tensor) -> Targets:
        """The rows at ``index`` (int64 positions or a bool mask)."""
        time = None if self.time is None else self.time[index]
        return Targets(self.user[index], self.cut[index], self.item[index], time)
