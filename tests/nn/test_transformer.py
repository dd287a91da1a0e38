"""The encoder: its last position alone is that of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tgrec.nn.gap_attention import gap_pairs
from tgrec.nn.transformer import DistanceBias, GatedBlock, Positions, SequenceEncoder

B, L, D = 6, 11, 16
LENGTHS = torch.tensor([11, 0, 1, 5, 10, 3])
MASK = torch.arange(L) >= L - LENGTHS[:, None]


def encoder_of(
    blocks: int,
    causal: bool,
    pair_kinds: int = 0,
    positions: Positions = "learned",
    gated: bool = False,
) -> SequenceEncoder:
    torch.manual_seed(0)
    encoder = SequenceEncoder(
        D, 2, blocks, None if gated else 24, L, 0.4,
        causal=causal, positions=positions, pair_kinds=pair_kinds,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in encoder.parameters():  # away from zeros and ones, and not small
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return encoder


def inputs(seed: int = 1) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    time = torch.randint(10**6, (B, L), generator=g).sort(1).values
    return torch.randn(B, L, D, generator=g), gap_pairs(time, time, MASK, 9)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize(
    "kind", ["causal", "both sides", "pairs", "distance", "both biases", "gated"]
)
@pytest.mark.parametrize("length", [L, 4, 1])
def test_the_last_position_alone_is_that_of_the_whole(blocks: int, kind: str, length: int) -> None:
    biased = kind in ("pairs", "both biases", "gated")
    near = kind in ("distance", "both biases", "gated")
    causal = kind not in ("both sides", "distance")
    positions: Positions = "relative" if near else "learned"
    encoder = encoder_of(blocks, causal, 9 * biased, positions, gated=kind == "gated")
    x, pairs = inputs()
    x, mask = x[:, -length:].requires_grad_(), MASK[:, -length:]
    args = (x, mask, pairs[:, -length:, -length:] if biased else None)
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


def test_the_bias_of_a_distance_by_hand() -> None:
    bias = DistanceBias(4, 3)
    with torch.no_grad():
        bias.bias.copy_(
            torch.arange(21.0).view(3, 7)
        )  # head h, key d behind the query: 7 h + d + 3
    whole = bias(4, 4)
    for head in range(3):
        for query in range(4):
            for key in range(4):
                assert whole[head, query, key] == 7 * head + (key - query) + 3
    assert torch.equal(bias(2, 4), whole[:, 2:])
    assert torch.equal(bias(3, 3), whole[:, :3, :3])


def test_heads_start_by_looking_at_what_is_near_on_their_side() -> None:
    past, future = DistanceBias(5, 2)(5, 5).softmax(2).detach()
    assert past[2, 1] > past[2, 0] > past[2, 3]  # the event before, that before it, the next one
    assert future[2, 3] > future[2, 4] > future[2, 1]


def test_relative_positions_look_at_distances_and_at_nothing_else() -> None:
    # The same events one place further left: what is learned of distances is learned of all places.
    encoder, (x, _) = encoder_of(2, False, positions="relative"), inputs()
    mask = torch.zeros(B, L, dtype=torch.bool)
    mask[:, 4:] = True
    moved = encoder(x.roll(-2, 1), mask.roll(-2, 1))
    torch.testing.assert_close(moved.roll(2, 1)[:, 4:], encoder(x, mask)[:, 4:])
    assert not torch.allclose(encoder(x.flip(1), mask.flip(1)).flip(1)[:, 4:], moved[:, 2:-2])
    learned = encoder_of(2, False)
    assert not torch.allclose(
        learned(x.roll(-2, 1), mask.roll(-2, 1))[:, 2:9], learned(x, mask)[:, 4:]
    )


@pytest.mark.parametrize("causal", [False, True])
def test_what_a_mask_token_looks_at_comes_in_as_it_is(causal: bool) -> None:
    torch.manual_seed(0)
    block = SequenceEncoder(D, 2, 1, 24, L, 0.0, causal=causal).blocks[0]
    x, _ = inputs()
    normed = block.norm_1(x)
    values = block.heads(normed, last=False)[2]
    everywhere = values.mean(2, keepdim=True).expand_as(values)  # attention to all alike
    mixed = block.out(everywhere.transpose(1, 2).reshape(x.shape))
    as_it_is = torch.allclose(mixed, normed.mean(1, keepdim=True).expand_as(x), atol=1e-5)
    assert as_it_is == (not causal)


def test_a_gated_block_by_hand() -> None:
    encoder, (x, _) = encoder_of(1, True, gated=True), inputs()
    block = encoder.blocks[0]
    assert isinstance(block, GatedBlock)
    assert not any("up." in name or "down." in name for name, _ in block.named_parameters())

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        newest = slice(-q.size(2), None)
        return q - k[:, :, newest] + 2 * v[:, :, newest]

    n = block.norm_1(x)
    q, k, v = block.qkv(n).split(D, dim=2)
    mixed = q - k + 2 * v * v.sigmoid()
    u = block.gate(n)
    expected = x + block.out(u * u.sigmoid() * block.norm_2(mixed))
    torch.testing.assert_close(block(x, attend), expected)
    torch.testing.assert_close(block(x, attend, last=True), expected[:, -1:])
