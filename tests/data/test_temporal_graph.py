"""The store: order, cuts, slices, snapshots, raw ids, strings, sub-graphs."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph
from tgrec.testing import toy_graph
from tgrec.testing.toy import MONDAY

Row = tuple[int, int, int, str]
GraphOf = Callable[..., TemporalRecGraph]
# Few users, items and seconds, so that almost everything ties with something.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 4), st.integers(0, 3), st.sampled_from(["buy", "view"])
    ),
    min_size=1,
    max_size=30,
)


def events(graph: TemporalRecGraph) -> list[tuple[int, int, int, int, str]]:
    """(event id, user, item, time, kind), sorted by event id."""
    out = []
    for kind in graph.interaction_types:
        store = graph[kind]
        columns = (store.event_id, *store.edge_index, store.time)
        out += [(*row, kind[1]) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return sorted(out)


# ---- order -----------------------------------------------------------------------------------


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_events_are_sorted_by_time_and_ties_keep_the_input_order(
    graph_of: GraphOf, rows: list[Row]
) -> None:
    in_order = sorted(rows, key=lambda row: row[2])  # Python's sort is stable
    graph = graph_of(rows, relations=True)
    assert graph.validate()
    found = events(graph)
    assert [e[0] for e in found] == list(range(len(rows)))
    assert [(u, i, t, k) for _, u, i, t, k in found] == in_order


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_without_times_the_rows_are_the_order(graph_of: GraphOf, rows: list[Row]) -> None:
    graph = graph_of(rows, timed=False)
    edges = graph["user", "interacts", "item"].edge_index
    assert edges.tolist() == [[r[0] for r in rows], [r[1] for r in rows]]
    assert not graph.has_time
    assert graph.validate()


def test_toy_graph_is_as_it_is_drawn() -> None:
    graph = toy_graph()
    assert (graph.num_users, graph.num_items, graph.num_events) == (4, 5, 12)
    assert graph.raw_ids("user") == ["ann", "bob", "cat", "dan"]
    assert graph.raw_ids("item") == ["fig", "ham", "jam", "rye", "tea"]
    edges = graph["user", "rates", "item"].edge_index
    assert edges[:, 8:].tolist() == [[0, 0, 3, 2], [3, 2, 2, 1]]
    assert graph.interaction_types == [("user", "rates", "item")]


def test_default_relation_says_whether_there_are_ratings() -> None:
    rows = pd.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [3], "stars": [4.5]})
    with_stars = TemporalRecGraph.from_pandas(rows, rating="stars")
    assert with_stars.interaction_types == [("user", "rates", "item")]
    assert with_stars["user", "rates", "item"].rating.dtype == torch.float32
    plain = TemporalRecGraph.from_pandas(rows)
    assert plain.interaction_types == [("user", "interacts", "item")]
    assert "rating" not in plain["user", "interacts", "item"]


# ---- cuts and slices -------------------------------------------------------------------------


@given(ROWS, st.integers(-2, 33), st.integers(-2, 33), st.booleans())
@settings(max_examples=150, deadline=None)
def test_slices_are_half_open(
    graph_of: GraphOf, rows: list[Row], a: int, b: int, relations: bool
) -> None:
    graph = graph_of(rows, relations)
    lo, hi = min(a, b), max(a, b)
    everything = events(graph)
    assert events(graph.before(hi)) == [e for e in everything if e[0] < hi]
    assert events(graph.since(lo)) == [e for e in everything if e[0] >= lo]
    assert events(graph.between(lo, hi)) == [e for e in everything if lo <= e[0] < hi]
    assert graph.between(lo, hi).num_users == graph.num_users
    assert events(graph.since(lo).before(hi)) == events(graph.between(lo, hi))


@given(ROWS, st.integers(-1, 5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_cut_of_a_moment_is_strict(
    graph_of: GraphOf, rows: list[Row], moment: int, relations: bool
) -> None:
    graph = graph_of(rows, relations)
    cut = graph.event_id_at(moment)
    assert cut == sum(1 for row in rows if row[2] < moment)
    assert all(e[3] < moment for e in events(graph.before(cut)))
    assert all(e[3] >= moment for e in events(graph.since(cut)))


def test_slices_are_views_and_drop_derived_edges() -> None:
    graph = toy_graph()
    graph["item", "next", "item"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    graph["item", "rev_rates", "user"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    part = graph.since(4)
    whole, view = graph["user", "rates", "item"], part["user", "rates", "item"]
    for name in ("time", "event_id", "rating"):
        assert view[name].untyped_storage().data_ptr() == whole[name].untyped_storage().data_ptr()
    assert (
        view.edge_index.untyped_storage().data_ptr()
        == whole.edge_index.untyped_storage().data_ptr()
    )
    assert part.edge_types == [("user", "rates", "item")]
    assert graph.interaction_types == [("user", "rates", "item")]  # never the reverse
    assert part["item"] is not graph["item"]
    part["item"].price = torch.ones(5)
    assert "price" not in graph["item"]  # nothing flows back


def test_event_ids_keep_their_values_in_slices() -> None:
    part = toy_graph().between(3, 6)
    assert part["user", "rates", "item"].event_id.tolist() == [3, 4, 5]
    assert part.event_id_at(MONDAY + 61) == 5
    assert part.event_id_at(MONDAY + 10**6) == 6  # one past the last event it has


def test_interval_the_wrong_way_round() -> None:
    with pytest.raises(ValueError, match=r"'lo' needs to be at most 'hi' \(got lo=5, hi=4\)"):
        toy_graph().between(5, 4)


# ---- snapshots -------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40 * 86_400), min_size=1, max_size=40),
    st.sampled_from(["h", "D", "W", "M"]),
)
@settings(max_examples=40, deadline=None)
def test_snapshots_hold_each_event_once_in_its_period(times: list[int], freq: str) -> None:
    if freq == "h":
        times = [t // 40 for t in times]
    table = pd.DataFrame({"user_id": 0, "item_id": 1, "timestamp": [MONDAY + t for t in times]})
    graph = TemporalRecGraph.from_pandas(table)
    parts = list(graph.snapshots(freq))
    ids = [e[0] for part in parts for e in events(part)]
    assert ids == list(range(len(times)))
    for part, following in zip(parts, parts[1:], strict=False):
        assert part.time_end == following.time_start
    for part in parts:
        assert all(part.time_start <= e[3] < part.time_end for e in events(part))
        # The calendar agrees, without the arithmetic of the implementation.
        stamps = pd.to_datetime([e[3] for e in events(part)], unit="s").to_period(freq)
        assert len(set(stamps)) <= 1


def test_weeks_start_on_monday_utc_and_may_be_empty() -> None:
    table = pd.DataFrame(
        {
            "user_id": [0, 0, 0, 0],
            "item_id": [0, 1, 2, 3],
            # Sunday 23:59:59, Monday 00:00:00, and two weeks later.
            "timestamp": [MONDAY - 1, MONDAY, MONDAY + 14 * 86_400, MONDAY + 15 * 86_400],
        }
    )
    weeks = list(TemporalRecGraph.from_pandas(table).snapshots("W"))
    assert [w.num_events for w in weeks] == [1, 1, 0, 2]
    assert [w.time_start for w in weeks] == [MONDAY + (k - 1) * 7 * 86_400 for k in range(4)]


def test_snapshots_need_times_and_a_period(graph_of: GraphOf) -> None:
    graph = toy_graph()
    with pytest.raises(ValueError, match=r"'freq' needs to be a pandas period alias.*'fortnight'"):
        next(graph.snapshots("fortnight"))
    with pytest.raises(
        ValueError, match="snapshots: needs event times.*pass 'time' to from_pandas"
    ):
        next(graph_of([(0, 0, 0, "buy")], timed=False).snapshots())
    with pytest.raises(ValueError, match="event_id_at: needs event times"):
        graph_of([(0, 0, 0, "buy")], timed=False).event_id_at(0)


# ---- choosing events and nodes ---------------------------------------------------------------


@given(ROWS, st.data())
@settings(max_examples=60, deadline=None)
def test_select_events_keeps_the_marked_ones(
    graph_of: GraphOf, rows: list[Row], data: st.DataObject
) -> None:
    graph = graph_of(rows, relations=True)
    kind = data.draw(st.sampled_from(graph.interaction_types))
    size = graph[kind].event_id.numel()
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    chosen = set(graph[kind].event_id[mask].tolist())
    expected = [e for e in events(graph) if e[4] != kind[1] or e[0] in chosen]
    part = graph.select_events(mask, relation=kind[1])
    assert events(part) == expected
    assert part.validate()


def test_select_events_explains_itself(graph_of: GraphOf) -> None:
    graph = toy_graph()
    with pytest.raises(ValueError, match=r"'mask' needs to be bool of shape \[12\].*shape \[3\]"):
        graph.select_events(torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'mask' needs to be bool.*torch.int64"):
        graph.select_events(torch.ones(12, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"'relation' needs to be one of \['rates'\].*'buys'"):
        graph.select_events(torch.ones(12, dtype=torch.bool), relation="buys")
    two = graph_of([(0, 0, 0, "buy"), (0, 1, 0, "view")], relations=True)
    with pytest.raises(ValueError, match=r"'relation' needs to name one of \['buy', 'view'\]"):
        two.select_events(torch.ones(1, dtype=torch.bool))


@given(ROWS, st.integers(0, 30), st.booleans())
@settings(max_examples=80, deadline=None)
def test_drop_isolated_keeps_what_has_events(
    graph_of: GraphOf, rows: list[Row], cut: int, relations: bool
) -> None:
    graph = graph_of(rows, relations).before(cut)
    graph["item"].price = torch.arange(7) * 1.5
    small = graph.drop_isolated()
    for side, row in (("user", 1), ("item", 2)):
        met = sorted({e[row] for e in events(graph)})
        assert small.raw_ids(side).tolist() == met  # type: ignore[union-attr]
    assert small["item"].price.tolist() == [1.5 * raw for raw in small.raw_ids("item").tolist()]  # type: ignore[union-attr]
    key = ["event_id", "user_id", "item_id", "timestamp"]
    if small.num_events:
        assert small.to_pandas()[key].equals(graph.to_pandas()[key])
        assert small.validate()


def test_drop_isolated_keeps_strings_beside_their_nodes() -> None:
    items = pd.DataFrame({"item_id": ["a", "b", "c"], "title": ["A \u00e9", "", "C \u4e2d"]})
    rows = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["c", "a"], "timestamp": [1, 2]})
    small = TemporalRecGraph.from_pandas(rows, items=items).drop_isolated()
    assert small.raw_ids("item") == ["a", "c"]
    assert small.strings("item", "title") == ["A \u00e9", "C \u4e2d"]


def test_drop_isolated_remembers_numbers_that_were_the_ids() -> None:
    graph = toy_graph()
    del graph["item"].raw_id_bytes, graph["item"].raw_id_offsets
    small = graph.before(2).drop_isolated()
    assert small.num_items == 1
    assert small.raw_ids("item").tolist() == [4]  # type: ignore[union-attr]


# ---- raw ids and strings ---------------------------------------------------------------------

INTEGERS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20)
STRINGS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    min_size=1,
    max_size=20,
)


@given(INTEGERS | STRINGS)
@settings(max_examples=150, deadline=None)
def test_raw_ids_round_trip(ids: list[int] | list[str]) -> None:
    table = pd.DataFrame({"user_id": ids, "item_id": ids[::-1], "timestamp": range(len(ids))})
    graph = TemporalRecGraph.from_pandas(table)
    back = graph.to_pandas()
    assert back["user_id"].tolist() == ids
    assert back["item_id"].tolist() == ids[::-1]
    known = graph.raw_ids("user")
    listed = known.tolist() if isinstance(known, torch.Tensor) else known
    assert listed == sorted(set(ids))  # ascending raw id is the order of the nodes
    index = graph.index_of("user", ids)
    assert [listed[k] for k in index.tolist()] == ids


def test_ids_that_end_with_nul_are_not_those_without() -> None:
    table = pd.DataFrame({"user_id": ["a\x00", "a"], "item_id": [1, 2], "timestamp": [3, 4]})
    graph = TemporalRecGraph.from_pandas(table)
    assert graph.index_of("user", ["a", "a\x00", "a"]).tolist() == [0, 1, 0]


def test_index_of_takes_lists_arrays_and_tensors() -> None:
    graph = TemporalRecGraph.from_pandas(
        pd.DataFrame({"user_id": [7, 3], "item_id": ["x", "y"], "timestamp": [0, 1]})
    )
    for wanted in ([7, 3], torch.tensor([7, 3]), pd.Series([7, 3]).to_numpy()):
        assert graph.index_of("user", wanted).tolist() == [1, 0]
    assert graph.index_of("item", "y").tolist() == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g: g.index_of("user", ["eve", "ann", "zoe"]),
            r"2 user id\(s\).*'eve', 'zoe'.*raw_ids\('user'\)",
        ),
        (lambda g: g.index_of("item", [3]), r"1 item id\(s\).*\[3\].*are strings"),
        (lambda g: g.index_of("film", [3]), r"'node_type' needs to be one of .*'film'"),
        (lambda g: g.raw_ids("film"), r"'node_type' needs to be one of .*'film'"),
        (
            lambda g: g.strings("item", "title"),
            r"'item' has no strings 'title'; it has \['raw_id'\]",
        ),
    ],
)
def test_unknown_names_are_explained(
    call: Callable[[TemporalRecGraph], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(toy_graph())


def test_node_tables_give_order_features_and_nodes_without_events() -> None:
    items = pd.DataFrame(
        {
            "item_id": [30, 10, 20],
            "price": [1.5, 2.5, 3.5],
            "year": [1999, 2000, 2001],
            "new": [True, False, True],
            "title": ["thirty", "ten", "twenty"],
        }
    )
    rows = pd.DataFrame({"user_id": [1, 1], "item_id": [10, 30], "timestamp": [5, 6]})
    graph = TemporalRecGraph.from_pandas(rows, items=items)
    assert graph.num_items == 3
    assert graph.raw_ids("item").tolist() == [30, 10, 20]  # type: ignore[union-attr]
    assert graph["user", "interacts", "item"].edge_index[1].tolist() == [1, 0]
    store = graph["item"]
    assert (store.price.dtype, store.year.dtype, store.new.dtype) == (
        torch.float32,
        torch.int64,
        torch.bool,
    )
    assert store.year.tolist() == [1999, 2000, 2001]
    assert graph.strings("item", "title") == ["thirty", "ten", "twenty"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=12))
@settings(max_examples=100, deadline=None)
def test_strings_survive_packing(words: list[str]) -> None:
    from tgrec.data.text import decode_strings, encode_strings

    packed, offsets = encode_strings(words)
    assert packed.shape[0] == 1
    assert offsets.numel() == len(words) + 1
    assert decode_strings(packed, offsets) == words


def test_the_class_has_no_state_of_its_own() -> None:
    assert "__init__" not in vars(TemporalRecGraph)
    from torch_geometric.data import HeteroData

    assert toy_graph().__dict__.keys() == HeteroData().__dict__.keys()
