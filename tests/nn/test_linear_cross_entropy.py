"""The chunked linear cross-entropy against autograd in double precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.nn.linear_cross_entropy import linear_cross_entropy

CHUNKS = (1, 7, 64, 1000)


def _problem(
    rows: int = 150, items: int = 203, channels: int = 16, spread: float = 1.0
) -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    hidden = torch.randn(rows, channels, generator=g, dtype=torch.float64) * spread
    weight = torch.randn(items, channels, generator=g, dtype=torch.float64) * 0.5
    bias = torch.randn(items, generator=g, dtype=torch.float64)
    target = torch.randint(items, (rows,), generator=g)
    return [hidden, weight, bias, target]


def _gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [g.double() for g in torch.autograd.grad(loss * 0.37, leaves)]


def _reference(
    hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor
) -> tuple[Tensor, list[Tensor]]:
    leaves = [t.double().clone().requires_grad_() for t in (hidden, weight, bias)]
    loss = F.cross_entropy(leaves[0] @ leaves[1].t() + leaves[2], target, reduction="sum")
    return loss.detach(), _gradients(loss, *leaves)


def _ours(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    dtype: torch.dtype,
    chunk: int | None = None,
) -> tuple[Tensor, list[Tensor]]:
    leaves = [t.float().clone().requires_grad_() for t in (hidden, weight, bias)]
    loss = linear_cross_entropy(leaves[0], leaves[1], target, leaves[2], chunk=chunk, dtype=dtype)
    return loss.detach(), _gradients(loss, *leaves)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("spread", [1.0, 40.0], ids=["plain", "shifted"])  # 40: past the safe bound
def test_float32_matches_double_autograd(chunk: int, spread: float) -> None:
    problem = _problem(spread=spread)
    loss, grads = _ours(*problem, dtype=torch.float32, chunk=chunk)
    want, want_grads = _reference(*problem)
    assert float(loss) == pytest.approx(float(want), rel=2e-6)
    for got, expected in zip(grads, want_grads, strict=True):
        assert _relative(got, expected) < 1e-5


def test_double_passes_gradcheck() -> None:
    hidden, weight, bias, target = _problem(rows=5, items=7, channels=3)
    extra = torch.linspace(-1, 1, 5, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (hidden, weight, bias, extra)]
    temperature = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def loss(h: Tensor, w: Tensor, b: Tensor, x: Tensor, s: Tensor) -> Tensor:
        return linear_cross_entropy(h, w, target, b, x, scale=s, chunk=2, dtype=torch.float64)

    assert torch.autograd.gradcheck(loss, (*leaves, temperature))


@pytest.mark.parametrize("spread", [1.0, 40.0], ids=["plain", "shifted"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_a_bias_of_the_target_is_added_to_its_logit_alone(
    spread: float, dtype: torch.dtype, near: float
) -> None:
    problem = _problem(spread=spread)
    *three, target = problem
    extra = torch.linspace(-3, 1, len(target), dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (*three, extra)]
    logits = leaves[0] @ leaves[1].t() + leaves[2]
    logits = logits.index_put((torch.arange(len(target)), target), leaves[3], accumulate=True)
    want = F.cross_entropy(logits, target, reduction="sum")
    ours = [t.float().clone().requires_grad_() for t in (*three, extra)]
    hidden, weight, bias, more = ours
    got = linear_cross_entropy(hidden, weight, target, bias, more, chunk=64, dtype=dtype)
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=near)
    for one, other in zip(_gradients(got, *ours), _gradients(want, *leaves), strict=True):
        assert _relative(one, other) < near


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logit", [-200.0, 1.0, 200.0])
@pytest.mark.parametrize("extra", [-400.0, -200.0, 0.0, 200.0])
def test_a_large_bias_of_the_target_does_not_overflow(
    logit: float, extra: float, dtype: torch.dtype
) -> None:
    weight = torch.tensor([[logit], [0.0], [0.0]])
    more = torch.tensor([extra], requires_grad=True)
    args = (torch.ones(1, 1), weight, torch.tensor([0]), None, more)
    loss = linear_cross_entropy(*args, dtype=dtype)
    want = torch.tensor([logit + extra, 0.0, 0.0]).logsumexp(0) - logit - extra
    assert float(loss.detach()) == pytest.approx(float(want), rel=1e-3, abs=1e-5)
    (grad,) = torch.autograd.grad(loss, more)
    wanted = torch.tensor([logit + extra, 0.0, 0.0]).softmax(0)[0] - 1
    assert float(grad) == pytest.approx(float(wanted), abs=1e-3)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_bfloat16_is_close(chunk: int) -> None:
    problem = _problem()
    loss, grads = _ours(*problem, dtype=torch.bfloat16, chunk=chunk)
    want, want_grads = _reference(*problem)
    assert float(loss) == pytest.approx(float(want), rel=1e-3)
    for got, expected in zip(grads, want_grads, strict=True):
        assert _relative(got, expected) < 1e-2


def test_bfloat16_loss_of_a_sure_row_is_exact_and_not_negative() -> None:
    # The logit 20.06 is 20.0 in bfloat16: a loss from rounded logits alone would be off by 0.06.
    hidden, weight = torch.tensor([[20.06]]), torch.tensor([[1.0], [0.0], [0.5]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0]), dtype=torch.bfloat16)
    assert 0.0 <= float(loss) < 1e-4
    assert float(loss) == pytest.approx(math.log1p(math.exp(-20.06) + math.exp(-10.03)), rel=0.05)


def test_bfloat16_gradient_of_a_sure_row_keeps_its_relative_precision() -> None:
    # 1 - p = 3.4e-4 is lost if p is rounded to bfloat16 before the subtraction.
    hidden = torch.tensor([[8.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]])
    linear_cross_entropy(hidden, weight, torch.tensor([0]), dtype=torch.bfloat16).backward()
    assert hidden.grad is not None
    assert float(hidden.grad) == pytest.approx(-1.0 / (1.0 + math.exp(8.0)), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_agree(dtype: torch.dtype) -> None:
    problem = _problem()
    loss, grads = _ours(*problem, dtype=dtype)
    for chunk in CHUNKS:
        other, others = _ours(*problem, dtype=dtype, chunk=chunk)
        assert float(other) == pytest.approx(float(loss), rel=1e-6)
        for a, b in zip(others, grads, strict=True):
            assert _relative(a, b) < (1e-6 if dtype == torch.float32 else 5e-3)


def test_huge_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([1, 1]), dtype=torch.float32)
    assert float(loss.detach()) == pytest.approx(2e4)
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[2.0], [0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_rows_give_zero_and_zero_gradients(dtype: torch.dtype) -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    weight = torch.randn(6, 4).requires_grad_()
    loss = linear_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64), dtype=dtype)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(6, 4))
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["hidden", "weight", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_finite_is_never_hidden(bad: float, where: str, dtype: torch.dtype) -> None:
    hidden, weight, bias, target = _problem(rows=20)
    if where == "bias":
        bias[3] = bad
    else:
        {"hidden": hidden, "weight": weight}[where][3, 2] = bad
    loss, _ = _ours(hidden, weight, bias, target, dtype=dtype, chunk=8)
    assert math.isnan(float(loss))


def test_gradients_come_back_in_the_dtype_of_the_inputs_also_under_autocast() -> None:
    hidden, weight, bias, target = _problem()
    half, full = hidden.bfloat16().requires_grad_(), weight.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(half, full, target, dtype=torch.float32)
    d_half, d_full = torch.autograd.grad(loss, (half, full))
    assert (loss.dtype, d_half.dtype, d_full.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
    )
    want, _ = _reference(half.detach(), full.detach(), torch.zeros_like(bias), target)
    assert float(loss.detach()) == pytest.approx(float(want), rel=2e-6)  # autocast did not round it


def test_without_grad_nothing_is_saved() -> None:
    hidden, weight, _, target = _problem()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden.requires_grad_(), weight, target)
    assert not loss.requires_grad


def test_bad_arguments_are_named() -> None:
    h, w, y = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 5\), got values in \[-100, 0\]"):
        linear_cross_entropy(h, w, torch.tensor([0, 0, -100]))
    with pytest.raises(TypeError, match="int64"):
        linear_cross_entropy(h, w, y.int())
    with pytest.raises(ValueError, match="same D"):
        linear_cross_entropy(h, torch.zeros(5, 3), y)
    with pytest.raises(ValueError, match="bias"):
        linear_cross_entropy(h, w, y, torch.zeros(4))
    with pytest.raises(ValueError, match=r"target_bias must be \[3\]"):
        linear_cross_entropy(h, w, y, None, torch.zeros(5))
    with pytest.raises(ValueError, match="chunk"):
        linear_cross_entropy(h, w, y, chunk=0)
    with pytest.raises(ValueError, match="dtype"):
        linear_cross_entropy(h, w, y, dtype=torch.float16)


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_rows_that_do_not_count_are_as_if_left_out(
    chunk: int | None, dtype: torch.dtype, spread: float
) -> None:
    hidden, weight, bias, target = _problem(spread=spread)
    kept = torch.rand(150, generator=torch.Generator().manual_seed(1)) < 0.6
    extra = torch.linspace(-1, 1, 150)

    def ours(rows: Tensor, kept: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        leaves = [t.float().clone().requires_grad_() for t in (hidden, weight, bias, extra)]
        loss = linear_cross_entropy(
            leaves[0][rows], leaves[1], target[rows], leaves[2], leaves[3][rows],
            chunk=chunk, dtype=dtype, kept=kept,
        )  # fmt: skip
        return loss.detach(), _gradients(loss, *leaves)

    some, of_some = ours(kept.nonzero().view(-1), None)
    whole, of_whole = ours(torch.arange(150), kept)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert float(whole) == pytest.approx(float(some), rel=tolerance)
    for a, b in zip(of_whole, of_some, strict=True):
        assert _relative(a, b) < tolerance
    assert not of_whole[0][~kept].any()
    everything, _ = ours(torch.arange(150), None)
    assert float(everything) > 1.2 * float(whole)


def test_kept_has_to_fit() -> None:
    hidden, weight, _, target = _problem()
    for kept in (torch.ones(150), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"kept must be bool \[150\], got"):
            linear_cross_entropy(hidden, weight, target, kept=kept)
