"""What answers: a model, the log it looks into, and how a question becomes scores."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data import RecBatch, Targets, TemporalRecGraph
from tgrec.data.recognise import ticks_per_second
from tgrec.loader import GuestReader, NeighborhoodReader, SeedLoader, Track, reader_below
from tgrec.models import RecModel
from tgrec.models.io import not_found_out
from tgrec.recommend.memory import naming_remedies
from tgrec.recommend.names import Names, coded_profile, genres_of, listed, plain
from tgrec.sampler import EventIndex

# Scores held at once: 256 users of a catalogue of 32,768 items are 32 MB.
SCORES_AT_ONCE, USERS_AT_ONCE = 2**23, 256


@dataclass(frozen=True)
class Served:
    """A fitted model and the log that its answers are read from.

    Args:
        model: In evaluation mode.
        graph: All events known, not only those that the model was fitted on.
        loader: Reads histories and neighbourhoods from an index over ``graph``.
        users: Their names.
        items: Their names.
        first_met: ``[N]`` event id of the first event of each item, one past the last where none.
    """

    model: RecModel
    graph: TemporalRecGraph
    loader: SeedLoader
    users: Names
    items: Names
    first_met: Tensor

    @classmethod
    def start(
        cls, model: RecModel, graph: TemporalRecGraph, track: Track, device: torch.device | str
    ) -> Served:
        """Builds the index and looks up the names."""
        index = EventIndex(graph, device)
        first = torch.full((index.num_items,), index.end, device=index.device)
        first.scatter_reduce_(0, index.item, index.event_id, reduce="amin")
        return cls(
            model=model.to(device).eval(),
            graph=graph,
            loader=SeedLoader(index, model.sampling, track),
            users=Names.of(graph, "user"),
            items=Names.of(graph, "item"),
            first_met=first,
        )

    @property
    def index(self) -> EventIndex:
        """Over all events."""
        return self.loader.index

    def by_popularity(self, cut: int) -> Tensor:
        """``[N]`` all items, those with most events before ``cut`` first."""
        return self._popular if cut == self.index.end else _by_popularity(self.index, cut)

    @cached_property
    def _popular(self) -> Tensor:
        return _by_popularity(self.index, self.index.end)

    @cached_property
    def genres(self) -> tuple[tuple[str, ...], np.ndarray] | None:
        """See :func:`tgrec.recommend.names.genres_of`."""
        return genres_of(self.graph)

    @cached_property
    def below(self) -> NeighborhoodReader | None:
        """What stands behind the items of somebody who is not in the log."""
        return reader_below(self.index, self.model.sampling)

    def model_at(self, cut: int) -> RecModel:
        """The model of a question at ``cut``.

        One that only counts is counted anew from what was before; what was learned stays as it is.
        """
        if cut >= self.index.end or self.model.num_parameters() > 0:
            return self.model
        if cut not in self._counted:
            self._counted.clear()
            settings = not_found_out(self.model.config)
            counted = type(self.model).from_graph(self.graph.before(cut), **settings)
            self._counted[cut] = counted.to(self.index.device).eval()
        return self._counted[cut]

    @cached_property
    def _counted(self) -> dict[int, RecModel]:
        return {}

    @cached_property
    def asked(self) -> str | None:
        """See :meth:`tgrec.models.RecModel.asked_relation`."""
        return self.model.asked_relation(self.graph, **self.model.config)

    @cached_property
    def elsewhere(self) -> Tensor:
        """Items that have events, but none of the kind that the model is asked for."""
        met = torch.zeros(self.index.num_items, dtype=torch.bool)
        for edge_type in self.graph.interaction_types:
            met[self.graph[edge_type].edge_index[1].cpu()] = self.asked is not None
        if self.asked is not None:
            met[self.graph["user", self.asked, "item"].edge_index[1].cpu()] = False
        return met.nonzero().view(-1).to(self.index.device)

    def pause(self, cut: int) -> int:
        """Median time (s) between two events of a user before ``cut``; 0 where there are none."""
        return self._pause if cut == self.index.end else _pause(self.index, cut)

    @cached_property
    def _pause(self) -> int:
        return _pause(self.index, self.index.end)

    @cached_property
    def _newest(self) -> int | None:
        return int(self.index.time.max()) if self.index.has_time else None

    def cut_at(self, at: Any) -> tuple[int, int | None]:
        """The cut of a moment, and the moment in Unix seconds.

        None is after all that is known; the moment is then that of the newest event, so that the
        same question has the same answer on every day.
        """
        index = self.index
        if at is None:
            return index.end, self._newest
        seconds = unix_seconds(at, "at")
        if not index.has_time:
            raise ValueError(
                "'at' needs event times, and the data have only an order; leave it out"
            )
        return self.graph.event_id_at(seconds), seconds


def _by_popularity(index: EventIndex, cut: int) -> Tensor:
    size = int(torch.searchsorted(index.event_id, cut))
    count = torch.bincount(index.item[:size], minlength=index.num_items)
    return torch.argsort(count, descending=True, stable=True)


def _pause(index: EventIndex, cut: int) -> int:
    log = index.by_user.log[index.event_id[index.by_user.log] < cut]
    pauses = index.time[log].diff()[index.user[log].diff() == 0]
    return int(pauses.median()) if pauses.numel() else 0


@dataclass(frozen=True)
class Question:
    """Who asks, and what may be looked at.

    Args:
        loader: Reads what the model needs, from the log or from a log of the asker's own.
        user: ``[n]`` int64 nodes of that log.
        cut: Of that log: only events before it are read.
        log_cut: The same moment in the log of all users.
        time: When it is asked (Unix s); models that know the time of a question (T2) are told.
        profile: Features of somebody unknown, as the data code them.
    """

    loader: SeedLoader
    user: Tensor
    cut: int
    log_cut: int
    time: int | None
    profile: Mapping[str, float] | None = None

    def targets(self, user: Tensor | None = None) -> Targets:
        """The seeds of the loader."""
        user = self.user if user is None else user
        time = None if self.time is None else torch.full_like(user, self.time)
        return Targets(user, torch.full_like(user, self.cut), torch.zeros_like(user), time)


def question_of(
    served: Served,
    user_id: Any,
    at: Any,
    history: Sequence[Any] | None,
    times: Sequence[Any] | None,
    profile: Mapping[str, Any] | None,
) -> Question:
    """The question of one asker, known or new, as :meth:`Recommender.recommend` takes it."""
    if profile is not None and not reads_profile(served.model):
        raise ValueError(
            f"'profile': {type(served.model).__name__} reads no features of the one who asks; "
            f"pass a history, or use a model that does, such as 'enhanced_bert4rec'"
        )
    if profile is not None and user_id is not None:
        raise ValueError("'profile' is for somebody new; a known 'user_id' has one in the data")
    if user_id is None and history is None and profile is None:
        raise ValueError("'user_id', 'history' or 'profile' needs to be given (got none)")
    if history is None and times is not None:
        raise ValueError("'times' belongs to 'history', which is not given")
    node = None
    if user_id is not None:
        (node,) = served.users.positions([user_id], "user_id").tolist()
    if node is not None and history is None:
        return ask(served, torch.tensor([node]), at)
    return ask_with_history(served, () if history is None else history, times, at, node, profile)


def ask(served: Served, user: Tensor, at: Any = None) -> Question:
    """The question of users ``[n]`` of the log."""
    cut, now = served.cut_at(at)
    return Question(served.loader, user.to(served.index.device), cut, cut, now)


def ask_with_history(
    served: Served,
    history: Sequence[Any],
    times: Sequence[Any] | None = None,
    at: Any = None,
    user: int | None = None,
    profile: Mapping[str, Any] | None = None,
) -> Question:
    """The question of somebody with a history of their own.

    Args:
        served: The recommender.
        history: Raw ids of items, oldest first; may be empty.
        times: Their times; without them the events lie the median pause of the data (before ``at``)
            apart and end one pause before the question.
        at: The moment of the question; events of ``history`` at or after it are not looked at.
        user: Node of a known user, whose features are then read; the log of this user is not.
        profile: Features of somebody unknown, in words or as the data code them.
    """
    coded = None if profile is None else coded_profile(served.graph, profile)
    item = served.items.positions(listed(history, "history"), "history")
    log_cut, now = served.cut_at(at)
    timed = served.index.has_time
    if times is None:
        back = torch.arange(item.numel(), 0, -1) * max(served.pause(log_cut), 1)
        time = (0 if now is None else now) - back
    else:
        if not timed:
            raise ValueError("'times' is of no use: the data have only an order; leave it out")
        times = listed(times, "times")
        if len(times) != item.numel():
            raise ValueError(
                f"'times' needs one time per item of 'history' (got {len(times)} and "
                f"{item.numel()})"
            )
        time = torch.tensor([unix_seconds(t, "times") for t in times], dtype=torch.int64)
        if (time.diff() < 0).any():
            raise ValueError("'times' needs to ascend: 'history' is given oldest first")
        if at is not None and now is not None:
            item, time = item[time < now], time[time < now]
        elif now is not None and time.numel():
            now = max(now, int(time[-1]))
    # Neighbourhoods reach into the log, of which the asker's events are no part.
    sampling, log = served.model.sampling, served.index
    whole = sampling.num_neighbors is not None
    node = log.num_users if user is None or whole else user
    if sampling.meets_others:  # who meets an item twice would be among its earlier users
        item, time = _last_of_each(item, time)
    own = EventIndex(_own_log(served, item.to(log.device), time.to(log.device), node))
    reader = GuestReader(own, sampling, log, served.below, log_cut) if whole else None
    loader = SeedLoader(own, sampling, served.loader.track, reader)
    asker = torch.tensor([node], device=log.device)
    return Question(loader, asker, own.end, log_cut, now, coded)


def _own_log(served: Served, item: Tensor, time: Tensor, node: int) -> TemporalRecGraph:
    """The events of one more user alone, each of the kind of its item."""
    index, graph = served.index, TemporalRecGraph()
    graph["user"].num_nodes, graph["item"].num_nodes = index.num_users + 1, index.num_items
    event_id, relation = torch.arange(item.numel(), device=item.device), _kinds(served, item)
    for code, name in enumerate(index.relations):
        mine = relation == code
        store = graph["user", name, "item"]
        store.edge_index = torch.stack([torch.full_like(item[mine], node), item[mine]])
        store.event_id = event_id[mine]
        if index.has_time:
            store.time = time[mine]
        if index.rating is not None:  # NaN is not known
            store.rating = torch.full_like(time[mine], math.nan, dtype=torch.float32)
    return graph


def _kinds(served: Served, item: Tensor) -> Tensor:
    """The kind of event in which each item was first met: the domain, where items have one."""
    index, first = served.index, served.first_met[item]
    if index.num_events == 0:
        return torch.zeros_like(item)
    log = torch.searchsorted(index.event_id, first).clamp(max=index.num_events - 1)
    return torch.where(first < index.end, index.relation[log], 0)


def _last_of_each(item: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Of each item the last event, in their order."""
    last: dict[int, int] = {value: place for place, value in enumerate(item.tolist())}
    rows = torch.tensor(sorted(last.values()), dtype=torch.int64, device=item.device)
    return item[rows], time[rows]


@torch.no_grad()
def all_scores(served: Served, question: Question) -> Iterator[tuple[Tensor, Tensor]]:
    """All users once: (rows ``[B]`` of ``question.user``, scores ``[B, N]``)."""
    if question.user.numel() == 0:
        return
    size = max(1, min(USERS_AT_ONCE, SCORES_AT_ONCE // max(1, served.index.num_items)))
    for rows, batch in question.loader.eval_batches(question.targets(), size):
        yield rows, score(served, question, batch)


def score(served: Served, question: Question, batch: RecBatch) -> Tensor:
    """``[B, N]`` what the model says to the one who asks."""
    model: Any = served.model_at(question.log_cut)
    told = {} if question.profile is None else {"profile": question.profile}
    read = [f"{n}={model.config[n]}" for n in ("max_len", "num_neighbors") if n in model.config]
    remedies = [f"a model that reads less of the past (now {', '.join(read)})"] if read else []
    remedies.append("Recommender.load(folder, device='cpu'), or a machine with more")
    with naming_remedies(f"asking {type(model).__name__}", served.index.device, remedies):
        scores: Tensor = model.score(batch, **told)
    return scores


def reads_profile(model: RecModel) -> bool:
    """Whether its ``score`` takes the features of somebody unknown."""
    return "profile" in inspect.signature(type(model).score).parameters


def unix_seconds(value: Any, argument: str) -> int:
    """A moment as whole Unix seconds: a number, a date such as ``2003-02-01``, or a datetime.

    Milliseconds and finer units are told by their size, as in tables of events. Dates without a
    zone are UTC; fractions are dropped.
    """
    value = plain(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (step := ticks_per_second(value)) is not None:  # NaN has none
        return int(value // step)
    if isinstance(value, str | date | np.datetime64):  # datetime and pandas.Timestamp are dates
        try:
            stamp = pd.Timestamp(value)
        except ValueError as error:
            raise ValueError(
                f"'{argument}' needs to be Unix seconds or a date such as '2003-02-01' (got "
                f"{value!r})"
            ) from error
        if stamp is not pd.NaT:
            stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp
            return int(stamp.floor("s").timestamp())
    raise ValueError(
        f"'{argument}' needs to be Unix seconds or a date such as '2003-02-01' (got {value!r})"
    )
