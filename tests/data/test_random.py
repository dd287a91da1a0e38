from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data.random import hash_keys, permutation, uniform, uniform64

WORD = (1 << 64) - 1
words = st.integers(-(1 << 63), (1 << 63) - 1)


def reference(*keys: int) -> int:
    """SplitMix64 in Python integers, keys absorbed in order; unsigned 64 bits."""
    state = 0
    for key in keys:
        state = ((state ^ (key & WORD)) + 0x9E3779B97F4A7C15) & WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        state ^= state >> 31
    return state


@pytest.mark.parametrize("key", [0, torch.tensor([0])])
def test_the_first_output_of_splitmix64_seeded_with_zero(key: Any) -> None:
    # The published test vector: splitmix64(0) starts with 0xE220A8397B1DCDAF.
    assert int(hash_keys(key)) & WORD == 0xE220A8397B1DCDAF


def test_the_values_never_change() -> None:
    # Checkpoints hold no generator state: a resumed run relies on these numbers.
    assert int(hash_keys(1, 2)) == -4838594755968170389
    assert int(hash_keys(7, 0)) == -5137267319001854395
    assert int(hash_keys(-1, 2**63 - 1, -(2**63))) == -1457413641862715411


@settings(max_examples=400, deadline=None)
@given(words, words, words)
def test_the_draws_equal_the_reference_in_python_integers(a: int, b: int, c: int) -> None:
    keys = a, torch.tensor([b]), torch.tensor([c])
    bits = reference(a, b, c)
    assert int(hash_keys(*keys)) & WORD == bits == int(hash_keys(a, b, c)) & WORD
    assert float(uniform(*keys)) == (bits >> 40) / 2**24
    assert float(uniform64(*keys)) == ((bits >> 12) + 0.5) / 2**52


def test_keys_broadcast_and_their_order_matters() -> None:
    a, b = torch.arange(3).unsqueeze(1), torch.arange(4)
    table = hash_keys(1, a, b)
    assert table.shape == (3, 4)
    assert int(table[2, 3]) & WORD == reference(1, 2, 3)
    assert len(set(table.flatten().tolist())) == 12
    assert int(table[1, 2]) != int(table[2, 1])


def test_uniform_is_float32_and_never_reaches_one() -> None:
    assert ((1 << 24) - 1) * 2.0**-24 == float(torch.tensor(1 - 2.0**-24)) < 1.0
    draw = uniform(0, torch.arange(200_000))
    assert draw.dtype == torch.float32
    assert float(draw.min()) >= 0.0
    assert float(draw.max()) < 1.0
    assert abs(float(draw.double().mean()) - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5


def test_uniform64_never_reaches_its_ends() -> None:
    # The extreme cells, which a division by 2^53 or 2^64 would round to 0 or 1.
    assert 0.0 < 0.5 * 2.0**-52
    assert ((1 << 52) - 1 + 0.5) * 2.0**-52 < 1.0
    draw = uniform64(0, torch.arange(200_000))
    assert draw.dtype == torch.float64
    assert float(draw.min()) > 0.0
    assert float(draw.max()) < 1.0
    assert draw.unique().numel() == 200_000 > uniform(0, torch.arange(200_000)).unique().numel()
    assert abs(float(draw.mean()) - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5


def test_one_flipped_bit_flips_half_of_the_hash() -> None:
    base = torch.arange(2000)
    for bit in (0, 1, 17, 40, 62):
        changed = hash_keys(3, base) ^ hash_keys(3, base ^ (1 << bit))
        flips = sum(int(word & WORD).bit_count() for word in changed.tolist()) / 2000
        assert 31.0 < flips < 33.0


def test_a_permutation_belongs_to_its_keys() -> None:
    first = permutation(500, 3, 1)
    assert sorted(first.tolist()) == list(range(500))
    assert torch.equal(first, permutation(500, 3, 1))
    assert not torch.equal(first, permutation(500, 3, 2))
    assert first.tolist() == sorted(range(500), key=lambda i: signed(reference(3, 1, i)))


def signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


@pytest.mark.parametrize(
    "keys",
    [
        (torch.tensor([1.0]),),
        (1, torch.tensor([True])),
        (True, torch.tensor([1])),
        (1.0, 2),
        (None,),
    ],
)
def test_other_keys_are_refused(keys: tuple[Any, ...]) -> None:
    for function in (hash_keys, uniform, uniform64):
        with pytest.raises(TypeError, match="'keys' need to be ints or int64 tensors"):
            function(*keys)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_the_same_numbers() -> None:
    a, b = torch.arange(-300, 300).unsqueeze(1), torch.arange(70) * 2**55
    for function in (hash_keys, uniform, uniform64):
        assert torch.equal(function(5, a.cuda(), b.cuda()).cpu(), function(5, a, b))
