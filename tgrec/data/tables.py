"""Text files of tables, in one place: bytes of a file to a DataFrame that knows its lines."""

from __future__ import annotations

import csv
import gzip
import io
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tgrec.data.files import near_path

_GZIP, _ZIP = b"\x1f\x8b", b"PK"
# Stands for "::" while a file is parsed: no text holds it, and the fast parser knows one byte only.
_UNIT = b"\x1f"


def table_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a text file, unpacked if it is a gzip.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty, a zip, or a damaged gzip.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"'path': there is no file {str(path)!r}{near_path(path)}")
    content = path.read_bytes()
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: is a damaged compressed file ({error}); fetch it "
                             f"again") from error  # fmt: skip
    if not content.strip():
        raise ValueError(f"{path}: the file is empty; it needs a header and one line per event")
    if content.startswith(_ZIP):
        raise ValueError(f"{path}: this is a compressed file; unpack it first")
    return content


def parse_table(
    content: bytes,
    path: str | os.PathLike[str],
    sep: str = ",",
    encoding: str | None = "utf-8-sig",
    dtype: Any = None,
    names: Sequence[str] | None = None,
    strip: bool = False,
) -> pd.DataFrame:
    """All rows and columns of a text table.

    Args:
        content: The file.
        path: Its name, for messages.
        sep: The separator; ``"::"`` is read without quotes, as MovieLens writes it.
        encoding: None takes UTF-8, or else latin-1.
        dtype: As in :func:`pandas.read_csv`.
        names: The columns of a file without a header line.
        strip: Whether blanks around names and fields are none of theirs; ``dtype`` is ``str``.

    Returns:
        The table. Its index is called ``line`` and holds line numbers, from 1, unless blank lines
        or line ends inside quotes make them unknown.

    Raises:
        ValueError: If it is no such table; the message names the line where one is to blame.
    """
    encoding = encoding or _encoding(content)
    if b"\0" in content[:4096]:
        raise ValueError(
            f"{path}: holds NUL bytes; it is not text in {encoding!r} (pass encoding=)"
        )
    colons = sep == "::" and _UNIT not in content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.BytesIO(content.replace(b"::", _UNIT) if colons else content),
                sep=_UNIT.decode() if colons else sep,
                encoding=encoding,
                dtype=dtype,
                header=0 if names is None else None,
                names=None if names is None else list(names),
                # Only this engine reads longer separators.
                engine="c" if colons or len(sep) == 1 or sep == r"\s+" else "python",
                quoting=csv.QUOTE_NONE if colons else csv.QUOTE_MINIMAL,
                index_col=False,
                skipinitialspace=strip,
                # An id may well be called "NA" or "null"; only an empty field is missing.
                keep_default_na=False,
                na_values=[""],
            )
    except UnicodeDecodeError as error:
        line = content[: _error_offset(content, encoding)].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not {encoding}: {error.reason}; pass encoding=, e.g. 'latin-1'"
        ) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        whole = "the header" if names is None else f"the first one, which has {len(names)}"
        raise ValueError(
            f"{path}: {str(error).strip().rstrip('.')}; every line needs as many fields as "
            f"{whole} (separator {sep!r})"
        ) from error
    except ValueError as error:  # a field that is not of its dtype
        raise ValueError(f"{path}: {error}; correct it or fetch the file again") from error
    frame = _stripped(frame) if strip else frame
    return _with_lines(frame, content, first=1 if names is not None else 2)


def _stripped(frame: pd.DataFrame) -> pd.DataFrame:
    """The table without blanks around names and texts; a text of blanks is missing."""
    texts = frame.rename(columns=str.strip).apply(lambda column: column.str.strip())
    return texts.mask(texts == "")


def _with_lines(frame: pd.DataFrame, content: bytes, first: int) -> pd.DataFrame:
    body = content.rstrip(b"\r\n")
    ends = body.count(b"\n") or body.count(b"\r")
    if ends + 1 == len(frame) + first - 1:
        frame.index = pd.RangeIndex(first, first + len(frame), name="line")
    return frame


def _encoding(content: bytes) -> str:
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:  # every byte is a letter of latin-1
        return "latin-1"
    return "utf-8-sig"


def _error_offset(content: bytes, encoding: str) -> int:
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return 0
