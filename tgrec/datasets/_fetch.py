"""Finds the published files of a dataset, checks them, and downloads them where it may.

Nothing is ever unpacked onto the disk: a zip is read member by member, by name and with a cap on
its size, so a hostile archive can neither write outside a folder nor fill the memory.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import secrets
import ssl
import stat
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger("tgrec")

MAX_BYTES = 256 * 2**20  # ten times the largest file that is read here
TIMEOUT = 10.0  # seconds without a byte: offline machines need an answer, not a wait


class DatasetNotFound(FileNotFoundError):
    """A file of a dataset is nowhere; the message says what to fetch and where to put it."""


class DataFileError(ValueError):
    """A file of a dataset cannot be read; the message names file, line, content and remedy."""


class ChecksumError(DataFileError):
    """A file of a dataset is not the published one."""


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from and what its files hash to.

    Args:
        name: Folder and archive name, for example ``ml-1m``.
        url: Where the archive is published, None if it is not downloaded.
        size: Bytes of the archive.
        md5: Of the archive.
        sha256: Of the archive.
        files: sha256 of each file by name.
        origin: What to fetch where there is no archive to download.
    """

    name: str
    url: str | None
    size: int
    md5: str
    sha256: str
    files: Mapping[str, str]
    origin: str = ""

    def how_to_fetch(self) -> str:
        """What to fetch and where to put it, in one sentence."""
        what = f"fetch {self.origin}"
        place = f"put the file into a folder '{self.name}' in the folder"
        if self.url is not None:
            what = f"fetch {self.url} ({self.size:,} bytes, md5 {self.md5}, sha256 {self.sha256})"
            place = f"put it, or the folder '{self.name}' unpacked from it, into the folder"
        return f"{what} and {place} that the environment variable TGREC_DATA (or root=) names"


@dataclass(frozen=True)
class RawFile:
    """The bytes of one source file, where they were found, and their sha256."""

    data: bytes
    path: str
    sha256: str


def user_cache() -> Path:
    """The user's cache folder for tgrec: ``$XDG_CACHE_HOME/tgrec``, else ``~/.cache/tgrec``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tgrec"


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the datasets: ``root``, else ``$TGREC_DATA``, else the user's cache."""
    chosen = root or os.environ.get("TGREC_DATA")
    return Path(chosen).expanduser() if chosen else user_cache()


def folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Where files are looked for, in order: the data root, then the user's cache folder."""
    return list(dict.fromkeys([data_root(root), user_cache()]))


def get_file(
    source: Source,
    name: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    verify: bool = True,
) -> RawFile:
    """Reads one file of a dataset, downloading the archive if it is nowhere.

    Args:
        source: The dataset.
        name: The file, one of ``source.files``.
        root: Folder with the data, see :func:`data_root`.
        download: Whether the archive may be downloaded.
        verify: Whether the bytes must hash to the published checksum.

    Raises:
        DatasetNotFound: If the file is nowhere and cannot be downloaded.
        ChecksumError: If ``verify`` and the bytes are not the published ones.
        DataFileError: If what is there is not a readable file or archive.
    """
    found = find_file(source, name, root, verify)
    if found is not None:
        return found
    reason = "download=False was asked for"
    if source.url is None:
        reason = "it is not for download"
    elif download:
        try:
            data, path = _member(_download(source, root), source, name), f"{source.name}.zip"
            if data is not None:
                return _checked(source, name, data, f"{path}:{name}", verify)
            reason = f"{source.url} does not hold it"
        except OSError as error:
            reason = f"the download failed: {error}"
    looked = ", ".join(str(p) for p in _places(source, name, root))
    raise DatasetNotFound(
        f"{source.name}: no file {name!r} (looked for {looked}) and {reason}. "
        f"To go on, {source.how_to_fetch()}"
    )


def find_file(
    source: Source,
    name: str,
    root: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> RawFile | None:
    """Reads one file of a dataset if it is on this machine; see :func:`get_file`."""
    for path in _places(source, name, root):
        if not os.path.lexists(path):
            continue
        if path.suffix != ".zip":
            return _checked(source, name, _read_regular(path), str(path), verify)
        data = _member(path, source, name)
        if data is not None:
            return _checked(source, name, data, f"{path}:{name}", verify)
    return None


def _places(source: Source, name: str, root: str | os.PathLike[str] | None) -> list[Path]:
    return [
        place
        for folder in folders(root)
        for place in (folder / source.name / name, folder / name, folder / f"{source.name}.zip")
    ]


def _read_regular(path: Path) -> bytes:
    """The bytes of a regular file that did not change while it was read."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise DataFileError(f"{path}: is {kind}; a data file is expected under this name")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read ({error.strerror or error}); check that it is a plain file "
            f"and that this user may read it"
        ) from error
    if len(data) > MAX_BYTES:
        raise DataFileError(f"{path}: has more than {MAX_BYTES:,} bytes; it is not a data file")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataFileError(f"{path}: changed while it was read; wait for its writer and run again")
    return data


def _member(archive: Path, source: Source, name: str) -> bytes | None:
    """One member of a zip by name, ``ml-1m/NAME`` or ``NAME``; None if there is no such member."""
    if not archive.is_file():
        raise DataFileError(f"{archive}: is no regular file; {source.how_to_fetch()}")
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = {info.filename: info for info in zipped.infolist()}
            info = members.get(f"{source.name}/{name}") or members.get(name)
            if info is None:
                return None
            if info.file_size > MAX_BYTES:
                raise DataFileError(
                    f"{archive}: member {info.filename!r} claims {info.file_size:,} bytes, "
                    f"{MAX_BYTES:,} at most are read; {source.how_to_fetch()}"
                )
            with zipped.open(info) as member:
                data = member.read(MAX_BYTES + 1)  # checks the CRC at the end of the member
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataFileError(
            f"{archive}: is a damaged or truncated zip ({error}); delete it, then "
            f"{source.how_to_fetch()}"
        ) from error
    except OSError as error:
        raise DataFileError(f"{archive}: cannot be read ({error.strerror or error})") from error
    return data


def _checked(source: Source, name: str, data: bytes, path: str, verify: bool) -> RawFile:
    digest = hashlib.sha256(data).hexdigest()
    expected = source.files[name]
    if verify and digest != expected:
        raise ChecksumError(
            f"{path}: is not the published file: sha256 {expected} expected, {digest} found "
            f"({len(data):,} bytes, starting with {data[:40]!r}). Remove it and "
            f"{source.how_to_fetch()}; or pass verify=False to read it as it is"
        )
    return RawFile(data, path, digest)


def _download(source: Source, root: str | os.PathLike[str] | None) -> Path:
    """Downloads the archive, checks it, and puts it into the first folder that is writable."""
    data = _fetch(source.url or "", source.size)
    _check_archive(source, data)
    reasons = []
    for folder in folders(root):
        target = folder / f"{source.name}.zip"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(target) as file:
                file.write(data)
            return target
        except OSError as error:  # read-only or full: try the next folder
            reasons.append(f"{folder}: {error.strerror or error}")
    raise OSError(f"it cannot be written to any folder ({'; '.join(reasons)})")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete and on the disk, or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    with part.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _fetch(url: str, size: int) -> bytes:
    """The bytes at ``url``, over verified TLS; one byte more than ``size`` at most."""
    log.info("downloading %s (%s bytes)", url, f"{size:,}")
    request = urllib.request.Request(url, headers={"User-Agent": "tgrec"})
    context = ssl.create_default_context()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as response:
            data: bytes = response.read(size + 1)
    except http.client.HTTPException as error:
        raise OSError(f"broken answer from the server: {error!r}") from error
    return data


def _check_archive(source: Source, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise ChecksumError(
            f"{source.url}: what was downloaded is not the published archive: {source.size:,} "
            f"bytes with sha256 {source.sha256} expected, {len(data):,} with {digest} received, "
            f"starting with {data[:40]!r}. Nothing was kept; {source.how_to_fetch()}"
        )
