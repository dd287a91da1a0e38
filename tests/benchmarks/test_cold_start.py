"""What the cold-start benchmark holds out stays out, and its model beats what knows nothing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tgrec.datasets import simulate_movielens

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    module = importlib.import_module("cold_start")
    sys.path.remove(str(FOLDER))
    return module


def test_the_table_of_a_small_run(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = script.fit

    def spy(model: object, split: object, **kwargs: object) -> object:
        made.append((model, split))
        return original(model, split, **kwargs)

    monkeypatch.setattr(script, "fit", spy)
    graph = simulate_movielens(num_users=120, num_items=60, mean_events=12)[0]
    options = script.Options(epochs=1, d_model=16, max_len=12, share=0.2)
    table = script.measure(graph, options)
    model, split = made[0]
    cold = ~model.inputs.item_trained
    assert 5 <= int(cold.sum()) <= 20
    for kind in split.graph.interaction_types:
        user, item = split.graph[kind].edge_index
        assert not cold[item].any()
        assert model.inputs.user_trained[user].all()
    for name, row in table.items():
        assert row["targets"] > 0, name
        assert 0 <= row["HR@10"] <= 1
    # Popularity knows nothing of new items: all of them tie, which counts against it.
    assert table["new items, among all: popularity"]["HR@10"] == 0
    few = {"five events", "one event", "profile", "nothing", "popularity"}
    assert {f"new people: {name}" for name in few} < set(table)


def test_the_first_event_of_each(script: ModuleType) -> None:
    node, rows = torch.tensor([3, 1, 3, 0, 1]), torch.tensor([2, 4, 5, 8, 9])
    assert script._first_of_each(node, rows).tolist() == [8, 4, 2]
