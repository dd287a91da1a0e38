"""What each track tells of the time of the question, by hand."""

from __future__ import annotations

import pytest
import torch

from tgrec.data import Sampling, Targets, TemporalRecGraph
from tgrec.loader import TRACKS, SeedLoader, query_times
from tgrec.sampler import EventIndex
from tgrec.testing import toy_graph
from tgrec.testing.toy import MONDAY

# ann before jam (cut 9), cat before ham (cut 11), in a window of 5.
SEEDS = Targets(
    torch.tensor([0, 2]),
    torch.tensor([9, 11]),
    torch.tensor([2, 1]),
    MONDAY + torch.tensor([700_000, 800_000]),
)


def asked(track: str) -> list[list[int]] | None:
    loader = SeedLoader(EventIndex(toy_graph()), Sampling(max_len=5), track)  # type: ignore[arg-type]
    times = loader.batch(SEEDS).query_time
    return None if times is None else times.tolist()


def test_history_only_knows_no_question() -> None:
    assert asked("T1") is None


def test_query_time_is_that_of_the_next_event() -> None:
    # Entry j is when the event after the first j positions is asked for; padding has time 0.
    assert asked("T2") == [
        [0, MONDAY, MONDAY + 60, MONDAY + 3600, MONDAY + 700_000, MONDAY + 700_000],
        [0, 0, 0, MONDAY + 60, MONDAY + 3600, MONDAY + 800_000],
    ]


def test_coarse_query_time_is_rounded_up_to_the_hour() -> None:
    hour = 3600
    assert asked("T2-coarse") == [
        [0, MONDAY, MONDAY + hour, MONDAY + hour, MONDAY + 195 * hour, MONDAY + 195 * hour],
        [0, 0, 0, MONDAY + hour, MONDAY + hour, MONDAY + 223 * hour],
    ]
    assert 194 * hour < 700_000 < 195 * hour  # never rounded down: no question before its event


def test_coarse_time_hides_the_burst() -> None:
    history = SeedLoader(EventIndex(toy_graph()), Sampling(max_len=2)).batch(SEEDS).history
    assert history is not None
    seconds = torch.arange(1, 3601)
    rounded = {
        int(query_times("T2-coarse", history, torch.stack([MONDAY + s, MONDAY + s]))[0, -1])  # type: ignore[index]
        for s in seconds
    }
    assert rounded == {MONDAY + 3600}


def test_tracks_that_cannot_be() -> None:
    assert TRACKS == ("T1", "T2", "T2-coarse")
    history = SeedLoader(EventIndex(toy_graph()), Sampling(max_len=2)).batch(SEEDS).history
    assert history is not None
    with pytest.raises(ValueError, match=r"'track' needs to be one of .* \(got 'T3'\)"):
        query_times("T3", history, SEEDS.time)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="track T2 needs the times of events, and these data have none"
    ):
        query_times("T2", history, None)


def test_order_only_data_have_track_t1_only() -> None:
    table = toy_graph().to_pandas()[["user_id", "item_id"]]
    index = EventIndex(TemporalRecGraph.from_pandas(table, time=None))
    seeds = Targets(SEEDS.user, SEEDS.cut, SEEDS.item, None)
    batch = SeedLoader(index, Sampling(max_len=3)).batch(seeds, key=1)
    assert batch.query_time is None
    assert batch.item_time is None
    with pytest.raises(ValueError, match="track T2 needs the times"):
        SeedLoader(index, Sampling(max_len=3), "T2").batch(seeds)
