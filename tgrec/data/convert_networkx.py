"""The way to networkx and back."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pandas as pd
from torch import Tensor

from tgrec.data.convert import from_pandas, id_array
from tgrec.data.temporal_graph import TemporalRecGraph


def to_networkx(graph: TemporalRecGraph) -> nx.MultiDiGraph:
    """Nodes are ``('user', raw id)`` and ``('item', raw id)``, keys of edges are event ids.

    Scalar features and strings become node attributes; edges carry ``relation``, ``event_id``
    and, where the graph has them, ``time`` and ``rating``.
    """
    out = nx.MultiDiGraph()
    for node_type in ("user", "item"):
        ids = id_array(graph.raw_ids(node_type)).tolist()
        columns = _node_columns(graph, node_type)
        for row, raw in enumerate(ids):
            attributes = {name: values[row] for name, values in columns.items()}
            out.add_node((node_type, raw), **attributes)
    users, items = id_array(graph.raw_ids("user")), id_array(graph.raw_ids("item"))
    for edge_type in graph.interaction_types:
        store = graph[edge_type]
        source, target = (side.tolist() for side in store.edge_index)
        extra = {k: store[k].tolist() for k in ("time", "rating") if k in store}
        for row, event in enumerate(store.event_id.tolist()):
            attributes = {name: values[row] for name, values in extra.items()}
            out.add_edge(
                ("user", users[source[row]]),
                ("item", items[target[row]]),
                key=event,
                relation=edge_type[1],
                event_id=event,
                **attributes,
            )
    return out


def from_networkx(graph: nx.MultiDiGraph) -> TemporalRecGraph:
    """The inverse of :func:`to_networkx` (edges need ``event_id`` or ``time``)."""
    rows = [
        {"user_id": u[1], "item_id": v[1], **data}
        for u, v, data in graph.edges(data=True)
        if u[0] == "user" and v[0] == "item"
    ]
    if not rows:
        raise ValueError("'graph' has no edges from ('user', id) to ('item', id) nodes")
    df = pd.DataFrame(rows)
    clock = "event_id" if "event_id" in df else "time"
    if clock not in df:
        raise ValueError("'graph': edges need 'event_id' or 'time' to be ordered")
    df = df.sort_values(clock, kind="stable", ignore_index=True)
    tables = {}
    for node_type, name in (("user", "user_id"), ("item", "item_id")):
        nodes = [{name: n[1], **d} for n, d in graph.nodes(data=True) if n[0] == node_type]
        tables[node_type] = pd.DataFrame(nodes)
    return from_pandas(
        df,
        time="time" if "time" in df else None,
        rating="rating" if "rating" in df else None,
        relation="relation" if "relation" in df else None,
        users=tables["user"],
        items=tables["item"],
    )


def _node_columns(graph: TemporalRecGraph, node_type: str) -> dict[str, list[Any]]:
    store, columns = graph[node_type], {}
    for key, value in store.items():
        name = key.removesuffix("_bytes")
        if name != key and name != "raw_id":
            columns[name] = graph.strings(node_type, name)
        elif key == "raw_id" or key.endswith("_offsets") or not isinstance(value, Tensor):
            continue
        elif value.dim() == 1 and value.size(0) == store.num_nodes:
            columns[key] = value.tolist()
    return columns
