"""``benchmarks/throughput.py`` runs, and its sides compute one loss; no times here."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tyro

from tgrec.data import Split, leave_one_out
from tgrec.datasets import simulate_movielens
from tgrec.training import TrainSettings, graphed_step

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = SimpleNamespace(users=12, batch_size=4, device="cpu", compiled=False)


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """A script of the folder, by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(simulate_movielens(num_users=40, num_items=130, mean_events=20)[0])


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "hstu"])
def test_all_sides_compute_one_loss_and_move_nothing(bench: Any, split: Split, name: str) -> None:
    sides = bench("training_sides").TrainingSides(name, split, OPTIONS)
    before = [p.detach().clone() for p in sides.model.parameters()]
    rows = sides.rows(rounds=1)
    usual = ["usual way"] * (name != "hstu")
    assert [row[1] for row in rows] == [*usual, "tgrec fp32", "tgrec"]
    assert all(float(row[2].removesuffix(" s")) > 0 for row in rows)
    assert rows[-1][3] == "1.0"
    losses = [float(row[4]) for row in rows]
    assert losses == pytest.approx([losses[-1]] * len(losses), rel=0.01)
    assert all(torch.equal(p, b) for p, b in zip(sides.model.parameters(), before, strict=True))
    assert bool(sides.left_out) == (name != "hstu")
    if name == "hstu":
        assert len(sides.model.encoder.blocks) == 8
        assert sides.model.config["d_model"] == 64


def test_on_cuda_there_is_a_side_with_graphs(
    bench: Any, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder:
        replayed = 0

        def __init__(self, device: torch.device) -> None: ...

        def run(self, work: Any) -> None:
            work()

        def record(self, work: Any) -> Any:
            def replay() -> None:
                Recorder.replayed += 1
                work()

            return replay

    monkeypatch.setattr(TrainSettings, "on_cuda", True)
    monkeypatch.setattr(graphed_step, "CudaRecorder", Recorder)
    module = bench("training_sides")
    monkeypatch.setattr(module, "_wait", lambda settings: None)
    rows = module.TrainingSides("sasrec", split, OPTIONS).rows(rounds=1)
    assert [row[1] for row in rows][-2:] == ["tgrec", "tgrec, CUDA graphs"]
    assert Recorder.replayed > 0


def test_a_compiled_loop_masks_as_the_usual_way_does(
    bench: Any, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the compiler: what it compiles is the same function."""
    compiled: list[dict[str, Any]] = []

    def compile_(function: Any, **how: Any) -> Any:
        compiled.append(how)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    module, usual = bench("training_sides"), bench("usual")
    monkeypatch.setattr(module, "why_not_compiled", lambda device: "")
    options = SimpleNamespace(**{**vars(OPTIONS), "compiled": True})
    for name in ("sasrec", "bert4rec"):
        sides = module.TrainingSides(name, split, options)
        assert sides.left_out == []
        seen: list[Any] = []
        loop = sides.sides["compiled"].__self__
        plain = loop.loss

        def watching(*pair: Any, seen: list[Any] = seen, plain: Any = plain) -> Any:
            seen.append(pair)
            return plain(*pair)

        loop.loss = watching
        loop.epoch()
        assert len(seen) == 3
        for inputs, targets in seen:
            hole = targets != usual.IGNORED
            assert hole[:, -1].all()
            if name == "sasrec":
                assert torch.equal(inputs[:, 1:][hole[:, :-1]], targets[:, :-1][hole[:, :-1]])
            else:
                items = sides.model.num_items
                assert (inputs[:, -1] == items).all()
                real = inputs >= 0
                assert not (hole & ~real).any()
                share = (hole & real).sum() / real.sum()
                assert 0.1 < float(share) < 0.4
    assert compiled == [{"mode": None, "dynamic": False}] * 2
    monkeypatch.undo()
    hand = bench("handwritten")
    monkeypatch.setattr(hand.shutil, "which", lambda name: None)
    assert hand.why_not_compiled("cpu") == "there is no C++ compiler"
    assert hand.why_not_compiled("cuda") == ""


@pytest.mark.parametrize(("quality", "said"), [(0.01, "was reached"), (2.0, "not reached in 4")])
def test_seconds_to_a_quality(bench: Any, split: Split, quality: float, said: str) -> None:
    module, lines = bench("to_quality"), []  # type: ModuleType, list[str]
    console = SimpleNamespace(print=lambda text, **kwargs: lines.append(text))
    settings = TrainSettings(epochs=4, eval_every=2, lr=1e-2, batch_size=16)
    best, seconds = module.to_quality(split, settings, quality, console)
    assert said in lines[-1]
    assert len(lines) == (2 if quality < 1 else 3)
    assert 0 < best < 1
    assert 0 < seconds < 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--users 0", "--users needs to be at least 1 (got 0)"),
        ("--to-quality --epochs 0", "--epochs needs to be at least 1 (got 0)"),
        ("--to-quality --quality 2", "--quality needs to lie in (0, 1] (got 2.0)"),
        ("--to-quality --quality nan", "--quality needs to lie in (0, 1] (got nan)"),
        ("--to-quality --users 5", "--users is not read with --to-quality"),
        ("--to-quality --no-compiled", "--no_compiled is not read with --to-quality"),
        ("--quality 0.3", "--quality is read with --to-quality only"),
        ("--epochs 3", "--epochs is read with --to-quality only"),
        ("--rounds 1 --rounds 2", "--rounds is given twice"),
        ("--model", "--model needs at least one"),
    ],
)
def test_what_is_out_of_range_or_would_not_be_read_is_refused(
    bench: Any, words: str, said: str
) -> None:
    script = bench("throughput")
    given = ["--dataset", "simulated", *words.split()]
    with pytest.raises(ValueError, match=re.escape(said)):
        script.measure(tyro.cli(script.Options, args=given), given)


def test_the_time_of_a_side_is_that_of_all_rows(
    bench: Any, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = bench("training_sides")
    sides = module.TrainingSides("hstu", split, OPTIONS)
    monkeypatch.setattr(module, "timed", lambda epoch, settings: 3.0)
    whole = [float(row[2].removesuffix(" s")) for row in sides.rows(rounds=1)]
    sides.share = {"fp32": 0.5}
    half = [float(row[2].removesuffix(" s")) for row in sides.rows(rounds=1)]
    assert half == pytest.approx([2 * whole[0], whole[1]], rel=0.01)
