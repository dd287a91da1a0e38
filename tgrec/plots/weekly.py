"""A drawing of one user's weeks: what it did, what was predicted, and what came."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.plots.canvas import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAST, HIT, WRONG, MISSED, BAND = "#2563a8", "#1f7a4d", "#b3261e", "#e07b1f", "#f2f4f7"
ROWS = 28  # more cannot be read


@dataclass(frozen=True)
class UserWeeks:
    """What is drawn.

    Args:
        events: ``[R]`` item of each row, from the top.
        counts: ``[R, W]`` interactions by week; the last week is the one predicted.
        rank: ``[R]`` place in the list of predictions, from 1; 0 for what was not predicted.
        left_out: Events of the user that have no row.
    """

    events: Tensor
    counts: Tensor
    rank: Tensor
    left_out: int


def draw_weeks(
    graph: TemporalRecGraph,
    user: int,
    cuts: Sequence[int],
    names: Sequence[str],
    predicted: Sequence[int],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws a row per event and a column per week; the last column holds predictions and truth.

    Predicted events stand at the top in their order, then those that came unpredicted, then what
    the user did most often and latest. Dots grow with the count.

    Args:
        graph: One kind of events.
        user: Index (:meth:`tgrec.data.TemporalRecGraph.index_of` has it for a raw id).
        cuts: ``W + 1`` event ids, where each week begins and the last one ends.
        names: ``[W]`` of the weeks.
        predicted: Items predicted for the last week, best first.
        path: Where to write the drawing: ``.png``, ``.svg`` or ``.pdf``.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the user is unknown, or an argument cannot be used.
    """
    if len(cuts) != len(names) + 1 or len(names) < 2:
        raise ValueError(
            f"'names' needs one name per week and at least 2 (got {len(names)} for {len(cuts)} "
            f"cuts)"
        )
    if not 0 <= user < graph.num_users:
        raise ValueError(f"'user' needs to be in 0..{graph.num_users - 1} (got {user})")
    rows = user_weeks(graph, user, cuts, predicted)
    height = 1.9 + 0.27 * max(len(rows.events), 4)
    figure = new_figure("draw_weeks", (4.2 + 0.72 * len(names), height), path, layout="constrained")
    ax = figure.add_subplot()
    _draw_marks(ax, rows)
    _draw_frame(ax, rows, names, _labels(graph, rows))
    _draw_title(ax, rows, graph.raw_ids("user")[user], names[-1])
    save_figure(figure, path)
    return figure


def user_weeks(
    graph: TemporalRecGraph, user: int, cuts: Sequence[int], predicted: Sequence[int]
) -> UserWeeks:
    """What :func:`draw_weeks` draws; ``user`` is an index."""
    (kind,) = graph.interaction_types
    store = graph[kind]
    mine = (store.edge_index[0] == user).nonzero().view(-1).cpu()
    item, event_id = store.edge_index[1].cpu()[mine], store.event_id.cpu()[mine]
    count = store.edge_attr.view(-1).cpu()[mine] if "edge_attr" in store else torch.ones(len(mine))
    week = torch.searchsorted(torch.tensor(list(cuts)), event_id, right=True) - 1
    inside = (week >= 0) & (week < len(cuts) - 1)
    table = torch.zeros(graph.num_items, len(cuts) - 1)
    table.index_put_((item[inside], week[inside]), count[inside].float(), accumulate=True)
    rank = torch.zeros(graph.num_items, dtype=torch.int64)
    rank[list(predicted)] = torch.arange(1, len(predicted) + 1)
    there = ((table.sum(dim=1) > 0) | (rank > 0)).nonzero().view(-1).tolist()
    latest = (table > 0) * torch.arange(1, len(cuts))

    def order(i: int) -> tuple[float, ...]:
        place, came = int(rank[i]), bool(table[i, -1] > 0)
        return (place == 0, place, not came, -float(table[i, :-1].sum()), -int(latest[i].max()))

    rows = torch.tensor(sorted(there, key=order)[:ROWS], dtype=torch.int64)
    return UserWeeks(rows, table[rows], rank[rows], max(0, len(there) - ROWS))


def _draw_marks(ax: Axes, rows: UserWeeks) -> None:
    last = rows.counts.size(1) - 1
    ax.axvspan(last - 0.5, last + 0.5, color=BAND, zorder=0)
    # Below what was predicted, and below what came.
    asked, came = rows.rank > 0, rows.counts[:, -1] > 0
    for y in (int(asked.sum()), int((asked | came).sum())):
        ax.axhline(y - 0.5, color="#8b929c", linewidth=0.9, zorder=1)
    for y, (counts, rank) in enumerate(zip(rows.counts.tolist(), rows.rank.tolist(), strict=True)):
        ax.axhline(y, color="#e3e6ea", linewidth=0.6, zorder=0)
        for x, count in enumerate(counts[:-1]):
            if count:
                ax.scatter(x, y, s=_area(count), color=PAST, zorder=2)
        came = counts[-1]
        if came:
            ax.scatter(last, y, s=_area(came), color=HIT if rank else MISSED, zorder=2)
        elif rank:
            ax.scatter(last, y, s=48, color=WRONG, marker="x", linewidths=1.8, zorder=2)


def _draw_frame(ax: Axes, rows: UserWeeks, names: Sequence[str], labels: list[str]) -> None:
    from matplotlib.lines import Line2D

    ax.set_xticks(range(len(names)), names, rotation=0 if len(max(names, key=len)) < 4 else 45)
    ax.set_yticks(range(len(labels)), labels, fontsize=8.5, parse_math=False)
    ax.set(xlim=(-0.6, len(names) - 0.4), ylim=(len(labels) - 0.4, -0.8))
    ax.set_xlabel("week")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)

    def mark(label: str, colour: str, marker: str = "o") -> Line2D:
        return Line2D([], [], linestyle="none", marker=marker, color=colour, label=label,
                      markersize=7)  # fmt: skip

    handles = [
        mark("before (size: how often)", PAST),
        mark("predicted and came", HIT),
        mark("predicted, did not come", WRONG, "x"),
        mark("came unpredicted", MISSED),
    ]
    ax.figure.legend(
        handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )


def _draw_title(ax: Axes, rows: UserWeeks, user: Any, week: str) -> None:
    came = rows.counts[:, -1] > 0
    hits, asked = int((came & (rows.rank > 0)).sum()), int((rows.rank > 0).sum())
    name = int(user) if isinstance(user, Tensor) else user
    title = f"User {name}: {hits} of {asked} predictions for week {week} came true"
    if rows.left_out:
        title += f"\n{rows.left_out} further events of the user are not drawn"
    ax.set_title(title, fontsize=11, loc="left", parse_math=False)


def _labels(graph: TemporalRecGraph, rows: UserWeeks) -> list[str]:
    raw = graph.raw_ids("item")
    known = graph.strings("item", "title") if "title_bytes" in graph["item"] else None
    out = []
    for event, rank in zip(rows.events.tolist(), rows.rank.tolist(), strict=True):
        name = str(raw[event]) if isinstance(raw, list) else f"event {int(raw[event])}"
        if known is not None and known[event]:
            name = known[event][:34].capitalize()
        out.append(f"{rank}.  {name}" if rank else name)
    return out


def _area(count: float) -> float:
    return float(26 + 22 * min(count, 9.0))
