"""Splits: functions that return cuts, never masks that forget the order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tgrec.data.batch import Targets
from tgrec.data.temporal_graph import TemporalRecGraph


@dataclass(frozen=True)
class Split:
    """What a model is fitted on and what it is asked.

    Args:
        graph: All events; histories are read from it, always before a cut.
        train: The events that anything may be fitted on (weights, counts, popularity, graphs).
        val: Targets for every choice made.
        test: Targets to be asked once.
        cold_is_miss: Whether targets that are new (an item without training events, a user
            without any past) count as misses, whatever a model scores.
        candidates: ``[N]`` bool, the items that are ranked; None for all of them.
        val_events: ``[n]`` ids of the events that are held out for validation, and would be known
            if nothing but the test were; None for those that ``val`` asks for.
    """

    graph: TemporalRecGraph
    train: TemporalRecGraph
    val: Targets
    test: Targets
    cold_is_miss: bool = False
    candidates: Tensor | None = None
    val_events: Tensor | None = None

    def with_validation(self) -> Split:
        """The split of a refit: events held out for validation train too, and ``val`` is empty.

        Raises:
            ValueError: If such an event is a test target, or comes after that of its user.
        """
        added = self.val.cut if self.val_events is None else self.val_events
        stores = [self.train[edge_type] for edge_type in self.train.interaction_types]
        known = torch.cat([*(store.event_id.cpu() for store in stores), added.cpu()])
        user, _, event_id, _ = _log(self.graph)
        keep = torch.isin(event_id, known)
        end = torch.full((self.graph.num_users,), torch.iinfo(torch.int64).max)
        end[self.test.user.cpu()] = self.test.cut.cpu()
        if late := int((keep & (event_id >= end[user])).sum()):
            raise ValueError(
                f"'train' and 'val' hold {late} events that are not before the test target of "
                f"their user; a refit would have seen what it is asked"
            )
        train, nobody = _without(self.graph, event_id[~keep]), torch.zeros(0, dtype=torch.int64)
        return replace(self, train=train, val=self.val.select(nobody), val_events=None)


def leave_one_out(graph: TemporalRecGraph) -> Split:
    """The last event of each user is the test target, the one before it the validation target.

    The history of a test target includes the validation event; ``train`` holds neither. Users
    with fewer than three events only train. "Last" is by ``event_id``: (time, input row).

    Raises:
        ValueError: If no user has three events.
    """
    user, item, event_id, time = _log(graph)
    by_user = torch.argsort(user, stable=True)  # the log is in event order, so each user's part is
    count = torch.bincount(user, minlength=graph.num_users)
    end = count.cumsum(0)
    enough = (count >= 3).nonzero().view(-1)
    if enough.numel() == 0:
        raise ValueError(
            f"leave_one_out needs users with at least 3 events (train, validation, test); the "
            f"longest of {graph.num_users} has {int(count.max()) if count.numel() else 0}"
        )
    last, second = by_user[end[enough] - 1], by_user[end[enough] - 2]
    held_out = torch.cat([event_id[last], event_id[second]])
    train = _without(graph, held_out)

    def targets(rows: Tensor) -> Targets:
        return Targets(user[rows], event_id[rows], item[rows], None if time is None else time[rows])

    return Split(graph, train, targets(second), targets(last))


def global_time_split(
    graph: TemporalRecGraph, val: float = 0.1, test: float = 0.1, relation: str | None = None
) -> Split:
    """Cuts the log at two moments; only what is strictly earlier is ever seen.

    ``t_test`` is the time at the ``1 - test`` quantile of events and ``t_val`` the one at
    ``1 - test - val``. Intervals are half-open:

    * train: ``(-inf, t_val)``,
    * validation targets: each user's last event in ``[t_val, t_test)``,
    * test targets: each user's last event in ``[t_test, inf)``.

    The history of a target is the user's own events strictly before it, those after the cut
    included. Targets may be items or users that ``train`` has never seen; a measurement counts
    them as misses and reports them.

    Args:
        graph: With times.
        val: Share of events in the validation interval, in (0, 1).
        test: Share of events in the test interval, in (0, 1).
        relation: The only kind of event that is asked for, and whose items are candidates; None
            for all.

    Raises:
        ValueError: If the shares are not in (0, 1), leave no training events, or ties at the
            boundaries leave an interval empty; if there is no such relation.
    """
    for name, share in (("val", val), ("test", test)):
        if not 0 < share < 1:
            raise ValueError(f"'{name}' needs to be a share in (0, 1) (got {share})")
    if val + test >= 1:
        raise ValueError(f"'val' and 'test' leave nothing to train on (got {val} + {test})")
    if not graph.has_time:
        raise ValueError("global_time_split needs event times, and this graph has only an order")
    user, item, event_id, time = _log(graph)
    assert time is not None
    size = time.numel()
    if size < 3:
        raise ValueError(f"global_time_split needs at least 3 events (got {size})")
    test_time = int(time[min(size - 1, int(size * (1 - test)))])
    val_time = int(time[min(size - 1, int(size * (1 - test - val)))])
    val_cut, test_cut = graph.event_id_at(val_time), graph.event_id_at(test_time)
    train = graph.before(val_cut)
    if train.num_events == 0 or val_cut == test_cut:
        raise ValueError(
            f"too many events share one time for val={val}, test={test}: the cuts fall on "
            f"{val_time} and {test_time}; choose other shares or leave_one_out"
        )

    asked, candidates = torch.ones_like(event_id, dtype=torch.bool), None
    if relation is not None:
        candidates = items_of(graph, relation)
        asked = torch.isin(event_id, graph["user", relation, "item"].event_id.cpu())

    def last_events(lo: int, hi: int) -> Targets:
        rows = (asked & (event_id >= lo) & (event_id < hi)).nonzero().view(-1)
        last = torch.full((graph.num_users,), -1)
        last.scatter_reduce_(0, user[rows], rows, reduce="amax")
        rows = last[last >= 0]
        return Targets(user[rows], event_id[rows], item[rows], time[rows])

    end = int(event_id[-1]) + 1
    val_targets, test_targets = last_events(val_cut, test_cut), last_events(test_cut, end)
    if not (len(val_targets) and len(test_targets)):
        raise ValueError(
            f"there is nothing to ask for: 'relation' {relation!r} has {len(val_targets)} events "
            f"in the validation interval and {len(test_targets)} in the test interval; choose "
            f"other shares or leave_one_out_in"
        )
    return Split(
        graph, train, val_targets, test_targets, cold_is_miss=True, candidates=candidates,
        val_events=event_id[(event_id >= val_cut) & (event_id < test_cut)],
    )  # fmt: skip


def items_of(graph: TemporalRecGraph, relation: str) -> Tensor:
    """``[N]`` bool, the items with an event of a kind; raises ValueError if there is none such."""
    names = [t[1] for t in graph.interaction_types]
    if relation not in names:
        raise ValueError(f"'relation' needs to be one of {names} (got {relation!r})")
    out = torch.zeros(graph.num_items, dtype=torch.bool)
    out[graph["user", relation, "item"].edge_index[1].cpu()] = True
    return out


def _log(graph: TemporalRecGraph) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(user, item, event_id, time) of all kinds of events, in event order."""
    types = graph.interaction_types
    if not types:
        raise ValueError("the graph has no events: no ('user', r, 'item') type carries 'event_id'")
    event_id = torch.cat([graph[t].event_id for t in types]).cpu()
    edges = torch.cat([graph[t].edge_index for t in types], dim=1).cpu()
    order = torch.argsort(event_id) if len(types) > 1 else slice(None)
    time = torch.cat([graph[t].time for t in types]).cpu()[order] if graph.has_time else None
    return edges[0][order], edges[1][order], event_id[order], time


def _without(graph: TemporalRecGraph, held_out: Tensor) -> TemporalRecGraph:
    out = graph
    for edge_type in graph.interaction_types:
        keep = ~torch.isin(graph[edge_type].event_id.cpu(), held_out)
        out = out.select_events(keep, relation=edge_type[1])
    return out
