"""Files that appear whole or not at all."""

from __future__ import annotations

import difflib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# A temporary file younger than this may belong to a writer that has not locked it yet.
SETTLED_SECONDS = 60.0


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; if the block succeeds, it replaces ``path``.

    A crash, a full disk or an exception leaves the old file as it was and no temporary file. A
    kill leaves the temporary file, which the next write of the same ``path`` removes: it knows
    the files of the killed by their lock, which a writer holds as long as it lives, in whatever
    process, and by their age, at least :data:`SETTLED_SECONDS`.

    Raises:
        OSError: If the file cannot be written; the message names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with suppress(OSError):  # some network drives have no locks
            _lock(handle)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private
        if sys.platform == "win32":
            os.close(handle)  # an open file cannot be renamed there
            handle = -1
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not write {path} ({error.strerror}); what was there is unchanged"
        ) from error
    finally:
        if handle >= 0:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder, and those above it, where there is none.

    Raises:
        ValueError: If there is a file in its place, or in that of one above it.
    """
    folder = Path(path)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"'folder': {str(place)!r} is a file; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sweep(path: Path) -> None:
    """Removes the temporary files of killed writers of ``path``; whatever cannot be, stays."""
    ours = re.compile(re.escape(f".{path.name}.") + r"\w{8}\.tmp")
    for found in path.parent.iterdir():
        if not ours.fullmatch(found.name):
            continue
        with suppress(OSError):
            if time.time() - found.stat().st_mtime < SETTLED_SECONDS:
                continue
            handle = os.open(found, os.O_RDWR)
            try:
                _lock(handle)
            finally:
                os.close(handle)
            found.unlink()


def _lock(handle: int) -> None:
    """Locks an open file until it is closed, at the latest when its process ends.

    Windows needs no lock: an open file cannot be removed there.

    Raises:
        OSError: If another process holds the lock, or the file system has none.
    """
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def near_path(path: str | os.PathLike[str], known: Iterable[str] = ()) -> str:
    """What may be meant by a path that is not there: a file beside it or a known name."""
    folder, name = Path(path).parent, Path(path).name
    beside = {p.name: str(p) for p in folder.iterdir()} if folder.is_dir() else {}
    close = difflib.get_close_matches(name, [*known, *beside], n=1)
    return f"; did you mean {beside.get(close[0], close[0])!r}?" if close else ""
