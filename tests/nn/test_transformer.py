"""The encoder: its last position alone is that of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tgrec.nn.gap_attention import gap_pairs
from tgrec.nn.transformer import SequenceEncoder

B, L, D = 6, 11, 16
LENGTHS = torch.tensor([11, 0, 1, 5, 10, 3])
MASK = torch.arange(L) >= L - LENGTHS[:, None]


def encoder_of(blocks: int, causal: bool, pair_kinds: int = 0) -> SequenceEncoder:
    torch.manual_seed(0)
    encoder = SequenceEncoder(D, 2, blocks, 24, L, 0.4, causal=causal, pair_kinds=pair_kinds).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # away from zeros and ones, and not small
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return encoder


def inputs(seed: int = 1) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    time = torch.randint(10**6, (B, L), generator=g).sort(1).values
    return torch.randn(B, L, D, generator=g), gap_pairs(time, time, MASK, 9)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("kind", ["causal", "both sides", "pairs"])
@pytest.mark.parametrize("length", [L, 4, 1])
def test_the_last_position_alone_is_that_of_the_whole(blocks: int, kind: str, length: int) -> None:
    encoder = encoder_of(blocks, kind != "both sides", 9 * (kind == "pairs"))
    x, pairs = inputs()
    x, mask = x[:, -length:].requires_grad_(), MASK[:, -length:]
    args = (x, mask, pairs[:, -length:, -length:] if kind == "pairs" else None)
    whole, last = encoder(*args)[:, -1], encoder(*args, last=True)
    assert last.shape == (B, D)
    torch.testing.assert_close(last, whole, rtol=0, atol=1e-6)
    leaves = [x, *(p for p in encoder.parameters() if p.requires_grad)]
    weight = torch.linspace(-1, 1, B * D).view(B, D)
    wanted, got = (torch.autograd.grad((y * weight).sum(), leaves) for y in (whole, last))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_last_block_works_on_the_last_position_only() -> None:
    encoder, (x, _) = encoder_of(2, True), inputs()
    seen: list[int] = []
    for block in encoder.blocks:
        block.get_submodule("up").register_forward_hook(
            lambda _, args, out: seen.append(out.size(1))
        )
    encoder(x, MASK, last=True)
    encoder(x, MASK)
    assert seen == [L, 1, L, L]
