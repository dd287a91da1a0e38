"""The cross-entropy with another head's answers, against all logits written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgrec.nn.linear_cross_entropy import linear_cross_entropy
from tgrec.nn.soft_cross_entropy import soft_linear_cross_entropy


def heads(
    rows: int, items: int, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    """Arguments for ``rows`` rows and ``items`` items."""
    draw = torch.Generator().manual_seed(rows * 1000 + items)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=draw, dtype=torch.float64).to(dtype)

    return {
        "hidden": (scale * normal(rows, 5)).requires_grad_(),
        "weight": normal(items, 5).requires_grad_(),
        "target": torch.randint(0, items, (rows,), generator=draw),
        "soft_hidden": scale * normal(rows, 3),
        "soft_weight": normal(items, 3),
    }


def written_out(args: dict[str, Any], share: float) -> Tensor:
    hidden, weight, target, soft_hidden, soft_weight = args.values()
    label = F.one_hot(target, weight.size(0)).to(hidden.dtype)
    wanted = (1 - share) * label + share * (soft_hidden @ soft_weight.t()).softmax(1)
    return -(wanted * (hidden @ weight.t()).log_softmax(1)).sum()


def with_gradients(loss: Tensor, args: dict[str, Any]) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(2.5 * loss, (args["hidden"], args["weight"]))]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 40),
    items=st.integers(1, 30),
    share=st.floats(0, 1),
    chunk=st.sampled_from([None, 1, 7, 64]),
    scale=st.sampled_from([1.0, 300.0]),
)
def test_loss_and_gradients_in_double(
    rows: int, items: int, share: float, chunk: int | None, scale: float
) -> None:
    args = heads(rows, items, scale)
    own = with_gradients(soft_linear_cross_entropy(**args, share=share, chunk=chunk), args)
    wanted = with_gradients(written_out(args, share), args)
    for mine, theirs in zip(own, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_lower_precision_is_near(dtype: torch.dtype, tolerance: float) -> None:
    args = heads(301, 500, dtype=torch.float32)
    own = with_gradients(soft_linear_cross_entropy(**args, share=0.7, dtype=dtype), args)
    exact = {k: v.detach().double() if v.is_floating_point() else v for k, v in args.items()}
    exact["hidden"].requires_grad_()
    exact["weight"].requires_grad_()
    for mine, theirs in zip(own, with_gradients(written_out(exact, 0.7), exact), strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - theirs).norm() / theirs.norm()) < tolerance


def test_sure_rows_keep_their_accuracy() -> None:
    """Nothing is left where two nearly equal products of bfloat16 are subtracted."""
    draw = torch.Generator().manual_seed(0)
    table = F.normalize(torch.randn(3000, 64, generator=draw), dim=1)
    target = torch.randint(0, 3000, (512,), generator=draw)
    rows = torch.randn(512, 64, generator=draw) / 8 + 2 * table[target]
    rows = F.normalize(rows, dim=1) / 0.07
    told = rows + 0.1 * torch.randn(512, 64, generator=draw)
    assert float((rows @ table.t()).softmax(1).gather(1, target[:, None]).median()) > 0.9
    names = ("hidden", "weight", "target", "soft_hidden", "soft_weight")
    args = dict(zip(names, (rows, table.clone(), target, told, table), strict=True))
    exact = {k: v.double() if v.is_floating_point() else v for k, v in args.items()}
    for one in (args, exact):
        one["hidden"].requires_grad_()
        one["weight"].requires_grad_()
    own = soft_linear_cross_entropy(**args, share=0.3, dtype=torch.bfloat16)
    wanted = with_gradients(written_out(exact, 0.3), exact)
    for mine, theirs in zip(with_gradients(own, args), wanted, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 2e-2


def test_without_gradient_it_is_the_same_loss() -> None:
    args = heads(20, 9)
    with torch.no_grad():
        alone = soft_linear_cross_entropy(**args, share=0.5)
    assert not alone.requires_grad
    assert torch.equal(alone, soft_linear_cross_entropy(**args, share=0.5).detach())


def test_by_hand_and_without_a_teacher() -> None:
    """Three items alike: log 3 whatever is wanted; with share 0 it is the usual loss."""
    flat = {**heads(2, 3), "hidden": torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)}
    loss = soft_linear_cross_entropy(**flat, share=0.4)
    assert loss.item() == pytest.approx(2 * math.log(3))
    args = heads(20, 9)
    usual = linear_cross_entropy(args["hidden"], args["weight"], args["target"])
    own = soft_linear_cross_entropy(**args, share=0.0)
    assert own.item() == pytest.approx(usual.item())


def test_a_number_that_is_not_finite_stays_visible() -> None:
    args = heads(4, 3)
    args["soft_hidden"][1, 0] = math.nan
    assert soft_linear_cross_entropy(**args, share=0.5).isnan()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"soft_hidden": torch.zeros(3, 3)}, r"soft_hidden must be \[4, D'\]"),
        (
            {"soft_weight": torch.zeros(9, 3)},
            r"soft_weight \[6, D'\] .*4, 3\] and \[9, 3\]",
        ),
        ({"soft_weight": torch.zeros(6, 2)}, r"with the same D', got \[4, 3\] and \[6, 2\]"),
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"share": math.nan}, "got nan"),
        ({"target": torch.tensor([0, 1, 2, 6])}, r"target must lie in \[0, 6\)"),
        ({"chunk": 0}, "chunk must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        soft_linear_cross_entropy(**{**heads(4, 6), "share": 0.5, **change})
