"""``benchmarks/ml1m.py`` as a function, on invented data that fit into a test."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets import BOARDS, simulate_domains, simulate_movielens

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = "--d_model 8 --n_blocks 1 --d_ff 16 --max_len 10 --batch_size 16 --epochs 2 --eval_every 1"


@pytest.fixture(scope="session")
def ml1m() -> Iterator[ModuleType]:
    """The script as a module; beside it stand the scripts that it imports."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("ml1m")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="session")
def tiny() -> TemporalRecGraph:
    return simulate_movielens(num_users=60, num_items=40, mean_events=10)[0]


@dataclass(frozen=True)
class Outcome:
    """Exit code, what was printed where, and the folder of runs."""

    code: int
    out: str
    err: str
    runs: Path

    @property
    def folders(self) -> list[str]:
        return sorted(p.name for p in self.runs.iterdir()) if self.runs.exists() else []

    @property
    def error(self) -> str:
        """The one line that a failed call prints."""
        assert self.code != 0
        assert self.err.count("\n") == 1
        assert self.err.startswith("error: ")
        return self.err.strip()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def call(
    ml1m: ModuleType,
    tiny: TemporalRecGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Outcome]:
    """``call("--model popularity")``: the command, on the tiny simulated set, into tmp_path/runs.

    There is no other data, and no network.
    """

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setenv("TGREC_DATA", str(tmp_path / "no data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    board = replace(BOARDS["simulated-loo"], load=lambda root, download: tiny)
    monkeypatch.setitem(BOARDS, "simulated-loo", board)

    def run(*words: str, dataset: str | None = "simulated", small: bool = False) -> Outcome:
        asked, sizes = " ".join(words).split(), SMALL.split() if small else []
        pairs = zip(sizes[::2], sizes[1::2], strict=True)
        sizes = [word for pair in pairs if pair[0] not in asked for word in pair]
        data = [] if dataset is None else ["--dataset", dataset]
        argv = ["ml1m.py", *sizes, *asked, *data, "--out", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", argv)
        capsys.readouterr()
        code = 0
        try:
            ml1m.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err, tmp_path / "runs")

    return run


@pytest.fixture(scope="module")
def trigrec_script() -> Iterator[ModuleType]:
    """``benchmarks/trigrec.py`` as a module; beside it stand the scripts that it imports."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("trigrec")
    sys.path.remove(str(FOLDER))


@pytest.fixture
def trigrec(
    trigrec_script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], tuple[int, str]]:
    """``trigrec("all --target food")``: on forty users; exit code, and all that was printed."""
    graph = simulate_domains(num_users=40, num_items=30)[0]
    monkeypatch.setenv("TGREC_DATA", str(tmp_path / "no data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for tag in ("simulated-food", "simulated-kitchen"):
        board = replace(BOARDS[tag], load=lambda root, download: graph)
        monkeypatch.setitem(BOARDS, tag, board)

    def run(words: str) -> tuple[int, str]:
        argv = ["trigrec.py", *shlex.split(words), "--out", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            trigrec_script.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run
