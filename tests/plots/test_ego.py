"""The drawing of a neighbourhood: where nodes are, what opacity says, what is written."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from tgrec.data import TemporalRecGraph
from tgrec.plots import draw_ego, radial_layout
from tgrec.plots.ego import FAINTEST, MAX_NODES, opacities
from tgrec.testing import toy_graph
from tgrec.testing.toy import MONDAY

ROOT = Path(__file__).resolve().parents[2]


def graph_of(rows: list[tuple[Any, ...]], titles: list[str] | None = None) -> TemporalRecGraph:
    """Rows of user, item, second and kind."""
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"])
    items = pd.DataFrame({"item_id": sorted(table["item_id"].unique())})
    return TemporalRecGraph.from_pandas(
        table, relation="kind", items=items if titles is None else items.assign(title=titles)
    )


def lines(figure: Figure) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and colour of every event drawn, in the order in which they were."""
    (found,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    return list(zip(found.get_segments(), found.get_colors(), strict=True))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def legend(figure: Figure) -> dict[str, float]:
    """What the legends say, and the opacity beside it."""
    found = figure.axes[0].findobj(lambda artist: type(artist).__name__ == "Legend")
    return {
        text.get_text(): handle.get_alpha() or 1.0
        for one in found
        for text, handle in zip(one.get_texts(), one.legend_handles, strict=True)
    }


# ---- layout ----------------------------------------------------------------------------------


def test_hops_are_circles_and_the_latest_stands_at_the_top() -> None:
    net = toy_graph().ego("ann", hops=2).to_networkx()
    places = radial_layout(net)
    for node, hop in net.nodes(data="hops"):
        assert math.hypot(*places[node]) == pytest.approx(hop)
    # ann's items from the latest event to the oldest: jam rye fig ham tea, clockwise.
    angles = {n: math.atan2(*places["item", n]) % (2 * math.pi) for n in ("jam", "rye", "fig")}
    assert angles["jam"] == pytest.approx(0)
    assert angles["jam"] < angles["rye"] < angles["fig"]
    # dan hangs at jam, the only item that he shares; bob at rye, his latest.
    assert places["user", "dan"] == pytest.approx(np.multiply(places["item", "jam"], 2))
    assert places["user", "bob"] == pytest.approx(np.multiply(places["item", "rye"], 2))


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=40
    ),
    st.integers(0, 5),
    st.none() | st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_two_nodes_lie_on_each_other(
    rows: list[tuple[int, int, int]], hops: int, max_events: int | None
) -> None:
    graph = graph_of([(*row, "view") for row in rows]).ego(
        rows[0][0], hops=hops, max_events=max_events
    )
    net = graph.to_networkx()
    places = radial_layout(net)
    assert set(places) == set(net.nodes)
    points = np.array(list(places.values()))
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert (apart[~np.eye(len(points), dtype=bool)] > 0.02).all()


# ---- opacity ---------------------------------------------------------------------------------


def test_opacity_is_linear_from_the_oldest_to_the_newest() -> None:
    assert opacities(np.array([30, 10, 20])).tolist() == pytest.approx(
        [1.0, FAINTEST, (1 + FAINTEST) / 2]
    )
    assert opacities(np.array([7, 7])).tolist() == [1.0, 1.0]
    assert opacities(np.array([])).tolist() == []
    assert FAINTEST > 0.1  # fainter could not be seen


ONE_HOP = [("a", "x", 0, "view"), ("a", "y", 900, "view"), ("a", "z", 1000, "view")]


@pytest.mark.parametrize(
    ("time", "middle"), [(None, 0.9), (True, 0.9), (False, 0.5)], ids=["default", "time", "order"]
)
def test_lines_fade_by_time_or_by_order(time: bool | None, middle: float) -> None:
    figure = draw_ego(graph_of(ONE_HOP).ego("a"), time=time)
    drawn = lines(figure)
    # The oldest lies at the bottom, the newest over all others.
    alphas = [colour[3] for _, colour in drawn]
    assert alphas == pytest.approx([FAINTEST, FAINTEST + (1 - FAINTEST) * middle, 1.0])
    net = graph_of(ONE_HOP).ego("a").to_networkx()
    ends = [points[-1].tolist() for points, _ in drawn]
    assert np.allclose(ends, [radial_layout(net)["item", name] for name in "xyz"])


def test_the_legend_tells_dates_and_opacities() -> None:
    said = legend(draw_ego(toy_graph().ego("ann", hops=2)))
    assert said["2001-09-19 (newest)"] == 1.0  # MONDAY and 800,000 seconds
    assert said["2001-09-10 (oldest)"] == pytest.approx(FAINTEST)
    assert len([text for text in said if text.startswith("2001")]) == 4
    assert {"the user asked for", "item", "other user"} <= said.keys()
    assert "other user" not in legend(draw_ego(toy_graph().ego("ann")))


@pytest.mark.parametrize(
    ("span", "text"),
    [(20 * 86_400, "2001-09-30 (newest)"), (7_200, "2001-09-10 02:00 (newest)"),
     (5, "2001-09-10 00:00:05 (newest)"), (0, "2001-09-10 00:00:00 (all events)")],
)  # fmt: skip
def test_dates_are_as_fine_as_they_need_to_be(span: int, text: str) -> None:
    rows = [("a", "x", MONDAY, "view"), ("a", "y", MONDAY + span, "view")]
    assert text in legend(draw_ego(graph_of(rows).ego("a")))


def test_events_without_times_fade_by_their_order() -> None:
    table = pd.DataFrame({"user_id": [1, 2, 1, 1], "item_id": [1, 1, 2, 3]})
    graph = TemporalRecGraph.from_pandas(table, time=None)
    figure = draw_ego(graph.ego(1))
    half = (1 + FAINTEST) / 2  # the second of the three events that are drawn
    assert [colour[3] for _, colour in lines(figure)] == pytest.approx([FAINTEST, half, 1.0])
    assert {"event 3 (newest)", "event 0 (oldest)"} <= legend(figure).keys()
    with pytest.raises(ValueError, match="'time' is True, but the events have only an order"):
        draw_ego(graph.ego(1), time=True)


# ---- what is drawn ---------------------------------------------------------------------------


def test_users_items_and_the_user_asked_for_look_different() -> None:
    figure = draw_ego(toy_graph().ego("ann", hops=2))
    found = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    others, items, asked = found
    assert [len(c.get_offsets()) for c in found] == [3, 5, 1]
    assert others.get_facecolor().tolist() == asked.get_facecolor().tolist()
    assert others.get_facecolor().tolist() != items.get_facecolor().tolist()
    assert asked.get_sizes()[0] > 4 * others.get_sizes()[0]
    assert asked.get_offsets().tolist() == [[0, 0]]
    assert figure.axes[0].get_title() == "User ann: 2 hops, 12 events, 2001-09-10 to 2001-09-19"


def test_events_between_the_same_two_are_lines_of_their_own() -> None:
    rows = [("a", "x", second, "buy" if second == 2 else "view") for second in range(3)]
    figure = draw_ego(graph_of(rows).ego("a"))
    drawn = lines(figure)
    middles = [points[len(points) // 2] for points, _ in drawn]
    apart = np.linalg.norm(np.array(middles)[:, None] - np.array(middles)[None], axis=2)
    assert (apart[~np.eye(3, dtype=bool)] > 0.05).all()
    # Kinds of events have colours, which the legend names.
    inks = [tuple(colour[:3]) for _, colour in drawn]
    assert inks[0] == inks[1] != inks[2]
    assert {"buy", "view"} <= legend(figure).keys()


def test_labels() -> None:
    titles = [
        "A Film of $5 and $10",
        "Plain",
        "A Very Long Title That Goes On and On and On and On",
    ]
    graph = graph_of(ONE_HOP, titles).ego("a")
    said = texts(draw_ego(graph))
    assert said[0] == "user a"
    assert said[1] == "A Film of $5 and $10"
    assert said[3].count("\n") == 1
    assert said[3].endswith("...")
    assert texts(draw_ego(graph, labels="title")) == said
    assert texts(draw_ego(graph, labels=False)) == []
    assert texts(draw_ego(graph_of(ONE_HOP).ego("a"))) == ["user a", "x", "y", "z"]
    with pytest.raises(ValueError, match="'item' has no strings 'name'; it has"):
        draw_ego(graph, labels="name")


def test_a_user_alone_is_drawn() -> None:
    figure = draw_ego(toy_graph().ego("dan", cut=0))
    assert texts(figure) == ["user dan"]
    assert figure.axes[0].get_title() == "User dan: 0 hops, 0 events"


def test_given_axes_are_drawn_into() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw_ego(toy_graph().ego("ann"), ax=right) is figure
    assert not left.collections
    assert right.collections


# ---- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("b/c.SVG", b"<?xml"), ("d.pdf", b"%PDF")]
)
def test_the_suffix_is_the_format(name: str, start: bytes, tmp_path: Path) -> None:
    graph = graph_of(ONE_HOP, ["$\\frac{1}{$", "Caf\u00e9", "<&>"]).ego("a")
    draw_ego(graph, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_bad_arguments_are_explained(tmp_path: Path) -> None:
    graph = toy_graph()
    with pytest.raises(ValueError, match=r"'path' needs to end in one of .*got 'picture.gif'"):
        draw_ego(graph.ego("ann"), "picture.gif")
    with pytest.raises(ValueError, match=r"'graph' needs to come from graph.ego"):
        draw_ego(graph, tmp_path / "a.png")
    many = graph_of([("a", i, i, "view") for i in range(MAX_NODES)])
    with pytest.raises(ValueError, match=r"'graph' has 301 nodes .* pass max_events"):
        draw_ego(many.ego("a"))
    assert list(tmp_path.iterdir()) == []


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_no_screen_is_needed_and_no_state_of_matplotlib_touched(tmp_path: Path) -> None:
    # A backend that is not there would fail as soon as anything asked for it.
    done = run(
        "import sys, matplotlib\n"
        "before = dict(matplotlib.rcParams)\n"
        "from tgrec.plots import draw_ego\n"
        "from tgrec.testing import toy_graph\n"
        f"draw_ego(toy_graph().ego('ann'), {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert dict(matplotlib.rcParams) == before\n",
        MPLBACKEND="gtk4agg",
    )
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="python -m pip install matplotlib"):
        draw_ego(toy_graph().ego("ann"))


# ---- the example -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_draws_where_it_is_told(tmp_path: Path) -> None:
    words = [str(ROOT / "examples" / "ego_graph.py"), "--user", "11", "--out", "pictures/ego.svg"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Simulated Film" in done.stdout
    assert "2 hops, 5 latest events each" in done.stdout
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")] == [
        str(Path("pictures") / "ego.svg")
    ]
