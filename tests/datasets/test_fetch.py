"""Finding, checking and downloading files; hostile archives; machines without a network."""

from __future__ import annotations

import hashlib
import io
import os
import ssl
import urllib.error
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tgrec.datasets import ChecksumError, DataFileError, DatasetNotFound, _fetch, movielens_1m
from tgrec.datasets._fetch import Source, data_root, find_file, get_file
from tgrec.datasets._movielens_files import ML_1M, ML_1M_SASREC, ML_100K

CONTENT = b"1::2::3::978300000\n"


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


ARCHIVE = zipped({"toy/ratings.dat": CONTENT, "toy/../../evil": b"x", "/abs": b"x"})
TOY = Source(
    name="toy",
    url="https://files.grouplens.org/toy.zip",
    size=len(ARCHIVE),
    md5="m" * 32,
    sha256=hashlib.sha256(ARCHIVE).hexdigest(),
    files={"ratings.dat": hashlib.sha256(CONTENT).hexdigest()},
)


class FakeServer:
    """Stands for urlopen; notes the calls and answers with bytes or an error."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.calls: list[tuple[str, float, ssl.SSLContext]] = []

    @contextmanager
    def __call__(self, request: Any, timeout: float, context: ssl.SSLContext) -> Iterator[Any]:
        self.calls.append((request.full_url, timeout, context))
        if isinstance(self.answer, Exception):
            raise self.answer
        yield io.BytesIO(self.answer)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer(ARCHIVE)
    monkeypatch.setattr("urllib.request.urlopen", fake)
    return fake


# ---- where files are found ------------------------------------------------------------------


@pytest.mark.parametrize("place", ["toy/ratings.dat", "ratings.dat"])
def test_files_are_found_in_the_folder_or_beside(tmp_path: Path, place: str) -> None:
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    found = find_file(TOY, "ratings.dat", tmp_path / "data")
    assert found is not None
    assert (found.data, found.path) == (CONTENT, str(path))


@pytest.mark.parametrize("member", ["toy/ratings.dat", "ratings.dat"])
def test_files_are_found_in_the_zip_and_nothing_is_unpacked(tmp_path: Path, member: str) -> None:
    (tmp_path / "toy.zip").write_bytes(zipped({member: CONTENT, "../evil": b"x"}))
    assert get_file(TOY, "ratings.dat", tmp_path, download=False).data == CONTENT
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["toy.zip"]
    assert not (tmp_path.parent / "evil").exists()


def test_root_then_environment_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_root() == tmp_path / "cache" / "tgrec"
    monkeypatch.setenv("TGREC_DATA", str(tmp_path / "env"))
    assert data_root() == tmp_path / "env"
    assert data_root("~/x") == Path.home() / "x"
    monkeypatch.setenv("TGREC_DATA", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache" / "tgrec"


def test_paths_with_spaces_and_unicode(tmp_path: Path) -> None:
    path = tmp_path / "donn\u00e9es \u00e0 moi" / "toy"
    path.mkdir(parents=True)
    (path / "ratings.dat").write_bytes(CONTENT)
    assert get_file(TOY, "ratings.dat", str(path.parent), download=False).data == CONTENT


# ---- what is refused ------------------------------------------------------------------------


def test_wrong_bytes_name_file_expected_actual_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"<html>")
    with pytest.raises(ChecksumError) as error:
        get_file(TOY, "ratings.dat", tmp_path, download=False)
    actual = hashlib.sha256(b"<html>").hexdigest()
    for part in (str(tmp_path / "ratings.dat"), TOY.files["ratings.dat"], actual, "<html>", "veri"):
        assert part in str(error.value)
    assert get_file(TOY, "ratings.dat", tmp_path, False, verify=False).data == b"<html>"


def test_a_folder_a_pipe_and_a_link_loop_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.mkdir()
    with pytest.raises(DataFileError, match="is a folder"):
        find_file(TOY, "ratings.dat", tmp_path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(DataFileError, match="no regular file"):
        find_file(TOY, "ratings.dat", tmp_path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(DataFileError, match="cannot be read"):
        find_file(TOY, "ratings.dat", tmp_path)


def test_files_and_members_have_a_size_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetch, "MAX_BYTES", 10)
    (tmp_path / "toy.zip").write_bytes(ARCHIVE)
    with pytest.raises(DataFileError, match="claims 19 bytes, 10 at most"):
        find_file(TOY, "ratings.dat", tmp_path)
    (tmp_path / "ratings.dat").write_bytes(CONTENT)
    with pytest.raises(DataFileError, match="more than 10 bytes"):
        find_file(TOY, "ratings.dat", tmp_path)


def damaged_member() -> bytes:
    at = ARCHIVE.index(b"toy/ratings.dat") + len(b"toy/ratings.dat") + 3
    return ARCHIVE[:at] + bytes([ARCHIVE[at] ^ 0xFF]) + ARCHIVE[at + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ARCHIVE[: len(ARCHIVE) // 2], id="truncated"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>not found</html>", id="html"),
        pytest.param(damaged_member(), id="damaged"),
    ],
)
def test_bad_archives_say_what_to_fetch(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "toy.zip").write_bytes(content)
    with pytest.raises(DataFileError, match=r"toy\.zip: is a damaged .*delete it, then fetch http"):
        find_file(TOY, "ratings.dat", tmp_path)


# ---- downloads ------------------------------------------------------------------------------


def test_download_is_checked_kept_and_used_again(tmp_path: Path, server: FakeServer) -> None:
    assert get_file(TOY, "ratings.dat", tmp_path).data == CONTENT
    assert get_file(TOY, "ratings.dat", tmp_path).data == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["toy.zip"]
    ((url, timeout, context),) = server.calls
    assert url == TOY.url
    assert timeout <= 10
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_download_goes_to_the_cache_if_the_root_is_not_writable(
    tmp_path: Path, server: FakeServer
) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "data"  # cannot be made, whoever runs the test
    assert get_file(TOY, "ratings.dat", root).data == CONTENT
    assert (tmp_path / "cache" / "tgrec" / "toy.zip").read_bytes() == ARCHIVE
    assert get_file(TOY, "ratings.dat", root).data == CONTENT
    assert len(server.calls) == 1


@pytest.mark.parametrize("answer", [b"<html>error</html>", ARCHIVE[:-1], ARCHIVE + b"more"])
def test_a_wrong_download_is_refused_and_not_kept(
    tmp_path: Path, server: FakeServer, answer: bytes
) -> None:
    server.answer = answer
    with pytest.raises(ChecksumError, match="not the published archive.*Nothing was kept"):
        get_file(TOY, "ratings.dat", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no address"),
        TimeoutError("timed out"),
        ssl.SSLCertVerificationError("self-signed certificate"),
        ConnectionResetError("reset"),
    ],
)
def test_offline_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, server: FakeServer, failure: Exception
) -> None:
    server.answer = failure
    with pytest.raises(DatasetNotFound) as error:
        movielens_1m(tmp_path)
    message = str(error.value)
    for part in (
        "ratings.dat",
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "5,917,549 bytes",
        "c4d9eecfca2ab87c1945afe126590906",
        "TGREC_DATA",
        str(tmp_path / "ml-1m" / "ratings.dat"),
        str(failure.args[0]),
    ):
        assert part in message
    assert isinstance(error.value, FileNotFoundError)


def test_download_false_asks_nobody(tmp_path: Path, server: FakeServer) -> None:
    with pytest.raises(DatasetNotFound, match="download=False was asked for"):
        movielens_1m(tmp_path, download=False)
    assert server.calls == []


def test_an_archive_without_the_file_is_reported(tmp_path: Path, server: FakeServer) -> None:
    server.answer = archive = zipped({"toy/other": b""})
    source = replace(TOY, sha256=hashlib.sha256(archive).hexdigest(), size=len(archive))
    with pytest.raises(DatasetNotFound, match="does not hold it"):
        get_file(source, "ratings.dat", tmp_path)


def test_only_grouplens_is_asked_and_only_over_tls() -> None:
    for source in (ML_1M, ML_100K):
        assert (source.url or "").startswith("https://files.grouplens.org/")
    assert ML_1M_SASREC.url is None
