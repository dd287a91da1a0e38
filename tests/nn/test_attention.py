"""Attention over padded histories against plain autograd, and what padding must not do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgrec.nn import attention, pair_cells
from tgrec.nn.attention import padded_attention
from tgrec.nn.gap_attention import gap_attention, gap_bucket, gap_pairs
from tgrec.nn.pair_attention import pair_attention
from tgrec.nn.pair_cells import PairCells

B, H, L, C, U = 5, 2, 13, 8, 64
LENGTHS = torch.tensor([13, 7, 1, 0, 12])
MASK = torch.arange(L) >= L - LENGTHS[:, None]


@pytest.fixture(params=["whole", "parts", "queries"], autouse=True)
def _parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "parts":  # two rows of the batch at a time, the last part smaller
        monkeypatch.setattr(attention, "_PAIRS_AT_A_TIME", 2 * H * L * L)
    if request.param == "queries":  # 4 or 5 queries at a time, where they are causal
        monkeypatch.setattr(attention, "_QUERIES_AT_A_TIME", 4)
        monkeypatch.setattr(pair_cells, "_QUERIES", 4)


def _qkv(seed: int = 0, spread: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (3, B, H, L, C)
    x = torch.randn(shape, generator=g, dtype=torch.float64) * spread
    return [t.to(dtype).requires_grad_() for t in x]


def _times() -> Tensor:
    g = torch.Generator().manual_seed(3)
    steps = torch.randint(0, 5, (B, L), generator=g) ** torch.randint(1, 9, (B, L), generator=g)
    return 956_703_932 + steps.cumsum(1)


def _reference(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, bias: Tensor | float) -> Tensor:
    """Plain softmax attention; rows with nothing allowed give zero."""
    scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3)) + bias
    scores = scores.masked_fill(~allowed, -math.inf)
    weights = torch.softmax(scores, -1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return weights @ v


def _allowed(causal: bool) -> Tensor:
    allowed = MASK[:, None, None, :].expand(B, 1, L, L)
    return allowed & torch.ones(L, L, dtype=torch.bool).tril() if causal else allowed


def _close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        assert torch.isfinite(a).all()
        assert float((a.double() - b).detach().norm()) <= tolerance * float(b.detach().norm())


def _grads(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return list(torch.autograd.grad((out * weight).sum(), leaves))


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("spread", [1.0, 6.0], ids=["plain", "shifted"])  # 6: past the safe bound
def test_padded_attention_matches_autograd(causal: bool, dtype: torch.dtype, spread: float) -> None:
    leaves = _qkv(spread=spread, dtype=dtype)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    want = _reference(*exact, _allowed(causal), 0.0)
    got = padded_attention(*leaves, MASK, causal=causal)
    tolerance = TOLERANCE[dtype] * (spread if dtype == torch.bfloat16 else 1.0)
    _close([got], [want], tolerance)
    _close(_grads(got, leaves), _grads(want, exact), tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_the_path_of_cuda_agrees_with_that_of_the_cpu(causal: bool) -> None:
    leaves = _qkv()
    ours = padded_attention(*leaves, MASK, causal=causal)
    theirs = attention._sdpa(*leaves, MASK, causal, 0.0)
    _close([theirs], [ours], 1e-12)
    _close(_grads(theirs, leaves), _grads(ours, leaves), 1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gap_attention_matches_autograd(causal: bool, dtype: torch.dtype) -> None:
    leaves = _qkv(dtype=dtype)
    g = torch.Generator().manual_seed(1)
    tables = [torch.randn(H, n, generator=g).to(dtype).requires_grad_() for n in (U, 6)]
    exact = [t.detach().double().requires_grad_() for t in leaves + tables]
    pairs = gap_pairs(_times(), _times(), MASK, U, causal=causal)
    got = gap_attention(*leaves, pairs, *tables)

    kinds = pairs.long().clamp_max(U - 1)
    place = torch.arange(L)
    distance = (place[:, None] - place).abs().clamp_max(5)
    bias = exact[3][:, kinds].transpose(0, 1) + exact[4][:, distance]  # index_put in backward
    want = _reference(*exact[:3], _allowed(causal), bias)
    _close([got], [want], TOLERANCE[dtype])
    _close(_grads(got, leaves + tables), _grads(want, exact), TOLERANCE[dtype])


@pytest.mark.parametrize("asked", [1, 4, 9, L])
@pytest.mark.parametrize("causal", [False, True])
def test_queries_of_the_last_positions_get_their_rows_of_the_whole(
    asked: int, causal: bool
) -> None:
    q, k, v = _qkv()
    tables = [torch.linspace(-1, 1, H * n, dtype=torch.float64).view(H, n) for n in (U, 6)]
    leaves = [q, k, v, *(t.requires_grad_() for t in tables)]
    pairs = gap_pairs(_times(), _times(), MASK, U, causal=causal)
    last = slice(L - asked, L)

    def same(part: Tensor, whole: Tensor, leaves: list[Tensor]) -> None:
        _close([part], [whole], 1e-12)
        _close(_grads(part, leaves), _grads(whole, leaves), 1e-12)

    for mask in (MASK, None):
        for attend in (padded_attention, _on_cuda):
            whole = attend(q, k, v, mask, causal=causal)[:, :, last]
            same(attend(q[:, :, last], k, v, mask, causal=causal), whole, leaves[:3])
    whole = gap_attention(q, k, v, pairs, *tables)[:, :, last]
    same(gap_attention(q[:, :, last], k, v, pairs[:, last], *tables), whole, leaves)


def _on_cuda(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    return attention._sdpa(q, k, v, mask, causal, 0.0)


def test_double_passes_gradcheck() -> None:
    g = torch.Generator().manual_seed(2)
    leaves = [
        torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
        for shape in [(2, 1, 4, 3)] * 3 + [(1, 5), (1, 3)]
    ]
    pairs = torch.randint(0, 6, (2, 4, 4), generator=g).to(torch.uint8)  # 5 shuts the pair
    assert torch.autograd.gradcheck(
        lambda q, k, v, t, p: gap_attention(q, k, v, pairs, t, p), leaves
    )


Forward = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, time: Tensor) -> Tensor:
    return padded_attention(q, k, v, mask, causal=True)


def _gap(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, time: Tensor) -> Tensor:
    table = torch.linspace(-1, 1, H * U).view(H, U)
    positions = torch.linspace(1, -1, H * 9).view(H, 9)
    return gap_attention(q, k, v, gap_pairs(time, time, mask, U), table, positions)


def _both_ways(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, time: Tensor) -> Tensor:
    return padded_attention(q, k, v, mask)


ALL = pytest.mark.parametrize("forward", [_plain, _gap, _both_ways])


@ALL
@pytest.mark.parametrize("more", [1, 7, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_more_padding_changes_nothing(forward: Forward, more: int, dtype: torch.dtype) -> None:
    leaves, time = [t.detach() for t in _qkv(dtype=dtype)], _times()
    rows = forward(*leaves, MASK, time)
    garbage = 1e4 * torch.randn(3, B, H, more, C)
    longer = [torch.cat([g.to(dtype), t], 2) for g, t in zip(garbage, leaves, strict=True)]
    wide = torch.cat([torch.zeros(B, more, dtype=torch.bool), MASK], 1)
    times = torch.cat([torch.zeros(B, more, dtype=torch.int64), time], 1)
    got = forward(*longer, wide, times)[:, :, more:]
    real = MASK[:, None, :, None].expand_as(rows)
    # Garbage of 1e4 takes the shifted path: in bfloat16 its roundings differ from those of rows.
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    assert torch.allclose(got[real], rows[real], rtol=0, atol=tolerance)


@ALL
def test_content_of_padding_has_weight_exactly_zero(forward: Forward) -> None:
    leaves, time = [t.detach().float() for t in _qkv()], _times()
    hole = ~MASK[:, None, :, None]
    rows = forward(*leaves, MASK, time)
    # Only values, so that the path taken does not change: then nothing may, in any bit.
    other = forward(leaves[0], leaves[1], leaves[2].masked_fill(hole, 3e7), MASK, time)
    real = MASK[:, None, :, None].expand_as(rows)
    assert torch.equal(other[real], rows[real])


@ALL
def test_nothing_to_attend_to_gives_zero_and_finite_gradients(forward: Forward) -> None:
    leaves = _qkv(dtype=torch.float32)
    out = forward(*leaves, MASK, _times())
    assert LENGTHS[3] == 0
    assert torch.equal(out[3], torch.zeros_like(out[3]))
    for grad in _grads(out, leaves):
        assert torch.isfinite(grad).all()
        assert torch.equal(grad[3], torch.zeros_like(grad[3]))


@pytest.mark.parametrize("forward", [_plain, _gap])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("j", [0, 5, L - 1])
def test_an_event_changes_only_what_follows(forward: Forward, dtype: torch.dtype, j: int) -> None:
    mask, time = torch.ones(B, L, dtype=torch.bool), _times()
    leaves = [t.detach() for t in _qkv(dtype=dtype)]
    rows = forward(*leaves, mask, time)
    changed = [t.clone() for t in leaves]
    for t in changed:
        t[:, :, j] = -0.7 * t[:, :, j] + 0.1
    later = time.clone()
    later[:, j:] += 1_000_000  # its own time too, and with it those that follow
    other = forward(*changed, mask, later)
    assert torch.equal(other[:, :, :j], rows[:, :, :j])
    assert not torch.isclose(other[:, :, j].float(), rows[:, :, j].float()).all()


@ALL
def test_a_nan_is_not_hidden(forward: Forward) -> None:
    leaves = [t.detach().float() for t in _qkv()]
    for t in leaves:
        poisoned = [x.clone() if x is t else x for x in leaves]
        poisoned[[x is t for x in leaves].index(True)][0, 0, L - 1, 0] = math.nan
        assert forward(*poisoned, MASK, _times())[0, 0, L - 1].isnan().any()


def test_dropout_is_unbiased_and_its_gradient_is_that_of_the_kept_weights() -> None:
    torch.manual_seed(0)
    leaves = _qkv()
    want = _reference(*leaves, _allowed(True), 0.0)[:1].detach()
    many = [t[:1].detach().expand(2000, H, L, C) for t in leaves]
    draws = padded_attention(*many, causal=True, dropout_p=0.3)
    error = (draws.mean(0) - want[0]).abs() / (draws.std(0) / math.sqrt(2000) + 1e-9)
    assert float(error.max()) < 5.0  # 208 values: 3 is common, 5 is not
    assert float(draws.std(0).min()) > 0.01

    def seeded(*args: Tensor) -> Tensor:
        torch.manual_seed(7)
        return padded_attention(*args, mask, causal=True, dropout_p=0.3)

    mask = torch.tensor([[False, True, True, True], [True] * 4])
    small = [t.detach()[:2, :1, :4, :3].clone().requires_grad_() for t in leaves]
    assert torch.autograd.gradcheck(seeded, small)


def test_autocast_computes_in_its_dtype() -> None:
    leaves = [t.detach().float() for t in _qkv()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = padded_attention(*leaves, MASK, causal=True)
    assert out.dtype == torch.bfloat16
    _close([out], [_reference(*(t.double() for t in leaves), _allowed(True), 0.0)], 3e-2)


def _bucket(seconds: int) -> int:
    if seconds == 0:
        return 0
    octave = seconds.bit_length() - 1
    return 1 + 2 * octave + (2 * seconds >= 3 * 2**octave)


@settings(deadline=None)  # a shared machine may pause for seconds
@given(st.lists(st.integers(0, 2**52), min_size=1, max_size=50))
def test_gap_bucket_matches_integer_arithmetic(seconds: list[int]) -> None:
    got = gap_bucket(torch.tensor(seconds), 255).tolist()
    assert got == [_bucket(s) for s in seconds]


def test_gap_bucket_at_every_edge_and_in_order() -> None:
    edges = sorted(
        {n + d for e in range(1, 50) for n in (2**e, 3 * 2 ** (e - 1)) for d in (-1, 0, 1)}
    )
    got = gap_bucket(torch.tensor(edges), 255).tolist()
    assert got == [_bucket(s) for s in edges]
    assert got == sorted(got)
    assert gap_bucket(torch.tensor([-5, 0, 1, 2, 3, 4, 86_400, 31_557_600])).tolist() == [
        0, 0, 1, 3, 4, 5, 33, 50
    ]  # fmt: skip
    assert gap_bucket(torch.tensor([2**31 - 1, 2**31, 2**62])).tolist() == [62, 63, 63]


def test_gap_pairs_by_hand() -> None:
    time = torch.tensor([[0, 956_703_932, 956_703_933, 956_703_963]])
    mask = torch.tensor([[False, True, True, True]])
    asked = torch.tensor([[0, 956_703_933, 956_703_963, 956_703_963]])
    assert gap_pairs(asked, time, mask, U).tolist() == [
        [[U, U, U, U], [U, 1, U, U], [U, _bucket(31), _bucket(30), U],
         [U, _bucket(31), _bucket(30), 0]]
    ]  # fmt: skip
    both = gap_pairs(time, time, mask, U, causal=False)[0, 1:, 1:]
    assert torch.equal(both, both.t())
    assert both[0].tolist() == [0, 1, _bucket(31)]


def test_bad_arguments_are_named() -> None:
    q, k, v = (t.detach() for t in _qkv())
    pairs = gap_pairs(_times(), _times(), MASK, U)
    with pytest.raises(ValueError, match="mask must be bool"):
        padded_attention(q, k, v, MASK[:, 1:])
    with pytest.raises(ValueError, match="dropout_p"):
        padded_attention(q, k, v, MASK, dropout_p=1.0)
    for wrong in ((q, k[:1], v), (q, k, v[:, :, 1:]), (q[:, :1], k, v), (q[..., 1:], k, v)):
        with pytest.raises(ValueError, match="k and v must be"):
            padded_attention(*wrong, MASK)
    with pytest.raises(ValueError, match="M <= L, got"):
        padded_attention(q, k[:, :, 1:], v[:, :, 1:], MASK[:, 1:])
    with pytest.raises(ValueError, match="pairs"):
        gap_attention(q, k, v, pairs.long(), torch.zeros(H, U))
    with pytest.raises(ValueError, match="table"):
        gap_attention(q, k, v, pairs, torch.zeros(H + 1, U))
    with pytest.raises(ValueError, match="position_table"):
        gap_attention(q, k, v, pairs, torch.zeros(H, U), torch.zeros(4))
    with pytest.raises(TypeError, match="int64"):
        gap_bucket(torch.zeros(3))
    with pytest.raises(TypeError, match="bool"):
        gap_pairs(_times(), _times(), MASK.long())
    turned = pairs.transpose(1, 2).contiguous().transpose(1, 2)  # any strides will do
    table = torch.linspace(-1, 1, H * U, dtype=q.dtype).view(H, U)
    wanted = gap_attention(q, k, v, pairs, table)
    assert torch.equal(gap_attention(q, k, v, turned, table), wanted)
    with pytest.raises(IndexError, match="out of range"):
        gap_attention(q, k, v, pairs, torch.zeros(H, U - 1))


@pytest.mark.parametrize("asked", [9, L])
def test_queries_by_parts_are_the_whole(asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Causal attention with everything on: values, and gradients of all that is learned."""
    q, k, v = _qkv()
    table = torch.linspace(-1, 1, H * U, dtype=torch.float64).view(H, U).requires_grad_()
    place = torch.linspace(0, 1, H * 6, dtype=torch.float64).view(H, 6).requires_grad_()
    shared = torch.linspace(0, 1, H * asked * L, dtype=torch.float64).view(H, asked, L)
    shared.requires_grad_()
    pairs = gap_pairs(_times(), _times(), MASK, U, causal=False)[:, L - asked :]
    q_last = q[:, :, L - asked :]
    for leaves in ([q, k, v, table, place], [q, k, v, shared]):
        outs, grads = [], []
        for queries in (L, 3):
            monkeypatch.setattr(attention, "_QUERIES_AT_A_TIME", queries)
            monkeypatch.setattr(pair_cells, "_QUERIES", queries)
            if leaves[-1] is shared:
                outs.append(padded_attention(q_last, k, v, MASK, shared, causal=True))
            else:
                cells = PairCells(pairs, U, 6, causal=True)
                assert len(cells.tiles) == max(1, asked // queries)
                outs.append(pair_attention(q_last, k, v, cells, table, place))
            grads.append(_grads(outs[-1], leaves))
        _close([outs[1]], [outs[0]], 1e-12)
        _close(grads[1], grads[0], 1e-12)


def test_pair_attention_shuts_the_future_on_demand() -> None:
    q, k, v = (t.detach() for t in _qkv())
    table = torch.linspace(-1, 1, H * U, dtype=torch.float64).view(H, U)
    place = torch.linspace(0, 1, H * 2 * L, dtype=torch.float64).view(H, 2 * L)
    shut = gap_pairs(_times(), _times(), MASK, U)
    full = gap_pairs(_times(), _times(), MASK, U, causal=False)

    def attend(pairs: Tensor, shared: Tensor | None, causal: bool) -> Tensor:
        places = 1 if shared is None else 2 * L
        return pair_attention(q, k, v, PairCells(pairs, U, places, L, causal), table, shared)

    for shared in (None, place):
        want = attend(shut, shared, False)
        torch.testing.assert_close(attend(full, shared, True), want, rtol=0, atol=1e-12)
        assert not torch.equal(attend(full, shared, False), want)
