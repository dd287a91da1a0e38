from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgrec.training import TrainSettings, autocast, check_device


def rates(total: int, **kwargs: Any) -> list[float]:
    settings = TrainSettings(lr=1.0, **kwargs)
    return [settings.lr_at(step, total) for step in range(total)]


def test_constant_after_a_linear_rise() -> None:
    assert rates(6) == [1.0] * 6
    assert rates(6, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_cosine_by_hand() -> None:
    # 0.01 + 0.99 * (1 + cos(pi * step / 4)) / 2
    half = 0.01 + 0.99 * 0.5 * (1 + math.sqrt(0.5))
    assert rates(4, lr_decay="cosine") == pytest.approx([1.0, half, 0.505, 1.01 - half])
    assert TrainSettings(lr=1.0, lr_decay="cosine").lr_at(4, 4) == pytest.approx(0.01)


def test_training_may_end_on_the_way() -> None:
    assert TrainSettings(epochs=9).last_epoch == 9
    assert TrainSettings(epochs=9, stop_after=4).last_epoch == 4
    with pytest.raises(ValueError, match="'stop_after' needs to be at most 'epochs', 9 .got 10."):
        TrainSettings(epochs=9, stop_after=10)


def test_cosine_begins_where_the_rise_ends() -> None:
    got = rates(6, lr_decay="cosine", warmup_steps=2)
    assert got == pytest.approx([0.5, 1.0, *rates(4, lr_decay="cosine")])


@given(
    total=st.integers(1, 500), warmup=st.integers(0, 600), decay=st.sampled_from(["none", "cosine"])
)
def test_the_rate_stays_in_its_bounds(total: int, warmup: int, decay: Any) -> None:
    got = rates(total, warmup_steps=warmup, lr_decay=decay)
    assert all(0 < rate <= 1 for rate in got)
    top = min(warmup, total)
    assert all(a <= b + 1e-12 for a, b in zip(got[:top], got[1:top], strict=False))
    assert all(a >= b - 1e-12 for a, b in zip(got[top:], got[top + 1 :], strict=False))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(n, v) for n in ("epochs", "patience", "eval_every", "batch_size", "accumulate",
                           "events_at_once", "stop_after")
          for v in (0, -3, 1.5, True, "8")],
        *[("lr", v) for v in (0, -1e-3, math.nan, math.inf, "fast")],
        *[(n, v) for n in ("weight_decay", "clip", "warmup_steps") for v in (-1, math.nan, None)],
        *[("seed", v) for v in (-1, 2**32, 1.0, True)],
        ("lr_decay", "linear"),
        ("windows", "first"),
        ("track", "T3"),
        ("precision", "fp16"),
        ("metric", "NDCG@11"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_what_is_wanted(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"'{name}' needs to be .*got") as caught:
        TrainSettings(**{name: value})
    assert str(value) in str(caught.value)
    with pytest.raises(ValueError, match=f"'{name}' needs to be"):
        replace(TrainSettings(), **{name: value})


def test_auto_is_bfloat16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert TrainSettings().amp == native
        assert TrainSettings(precision="bf16").amp
        assert not TrainSettings(precision="fp32").amp
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native, **_: native)
        assert TrainSettings(device="cuda").amp == native
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with autocast(TrainSettings(precision=precision)):  # type: ignore[arg-type]
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_device_that_is_not_there_is_named_with_the_remedy() -> None:
    assert check_device("cpu") == torch.device("cpu")
    devices: tuple[Any, ...] = ("cuda:99", "gpu", 1.5, None)
    for device in devices:
        with pytest.raises(ValueError, match=f"'device' '{device}' cannot be used here .*'cpu'"):
            check_device(device)


def test_the_defaults_are_the_ones_of_the_seed() -> None:
    wanted = {"epochs": 200, "patience": 20, "batch_size": 256, "lr": 1e-3, "lr_decay": "none",
              "warmup_steps": 0, "metric": "NDCG@10", "track": "T1"}  # fmt: skip
    assert {k: v for k, v in asdict(TrainSettings()).items() if k in wanted} == wanted
