"""Cross-attention to facts: by hand, its keys apart, and the past strictly before a position."""

from __future__ import annotations

import math

import pytest
import torch

from tgrec.nn.context_attention import ContextAttention, recent_mean


def layer(channels: int = 8, heads: int = 2) -> ContextAttention:
    torch.manual_seed(0)
    return ContextAttention(channels, heads)


def test_the_weights_are_those_of_the_formula() -> None:
    attend, g = layer(), torch.Generator().manual_seed(1)
    query, recent = torch.randn(2, 2, 3, 8, generator=g)
    facts = torch.randn(2, 4, 8, generator=g)
    out, weights = attend(query, facts, recent)
    root = math.sqrt(8)
    for row in range(2):
        for place in range(3):
            keys = torch.cat([attend.nothing.view(1, 8), facts[row], recent[row, place].view(1, 8)])
            k, v = attend.to_kv(keys * root).view(6, 2, 2, 4).unbind(1)  # [6, H, d]
            q = attend.to_q(attend.norm_query(query[row, place])).view(2, 4)
            wanted = torch.softmax((q * k).sum(2) / 2, dim=0)  # [6, H]
            torch.testing.assert_close(weights[row, place], wanted.t())
            mixed = (wanted.unsqueeze(2) * v).sum(0).flatten()
            torch.testing.assert_close(out[row, place], attend.out(mixed))


def test_what_is_attended_to_depends_on_the_query() -> None:
    """With copies of one key, as the seed had them, the weights would all be 1/6."""
    attend, g = layer(), torch.Generator().manual_seed(1)
    facts, recent = torch.randn(1, 4, 8, generator=g), torch.randn(1, 5, 8, generator=g)
    one, two = (attend(torch.randn(1, 5, 8, generator=g), facts, recent)[1] for _ in range(2))
    assert float((one - two).abs().max().detach()) > 0.05
    same = facts[:, :1].expand(-1, 4, -1)
    copies = attend(torch.randn(1, 5, 8, generator=g), same, recent)[1][..., 1:5]
    torch.testing.assert_close(copies, copies[..., :1].expand_as(copies))


def test_no_facts_at_all() -> None:
    out, weights = layer()(torch.randn(2, 3, 8), torch.zeros(2, 0, 8), torch.randn(2, 3, 8))
    assert out.shape == (2, 3, 8)
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 3, 2))


@pytest.mark.parametrize("window", [1, 2, 5, 9])
def test_recent_means_by_brute_force(window: int) -> None:
    g = torch.Generator().manual_seed(2)
    x, known = torch.randn(3, 7, 4, generator=g), torch.rand(3, 7, generator=g) < 0.6
    x = torch.where(known.unsqueeze(2), x, torch.tensor(1e6))
    found = recent_mean(x, known, window)
    for row in range(3):
        for place in range(7):
            past = [
                x[row, i] for i in range(max(0, place + 1 - window), place + 1) if known[row, i]
            ]
            wanted = torch.stack(past).mean(0) if past else torch.zeros(4)
            torch.testing.assert_close(found[row, place], wanted)


def test_heads_have_to_divide() -> None:
    with pytest.raises(ValueError, match=r"'d_model' \(9\) needs to be divisible by 'n_heads'"):
        ContextAttention(9, 2)
