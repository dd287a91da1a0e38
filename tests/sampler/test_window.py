"""Windows by hand; against brute force they stand in test_neighbor.py."""

from __future__ import annotations

import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.sampler.window import Window, visible
from tgrec.testing import scramble_future, toy_graph
from tgrec.testing.toy import MONDAY

REV = ("item", "rev_rates", "user")


def seen(window: Window, cuts: list[int], graph: TemporalRecGraph | None = None) -> list[set[int]]:
    """The events that each cut sees through a window, counted from what ``visible`` returns."""
    index = EventIndex(toy_graph() if graph is None else graph)
    columns = torch.tensor(cuts).unsqueeze(1).repeat(1, 2)  # a column is not contiguous
    cut, floor = visible(index, columns[:, 0], window)
    return [
        {e for e in index.event_id.tolist() if low <= e < high}
        for low, high in zip(floor.tolist(), cut.tolist(), strict=True)
    ]


def test_seconds_count_back_from_the_newest_event_before_the_cut() -> None:
    # Events 2, 3, 4 lie 60 s, 5 and 6 an hour, 7 a day behind the first two.
    assert seen(1, [0, 1, 2, 3, 5]) == [set(), {0}, {0, 1}, {2}, {2, 3, 4}]
    assert seen(60, [5]) == [{2, 3, 4}]  # less than 60 s older: the first two are not
    assert seen(61, [5]) == [{0, 1, 2, 3, 4}]
    # The clock is the log, not the seed: before event 8, ten days later, event 7 is the newest.
    assert seen(86_400, [8]) == [set(range(2, 8))]
    assert seen(82_801, [8]) == [{5, 6, 7}]
    assert seen(86_401, [8]) == [set(range(8))]
    assert seen(10**9, [12, 99, 10**15]) == [set(range(12))] * 3
    assert seen(1, [-5]) == [set()]


def test_a_range_is_half_open_and_ends_at_the_cut() -> None:
    assert seen((MONDAY, MONDAY + 60), [12]) == [{0, 1}]
    assert seen((MONDAY + 60, MONDAY + 3601), [4, 12]) == [{2, 3}, {2, 3, 4, 5, 6}]
    assert seen((MONDAY + 1, MONDAY + 60), [12]) == [set()]
    assert seen((0, MONDAY), [12]) == [set()]
    assert seen((MONDAY + 10**8, MONDAY + 10**9), [12, 99]) == [set(), set()]
    assert seen((0, 2**62), [7, 99]) == [set(range(7)), set(range(12))]


def test_event_ids_with_gaps() -> None:
    graph = toy_graph()
    graph["user", "rates", "item"].event_id = torch.arange(12) * 10 + 5
    assert seen(1, [25, 26, 36], graph) == [{5, 15}, {25}, {25, 35}]
    assert seen((MONDAY + 60, MONDAY + 61), [40, 10**6], graph) == [{25, 35}, {25, 35, 45}]


@pytest.mark.parametrize("window", [1, 4000, (MONDAY, MONDAY + 4000), (MONDAY + 30, 2**40)])
@pytest.mark.parametrize("cut", [0, 4, 8, 12, 20])
def test_the_future_moves_no_window(window: Window, cut: int) -> None:
    sampler = [
        TemporalNeighborSampler(EventIndex(g), [2, 2], "uniform", window=window)
        for g in (toy_graph(), scramble_future(toy_graph(), cut, 1))
    ]
    user = torch.arange(4)
    one, two = (s.sample({"user": (user, torch.full_like(user, cut), user)}) for s in sampler)
    assert all(torch.equal(one.edge[t], two.edge[t]) for t in one.edge)


def test_with_the_time_of_edges_the_window_stays_that_of_the_seed() -> None:
    # ann before jam: rye is the newest event; through an hour nothing else is seen of rye either.
    for hop_time in ("seed", "edge"):
        sampler = TemporalNeighborSampler(
            EventIndex(toy_graph()), [-1, -1], hop_time=hop_time, window=3600
        )
        out = sampler.sample({"user": (torch.tensor([0]), torch.tensor([9]), torch.tensor([0]))})
        assert out.edge[REV].tolist() == [8]
        assert out.edge["user", "rates", "item"].tolist() == ([8] if hop_time == "seed" else [])


def test_no_events() -> None:
    assert seen(5, [0, 9], toy_graph().before(0)) == [set(), set()]
    assert seen((0, 5), [0, 9], toy_graph().before(0)) == [set(), set()]


@pytest.mark.parametrize(
    "window", [0, -5, True, 1.5, "7d", [0, 5], (5, 5), (6, 5), (1, 2, 3), (0.5, 9), (None, 9), ()]
)
def test_bad_windows_are_explained(window: object) -> None:
    with pytest.raises(ValueError, match="'window' needs to be"):
        TemporalNeighborSampler(EventIndex(toy_graph()), [2], window=window)


def test_windows_need_times() -> None:
    table = toy_graph().to_pandas()[["user_id", "item_id"]]
    index = EventIndex(TemporalRecGraph.from_pandas(table, time=None))
    for window in (60, (0, 60)):
        with pytest.raises(ValueError, match="'window' needs event times"):
            TemporalNeighborSampler(index, [2], window=window)
