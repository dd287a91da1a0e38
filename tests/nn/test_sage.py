"""The SAGE encoder: by hand, against PyG's convolution, layer by layer, and trimmed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import SAGEConv

from tgrec.data import Sampling, with_reverse
from tgrec.loader import NeighborhoodReader
from tgrec.nn.node_input import NodeInput, decays
from tgrec.nn.sage import EdgeSAGEConv, EdgeType, SAGEEncoder
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph

VIEWS, BUYS = ("user", "views", "item"), ("user", "buys", "item")
TYPES: list[EdgeType] = [
    VIEWS, BUYS, ("item", "rev_views", "user"), ("item", "rev_buys", "user"),
    ("item", "next", "item"),
]  # fmt: skip
SIZES, WIDTHS = {"user": 9, "item": 7}, {"user": 5, "item": 3}
EDGE_DIM = {VIEWS: 2, ("item", "rev_views", "user"): 2, BUYS: 1}


def whole_graph(
    seed: int = 0,
) -> tuple[dict[str, Tensor], dict[EdgeType, Tensor], dict[Any, Tensor]]:
    """Features, edges (some nodes without any, some pairs twice) and edge features."""
    draw = torch.Generator().manual_seed(seed)
    x = {t: torch.randn(SIZES[t], WIDTHS[t], generator=draw) for t in SIZES}
    edges = {}
    for source, relation, target in TYPES:
        row = torch.randint(SIZES[source], (14,), generator=draw)
        col = torch.randint(SIZES[target] - 1, (14,), generator=draw)  # the last one hears nothing
        edges[source, relation, target] = torch.stack([row, col])
    return x, edges, {e: torch.randn(14, n, generator=draw) for e, n in EDGE_DIM.items()}


def encoder(num_layers: int = 2, **kwargs: Any) -> SAGEEncoder:
    torch.manual_seed(0)
    kwargs = {"edge_dim": EDGE_DIM, "dropout": 0.5, **kwargs}
    return SAGEEncoder(WIDTHS, TYPES, 8, num_layers, **kwargs)


# ---- one convolution ---------------------------------------------------------------------------


def test_messages_by_hand() -> None:
    """Three sources, two targets; V adds the edge feature to both channels."""
    conv = EdgeSAGEConv(2, 2, edge_dim=1)
    with torch.no_grad():
        conv.lin.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        assert conv.lin_edge is not None
        conv.lin_edge.weight.fill_(1.0)
        conv.lin_edge.bias.fill_(0.0)
    x = torch.tensor([[1.0, -2.0], [3.0, 4.0], [-1.0, 1.0]])
    edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
    edge_attr = torch.tensor([[1.0], [-3.5], [0.0]])
    # Messages: (2, 0), (0, 0.5), (0, 1). Means: (1, 0.25), (0, 1).
    out = conv(x, edge_index, edge_attr, 2)
    assert torch.allclose(out, torch.tensor([[1.0, 1.25], [0.0, 1.0]]))
    # A target without edges hears nothing.
    assert torch.equal(conv(x, edge_index, edge_attr, 3)[2], torch.zeros(2))
    with pytest.raises(ValueError, match="'edge_attr' is missing"):
        conv(x, edge_index, None, 2)


def test_gates_start_open_and_weigh_channels() -> None:
    x, edges, attrs = whole_graph()
    gated, plain = EdgeSAGEConv(5, 4, edge_dim=2, gate=True), EdgeSAGEConv(5, 4)
    plain.lin.weight.data.copy_(gated.lin.weight)
    heard = plain(x["user"], edges[VIEWS], None, 7)
    assert torch.allclose(gated(x["user"], edges[VIEWS], attrs[VIEWS], 7), heard, atol=1e-6)
    assert gated.lin_edge is not None
    with torch.no_grad():  # logits of the weights: 3 with the first edge feature, -40 without
        gated.lin_edge.weight.copy_(torch.tensor([[43.0, 0.0]] * 5))
        gated.lin_edge.bias.fill_(-40.0)
        gated.lin.weight.copy_(torch.eye(4, 5))
    shown = torch.zeros(14, 2)
    shown[3, 0] = 1.0
    user, item = edges[VIEWS][:, 3]
    out = gated(x["user"], edges[VIEWS], shown, 7)
    share = 2 * torch.sigmoid(torch.tensor(3.0)) / (edges[VIEWS][1] == item).sum()
    assert torch.allclose(out[item], x["user"][user, :4] * share, atol=1e-5)
    assert torch.allclose(out[torch.arange(7) != item], torch.zeros(6, 4), atol=1e-6)


@pytest.mark.parametrize("aggr", ["mean", "max", "sum"])
def test_without_edge_features_it_is_the_convolution_of_pyg(aggr: str) -> None:
    x, edges, _ = whole_graph()
    ours, theirs = (
        EdgeSAGEConv(5, 4, aggr=aggr),
        SAGEConv(5, 4, aggr, root_weight=False, bias=False),
    )
    theirs.lin_l.weight.data.copy_(ours.lin.weight)
    wanted = theirs((x["user"], None), edges[VIEWS], size=(9, 7))
    assert torch.allclose(ours(x["user"], edges[VIEWS], None, 7), wanted, atol=1e-6)


# ---- the encoder -------------------------------------------------------------------------------


def test_one_layer_is_its_formula() -> None:
    x, edges, attrs = whole_graph()
    model = encoder(1).eval()
    layer = model.layers[0]
    wanted = layer.root["item"](x["item"])
    for e in TYPES:
        if e[2] == "item":
            wanted = wanted + layer.convs[e](x[e[0]], edges[e], attrs.get(e), 7)
    wanted = layer.norm["item"](F.gelu(wanted))  # widths differ, so no residual
    assert torch.allclose(model(x, edges, attrs)["item"], wanted, atol=1e-6)
    # Where they agree there is one: with all weights at zero the input is passed on.
    same = SAGEEncoder({"user": 8, "item": 8}, TYPES, 8, 3).eval()
    for name, parameter in same.named_parameters():
        if "norm" not in name:
            torch.nn.init.zeros_(parameter)
    x = {t: torch.randn(SIZES[t], 8) for t in SIZES}
    assert torch.allclose(same(x, edges)["user"], F.layer_norm(x["user"], (8,)), atol=1e-4)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_inference_layer_by_layer_is_the_forward_pass(num_layers: int, batch_size: int) -> None:
    for seed in range(5):
        x, edges, attrs = whole_graph(seed)
        model = encoder(num_layers)  # in training mode, with dropout
        out = model.inference(x, edges, attrs, batch_size)
        assert model.training
        wanted = model.eval()(x, edges, attrs)
        assert out.keys() == wanted.keys() == {"user", "item"}
        for t in out:
            assert not out[t].requires_grad
            assert torch.allclose(out[t], wanted[t], atol=1e-5)


def test_inference_on_a_cut_graph_with_reverse_edges() -> None:
    graph = with_reverse(noise_graph(num_users=30, num_items=11).before(120))
    model = SAGEEncoder({"user": 4, "item": 4}, list(graph.edge_types), 6, 2, aggr="max")
    x = {t: torch.randn(graph[t].num_nodes, 4) for t in ("user", "item")}
    out = model.inference(x, graph.edge_index_dict, batch_size=7)
    wanted = model.eval()(x, graph.edge_index_dict)
    assert all(torch.allclose(out[t], wanted[t], atol=1e-5) for t in wanted)
    empty = {e: i[:, :0] for e, i in graph.edge_index_dict.items()}
    alone = model.inference(x, empty, batch_size=7)["user"]  # sums in another order
    assert torch.allclose(alone, model(x, {})["user"], atol=1e-6)
    assert model.inference({t: v[:0] for t, v in x.items()}, empty)["item"].shape == (0, 6)


def test_every_kind_of_edge_and_every_edge_feature_is_heard() -> None:
    x, edges, attrs = whole_graph()
    model = encoder().eval()
    out = model(x, edges, attrs)
    for e in TYPES:
        fewer = {k: v if k != e else v[:, 1:] for k, v in edges.items()}
        fewer_attrs = {k: v if k != e else v[1:] for k, v in attrs.items()}
        other = model(x, fewer, fewer_attrs)
        assert any(not torch.allclose(other[t], out[t], atol=1e-3) for t in out), e
        # A kind of edge that is left out has none.
        none = {k: v for k, v in edges.items() if k != e}
        empty = {k: v if k != e else v[:, :0] for k, v in edges.items()}
        no_attrs = {k: v if k != e else v[:0] for k, v in attrs.items()}
        a, b = model(x, none, attrs), model(x, empty, no_attrs)
        assert all(torch.equal(a[t], b[t]) for t in out)
    for e in attrs:
        moved = {k: v if k != e else v + 1 for k, v in attrs.items()}
        other = model(x, edges, moved)
        assert any(not torch.allclose(other[t], out[t], atol=1e-3) for t in out), e


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("out_types", [None, ("user",), ("item",)])
def test_no_parameter_is_idle(num_layers: int, out_types: tuple[str, ...] | None) -> None:
    x, edges, attrs = whole_graph()
    model = encoder(num_layers, dropout=0.0, out_types=out_types)
    out = model(x, edges, attrs)
    assert tuple(out) == (out_types or ("user", "item"))
    sum((v * torch.randn_like(v)).sum() for v in out.values()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_layers_hold_only_what_the_layers_above_them_hear() -> None:
    """Tags hear items, and only one kind of node hears tags."""
    widths = {"user": 3, "item": 3, "tag": 3}
    types = [("item", "has", "tag"), ("tag", "names", "item"), ("item", "rev_rates", "user")]
    model = SAGEEncoder(widths, types, 4, 3, out_types=["user"])
    held = [set(layer.out_types) for layer in model.layers]
    assert held == [{"user", "item", "tag"}, {"user", "item"}, {"user"}]
    assert [len(layer.convs) for layer in model.layers] == [3, 2, 1]


def test_a_sampled_batch_trimmed_gives_its_seeds_the_same() -> None:
    index = EventIndex(noise_graph(num_users=40, num_items=9))
    reader = NeighborhoodReader(index, Sampling(num_neighbors=(4, 3, 2)))
    cut = torch.arange(0, index.end, 9)
    user = index.user[cut]
    batch = reader.read(user, cut)
    types = list(batch.edge_types)
    model = SAGEEncoder({"user": 4, "item": 4}, types, 8, 3, edge_dim=1, out_types=["user"]).eval()
    x = {t: torch.randn(batch[t].num_nodes, 4) for t in ("user", "item")}
    attrs = {e: batch[e].lag.float().unsqueeze(1) for e in types}
    whole = model(x, batch.edge_index_dict, attrs)["user"][: user.numel()]
    seen: list[int] = []
    for layer in model.layers:
        layer.root["user"].register_forward_hook(lambda _, args, out: seen.append(out.size(0)))
    numbers = (batch.collect("num_sampled_nodes"), batch.collect("num_sampled_edges"))
    trimmed = model(x, batch.edge_index_dict, attrs, *numbers)["user"]
    assert trimmed.shape == (user.numel(), 8)
    assert torch.allclose(trimmed, whole, atol=1e-5)
    hops = numbers[0]["user"]  # users stand at even distances from the seeds
    assert seen == [sum(hops[:3]), sum(hops[:2]), hops[0]]
    assert seen[0] > seen[1] == seen[2] == user.numel()
    # Fewer layers than hops: the outermost nodes are left out from the start.
    shallow = SAGEEncoder({"user": 4, "item": 4}, types, 8, 1, edge_dim=1, out_types=["user"])
    a = shallow(x, batch.edge_index_dict, attrs)["user"][: user.numel()]
    assert torch.allclose(shallow(x, batch.edge_index_dict, attrs, *numbers)["user"], a, atol=1e-5)
    with pytest.raises(ValueError, match="go together; give both"):
        model(x, batch.edge_index_dict, attrs, numbers[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_channels": 0}, "'hidden_channels' needs to be a positive integer .got 0"),
        ({"num_layers": True}, "'num_layers' needs to be a positive integer .got True"),
        ({"num_layers": 1.5}, "'num_layers' needs to be a positive integer .got 1.5"),
        ({"in_channels": {"user": 3}}, r"'edge_types' names .* without 'in_channels': \['item'\]"),
        ({"out_types": ["week"]}, r"'out_types' names .* without 'in_channels': \['week'\]"),
        ({"dropout": 1.0}, "'dropout' needs to be in"),
    ],
    ids=str,
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    good = {"in_channels": WIDTHS, "edge_types": TYPES, "hidden_channels": 8, "num_layers": 2}
    with pytest.raises(ValueError, match=message):
        SAGEEncoder(**{**good, **change})  # type: ignore[arg-type]


def test_bad_chunks_are_named() -> None:
    x, edges, attrs = whole_graph()
    for wrong in (0, -1, True):
        with pytest.raises(ValueError, match="'batch_size' needs to be a positive integer"):
            encoder().inference(x, edges, attrs, batch_size=wrong)


# ---- inputs ------------------------------------------------------------------------------------


def test_inputs_are_tables_features_or_their_sum() -> None:
    n_id, x = torch.tensor([2, 0, 2]), torch.randn(3, 4)
    table, features, both = NodeInput(5, 3), NodeInput(5, in_channels=4), NodeInput(5, 3, 4)
    assert table.table is not None
    assert torch.equal(table(n_id), table.table[n_id])
    assert torch.equal(table(), table.table)
    assert features.lin is not None
    assert torch.allclose(features(x=x), x @ features.lin.weight.T)
    assert both.table is not None
    assert both.lin is not None
    assert torch.allclose(both(n_id, x), both.table[n_id] + both.lin(x))
    with pytest.raises(ValueError, match="'x' is missing"):
        both(n_id)
    with pytest.raises(ValueError, match="one of 'num_nodes' and 'in_channels'"):
        NodeInput(5)


def test_decays_are_between_one_and_zero_and_fall() -> None:
    ages = torch.tensor([0, 1, 60, 10**9])
    out = decays(ages, (0.2, 60.0))
    assert out.shape == (4, 2)
    assert torch.equal(out[0], torch.ones(2))
    assert torch.allclose(out[:, 1], torch.exp(-ages / 60.0))
    assert float(out[1, 0]) < 0.01
    assert bool((out.diff(dim=0) <= 0).all())


def test_the_store_of_a_graph_feeds_it() -> None:
    """A whole TemporalRecGraph with ratings as edge features, from its own dictionaries."""
    graph = with_reverse(noise_graph())
    for e in graph.edge_types:
        graph[e].edge_attr = torch.rand(graph[e].edge_index.size(1), 1)
    model = SAGEEncoder({"user": 3, "item": 3}, list(graph.edge_types), 4, 2, edge_dim=1)
    x = {t: torch.randn(graph[t].num_nodes, 3) for t in ("user", "item")}
    out = model(x, graph.edge_index_dict, graph.edge_attr_dict)
    assert {t: v.shape for t, v in out.items()} == {"user": (24, 4), "item": (12, 4)}
