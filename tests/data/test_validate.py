"""validate() finds every planted defect, and nothing in good graphs."""

# ruff: noqa: E501 (the table of defects has one a line)

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.testing import block_graph, cycle_graph, noise_graph, popularity_graph, toy_graph

RATES = ("user", "rates", "item")
Defect = Callable[[TemporalRecGraph], None]


def put(key: str, index: int | None, value: object) -> Defect:
    def plant(graph: TemporalRecGraph) -> None:
        if index is None:
            graph[RATES][key] = value
        else:
            graph[RATES][key] = graph[RATES][key].clone()
            graph[RATES][key][..., index] = value

    return plant


def delete(*keys: object) -> Defect:
    def plant(graph: TemporalRecGraph) -> None:
        store = graph
        for key in keys[:-1]:
            store = store[key]  # type: ignore[index]
        del store[keys[-1]]  # type: ignore[arg-type]

    return plant


def second_kind(**columns: torch.Tensor) -> Defect:
    def plant(graph: TemporalRecGraph) -> None:
        for key, value in columns.items():
            graph["user", "views", "item"][key] = value

    return plant


def on_nodes(key: str) -> Defect:
    def plant(graph: TemporalRecGraph) -> None:
        graph["item"][key] = torch.zeros(5, dtype=torch.int64)

    return plant


EDGE = torch.tensor([[0], [0]])
DEFECTS: list[tuple[str, Defect, str]] = [
    ("no users", delete("user"), "there is no node type 'user'"),
    ("no event ids", delete(RATES, "event_id"), r"no edge type \('user', r, 'item'\) with 'event_id'"),
    ("no edges", delete(RATES, "edge_index"), r"\('user', 'rates', 'item'\) has no 'edge_index' tensor"),
    ("time on nodes", on_nodes("time"), "node type 'item' carries 'time'; clocks stand on edges only"),
    ("event id on nodes", on_nodes("event_id"), "node type 'item' carries 'event_id'"),
    ("edges of floats", put("edge_index", None, torch.zeros(2, 12)), r"int64 \[2, E\] \(got torch.float32 \[2, 12\]\)"),
    ("edges turned", put("edge_index", None, torch.zeros(12, 2, dtype=torch.int64)), r"int64 \[2, E\]"),
    ("item too large", put("edge_index", 3, torch.tensor([0, 5])), "edge 3 has item 5, outside 0..4"),
    ("user negative", put("edge_index", 7, torch.tensor([-1, 0])), "edge 7 has user -1, outside 0..3"),
    ("short times", put("time", None, torch.arange(5)), r"'time' of .* needs 12 values \(got \[5\]\)"),
    ("short ratings", put("rating", None, torch.zeros(11)), "'rating' of .* needs 12 values"),
    ("float times", put("time", None, torch.arange(12.0)), "'time' of .* needs to be int64 .*float times"),
    ("int32 ids", put("event_id", None, torch.arange(12, dtype=torch.int32)), "'event_id' of .* int64"),
    ("ids repeat", put("event_id", 4, 3), "'event_id' of .* is not strictly increasing; sort its edges"),
    ("ids fall", put("event_id", 11, 0), "is not strictly increasing"),
    ("negative id", put("event_id", 0, -1), "'event_id' of .* is negative"),
    ("time falls", put("time", 11, 5), "'event_id' does not follow 'time': an earlier event has a later"),
    ("negative time", put("time", 0, -1), "'time' of .* needs to be Unix seconds, not negative"),
    ("milliseconds", put("time", 11, 10**12), "not milliseconds or finer"),
    (
        "ids of two kinds",
        second_kind(edge_index=EDGE, event_id=torch.tensor([3]), time=torch.tensor([10**9])),
        "'event_id' is not unique over all kinds of events",
    ),
    (
        "orders of two kinds",
        second_kind(edge_index=EDGE, event_id=torch.tensor([99]), time=torch.tensor([5])),
        "'event_id' does not follow 'time'",
    ),
    (
        "one kind without time",
        second_kind(edge_index=EDGE, event_id=torch.tensor([99])),
        "some kinds of events have 'time' and some have not",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plant", "message"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS]
)
def test_planted_defect_is_found(plant: Defect, message: str) -> None:
    graph = toy_graph()
    plant(graph)
    with pytest.raises(ValueError, match=message):
        graph.validate()
    with pytest.warns(UserWarning, match=message):
        assert not graph.validate(raise_on_error=False)


def test_good_graphs_pass() -> None:
    for graph in (toy_graph(), cycle_graph(), block_graph(), noise_graph(), popularity_graph()):
        assert graph.validate()
        assert graph.before(5).validate()
        assert graph.before(0).validate()


def test_order_only_data_pass() -> None:
    rows = pd.DataFrame({"user_id": [1, 1], "item_id": [3, 2]})
    assert TemporalRecGraph.from_pandas(rows, time=None).validate()
