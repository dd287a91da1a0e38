"""The reversed gradient, its schedule, and the discriminator."""

from __future__ import annotations

import math

import pytest
import torch

from tgrec.nn.domain_adversary import DomainDiscriminator, reversal_strength, reverse_gradient


def test_the_value_stays_and_the_gradient_is_reversed() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 4.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-1.5, -2.0]


def test_the_schedule_rises_from_0_to_nearly_1() -> None:
    values = [reversal_strength(p / 10) for p in range(11)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[5] == pytest.approx(2 / (1 + math.exp(-5)) - 1)
    assert 0.999 < values[-1] < 1
    with pytest.raises(ValueError, match=r"'progress' needs to be in \[0, 1\] \(got 2"):
        reversal_strength(2.0)


def test_domains_become_indistinct_only_with_the_reversal() -> None:
    """An encoder trained through the layer hides the domain, and one without it does not."""
    share = {}
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        noise = torch.randn(256, 4)
        domain = torch.arange(256) % 2
        x = torch.cat([noise, domain.float().unsqueeze(1) * 2 - 1], dim=1)
        encoder, judge = torch.nn.Linear(5, 4), DomainDiscriminator(4, 2, 16)
        optimizer = torch.optim.Adam([*encoder.parameters(), *judge.parameters()], lr=0.02)
        for _ in range(150):
            logits = judge(encoder(x), strength)
            loss = torch.nn.functional.cross_entropy(logits, domain)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # How far apart the two domains lie, beside their spread.
        z = encoder(x).detach()
        gap = (z[domain == 0].mean(0) - z[domain == 1].mean(0)).norm() / z.std(0).norm()
        share[strength] = float(gap)
    assert share[1.0] < 0.5 * share[0.0]


def test_one_domain_has_no_adversary() -> None:
    with pytest.raises(ValueError, match="'num_domains' needs to be at least 2"):
        DomainDiscriminator(4, 1)
