"""Drawings of training runs: what was followed over epochs, ranks, and what a model attends to."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tgrec.plots.canvas import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Entry = Mapping[str, Any]
SIZE = (7.2, 4.4)
# Ticks of an axis of seconds, with names.
TICKS = {1: "1 s", 60: "1 min", 3600: "1 h", 86_400: "1 day", 2_592_000: "30 d", 31_536_000: "1 y"}


def draw_training(
    histories: Mapping[str, Sequence[Entry]],
    path: str | os.PathLike[str] | None = None,
    metric: str = "NDCG@10",
) -> Figure:
    """Draws the loss and the validation metric of runs over their epochs, side by side.

    Args:
        histories: Name of each run -> its entries, the lines of ``history.jsonl``.
        path: Where to write the drawing: ``.png``, ``.svg`` or ``.pdf``.
        metric: Of the validation.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is nothing to draw.
    """
    figure = new_figure("draw_training", (11.0, 4.4), path, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, history in histories.items():
        left.plot(*_series(history, lambda e: e.get("loss")), label=name, linewidth=1.6)
        points = _series(history, lambda e: e.get("val", {}).get(metric))
        right.plot(*points, label=name, linewidth=1.6, marker="o", markersize=3.5)
    _need(any(line.get_xdata().size for line in left.lines), "histories", "no run has an epoch")
    _frame(left, "epoch", "training loss", "Loss")
    _frame(right, "epoch", f"{metric}, validation", f"{metric} on validation")
    for ax in (left, right):
        ax.locator_params(axis="x", integer=True)
    right.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
    return figure


def draw_monitored(
    histories: Mapping[str, Sequence[Entry]],
    name: str,
    path: str | os.PathLike[str] | None = None,
    what: str | None = None,
    chance: float | None = None,
) -> Figure:
    """Draws one value of ``RecModel.monitor`` over epochs, such as the gate ``alpha``.

    Args:
        histories: Name of each run -> its entries.
        name: Of the value.
        path: As in :func:`draw_training`.
        what: What the value is, on the vertical axis; by default its name.
        chance: What guessing would give, drawn as a dashed line.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no run has followed the value.
    """
    figure = new_figure("draw_monitored", SIZE, path, layout="constrained")
    ax = figure.add_subplot()
    for run, history in histories.items():
        epochs, values = _series(history, lambda e: e.get(name))
        if epochs:
            ax.plot(epochs, values, label=run, linewidth=1.6)
    known = sorted({key for h in histories.values() for entry in h for key in entry})
    _need(bool(ax.lines), "name", f"no run follows {name!r}; the runs hold {', '.join(known)}")
    if chance is not None:
        ax.axhline(chance, color="#8b929c", linewidth=1.0, linestyle="--", label="chance")
    _frame(ax, "epoch", what or name, f"{what or name} over training")
    ax.locator_params(axis="x", integer=True)
    ax.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
    return figure


def draw_rank_curves(
    ranks: Mapping[str, Tensor], path: str | os.PathLike[str] | None = None, largest: int = 1000
) -> Figure:
    """Draws the share of targets within rank k over k, on a logarithmic axis: HR@k for every k.

    Args:
        ranks: Name of each run -> ``[n]`` ranks from 1 (:func:`tgrec.training.run.read_ranks`).
        path: As in :func:`draw_training`.
        largest: The last k.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no ranks.
    """
    _need(bool(ranks) and all(r.numel() for r in ranks.values()), "ranks", "a run has no ranks")
    figure = new_figure("draw_rank_curves", SIZE, path, layout="constrained")
    ax = figure.add_subplot()
    k = torch.arange(1, largest + 1)
    for name, rank in ranks.items():
        within = torch.searchsorted(rank.sort().values, k, right=True).double() / rank.numel()
        ax.plot(k.numpy(), within.numpy(), label=name, linewidth=1.6)
    ax.set_xscale("log")
    ax.axvline(10, color="#8b929c", linewidth=0.8, linestyle=":")
    ax.set_ylim(0, 1)
    _frame(ax, "rank k", "share of targets within k", "HR@k, full ranking")
    ax.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
    return figure


def draw_by_gap(
    values: Mapping[str, Tensor],
    seconds: Tensor,
    what: str,
    title: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws curves over the time between two events, such as a learned bias or attention.

    Args:
        values: Name of each curve -> ``[U]``; NaN leaves a gap in it.
        seconds: ``[U]`` where each value stands, ascending; 0 is drawn left of the first second.
        what: Of the vertical axis.
        title: Of the drawing.
        path: As in :func:`draw_training`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If a curve and ``seconds`` are not of one length.
    """
    for name, value in values.items():
        _need(value.shape == seconds.shape, "values", f"{name!r} and 'seconds' differ in length")
    figure = new_figure("draw_by_gap", SIZE, path, layout="constrained")
    ax = figure.add_subplot()
    place = torch.where(seconds == 0, 0.4, seconds.double())
    for name, value in values.items():
        ax.plot(place.numpy(), value.double().numpy(), label=name, linewidth=1.4, marker=".",
                markersize=4)  # fmt: skip
    ax.set_xscale("log")
    ticks = {0.4: "0 s"} | {t: n for t, n in TICKS.items() if t <= float(place.max())}
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.minorticks_off()
    _frame(ax, "time between the events", what, title)
    ax.legend(frameon=False, fontsize=8, ncols=2)
    save_figure(figure, path)
    return figure


def draw_shares(
    shares: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    what: str,
    title: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws what each part has of a whole in groups, as stacked bars.

    Args:
        shares: Name of each part -> its share in each group.
        groups: Names of the groups, such as lengths of histories.
        what: Of the vertical axis.
        title: Of the drawing.
        path: As in :func:`draw_training`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If a part has not one share per group.
    """
    for name, share in shares.items():
        _need(len(share) == len(groups), "shares", f"{name!r} has not one value per group")
    figure = new_figure("draw_shares", SIZE, path, layout="constrained")
    ax = figure.add_subplot()
    bottom = [0.0] * len(groups)
    for name, share in shares.items():
        ax.bar(range(len(groups)), list(share), bottom=bottom, label=name, width=0.62)
        bottom = [b + s for b, s in zip(bottom, share, strict=True)]
    ax.set_xticks(range(len(groups)), list(groups))
    _frame(ax, "events before the target", what, title)
    figure.legend(loc="outside lower center", ncols=len(shares), frameon=False, fontsize=9)
    save_figure(figure, path)
    return figure


def _series(history: Sequence[Entry], value: Any) -> tuple[list[int], list[float]]:
    """Epochs and values, as far as they are there and numbers."""
    pairs = [(int(e["epoch"]), value(e)) for e in history]
    kept = [(epoch, float(v)) for epoch, v in pairs if v is not None and math.isfinite(v)]
    return [epoch for epoch, _ in kept], [v for _, v in kept]


def _need(holds: bool, argument: str, why: str) -> None:
    if not holds:
        raise ValueError(f"{argument!r} cannot be drawn: {why}")


def _frame(ax: Axes, x: str, y: str, title: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, loc="left", fontsize=11)
    ax.grid(color="#e3e6ea", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
