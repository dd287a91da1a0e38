"""A drawing of the neighbourhood of one user, in which older events fade."""

from __future__ import annotations

import os
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from tgrec.data import TemporalRecGraph
from tgrec.plots.canvas import new_figure, save_figure
from tgrec.plots.layout import Node, radial_layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NODES = 300  # more are a black disc
FAINTEST = 0.16  # opacity of the oldest event
USER, ITEM, RING = "#2563a8", "#e07b1f", "#d9dce1"
RELATIONS = ("#30343b", "#a3266e", "#1f7a4d", "#6b3fa0", "#8a6d1a", "#0f7285")
DAY = 86_400


def draw_ego(
    graph: TemporalRecGraph,
    path: str | os.PathLike[str] | None = None,
    ax: Axes | None = None,
    labels: str | bool = True,
    time: bool | None = None,
) -> Figure:
    """Draws a user's neighbourhood: circles by hop, one line per event, opacity by recency.

    The newest event is opaque and the oldest faint, in between opacity is linear in time (or in
    the order of the events). The user stands in the middle, users and items have a colour each,
    and so have several kinds of events. Nothing is shown on a screen and no state of matplotlib is
    changed; in a notebook the returned figure shows itself.

    Args:
        graph: What ``graph.ego(...)`` returns; with ``max_events`` it stays readable.
        path: Where to write the drawing: ``.png``, ``.svg`` or ``.pdf``.
        ax: Draws into these axes instead of into a new figure.
        labels: True: titles of items where the graph has them, else raw ids. A name: that string
            attribute of the items. False: no labels. Users are labelled with their raw ids.
        time: Whether opacity follows the time of the events or their order. None: the time where
            there is one.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the graph is not a neighbourhood or too large to be seen, or an argument
            cannot be used.
    """
    _check(graph, time)
    side = min(7.0 + 0.045 * (graph.num_users + graph.num_items), 14.0)
    figure = new_figure("draw_ego", (side, side), path)
    ax = figure.add_subplot() if ax is None else ax
    by_time = graph.has_time if time is None else time
    net = graph.to_networkx()
    places = radial_layout(net)
    _draw_rings(ax, net)
    _draw_events(ax, net, places, by_time)
    _draw_nodes(ax, net, places)
    if labels is not False:
        _draw_labels(ax, net, places, _item_labels(graph, labels))
    _draw_legend(ax, net, by_time)
    ax.set_title(_title(net, by_time), fontsize=12, pad=26)
    figure = ax.figure  # type: ignore[assignment]  # a part of a figure draws as well
    save_figure(figure, path, bbox_inches="tight")
    return figure


def opacities(clock: np.ndarray) -> np.ndarray:
    """``[E]`` from :data:`FAINTEST` (the oldest) to 1 (the newest), linear in ``clock``."""
    span = clock.max() - clock.min() if clock.size else 0
    if span == 0:
        return np.ones(clock.size)
    recency: np.ndarray = (clock - clock.min()) / span
    return FAINTEST + (1 - FAINTEST) * recency


def _check(graph: TemporalRecGraph, time: bool | None) -> None:
    """Raises for what cannot be drawn."""
    if any("hops" not in graph[node_type] for node_type in ("user", "item")):
        raise ValueError("'graph' needs to come from graph.ego(...): its nodes have no 'hops'")
    size = graph.num_users + graph.num_items
    if size > MAX_NODES:
        raise ValueError(
            f"'graph' has {size} nodes and {MAX_NODES} at most can be told apart; pass max_events "
            f"or fewer hops to ego"
        )
    if time and not graph.has_time:
        raise ValueError("'time' is True, but the events have only an order; leave it out")


def _item_labels(graph: TemporalRecGraph, labels: str | bool) -> dict[Node, str]:
    raw = graph.raw_ids("item")
    names = raw if isinstance(raw, list) else raw.tolist()
    attribute = labels if isinstance(labels, str) else "title"
    if isinstance(labels, str) or "title_bytes" in graph["item"]:
        texts = graph.strings("item", attribute)
    else:
        texts = [str(name) for name in names]
    return {("item", name): text for name, text in zip(names, texts, strict=True)}


def _draw_rings(ax: Axes, net: nx.MultiDiGraph) -> None:
    """A pale circle per hop."""
    from matplotlib.patches import Circle

    last = max(hop for _, hop in net.nodes(data="hops"))
    for hop in range(1, last + 1):
        ax.add_patch(Circle((0, 0), hop, fill=False, color=RING, linewidth=1, zorder=0))
    edge = max(last, 1) * 1.12
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    ax.set_axis_off()


def _clock(net: nx.MultiDiGraph, by_time: bool) -> np.ndarray:
    """``[E]`` times, or the places of the events in their order, by edge of ``net``."""
    if by_time:
        return np.array([time for *_, time in net.edges(data="time")], dtype=np.int64)
    events = np.array([event for *_, event in net.edges(data="event_id")], dtype=np.int64)
    return events.argsort().argsort()


def _relations(net: nx.MultiDiGraph) -> dict[str, str]:
    """The colour of each kind of event."""
    names = sorted({name for *_, name in net.edges(data="relation")})
    return {name: RELATIONS[i % len(RELATIONS)] for i, name in enumerate(names)}


def _draw_events(
    ax: Axes, net: nx.MultiDiGraph, places: dict[Node, tuple[float, float]], by_time: bool
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    colours = _relations(net)
    seen: dict[tuple[Node, Node], int] = {}
    lines, inks = [], []
    for user, item, relation in net.edges(data="relation"):
        number = seen[user, item] = seen.get((user, item), -1) + 1
        bend = number - (net.number_of_edges(user, item) - 1) / 2
        lines.append(_arc(places[user], places[item], 0.16 * bend))
        inks.append(to_rgb(colours[relation]))
    alpha = opacities(_clock(net, by_time))
    on_top = alpha.argsort(kind="stable")  # newer ones over older ones
    ax.add_collection(
        LineCollection(
            [lines[i] for i in on_top],
            colors=[(*inks[i], alpha[i]) for i in on_top],
            linewidths=1.8,
            zorder=1,
        )
    )


def _arc(start: tuple[float, float], end: tuple[float, float], bend: float) -> np.ndarray:
    """``[P, 2]`` points of a line from start to end; events between the same two bend apart."""
    a, b = np.array(start), np.array(end)
    along = b - a
    control = (a + b) / 2 + 2 * bend * np.array([-along[1], along[0]])
    t = np.linspace(0, 1, 2 if bend == 0 else 25)[:, None]
    points: np.ndarray = (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b
    return points


def _draw_nodes(ax: Axes, net: nx.MultiDiGraph, places: dict[Node, tuple[float, float]]) -> None:
    for kind, colour, marker in (("user", USER, "o"), ("item", ITEM, "s")):
        at = [places[n] for n, hop in net.nodes(data="hops") if n[0] == kind and hop > 0]
        if at:
            x, y = zip(*at, strict=True)
            ax.scatter(x, y, s=95, c=colour, marker=marker, zorder=3,
                       edgecolors="white", linewidths=1.2)  # fmt: skip
    ax.scatter(0, 0, s=520, c=USER, zorder=3, edgecolors="#111827", linewidths=3)


def _draw_labels(
    ax: Axes,
    net: nx.MultiDiGraph,
    places: dict[Node, tuple[float, float]],
    item_labels: dict[Node, str],
) -> None:
    last = max(hop for _, hop in net.nodes(data="hops"))
    for node, hop in net.nodes(data="hops"):
        text = item_labels.get(node, str(node[1]))
        x, y = places[node]
        style: dict[str, Any] = {"fontsize": 9, "color": "#20242b", "zorder": 4}
        if hop == 0:
            text, shift = textwrap.shorten(f"user {node[1]}", 30, placeholder="..."), (0.0, -19.0)
            style |= {"fontsize": 11, "fontweight": "bold", "ha": "center", "va": "top"}
        elif hop == last:  # away from the middle, where there is nothing but paper
            right, up = x / hop, y / hop
            side = "center" if abs(right) < 0.12 else "left" if right > 0 else "right"
            shift = (10 * right, 10 * up)
            style |= {"ha": side, "va": _vertical(up)}
        else:
            # Inwards, where a single line is, and not outwards, where a bundle of them is.
            shift = (0.0, -8.0 if y >= 0 else 8.0)
            style |= {"ha": "center", "va": "top" if y >= 0 else "bottom", "fontsize": 8.5}
        if hop < last:
            style["bbox"] = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
        # A title may hold dollar signs, which are no mathematics here.
        ax.annotate("\n".join(textwrap.wrap(text, 24, max_lines=2, placeholder="...")), (x, y),
                    shift, textcoords="offset points", parse_math=False, **style)  # fmt: skip


def _vertical(up: float) -> str:
    """Labels near the top stand on their node and those near the bottom hang from it."""
    if abs(up) < 0.75:
        return "center"
    return "bottom" if up > 0 else "top"


def _draw_legend(ax: Axes, net: nx.MultiDiGraph, by_time: bool) -> None:
    """What the marks mean, and which opacity is which date."""
    from matplotlib.lines import Line2D

    def mark(label: str, marker: str, colour: str, size: float, edge: str) -> Line2D:
        return Line2D([], [], linestyle="none", label=label, marker=marker, color=colour,
                      markersize=size, markeredgecolor=edge)  # fmt: skip

    kinds = [kind for kind, _ in net.nodes]
    handles = [mark("the user asked for", "o", USER, 12, "#111827")]
    if "item" in kinds:
        handles.append(mark("item", "s", ITEM, 8, "white"))
    if kinds.count("user") > 1:
        handles.append(mark("other user", "o", USER, 8, "white"))
    colours = _relations(net)
    if len(colours) > 1:
        handles += [Line2D([], [], color=c, label=name) for name, c in colours.items()]
    below = {"frameon": False, "fontsize": 9, "title_fontproperties": {"weight": "bold"}}
    title = "nodes" if len(colours) < 2 else "nodes and kinds of events"
    nodes = ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.04, -0.02),
                      title=title, alignment="left", **below)  # fmt: skip
    scale = [
        Line2D([], [], color=RELATIONS[0], linewidth=2.4, alpha=alpha, label=label)
        for alpha, label in _scale(net, by_time)
    ]
    if scale:
        ax.add_artist(nodes)  # a second legend would replace it
        nodes.set_clip_on(False)
        ax.legend(handles=scale, loc="upper left", bbox_to_anchor=(0.5, -0.02),
                  title="one line is one event; the newer, the more opaque", alignment="left",
                  **below)  # fmt: skip


def _title(net: nx.MultiDiGraph, by_time: bool) -> str:
    (middle,) = (node for node, hop in net.nodes(data="hops") if hop == 0)
    hops, size = max(hop for _, hop in net.nodes(data="hops")), net.number_of_edges()
    title = f"User {middle[1]}: {hops} hop{'s' * (hops != 1)}, {size} event{'s' * (size != 1)}"
    ends = [label.partition(" (")[0] for _, label in _scale(net, by_time)]
    return f"{title}, {ends[-1]} to {ends[0]}" if len(ends) > 1 else title


def _scale(net: nx.MultiDiGraph, by_time: bool) -> list[tuple[float, str]]:
    """Opacities and what they stand for, newest first."""
    values = [time for *_, time in net.edges(data="time" if by_time else "event_id")]
    if not values:
        return []
    newest, oldest = max(values), min(values)
    if newest == oldest:
        return [(1.0, f"{_moment(newest, 0, by_time)} (all events)")]
    if not by_time:
        return [(1.0, f"event {newest} (newest)"), (FAINTEST, f"event {oldest} (oldest)")]
    moments = np.linspace(newest, oldest, 4).round().astype(np.int64)
    notes = [" (newest)", "", "", " (oldest)"]
    alphas = opacities(moments)
    return [
        (float(alpha), _moment(int(moment), newest - oldest, by_time) + note)
        for alpha, moment, note in zip(alphas, moments, notes, strict=True)
    ]


def _moment(value: int, span: int, by_time: bool) -> str:
    if not by_time:
        return f"event {value}"
    form = "%Y-%m-%d" if span > 4 * DAY else "%Y-%m-%d %H:%M" if span > 240 else "%Y-%m-%d %H:%M:%S"
    return datetime.fromtimestamp(value, UTC).strftime(form)
