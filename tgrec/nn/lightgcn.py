"""LightGCN's propagation on PyG batches and on whole graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

EdgeType = tuple[str, str, str]


class LightGCNEncoder(nn.Module):
    r"""LightGCN (He et al., SIGIR 2020, arXiv 2002.02126): sums over neighbours, nothing learned.

    .. math:: x_i^{(k+1)} = \sum_{j \to i} \frac{x_j^{(k)}}{\sqrt{d_i}\sqrt{d_j}}, \qquad
              h_i = \frac{1}{L + 1} \sum_{k=0}^{L} x_i^{(k)}

    with the degrees d over all kinds of edges. Where only some of a node's edges were sampled,
    their mean stands for the mean over all of them:

    .. math:: x_i^{(k+1)} = \sqrt{d_i}\; \mathrm{mean}_{j \to i}\, x_j^{(k)} / \sqrt{d_j}

    which is the sum above if all are there, and on average if they were drawn uniformly.

    Args:
        num_layers: L.

    Raises:
        ValueError: If ``num_layers`` is not a positive integer.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1:
            raise ValueError(f"'num_layers' needs to be a positive integer (got {num_layers!r})")
        self.num_layers = num_layers

    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        degree_dict: Mapping[str, Tensor] | None = None,
        num_sampled_nodes_dict: Mapping[str, Sequence[int]] | None = None,
    ) -> dict[str, Tensor]:
        """Propagates.

        Args:
            x_dict: Node type -> ``[n, D]``, one width for all.
            edge_index_dict: Edge type -> ``[2, E]``, every edge in both directions.
            degree_dict: Node type -> ``[n]`` number of edges of each node; below 1 counts as 1.
                By default the edges that are given are counted, which is right for a whole graph
                only: in a sampled batch the outermost nodes have a single edge.
            num_sampled_nodes_dict: Of a sampled batch, the numbers of nodes per hop; where given,
                only the seeds are returned.

        Returns:
            Node type -> ``[n, D]``, or ``[number of seeds, D]``.
        """
        heard = {t: self._counts(t, x, edge_index_dict) for t, x in x_dict.items()}
        degree = (
            heard if degree_dict is None else {t: degree_dict[t].to(h) for t, h in heard.items()}
        )
        root = {t: d.clamp(min=1).sqrt().unsqueeze(1) for t, d in degree.items()}
        # Of a node without edges the sum is 0, whatever it is multiplied by.
        share = {t: root[t] / heard[t].clamp(min=1).unsqueeze(1) for t in root}
        kept = {t: x.size(0) for t, x in x_dict.items()}
        if num_sampled_nodes_dict is not None:
            kept = {t: num_sampled_nodes_dict[t][0] for t in x_dict}
        h = dict(x_dict)
        total = {t: x[: kept[t]] for t, x in h.items()}
        for _ in range(self.num_layers):
            scaled = {t: x / root[t] for t, x in h.items()}
            h = {t: torch.zeros_like(x) for t, x in h.items()}
            for (source, _, target), (row, col) in edge_index_dict.items():
                size = h[target].size(0)
                h[target] = h[target] + scatter(scaled[source][row], col, dim_size=size)
            h = {t: x * share[t] for t, x in h.items()}
            total = {t: total[t] + x[: kept[t]] for t, x in h.items()}
        return {t: x / (self.num_layers + 1) for t, x in total.items()}

    @staticmethod
    def _counts(node_type: str, x: Tensor, edge_index_dict: Mapping[EdgeType, Tensor]) -> Tensor:
        """``[n]`` edges that point to each node, in the dtype of ``x``."""
        out = x.new_zeros(x.size(0))
        for edge_type, (_, col) in edge_index_dict.items():
            if edge_type[2] == node_type:
                out.scatter_add_(0, col, x.new_ones(col.numel()))
        return out
