"""UCI Online Retail (Chen, Sain and Guo 2012) as a temporal graph.

Every line of an invoice of a UK online shop that names a customer and a positive quantity is an
event: 397,924 of 541,909 rows. Left out are rows without a customer, and cancellations and
corrections, whose quantity is negative; what they cancel stays.

Users are customers, ``raw_id`` the published CustomerID. Items are stock codes, ``raw_id`` the code
(a string: ``85123A``), ``title`` the most frequent description. Edges ``('user', 'buys', 'item')``
carry ``time`` (the minute of the invoice, UK time read as UTC), ``quantity`` (int64) and
``event_id``, the position in the order (time, row of the file). All lines of an invoice share its
minute, so this tie rule decides results; weeks do not depend on it.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from tgrec.data import TemporalRecGraph
from tgrec.data.columns import first_rows
from tgrec.datasets._fetch import (
    DataFileError,
    DatasetNotFound,
    RawFile,
    Source,
    data_root,
    find_file,
    user_cache,
)
from tgrec.datasets._store import OneGraph, cached
from tgrec.datasets._tables import read_csv

Root = str | os.PathLike[str] | None
Form = Literal["parquet", "csv"]

ONLINE_RETAIL = Source(
    name="online-retail",
    url=None,
    size=3_264_021,
    md5="",
    sha256="518b36c8452f511e938535aebce2c3ea051432fe999bd85e81720ebb07af5931",
    files={
        "online_retail.parquet": "518b36c8452f511e938535aebce2c3ea051432fe999bd85e81720ebb07af5931",
        "online_retail.csv": "",  # published as a spreadsheet: its CSV has no one checksum
    },
    origin=(
        "'data/Online Retail.parquet' of the repository BenJMcCarty/UCI_Dataset_Online_Retail "
        "(3,264,021 bytes) and name it online_retail.parquet, or save the spreadsheet 'Online "
        "Retail.xlsx' of the UCI Machine Learning Repository as online_retail.csv,"
    ),
)
CODE_VERSION = 1  # part of the cache key: raise it whenever the same file gives another graph

_COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID")
# As spreadsheets write the dates of the published file. With day and month exchanged it could not
# be read, since most days are beyond 12.
_DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M")
_FIRST, _LAST = pd.Timestamp("2010-12-01"), pd.Timestamp("2011-12-10")


def online_retail(
    root: Root = None, form: Form | None = None, verify: bool = True, cache: bool = True
) -> TemporalRecGraph:
    """Online Retail: 4,339 customers, 3,665 stock codes, 397,924 purchases of 2010-2011.

    The file is looked for as ``<root>/online-retail/NAME``, ``<root>/NAME`` and in
    ``<root>/online-retail.zip``, with NAME ``online_retail.parquet``, then ``online_retail.csv``.

    Args:
        root: Folder with the data; by default ``$TGREC_DATA``, else the user's cache folder.
        form: Only this form of the file; None for the first that is there.
        verify: Whether the Parquet file must have its known checksum; the CSV form has none.
        cache: Whether the graph is kept in the user's cache folder, if that is writable.

    Raises:
        DatasetNotFound: If the file is nowhere; the message says what to put where.
        ChecksumError: If the Parquet file is another one.
        DataFileError: If the file cannot be read; the message names column and rows.
        ImportError: If the Parquet file is there and pyarrow is not.
    """
    if form is not None and form not in get_args(Form):
        raise ValueError(f"'form' needs to be one of {list(get_args(Form))} (got {form!r})")
    raw = _find([form] if form else get_args(Form), root, verify)
    key = ["online-retail", CODE_VERSION, raw.sha256]
    places = [user_cache() / "processed"] if cache else []
    return cached(key, places, lambda: _graph(_purchases(_read(raw), raw.path)))


class OnlineRetail(OneGraph):
    """Online Retail as a PyG dataset: ``dataset[0]`` is what :func:`online_retail` returns."""

    def __init__(
        self,
        root: Root = None,
        form: Form | None = None,
        verify: bool = True,
        cache: bool = True,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(online_retail(root, form, verify, cache), data_root(root), transform)


def _find(forms: Sequence[str], root: Root, verify: bool) -> RawFile:
    for form in forms:
        name = f"online_retail.{form}"
        raw = find_file(ONLINE_RETAIL, name, root, verify and form == "parquet")
        if raw is not None:
            return raw
    names = " or ".join(f"'online_retail.{form}'" for form in forms)
    raise DatasetNotFound(
        f"online-retail: there is no file {names} in {data_root(root)} or {user_cache()}, nor in a "
        f"folder 'online-retail' there, and it is not for download. To go on, "
        f"{ONLINE_RETAIL.how_to_fetch()}"
    )


def _read(raw: RawFile) -> pd.DataFrame:
    """All rows of the file, in either form, with the columns that are used."""
    if raw.path.endswith(".csv"):
        # Ids are text: a StockCode may look like a number, and '0123' is not '123'.
        text = dict.fromkeys(("InvoiceNo", "StockCode", "Description", "InvoiceDate"), str)
        table = read_csv(raw.data, raw.path, text)
    else:
        if importlib.util.find_spec("pyarrow") is None:
            raise ImportError(
                f"{raw.path} is a Parquet file, which needs pyarrow: python -m pip install "
                f"'tgrec[parquet]'; or put the same table there as online_retail.csv and pass "
                f"form='csv'"
            )
        try:
            table = pd.read_parquet(io.BytesIO(raw.data), engine="pyarrow")
        except (ValueError, OSError) as error:  # pyarrow's errors are of these classes
            raise DataFileError(
                f"{raw.path}: is no readable Parquet file ({error}); fetch it again"
            ) from error
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise DataFileError(
            f"{raw.path}: there are no columns {missing} among {list(table.columns)}; the columns "
            f"of Online Retail are {list(_COLUMNS)}, UnitPrice and Country"
        )
    return table[list(_COLUMNS)]


def _purchases(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """The cleaned events, in the order of the file: user_id, item_id, title, quantity, time."""
    quantity = _integers(table["Quantity"], path, missing=False)
    customer = _integers(table["CustomerID"], path, missing=True)
    kept = ((quantity > 0) & (customer >= 0)).to_numpy()
    if not kept.any():
        raise DataFileError(
            f"{path}: none of its {len(table)} rows has a CustomerID and a positive Quantity"
        )
    code = table["StockCode"]
    _refuse((code.isna() | (code == "")).to_numpy() & kept, path, "StockCode is missing")
    time = _times(table["InvoiceDate"], path)
    bad = ~((time >= _FIRST) & (time < _LAST)).to_numpy()
    _refuse(bad & kept, path, f"InvoiceDate is not in {_FIRST:%Y-%m-%d} .. 2011-12-09")
    return pd.DataFrame(
        {
            "user_id": customer[kept].astype("int64"),
            "item_id": code[kept].astype(str),
            "title": table["Description"][kept].fillna("").astype(str).str.strip(),
            "quantity": quantity[kept].astype("int64"),
            "time": time[kept].astype("datetime64[s]"),
        }
    ).reset_index(drop=True)


def _graph(events: pd.DataFrame) -> TemporalRecGraph:
    graph = TemporalRecGraph.from_pandas(
        events.assign(relation="buys"), time="time", relation="relation", items=_titles(events)
    )
    order = np.argsort(events["time"].to_numpy(), kind="stable")  # the order of the graph
    quantity = events["quantity"].to_numpy()[order]
    graph["user", "buys", "item"].quantity = torch.from_numpy(quantity)
    return graph


def _titles(events: pd.DataFrame) -> pd.DataFrame:
    """One row per stock code, in ascending order, with its most frequent description."""
    counts = events.groupby(["item_id", "title"], as_index=False, sort=True).size()
    # A stable sort: of equally frequent descriptions the first of the alphabet stays in front.
    best = counts.sort_values(["item_id", "size"], ascending=[True, False], kind="stable")
    return best.drop_duplicates("item_id")[["item_id", "title"]].reset_index(drop=True)


def _integers(column: pd.Series, path: str, missing: bool) -> pd.Series:
    """A column of whole numbers as float64, NaN where the field is empty."""
    values = pd.to_numeric(column, errors="coerce").astype("float64")
    absent = column.isna().to_numpy()
    bad = ~absent & (values.isna() | (values != np.floor(values))).to_numpy()
    _refuse(bad, path, f"{column.name} is no whole number")
    if not missing:
        _refuse(absent, path, f"{column.name} is missing")
    return values


def _times(column: pd.Series, path: str) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column
    # One format for the whole file, the one that the first row has.
    readable = (
        f
        for f in _DATE_FORMATS
        if pd.to_datetime(column[:1], format=f, errors="coerce").notna().all()
    )
    times = pd.to_datetime(column, format=next(readable, _DATE_FORMATS[0]), errors="coerce")
    problem = "InvoiceDate is written neither as 2010-12-31 08:26:00 nor as 12/31/2010 8:26"
    _refuse(times.isna().to_numpy(), path, problem)
    return times


def _refuse(bad: np.ndarray, path: str, problem: str) -> None:
    if bad.any():
        raise DataFileError(
            f"{path}: {problem} in {first_rows(bad)}, counted from the line below the header; "
            f"correct it or fetch the file again"
        )
