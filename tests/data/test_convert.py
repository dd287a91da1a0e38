"""Ways in and out of the store: round trips and what they keep."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from tgrec.data import TemporalRecGraph
from tgrec.testing import toy_graph

ROWS = st.lists(
    st.tuples(
        st.integers(0, 9), st.sampled_from("abcdef"), st.integers(0, 5), st.sampled_from("xy")
    ),
    min_size=1,
    max_size=25,
)


def table_of(rows: list[tuple[int, str, int, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "relation"])


def graph_of(rows: list[tuple[int, str, int, str]], relations: bool = True) -> TemporalRecGraph:
    return TemporalRecGraph.from_pandas(table_of(rows), relation="relation" if relations else None)


# ---- pandas ----------------------------------------------------------------------------------


@given(ROWS)
@settings(max_examples=80, deadline=None)
def test_pandas_round_trip(rows: list[tuple[int, str, int, str]]) -> None:
    graph = graph_of(rows)
    table = graph.to_pandas()
    wanted = table_of(rows).sort_values("timestamp", kind="stable", ignore_index=True)
    if len(graph.interaction_types) == 1:
        wanted = wanted.drop(columns="relation")
    assert table.drop(columns="event_id").to_dict("list") == wanted.to_dict("list")
    assert table["event_id"].tolist() == list(range(len(rows)))
    again = TemporalRecGraph.from_pandas(
        table, relation="relation" if "relation" in table else None
    )
    assert again.to_pandas().equals(table)


def test_input_is_left_alone() -> None:
    table = table_of([(2, "b", 5, "x"), (1, "a", 3, "x")])
    before = table.copy(deep=True)
    graph = TemporalRecGraph.from_pandas(table)
    graph["user", "interacts", "item"].time += 1
    graph["user"].raw_id += 1
    assert table.equals(before)


def test_duplicate_rows_are_events() -> None:
    graph = graph_of([(1, "a", 3, "x")] * 3)
    assert graph.num_events == 3
    assert graph.to_pandas()["event_id"].tolist() == [0, 1, 2]


def test_renamed_columns_and_strange_indexes() -> None:
    table = table_of([(2, "b", 5, "x"), (1, "a", 3, "x")])
    table.columns = ["who", "what", "when", "how"]
    table.index = [7, 7]
    graph = TemporalRecGraph.from_pandas(table, user="who", item="what", time="when")
    assert graph.to_pandas()["user_id"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "times",
    [
        [946_684_800, 946_684_801],
        [946_684_800.0, 946_684_801.0],
        pd.array([946_684_800, 946_684_801], dtype="Int64"),
        pd.array([946_684_800, 946_684_801], dtype="Float64"),
        np.array([946_684_800, 946_684_801], dtype=np.uint32),
        pd.to_datetime(["2000-01-01 00:00:00", "2000-01-01 00:00:01"]),
        pd.to_datetime(["2000-01-01 01:00:00+0100", "2000-01-01 01:00:01+0100"]),
        np.array(["2000-01-01T00:00:00", "2000-01-01T00:00:01"], dtype="datetime64[ns]"),
    ],
    ids=["int", "whole floats", "Int64", "Float64", "uint32", "naive", "zone", "ns"],
)
def test_times_of_all_sorts_become_unix_seconds(times: Any) -> None:
    table = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": times})
    store = TemporalRecGraph.from_pandas(table)["user", "interacts", "item"]
    assert store.time.dtype == torch.int64
    assert store.time.tolist() == [946_684_800, 946_684_801]


@pytest.mark.parametrize(
    "ids",
    [
        ["007", "7"],
        ["NA", "null"],
        ["None", "nan"],
        [" a", "a"],
        ["\u00e9", "e\u0301"],
        [2**31, 2**62],
        np.array([1, 200], dtype=np.uint8),
        pd.array([1, 2], dtype="Int64"),
        pd.Categorical(["b", "a"]),
        pd.Categorical([20, 10]),
    ],
    ids=str,
)
def test_ids_are_kept_exactly(ids: Any) -> None:
    table = pd.DataFrame({"user_id": ids, "item_id": ids, "timestamp": [1, 2]})
    graph = TemporalRecGraph.from_pandas(table)
    assert graph.num_users == 2
    assert graph.to_pandas()["user_id"].tolist() == list(ids)


def test_a_user_with_one_event_or_all_in_one_second() -> None:
    rows = [(1, "a", 9, "x"), (2, "c", 5, "x"), (2, "b", 5, "x"), (2, "a", 5, "x")]
    table = graph_of(rows).to_pandas()
    assert table["item_id"].tolist() == ["c", "b", "a", "a"]  # the rows decide


def test_tables_of_users_may_hold_more_than_the_events() -> None:
    users = pd.DataFrame({"user_id": [3, 1, 2], "age": [30, 10, 20]})
    graph = TemporalRecGraph.from_pandas(table_of([(1, "a", 1, "x")]), users=users)
    assert graph.num_users == 3
    assert graph["user"].age.tolist() == [30, 10, 20]
    assert graph["user", "interacts", "item"].edge_index[0].tolist() == [1]


# ---- CSV -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "y"])
def test_unknown_ratings_come_back_as_unknown(kind: str | None, tmp_path: Path) -> None:
    table = table_of([(1, "a", 1, "x"), (1, "b", 2, "x"), (2, "a", 3, kind or "x")])
    table["rating"] = [0.0, np.nan, np.nan]
    relation = None if kind is None else "relation"
    graph = TemporalRecGraph.from_pandas(table, rating="rating", relation=relation)
    first = graph[graph.interaction_types[0]].rating
    assert first.isnan().tolist() == [False, True, True][: first.numel()]
    assert first[0] == 0.0
    frame = graph.to_pandas()
    graph.to_csv(tmp_path / "a.csv")
    for again in (
        TemporalRecGraph.from_pandas(frame, rating="rating", relation=relation),
        TemporalRecGraph.from_csv(tmp_path / "a.csv", rating="rating", relation=relation),
        TemporalRecGraph.from_networkx(graph.to_networkx()),
    ):
        assert again.to_pandas().equals(frame)
        assert ["rating" in again[t] for t in again.interaction_types] == [
            "rating" in graph[t] for t in graph.interaction_types
        ]


@pytest.mark.parametrize("stars", [[np.nan] * 2, [None] * 2, [pd.NA] * 2])
def test_a_column_without_any_rating_is_none(stars: list[Any]) -> None:
    table = table_of([(1, "a", 1, "x"), (1, "b", 2, "x")]).assign(stars=stars)
    graph = TemporalRecGraph.from_pandas(table, rating="stars")
    assert graph.interaction_types == [("user", "interacts", "item")]
    assert "rating" not in graph["user", "interacts", "item"]


def test_csv_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "\u00e9v\u00e9nements.csv"
    graph = toy_graph()
    graph.to_csv(str(path))
    again = TemporalRecGraph.from_csv(str(path), rating="rating")
    assert again.to_pandas().equals(graph.to_pandas())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "kwargs"),
    [
        (b"user_id,item_id,timestamp\n1,2,3\n", {}),
        (b"\xef\xbb\xbfuser_id,item_id,timestamp\n1,2,3\n", {}),
        (b"user_id,item_id,timestamp\r\n1,2,3\r\n", {}),
        (b"user_id,item_id,timestamp\n1,2,3", {}),
        (b"user_id\titem_id\ttimestamp\n1\t2\t3\n", {"sep": "\t"}),
        (b"user_id::item_id::timestamp\n1::2::3\n", {"sep": "::"}),
        (b"user_id  item_id timestamp\n1 2   3\n", {"sep": r"\s+"}),
        (b'user_id,item_id,timestamp,title\n1,2,3,"a, b"\n', {}),
        (
            "user_id,item_id,timestamp,title\n1,2,3,\u00e9\n".encode("latin-1"),
            {"encoding": "latin-1"},
        ),
    ],
    ids=[
        "plain",
        "mark",
        "crlf",
        "no last newline",
        "tab",
        "colons",
        "blanks",
        "quoted",
        "latin-1",
    ],
)
def test_csv_dialects(content: bytes, kwargs: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    table = TemporalRecGraph.from_csv(str(path), **kwargs).to_pandas()
    assert table.to_dict("list") == {
        "user_id": [1],
        "item_id": [2],
        "timestamp": [3],
        "event_id": [0],
    }


def test_csv_ids_that_look_like_nothing_or_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\nNA,007,3\nnull,7,4\n")
    graph = TemporalRecGraph.from_csv(str(path), dtype={"item_id": str})
    assert graph.raw_ids("user") == ["NA", "null"]
    assert graph.raw_ids("item") == ["007", "7"]


# ---- HeteroData ------------------------------------------------------------------------------


def foreign_data() -> HeteroData:
    """As other people's data sets are: other names, unsorted edges, a reverse type."""
    data = HeteroData()
    data["user"].num_nodes = 2
    data["movie"].x = torch.arange(6.0).view(3, 2)
    store = data["user", "rates", "movie"]
    store.edge_index = torch.tensor([[0, 1, 0, 1], [2, 0, 1, 2]])
    store.stamp = torch.tensor([20, 10, 10, 20])
    store.rating = torch.tensor([1, 2, 3, 4])
    return data


def test_foreign_data_are_sorted_and_renamed() -> None:
    graph = TemporalRecGraph.from_hetero(foreign_data(), item="movie", time="stamp")
    store = graph["user", "rates", "item"]
    assert store.edge_index.tolist() == [[1, 0, 0, 1], [0, 1, 2, 2]]
    assert store.time.tolist() == [10, 10, 20, 20]
    assert store.rating.tolist() == [2, 3, 1, 4]
    assert store.event_id.tolist() == [0, 1, 2, 3]
    assert graph["item"].x.shape == (3, 2)
    assert graph.raw_ids("item").tolist() == [0, 1, 2]  # type: ignore[union-attr]


def test_reverse_edges_are_not_events() -> None:
    data = T.ToUndirected()(foreign_data())
    graph = TemporalRecGraph.from_hetero(data, item="movie", time="stamp")
    assert graph.edge_types == [("user", "rates", "item")]


def test_several_kinds_share_one_order() -> None:
    data = foreign_data()
    data["user", "views", "movie"].edge_index = torch.tensor([[0, 1], [0, 0]])
    data["user", "views", "movie"].stamp = torch.tensor([15, 10])
    graph = TemporalRecGraph.from_hetero(data, item="movie", time="stamp")
    assert graph["user", "rates", "item"].event_id.tolist() == [0, 1, 4, 5]
    assert graph["user", "views", "item"].event_id.tolist() == [2, 3]


def test_item_item_edges_come_along() -> None:
    data = foreign_data()
    data["movie", "like", "movie"].edge_index = torch.tensor([[0], [1]])
    graph = TemporalRecGraph.from_hetero(data, item="movie", time="stamp")
    assert ("item", "like", "item") in graph.edge_types
    assert graph.interaction_types == [("user", "rates", "item")]


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_hetero_round_trip(rows: list[tuple[int, str, int, str]]) -> None:
    graph = graph_of(rows)
    again = TemporalRecGraph.from_hetero(graph.to_hetero())
    assert again.to_pandas().equals(graph.to_pandas())


def bad_hetero(change: str) -> tuple[HeteroData, dict[str, Any]]:
    data, kwargs = copy.copy(foreign_data()), {"item": "movie", "time": "stamp"}
    store = data["user", "rates", "movie"]
    if change == "no such item":
        kwargs["item"] = "film"
    elif change == "no such time":
        kwargs["time"] = "when"
    elif change == "no events":
        del data["user", "rates", "movie"]
    elif change == "float times":
        store.stamp = store.stamp.float()
    elif change == "milliseconds":
        store.stamp = store.stamp + 10**12
    elif change == "negative times":
        store.stamp = store.stamp - 15
    elif change == "edge out of range":
        store.edge_index[1, 2] = 3
    elif change == "float edges":
        store.edge_index = store.edge_index.float()
    elif change == "clock on nodes":
        data["user"].time = torch.zeros(2)
    elif change == "two orders":
        kwargs["time"] = None
        data["user", "views", "movie"].edge_index = torch.tensor([[0, 1], [0, 0]])
    return data, kwargs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no such item", r"no node type 'film' among \['user', 'movie'\]"),
        ("no such time", r"has no 'when'; pass time=None if its edges are in order"),
        ("no events", "there are no edges from 'user' to 'movie'"),
        (
            "float times",
            r"'time' of .* needs to be int64 \(got torch.float32; float times lose seconds\)",
        ),
        ("milliseconds", "'time' of .* needs to be Unix seconds.*milliseconds.*10000000000"),
        ("negative times", r"'time' of .* needs to be Unix seconds, not negative.*\(got -5..5\)"),
        ("edge out of range", "edge 1 has item 3, outside 0..2"),
        ("float edges", r"'edge_index' of .* needs to be int64 \[2, E\] \(got torch.float32"),
        ("clock on nodes", "node type 'user' carries 'time'; clocks stand on edges only"),
        ("two orders", "several kinds of events without times have no common order"),
    ],
)
def test_bad_hetero_data_are_explained(change: str, message: str) -> None:
    data, kwargs = bad_hetero(change)
    with pytest.raises(ValueError, match=message):
        TemporalRecGraph.from_hetero(data, **kwargs)


# ---- networkx --------------------------------------------------------------------------------


@given(ROWS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_networkx_round_trip(rows: list[tuple[int, str, int, str]], relations: bool) -> None:
    graph = graph_of(rows, relations)
    graph["item"].price = torch.arange(graph.num_items)
    net = graph.to_networkx()
    assert net.number_of_edges() == len(rows)
    again = TemporalRecGraph.from_networkx(net)
    assert again.interaction_types == graph.interaction_types
    assert again.to_pandas().equals(graph.to_pandas())
    assert again.raw_ids("item") == graph.raw_ids("item")
    assert torch.equal(again["item"].price, graph["item"].price)


def test_networkx_nodes_and_edges_by_hand() -> None:
    net = toy_graph().to_networkx()
    assert isinstance(net, nx.MultiDiGraph)
    assert net.number_of_nodes() == 9
    edge = net.get_edge_data(("user", "ann"), ("item", "jam"))
    assert list(edge) == [9]
    assert edge[9]["relation"] == "rates"
    assert edge[9]["rating"] == 5.0
    assert edge[9]["event_id"] == 9


def test_networkx_without_an_order_is_explained() -> None:
    net = nx.MultiDiGraph()
    with pytest.raises(ValueError, match="'graph' has no edges"):
        TemporalRecGraph.from_networkx(net)
    net.add_edge(("user", 1), ("item", 2))
    with pytest.raises(ValueError, match="edges need 'event_id' or 'time'"):
        TemporalRecGraph.from_networkx(net)
