from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets import weekly_graph
from tgrec.plots import draw_weeks
from tgrec.plots.weekly import ROWS, user_weeks

NAMES = ["1", "2", "3"]


@pytest.fixture
def graph() -> TemporalRecGraph:
    rows = [("a", 5, 2, 1), ("a", 6, 1, 1), ("b", 5, 9, 1), ("a", 6, 4, 2), ("a", 7, 1, 2),
            ("a", 5, 1, 3), ("a", 8, 3, 3), ("b", 9, 1, 3)]  # fmt: skip
    columns = ["ip_address", "pixel_event_id", "n_interactions", "week_number"]
    return weekly_graph(pd.DataFrame(rows, columns=columns))


def cuts(graph: TemporalRecGraph) -> list[int]:
    return [graph.event_id_at(345_600 + 604_800 * week) for week in range(1, 5)]


def test_rows_are_predictions_then_what_came_then_the_past(graph: TemporalRecGraph) -> None:
    # Events 5..9 are the items 0..4; predicted are event 9 (which did not come) and event 5.
    rows = user_weeks(graph, 0, cuts(graph), [4, 0])
    assert rows.events.tolist() == [4, 0, 3, 1, 2]
    assert rows.rank.tolist() == [1, 2, 0, 0, 0]
    assert rows.counts.tolist() == [[0, 0, 0], [2, 0, 1], [0, 0, 3], [1, 4, 0], [0, 1, 0]]
    assert rows.left_out == 0


def test_the_drawing_says_what_came_true(graph: TemporalRecGraph, tmp_path: Path) -> None:
    figure = draw_weeks(graph, 0, cuts(graph), NAMES, [4, 0], tmp_path / "user.png")
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "User a: 1 of 2 predictions for week 3 came true"
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["1.  event 9", "2.  event 5", "event 8", "event 6", "event 7"]
    assert [text.get_text() for text in ax.get_xticklabels()] == NAMES
    # A mark per (event, week) with interactions, and a cross for what did not come.
    assert len(ax.collections) == 7
    assert (tmp_path / "user.png").read_bytes().startswith(b"\x89PNG")


def test_a_busy_user_is_cut_down(graph: TemporalRecGraph) -> None:
    rows = [("a", event, 1, 1 + event % 3) for event in range(ROWS + 10)]
    columns = ["ip_address", "pixel_event_id", "n_interactions", "week_number"]
    busy = weekly_graph(pd.DataFrame(rows, columns=columns))
    figure = draw_weeks(busy, 0, cuts(busy), NAMES, [0, 1])
    assert "10 further events of the user are not drawn" in figure.axes[0].get_title(loc="left")
    assert len(figure.axes[0].get_yticklabels()) == ROWS


def test_what_cannot_be_drawn(graph: TemporalRecGraph, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'names' needs one name per week"):
        draw_weeks(graph, 0, cuts(graph), ["1", "2"], [0])
    with pytest.raises(ValueError, match=r"'user' needs to be in 0\.\.1"):
        draw_weeks(graph, 2, cuts(graph), NAMES, [0])
    with pytest.raises(ValueError, match="'path' needs to end in"):
        draw_weeks(graph, 0, cuts(graph), NAMES, [0], tmp_path / "user.bmp")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_what_to_install(
    graph: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="draw_weeks needs matplotlib"):
        draw_weeks(graph, 0, cuts(graph), NAMES, [0])


def test_counts_are_added_where_the_graph_has_none(graph: TemporalRecGraph) -> None:
    plain = graph.before(graph.num_events)
    del plain["user", "interacts", "item"]["edge_attr"]
    assert user_weeks(plain, 0, cuts(graph), [0]).counts.max() == 1
    assert torch.equal(user_weeks(plain, 1, cuts(graph), [2]).events, torch.tensor([2, 4, 0]))
