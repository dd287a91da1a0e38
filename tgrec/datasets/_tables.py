"""Bytes of a CSV file with a header line -> a table as it stands there."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pandas as pd

from tgrec.datasets._fetch import DataFileError, RawFile
from tgrec.datasets._read import clean


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
        content.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:  # every byte is a letter of latin-1
        encoding = "latin-1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(content),
                encoding=encoding,
                dtype=dtype,
                engine="c",
                index_col=False,
                low_memory=False,  # one type for a whole column, not one for each block of rows
                # An id may well be called "NA" or "null"; only an empty field is missing.
                keep_default_na=False,
                na_values=[""],
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise DataFileError(
            f"{path}: {str(error).strip().rstrip('.')}; every line needs as many fields, "
            f"separated by commas, as the header"
        ) from error
    except ValueError as error:  # a field that is not of its dtype
        raise DataFileError(f"{path}: {error}; correct it or fetch the file again") from error
