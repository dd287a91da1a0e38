"""Neighbourhoods of somebody who is not in the log of all others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import Sampling
from tgrec.loader.neighborhood import NeighborhoodReader
from tgrec.sampler import EventIndex


class GuestReader(NeighborhoodReader):
    """Reads the events of a guest, and below each of them what the log knows of its item by then.

    The same as if the guest's events stood in the log, each behind those of the same second, but
    nothing is copied, and nobody else meets the guest.

    Args:
        own: The guest's events, as those of one of its users; each item once, if others are met.
        sampling: Of the model.
        log: The events of all others.
        below: :func:`reader_below` of the log.
        log_cut: Only events of the log before it are read.
    """

    def __init__(
        self,
        own: EventIndex,
        sampling: Sampling,
        log: EventIndex,
        below: NeighborhoodReader | None,
        log_cut: int,
    ) -> None:
        super().__init__(own, sampling.hops(slice(0, 1)))
        self.log, self.below, self.log_cut = log, below, log_cut

    def read(
        self, user: Tensor, cut: Tensor, now: Tensor | None = None, key: int | None = None
    ) -> HeteroData:
        """See :meth:`NeighborhoodReader.read`; there is nothing to train on."""
        top = super().read(user, cut, now)
        items = top["item"]
        cuts = self._log_cuts(items.time)
        start, stop = self.log.by_item.past(items.n_id, cuts)
        items.degree = stop - start
        if self.below is None:
            return top
        trees = self.below.read_from("item", items.n_id, cuts, items.time, items.batch)
        return graft(top, trees)

    def _log_cuts(self, time: Tensor) -> Tensor:
        """``[n]`` the cuts of the log behind all events of these seconds."""
        if not self.log.has_time:
            return torch.full_like(time, self.log_cut)
        place = torch.searchsorted(self.log.time, time, right=True)
        last = self.log.num_events - 1
        cut = torch.where(place > last, self.log.end, self.log.event_id[place.clamp(max=last)])
        return cut.clamp(max=self.log_cut)


def reader_below(log: EventIndex, sampling: Sampling) -> NeighborhoodReader | None:
    """Reads all hops but the first one in the log; None if there is no other."""
    below = sampling.hops(slice(1, None))
    return None if below.num_neighbors is None else NeighborhoodReader(log, below)


def graft(top: HeteroData, trees: HeteroData) -> HeteroData:
    """The trees below the items of ``top``, which are their roots, as one batch with it."""
    data, size = HeteroData(), top["user"].num_nodes
    data["user"].batch_size = top["user"].batch_size
    for node_type, above in (("user", top["user"]), ("item", None)):
        store, below = data[node_type], trees[node_type]
        for name in ("n_id", "batch", "time", "degree"):
            store[name] = below[name] if above is None else torch.cat([above[name], below[name]])
        store.num_nodes = store.n_id.numel()
        first = 0 if above is None else size
        store.num_sampled_nodes = [first, *below.num_sampled_nodes]
    depth = len(trees["item"].num_sampled_nodes) - 1
    levels = ((top, 1, 0), (trees, depth, size))  # batch, its hops, users that stand before its own
    for edge_type in dict.fromkeys([*top.edge_types, *trees.edge_types]):
        parts, counts = [], []
        for batch, hops, users in levels:
            if edge_type not in batch.edge_types:
                counts += [0] * hops
                continue
            edges = dict(batch[edge_type].items())
            counts += edges.pop("num_sampled_edges")
            shift = torch.tensor([[users if end == "user" else 0] for end in edge_type[::2]])
            edges["edge_index"] = edges["edge_index"] + shift.to(edges["edge_index"].device)
            parts.append(edges)
        for name in parts[0]:
            data[edge_type][name] = torch.cat([edges[name] for edges in parts], dim=-1)
        data[edge_type].num_sampled_edges = counts
    return data
