"""The data card: counted by hand, and the leak against brute force."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph, graph_from, leave_one_out
from tgrec.datasets import DataCard, Leak, data_card, leave_one_out_leak

#         time       1  2  3  3  5  6  7  8
HAND = list(zip("aaabbbbc", "xyzzxyxx", [1, 2, 3, 3, 5, 6, 7, 8], strict=True))


def graph_of(rows: list[tuple[str, str, int]], **columns: list[float]) -> TemporalRecGraph:
    table = pd.DataFrame(rows, columns=["user", "item", "time"]).assign(**columns)
    return graph_from(table)


def test_a_card_counted_by_hand() -> None:
    card = data_card(graph_of(HAND, rating=[1, 2, 3, 4, 5, 5, 5, 5]))
    assert (card.users, card.items, card.items_with_events, card.events) == (3, 3, 3, 8)
    assert card.density == pytest.approx(8 / 9)
    assert (card.first_time, card.last_time) == (1, 8)
    assert card.tied_pairs == 0.0  # a and b share second 3, but ties are within a user
    assert card.history == {"0": 1, "0.25": 1, "0.5": 3, "0.75": 4, "0.9": 4, "1": 4}
    assert card.short_users == 1
    assert card.ratings == (1.0, 3.75, 5.0)
    # Training has a: x at 1; b: z at 3, x at 5; c: x at 8. The targets are z of a, in event 2 of
    # 0..7, with 3 of 4 training events later, one of them of z; and x of b at 7, with 1 of 4 later.
    assert card.leak == Leak(targets=2, later_events=0.5, later_target_item=1.0)


def test_ratings_of_the_card_are_those_that_are_known() -> None:
    unknown = math.nan
    card = data_card(graph_of(HAND, rating=[1, unknown, 3, 4, 5, 5, 5, unknown]))
    assert card.ratings == (1.0, pytest.approx(23 / 6), 5.0)
    graph = graph_of(HAND, rating=[1.0] * 8)
    for rating in (unknown, math.inf):
        graph["user", "rates", "item"].rating.fill_(rating)
        assert data_card(graph).ratings is None
    json.dumps(card.to_dict(), allow_nan=False)


ROWS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"), st.integers(0, 9)),
    min_size=4,
    max_size=30,
)


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_the_leak_by_brute_force(rows: list[tuple[str, str, int]]) -> None:
    graph = graph_of(rows)
    ordered = [row for _, row in sorted(enumerate(rows), key=lambda p: (p[1][2], p[0]))]
    own = {u: [n for n, row in enumerate(ordered) if row[0] == u] for u, _, _ in rows}
    asked = {u: places for u, places in own.items() if len(places) >= 3}
    if not asked:
        assert data_card(graph).leak is None
        with pytest.raises(ValueError, match="at least 3 events"):
            leave_one_out_leak(graph)
        return
    held = {n for places in asked.values() for n in places[-2:]}
    train = [n for n in range(len(rows)) if n not in held]
    later = [sum(n > places[-1] for n in train) / len(train) for places in asked.values()]
    same = [
        any(n > places[-1] and ordered[n][1] == ordered[places[-1]][1] for n in train)
        for places in asked.values()
    ]
    leak = leave_one_out_leak(graph)
    assert leak.targets == len(asked)
    assert leak.later_events == pytest.approx(sum(later) / len(later), abs=1e-4)
    assert leak.later_target_item == pytest.approx(sum(same) / len(same), abs=1e-4)


def test_users_one_after_the_other_in_time_leak_all_that_comes_later() -> None:
    # Each user is over before the next begins: all later users' training events are later.
    rows = [(u, i, 10 * n + k) for n, u in enumerate("abc") for k, i in enumerate("xyz")]
    assert leave_one_out_leak(graph_of(rows)).later_events == pytest.approx(1 / 3, abs=1e-4)
    assert len(leave_one_out(graph_of(rows)).train.to_pandas()) == 3


def test_without_times_no_leak_is_claimed() -> None:
    graph = graph_from(pd.DataFrame({"user": [1] * 4, "item": [1, 2, 3, 4]}))
    card = data_card(graph)
    assert (card.leak, card.first_time, card.tied_pairs) == (None, None, None)
    assert "unknown without times" in str(card)
    with pytest.raises(ValueError, match="'graph' has no times"):
        leave_one_out_leak(graph)


def test_it_fits_a_screen_and_becomes_json(capsys: pytest.CaptureFixture[str]) -> None:
    rich = pytest.importorskip("rich")
    card = data_card(graph_of(HAND))
    again = json.loads(json.dumps(card.to_dict()))
    assert again["leak"]["later_events"] == 0.5
    assert set(again) == set(DataCard.__dataclass_fields__)
    rich.get_console().width = 80
    rich.print(card)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 24
    for name, text in card.rows():
        assert name in shown
        assert text.split()[0] in shown
    assert str(card).count("\n") == len(card.rows()) - 1


def test_a_graph_without_events_has_no_card() -> None:
    graph = graph_of(HAND)
    with pytest.raises(ValueError, match="'graph' has no events"):
        data_card(graph.before(0))
