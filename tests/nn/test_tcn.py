"""Dilated causal convolutions: against torch's own, causal, blind to padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tgrec.nn.tcn import TCNEncoder, runs


@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (3, 2), (2, 4)])
def test_a_linear_layer_on_runs_is_a_convolution(size: int, dilation: int) -> None:
    x, weight = torch.randn(2, 9, 4).double(), torch.randn(5, 4, size).double()
    wanted = F.conv1d(x.transpose(1, 2), weight, dilation=dilation).transpose(1, 2)
    flat = weight.permute(0, 2, 1).flatten(1)
    torch.testing.assert_close(F.linear(runs(x, size, dilation), flat), wanted)


@torch.no_grad()
def test_positions_see_exactly_their_receptive_field_and_no_padding() -> None:
    torch.manual_seed(0)
    levels, kernel, length = 2, 3, 20
    field = 1 + 2 * (kernel - 1) * (2**levels - 1)
    encoder = TCNEncoder(8, levels, kernel, 0.4).double().eval()
    x, mask = torch.randn(1, length, 8).double(), torch.ones(1, length, dtype=torch.bool)
    whole = encoder(x, mask)
    for changed in range(length):
        other = x.clone()
        other[0, changed] = torch.randn(8)  # not a shift: the norm would take it back
        seen = (encoder(other, mask) != whole).any(2)[0].nonzero().view(-1).tolist()
        assert seen == list(range(changed, min(length, changed + field)))
    padded = F.pad(x, (0, 0, 3, 0), value=9.0)
    out = encoder(padded, F.pad(mask, (3, 0), value=False))
    torch.testing.assert_close(out[:, 3:], whole)
    nothing = encoder(x, ~mask)
    assert torch.equal(nothing, encoder(-x, ~mask))
    assert nothing.isfinite().all()
