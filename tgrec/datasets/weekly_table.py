"""Tables of weekly interests: anybody's CSV, one graph for all weeks, or one graph per week.

A table has one row per (user, event, week) with a count, in the columns :data:`USER`,
:data:`EVENT`, :data:`COUNT` and :data:`WEEK`; other names are given as arguments. An *event* is
here what a user is interested in, a node, which has the node type ``item`` in a graph of this
library. What the graph calls an event is one row of the table.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import TemporalRecGraph
from tgrec.data.columns import first_rows, id_values, require_column
from tgrec.data.random import uniform64
from tgrec.datasets._fetch import DataFileError
from tgrec.datasets._tables import read_csv
from tgrec.datasets.weeks import FIRST_MONDAY, LAST_WEEK
from tgrec.datasets.weeks import WEEK as SECONDS

USER, EVENT, COUNT, WEEK = "ip_address", "pixel_event_id", "n_interactions", "week_number"
"""The columns of a table, and the default names of the arguments."""

_LARGEST_COUNT = 2**24  # counts become float32, which holds every integer up to here


def weekly_table(
    df: pd.DataFrame,
    user: str = USER,
    event: str = EVENT,
    count: str | None = COUNT,
    week: str = WEEK,
) -> pd.DataFrame:
    """Checks a table, names its columns and adds up rows of the same user, event and week.

    Args:
        df: One row per interaction or per count, in any order.
        user: Column of users (integers or strings).
        event: Column of events.
        count: Column of counts, whole numbers of at least 1. None, or a table without the default
            column: every row counts one.
        week: Column of weeks: running whole numbers from 0 or 1.

    Returns:
        The columns ``ip_address``, ``pixel_event_id``, ``n_interactions`` and ``week_number``,
        ordered by week, user and event.

    Raises:
        TypeError: If ``df`` is no DataFrame.
        ValueError: If a column or a value is not usable; the message names the argument, the
            column, the (1-based) rows and what to do.
    """
    if not isinstance(df, pd.DataFrame):
        raise TypeError(f"'df' needs to be a DataFrame (got {type(df).__name__})")
    counted = count is not None and (count != COUNT or COUNT in df.columns)
    users, events = require_column(df, "user", user), require_column(df, "event", event)
    weeks = require_column(df, "week", week)
    counts = require_column(df, "count", str(count)) if counted else None
    if len(df) == 0:
        raise ValueError("there are no rows; a table needs at least one interaction")
    remedy = "weeks are running numbers: 202301 is none, number the weeks through"
    table = pd.DataFrame(
        {
            USER: id_values(users, "user"),
            EVENT: id_values(events, "event"),
            COUNT: 1 if counts is None else _whole(counts, "count", 1, _LARGEST_COUNT),
            WEEK: _whole(weeks, "week", 0, LAST_WEEK, remedy),
        }
    )
    added = table.groupby([WEEK, USER, EVENT], as_index=False, sort=True)[COUNT].sum()
    return added[[USER, EVENT, COUNT, WEEK]]


def load_interactions_from_csv(
    csv_path: str | os.PathLike[str],
    user_dim: int = 32,
    event_dim: int = 64,
    *,
    user: str = USER,
    event: str = EVENT,
    count: str | None = COUNT,
    week: str = WEEK,
) -> tuple[pd.DataFrame, dict[Any, int], dict[Any, int], Tensor, Tensor]:
    """Reads a CSV of weekly interactions, simulated or anybody's own.

    Rows of the same user, event and week are one interest: their counts are added. A week number
    between the first and the last that no row has is an empty week, and stays one.

    Args:
        csv_path: A file with a header line and commas.
        user_dim: Width of the user features.
        event_dim: Width of the event features.
        user: Name of the column of users (integers or strings).
        event: Name of the column of events.
        count: Name of the column of counts, integers of at least 1. None, or a file without the
            default column: every row counts one.
        week: Name of the column of weeks: running whole numbers from 0 or 1.

    Returns:
        ``(df, user_map, event_map, user_features, event_features)``. ``df`` has the columns
        ``ip_address``, ``pixel_event_id``, ``n_interactions`` and ``week_number``, whatever they
        are called in the file, and ``user_index`` and ``event_index``, ordered by week, user and
        event. The maps lead from a raw id to its 0-based index, in ascending order of ids: the
        node indices of ``weekly_graph(df)``. The features, ``[U, user_dim]`` and ``[E, event_dim]``
        float32, are those of :func:`id_features`.

    Raises:
        FileNotFoundError: If there is no such file.
        DataFileError: If the file is no such table; the message names the column, the rows and
            what to do.
        ValueError: If a width is not positive.
    """
    _check_width("user_dim", user_dim)
    _check_width("event_dim", event_dim)
    path = Path(csv_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"'csv_path': there is no file {str(path)!r}; generate_dataset() writes one"
        )
    rows = read_csv(path.read_bytes(), str(path))
    try:
        df = weekly_table(rows, user, event, count, week)
    except ValueError as error:
        raise DataFileError(
            f"{path}: {error} (row 1 is the first line below the header)"
        ) from error
    df["user_index"], users = pd.factorize(df[USER].to_numpy(), sort=True)
    df["event_index"], events = pd.factorize(df[EVENT].to_numpy(), sort=True)
    user_map = {name: row for row, name in enumerate(users.tolist())}
    event_map = {name: row for row, name in enumerate(events.tolist())}
    user_features = id_features(list(user_map), user_dim, "user")
    event_features = id_features(list(event_map), event_dim, "event")
    return df, user_map, event_map, user_features, event_features


def id_features(ids: Sequence[Any] | Tensor, dim: int, name: str = "") -> Tensor:
    """An untrained code of ids, ``[len(ids), dim]`` float32: what a node has that has no features.

    Entry (i, j) is a standard normal number that is a function of ``(name, str(ids[i]), j)`` alone,
    by a fixed hash. It tells nodes apart, as a table of random features would, but an id has the
    same code in every file and run. It holds nothing about what the node did, before or after any
    cut, so nothing can leak through it, and nothing can be read from it about an unseen node.

    Args:
        ids: Integers or strings, such as ``graph.raw_ids("user")``.
        dim: Width.
        name: Of the kind of node, so that equal ids of two kinds have different codes.

    Raises:
        ValueError: If ``dim`` is not positive.
    """
    _check_width("dim", dim)
    values = ids.tolist() if isinstance(ids, Tensor) else ids
    words = [hashlib.blake2b(f"{name}:{value}".encode(), digest_size=8) for value in values]
    keys = [int.from_bytes(word.digest(), "little", signed=True) for word in words]
    draws = uniform64(torch.tensor(keys, dtype=torch.int64).view(-1, 1), torch.arange(dim))
    code: Tensor = torch.special.ndtri(draws).to(torch.float32)
    return code


def create_weekly_heterodata_from_df(
    week_df: pd.DataFrame, user_features: Tensor, event_features: Tensor
) -> HeteroData:
    """The rows of one week as a graph with all users and all events.

    Args:
        week_df: Rows of the table of :func:`load_interactions_from_csv`, of one week or several;
            possibly none. Counts of a user and event that stand in several rows are added.
        user_features: ``[U, D]``.
        event_features: ``[E, D']``.

    Returns:
        Node types ``user`` and ``event`` with ``x``; the edge types
        ``('user', 'interacts_with', 'event')`` and ``('event', 'rev_interacts_with', 'user')`` with
        the counts as ``edge_attr`` ``[n, 1]`` float32, both in one order of edges.

    Raises:
        ValueError: If a column is missing or an index has no row of features.
    """
    wanted = ["user_index", "event_index", COUNT]
    missing = [name for name in wanted if name not in week_df.columns]
    if missing:
        raise ValueError(
            f"'week_df' has no columns {missing} among {list(week_df.columns)}; it needs to hold "
            f"rows of the table that load_interactions_from_csv returns"
        )
    table = week_df.groupby(wanted[:2], as_index=False, sort=True)[COUNT].sum()
    edges = torch.from_numpy(table[wanted[:2]].to_numpy(np.int64).T.copy())
    data = HeteroData()
    for row, (name, features) in enumerate((("user", user_features), ("event", event_features))):
        if not isinstance(features, Tensor) or features.dim() != 2:
            raise ValueError(f"'{name}_features' needs to be a tensor of shape [{name}s, D]")
        if edges.numel() and not 0 <= int(edges[row].min()) <= int(edges[row].max()) < len(
            features
        ):
            raise ValueError(
                f"'{name}_features' has {len(features)} rows, but '{name}_index' in 'week_df' goes "
                f"from {int(edges[row].min())} to {int(edges[row].max())}; both need to be of one "
                f"file"
            )
        data[name].x = features
    counts = torch.from_numpy(table[COUNT].to_numpy(np.float32)).view(-1, 1)
    data["user", "interacts_with", "event"].edge_index = edges
    data["user", "interacts_with", "event"].edge_attr = counts
    data["event", "rev_interacts_with", "user"].edge_index = edges.flip(0)
    data["event", "rev_interacts_with", "user"].edge_attr = counts
    return data


def weekly_graph(
    df: pd.DataFrame,
    user: str = USER,
    event: str = EVENT,
    count: str | None = COUNT,
    week: str = WEEK,
) -> TemporalRecGraph:
    """One graph for all weeks of a table.

    Args:
        df: One row per interaction or per count, in any order; rows of the same user, event and
            week are added.
        user: Column of users, as in :func:`load_interactions_from_csv`.
        event: Column of events; they become the nodes ``item``.
        count: Column of counts; None or no default column: every row counts one.
        week: Column of week numbers.

    Returns:
        Raw ids are kept, nodes are in ascending order of them. The relation ``interacts`` has one
        event per (week, user, event) in this order; ``time`` is the Monday at which week w of
        :mod:`tgrec.datasets.weeks` begins, w being the number in the table, so that
        ``graph.snapshots("W")`` gives the weeks, ``week_cut(graph, w)`` their cuts and
        ``week_number(time)`` their numbers; ``edge_attr`` ``[E, 1]`` float32 is the count.

    Raises:
        ValueError: If a column or value is not usable.
    """
    table = weekly_table(df, user, event, count, week)
    start = FIRST_MONDAY + SECONDS * table[WEEK]
    graph = TemporalRecGraph.from_pandas(table.assign(time=start), USER, EVENT, time="time")
    # The rows are in the order of time already, so they and the edges are in one order.
    counts = torch.from_numpy(table[COUNT].to_numpy(np.float32)).view(-1, 1)
    graph["user", "interacts", "item"].edge_attr = counts
    return graph


def _whole(
    column: pd.Series, argument: str, low: int, high: int, remedy: str = "correct or drop them"
) -> np.ndarray:
    """A column of whole numbers in [low, high] as int64."""
    name = column.name
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"'{argument}': column {name!r} has missing values in {first_rows(missing)}; fill or "
            f"drop these rows"
        )
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        raise ValueError(
            f"'{argument}': column {name!r} is not numeric (first value "
            f"{column.iloc[:1].tolist()[0]!r}); whole numbers from {low} to {high:,} are expected"
        )
    values = column.to_numpy(dtype=np.float64)
    bad = ~((values >= low) & (values <= high) & (values == np.floor(values)))
    if bad.any():
        raise ValueError(
            f"'{argument}': column {name!r} has {values[bad][0]:g} in {first_rows(bad)}; whole "
            f"numbers from {low} to {high:,} are expected; {remedy}"
        )
    whole: np.ndarray = values.astype(np.int64)
    return whole


def _check_width(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
