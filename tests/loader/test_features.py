"""Rows of features are copied by NumPy where that is possible, and are the same rows."""

from __future__ import annotations

import pytest
import torch

from tgrec.data import TemporalRecGraph, with_reverse
from tgrec.loader.features import split_event_ids, split_features, take_rows
from tgrec.testing import toy_graph

ROWS = torch.tensor([3, 0, 0, 6, 2])
PLAIN = torch.arange(7 * 6).view(7, 6)


@pytest.mark.parametrize(
    "values",
    [
        PLAIN,
        PLAIN.float() + 0.5,
        PLAIN.double(),
        PLAIN.bfloat16(),
        PLAIN.half(),
        PLAIN.int(),
        PLAIN % 3 == 0,
        PLAIN.to(torch.complex64) * 1j,
        PLAIN.view(7, 2, 3),
        PLAIN.view(7, 6, 1),
        PLAIN.view(6, 7).t(),  # column by column in memory
        PLAIN[:, 1:4],
        torch.arange(3).expand(7, 3),
        torch.empty(7, 0),
        torch.nn.Parameter(PLAIN.float()),
        PLAIN.float().to_sparse(),
    ],
    ids=lambda v: f"{v.dtype}-{list(v.shape)}",
)
def test_rows_are_those_of_torch(values: torch.Tensor) -> None:
    out, wanted = take_rows(values, ROWS), values.index_select(0, ROWS)
    assert out.dtype == wanted.dtype
    assert out.shape == wanted.shape
    assert torch.equal(out.to_dense(), wanted.to_dense())
    assert out.requires_grad == wanted.requires_grad
    assert take_rows(values, ROWS[:0]).shape == (0, *values.shape[1:])


def test_a_copy_is_a_copy() -> None:
    values = PLAIN.clone()
    out = take_rows(values, torch.arange(7))
    out.zero_()
    assert torch.equal(values, PLAIN)


def test_no_rows_at_all() -> None:
    assert take_rows(torch.empty(0, 5), ROWS[:0]).shape == (0, 5)


def test_a_row_that_is_not_there_is_an_error() -> None:
    for row in (7, 10**6):
        with pytest.raises(IndexError):
            take_rows(PLAIN, torch.tensor([row]))


def test_what_is_left_to_pyg() -> None:
    graph = toy_graph()
    graph["user"].x, graph["item"].x = torch.rand(4, 3), torch.rand(5, 1)
    graph["item"].age = torch.rand(5)
    narrow, wide = split_features(graph)
    assert wide == [("user", "x"), ("item", "x")]
    assert "x" not in narrow["user"]
    assert "age" in narrow["item"]
    assert narrow["user"].num_nodes == 4
    assert graph["user"].x.shape == (4, 3)  # nothing was taken from the graph itself


def test_event_ids_are_counted_only_where_they_have_no_gaps() -> None:
    graph = toy_graph()
    kind, rev = graph.edge_types[0], ("item", "rev_rates", "user")
    narrow, first = split_event_ids(with_reverse(graph.since(5)))
    assert first == {kind: 5, rev: 5}
    assert "event_id" not in narrow[kind]
    gaps: TemporalRecGraph = toy_graph()
    gaps[kind].event_id = torch.arange(12) * 2
    narrow, first = split_event_ids(gaps)
    assert first == {}
    assert "event_id" in narrow[kind]
    assert split_event_ids(graph.before(0))[1] == {}
