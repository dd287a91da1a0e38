"""Moments, in whatever way a person writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tgrec.data import Targets, TemporalRecGraph
from tgrec.datasets import simulate_movielens
from tgrec.loader import SeedLoader
from tgrec.models import MODELS
from tgrec.recommend import Recommender
from tgrec.recommend.served import unix_seconds
from tgrec.sampler import EventIndex

Fitted = Callable[[str], Recommender]
SECONDS = 1_363_000_000
STAMP = pd.Timestamp(SECONDS, unit="s")


@pytest.mark.parametrize(
    "written",
    [
        SECONDS,
        SECONDS + 0.5,
        SECONDS * 1000,
        SECONDS * 1000.0 + 999,
        SECONDS * 10**6,
        SECONDS * 10**9,
        np.int64(SECONDS * 1000),
        torch.tensor(SECONDS * 1000),
        *(np.datetime64(SECONDS * 1000**i, unit) for i, unit in enumerate(("s", "ms", "us", "ns"))),
        np.datetime64(SECONDS * 10**9 + 999_999_999, "ns"),
        STAMP,
        STAMP.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        datetime.fromtimestamp(SECONDS, UTC),
        str(STAMP),
    ],
)
def test_one_moment_in_every_unit(written: Any) -> None:
    assert unix_seconds(written, "at") == SECONDS


def test_days_years_and_what_lies_before_1970() -> None:
    assert unix_seconds(date(1970, 1, 2), "at") == unix_seconds("1970-01-02", "at") == 86400
    assert unix_seconds("2013", "at") == unix_seconds(np.datetime64("2013"), "at")
    assert unix_seconds(np.datetime64(-500, "ms"), "at") == unix_seconds(-0.5, "at") == -1
    assert unix_seconds(np.datetime64(86_400_000_000_000, "ns"), "at") == 86400  # a small number


@pytest.mark.parametrize("wrong", [np.datetime64("NaT"), np.timedelta64(5, "s"), 2**63, "12"])
def test_what_is_no_moment(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'at' needs to be Unix seconds or a date"):
        unix_seconds(wrong, "at")


def test_finer_moments_do_not_let_the_future_in(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec, events = fitted("gap_markov"), graph.to_pandas()
    times = events[events["user_id"] == 7]["timestamp"]
    at = int(times.iloc[len(times) // 2])
    then = rec.recommend(7, at=at)
    assert not then.equals(rec.recommend(7))
    for written in (at * 1000, np.datetime64(at * 10**9, "ns"), float(at * 10**6)):
        assert rec.recommend(7, at=written).equals(then)


def test_times_of_a_history_in_every_unit(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec, events = fitted("gap_markov"), graph.to_pandas()
    mine = events[events["user_id"] == 7]
    history, times = mine["item_id"].to_numpy(), mine["timestamp"].to_numpy()
    wanted = rec.recommend(history=history, times=times)
    stamps = pd.Series(pd.to_datetime(times, unit="s"))
    finer: list[Any] = [times * 1000, stamps, torch.from_numpy(times * 10**6)]
    finer += [stamps.to_numpy().astype(f"datetime64[{unit}]") for unit in ("s", "ms", "us", "ns")]
    for written in finer:
        assert rec.recommend(history=history, times=written).equals(wanted)


@pytest.mark.parametrize("name", ["popularity", "markov", "gap_markov"])
def test_counts_of_the_past_know_nothing_of_what_came_later(name: str) -> None:
    """What only counts says at a moment what it would have said then."""
    graph = simulate_movielens(num_users=40, num_items=60, mean_events=12)[0]
    rec = Recommender(name).fit(graph, show=False)
    times = graph[graph.interaction_types[0]].time
    for share in (0.3, 0.7):
        at = int(times[int(share * times.numel())])
        cut = graph.event_id_at(at)
        then = MODELS[name].from_graph(graph.before(cut)).eval()
        user = torch.arange(graph.num_users)
        loader = SeedLoader(EventIndex(graph), then.sampling)
        batch = loader.batch(Targets(user, torch.full_like(user, cut), item=user * 0))
        pairs = [(int(u), int(i)) for u in graph.raw_ids("user") for i in graph.raw_ids("item")]
        said = torch.from_numpy(rec.batch_predict(pairs, at=at)).view(graph.num_users, -1)
        torch.testing.assert_close(said, then.score(batch))
        assert not torch.allclose(said, rec.model.score(batch))
    first = rec.recommend(int(graph.raw_ids("user")[0]), top_k=30, at=int(times.max()) + 10)
    assert len(first) > 0
    with pytest.warns(UserWarning, match="60 of them had not been met by then"):
        assert rec.recommend(int(graph.raw_ids("user")[0]), at=int(times.min()) - 10).empty
