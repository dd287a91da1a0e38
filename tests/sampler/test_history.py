"""Histories against brute force: strictly earlier, newest last, padded on the left."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import History, TemporalRecGraph
from tgrec.sampler import EventIndex, HistorySampler
from tgrec.testing import scramble_future, toy_graph

Row = tuple[int, int, int, str]
ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3), st.sampled_from("abc")),
    min_size=1,
    max_size=40,
)
SEEDS = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 45)), min_size=1, max_size=10)


def graph_of(rows: list[Row]) -> TemporalRecGraph:
    return TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"]),
        relation="kind",
        users=pd.DataFrame({"user_id": range(7)}),
        items=pd.DataFrame({"item_id": range(6)}),
    )


def columns(seeds: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    user, cut = torch.tensor(seeds, dtype=torch.int64).view(-1, 2).unbind(1)
    return user, cut


def check(
    history: History,
    rows: list[Row],
    seeds: list[tuple[int, int]],
    length: int,
    kinds: list[str],
    relations: list[str],
) -> None:
    log = [(e, *r) for e, r in enumerate(sorted(rows, key=lambda r: r[2]))]
    assert history.item.shape == (len(seeds), length)
    for row, (user, cut) in enumerate(seeds):
        past = [e for e in log if e[1] == user and e[0] < cut and e[4] in kinds][-length:]
        pad = length - len(past)
        assert history.mask[row].tolist() == [False] * pad + [True] * len(past)
        assert history.event_id[row].tolist() == [-1] * pad + [e[0] for e in past]
        assert history.item[row].tolist() == [0] * pad + [e[2] for e in past]
        assert history.time[row].tolist() == [0] * pad + [e[3] for e in past]
        assert history.relation[row].tolist() == [0] * pad + [relations.index(e[4]) for e in past]


@given(ROWS, SEEDS, st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_histories_by_brute_force(
    rows: list[Row], seeds: list[tuple[int, int]], length: int
) -> None:
    index = EventIndex(graph_of(rows))
    history = HistorySampler(index, length).sample(*columns(seeds))
    check(history, rows, seeds, length, ["a", "b", "c"], index.relations)


@given(ROWS, SEEDS, st.integers(1, 12), st.sets(st.sampled_from("abc"), min_size=1))
@settings(max_examples=150, deadline=None)
def test_chosen_kinds_come_merged_in_order(
    rows: list[Row], seeds: list[tuple[int, int]], length: int, kinds: set[str]
) -> None:
    index = EventIndex(graph_of(rows))
    known = [k for k in sorted(kinds) if k in index.relations]
    if not known:
        with pytest.raises(ValueError, match="'relations' needs to be some of"):
            HistorySampler(index, length, relations=sorted(kinds))
        return
    history = HistorySampler(index, length, relations=known).sample(*columns(seeds))
    check(history, rows, seeds, length, known, index.relations)


@given(ROWS, SEEDS, st.integers(1, 8), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_shorter_length_keeps_the_newest(
    rows: list[Row], seeds: list[tuple[int, int]], short: int, length: int
) -> None:
    sampler = HistorySampler(EventIndex(graph_of(rows)), length)
    whole, part = sampler.sample(*columns(seeds)), sampler.sample(*columns(seeds), max_len=short)
    kept = min(short, length)
    cut_down = whole.latest(kept)
    for name in ("item", "time", "event_id", "relation", "mask"):
        assert torch.equal(getattr(part, name), getattr(cut_down, name))


@given(ROWS, SEEDS, st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_no_other_future_changes_a_bit(
    rows: list[Row], seeds: list[tuple[int, int]], cut: int, seed: int
) -> None:
    graph = graph_of(rows)
    user = columns(seeds)[0]
    cuts = torch.full_like(user, cut)
    one, two = (
        HistorySampler(EventIndex(g), 9, relations=None).sample(user, cuts)
        for g in (graph, scramble_future(graph, cut, seed))
    )
    for name in ("item", "time", "event_id", "relation", "mask"):
        assert torch.equal(getattr(one, name), getattr(two, name))


def test_rows_do_not_depend_on_their_batch() -> None:
    sampler = HistorySampler(EventIndex(toy_graph()), 4)
    user, cut = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([9, 7, 11, 10, 2])
    whole = sampler.sample(user, cut)
    for row in range(5):
        alone = sampler.sample(user[row : row + 1], cut[row : row + 1])
        assert torch.equal(alone.event_id[0], whole.event_id[row])
    assert whole.event_id.tolist() == [
        [0, 2, 6, 8],  # ann before jam: tea, ham, fig, rye, though rye shares jam's second
        [-1, -1, 1, 4],
        [-1, -1, 3, 5],
        [-1, -1, -1, -1],  # dan has nothing before his only event
        [-1, -1, -1, 0],
    ]


def test_no_seeds_and_no_events() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert HistorySampler(EventIndex(toy_graph()), 3).sample(none, none).item.shape == (0, 3)
    empty = HistorySampler(EventIndex(toy_graph().before(0)), 3)
    history = empty.sample(torch.tensor([0, 3]), torch.tensor([5, 99]))
    assert not history.mask.any()
    assert history.event_id.tolist() == [[-1] * 3] * 2
    assert history.item.sum() == 0


def test_moving_and_cutting_keep_all_parts() -> None:
    history = HistorySampler(EventIndex(toy_graph()), 4).sample(
        torch.tensor([0]), torch.tensor([9])
    )
    moved = history.to("meta")
    assert {
        getattr(moved, n).device.type for n in ("item", "time", "event_id", "relation", "mask")
    } == {"meta"}
    assert history.latest(2).event_id.tolist() == [[6, 8]]


@pytest.mark.parametrize("max_len", [0, -1, True])
def test_bad_length_is_explained(max_len: int) -> None:
    with pytest.raises(ValueError, match="'max_len' needs to be a positive integer"):
        HistorySampler(EventIndex(toy_graph()), max_len)


def test_unknown_relation_is_explained() -> None:
    for relations in ([], ["buys"], ["rates", "buys"]):
        with pytest.raises(ValueError, match=r"'relations' needs to be some of \['rates'\]"):
            HistorySampler(EventIndex(toy_graph()), 3, relations=relations)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_the_same_on_a_gpu() -> None:
    rows = [(k * 7 % 6, k * 5 % 5, k // 4, "abc"[k % 3]) for k in range(200)]
    graph = graph_of(rows)
    user, cut = torch.arange(1000) % 7, torch.arange(1000) % 220
    here = HistorySampler(EventIndex(graph), 11).sample(user, cut)
    there = HistorySampler(EventIndex(graph, "cuda"), 11).sample(user.cuda(), cut.cuda())
    for name in ("item", "time", "event_id", "relation", "mask"):
        assert torch.equal(getattr(here, name), getattr(there, name).cpu())
