"""PyG's samplers behind our loader: what they draw, and what they are refused for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.typing as pyg
from torch_geometric.data import HeteroData
from torch_geometric.loader import NodeLoader
from torch_geometric.sampler import HeteroSamplerOutput, NeighborSampler, NodeSamplerInput

from tgrec.data import Targets, TemporalRecGraph, reverse_type, with_reverse
from tgrec.loader import TemporalLinkLoader, backends, link_neighbor_loader
from tgrec.loader.backends import StockNeighborSampler
from tgrec.sampler import EventIndex, NegativeSampler

Check = Callable[[HeteroData, TemporalRecGraph], int]
VIEWS, BUYS, NEXT = ("user", "views", "item"), ("user", "buys", "item"), ("item", "next", "item")
KINDS = [t for kind in (VIEWS, BUYS) for t in (kind, reverse_type(kind))]

torch_sparse = pytest.mark.skipif(
    pyg.WITH_PYG_LIB or not pyg.WITH_TORCH_SPARSE,
    reason="needs torch-sparse installed, and no pyg-lib, which PyG would use instead",
)
pyg_lib = pytest.mark.skipif(not pyg.WITH_PYG_LIB, reason="needs pyg-lib, which is not installed")
# PyG says of its own sampler that it would rather have pyg-lib.
pytestmark = pytest.mark.filterwarnings("ignore:Using 'NeighborSampler' without:UserWarning")


def make(graph: TemporalRecGraph, backend: str, **kwargs: Any) -> TemporalLinkLoader:
    arguments: dict[str, Any] = {"num_neighbors": [-1, -1], "relation": "views", "batch_size": 8}
    return link_neighbor_loader(graph, backend=backend, **arguments | kwargs)  # type: ignore[arg-type]


def late(graph: TemporalRecGraph) -> Targets:
    """Pairs to be asked for after all events of the graph."""
    user, item = torch.arange(24) % 30, torch.arange(24) % 12
    return Targets(user, torch.full_like(user, graph.num_events), item)


def seeds_of(batch: HeteroData, asked: str | None) -> list[Any]:
    """The links of a batch as (user, item, label) or (user, item, negatives), and their cuts."""
    user, item, store = batch["user"].n_id, batch["item"].n_id, batch[VIEWS]
    if asked == "triplet":
        parts = [
            user[batch["user"].src_index],
            item[batch["item"].dst_pos_index],
            item[batch["item"].dst_neg_index],
            batch["user"].seed_time,
        ]
    else:
        left, right = store.edge_label_index
        parts = [user[left], item[right], store.edge_label_time]
        parts += [] if asked is None else [store.edge_label]
    return [p.tolist() for p in [store.input_id, *parts]]


def edges_of(batch: HeteroData, trees: bool) -> dict[Any, set[Any]]:
    """The edges of each type, as a set over the batch or, with trees, link by link."""
    found: dict[Any, set[Any]] = {}
    for t in KINDS:
        owner = batch[t[0]].batch[batch[t].edge_index[0]].tolist() if trees else [0] * 10**6
        found[t] = set(zip(owner, batch[t].e_id.tolist(), strict=trees))
    return found


# ---- torch-sparse -------------------------------------------------------------------------------


@torch_sparse
@pytest.mark.parametrize("asked", ["binary", "triplet", None])
@pytest.mark.parametrize("num", [1, 3])
def test_torch_sparse_sees_what_we_see_on_a_cut_graph(
    shop: TemporalRecGraph, check_batch: Check, asked: Any, num: int
) -> None:
    graph = shop.before(100)
    options: dict[str, Any] = {
        "seeds": late(graph),
        "neg_sampling": asked,
        "num_negatives": num,
        "strategy": "uniform",
    }
    edges = 0
    loaders = [make(graph, name, **options) for name in ("tgrec", "torch-sparse")]
    for _ in range(2):  # epochs
        for ours, theirs in zip(*loaders, strict=True):
            assert seeds_of(ours, asked) == seeds_of(theirs, asked)
            assert edges_of(ours, False) == edges_of(theirs, False)
            for t in ("user", "item"):
                assert set(ours[t].n_id.tolist()) == set(theirs[t].n_id.tolist())
                assert torch.equal(theirs[t].x, graph[t].x[theirs[t].n_id])
            edges += check_batch(theirs, graph)
    assert edges > 1000


@torch_sparse
def test_torch_sparse_walks_only_what_was_asked_for(shop: TemporalRecGraph) -> None:
    graph = shop.before(100)
    graph[NEXT].edge_index = shop[NEXT].edge_index  # there, and not asked for
    fan_out = {reverse_type(BUYS): [3, 0], VIEWS: [0, 2]}
    loader = make(
        graph, "torch-sparse", num_neighbors=fan_out, strategy="uniform", seeds=late(graph)
    )
    found = {t: sum(b[t].e_id.numel() for b in loader) for t in [*KINDS, NEXT]}
    assert {t for t, n in found.items() if n} == set(fan_out)


@torch_sparse
def test_torch_sparse_is_refused_on_a_graph_with_a_future(shop: TemporalRecGraph) -> None:
    message = (
        "'backend': torch-sparse cannot sample in time, and seeds with cuts from .* must not see "
        "events .*graph.before"
    )
    with pytest.raises(ValueError, match=message):
        make(shop, "torch-sparse", strategy="uniform")
    one_short = late(shop)
    one_short.cut[3] -= 1
    with pytest.raises(ValueError, match=message):
        make(shop, "torch-sparse", strategy="uniform", seeds=one_short)
    make(shop, "torch-sparse", strategy="uniform", seeds=late(shop))


@torch_sparse
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "last"}, "'strategy': torch-sparse knows no time, only 'uniform' draws"),
        ({"strategy": "first"}, "'strategy' needs to be one of"),
        ({"hop_time": "edge"}, "'hop_time': torch-sparse cannot do this; use backend='tgrec'"),
        ({"window": 60}, "'window': torch-sparse cannot do this; use backend='tgrec'"),
        ({"num_neighbors": {NEXT: [2]}}, "'num_neighbors' names the unknown edge type"),
        ({"num_neighbors": [0]}, "'num_neighbors' draws nothing in hop 1"),
        ({"num_neighbors": [-2]}, "'num_neighbors' needs integers of at least 0"),
        ({"num_neighbors": 3}, "'num_neighbors' needs a list"),
    ],
)
def test_what_torch_sparse_cannot_do_is_said(
    shop: TemporalRecGraph, change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"strategy": "uniform", "seeds": late(shop)}
    with pytest.raises(ValueError, match=message):
        make(shop, "torch-sparse", **arguments | change)


# ---- pyg-lib ------------------------------------------------------------------------------------


@pyg_lib
@pytest.mark.parametrize("asked", ["binary", "triplet", None])
@pytest.mark.parametrize("size", [1, 3, -1])
def test_pyg_lib_draws_what_we_draw(
    shop: TemporalRecGraph, check_batch: Check, asked: Any, size: int
) -> None:
    compare_with_pyg_lib(shop, check_batch, asked, size)


class FakePygLib(NeighborSampler):
    """PyG's sampler with the kernel of pyg-lib replaced by loops over all edges.

    PyG's own code around the kernel is what runs: it hands over seeds with times, and makes the
    metadata. As in pyg-lib, an edge is visible if its time is at most that of the seed, and a
    node stands once in the tree of a seed.
    """

    def __init__(self, data: HeteroData, num_neighbors: Any, **options: Any) -> None:
        assert options == {
            "replace": False,
            "disjoint": True,
            "temporal_strategy": "last",
            "time_attr": "event_id",
        }
        assert all("event_id" in store for store in data.edge_stores)  # else there is no limit
        assert set(num_neighbors) == set(data.edge_types)
        self.data, self.sizes = data, num_neighbors
        self.num_nodes, self.node_time = {t: data[t].num_nodes for t in data.node_types}, None
        self.subgraph_type, self.perm = None, None
        self._disjoint, self.edge_time = True, True

    def _sample(self, seed: Any, seed_time: Any = None, **kwargs: Any) -> HeteroSamplerOutput:
        node = {t: seed[t].tolist() if t in seed else [] for t in ("user", "item")}
        first = {"user": 0, "item": len(node["user"])}  # trees are numbered over both types
        batch = {t: [first[t] + k for k in range(len(n))] for t, n in node.items()}
        time = [x for t in ("user", "item") if t in seed for x in seed_time[t].tolist()]
        pairs = {t: zip(batch[t], node[t], strict=True) for t in node}
        there = {t: {pair: k for k, pair in enumerate(pairs[t])} for t in node}
        row, col, edge = ({t: [] for t in self.sizes} for _ in range(3))
        begin = dict.fromkeys(node, 0)
        for hop in range(len(next(iter(self.sizes.values())))):
            end = {t: len(n) for t, n in node.items()}
            for t, sizes in self.sizes.items():
                source, _, target = t
                ends, ids = self.data[t].edge_index.tolist(), self.data[t].event_id.tolist()
                for local in range(begin[target], end[target]):
                    tree = batch[target][local]
                    seen = [
                        e
                        for e in range(len(ids))
                        if ends[1][e] == node[target][local] and ids[e] <= time[tree]
                    ]
                    for e in seen if sizes[hop] < 0 else seen[max(len(seen) - sizes[hop], 0) :]:
                        if (pair := (tree, ends[0][e])) not in there[source]:
                            there[source][pair] = len(node[source])
                            node[source].append(ends[0][e])
                            batch[source].append(tree)
                        row[t].append(there[source][pair])
                        col[t].append(local)
                        edge[t].append(e)
            begin = end
        parts = ({k: torch.tensor(v).long() for k, v in d.items()} for d in (node, row, col, edge))
        owners = {t: torch.tensor(b).long() for t, b in batch.items()}
        return HeteroSamplerOutput(*parts, batch=owners)


def compare_with_pyg_lib(graph: TemporalRecGraph, check: Check, asked: Any, size: int) -> None:
    """Hop after hop of one size: a node that is met again then adds no edges to its tree."""
    options: dict[str, Any] = {
        "num_neighbors": [size, size],
        "neg_sampling": asked,
        "num_negatives": 2,
        "batch_size": 32,
    }
    edges = 0
    ours, theirs = (make(graph, name, **options) for name in ("tgrec", "pyg-lib"))
    for one, two in zip(ours, theirs, strict=True):
        # Users stand once with us, and once per pair in PyG.
        assert seeds_of(one, asked) == seeds_of(two, asked)
        assert edges_of(one, True) == edges_of(two, True)
        edges += check(two, graph)
    assert edges > 300


@pytest.mark.parametrize("asked", ["binary", "triplet", None])
@pytest.mark.parametrize("size", [1, 3, -1])
def test_the_adapter_says_what_is_before_a_cut(
    shop: TemporalRecGraph,
    check_batch: Check,
    monkeypatch: pytest.MonkeyPatch,
    asked: Any,
    size: int,
) -> None:
    monkeypatch.setattr(pyg, "WITH_PYG_LIB", True)
    monkeypatch.setattr(backends, "NeighborSampler", FakePygLib)
    compare_with_pyg_lib(shop, check_batch, asked, size)


def test_an_adapter_that_forgot_the_minus_one_would_be_noticed(
    shop: TemporalRecGraph, check_batch: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(FakePygLib):
        def _sample(self, seed: Any, seed_time: Any = None, **kwargs: Any) -> HeteroSamplerOutput:
            return super()._sample(seed, {t: x + 1 for t, x in seed_time.items()})

    monkeypatch.setattr(pyg, "WITH_PYG_LIB", True)
    monkeypatch.setattr(backends, "NeighborSampler", Late)
    with pytest.raises(AssertionError):
        compare_with_pyg_lib(shop, check_batch, "binary", 3)


def test_nodes_through_the_adapter(shop: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyg, "WITH_PYG_LIB", True)
    monkeypatch.setattr(backends, "NeighborSampler", FakePygLib)
    sampler = make(shop, "pyg-lib").link_sampler
    assert isinstance(sampler, StockNeighborSampler)
    assert sampler.temporal
    user, cut = torch.arange(12), torch.arange(12) * 10
    loader = NodeLoader(
        with_reverse(shop),
        node_sampler=sampler,
        input_nodes=("user", user),
        input_time=cut,
        batch_size=12,
    )
    (batch,) = loader
    assert torch.equal(batch["user"].seed_time, cut)  # cuts, not what PyG was told
    assert torch.equal(batch["user"].input_id, user)
    for t in KINDS:
        owner = batch[t[0]].batch[batch[t].edge_index[0]]
        assert (batch[t].event_id < cut[owner]).all()
    with pytest.raises(ValueError, match="'input_time' is missing"):
        sampler.sample_from_nodes(NodeSamplerInput(user, user, None, "user"))


# ---- whatever is installed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "flag"), [("pyg-lib", "WITH_PYG_LIB"), ("torch-sparse", "WITH_TORCH_SPARSE")]
)
def test_what_is_not_installed_is_said(
    shop: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch, backend: str, flag: str
) -> None:
    monkeypatch.setattr(pyg, flag, False)
    with pytest.raises(ValueError, match=f"'backend': {backend} is not installed; 'tgrec doctor'"):
        make(shop, backend, strategy="uniform", seeds=late(shop))


def test_where_both_are_installed_pyg_would_take_pyg_lib(
    shop: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyg, "WITH_PYG_LIB", True)
    monkeypatch.setattr(pyg, "WITH_TORCH_SPARSE", True)
    with pytest.raises(ValueError, match="'backend': where both are installed PyG uses pyg-lib"):
        make(shop, "torch-sparse", strategy="uniform", seeds=late(shop))


@pytest.mark.parametrize("backend", ["pyg-lib", "torch-sparse"])
def test_stock_samplers_stay_on_the_cpu(
    shop: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    class OnCuda(EventIndex):
        """An index that says it lives on a GPU."""

        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    monkeypatch.setattr(pyg, "WITH_PYG_LIB", backend == "pyg-lib")
    monkeypatch.setattr(pyg, "WITH_TORCH_SPARSE", backend == "torch-sparse")
    index = OnCuda(shop, "cpu")
    with pytest.raises(ValueError, match=f"'backend': {backend} samples on the CPU; .* on cuda"):
        backends.stock_sampler(
            with_reverse(shop),
            index,
            [2],
            "uniform",
            False,
            {},
            late(shop),
            NegativeSampler(EventIndex(shop)),
            0,
            backend,
        )


def test_auto_is_ours(shop: TemporalRecGraph) -> None:
    one, two = (make(shop, name).link_sampler for name in ("auto", "tgrec"))
    assert type(one) is type(two)
    assert type(one).__name__ == "TemporalNeighborSampler"
