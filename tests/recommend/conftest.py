"""Small recommenders, fitted once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets import simulate_movielens
from tgrec.recommend import Recommender
from tgrec.testing import cycle_graph

SETTINGS: dict[str, dict[str, Any]] = {
    "sasrec": {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 12, "dropout": 0.0},
    "tgt_bert4rec": {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 12},
    "enhanced_bert4rec": {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 12},
    "sage": {"hidden_channels": 16, "num_neighbors": (20, 3)},
    "gap_markov": {},
    "popularity": {},
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def events() -> pd.DataFrame:
    """Everybody walks the cycle 0, 1, ..., 23, 0."""
    return cycle_graph().to_pandas().drop(columns="event_id")


@pytest.fixture(scope="session")
def graph() -> TemporalRecGraph:
    """60 users, 60 films with titles, years and genres, about 11 events each."""
    return simulate_movielens(num_users=60, num_items=60, mean_events=11)[0]


@pytest.fixture(scope="session")
def fitted(graph: TemporalRecGraph) -> Callable[[str], Recommender]:
    """``fitted("sasrec")``: fitted on ``graph``; the same object at every call."""
    made: dict[str, Recommender] = {}

    def get(name: str) -> Recommender:
        if name not in made:
            rec = Recommender(name, **SETTINGS[name])
            made[name] = rec.fit(graph, epochs=4, lr=1e-2, batch_size=32, show=False)
        return made[name]

    return get
