"""Scores as if some events of the asker had never happened."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import History, RecBatch
from tgrec.loader import query_times
from tgrec.recommend.served import Question, Served, score
from tgrec.sampler import EventIndex, HistorySampler

ROWS_AT_ONCE = 64
# What stands in a history where there is no event; 0 in all other columns.
_PADDING = {"event_id": -1, "rating": math.nan}


@dataclass(frozen=True)
class Read:
    """The events of the asker that the model reads, oldest first.

    Args:
        event_id: ``[E]`` in the log of the question.
        item: ``[E]``.
        time: ``[E]`` Unix seconds.
    """

    event_id: Tensor
    item: Tensor
    time: Tensor


def events_read(served: Served, question: Question) -> Read:
    """The latest events before the cut, as many as the model looks at."""
    sampling, index = served.model.sampling, question.loader.index
    cut = torch.full_like(question.user[:1], question.cut)
    start, stop = (int(place) for place in index.by_user.past(question.user[:1], cut))
    read = [sampling.max_len or 0, *(fan_out[0] for fan_out in sampling.fan_outs)]
    length = stop - start if -1 in read else max(read)
    places = slice(max(start, stop - length), stop)
    log = index.by_user.log[places]
    return Read(index.event_id[log], index.by_user.other[places], index.time[log])


@torch.no_grad()
def scores_without(served: Served, question: Question, read: Read, gone: Tensor) -> Tensor:
    """Scores ``[K, N]`` of one asker with some of the events left out.

    A history closes up, and older events that did not fit in before come in. Of a sampled
    neighbourhood the branches of the events are cut off, and none takes their place.

    Args:
        served: The recommender.
        question: Of one user.
        read: Its events.
        gone: ``[K, E]`` bool, True where row k is asked without event e.
    """
    if gone.size(0) == 0:
        return torch.zeros(0, served.index.num_items, device=gone.device)
    parts = [_scores(served, question, read, part) for part in gone.split(ROWS_AT_ONCE)]
    return torch.cat(parts)


def _scores(served: Served, question: Question, read: Read, gone: Tensor) -> Tensor:
    loader, sampling = question.loader, served.model.sampling
    targets = question.targets(question.user[:1].expand(gone.size(0)))
    batch = RecBatch(targets.user)
    if sampling.max_len is not None:
        extra = int(gone.sum(1).max())
        sampler = HistorySampler(loader.index, sampling.max_len + extra, rating=sampling.rating)
        longest = max(1, int(loader.lengths(targets)[0]))
        history = sampler.sample(targets.user, targets.cut, longest)
        history = _closed_up(history, read.event_id, gone).latest(sampling.max_len)
        batch = replace(
            batch, history=history, query_time=query_times(loader.track, history, targets.time)
        )
    if sampling.num_neighbors is not None:
        asked = query_times(loader.track, batch.history, targets.time)
        now = None if asked is None else asked[:, -1]
        graph = loader.neighborhoods.read(targets.user, targets.cut, now)
        graph = _cut_branches(graph, loader.index, read.event_id, gone)
        if now is None:
            _set_root_times(graph, gone.size(0))
        batch = replace(batch, graph=graph, query_time=asked)
    return score(served, question, batch)


def _closed_up(history: History, event_id: Tensor, gone: Tensor) -> History:
    """The history without what is gone, still newest last and padded on the left."""
    if event_id.numel() == 0:
        return history
    place = torch.searchsorted(event_id, history.event_id).clamp(max=event_id.numel() - 1)
    left_out = gone.gather(1, place) & (event_id[place] == history.event_id)
    keep = history.mask & ~left_out
    order = torch.argsort(keep.long(), dim=1, stable=True)
    keep = keep.gather(1, order)

    def moved(name: str, values: Tensor) -> Tensor:
        padding = torch.full_like(values, _PADDING.get(name, 0))
        return torch.where(keep, values.gather(1, order), padding)

    columns = {
        f.name: moved(f.name, values)
        for f in fields(history)
        if f.name != "mask" and (values := getattr(history, f.name)) is not None
    }
    return History(mask=keep, **columns)


def _cut_branches(
    graph: HeteroData, index: EventIndex, event_id: Tensor, gone: Tensor
) -> HeteroData:
    """Trees without the edges of what is gone, so that nothing behind them reaches the root."""
    types = [e for e in graph.edge_types if e[2] == "user"]
    row, event = gone.nonzero(as_tuple=True)
    key = row * index.end + event_id[event]
    dropped: list[Tensor] = []  # [2, n]: tree and lag
    for edge_type in types:
        store = graph[edge_type]
        first = store.num_sampled_edges[0]  # the edges of the first hop lead to the roots
        code = index.relations.index(edge_type[1].removeprefix("rev_"))
        log = (index.relation == code).nonzero().view(-1)[store.e_id[:first]]
        tree = store.edge_index[1, :first]
        drop = torch.isin(tree * index.end + index.event_id[log], key)
        dropped.append(torch.stack([tree[drop], store.lag[:first][drop]]))
        keep = torch.ones_like(store.e_id, dtype=torch.bool)
        keep[:first] = ~drop
        store.edge_index = store.edge_index[:, keep]
        for name in ("e_id", "time", "lag"):
            store[name] = store[name][keep]
        hops = list(store.num_sampled_edges)
        store.num_sampled_edges = [hops[0] - int(drop.sum()), *hops[1:]]
    tree, lag = torch.cat(dropped, dim=1)
    for edge_type in types:  # what was older than a dropped event is one event newer now
        store = graph[edge_type]
        roots = slice(0, store.num_sampled_edges[0])
        newer = store.edge_index[1, roots, None] == tree
        newer &= store.lag[roots, None] > lag
        store.lag[roots] = store.lag[roots] - newer.sum(1)
    degree = graph["user"].degree
    degree[: gone.size(0)] -= torch.bincount(tree, minlength=gone.size(0))
    return graph


def _set_root_times(graph: HeteroData, size: int) -> None:
    """Where the question has no time, a root has that of its newest event."""
    time = torch.zeros_like(graph["user"].time[:size])
    for edge_type in graph.edge_types:
        if edge_type[2] == "user":
            store = graph[edge_type]
            roots = slice(0, store.num_sampled_edges[0])
            tree = store.edge_index[1, roots]
            time = time.scatter_reduce(0, tree, store.time[roots], reduce="amax")
    graph["user"].time[:size] = time
