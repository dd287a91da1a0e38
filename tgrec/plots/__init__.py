"""Drawings. They need matplotlib, which is optional: ``python -m pip install matplotlib``."""

from tgrec.plots.ego import draw_ego
from tgrec.plots.layout import radial_layout
from tgrec.plots.weekly import draw_weeks

__all__ = ["draw_ego", "draw_weeks", "radial_layout"]
