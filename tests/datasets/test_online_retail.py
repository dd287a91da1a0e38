"""Online Retail: which rows become events, in both forms of the file, and damaged files."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets import (
    ChecksumError,
    DataFileError,
    DatasetNotFound,
    OnlineRetail,
    by_week,
    describe,
    online_retail,
    week_range,
    week_targets,
)

CARD = Path(__file__).parents[2] / "datasets" / "online_retail"
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed"
)

# Invented rows. Not in the order of time; 84 has two titles, 0021 looks like a number; left out
# are a row without customer, a cancellation and a row of quantity 0.
CSV = """\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
1,0021,BLUE CUP ,6,2010-12-01 08:26:00,2.55,17,United Kingdom
1,84A,RED CUP,2,2010-12-01 08:26:00,3.39,17.0,United Kingdom
3,84A,"CUP, RED",5,2010-12-20 10:00:00,3.39,12,France
2,84A,"CUP, RED",1,2010-12-02 09:00:00,3.39,12,France
4,84A,RED CUP,4,2010-12-01 08:26:00,3.39,,United Kingdom
C5,84A,RED CUP,-2,2010-12-03 08:00:00,3.39,17,United Kingdom
6,POST,,0,2010-12-03 08:00:00,18.00,17,United Kingdom
7,POST,,3,2010-12-03 08:00:00,18.00,17,United Kingdom
"""


@pytest.fixture
def retail(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of Online Retail and returns the root."""

    def write(content: str | bytes = CSV, form: str = "csv") -> Path:
        folder = tmp_path / "data" / "online-retail"
        folder.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / f"online_retail.{form}").write_bytes(data)
        return folder.parent

    return write


def as_parquet(text: str = CSV) -> bytes:
    table = pd.read_csv(io.StringIO(text), dtype={"StockCode": str, "InvoiceNo": str})
    table["InvoiceDate"] = pd.to_datetime(table["InvoiceDate"])
    buffer = io.BytesIO()
    table.to_parquet(buffer, engine="pyarrow")
    return buffer.getvalue()


def same(one: TemporalRecGraph, two: TemporalRecGraph) -> bool:
    return (
        one.to_pandas().equals(two.to_pandas())
        and one.strings("item", "title") == two.strings("item", "title")
        and torch.equal(one["user", "buys", "item"].quantity, two["user", "buys", "item"].quantity)
    )


def test_the_events_by_hand(retail: Callable[..., Path]) -> None:
    graph = online_retail(retail(), cache=False)
    assert graph.validate()
    assert graph.raw_ids("user").tolist() == [12, 17]
    assert graph.raw_ids("item") == ["0021", "84A", "POST"]
    # The most frequent of the kept rows; one without description has an empty title.
    assert graph.strings("item", "title") == ["BLUE CUP", "CUP, RED", ""]
    assert graph.interaction_types == [("user", "buys", "item")]
    store = graph["user", "buys", "item"]
    assert store.edge_index.tolist() == [[1, 1, 0, 1, 0], [0, 1, 1, 2, 1]]
    assert store.quantity.tolist() == [6, 2, 1, 3, 5]
    stamps = pd.to_datetime(store.time.tolist(), unit="s")
    assert stamps[0] == pd.Timestamp("2010-12-01 08:26")
    assert stamps.is_monotonic_increasing


@needs_pyarrow
def test_both_forms_give_the_same_graph(retail: Callable[..., Path]) -> None:
    plain = online_retail(retail(), cache=False)
    root = retail(as_parquet(), "parquet")
    assert same(online_retail(root, "parquet", verify=False, cache=False), plain)
    # With both there, Parquet is read, and checked.
    with pytest.raises(ChecksumError, match=r"online_retail.parquet: is not the published file"):
        online_retail(root, cache=False)
    assert same(online_retail(root, "csv", cache=False), plain)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: t.replace("\n", "\r\n"), id="crlf"),
        pytest.param(lambda t: "\ufeff" + t, id="bom"),
        pytest.param(lambda t: t.replace(",17.0,", ",17,"), id="integer-customer"),
        pytest.param(
            lambda t: (
                t.replace("2010-12-01 08:26:00", "12/1/2010 8:26")
                .replace("2010-12-20 10:00:00", "12/20/2010 10:00")
                .replace("2010-12-02 09:00:00", "12/2/2010 9:00")
                .replace("2010-12-03 08:00:00", "12/3/2010 8:00")
            ),
            id="month-first-dates",
        ),
        pytest.param(lambda t: t.replace(":00,", ","), id="dates-without-seconds"),
    ],
)
def test_harmless_differences_change_nothing(
    retail: Callable[..., Path], change: Callable[[str], str]
) -> None:
    plain = online_retail(retail(), cache=False)
    assert same(online_retail(retail(change(CSV)), cache=False), plain)


def test_codes_that_look_like_numbers_stay_strings(retail: Callable[..., Path]) -> None:
    root = retail("\n".join(CSV.splitlines()[:2]))
    assert online_retail(root, cache=False).raw_ids("item") == ["0021"]


def test_latin_1_is_read(retail: Callable[..., Path]) -> None:
    root = retail(CSV.replace("BLUE CUP", "\u00a3 CUP").encode("latin-1"))
    assert online_retail(root, cache=False).strings("item", "title")[0] == "\u00a3 CUP"


def test_weeks_of_invoices(retail: Callable[..., Path]) -> None:
    graph = online_retail(retail(), cache=False)
    weeks = week_range(graph)
    assert len(weeks) == 4  # Monday 2010-11-29 to Sunday 2010-12-26
    assert [view.num_events for view in graph.snapshots("W")] == [4, 0, 0, 1]
    assert [t.tolist() for t in week_targets(graph, weeks[0])] == [[0, 1, 1, 1], [1, 0, 1, 2]]
    amounts = by_week(graph, count="quantity")["user", "interacts", "item"]
    assert amounts.edge_attr.view(-1).tolist() == [1.0, 6.0, 2.0, 3.0, 5.0]


def test_it_is_a_pyg_dataset_and_is_kept(retail: Callable[..., Path]) -> None:
    dataset = OnlineRetail(retail())
    assert len(dataset) == 1
    assert same(dataset[0], online_retail(retail(), cache=False))
    assert same(OnlineRetail(retail())[0], dataset[0])  # from the cache
    assert len(list(Path(retail().parent / "cache").rglob("online-retail-*.safetensors"))) == 1


# ---- bad files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("<html>404", "web page"),
        (CSV.splitlines()[0] + "\n", "none of its 0 rows has a CustomerID"),
        (CSV.replace("CustomerID", "Customer ID"), r"no columns \['CustomerID'\] among"),
        (CSV.replace("0021,BLUE CUP ,6", "0021,BLUE CUP ,six"), "Quantity is no whole.* row 1"),
        (CSV.replace("0021,BLUE CUP ,6", "0021,BLUE CUP ,6.5"), "Quantity is no whole.* row 1"),
        (CSV.replace("0021,BLUE CUP ,6", "0021,BLUE CUP ,"), "Quantity is missing in row 1"),
        (CSV.replace(",17.0,", ",x17,"), "CustomerID is no whole number in row 2"),
        (CSV.replace(",0021,", ",,"), "StockCode is missing in row 1"),
        (CSV.replace("2010-12-20", "20.12.2010"), "InvoiceDate is written neither .* row 3"),
        (CSV.replace("2010-12-01", "2009-12-01"), r"not in 2010-12-01 .. 2011-12-09 in rows 1, 2"),
        (CSV + "8,9,CUP\n8,9,CUP,1,2010-12-05 10:00:00,1,17,UK,x\n", "as many fields"),
        (CSV[: CSV.index(",84A")] + ",", "Quantity is missing in row 2"),
    ],
)
def test_bad_files_name_the_column_and_the_row(
    retail: Callable[..., Path], text: str, message: str
) -> None:
    with pytest.raises(DataFileError, match=f"online_retail.csv: .*{message}"):
        online_retail(retail(text), cache=False)


@needs_pyarrow
@pytest.mark.parametrize("content", [b"PAR1 no", b"<html>404", b"PAR1" + bytes(100) + b"PAR1"])
def test_damaged_parquet_is_refused(retail: Callable[..., Path], content: bytes) -> None:
    with pytest.raises(DataFileError, match=r"online_retail.parquet: is no readable Parquet"):
        online_retail(retail(content, "parquet"), verify=False, cache=False)


def test_without_pyarrow_the_error_says_what_to_install(
    retail: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    root = retail(b"PAR1", "parquet")
    with pytest.raises(ImportError, match=r"pip install 'tgrec\[parquet\]'; or .*form='csv'"):
        online_retail(root, verify=False, cache=False)
    retail()
    assert online_retail(root, "csv", cache=False).num_events == 5


def test_without_a_file_the_error_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound) as caught:
        online_retail(tmp_path)
    for words in ("online_retail.parquet", "online_retail.csv", "UCI", "TGREC_DATA", "root="):
        assert words in str(caught.value)
    with pytest.raises(DatasetNotFound, match=r"there is no file 'online_retail.csv' in"):
        online_retail(tmp_path, form="csv")
    with pytest.raises(ValueError, match=r"'form' needs to be one of \['parquet', 'csv'\]"):
        online_retail(tmp_path, form="xlsx")  # type: ignore[arg-type]


# ---- the real file --------------------------------------------------------------------------


@needs_pyarrow
@pytest.mark.dataset
@pytest.mark.slow
def test_the_real_file_has_the_golden_numbers(real_root: Callable[[str], str]) -> None:
    graph = online_retail(real_root("online-retail/online_retail.parquet"), cache=False)
    golden = json.loads((CARD / "stats.json").read_text())
    assert describe(graph) == golden["full"]
    assert describe(by_week(graph)) == golden["by_week"]
    assert (graph.num_events, graph.num_users, graph.num_items) == (397_924, 4_339, 3_665)
    assert graph.strings("item", "title")[graph.raw_ids("item").index("85123A")] == (
        "WHITE HANGING HEART T-LIGHT HOLDER"
    )
    store = graph["user", "buys", "item"]
    assert int(store.quantity.min()) == 1
    assert int(store.quantity.max()) == 80_995
    assert graph.raw_ids("user").tolist()[0] == 12_346
    # Every row of the file is where it belongs: the first invoice, in its order.
    assert [graph.raw_ids("item")[i] for i in store.edge_index[1, :3].tolist()] == [
        "85123A", "71053", "84406B",
    ]  # fmt: skip
    assert store.quantity[:3].tolist() == [6, 6, 8]
    assert (CARD / "SHA256SUMS").read_text().split()[0] == (
        "518b36c8452f511e938535aebce2c3ea051432fe999bd85e81720ebb07af5931"
    )
