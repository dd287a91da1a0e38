"""The counter-based stream: reference values, uniform, blind to batches and broadcasting."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data.random import hash_keys, permutation, uniform, uniform64

MASK = (1 << 64) - 1
INT64 = st.integers(-(2**63), 2**63 - 1)


def reference(*keys: int) -> int:
    """SplitMix64's finalizer in Python's integers."""
    state = 0
    for key in keys:
        z = ((state ^ (key & MASK)) + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        state = z ^ (z >> 31)
    return state - (1 << 64) if state >= 1 << 63 else state


def test_published_value_of_splitmix64() -> None:
    # The first output of SplitMix64 seeded with 0, as in its reference implementation.
    assert reference(0) & MASK == 0xE220A8397B1DCDAF
    assert int(hash_keys(0)) & MASK == 0xE220A8397B1DCDAF


@given(st.lists(INT64, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_hash_is_that_of_the_reference(keys: list[int]) -> None:
    assert int(hash_keys(*keys)) == reference(*keys)
    assert int(hash_keys(*(torch.tensor(k) for k in keys))) == reference(*keys)


@given(INT64, st.lists(INT64, min_size=1, max_size=5), st.lists(INT64, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_broadcasting_changes_nothing(seed: int, rows: list[int], columns: list[int]) -> None:
    matrix = hash_keys(seed, torch.tensor(rows).unsqueeze(1), torch.tensor(columns))
    assert matrix.tolist() == [[reference(seed, r, c) for c in columns] for r in rows]
    draws = uniform(seed, torch.tensor(rows).unsqueeze(1), torch.tensor(columns))
    for k, row in enumerate(rows):
        assert torch.equal(draws[k], uniform(seed, row, torch.tensor(columns)))


def test_order_of_keys_matters() -> None:
    a, b = torch.arange(1000), torch.arange(1000).flip(0)
    assert (hash_keys(a, b) != hash_keys(b, a)).float().mean() > 0.99
    assert int(hash_keys(1)) != int(hash_keys(1, 0))
    assert int(hash_keys(0, 1)) != int(hash_keys(1))


@pytest.mark.parametrize("draw", [uniform, uniform64])
@pytest.mark.parametrize("keys", [(torch.arange(200_000),), (7, torch.arange(200_000) * 2**20)])
def test_draws_are_uniform(draw: type[uniform], keys: tuple[torch.Tensor | int, ...]) -> None:  # type: ignore[valid-type]
    values = draw(*keys).double()  # type: ignore[operator]
    size = values.numel()
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, 100, 0, 1)
    chi_square = float(((counts - size / 100) ** 2 / (size / 100)).sum())
    assert chi_square < 160  # 99 degrees of freedom: beyond it once in 10,000
    lag = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]
    assert abs(float(lag)) < 4 / math.sqrt(size)


def test_every_bit_depends_on_every_bit() -> None:
    keys = torch.arange(10_000)
    before = hash_keys(keys)
    for bit in range(63):
        flipped = before ^ hash_keys(keys ^ (1 << bit))
        changed = torch.stack([(flipped >> k) & 1 for k in range(64)]).double().mean(1)
        assert changed.min() > 0.46
        assert changed.max() < 0.54


def test_columns_of_one_key_are_independent() -> None:
    # Slots of one seed, as the masks of a cloze use them.
    slots = torch.stack([uniform(torch.arange(50_000), slot) for slot in range(6)])
    correlation = torch.corrcoef(slots) - torch.eye(6)
    assert correlation.abs().max() < 4 / math.sqrt(50_000)


def test_precision_and_range() -> None:
    draws = uniform(torch.arange(100_000))
    assert draws.dtype == torch.float32
    assert torch.equal((draws * 2**24).frac(), torch.zeros(100_000))
    fine = uniform64(torch.arange(100_000))
    assert fine.dtype == torch.float64
    assert fine.min() > 0
    assert fine.max() < 1
    assert fine.unique().numel() == 100_000


@given(st.integers(0, 300), INT64, INT64)
@settings(max_examples=60, deadline=None)
def test_permutations_hold_everything_once(size: int, seed: int, epoch: int) -> None:
    order = permutation(size, seed, epoch)
    assert sorted(order.tolist()) == list(range(size))
    assert torch.equal(order, permutation(size, seed, epoch))


def test_permutations_place_everything_everywhere() -> None:
    orders = torch.stack([permutation(5, seed) for seed in range(5000)])
    for place in range(5):
        counts = torch.bincount(orders[:, place], minlength=5).double()
        assert ((counts - 1000) ** 2 / 1000).sum() < 25  # 4 degrees of freedom
    assert not torch.equal(permutation(100, 0), permutation(100, 1))


@pytest.mark.parametrize(
    "key", [1.5, True, torch.tensor(1.0), torch.tensor([1], dtype=torch.int32)]
)
def test_keys_of_other_types_are_refused(key: object) -> None:
    with pytest.raises(TypeError, match="'keys' need to be ints or int64 tensors"):
        hash_keys(key)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_the_same_on_a_gpu() -> None:
    keys = torch.arange(-50_000, 50_000)
    for function in (hash_keys, uniform, uniform64):
        assert torch.equal(function(3, keys), function(3, keys.cuda()).cpu())
