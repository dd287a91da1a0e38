"""The reader of pickled lists: what it takes, and that nothing else gets in."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgrec.datasets import DataFileError
from tgrec.datasets._fetch import RawFile
from tgrec.datasets._pickled_lists import read_pickled_lists

ROWS = {0: [1, 300, 70_000], 5: [], 7: [2**40, -3]}


def read(data: bytes) -> dict[int, list[int]]:
    return read_pickled_lists(RawFile(data, "some/file.pkl", ""))


integers = st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(integers, st.lists(integers, max_size=5), max_size=5), st.integers(2, 5))
def test_what_was_written_is_read(rows: dict[int, list[int]], protocol: int) -> None:
    # Without a memo equal lists may be one object, which a pickle would name twice.
    assert read(pickle.dumps({k: list(v) for k, v in rows.items()}, protocol)) == rows


def test_a_large_dict_in_several_frames() -> None:
    rows = {user: list(range(user, user + 9)) for user in range(3000)}
    assert read(pickle.dumps(rows, 4)) == rows


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def frame(body: bytes) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


SHARED = [1, 2]
CYCLE: dict[int, Any] = {}
CYCLE[1] = CYCLE
GOOD = pickle.dumps(ROWS, 4)
HOSTILE: list[tuple[str, bytes, str]] = [
    ("text", pickle.dumps({1: ["a"]}, 4), "SHORT_BINUNICODE"),
    ("bytes", pickle.dumps({1: [b"a"]}, 4), "SHORT_BINBYTES"),
    ("float", pickle.dumps({1: [1.5]}, 4), "BINFLOAT"),
    ("bool", pickle.dumps({1: [True]}, 4), "NEWTRUE"),
    ("none", pickle.dumps({1: [None]}, 4), "NONE"),
    ("tuple", pickle.dumps({1: (1, 2)}, 4), "TUPLE"),
    ("set", pickle.dumps({1: {1}}, 4), "EMPTY_SET"),
    ("global", pickle.dumps({1: os.system}, 4), "SHORT_BINUNICODE"),
    ("protocol 0", pickle.dumps(ROWS, 0), "DICT"),
    ("protocol 0 global", b"cos\nsystem\n(S'true'\ntR.", "GLOBAL"),
    ("one list for two users", pickle.dumps({1: SHARED, 2: SHARED}, 4), "BINGET"),
    ("a dict inside itself", pickle.dumps(CYCLE, 4), "BINGET"),
    ("dict of dicts", pickle.dumps({1: {2: [3]}}, 4), "a user is an integer and has a list"),
    ("list of lists", pickle.dumps({1: [[2]]}, 4), "only integers are put into lists"),
    ("no dict", pickle.dumps([1, 2], 4), "one dict is expected"),
    ("an integer", pickle.dumps(3, 4), "one dict is expected"),
    ("a user without a list", pickle.dumps({1: 2}, 4), "a user is an integer and has a list"),
    ("large integer", pickle.dumps({1: [2**70]}, 4), "at most 64 bits"),
    ("user twice", frame(b"}(K\x01]K\x01]u."), "user 1 stands twice"),
    ("odd number of items", frame(b"}(K\x01]K\x02u."), "pairs of a user and a list"),
    ("two results", frame(b"}}."), "one dict is expected"),
    ("no result", frame(b"."), "one dict is expected"),
    ("a mark left", frame(b"}(."), "one dict is expected"),
    ("items without a mark", frame(b"}u."), "there is no mark"),
    ("items on nothing", frame(b"(u."), "the stack is empty"),
    ("a mark as a value", frame(b"}K\x01(s."), "a mark stands where"),
    ("append to a dict", frame(b"}K\x01a."), "only integers are put into lists"),
    ("set in a list", frame(b"]K\x01]s."), "pairs of a user and a list"),
    ("append to nothing", frame(b"a."), "the stack is empty"),
    ("frame too long", b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.", "longer than the file"),
    ("cut short", GOOD[:-1], "longer than the file"),
    ("cut in an argument", b"\x80\x04}(K\x01]J\x01", "damaged"),
    ("empty", b"", "damaged"),
    ("more behind the end", GOOD + b"x", "bytes stand behind the end"),
    ("two pickles", GOOD + GOOD, "bytes stand behind the end"),
    ("no pickle", b"user,item\n1,2\n", "the stack is empty"),
    ("unknown instruction", frame(b"\xff."), "damaged"),
    ("persistent id", b"\x80\x04P1\n.", "PERSID"),
    ("extension", b"\x80\x04\x82\x01.", "EXT1"),
    ("build", frame(b"}}b."), "BUILD"),
    ("pop", frame(b"}}0."), "POP"),
    ("huge text", b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a", "damaged"),
]


@pytest.mark.parametrize(("data", "why"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_everything_else_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(DataFileError, match=rf"(?s)some/file\.pkl: at byte \d+, .*({why})"):
        read(data)


def test_nothing_is_called(tmp_path: Path) -> None:
    marker = tmp_path / "was here"
    for protocol in range(6):
        data = pickle.dumps({1: Payload(marker)}, protocol)
        assert b"mkdir" in data
        with pytest.raises(DataFileError, match="instruction"):
            read(data)
    assert not marker.exists()
    call, arguments = Payload(marker).__reduce__()  # what a program that unpickles would call
    call(*arguments)
    assert marker.exists()


def test_the_error_names_the_byte() -> None:
    data = frame(b"}(K\x01]N" + b"u.")
    with pytest.raises(DataFileError, match=f"at byte {data.index(b'N')}, instruction NONE"):
        read(data)
