"""Every way in which a data file can be wrong: an error that names file, line and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tgrec.data import TemporalRecGraph
from tgrec.datasets import ChecksumError, DataFileError, movielens_1m, movielens_100k

Writer = Callable[..., Path]


def read(root: Path, **kwargs: object) -> TemporalRecGraph:
    """The miniature as it is: it has not the published checksum."""
    options: dict = {"download": False, "verify": False, "cache": False} | kwargs
    return movielens_1m(root, **options)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda b: b.replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(lambda b: b.replace(b"\n", b"\r"), id="old-mac"),
        pytest.param(lambda b: b.rstrip(b"\n"), id="no-final-newline"),
        pytest.param(lambda b: b"\xef\xbb\xbf" + b, id="bom"),
        pytest.param(lambda b: b + b"\n\n", id="blank-end"),
    ],
)
def test_harmless_differences_change_nothing(
    tiny_1m: Writer, change: Callable[[bytes], bytes]
) -> None:
    plain = read(tiny_1m()).to_pandas()
    root = tiny_1m()
    for path in (root / "ml-1m").iterdir():
        path.write_bytes(change(path.read_bytes()))
    assert read(root).to_pandas().equals(plain)


# ---- bad files ------------------------------------------------------------------------------


def broken(line: int, content: bytes) -> Callable[[bytes], bytes]:
    """Replaces one line (1-based) of a file."""

    def change(file: bytes) -> bytes:
        lines = file.splitlines(keepends=True)
        lines[line - 1] = content + b"\n"
        return b"".join(lines)

    return change


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", r"ratings\.dat: is empty", id="empty"),
        pytest.param(b" \n\n", r"is empty", id="blank"),
        pytest.param(b"<!DOCTYPE html><html>404", r"is a web page, not data", id="html"),
        pytest.param(b"PK\x03\x04rest", r"is a zip archive: unpack", id="zip"),
        pytest.param(b"\x1f\x8b\x08\x00", r"compressed with gzip", id="gzip"),
        pytest.param(b"\xff\xfe1\x00:\x00", r"UTF-16", id="utf16"),
        pytest.param(lambda b: b[:60] + b"\0\0" + b[62:], r"line 4: NUL byte", id="nul"),
        pytest.param(lambda b: b[:-8], r"line 7: .*truncated", id="truncated-time"),
        pytest.param(lambda b: b[:-14], r"line 7: 2 fields, 4 .*truncated", id="truncated-field"),
        pytest.param(broken(3, b"2::20::3"), r"line 3: 3 fields, 4 \(user_id::item", id="short"),
        pytest.param(broken(3, b"2::20::3::1::5"), r"line 3: 5 fields", id="long"),
        pytest.param(broken(1, b"2::20::3::9::5"), r"line 1: 5 fields", id="first-long"),
        pytest.param(broken(3, b""), r"line 3: 1 fields", id="blank-middle"),
        pytest.param(broken(3, b"2:20::3::978300000"), r"line 3: 3 fields", id="one-colon"),
        pytest.param(broken(3, b"2,20,3,978300000"), r"separated by ','", id="commas"),
        pytest.param(broken(2, b"x::10::4::978300760"), r"line 2: 'user_id' is b'x'", id="text"),
        pytest.param(broken(2, b"-1::10::4::978300760"), r"'user_id' is b'-1'", id="negative"),
        pytest.param(broken(2, b"::10::4::978300760"), r"'user_id' is b''", id="no-id"),
        pytest.param(broken(2, b"1::10::4.5::978300760"), r"'rating' is b'4.5'", id="float"),
        pytest.param(broken(2, b"1::10::nan::978300760"), r"'rating' is b'nan'", id="nan"),
        pytest.param(broken(2, b"1::10::4::9.7e8"), r"'timestamp' is b'9.7e8'", id="exponent"),
        pytest.param(broken(2, b"9" * 30 + b"::10::4::978300760"), r"beyond 18 digits", id="huge"),
        pytest.param(broken(2, b"1::10::6::978300760"), r"line 2: 'rating' is 6, 1..5", id="six"),
        pytest.param(broken(2, b"1::10::4::978300760000"), r"Unix seconds", id="milliseconds"),
        pytest.param(broken(6, b"9::10::4::978300760"), r"line 6: 'user_id' is 9", id="user"),
        pytest.param(broken(6, b"1::11::4::978300760"), r"line 6: 'item_id' is 11", id="item"),
        pytest.param(broken(2, b'"1::10::4::978300760'), r"line 2: 'user_id'", id="quote"),
    ],
)
def test_bad_ratings_name_the_line(
    tiny_1m: Writer, content: bytes | Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(DataFileError, match=message):
        read(tiny_1m(ratings=content))


def test_a_line_too_long_and_one_too_short_do_not_cancel_out(tiny_1m: Writer) -> None:
    def change(file: bytes) -> bytes:
        return file.replace(b"978300000\n1", b"978300000::1\n1", 1).replace(b"::978300500", b"")

    with pytest.raises(DataFileError, match=r"line 3: 5 fields.*1 further bad line"):
        read(tiny_1m(ratings=change))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("movies", b"10::Toy Story (1995)\n", r"movies.dat, line 1: 3 fields"),
        ("movies", b"10::A::Comedy\n20::B::Comedie\n", r"line 2: 'genre' is 'Comedie', one of"),
        ("movies", b"10::A::Comedy\n10::B::Comedy\n", r"line 2: id 10 is already on line 1"),
        ("movies", b"x::A::Comedy\n", r"line 1: 'item_id' is 'x'"),
        ("movies", b"<html>oops", r"web page"),
        ("users", b"1::F::1::10\n", r"users.dat, line 1: 4 fields, 5"),
        ("users", b"1::X::1::10::0\n", r"'gender' is 'X', one of \['F', 'M'\]"),
        ("users", b"1::F::2::10::0\n", r"'age' is '2', one of"),
        ("users", b"1::F::1::21::0\n", r"'occupation' is 21, 0..20"),
        ("users", b"1::F::1::10::0", r"'user_id' is 2, which the table of users does not have"),
    ],
)
def test_bad_tables_name_the_line(tiny_1m: Writer, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataFileError, match=message):
        read(tiny_1m(**{name: content}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data", b"1 2 3 881250949\n", r"1 fields, 4 .*separated by ' '"),
        ("item", b"1|Toy Story (1995)|x\n", r"u.item, line 1: 3 fields, 24"),
        ("item", b"1|A||||" + b"|".join([b"2"] * 19), r"0 or 1 expected"),
        ("user", b"1|24|M|pilot|85711\n", r"'occupation' is 'pilot'"),
        ("user", b"1|old|M|other|85711\n", r"'age' is 'old'"),
    ],
)
def test_bad_files_of_100k(tiny_100k: Writer, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataFileError, match=message):
        movielens_100k(tiny_100k(**{name: content}), download=False, verify=False, cache=False)


def test_a_file_with_another_checksum_is_refused(tiny_1m: Writer) -> None:
    with pytest.raises(ChecksumError, match=r"sha256 506d64ca\w+ expected, \w{64} found .*verify="):
        movielens_1m(tiny_1m(), download=False)


def test_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'variant' needs to be one of \['full', 'seed', 'sas"):
        movielens_1m(variant="small")  # type: ignore[arg-type]


# ---- the file of SASRec ---------------------------------------------------------------------


def sasrec(root: Path, rows: bytes, users: bytes, items: bytes) -> Path:
    folder = root / "ml-1m-sasrec"
    folder.mkdir(parents=True)
    (folder / "ml-1m.txt").write_bytes(rows)
    (folder / "sas_to_original_users.txt").write_bytes(users)
    (folder / "sas_to_original_items.txt").write_bytes(items)
    return root


ROWS, USER_MAP, ITEM_MAP = b"1 1\n1 2\n1 3\n2 3\n2 1\n2 2\n", b"1 2\n2 1\n", b"1 30\n2 10\n3 20\n"


@pytest.mark.parametrize(
    ("rows", "users", "items", "message"),
    [
        (b"1 2\n1 1\n", USER_MAP, ITEM_MAP, r"ml-1m.txt, line 2: the time goes backwards"),
        (b"1 1\n3 1\n", USER_MAP, ITEM_MAP, r"ml-1m.txt, line 2: .*has no such rating"),
        (ROWS, b"1 2\n2 2\n", ITEM_MAP, r"users.txt, line 2: an id stands here a second time"),
        (ROWS, USER_MAP, b"1 30\n2 11\n3 20\n", r"items.txt, line 2: 'original' is 11"),
        (b"1\t1\n", USER_MAP, ITEM_MAP, r"ml-1m.txt, line 1: 1 fields"),
    ],
)
def test_bad_sasrec_files(
    tiny_1m: Writer, rows: bytes, users: bytes, items: bytes, message: str
) -> None:
    with pytest.raises(DataFileError, match=message):
        read(sasrec(tiny_1m(), rows, users, items), variant="sasrec")


def test_sasrec_needs_single_ratings_to_join(tiny_1m: Writer) -> None:
    root = sasrec(tiny_1m(ratings=lambda b: b + b[:20]), ROWS, USER_MAP, ITEM_MAP)
    with pytest.raises(DataFileError, match=r"ratings.dat, line 8: this user rated this movie"):
        read(root, variant="sasrec")
