"""What a graph encoder reads at its nodes and edges: tables, features, and times as features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NodeInput(nn.Module):
    r"""The input of one type of nodes: a learned vector, projected features, or their sum.

    .. math:: x_i = E_i + W f_i

    The features let nodes with few events share what others have learned.

    Args:
        out_channels: D.
        num_nodes: Rows of the table E; None for no table.
        in_channels: F; None for no features.

    Raises:
        ValueError: If there is neither table nor features.
    """

    def __init__(
        self, out_channels: int, num_nodes: int | None = None, in_channels: int | None = None
    ) -> None:
        super().__init__()
        if num_nodes is None and in_channels is None:
            raise ValueError("one of 'num_nodes' and 'in_channels' needs to be given (got neither)")
        self.table: nn.Parameter | None = None
        self.lin: nn.Linear | None = None
        if num_nodes is not None:
            self.table = nn.Parameter(torch.empty(num_nodes, out_channels).normal_(std=0.02))
        if in_channels is not None:
            self.lin = nn.Linear(in_channels, out_channels, bias=False)
            nn.init.normal_(self.lin.weight, std=0.02)

    def forward(self, n_id: Tensor | None = None, x: Tensor | None = None) -> Tensor:
        """``[n, D]``.

        Args:
            n_id: ``[n]`` int64 rows of the table; None means all of them.
            x: ``[n, F]`` float features of the same nodes.
        """
        parts: list[Tensor] = []
        if self.table is not None:
            parts.append(self.table if n_id is None else nn.functional.embedding(n_id, self.table))
        if self.lin is not None:
            if x is None:
                raise ValueError("'x' is missing: these nodes have features")
            parts.append(self.lin(x))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def decays(values: Tensor, scales: Sequence[float]) -> Tensor:
    r"""Ages as features that a linear layer can make any falling weight of.

    .. math:: [e^{-v / s_1}, \ldots, e^{-v / s_S}]

    With scales that grow geometrically they are soft buckets of the logarithm of the age, all of
    them between 0 and 1.

    Args:
        values: ``[E]``, at least 0: seconds, or numbers of events.
        scales: ``s``, in the unit of ``values``.

    Returns:
        ``[E, S]`` float32.
    """
    rates = torch.tensor([-1 / s for s in scales], device=values.device)
    return torch.exp(values.float().unsqueeze(1) * rates)
