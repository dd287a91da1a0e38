"""The baseline that every table starts with."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.models.base import RecModel


class Popularity(RecModel):
    """Scores an item by how many training events it has, the same for every user."""

    sampling = Sampling()
    learns = "popularity"

    def __init__(self, num_items: int) -> None:
        super().__init__(num_items)
        self.register_buffer("count", torch.zeros(num_items))

    count: Tensor

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Counts the events of ``graph``."""
        model = cls(graph.num_items, **kwargs)
        model.count.copy_(item_counts(graph))
        return model

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` the counts."""
        return self.count.expand(batch.user.numel(), -1)


def item_counts(graph: TemporalRecGraph) -> Tensor:
    """``[N]`` float32 number of events of each item, over all kinds."""
    items = torch.cat([graph[t].edge_index[1] for t in graph.interaction_types])
    return torch.bincount(items, minlength=graph.num_items).float()
