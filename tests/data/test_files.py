"""Atomic writes: what stands where after success, failure and a kill, with two processes too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tgrec.data import files
from tgrec.data.files import SETTLED_SECONDS, atomic_path, write_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="kills a process as POSIX does")


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


def age(path: Path, seconds: float = 2 * SETTLED_SECONDS) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# By its path, since importing the whole library takes seconds.
WRITER = """
import runpy, sys
atomic_path = runpy.run_path(sys.argv[1])["atomic_path"]

with atomic_path(sys.argv[2]) as temporary:
    temporary.write_text("half of it")
    print("writing", flush=True)
    sys.stdin.readline()
    temporary.write_text("all of it")
print("written", flush=True)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    """Another process in the middle of writing ``path``; a line on its stdin lets it go on."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, files.__file__, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    return writer


def kill(writer: subprocess.Popen[str]) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.communicate()


def fail_halfway(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        temporary.write_text(f"{1 / 0}")


def test_a_file_appears_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ZeroDivisionError):
        fail_halfway(path)
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_names_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    with (
        pytest.raises(OSError, match="could not write .*a.txt .*unchanged"),
        atomic_path(tmp_path / "a.txt") as temporary,
    ):
        temporary.unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@posix
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "whole")
    kill(start_writer(path))
    assert path.read_text() == "whole"
    (left,) = temporaries(tmp_path)
    write_text(path, "second")  # it might still belong to somebody who is about to lock it
    assert temporaries(tmp_path) == [left]
    age(left)
    write_text(path, "third")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "third"


@posix
def test_two_writers_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    writer, other = start_writer(path), start_writer(path)
    left = temporaries(tmp_path)
    assert len(left) == 2
    for file in left:  # however long they take
        age(file)
    write_text(path, "mine")
    assert temporaries(tmp_path) == left
    kill(other)
    write_text(path, "mine again")
    assert len(temporaries(tmp_path)) == 1  # that of the killed is gone, the other is not
    out, _ = writer.communicate("go on\n")
    assert out == "written\n"
    assert writer.returncode == 0
    assert path.read_text() == "all of it"
    assert temporaries(tmp_path) == []


@posix
def test_a_writer_in_this_process_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_path(path) as outer:
        outer.write_text("mine")
        age(outer)
        with atomic_path(path) as inner:
            inner.write_text("in between")
        assert path.read_text() == "in between"
    assert path.read_text() == "mine"


def test_only_temporary_files_of_the_same_name_are_touched(tmp_path: Path) -> None:
    names = [
        ".a.txt.12345678.tmp", ".a.txt.bak.12345678.tmp", ".aXtxt.12345678.tmp",
        "a.txt.12345678.tmp", ".a.txt.123.tmp", ".a.txt.12345678.tmp.old", ".b.12345678.tmp",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("old")
        age(tmp_path / name)
    (tmp_path / ".a.txt.abcdefgh.tmp").mkdir()  # cannot be removed so
    age(tmp_path / ".a.txt.abcdefgh.tmp")
    write_text(tmp_path / "a.txt", "new")
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {*names[1:], ".a.txt.abcdefgh.tmp", "a.txt"}
