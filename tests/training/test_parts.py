from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import History, RecBatch, Split
from tgrec.models import RecModel
from tgrec.training import TrainSettings, fit
from tgrec.training import fit as fit_function
from tgrec.training.distributed import Workers
from tgrec.training.parts import EVENTS_AT_ONCE, parts_of

Make = Callable[..., Any]
ALONE = Workers()
module = __import__(fit_function.__module__, fromlist=["fit"])


def batch_of(rows: int, length: int, asked: bool = False) -> RecBatch:
    """Every value of every column is another one."""
    grid = torch.arange(rows * length).view(rows, length)
    history = History(grid, grid + 10**6, grid + 2 * 10**6, grid + 3 * 10**6, grid % 2 == 0)
    column = torch.arange(rows)
    times = torch.arange(rows * (length + 1)).view(rows, length + 1) if asked else None
    return RecBatch(column, history, column + 100, column + 200, times, column + 300)


def columns(batch: RecBatch) -> dict[str, Any]:
    """The columns of a batch and of its history, flat."""
    flat = {f.name: getattr(batch, f.name) for f in fields(batch)}
    history = flat.pop("history")
    return flat | {f"history.{f.name}": getattr(history, f.name) for f in fields(history)}


# ---- which parts ------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 60),
    length=st.integers(1, 20),
    most=st.integers(1, 400),
    asked=st.booleans(),
)
def test_the_parts_are_the_batch_in_its_order(
    rows: int, length: int, most: int, asked: bool
) -> None:
    batch = batch_of(rows, length, asked)
    parts = parts_of(batch, TrainSettings(events_at_once=most), ALONE)
    split = [columns(part) for part in parts]
    for name, value in columns(batch).items():
        if value is None:
            assert all(part[name] is None for part in split)
        else:
            assert torch.equal(torch.cat([part[name] for part in split]), value)
    sizes = [part.user.numel() for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all(size * length <= most or size <= 2 for size in sizes)
    fits = max(2, most // length)
    assert len(parts) == -(-rows // fits)  # no more of them than needed


@given(rows=st.integers(2, 60), length=st.integers(1, 20), most=st.integers(1, 400))
def test_a_process_with_one_row_less_has_as_many_parts(rows: int, length: int, most: int) -> None:
    settings = TrainSettings(events_at_once=most)
    main = parts_of(batch_of(rows, length), settings, ALONE)

    class Other(Workers):
        def agree(self, value: float, device: torch.device) -> float:
            return float(len(main))

    other = parts_of(batch_of(rows - 1, length), settings, Other(1, 2))
    assert len(other) == len(main)
    assert all(part.user.numel() > 0 for part in other)


def test_the_default_bounds_the_cpu_only() -> None:
    large = batch_of(EVENTS_AT_ONCE // 100, 101)
    assert len(parts_of(large, TrainSettings(), ALONE)) == 2
    assert parts_of(large, TrainSettings(device="cuda"), ALONE) == [large]
    assert len(parts_of(large, TrainSettings(device="cuda", events_at_once=5000), ALONE)) == 4
    small = batch_of(EVENTS_AT_ONCE // 100, 100)
    assert parts_of(small, TrainSettings(), ALONE) == [small]


def test_what_has_no_rows_of_events_stays_whole() -> None:
    settings = TrainSettings(events_at_once=4)
    batch = batch_of(9, 3)
    for whole in (replace(batch, history=None), replace(batch, graph=HeteroData())):
        assert parts_of(whole, settings, ALONE) == [whole]


# ---- what they add up to ----------------------------------------------------------------------


def change(model: RecModel, split: Split, **settings: Any) -> tuple[Tensor, float]:
    """All parameters' change in one epoch, flat, and its loss."""
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    result = fit(model, split, epochs=1, clip=0.0, precision="fp32", show=False, **settings)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    return after - before, result.history[0]["loss"]


@pytest.mark.usefixtures("plain_descent")
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "tgt_bert4rec"])
def test_parts_make_the_gradient_of_the_whole(name: str, make: Make, split: Split) -> None:
    build = lambda: make(split, name, dropout=0.0)  # noqa: E731
    whole, loss = change(build(), split, batch_size=48)
    assert whole.norm() > 1e-2
    ways = [
        {"batch_size": 48, "events_at_once": 50},  # parts of one batch
        {"batch_size": 16, "accumulate": 3},  # batches of one step
        {"batch_size": 16, "accumulate": 99, "events_at_once": 17},  # both, the epoch ends early
    ]
    for way in ways:
        got, also = change(build(), split, **way)
        torch.testing.assert_close(got, whole, atol=2e-6, rtol=2e-5)
        assert also == pytest.approx(loss, rel=1e-5)
    apart, _ = change(build(), split, batch_size=16)
    assert (apart - whole).norm() > 1e-2 * whole.norm()
