"""The gate over the vectors of a user: by hand, and that the sequence keeps its say."""

from __future__ import annotations

import math

import torch

from tgrec.nn.gated_memory import GatedMemory


def layer(channels: int = 6, vectors: int = 3) -> GatedMemory:
    torch.manual_seed(0)
    out = GatedMemory(channels, vectors)
    torch.nn.init.normal_(out.kind)
    return out


@torch.no_grad()
def test_by_hand() -> None:
    memory, x, m = layer(), torch.randn(1, 6), torch.randn(1, 3, 6)
    known = torch.tensor([[True, False, True]])
    out, weight, gate = memory(x, m, known)
    q = memory.query.weight @ x[0]
    e = [float(q @ (memory.key.weight @ m[0, k] + memory.kind[k])) / math.sqrt(6) for k in (0, 2)]
    a = torch.softmax(torch.tensor(e), dim=0)
    mixed = sum(a[i] * (memory.value.weight @ m[0, k]) for i, k in enumerate((0, 2)))
    c = memory.out.weight @ mixed
    g = torch.sigmoid(memory.gate(torch.cat([x[0], c])))
    assert torch.allclose(out[0], x[0] + g * c, atol=1e-6)
    assert torch.allclose(weight[0, [0, 2]], a, atol=1e-6)
    assert weight[0, 1] == 0
    assert torch.allclose(gate[0], g.mean())


def test_a_user_without_vectors_is_left_alone() -> None:
    x = torch.randn(2, 6, requires_grad=True)
    out, weight, _ = layer()(x, torch.zeros(2, 3, 6), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(out, x)
    assert not weight.any()
    out.sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_sequence_and_vectors_both_reach_the_output() -> None:
    x, m = torch.randn(4, 6), torch.randn(4, 3, 6)
    known = torch.ones(4, 3, dtype=torch.bool)
    out = layer()(x, m, known)[0]
    assert (out != layer()(x + 1, m, known)[0]).all()
    assert (out != layer()(x, m + 1, known)[0]).any(1).all()
