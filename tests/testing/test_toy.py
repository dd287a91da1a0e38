"""The toy graphs are what they say, and the scrambler changes the future and only the future."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph
from tgrec.sampler import EventIndex
from tgrec.testing import (
    block_graph,
    cycle_graph,
    noise_graph,
    popularity_graph,
    scramble_future,
    toy_graph,
)
from tgrec.testing.toy import MONDAY


def walks(graph: TemporalRecGraph) -> dict[int, list[int]]:
    index, out = EventIndex(graph), defaultdict(list)
    for user, item in zip(index.user.tolist(), index.item.tolist(), strict=True):
        out[user].append(item)
    return out


def test_the_drawing_of_the_toy_graph_is_true() -> None:
    drawing = toy_graph.__doc__ or ""
    table = toy_graph().to_pandas()
    for name in ("ann", "bob", "cat", "dan"):
        line = next(row for row in drawing.splitlines() if row.split()[:1] == [name])
        assert line.split()[1:] == table[table.user_id == name]["item_id"].tolist()
    assert (table["timestamp"] - MONDAY).tolist() == [
        0, 0, 60, 60, 60, 3600, 3600, 86_400, 700_000, 700_000, 700_000, 800_000,
    ]  # fmt: skip
    assert pd.Timestamp(MONDAY, unit="s").day_name() == "Monday"


@pytest.mark.parametrize("kwargs", [{}, {"num_users": 5, "num_items": 7, "length": 5}])
def test_a_cycle_is_walked_in_order_and_never_twice(kwargs: dict[str, int]) -> None:
    graph = cycle_graph(**kwargs)
    for user, walk in walks(graph).items():
        assert walk[0] == user % graph.num_items
        assert all(b == (a + 1) % graph.num_items for a, b in zip(walk, walk[1:], strict=False))
        assert len(set(walk)) == len(walk)
    with pytest.raises(
        ValueError, match=r"'length' needs to be at most num_items - 2 \(got 9 and 10"
    ):
        cycle_graph(num_items=10, length=9)


def test_blocks_do_not_mix() -> None:
    graph = block_graph(num_blocks=3, block=5)
    for user, walk in walks(graph).items():
        assert {item // 5 for item in walk} == {user % 3}
        assert len(set(walk)) == len(walk)
    with pytest.raises(ValueError, match=r"'length' needs to be at most 'block' \(got 7 and 6\)"):
        block_graph(length=7)


def test_popularity_doubles() -> None:
    items = EventIndex(popularity_graph(5)).item
    assert torch.bincount(items).tolist() == [2, 4, 8, 16, 32]


def test_noise_is_even_and_full_of_ties() -> None:
    graph = noise_graph(num_users=2000, num_items=10, length=(5, 5), seed=1)
    index = EventIndex(graph)
    counts = torch.bincount(index.item).double()
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 30  # 9 degrees of freedom
    assert index.time.unique().numel() <= 40
    assert noise_graph(seed=3).to_pandas().equals(noise_graph(seed=3).to_pandas())
    assert not noise_graph(seed=3).to_pandas().equals(noise_graph(seed=4).to_pandas())


# ---- the scrambler ---------------------------------------------------------------------------

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 9), st.sampled_from("ab")),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.integers(0, 41), st.integers(0, 3), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_past_is_equal_to_the_byte(
    rows: list[tuple[int, int, int, str]], cut: int, seed: int, timed: bool, rated: bool
) -> None:
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"])
    table["stars"] = table["item_id"] / 2
    graph = TemporalRecGraph.from_pandas(
        table,
        time="timestamp" if timed else None,
        rating="stars" if rated else None,
        relation="kind",
    )
    before = graph.to_pandas()
    other = scramble_future(graph, cut, seed)
    assert graph.to_pandas().equals(before)
    assert other.validate()
    assert other.before(cut).to_pandas().equals(graph.before(cut).to_pandas())
    assert other.interaction_types == graph.interaction_types
    assert other.has_time == timed
    for kind in graph.interaction_types:
        assert set(other[kind].keys()) == set(graph[kind].keys())
        for key in graph[kind].keys():  # noqa: SIM118
            assert other[kind][key].dtype == graph[kind][key].dtype


def test_the_future_is_another_one() -> None:
    graph = noise_graph(num_users=30, num_items=12, length=(8, 12), seed=0)
    cut = graph.num_events // 2
    other = scramble_future(graph, cut)
    old, new = graph.since(cut).to_pandas(), other.since(cut).to_pandas()
    assert len(old) != len(new)
    shared = min(len(old), len(new))
    for column in ("user_id", "item_id", "timestamp", "event_id"):
        differ = (old[column][:shared].to_numpy() != new[column][:shared].to_numpy()).mean()
        assert differ > 0.8, column
    again = scramble_future(graph, cut).to_pandas()
    assert again.equals(other.to_pandas())
    assert not scramble_future(graph, cut, seed=1).to_pandas().equals(other.to_pandas())


def test_the_future_of_every_user_is_another_one() -> None:
    graph = noise_graph(num_users=10, num_items=12, length=(8, 12), seed=0)
    for cut in (0, 30, graph.num_events):
        a, b = walks(graph.since(cut)), walks(scramble_future(graph, cut).since(cut))
        assert all(a[user] != b[user] for user in a)
        assert sum(map(len, b.values())) >= 3  # even where there was none
