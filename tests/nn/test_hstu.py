"""HSTU's attention against loops, its shut pairs, and the encoder around it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.nn import pair_cells
from tgrec.nn.gap_attention import gap_bucket, gap_pairs
from tgrec.nn.hstu import HSTUBlock, HSTUEncoder, silu_attention
from tgrec.nn.pair_cells import PairCells

B, H, L, CHANNELS, BUCKETS, PLACES = 3, 2, 7, 4, 12, 5


def draw(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, B, H, L, CHANNELS, generator=g, dtype=torch.float64).to(dtype)
    gap, place = (torch.randn(H, n, generator=g, dtype=torch.float64) for n in (BUCKETS, PLACES))
    return {"q": q, "k": k, "v": v, "gap": gap.to(dtype), "place": place.to(dtype)}


def times() -> tuple[Tensor, Tensor]:
    gaps = torch.tensor([[0, 1, 0, 5, 40, 0, 3], [9, 0, 0, 0, 7, 1, 1], [1, 30, 2, 2, 0, 0, 9]])
    mask = torch.arange(L) >= torch.tensor([[0], [3], [L]])  # full, short, empty
    return gaps.cumsum(1) + 10**9, mask


def loop(x: dict[str, Tensor], time: Tensor, asked: Tensor, mask: Tensor, norm: float) -> Tensor:
    """The formula, a pair at a time."""
    out = torch.zeros_like(x["q"])
    for b in range(B):
        for h in range(H):
            for i in range(L):
                for j in range(i + 1):
                    if mask[b, j]:
                        bucket = int(gap_bucket((asked[b, i] - time[b, j]).clamp(min=0), BUCKETS))
                        score = x["q"][b, h, i] @ x["k"][b, h, j] + x["gap"][h, bucket]
                        score = score + x["place"][h, min(i - j, PLACES - 1)]
                        out[b, h, i] += F.silu(score) * x["v"][b, h, j] / norm
    return out


def attend(x: dict[str, Tensor], pairs: Tensor, norm: float, last: int = L) -> Tensor:
    cells = PairCells(pairs, BUCKETS, PLACES, causal=True).last(last)
    return silu_attention(
        x["q"][:, :, L - last :], x["k"], x["v"], cells, x["gap"], x["place"], norm
    )


@pytest.mark.parametrize("later", [0, 6])
@pytest.mark.parametrize("rows", [50, 2, 3])
def test_attention_is_the_loop(later: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_cells, "_QUERIES", rows)
    (time, mask), x, norm = times(), draw(), 9.0
    pairs = gap_pairs(time + later, time, mask, BUCKETS)
    own = {name: value.clone().requires_grad_() for name, value in x.items()}
    naive = {name: value.clone().requires_grad_() for name, value in x.items()}
    got, wanted = attend(own, pairs, norm), loop(naive, time, time + later, mask, norm)
    torch.testing.assert_close(got, wanted)
    assert not got[2].any()  # nothing to attend to
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).double()
    (got * weight).sum().backward()
    (wanted * weight).sum().backward()
    for name in x:
        torch.testing.assert_close(own[name].grad, naive[name].grad, msg=name)
    for last in (1, 3):
        torch.testing.assert_close(attend(x, pairs, norm, last), wanted.detach()[:, :, L - last :])


def test_in_bfloat16_it_is_near_and_shut_pairs_are_exactly_zero() -> None:
    (time, mask), x = times(), draw(dtype=torch.float32)
    pairs = gap_pairs(time, time, mask, BUCKETS)
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(x, pairs, 9.0)
    assert got.dtype == torch.bfloat16
    wanted = loop(x, time, time, mask, 9.0)
    torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.05)
    other = dict(x)
    noise = torch.where(mask[:, None, :, None], 0.0, 1e3)
    other["k"], other["v"] = x["k"] + noise, x["v"] + noise
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend(other, pairs, 9.0), got)


def test_wrong_arguments_are_named() -> None:
    (time, mask), x = times(), draw()
    pairs = gap_pairs(time, time, mask, BUCKETS)
    with pytest.raises(ValueError, match=r"'pairs' needs to be uint8 \[B, M, L\]"):
        attend(x, pairs.long(), 1.0)
    with pytest.raises(ValueError, match=r"table by kind needs to be \[2, 12\]"):
        attend({**x, "gap": x["gap"][:1]}, pairs, 1.0)
    with pytest.raises(ValueError, match=r"\[B, H, L, d\]"):
        attend({**x, "k": x["k"][:, :, 1:]}, pairs, 1.0)
    with pytest.raises(ValueError, match="divisible by 'n_heads'"):
        HSTUBlock(8, 3, 5, 0.0, 4)


def test_the_block_is_its_formula() -> None:
    torch.manual_seed(0)
    time, mask = times()
    pairs = gap_pairs(time, time, mask, BUCKETS)
    block = HSTUBlock(8, H, PLACES, 0.5, BUCKETS).double().eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(B, L, 8, dtype=torch.float64)
    u, v, q, k = F.silu(block.uvqk(block.norm_in(x))).split(8, dim=2)
    q, k, v = (y.view(B, L, H, 4).transpose(1, 2) for y in (q, k, v))
    tables = {"gap": block.gap_table, "place": block.position_table}
    mixed = loop({"q": q, "k": k, "v": v, **tables}, time, time, mask, PLACES)
    mixed = block.norm_out(mixed.transpose(1, 2).reshape(B, L, 8))
    wanted = x + block.out(mixed * u)
    cells = PairCells(pairs, BUCKETS, PLACES, causal=True)
    torch.testing.assert_close(block(x, cells), wanted)
    torch.testing.assert_close(block(x, cells, last=True), wanted[:, -1:])


@torch.no_grad()
def test_the_encoder_is_causal_and_blind_to_padding() -> None:
    torch.manual_seed(0)
    encoder = HSTUEncoder(8, H, 2, L, 0.3, BUCKETS).double().eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    time, mask = times()
    x = torch.randn(B, L, 8, dtype=torch.float64)
    whole = encoder(x, mask, gap_pairs(time, time, mask, BUCKETS))
    assert whole.isfinite().all()
    last = encoder(x, mask, gap_pairs(time, time, mask, BUCKETS), last=True)
    torch.testing.assert_close(last, whole[:, -1])
    cut = slice(0, 5)
    part = encoder(
        x[:, cut], mask[:, cut], gap_pairs(time[:, cut], time[:, cut], mask[:, cut], BUCKETS)
    )
    torch.testing.assert_close(part, whole[:, cut])
    noisy, wild = torch.where(mask[:, :, None], x, 7.0), torch.where(mask, time, 5)
    again = encoder(noisy, mask, gap_pairs(wild, wild, mask, BUCKETS))
    assert torch.equal(again[mask], whole[mask])
    assert torch.equal(again[:, -1], whole[:, -1])
    short = slice(3, L)  # less padding in the second row
    narrow = encoder(
        x[1:2, short],
        mask[1:2, short],
        gap_pairs(time[1:2, short], time[1:2, short], mask[1:2, short], BUCKETS),
    )
    torch.testing.assert_close(narrow, whole[1:2, short])
