"""What a batch holds of each node and edge, where PyG's own way is slow."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data.temporal_graph import EdgeType


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]``, ``[n, ...]``.

    A batch has tens of megabytes of features, and the system hands out blocks of that size anew
    every time. NumPy asks Linux for large pages, and so spares most of the page faults, which take
    several times as long as the copy itself.

    Args:
        values: ``[N, ...]``.
        rows: ``[n]`` int64.
    """
    rows = rows.to(values.device)
    plain = (
        values.device.type == "cpu" and values.layout == torch.strided and not values.requires_grad
    )
    if not plain or not values.is_contiguous() or not values.numel() or not rows.numel():
        return values.index_select(0, rows)
    table = values.reshape(values.size(0), -1).view(torch.uint8).numpy()
    out = torch.from_numpy(np.take(table, rows.numpy(), axis=0))
    return out.view(values.dtype).view(-1, *values.shape[1:])


def split_features(data: HeteroData) -> tuple[HeteroData, list[tuple[str, str]]]:
    """The data without node attributes of several columns, and ``(node type, key)`` of those."""
    narrow, wide = copy.copy(data), list[tuple[str, str]]()
    for node_type in data.node_types:
        store = data[node_type]
        for key, value in store.items():
            if isinstance(value, Tensor) and value.dim() > 1 and store.is_node_attr(key):
                if data.__cat_dim__(key, value, store) == 0:
                    wide.append((node_type, key))
                    narrow[node_type].num_nodes = store.num_nodes  # may be known by it alone
                    del narrow[node_type][key]
    return narrow, wide


def split_event_ids(data: HeteroData) -> tuple[HeteroData, dict[EdgeType, int]]:
    """The data without event ids that have no gaps, and the first one of each such edge type."""
    narrow, first = copy.copy(data), dict[EdgeType, int]()
    for edge_type in data.edge_types:
        ids = data[edge_type].get("event_id")
        if ids is not None and ids.numel() and int(ids[-1]) - int(ids[0]) + 1 == ids.numel():
            first[edge_type] = int(ids[0])
            del narrow[edge_type]["event_id"]
    return narrow, first
