"""The ways in and out of the store: pandas, CSV, HeteroData (networkx: ``convert_networkx``)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData

from tgrec.data.columns import first_rows, id_values, rating_values, require_column, time_values
from tgrec.data.files import atomic_path
from tgrec.data.tables import parse_table, table_bytes
from tgrec.data.temporal_graph import EdgeType, TemporalRecGraph
from tgrec.data.text import encode_strings

# Names that mean something else in the store, so that no feature column may have them.
RESERVED = frozenset({"time", "event_id", "num_nodes", "raw_id", "n_id", "input_id", "batch"})


def from_pandas(
    df: pd.DataFrame,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = "timestamp",
    rating: str | None = None,
    relation: str | None = None,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
) -> TemporalRecGraph:
    """Builds a :class:`TemporalRecGraph` from one row per event, in any order.

    Events are ordered by (time, input row): ties keep the order of the rows. Duplicate rows are
    kept, they are events.

    Args:
        df: One row per event.
        user: Column of user ids (integers or strings, kept exactly).
        item: Column of item ids.
        time: Column of Unix seconds or datetimes (naive ones are UTC); None if only the order of
            the rows is known.
        rating: Optional numeric column, kept as ``rating``; a missing one is not known and becomes
            NaN. A kind of events without any has no ``rating``.
        relation: Optional column that names the kind of each event; each kind becomes an edge
            type. Without it there is one kind, ``rates`` with ratings and ``interacts`` without.
        users: Optional table with the column ``user`` and one feature per further column. All its
            rows become nodes, in its order, also those without events. Integer, float and bool
            columns become ``[N]`` tensors, strings are read back with ``graph.strings``.
        items: The same for items, with the column ``item``.

    Raises:
        ValueError: If a column or a value is not usable; the message names the argument, the
            column, the (1-based) rows, the first value and what to do.
    """
    for argument, table in (("df", df), ("users", users), ("items", items)):
        if table is not None and not isinstance(table, pd.DataFrame):
            raise TypeError(f"'{argument}' needs to be a DataFrame (got {type(table).__name__})")
    wanted = {"user": user, "item": item, "time": time, "rating": rating, "relation": relation}
    column = {k: require_column(df, k, v) for k, v in wanted.items() if v is not None}
    if len(df) == 0:
        raise ValueError("'df' has no rows: a graph needs at least one event")
    user_ids = id_values(column["user"], "user")
    item_ids = id_values(column["item"], "item")
    seconds = None if time is None else time_values(column["time"], "time")
    ratings = None if rating is None else rating_values(column["rating"], "rating")

    graph = TemporalRecGraph()
    user_index = _add_nodes(graph, "user", user, user_ids, users)
    item_index = _add_nodes(graph, "item", item, item_ids, items)
    order = np.arange(len(df)) if seconds is None else np.argsort(seconds, kind="stable")
    kinds, kind_names = _relations(df, relation, "rates" if ratings is not None else "interacts")
    for code, name in enumerate(kind_names):
        # event_id is the position in the order over all kinds.
        event_id = np.arange(len(df)) if kinds is None else np.flatnonzero(kinds[order] == code)
        rows = order[event_id]
        store = graph["user", name, "item"]
        store.edge_index = torch.from_numpy(np.stack([user_index[rows], item_index[rows]]))
        store.event_id = torch.from_numpy(event_id)
        if seconds is not None:
            store.time = torch.from_numpy(seconds[rows])
        if ratings is not None and np.isfinite(ratings[rows]).any():
            store.rating = torch.from_numpy(ratings[rows])
    return graph


def from_csv(
    path: str | os.PathLike[str],
    sep: str = ",",
    encoding: str = "utf-8-sig",
    dtype: Any = None,
    **columns: Any,
) -> TemporalRecGraph:
    """Reads one event per line and builds the graph.

    Args:
        path: A file with a header line, possibly compressed with gzip.
        sep: The separator.
        encoding: Its encoding; the default accepts UTF-8 with or without a byte-order mark.
        dtype: As in :func:`pandas.read_csv`, for example ``{"user_id": str}`` to keep ``007``.
        columns: As in :func:`from_pandas`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a table or a value in it is not usable; the message names
            the line (the row below the header, if the file has blank lines).
    """
    frame = parse_table(table_bytes(path), path, sep, encoding, dtype)
    try:
        return from_pandas(frame, **columns)
    except ValueError as error:
        one_column = f"; is {sep!r} the separator?" if len(frame.columns) == 1 else ""
        rows = "" if frame.index.name == "line" else " (row 1 is the first one below the header)"
        raise ValueError(f"{path}: {error}{one_column}{rows}") from error


def from_hetero(
    data: HeteroData, user: str = "user", item: str = "item", time: str | None = "time"
) -> TemporalRecGraph:
    """Reads any ``HeteroData`` whose ``(user, r, item)`` edges are events.

    Args:
        data: For example ``torch_geometric.datasets.MovieLens1M(root)[0]`` with ``item="movie"``.
        user: Its name for users.
        item: Its name for items.
        time: Its name for edge times (Unix s); None if the edges are already in order.

    Returns:
        A new graph with node types ``user`` and ``item``. Stored ``event_id`` is kept; otherwise
        events are ordered by (time, edge type, stored position). Other edge types between users
        and items are kept except reverses (``rev_*``), other node types are left out.
    """
    for name in (user, item):
        if name not in data.node_types:
            raise ValueError(f"there is no node type {name!r} among {data.node_types}")
    new_name = {user: "user", item: "item"}
    graph = TemporalRecGraph()
    for old, new in new_name.items():
        for key, value in data[old].items():
            if key in ("time", "event_id"):
                raise ValueError(f"node type {old!r} carries {key!r}; clocks stand on edges only")
            graph[new][key] = value
        graph[new].num_nodes = data[old].num_nodes
    events: list[EdgeType] = []
    for edge_type in data.edge_types:
        src, name, dst = edge_type
        if src not in new_name or dst not in new_name or name.startswith("rev_"):
            continue
        target = graph[new_name[src], name, new_name[dst]]
        for key, value in data[edge_type].items():
            target["time" if key == time else key] = value
        if (src, dst) == (user, item):
            events.append(("user", name, "item"))
            if time is not None and "time" not in target:
                raise ValueError(
                    f"edge type {edge_type} has no {time!r}; pass time=None if its edges are in "
                    f"order"
                )
    if not events:
        raise ValueError(f"there are no edges from {user!r} to {item!r} in {data.edge_types}")
    _order_events(graph, events)
    graph.validate()
    return graph


def to_pandas(graph: TemporalRecGraph) -> pd.DataFrame:
    """One row per event in event order: ``user_id item_id timestamp rating relation event_id``.

    ``timestamp`` and ``rating`` are there if the graph has them, ``relation`` if it has several
    kinds of events. Ids are the raw ones.
    """
    users = id_array(graph.raw_ids("user"))
    items = id_array(graph.raw_ids("item"))
    parts = []
    for edge_type in graph.interaction_types:
        store = graph[edge_type]
        edges = store.edge_index.cpu().numpy()
        part = {"user_id": users[edges[0]], "item_id": items[edges[1]]}
        if "time" in store:
            part["timestamp"] = store.time.cpu().numpy()
        if "rating" in store:
            part["rating"] = store.rating.cpu().numpy()
        if len(graph.interaction_types) > 1:
            part["relation"] = np.full(edges.shape[1], edge_type[1], dtype=object)
        part["event_id"] = store.event_id.cpu().numpy()
        parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("event_id", ignore_index=True, kind="stable")


def to_csv(graph: TemporalRecGraph, path: str | os.PathLike[str]) -> None:
    """Writes :func:`to_pandas` as CSV; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        to_pandas(graph).drop(columns="event_id").to_csv(temporary, index=False)


def _add_nodes(
    graph: TemporalRecGraph,
    node_type: str,
    column: str,
    ids: np.ndarray,
    table: pd.DataFrame | None,
) -> np.ndarray:
    """Fills the node store and returns the node index of every event."""
    store = graph[node_type]
    if table is None:
        index, raw = pd.factorize(ids, sort=True)
    else:
        raw = id_values(require_column(table, f"{node_type}s", column), f"{node_type}s")
        known = pd.Index(raw)
        if known.has_duplicates:
            double = np.asarray(known.duplicated())
            raise ValueError(
                f"'{node_type}s': column {column!r} repeats {raw[double].tolist()[0]!r} in "
                f"{first_rows(double)}; one row per {node_type}"
            )
        index = known.get_indexer(pd.Index(ids))
        if (index < 0).any():
            raise ValueError(
                f"'{node_type}s' has no row for {node_type} {ids[index < 0].tolist()[0]!r}, used "
                f"by {first_rows(index < 0)} of 'df'; add it, or drop these events"
            )
    store.num_nodes = len(raw)
    if raw.dtype == np.int64:
        store.raw_id = torch.from_numpy(np.asarray(raw, dtype=np.int64).copy())
    else:
        store.raw_id_bytes, store.raw_id_offsets = encode_strings(list(raw))
    if table is not None:
        for name in table.columns:
            if name != column:
                _add_feature(store, node_type, str(name), table[name])
    return np.asarray(index, dtype=np.int64)


def no_feature(name: str, column: pd.Series) -> str | None:
    """Why a column cannot be a feature of nodes, and the remedy; None if it can."""
    if name in RESERVED or name.endswith(("_bytes", "_offsets")) or not name.isidentifier():
        return f"{name!r} cannot name a feature; rename the column"
    missing = column.isna().to_numpy()
    if missing.any():
        return f"column {name!r} has missing values in {first_rows(missing)}; fill them"
    kind = pd.api.types
    number = kind.is_bool_dtype(column.dtype) or kind.is_integer_dtype(column.dtype)
    if number or kind.is_float_dtype(column.dtype) or all(isinstance(v, str) for v in column):
        return None
    return (f"column {name!r} has type {column.dtype}; features are numbers, booleans or "
            f"strings")  # fmt: skip


def _add_feature(store: Any, node_type: str, name: str, column: pd.Series) -> None:
    problem = no_feature(name, column)
    if problem is not None:
        raise ValueError(f"'{node_type}s': {problem}")
    if pd.api.types.is_bool_dtype(column.dtype):
        store[name] = torch.from_numpy(column.to_numpy(dtype=bool).copy())
    elif pd.api.types.is_integer_dtype(column.dtype):
        store[name] = torch.from_numpy(column.to_numpy(dtype=np.int64).copy())
    elif pd.api.types.is_float_dtype(column.dtype):
        store[name] = torch.from_numpy(column.to_numpy(dtype=np.float32).copy())
    else:
        store[f"{name}_bytes"], store[f"{name}_offsets"] = encode_strings(list(column))


def _relations(
    df: pd.DataFrame, relation: str | None, default: str
) -> tuple[np.ndarray | None, list[str]]:
    if relation is None:
        return None, [default]
    column = require_column(df, "relation", relation)
    if column.isna().any():
        raise ValueError(
            f"'relation': column {relation!r} is missing in {first_rows(column.isna().to_numpy())}"
        )
    codes, names = pd.factorize(column.astype(str), sort=True)
    bad = [n for n in names if not n or "__" in n]
    if bad:
        raise ValueError(f"'relation': {bad[0]!r} cannot name an edge type (empty, or holds '__')")
    return np.asarray(codes), [str(n) for n in names]


def _order_events(graph: TemporalRecGraph, events: list[EdgeType]) -> None:
    """Sorts each kind of event and numbers the events where they are not numbered yet."""
    if not all("event_id" in graph[t] for t in events):
        sizes = [graph[t].edge_index.size(1) for t in events]
        timed = all("time" in graph[t] for t in events)
        if len(events) > 1 and not timed:
            raise ValueError("several kinds of events without times have no common order")
        clock = (
            torch.cat([graph[t].time.cpu() for t in events]) if timed else torch.arange(sizes[0])
        )
        order = torch.argsort(clock, stable=True)
        event_id = torch.empty_like(order)
        event_id[order] = torch.arange(order.numel())
        for edge_type, part in zip(events, event_id.split(sizes), strict=True):
            graph[edge_type].event_id = part.to(graph[edge_type].edge_index.device)
    for edge_type in events:
        store = graph[edge_type]
        size = store.edge_index.size(1)
        rows = torch.argsort(store.event_id)
        for key, value in list(store.items()):
            if key == "edge_index":
                store.edge_index = value[:, rows]
            elif isinstance(value, torch.Tensor) and value.dim() and value.size(0) == size:
                store[key] = value[rows]


def id_array(ids: torch.Tensor | list[str]) -> np.ndarray:
    """Raw ids as int64, or as an object array of ``str``."""
    return ids.cpu().numpy() if isinstance(ids, torch.Tensor) else np.asarray(ids, dtype=object)
