"""Graphs as safetensors: equal after a round trip, equal bytes, refused when altered."""

from __future__ import annotations

import pickle
import threading
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets import load_graph, save_graph, simulate_movielens
from tgrec.datasets._store import cached


def several_kinds() -> TemporalRecGraph:
    df = pd.DataFrame(
        {
            "user_id": ["ann", "bob", "ann"],
            "item_id": [3, 3, 9],
            "timestamp": [10, 10, 20],
            "kind": ["view", "buy", "view"],
        }
    )
    graph = TemporalRecGraph.from_pandas(df, relation="kind")
    graph["item"].x = torch.randn(2, 4).to(torch.bfloat16)
    graph["item", "similar", "item"].edge_index = torch.tensor([[0], [1]])
    graph.source = "hand-written"
    return graph


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    graph = several_kinds()
    save_graph(graph, tmp_path / "g")
    again = load_graph(tmp_path / "g")
    assert isinstance(again, TemporalRecGraph)
    assert str(again) == str(graph)
    for store, other in zip(graph.stores, again.stores, strict=True):
        for key, value in store.items():
            same = torch.equal(other[key], value) if torch.is_tensor(value) else other[key] == value
            assert same, key
    assert again.raw_ids("user") == ["ann", "bob"]
    assert again.source == "hand-written"
    assert again.validate()


def test_equal_graphs_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_graph(simulate_movielens(20, 200, 10)[0], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_slices_which_share_memory_can_be_saved(tmp_path: Path) -> None:
    graph = simulate_movielens(20, 200, 10)[0].before(50)
    save_graph(graph, tmp_path / "g")
    assert load_graph(tmp_path / "g").num_events == 50
    assert (tmp_path / "g").stat().st_size < 30_000


def test_every_altered_byte_is_noticed(tmp_path: Path) -> None:
    path, graph = tmp_path / "g", several_kinds()
    save_graph(graph, path)
    good = path.read_bytes()
    noticed, tried = 0, range(8, len(good), 7)
    for at in tried:
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with suppress(ValueError):
            again = load_graph(path)  # a byte of padding may differ, the graph may not
            assert str(again) == str(graph)
            assert again["user", "view", "item"].time.tolist() == [10, 20]
            noticed -= 1
        noticed += 1
    assert noticed > 0.95 * len(tried)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    (tmp_path / "g").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="delete it and make it anew"):
        load_graph(tmp_path / "g")
    assert not (tmp_path / "exploded").exists()


def test_missing_file_and_unsavable_attribute(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no graph file"):
        load_graph(tmp_path / "none")
    graph = several_kinds()
    graph["item"].names = ["a", "b"]
    with pytest.raises(TypeError, match="'names' of 'item' is a list"):
        save_graph(graph, tmp_path / "g")
    assert list(tmp_path.iterdir()) == []


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    results: list[int] = []

    def work() -> None:
        graph = cached(["toy", 1], [tmp_path], several_kinds)
        results.append(graph.num_events)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 8
    (path,) = tmp_path.iterdir()
    assert load_graph(path).num_events == 3
