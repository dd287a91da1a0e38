"""Dropout from random bytes: rate, mean, gradient, seed."""

from __future__ import annotations

import pytest
import torch

from tgrec.nn.dropout import add_dropout, dropout, keep_mask


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rate_and_factor_are_those_of_the_rounded_probability(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    keep, factor = keep_mask((1000, 1003), p, torch.empty(0, dtype=dtype))
    assert keep.dtype == dtype
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    assert 1.0 - 1.0 / factor == pytest.approx(p, abs=1 / 512)
    assert float(keep.double().mean()) * factor == pytest.approx(1.0, abs=6e-3)
    # Neighbours come from one 64-bit draw: they must not go together.
    both = float((keep.flatten()[:-1].double() * keep.flatten()[1:].double()).mean())
    assert both * factor * factor == pytest.approx(1.0, abs=2e-2)


def test_gradient_is_that_of_the_same_mask() -> None:
    x = torch.randn(64, 33, dtype=torch.float64).requires_grad_()
    y = torch.randn(64, 33, dtype=torch.float64).requires_grad_()
    torch.manual_seed(2)
    out = dropout(x, 0.3)
    torch.manual_seed(2)
    added = add_dropout(y, x, 0.3)
    assert torch.allclose(added, y + out)
    keep = out.detach() != 0
    factor = 256 / (256 - 77)
    assert torch.allclose(out, x * keep * factor)
    (d_x,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(d_x, keep.double() * factor)
    d_y, d_x2 = torch.autograd.grad(added.sum(), (y, x))
    assert torch.equal(d_x2, d_x)
    assert torch.equal(d_y, torch.ones_like(y))


def test_residual_keeps_its_dtype() -> None:
    x = torch.randn(8, 4, dtype=torch.bfloat16).requires_grad_()
    y = torch.randn(8, 4).requires_grad_()
    out = add_dropout(y, x, 0.5)
    d_y, d_x = torch.autograd.grad(out.sum(), (y, x))
    assert (out.dtype, d_y.dtype, d_x.dtype) == (torch.float32, torch.float32, torch.bfloat16)


def test_the_seed_decides() -> None:
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first)


def test_off_is_the_identity_and_bad_probabilities_are_named() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    assert torch.equal(add_dropout(x, x, 0.5, training=False), 2 * x)
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match="probability"):
            dropout(x, p)
