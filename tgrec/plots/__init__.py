"""Drawings. They need matplotlib, which is optional: ``python -m pip install matplotlib``."""

from tgrec.plots.domains import draw_gates, draw_user_vectors
from tgrec.plots.ego import draw_ego
from tgrec.plots.layout import radial_layout
from tgrec.plots.runs import (
    draw_by_gap,
    draw_monitored,
    draw_rank_curves,
    draw_shares,
    draw_training,
)
from tgrec.plots.weekly import draw_weeks

__all__ = [
    "draw_by_gap",
    "draw_ego",
    "draw_gates",
    "draw_monitored",
    "draw_rank_curves",
    "draw_shares",
    "draw_training",
    "draw_user_vectors",
    "draw_weeks",
    "radial_layout",
]
