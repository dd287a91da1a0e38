"""Cross-attention from a sequence to a few vectors of its user, behind a gate."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GatedMemory(nn.Module):
    r"""What a position of a sequence takes from K vectors.

    .. math:: a = \mathrm{softmax}_k\!\left(W_q h \cdot (W_k m_k + t_k) / \sqrt{D}\right), \quad
              c = W_o \sum_k a_k W_v m_k, \quad g = \sigma(W_g [h; c] + b), \quad
              h' = h + g \odot c

    The vectors are added to the position, not put in its place: whatever the gate does, the
    sequence keeps its say. (Where the position only weighs the vectors, as in
    :math:`\sum_j a_j v` with :math:`\sum_j a_j = 1`, nothing of it reaches the output.)

    Args:
        channels: D.
        num_vectors: K.
    """

    def __init__(self, channels: int, num_vectors: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.kind = nn.Parameter(torch.zeros(num_vectors, channels))
        self.gate = nn.Linear(2 * channels, channels)
        nn.init.constant_(self.gate.bias, -1.0)  # at first the sequence alone has to explain

    def forward(self, x: Tensor, memory: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a position becomes, and what it looked at.

        Args:
            x: ``[R, D]`` positions.
            memory: ``[R, K, D]`` the vectors of the user of each position.
            known: ``[R, K]`` bool; vectors that are not known have no weight.

        Returns:
            ``[R, D]`` the positions, ``[R, K]`` the weights a (zero in rows without any known
            vector), ``[R]`` the mean of the gate.
        """
        energy = (self.key(memory) + self.kind) @ self.query(x).unsqueeze(2)
        energy = energy.squeeze(2).float() / math.sqrt(x.size(1))
        # A finite number: a row of minus infinities would have no softmax.
        weight = torch.softmax(energy.masked_fill(~known, -1e9), dim=1) * known
        taken = (weight.unsqueeze(2) * self.value(memory)).sum(1)
        taken = self.out(taken)
        gate = torch.sigmoid(self.gate(torch.cat([x, taken], dim=1)))
        return x + gate * taken, weight, gate.mean(1)
