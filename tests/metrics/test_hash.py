from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.metrics._hash import hash_keys, uniform

WORD = (1 << 64) - 1
words = st.integers(-(1 << 63), (1 << 63) - 1)


def reference(*keys: int) -> int:
    """SplitMix64's finalizer in Python integers, keys absorbed in order; unsigned 64 bits."""
    state = 0
    for key in keys:
        state = ((state + 0x9E3779B97F4A7C15) & WORD) ^ (key & WORD)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        state ^= state >> 31
    return state


def test_the_first_output_of_splitmix64_seeded_with_zero() -> None:
    # The published test vector: splitmix64(0) starts with 0xE220A8397B1DCDAF.
    assert int(hash_keys(torch.tensor([0]))) & WORD == 0xE220A8397B1DCDAF


@settings(max_examples=400, deadline=None)
@given(words, words, words)
def test_the_hash_equals_the_reference_in_python_integers(a: int, b: int, c: int) -> None:
    got = hash_keys(a, torch.tensor([b]), torch.tensor([c]))
    assert int(got) & WORD == reference(a, b, c)
    assert float(uniform(a, torch.tensor([b]), torch.tensor([c]))) == (
        ((reference(a, b, c) >> 12) + 0.5) / 2**52
    )


def test_keys_broadcast_and_their_order_matters() -> None:
    a, b = torch.arange(3).unsqueeze(1), torch.arange(4)
    table = hash_keys(1, a, b)
    assert table.shape == (3, 4)
    assert int(table[2, 3]) & WORD == reference(1, 2, 3)
    assert len(set(table.flatten().tolist())) == 12
    assert int(table[1, 2]) != int(table[2, 1])


def test_uniform_never_reaches_its_ends() -> None:
    # The extreme cells, which a division by 2^53 or 2^64 would round to 0 or 1.
    assert 0.0 < 0.5 * 2.0**-52
    assert ((1 << 52) - 1 + 0.5) * 2.0**-52 < 1.0
    draw = uniform(0, torch.arange(200_000))
    assert float(draw.min()) > 0.0
    assert float(draw.max()) < 1.0
    assert draw.dtype == torch.float64
    assert abs(float(draw.mean()) - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5


def test_one_flipped_bit_flips_half_of_the_hash() -> None:
    base = torch.arange(2000)
    for bit in (0, 1, 17, 40, 62):
        changed = hash_keys(3, base) ^ hash_keys(3, base ^ (1 << bit))
        flips = sum(int(word & WORD).bit_count() for word in changed.tolist()) / 2000
        assert 31.0 < flips < 33.0


@pytest.mark.parametrize("keys", [(1, 2), (torch.tensor([1.0]),), (True, torch.tensor([1]))])
def test_other_keys_are_refused(keys: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="key"):
        hash_keys(*keys)
