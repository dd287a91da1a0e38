from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tgrec.plots import (
    draw_by_gap,
    draw_monitored,
    draw_rank_curves,
    draw_shares,
    draw_training,
)

RUN = [
    {"epoch": 1, "loss": 5.0, "alpha": 0.3},
    {"epoch": 2, "loss": 4.0, "alpha": 0.35, "val": {"NDCG@10": 0.1}},
    {"epoch": 3, "loss": float("nan"), "alpha": 0.4, "val": {"NDCG@10": 0.2}},
]


def test_training_is_drawn_as_far_as_it_is_known(tmp_path: Path) -> None:
    figure = draw_training({"a": RUN, "b": RUN[:1]}, tmp_path / "training.png")
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[5.0, 4.0], [5.0]]
    assert list(right.lines[0].get_xdata()) == [2, 3]
    assert right.lines[1].get_xdata().size == 0
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="'histories' cannot be drawn: no run has an epoch"):
        draw_training({"a": []})


def test_a_value_that_is_followed(tmp_path: Path) -> None:
    (ax,) = draw_monitored({"a": RUN, "other": [{"epoch": 1, "loss": 1.0}]}, "alpha").axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.3, 0.35, 0.4]]
    (ax,) = draw_monitored({"a": RUN}, "alpha", what="share", chance=0.5).axes
    assert ax.get_ylabel() == "share"
    assert [list(line.get_ydata()) for line in ax.lines[1:]] == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="no run follows 'beta'; the runs hold alpha, epoch"):
        draw_monitored({"a": RUN}, "beta", tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_rank_curves_are_hr_at_every_k() -> None:
    (ax,) = draw_rank_curves({"a": torch.tensor([1, 1, 3, 50])}, largest=60).axes
    curve = ax.lines[0].get_ydata()
    assert [curve[k - 1] for k in (1, 2, 3, 49, 50, 60)] == [0.5, 0.5, 0.75, 0.75, 1.0, 1.0]
    with pytest.raises(ValueError, match="'ranks' cannot be drawn"):
        draw_rank_curves({"a": torch.tensor([], dtype=torch.int64)})


def test_gaps_and_shares() -> None:
    seconds = torch.tensor([0.0, 1.0, 90_000.0])
    (ax,) = draw_by_gap({"a": torch.tensor([1.0, 2.0, 3.0])}, seconds, "bias", "t").axes
    assert list(ax.lines[0].get_ydata()) == [1.0, 2.0, 3.0]
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == ["0 s", "1 s", "1 min", "1 h", "1 day"]
    with pytest.raises(ValueError, match="'a' and 'seconds' differ in length"):
        draw_by_gap({"a": torch.ones(2)}, seconds, "bias", "t")
    (ax,) = draw_shares({"x": [0.25, 0.5], "y": [0.75, 0.5]}, ["<=50", ">50"], "share", "t").axes
    tops = [bar.get_y() + bar.get_height() for bar in ax.patches]
    assert tops == [0.25, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="'x' has not one value per group"):
        draw_shares({"x": [1.0]}, ["<=50", ">50"], "share", "t")


def test_without_matplotlib_and_to_formats_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="'path' needs to end in one of"):
        draw_training({"a": RUN}, tmp_path / "a.bmp")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="draw_training needs matplotlib"):
        draw_training({"a": RUN})
