"""Leave one out in one of several domains of the same users."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tgrec.data.batch import Targets
from tgrec.data.split import Split, _log, _without, items_of
from tgrec.data.subgraph import keep_nodes
from tgrec.data.temporal_graph import TemporalRecGraph


def leave_one_out_in(graph: TemporalRecGraph, relation: str) -> Split:
    """The last event of each user in one domain is the test target, the one before it validation.

    Histories hold the events of all domains before the cut. What is after the validation target of
    a user is no training event, in whichever domain, so that nothing is fitted on the future of a
    user who is asked. Users with fewer than three events in the domain only train. Candidates are
    the items that have an event in the domain.

    Args:
        graph: Users in several domains, each domain a relation.
        relation: The domain that is asked for.

    Raises:
        ValueError: If there is no such relation, or no user has three events in it.
    """
    candidates = items_of(graph, relation)
    store = graph["user", relation, "item"]
    own, item = (row.cpu() for row in store.edge_index)
    event_id = store.event_id.cpu()
    by_user = torch.argsort(own, stable=True)
    count = torch.bincount(own, minlength=graph.num_users)
    enough = (count >= 3).nonzero().view(-1)
    if enough.numel() == 0:
        raise ValueError(
            f"leave_one_out_in needs users with at least 3 events in {relation!r}; the longest of "
            f"{graph.num_users} has {int(count.max()) if count.numel() else 0}"
        )
    end = count.cumsum(0)[enough]
    last, second = by_user[end - 1], by_user[end - 2]

    def targets(rows: Tensor) -> Targets:
        time = store.time.cpu()[rows] if graph.has_time else None
        return Targets(own[rows], event_id[rows], item[rows], time)

    never = torch.full((graph.num_users,), torch.iinfo(torch.int64).max)
    cut, end = (never.index_put((own[rows],), event_id[rows]) for rows in (second, last))
    everyone, _, every_id, _ = _log(graph)
    held_out = every_id >= cut[everyone]
    train = _without(graph, every_id[held_out])
    return Split(
        graph, train, targets(second), targets(last), candidates=candidates,
        val_events=every_id[held_out & (every_id < end[everyone])],
    )  # fmt: skip


def only_domain(split: Split, relation: str) -> Split:
    """The same targets and candidates, with nothing but one domain to see.

    What a recommender of that domain alone would have: its events, and the items with any, numbered
    anew in their order. Users and event ids stay as they are.

    Raises:
        ValueError: If there is no such relation, or a target is not in it.
    """
    kept = items_of(split.graph, relation)
    if not bool(kept[torch.cat([split.val.item, split.test.item])].all()):
        raise ValueError(f"'relation' needs to hold all targets of the split (got {relation!r})")
    everyone = torch.ones(split.graph.num_users, dtype=torch.bool)
    keep = {"user": everyone, "item": kept}
    graph, train = (
        keep_nodes(g._with_events({("user", relation, "item"): slice(None)}), keep)
        for g in (split.graph, split.train)
    )
    place = kept.long().cumsum(0) - 1
    val, test = (replace(t, item=place[t.item]) for t in (split.val, split.test))
    candidates = None if split.candidates is None else split.candidates[kept]
    return replace(split, graph=graph, train=train, val=val, test=test, candidates=candidates)
