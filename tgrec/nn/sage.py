"""A heterogeneous GraphSAGE encoder on PyG batches, and layer by layer on a whole graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.module_dict import ModuleDict

from tgrec.nn.transformer import Dropout

EdgeType = tuple[str, str, str]
Counts = Mapping[str, Sequence[int]]


class EdgeSAGEConv(MessagePassing):
    r"""GraphSAGE's convolution (Hamilton et al., arXiv 1706.02216) whose messages know their edge.

    .. math:: h_i = W\, \mathrm{aggr}_{j \to i}\, m_{ij}, \qquad
              m_{ij} = \mathrm{ReLU}(x_j + V e_{ij})

    as in GINE (Hu et al., arXiv 1905.12265): past the ReLU an edge can shut a channel off, so that
    for example old events are not heard. Without edge features ``m_ij = x_j``, and it is PyG's
    ``SAGEConv`` without root weight and bias. With ``gate``

    .. math:: m_{ij} = x_j \odot 2\,\sigma(V e_{ij}), \qquad V = 0 \text{ at first},

    which starts as SAGE without edge features: messages keep their sign, and what neighbours have
    in common is learned sooner where the inputs are learned tables.

    Args:
        in_channels: C of the source nodes.
        out_channels: D.
        edge_dim: Width of the edge features; None for none.
        aggr: As PyG names it.
        gate: Whether edge features weigh the channels of a message instead of being added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        edge_dim: int | None = None,
        aggr: str = "mean",
        gate: bool = False,
    ) -> None:
        super().__init__(aggr)
        self.gate = gate
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.lin_edge = None if edge_dim is None else nn.Linear(edge_dim, in_channels)
        if gate and self.lin_edge is not None:
            nn.init.zeros_(self.lin_edge.weight)
            nn.init.zeros_(self.lin_edge.bias)

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None, num_targets: int
    ) -> Tensor:
        """``[num_targets, D]``.

        Args:
            x: ``[n, C]`` source nodes.
            edge_index: ``[2, E]``.
            edge_attr: ``[E, edge_dim]``.
            num_targets: Number of target nodes.
        """
        edge = None
        if self.lin_edge is not None:
            if edge_attr is None:
                raise ValueError("'edge_attr' is missing: this encoder reads edge features")
            edge = self.lin_edge(edge_attr)
            edge = 2 * edge.sigmoid() if self.gate else edge
        size = (x.size(0), num_targets)
        # propagate_type: (x: OptPairTensor, edge: OptTensor)
        out: Tensor = self.lin(self.propagate(edge_index, x=(x, None), edge=edge, size=size))
        return out

    def message(self, x_j: Tensor, edge: Tensor | None) -> Tensor:  # type: ignore[override]
        """``[E, C]``."""
        if edge is None:
            return x_j
        return x_j * edge if self.gate else F.relu(x_j + edge)


class SAGELayer(nn.Module):
    r"""One layer over all kinds of edges.

    .. math:: h_i' = \mathrm{LN}\Big(x_i + \mathrm{GELU}\big(W_0 x_i + b +
              \sum_r \mathrm{conv}_r(x)_i\big)\Big)

    without the residual where the widths differ. Norms are per node: the statistics of a sampled
    sub-graph, which a batch norm would take, are those of a sample.

    Args:
        in_channels: Node type -> width of its input.
        edge_types: The kinds of edges to hear.
        out_types: Node types to compute.
        out_channels: D.
        edge_dim: Edge type -> width of its features.
        aggr: As PyG names it.
        dropout: In [0, 1).
        gate: As :class:`EdgeSAGEConv` takes it.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        edge_types: Sequence[EdgeType],
        out_types: Sequence[str],
        out_channels: int,
        edge_dim: Mapping[EdgeType, int],
        aggr: str,
        dropout: float,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.root = ModuleDict({t: nn.Linear(in_channels[t], out_channels) for t in out_types})
        self.norm = ModuleDict({t: nn.LayerNorm(out_channels) for t in out_types})
        self.out_types = tuple(out_types)
        self.edge_types = [e for e in edge_types if e[2] in out_types]
        convs: dict[str | tuple[str, ...], nn.Module] = {}
        for e in self.edge_types:
            convs[e] = EdgeSAGEConv(  # type: ignore[abstract]
                in_channels[e[0]], out_channels, edge_dim.get(e), aggr, gate
            )
        self.convs = ModuleDict(convs)
        self.drop = Dropout(dropout)

    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        target_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        edge_attr_dict: Mapping[EdgeType, Tensor],
    ) -> dict[str, Tensor]:
        """Node type -> ``[m, D]`` for the nodes of ``target_dict``.

        Args:
            x_dict: ``[n, C]`` the nodes that messages come from.
            target_dict: ``[m, C]`` the nodes that they go to; edges number these in row 1.
            edge_index_dict: ``[2, E]``; a type that is missing has no edges.
            edge_attr_dict: ``[E, F]``.
        """
        out: dict[str, Tensor] = {}
        for t in self.out_types:
            if t not in target_dict:
                continue
            x = target_dict[t]
            hidden = self.root[t](x)
            for e in self.edge_types:
                if e[2] == t and e in edge_index_dict and e[0] in x_dict:
                    edges, attr = edge_index_dict[e], edge_attr_dict.get(e)
                    hidden = hidden + self.convs[e](x_dict[e[0]], edges, attr, x.size(0))
            hidden = self.drop(F.gelu(hidden))
            out[t] = self.norm[t](x + hidden if x.shape == hidden.shape else hidden)
        return out


class SAGEEncoder(nn.Module):
    """GraphSAGE (Hamilton et al., NeurIPS 2017) over several types of nodes and edges.

    Reads PyG batches from any loader, and whole graphs. Messages flow along the edges that are
    given, so a bipartite graph needs its reverse edges (:func:`tgrec.data.with_reverse`). With L
    layers a node hears of what is up to L edges away.

    Differs from the paper: several kinds of edges, edge features in the messages
    (:class:`EdgeSAGEConv`), GELU, a residual and a layer norm instead of ReLU and normalisation.

    Args:
        in_channels: Node type -> width of its input.
        edge_types: The kinds of edges to hear, of the types ``(source, relation, target)``.
        hidden_channels: D.
        num_layers: L.
        aggr: How messages are aggregated, as PyG names it.
        dropout: In [0, 1).
        edge_dim: Width of the edge features, for all kinds of edges or by kind; kinds that are
            left out have none.
        out_types: Node types whose vectors are wanted; by default all. Layers hold only what
            these need, so that no parameter is idle.
        gate: As :class:`EdgeSAGEConv` takes it.

    Raises:
        ValueError: If a number is not positive or a type is unknown.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        edge_types: Sequence[EdgeType],
        hidden_channels: int,
        num_layers: int,
        aggr: str = "mean",
        dropout: float = 0.0,
        edge_dim: int | Mapping[EdgeType, int] | None = None,
        out_types: Sequence[str] | None = None,
        gate: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"hidden_channels": hidden_channels, "num_layers": num_layers}
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
        for name, asked in (
            ("edge_types", {t for e in edge_types for t in (e[0], e[2])}),
            ("out_types", set(out_types or ())),
        ):
            if not asked <= in_channels.keys():
                raise ValueError(
                    f"'{name}' names node types without 'in_channels': "
                    f"{sorted(asked - in_channels.keys())}"
                )
        if isinstance(edge_dim, int):
            edge_dim = dict.fromkeys(edge_types, edge_dim)
        self.hidden_channels, self.num_layers = hidden_channels, num_layers
        wanted = [list(in_channels if out_types is None else out_types)]
        for _ in range(num_layers - 1):  # what the layer below has to deliver
            sources = [e[0] for e in edge_types if e[2] in wanted[0]]
            wanted.insert(0, list(dict.fromkeys([*wanted[0], *sources])))
        self.layers = nn.ModuleList(
            SAGELayer(
                in_channels if depth == 0 else dict.fromkeys(in_channels, hidden_channels),
                edge_types,
                types,
                hidden_channels,
                edge_dim or {},
                aggr,
                dropout,
                gate,
            )
            for depth, types in enumerate(wanted)
        )

    def forward(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        edge_attr_dict: Mapping[EdgeType, Tensor] | None = None,
        num_sampled_nodes_dict: Counts | None = None,
        num_sampled_edges_dict: Mapping[EdgeType, Sequence[int]] | None = None,
    ) -> dict[str, Tensor]:
        """Encodes.

        Args:
            x_dict: Node type -> ``[n, C]``.
            edge_index_dict: Edge type -> ``[2, E]``; a type that is missing has no edges.
            edge_attr_dict: Edge type -> ``[E, F]``, for the kinds of edges with ``edge_dim``.
            num_sampled_nodes_dict: Of a sampled batch, the numbers of nodes per hop. Where given,
                each layer computes only the nodes that the seeds still need, as PyG's
                ``trim_to_layer``, and only the seeds are returned.
            num_sampled_edges_dict: The numbers of edges per hop; goes with the former.

        Returns:
            Node type -> ``[n, D]``, or ``[number of seeds, D]`` of a trimmed batch.
        """
        nodes, edges = num_sampled_nodes_dict, num_sampled_edges_dict
        if (nodes is None) != (edges is None):
            raise ValueError(
                "'num_sampled_nodes_dict' and 'num_sampled_edges_dict' go together; give both"
            )
        h, attrs = dict(x_dict), edge_attr_dict or {}
        for depth, layer in enumerate(self.layers):
            target = h
            if nodes is not None and edges is not None:
                left = self.num_layers - depth  # hops that the seeds are still away
                target = {t: x[: sum(nodes[t][:left])] for t, x in h.items()}
                h = {t: x[: sum(nodes[t][: left + 1])] for t, x in h.items()}
                used = {e: sum(edges[e][:left]) for e in edge_index_dict}
                edge_index_dict = {e: i[:, : used[e]] for e, i in edge_index_dict.items()}
                attrs = {e: a[: used[e]] for e, a in attrs.items()}
            h = layer(h, target, edge_index_dict, attrs)
        return h

    @torch.no_grad()
    def inference(
        self,
        x_dict: Mapping[str, Tensor],
        edge_index_dict: Mapping[EdgeType, Tensor],
        edge_attr_dict: Mapping[EdgeType, Tensor] | None = None,
        batch_size: int = 4096,
    ) -> dict[str, Tensor]:
        """:meth:`forward` for all nodes of a graph, layer by layer and ``batch_size`` at a time.

        Every node is computed once per layer from all of its edges, and only the messages of one
        chunk are in memory. Dropout is off. What a node may not see must not be in the edges: cut
        the graph first (:meth:`tgrec.data.TemporalRecGraph.before`).

        Returns:
            Node type -> ``[n, D]``.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"'batch_size' needs to be a positive integer (got {batch_size!r})")
        was_training, h, attrs = self.training, dict(x_dict), edge_attr_dict or {}
        self.eval()
        lists = {e: _by_target(i, h[e[2]].size(0)) for e, i in edge_index_dict.items()}
        for layer in self.layers:
            assert isinstance(layer, SAGELayer)
            out: dict[str, Tensor] = {}
            for t in layer.out_types:
                parts = []
                for first in range(0, h[t].size(0), batch_size):
                    last = min(first + batch_size, h[t].size(0))
                    part, part_attrs = {}, {}
                    for e, (order, ptr) in lists.items():
                        if e[2] == t:
                            chosen = order[int(ptr[first]) : int(ptr[last])]
                            row, col = edge_index_dict[e][:, chosen]
                            part[e] = torch.stack([row, col - first])
                            if e in attrs:
                                part_attrs[e] = attrs[e][chosen]
                    parts.append(layer(h, {t: h[t][first:last]}, part, part_attrs)[t])
                out[t] = torch.cat(parts) if parts else h[t].new_zeros(0, self.hidden_channels)
            h = out
        self.train(was_training)
        return h


def _by_target(edge_index: Tensor, num_targets: int) -> tuple[Tensor, Tensor]:
    """Positions of the edges, target by target, and where each target's begin ``[n + 1]``."""
    order = torch.argsort(edge_index[1], stable=True)
    count = torch.bincount(edge_index[1], minlength=num_targets)
    return order, torch.cat([count.new_zeros(1), count.cumsum(0)])
