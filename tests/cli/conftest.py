"""The command ``tgrec`` as a function, in a folder with raw files, and a recommender it trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tgrec.cli.main import main

USERS, ITEMS = 8, 9
TITLES = [f"Film {i} ({1990 + i})" for i in range(1, ITEMS + 1)]
TINY = ["--d_model", "8", "--n_blocks", "1", "--d_ff", "8", "--max_len", "6", "--epochs", "1"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def titles() -> list[str]:
    """Of the films, in their order."""
    return TITLES


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Words for a small model that is trained for one epoch."""
    return TINY


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of 9 films: 8 users walk through them in a circle, each from another start."""
    folder = tmp_path_factory.mktemp("home")
    rows = [
        f"{user}::0{1 + (user + step) % ITEMS}::{1 + step}::{978300000 + 100 * step + user}"
        for user in range(1, USERS + 1)
        for step in range(7)
    ]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    films = [f"0{i}::{title}::Drama|War" for i, title in enumerate(TITLES, start=1)]
    (folder / "movies.dat").write_text("\n".join(films) + "\n")
    (folder / "other.csv").write_text("user,item\n1,2\n1,3\n1,4\n")
    return folder


@pytest.fixture
def tgrec(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``tgrec("train", ...)``: status, what was printed, what was complained."""
    monkeypatch.chdir(home)

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # pytest makes errors of them
            with pytest.raises(SystemExit) as done:
                main([str(word) for word in words])
        status = done.value.code
        assert isinstance(status, int)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run


@pytest.fixture(scope="module")
def saved(home: Path) -> Path:
    """A small recommender that ``tgrec train`` wrote."""
    with pytest.raises(SystemExit) as done:
        main(["train", str(home), "--model", "sasrec", *TINY, "--seed", "3", "--out",
              str(home / "film")])  # fmt: skip
    assert done.value.code == 0
    return home / "film"
