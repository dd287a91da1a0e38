"""Softmax cross-entropy over a linear head, without ever holding all logits."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["fast_dtype", "linear_cross_entropy"]

LOG2E = 1.0 / math.log(2.0)
LN2 = math.log(2.0)
# Below this bound on |log2(exp(logit))| the exponentials neither overflow nor lose small ones in
# bf16 or fp32 (both have 8 exponent bits), so that the row maximum need not be subtracted.
SAFE_EXPONENT = 64.0
_ROWS_MULTIPLE = 128
_DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def fast_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which inner products run fastest on `device`: bfloat16 where it is native.

    CUDA devices from Ampere on and x86 CPUs with avx512_bf16 or AMX give bfloat16, all others
    float32 (there bfloat16 is emulated, and slower).
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if device.type == "cpu" and native is not None and native():
        return torch.bfloat16
    return torch.float32


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    target_bias: Tensor | None = None,
    *,
    scale: float | Tensor = 1.0,
    chunk: int | None = None,
    dtype: torch.dtype | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    r"""Sum over rows of ``logsumexp(z) - z[target]`` with ``z = scale * hidden @ weight.T + bias``.

    Rows are taken `chunk` at a time and the gradients are computed in the same pass, as in
    the chunked loss of Liger (Hsu et al., arXiv 2410.10989): at most ``chunk * N`` logits live at
    any time, and the backward pass only multiplies by the incoming scalar. Exponentials are left
    unnormalised (``E = 2^(z log2 e)``); the normaliser divides the `D` channels of each row
    instead of its `N` logits. It is differentiable once.

    With ``dtype=torch.bfloat16`` the inner products, and the logits that leave them, have 8
    significant bits (on the CPU the sum of the others, too); the logit of the target and the sums
    over chunks are float32. With ``torch.float32`` all is float32 and only rounding differs from
    ``F.cross_entropy(..., reduction="sum")``.

    Args:
        hidden: Rows, [R, D], any floating dtype.
        weight: Items, [N, D].
        target: Item of each row, int64 [R], each in ``[0, N)``.
        bias: Bias per item, [N], or None.
        target_bias: What is added to the logit of each row's target alone, [R], or None: with it a
            bias made of counts can leave out the event that is being predicted.
        scale: Factor on ``hidden @ weight.T`` (an inverse temperature); a tensor is learned.
        chunk: Rows at a time. None picks a size whose logits stay in the cache of a CPU, or
            fill a CUDA device.
        dtype: torch.bfloat16, torch.float32 or torch.float64; None means bfloat16 under an autocast
            to it, else float32 (float64 if `hidden` is).
        kept: Rows that count, bool [R], or None for all: the others cost as much and add nothing to
            loss and gradients. It is for devices on which the number of rows must not depend on
            data; elsewhere fewer rows are cheaper.

    Returns:
        The sum over rows, a scalar, float32 (float64 if `dtype` is float64). Zero, with zero
        gradients, if R is 0. NaN if a row, an item or a bias is NaN or infinite.

    Raises:
        ValueError: If shapes, `chunk`, `dtype` or, on the CPU, a target do not fit.
        TypeError: If `target` is not int64.
    """
    dtype = autocast_dtype(hidden) if dtype is None else dtype
    check_rows(hidden, weight, target, bias, target_bias, chunk, dtype)
    if kept is not None and (kept.dtype != torch.bool or kept.shape != target.shape):
        raise ValueError(
            f"kept must be bool [{target.numel()}], got {kept.dtype} {list(kept.shape)}"
        )
    pad = 0
    if chunk is None:
        chunk, pad = default_chunk(hidden, weight, dtype)
    if isinstance(scale, Tensor) or scale != 1.0:
        hidden = hidden * scale
    biases = (bias, target_bias)
    args = (hidden, weight, target, *biases, kept, chunk, pad, dtype, torch.is_grad_enabled())
    return cast(Tensor, _LinearCrossEntropy.apply(*args))  # type: ignore[no-untyped-call]


def autocast_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16:
        return torch.bfloat16
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def default_chunk(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> tuple[int, int]:
    """Rows per chunk: near the budget of logits. And how many empty rows to put behind them."""
    rows, items = max(1, hidden.size(0)), max(1, weight.size(0))
    # CPU: 10 MB in bf16 stays in a level-3 cache. CUDA: 256 MB keeps every multiprocessor busy.
    # Never under 256 rows: the gradient of the weight is added once a chunk.
    most = max(256, (1 << 27 if hidden.is_cuda else 5 << 20) // items)
    if hidden.device.type != "cpu" or dtype != torch.bfloat16:
        even = -(-rows // -(-rows // most))
        return -(-even // 32) * 32, 0
    # oneDNN compiles a product of bfloat16 for every new number of rows, which takes longer than
    # some of these products: so there are few such numbers.
    return 1 << (most.bit_length() - 1), -hidden.size(0) % _ROWS_MULTIPLE


def check_rows(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    target_bias: Tensor | None,
    chunk: int | None,
    dtype: torch.dtype,
) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1):
        raise ValueError(
            "hidden must be [R, D] and weight [N, D] with the same D, got "
            f"{list(hidden.shape)} and {list(weight.shape)}"
        )
    if target.dtype != torch.int64:
        raise TypeError(f"target must be int64, got {target.dtype}: convert it with .long()")
    if target.shape != hidden.shape[:1]:
        raise ValueError(f"target must be [{hidden.size(0)}], got {list(target.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.size(0)}], got {list(bias.shape)}")
    if target_bias is not None and target_bias.shape != target.shape:
        raise ValueError(f"target_bias must be [{target.size(0)}], got {list(target_bias.shape)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 row, got {chunk}")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {_DTYPES}, got {dtype}")
    # On CUDA the check would stall the stream; there an index out of range asserts on the device.
    if not target.is_cuda and target.numel() > 0:
        low, high = (int(v) for v in torch.aminmax(target))
        if low < 0 or high >= weight.size(0):
            raise ValueError(
                f"target must lie in [0, {weight.size(0)}), got values in [{low}, {high}]: "
                "select the rows that have a target before calling"
            )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None,
        target_bias: Tensor | None,
        kept: Tensor | None,
        chunk: int,
        pad: int,
        dtype: torch.dtype,
        grad_enabled: bool,
    ) -> Tensor:
        wanted = grad_enabled and any(ctx.needs_input_grad)
        with torch.autocast(hidden.device.type, enabled=False):
            loss, *grads = _chunked(
                hidden, weight, target, bias, target_bias, kept, chunk, pad, dtype, wanted
            )
        if wanted:
            ctx.save_for_backward(*grads)
            given = (hidden, weight, bias, target_bias)
            ctx.dtypes = [None if x is None else x.dtype for x in given]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_table, d_target = ctx.saved_tensors
        need_hidden, need_weight, _, need_bias, need_target = ctx.needs_input_grad[:5]
        channels = d_hidden.size(1)
        out_hidden = (d_hidden * grad).to(ctx.dtypes[0]) if need_hidden else None
        out_weight, out_bias, out_target = None, None, None
        if need_weight:
            out_weight = (d_table[:channels] * grad).t().to(ctx.dtypes[1]).contiguous()
        if need_bias:
            out_bias = (d_table[channels] * grad).to(ctx.dtypes[2])
        if need_target:
            out_target = (d_target * grad).to(ctx.dtypes[3])
        return out_hidden, out_weight, None, out_bias, out_target, *(None,) * 5


def _chunked(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    target_bias: Tensor | None,
    kept: Tensor | None,
    chunk: int,
    pad: int,
    dtype: torch.dtype,
    wanted: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Loss, gradient of `hidden` [R, D], the table [D (+ 1 with a bias), N], `target_bias` [R]."""
    (rows, channels), items = hidden.shape, weight.size(0)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    weight_x = weight.detach().to(exact)
    rows_x, table, target_logit, bound = _in_bits(hidden, weight_x, target, bias, target_bias)
    # Reading the bound would stall a CUDA stream, where the two extra passes are cheap anyway.
    shift = hidden.is_cuda or not bool(bound <= SAFE_EXPONENT)
    if pad:  # rows of zeros: they add nothing to a gradient, and are left out of the loss below
        rows_x, target = F.pad(rows_x, (0, 0, 0, pad)), F.pad(target, (0, pad))
        target_logit = F.pad(target_logit, (0, pad))
        kept = None if kept is None else F.pad(kept, (0, pad))
    rows_b, weight_b, table_b = rows_x.to(dtype), weight_x.to(dtype), table.to(dtype).t()

    total = (bound - bound).to(exact)  # zero, or NaN if anything is NaN or infinite
    d_hidden = rows_x.new_empty(rows + pad, channels) if wanted else None
    d_table = rows_x.new_zeros(table.size(1), items) if wanted else None
    d_target = rows_x.new_empty(rows + pad)
    buffer = torch.empty(min(chunk, rows + pad), items, dtype=dtype, device=hidden.device)
    for start in range(0, rows + pad, chunk):
        part = slice(start, min(start + chunk, rows + pad))
        energy = torch.mm(rows_b[part], table_b, out=buffer[: part.stop - start])
        # The target leaves the sum and comes back in full precision, so that rest / normaliser
        # is 1 - p without cancellation; its entry becomes the gradient, -(1 - p), in place.
        index = torch.arange(part.stop - start, device=hidden.device), target[part]
        energy.index_put_(index, energy.new_full((), -math.inf))
        top = energy.new_zeros(())
        if shift:  # the row maximum, with the target as it is in the end
            top = torch.maximum(energy.amax(-1), target_logit[part].to(dtype)).unsqueeze(1)
            energy.sub_(top)
        energy.exp2_()
        # Added up in float32 either way. On the CPU it is rounded to ``dtype`` then, by 0.2 % at
        # most in bfloat16: a sum that keeps another dtype than its terms takes 18 times as long.
        rest = energy.sum(-1, dtype=exact if energy.is_cuda else None).to(exact)
        offset = top.to(exact).view(-1)
        normaliser = rest + torch.exp2(target_logit[part] - offset)
        lost = torch.log2(normaliser) + offset - target_logit[part]
        inverse = normaliser.reciprocal()
        if kept is not None:
            lost, inverse = lost * kept[part], inverse * kept[part]
            rest = rest * kept[part]
        total += lost[: rows - start].sum() * LN2
        torch.div(rest, normaliser, out=d_target[part]).neg_()
        if d_hidden is None or d_table is None:
            continue
        energy.index_put_(index, -rest.to(dtype))
        inverse = inverse.unsqueeze(1)
        torch.mul(torch.mm(energy, weight_b), inverse, out=d_hidden[part])
        d_table += torch.mm((rows_x[part] * (LN2 * inverse)).to(dtype).t().contiguous(), energy)
    return total, None if d_hidden is None else d_hidden[:rows], d_table, d_target[:rows]


def _in_bits(
    hidden: Tensor,
    weight_x: Tensor,
    target: Tensor,
    bias: Tensor | None,
    target_bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, table [N, D (+ 1)] and logits of the targets [R], in units of log2, and their bound.

    log2(e) goes into the rows: exp2 is faster than exp, and the factor then costs nothing.
    """
    rows_x, table = hidden.detach().to(weight_x.dtype) * LOG2E, weight_x
    target_logit = (rows_x * weight_x[target]).sum(-1)
    bound = largest_norm(rows_x) * largest_norm(weight_x)
    if bias is not None:  # a channel of ones costs less than a pass over the logits
        bias_x = bias.detach().to(weight_x.dtype)
        rows_x = torch.cat([rows_x, rows_x.new_full((rows_x.size(0), 1), LOG2E)], dim=1)
        table = torch.cat([weight_x, bias_x.unsqueeze(1)], dim=1)
        target_logit += LOG2E * bias_x[target]
        bound = bound + LOG2E * _largest(bias_x)
    if target_bias is not None:
        added = LOG2E * target_bias.detach().to(weight_x.dtype)
        target_logit, bound = target_logit + added, bound + _largest(added)
    return rows_x, table, target_logit, bound


def largest_norm(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return _largest(norms)


def _largest(x: Tensor) -> Tensor:
    return x.abs().amax() if x.numel() else x.new_zeros(())
