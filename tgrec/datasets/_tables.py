"""Files of any usual kind -> tables as they stand there."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tgrec.data.files import near_path
from tgrec.data.recognise import index_as_columns
from tgrec.data.tables import parse_table, table_bytes
from tgrec.datasets._fetch import DataFileError, RawFile
from tgrec.datasets._read import clean

FileName = str | os.PathLike[str]


def read_csv(data: bytes, path: str, dtype: Any = None) -> pd.DataFrame:
    """All rows and columns of a comma-separated file, in UTF-8 or else in latin-1.

    Args:
        data: The file.
        path: Its name, for messages.
        dtype: As in :func:`pandas.read_csv`.

    Raises:
        DataFileError: If the file is empty or no such table.
    """
    content = clean(RawFile(data, path, ""))
    try:
        table = parse_table(content, path, encoding=None, dtype=dtype)
    except ValueError as error:
        raise DataFileError(str(error)) from error
    return table.reset_index(drop=True)


def read_file(
    path: FileName, sep: str | None = None, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """A table of texts, or of whatever a Parquet file holds; columns 0, 1, ... without a header.

    Texts have no blanks around them: ``1, 26`` is 1 and 26.
    """
    if Path(path).suffix in (".parquet", ".pq"):
        return _read_parquet(Path(path))
    try:
        content = table_bytes(path)
        start = content[:65536].decode("utf-8-sig", errors="replace").lstrip("\r\n")
        first = re.split(r"[\r\n]", start, maxsplit=1)[0]
        sep = sep or _separator(first)
        fields = _fields(first, sep)
        if names is not None and len(names) != len(fields):
            raise ValueError(f"'names' needs to name {len(fields)} columns, as many as the first "
                             f"line has (got {list(names)})")  # fmt: skip
        headless = names is not None or any(_is_number(field) for field in fields)
        given = [str(i) for i in range(len(fields))] if headless else None
        table = parse_table(content, path, sep, None, str, given, strip=True)
    except FileNotFoundError:
        raise
    except ValueError as error:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise DataFileError(text) from error
    return table if given is None else table.set_axis(names or range(len(given)), axis=1)


def _read_parquet(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"'path': there is no file {str(path)!r}{near_path(path)}")
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{path} is a Parquet file, which needs pyarrow: python -m pip install "
                          f"'tgrec[parquet]'")  # fmt: skip
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:  # pyarrow's errors are of these classes
        raise DataFileError(f"{path}: is no readable Parquet file ({error}); fetch it "
                            f"again") from error  # fmt: skip
    return index_as_columns(table).reset_index(drop=True)


def _separator(line: str) -> str:
    if "::" in line:
        return "::"
    counts = {sep: line.count(sep) for sep in ("\t", ",", ";", "|")}
    best = max(counts, key=lambda sep: counts[sep])
    return best if counts[best] else r"\s+" if re.search(r"\S\s+\S", line) else ","


def _fields(line: str, sep: str) -> list[str]:
    if len(sep) == 1:
        return next(csv.reader([line], delimiter=sep, skipinitialspace=True))
    return re.split(sep, line.strip())


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?([eE][+-]?\d+)?", text.strip().strip('"')) is not None
