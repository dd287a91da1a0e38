"""The index against brute force: log, lists, twins, cuts, memory."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph
from tgrec.sampler import EventIndex, past_items
from tgrec.testing import toy_graph

Row = tuple[int, int, int, str]
# Few seconds, so that nearly everything ties; three kinds of events; users and items without any.
ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3), st.sampled_from("abc")),
    min_size=1,
    max_size=40,
)
CUTS = st.integers(-3, 45)


def graph_of(rows: list[Row], timed: bool = True) -> TemporalRecGraph:
    return TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"]),
        time="timestamp" if timed else None,
        relation="kind",
        users=pd.DataFrame({"user_id": range(7)}),
        items=pd.DataFrame({"item_id": range(6)}),
    )


def log_of(rows: list[Row]) -> list[tuple[int, int, int, int, str]]:
    return [(e, *row) for e, row in enumerate(sorted(rows, key=lambda r: r[2]))]


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_log_is_all_events_in_order(rows: list[Row]) -> None:
    index = EventIndex(graph_of(rows))
    columns = (index.event_id, index.user, index.item, index.time)
    found = list(zip(*(c.tolist() for c in columns), strict=True))
    assert found == [e[:4] for e in log_of(rows)]
    assert [index.relations[r] for r in index.relation.tolist()] == [e[4] for e in log_of(rows)]
    assert index.num_events == len(rows)
    assert (index.num_users, index.num_items) == (7, 6)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_lists_hold_each_nodes_events_in_order_and_know_their_twins(rows: list[Row]) -> None:
    index = EventIndex(graph_of(rows))
    for side, (own, far, size) in {
        "user": (index.by_user, index.by_item, 7),
        "item": (index.by_item, index.by_user, 6),
    }.items():
        column = 1 if side == "user" else 2
        for node in range(size):
            part = slice(int(own.ptr[node]), int(own.ptr[node + 1]))
            wanted = [e for e in log_of(rows) if e[column] == node]
            assert own.log[part].tolist() == [e[0] for e in wanted]
            assert own.other[part].tolist() == [e[3 - column] for e in wanted]
        # A twin is the same event in the list of the other side, and the way back leads back.
        assert torch.equal(far.log[own.twin], own.log)
        assert torch.equal(far.twin[own.twin], torch.arange(len(rows)))
        assert (own.key.diff() > 0).all()


@given(ROWS, st.lists(st.tuples(st.integers(0, 6), CUTS), max_size=12))
@settings(max_examples=150, deadline=None)
def test_past_ends_right_before_the_cut(rows: list[Row], seeds: list[tuple[int, int]]) -> None:
    index = EventIndex(graph_of(rows))
    node, cut = torch.tensor(seeds, dtype=torch.int64).view(-1, 2).unbind(1)
    start, stop = index.by_user.past(node, cut)
    for (user, c), a, b in zip(seeds, start.tolist(), stop.tolist(), strict=True):
        wanted = [e[0] for e in log_of(rows) if e[1] == user and e[0] < c]
        assert index.by_user.log[a:b].tolist() == wanted


@given(ROWS, st.integers(1, 3), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_many_questions_at_once_have_the_same_answers(
    rows: list[Row], step: int, first: int
) -> None:
    """Hundreds are answered in another way than a few."""
    graph = graph_of(rows)
    for kind in graph.interaction_types:  # ids with gaps, and not from 0
        graph[kind].event_id = graph[kind].event_id * step + first
    index = EventIndex(graph)
    node = torch.arange(7).repeat(100)
    cut = torch.arange(100).repeat_interleave(7) * (index.end + 6) // 100 - 2
    for events, size in ((index.by_user, 7), (index.by_item, 6)):
        start, stop = events.past(node.clamp(max=size - 1), cut)
        for n, c, a, b in zip(
            node.tolist(), cut.tolist(), start.tolist(), stop.tolist(), strict=True
        ):
            n = min(n, size - 1)
            assert a == int(events.ptr[n])
            ids = index.event_id[events.log[a : int(events.ptr[n + 1])]]
            assert b - a == int((ids < c).sum())


@given(ROWS, st.lists(st.tuples(st.integers(0, 6), CUTS), max_size=12))
@settings(max_examples=150, deadline=None)
def test_past_items_are_all_items_of_the_past(
    rows: list[Row], seeds: list[tuple[int, int]]
) -> None:
    index = EventIndex(graph_of(rows))
    user, cut = torch.tensor(seeds, dtype=torch.int64).view(-1, 2).unbind(1)
    row, item = past_items(index, user, cut)
    wanted = [
        (k, e[2]) for k, (u, c) in enumerate(seeds) for e in log_of(rows) if e[1] == u and e[0] < c
    ]
    assert list(zip(row.tolist(), item.tolist(), strict=True)) == wanted


def test_slices_index_their_own_events() -> None:
    whole = toy_graph()
    part = EventIndex(whole.between(3, 9))
    assert part.event_id.tolist() == [3, 4, 5, 6, 7, 8]
    row, item = past_items(part, torch.tensor([0, 1]), torch.tensor([8, 99]))
    assert row.tolist() == [0, 1, 1]
    assert item.tolist() == [0, 1, 3]  # ann: fig; bob: ham, rye
    empty = EventIndex(whole.before(0))
    assert empty.num_events == 0
    assert past_items(empty, torch.tensor([2]), torch.tensor([99]))[0].numel() == 0


def test_order_only_data_have_no_times() -> None:
    index = EventIndex(graph_of([(0, 0, 9, "a"), (1, 1, 3, "a")], timed=False))
    assert not index.has_time
    assert index.time.tolist() == [0, 0]
    assert index.user.tolist() == [0, 1]


def test_later_changes_to_the_graph_do_not_reach_it() -> None:
    graph = toy_graph()
    index = EventIndex(graph)
    before = [t.clone() for t in (index.user, index.item, index.time, index.event_id)]
    store = graph["user", "rates", "item"]
    store.edge_index.zero_()
    store.time.zero_()
    store.event_id.zero_()
    for kept, now in zip(before, (index.user, index.item, index.time, index.event_id), strict=True):
        assert torch.equal(kept, now)


def test_memory_is_flat_int64_columns() -> None:
    graph = toy_graph()
    index = EventIndex(graph)
    tensors = [index.user, index.item, index.time, index.event_id, index.relation]
    for events in (index.by_user, index.by_item):
        tensors += [events.log, events.other, events.twin, events.key]
        assert events.ptr.numel() in (graph.num_users + 1, graph.num_items + 1)
    for tensor in tensors:
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
        assert tensor.shape == (graph.num_events,)
    # 13 columns of 8 bytes an event: MovieLens-1M fits into 104 MB.
    size = sum(t.untyped_storage().nbytes() for t in tensors)
    assert size <= 16 * 8 * graph.num_events


@pytest.mark.parametrize(
    ("user", "cut", "message"),
    [
        (torch.tensor([0, 7]), torch.tensor([1, 1]), r"'user' needs to be in 0..3 \(got 0..7\)"),
        (torch.tensor([-1]), torch.tensor([1]), r"'user' needs to be in 0..3 \(got -1..-1\)"),
        (torch.tensor([0]), torch.tensor([1, 2]), r"'cut' needs to be int64 of shape \[1\]"),
        (torch.tensor([0.0]), torch.tensor([1]), "'user' needs to be int64.*torch.float32"),
        (torch.tensor([0]), torch.tensor([1], dtype=torch.int32), "'cut' needs to be int64.*int32"),
        (torch.tensor([[0]]), torch.tensor([[1]]), r"'user' needs to be int64 of shape \[1\]"),
        (
            torch.tensor([0], device="meta"),
            torch.tensor([1]),
            "'user' is on meta and the index on cpu",
        ),
    ],
)
def test_bad_seeds_are_explained(user: torch.Tensor, cut: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        past_items(EventIndex(toy_graph()), user, cut)


def test_graphs_that_cannot_be_indexed() -> None:
    bare = TemporalRecGraph()
    bare["user"].num_nodes = bare["item"].num_nodes = 2
    with pytest.raises(ValueError, match="'graph' has no events"):
        EventIndex(bare)
    twisted = toy_graph()
    twisted["user", "rates", "item"].event_id = torch.arange(12).flip(0)
    with pytest.raises(
        ValueError, match=r"'event_id' is not strictly increasing; see graph.validate\(\)"
    ):
        EventIndex(twisted)
    # Merging two kinds could mend the order of one, but edges are named by their positions.
    for ids in ([5, 3], [3, 5]):
        two = toy_graph()
        two["user", "buys", "item"].edge_index = torch.tensor([[0, 1], [1, 2]])
        two["user", "buys", "item"].event_id = torch.tensor(ids)
        two["user", "buys", "item"].time = torch.tensor([0, 0])
        message = "'event_id' is not unique" if ids == [3, 5] else "is not strictly increasing"
        with pytest.raises(ValueError, match=message):
            EventIndex(two)
    far = toy_graph()
    far["user", "rates", "item"].event_id += 2**61
    with pytest.raises(ValueError, match=r"more than 2\*\*63 \(node, event\) pairs"):
        EventIndex(far)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_the_same_on_a_gpu() -> None:
    graph = toy_graph()
    here, there = EventIndex(graph), EventIndex(graph, "cuda")
    for name in ("user", "item", "time", "event_id", "relation"):
        assert torch.equal(getattr(here, name), getattr(there, name).cpu())
    for side in ("by_user", "by_item"):
        for name in ("ptr", "log", "other", "twin", "key"):
            assert torch.equal(
                getattr(getattr(here, side), name), getattr(getattr(there, side), name).cpu()
            )
