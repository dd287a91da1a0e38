"""A drawing of the vectors of users in several domains."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tgrec.plots.canvas import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2563a8", "#e07b1f", "#1f7a4d", "#a3266e", "#6b3fa0", "#8a6d1a")
MOST = 2000  # more points are a blot


def draw_user_vectors(
    vectors: Mapping[str, Mapping[str, Tensor]], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Draws kinds of user vectors side by side, the domains of each kind in one panel.

    Each panel shows the two directions in which the vectors of its kind differ most (PCA over all
    of its domains together), so domains that a kind tells apart lie apart, and those that it does
    not lie on each other. Of many users 2,000 are drawn, evenly spread over the rows.

    Args:
        vectors: Kind -> domain -> ``[U, D]``, for example
            ``{"specific": {"food": x, "kitchen": y}, ...}``.
        path: Where to write the drawing: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is nothing to draw, a value is not finite, or the path is of no known
            format.
    """
    if not vectors or not all(vectors.values()):
        raise ValueError("'vectors' needs at least one kind with at least one domain (got none)")
    size = (4.2 * len(vectors), 4.2)
    figure = new_figure("draw_user_vectors", size, path, layout="constrained")
    domains = list(dict.fromkeys(d for kind in vectors.values() for d in kind))
    for axes, (name, kind) in zip(figure.subplots(1, len(vectors), squeeze=False)[0],
                                  vectors.items(), strict=True):  # fmt: skip
        points = plane([_some(v) for v in kind.values()])
        for domain, part in zip(kind, points, strict=True):
            colour = COLOURS[domains.index(domain) % len(COLOURS)]
            style: dict[str, Any] = {"s": 7, "alpha": 0.45, "linewidths": 0, "color": colour}
            axes.scatter(part[:, 0], part[:, 1], label=domain, **style)
        axes.set_title(name, fontsize=12)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("first principal direction")
        axes.legend(frameon=False, markerscale=2.5)
    figure.axes[0].set_ylabel("second principal direction")
    save_figure(figure, path)
    return figure


def plane(groups: list[Tensor]) -> list[Tensor]:
    """``[n, 2]`` of each group ``[n, D]``: the two principal directions of all of them together."""
    whole = torch.cat(groups).double()
    if whole.dim() != 2 or not bool(whole.isfinite().all()):
        raise ValueError("'vectors' needs to hold finite numbers of shape [U, D]")
    middle = whole - whole.mean(0)
    right = torch.linalg.svd(middle, full_matrices=False).Vh[:2]
    # The sign of a direction means nothing: the larger end points to the right, and up.
    right = right * right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
    flat = torch.zeros(middle.size(0), 2, dtype=middle.dtype)
    flat[:, : right.size(0)] = middle @ right.t()
    return list(flat.split([g.size(0) for g in groups]))


def _some(vectors: Tensor) -> Tensor:
    step = -(-vectors.size(0) // MOST)
    return vectors[:: max(1, step)].detach().cpu()


def draw_gates(
    weights: Mapping[str, Mapping[str, float]],
    gates: Mapping[str, float],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws what a recommender of each domain takes from the vectors of users.

    Args:
        weights: Domain that is asked for -> vector -> mean weight in the attention; the weights of
            a domain add up to 1 at most.
        gates: Domain -> mean of the gate, how much of the mixture is added to the sequence.
        path: Where to write the drawing: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is nothing to draw, a domain has no gate, or a weight is not in [0, 1].
    """
    if not weights or weights.keys() != gates.keys():
        raise ValueError(
            f"'gates' needs one value for each domain of 'weights' (got {sorted(gates)} and "
            f"{sorted(weights)})"
        )
    names = list(dict.fromkeys(name for row in weights.values() for name in row))
    figure = new_figure("draw_gates", (2.8 + 1.8 * len(weights), 4.4), path, layout="constrained")
    ax = figure.add_subplot()
    bottom = [0.0] * len(weights)
    for number, name in enumerate(names):
        share = [row.get(name, 0.0) for row in weights.values()]
        if not all(0 <= value <= 1 for value in share):
            raise ValueError(f"'weights' of {name!r} need to be in [0, 1] (got {share})")
        colour = COLOURS[number % len(COLOURS)]
        hatch = "//" if number >= len(COLOURS) else None
        ax.bar(range(len(weights)), share, bottom=bottom, label=name, width=0.6, color=colour,
               hatch=hatch, edgecolor="white")  # fmt: skip
        bottom = [b + s for b, s in zip(bottom, share, strict=True)]
    labels = [f"{domain}\ngate {gates[domain]:.2f}" for domain in weights]
    ax.set_xticks(range(len(weights)), labels)
    ax.set_ylabel("weight of the vector, mean over users")
    ax.set_title("vectors at a question", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    save_figure(figure, path)
    return figure
