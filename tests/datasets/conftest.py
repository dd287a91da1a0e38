"""Hand-written miniatures of the published files, and a cache folder of each test's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REAL_ROOT = os.environ.get("TGREC_DATA", "")

# Row numbers matter: users 1 and 2 rate twice in one second, item 7 is never rated, and the rows
# are not in the order of time. The title of 30 holds the separator, that of 20 is latin-1.
RATINGS = b"""\
1::30::5::978300760
1::10::4::978300760
2::20::3::978300000
1::20::1::978300100
2::10::5::978300000
3::30::4::978300500
2::30::4::978299999
"""
MOVIES = (
    "10::Toy Story (1995)::Animation|Children's|Comedy\n"
    "20::Mis\u00e9rables, Les (1995)::Drama|Musical\n"
    "30::Trial :: Error (1997)::Comedy\n"
    "7::Untitled::Western\n"
).encode("latin-1")
USERS = b"1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::15::55117\n"

U_DATA = b"1\t2\t3\t881250949\n2\t1\t5\t881250949\n1\t1\t4\t881250000\n"
U_ITEM = (
    "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "2|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
).encode("latin-1")
U_USER = b"1|24|M|technician|85711\n2|53|F|other|94043\n"


Change = bytes | Callable[[bytes], bytes]


def write_files(folder: Path, files: dict[str, bytes], changed: dict[str, Change]) -> Path:
    """Writes files of which some are replaced or changed; returns the folder above."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        change = changed.get(name.removeprefix("u.").removesuffix(".dat"), content)
        (folder / name).write_bytes(change if isinstance(change, bytes) else change(content))
    return folder.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TGREC_DATA", raising=False)


@pytest.fixture
def tiny_1m(tmp_path: Path) -> Callable[..., Path]:
    """Writes a miniature MovieLens-1M and returns the root.

    Its arguments ``ratings``, ``movies`` and ``users`` replace a file, or change it.
    """

    def write(**changed: Change) -> Path:
        files = {"ratings.dat": RATINGS, "movies.dat": MOVIES, "users.dat": USERS}
        return write_files(tmp_path / "data" / "ml-1m", files, changed)

    return write


@pytest.fixture
def tiny_100k(tmp_path: Path) -> Callable[..., Path]:
    """The same for MovieLens-100K; the arguments are ``data``, ``item`` and ``user``."""

    def write(**changed: Change) -> Path:
        files = {"u.data": U_DATA, "u.item": U_ITEM, "u.user": U_USER}
        return write_files(tmp_path / "data" / "ml-100k", files, changed)

    return write


@pytest.fixture
def real_root() -> Callable[[str], str]:
    """File -> ``$TGREC_DATA`` as it was when the tests began; skips if the file is not there."""

    def find(name: str) -> str:
        if not REAL_ROOT or not (Path(REAL_ROOT) / name).is_file():
            pytest.skip(f"TGREC_DATA names no folder with {name}")
        return REAL_ROOT

    return find
