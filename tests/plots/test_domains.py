"""Pictures of user vectors and gates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tgrec.plots import draw_gates, draw_user_vectors
from tgrec.plots.domains import MOST, plane

pytest.importorskip("matplotlib")


def test_the_plane_shows_what_differs_most() -> None:
    torch.manual_seed(0)
    noise = torch.randn(200, 5) * torch.tensor([0.1, 5.0, 0.1, 1.0, 0.1])
    first, second = plane([noise[:120], noise[120:]])
    flat = torch.cat([first, second])
    assert flat.shape == (200, 2)
    for column, dim in ((0, 1), (1, 3)):
        pair = torch.stack([flat[:, column], noise[:, dim].double()])
        assert abs(float(torch.corrcoef(pair)[0, 1])) > 0.95
    assert plane([torch.ones(3, 1)])[0].tolist() == [[0, 0]] * 3  # one channel, no spread
    with pytest.raises(ValueError, match="finite numbers"):
        plane([torch.tensor([[float("nan"), 1.0]])])


def test_a_panel_per_kind_and_a_colour_per_domain(tmp_path: Path) -> None:
    x = torch.randn(MOST + 500, 4)
    kinds = {"specific": {"food": x, "kitchen": x + 3}, "cross": {"food + kitchen": x}}
    figure = draw_user_vectors(kinds, tmp_path / "a.png")
    assert [ax.get_title() for ax in figure.axes] == ["specific", "cross"]
    assert [len(ax.collections) for ax in figure.axes] == [2, 1]
    assert all(len(c.get_offsets()) <= MOST for ax in figure.axes for c in ax.collections)  # type: ignore[arg-type]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one kind"):
        draw_user_vectors({})


def test_bars_of_weights(tmp_path: Path) -> None:
    weights = {"food": {"a": 0.5, "b": 0.5}, "kitchen": {"a": 0.25, "c": 0.75}}
    figure = draw_gates(weights, {"food": 0.3, "kitchen": 0.6}, tmp_path / "g.svg")
    (ax,) = figure.axes
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]  # type: ignore[attr-defined]
    assert heights == [[0.5, 0.25], [0.5, 0.0], [0.0, 0.75]]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["food\ngate 0.30", "kitchen\ngate 0.60"]
    with pytest.raises(ValueError, match="one value for each domain"):
        draw_gates(weights, {"food": 0.3})
    with pytest.raises(ValueError, match=r"need to be in \[0, 1\]"):
        draw_gates({"food": {"a": 2.0}}, {"food": 0.3})


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="draw_user_vectors needs matplotlib"):
        draw_user_vectors({"a": {"b": torch.randn(3, 2)}})
