"""The golden numbers of a dataset, by which a copy of it is recognised."""

from __future__ import annotations

from typing import Any

import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets.boards import checksum


def describe(graph: TemporalRecGraph) -> dict[str, Any]:
    """Counts, span, ties and checksum of a graph, ready for JSON.

    ``tied_pairs`` is the share of adjacent events of a user that have the same second,
    ``tied_last_two`` the share of users whose last two events do. Both are None without times.
    """
    types = graph.interaction_types
    event_id = torch.cat([graph[t].event_id for t in types]).cpu()
    order = torch.argsort(event_id)
    edges = torch.cat([graph[t].edge_index for t in types], dim=1).cpu()[:, order]
    stats: dict[str, Any] = {
        "users": graph.num_users,
        "items": graph.num_items,
        "items_with_events": int((torch.bincount(edges[1]) > 0).sum()),
        "events": graph.num_events,
        "first_time": None,
        "last_time": None,
        "tied_pairs": None,
        "tied_last_two": None,
        "checksum": checksum(graph),
    }
    if not graph.has_time:
        return stats
    time = torch.cat([graph[t].time for t in types]).cpu()[order]
    by_user = torch.argsort(edges[0], stable=True)
    user, own = edges[0][by_user], time[by_user]
    same_user = user[1:] == user[:-1]
    tied = same_user & (own[1:] == own[:-1])
    last = same_user.clone()
    last[:-1] = same_user[:-1] & ~same_user[1:]  # pairs after which another user begins
    stats["first_time"], stats["last_time"] = int(time.min()), int(time.max())
    stats["tied_pairs"] = _share(tied, same_user)
    stats["tied_last_two"] = _share(tied & last, last)
    return stats


def _share(part: torch.Tensor, whole: torch.Tensor) -> float:
    return round(int(part.sum()) / max(1, int(whole.sum())), 4)
