"""An empty figure to draw on, and how it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgrec.data.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def new_figure(
    who: str, size: tuple[float, float], path: str | os.PathLike[str] | None = None, **kwargs: Any
) -> Figure:
    """A figure that needs no screen and leaves the state of pyplot alone.

    Args:
        who: The function that draws, for its errors.
        size: Inches, width and height.
        path: Where the drawing will go, checked before anything is drawn.
        **kwargs: Of ``matplotlib.figure.Figure``.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the path ends in none of :data:`FORMATS`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"{who} needs matplotlib, which is optional; install it with: python -m pip install "
            f"matplotlib"
        ) from error
    if path is not None:
        check_format(path)
    figure: Figure = Figure(figsize=size, **kwargs)
    return figure


def check_format(path: str | os.PathLike[str]) -> None:
    """Raises ValueError unless matplotlib is asked for a format that is known here."""
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"'path' needs to end in one of {', '.join(FORMATS)} (got {str(path)!r})")


def save_figure(figure: Figure, path: str | os.PathLike[str] | None, **kwargs: Any) -> None:
    """Writes the figure whole or not at all; nothing without a path."""
    if path is None:
        return
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:].lower(), **{"dpi": 150, **kwargs})
