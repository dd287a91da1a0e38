"""The sampler in PyG's own loaders, and that its batches are what PyG makes of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader, LinkNeighborLoader, NodeLoader
from torch_geometric.sampler import BaseSampler, NegativeSampling

from tgrec.data import Targets, TemporalRecGraph, reverse_type, with_reverse
from tgrec.loader import link_neighbor_loader
from tgrec.sampler import EventIndex, TemporalNeighborSampler

Check = Callable[[HeteroData, TemporalRecGraph], int]
VIEWS, BUYS, NEXT = ("user", "views", "item"), ("user", "buys", "item"), ("item", "next", "item")
FAN_OUT = {VIEWS: [3, 2], BUYS: [2, 1], NEXT: [1, 1]}
FAN_OUT |= {reverse_type(VIEWS): [3, 2], reverse_type(BUYS): [0, 2]}
ASKED = [
    None,
    NegativeSampling("binary", 1),
    NegativeSampling("binary", 3),
    NegativeSampling("triplet", 1),
    NegativeSampling("triplet", 4),
]
NAMES = ["positives", "binary", "binary-3", "triplet", "triplet-4"]


def sampler_of(graph: TemporalRecGraph, **kwargs: Any) -> TemporalNeighborSampler:
    return TemporalNeighborSampler(EventIndex(graph), FAN_OUT, static=graph, seed=3, **kwargs)


def links(graph: TemporalRecGraph) -> Targets:
    """Late events of one kind, so that every user has something left to be offered."""
    store = graph[VIEWS]
    late = store.event_id > 60
    user, item = store.edge_index[:, late]
    return Targets(user, store.event_id[late], item)


def link_loader(graph: TemporalRecGraph, asked: Any, size: int, **kwargs: Any) -> LinkLoader:
    seeds = links(graph)
    return LinkLoader(
        with_reverse(graph),
        link_sampler=sampler_of(graph),
        edge_label_index=(VIEWS, torch.stack([seeds.user, seeds.item])),
        edge_label_time=seeds.cut,
        neg_sampling=asked,
        batch_size=size,
        **kwargs,
    )


def same(one: HeteroData, two: HeteroData) -> None:
    """All that the first batch holds stands in the second one too."""
    assert one.node_types == two.node_types
    assert one.edge_types == two.edge_types
    for store, other in zip(one.stores, two.stores, strict=True):
        for key, value in store.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other[key]), key
            else:
                assert value == other[key], key


def test_it_is_a_sampler_of_pyg(shop: TemporalRecGraph) -> None:
    sampler = sampler_of(shop)
    assert isinstance(sampler, BaseSampler)
    assert sampler.edge_permutation is None


@pytest.mark.parametrize("node_type", ["user", "item"])
def test_stock_node_loader(shop: TemporalRecGraph, check_batch: Check, node_type: str) -> None:
    ids = torch.arange(10).flip(0)
    cuts = 60 + ids
    loader = NodeLoader(
        with_reverse(shop),
        node_sampler=sampler_of(shop),
        input_nodes=(node_type, ids),
        input_time=cuts,
        batch_size=4,
    )
    edges = 0
    for first, batch in zip(range(0, 10, 4), loader, strict=True):
        wanted = ids[first : first + 4]
        store = batch[node_type]
        assert store.batch_size == len(wanted)
        assert torch.equal(store.n_id[: len(wanted)], wanted)
        assert torch.equal(store.seed_time, cuts[first : first + 4])
        assert torch.equal(ids[store.input_id], wanted)
        assert torch.equal(store.batch[: len(wanted)], torch.arange(len(wanted)))
        assert store.num_sampled_nodes[0] == len(wanted)
        edges += check_batch(batch, shop)
        for edge_type in (VIEWS, BUYS):
            for t in (edge_type, reverse_type(edge_type)):
                owner = batch[t[0]].batch[batch[t].edge_index[0]]
                assert (batch[t].event_id < store.seed_time[owner]).all()
    assert edges > 40


@pytest.mark.parametrize("asked", ASKED, ids=NAMES)
def test_stock_link_loader(shop: TemporalRecGraph, check_batch: Check, asked: Any) -> None:
    seeds, edges = links(shop), 0
    loader = link_loader(shop, asked, size=16)
    for batch in loader:
        edges += check_batch(batch, shop)
        store, user, item = batch[VIEWS], batch["user"].n_id, batch["item"].n_id
        rows = store.input_id
        size = rows.numel()
        assert torch.equal(user[:size], seeds.user[rows])
        assert torch.equal(item[:size], seeds.item[rows])
        assert torch.equal(batch["user"].batch[:size], torch.arange(size))
        assert batch["user"].num_sampled_nodes[0] == size
        negatives = size * (int(asked.amount) if asked else 0)
        assert batch["item"].num_sampled_nodes[0] == size + negatives
        if asked is not None and asked.is_triplet():
            assert torch.equal(user[batch["user"].src_index], seeds.user[rows])
            assert torch.equal(item[batch["item"].dst_pos_index], seeds.item[rows])
            local = batch["item"].dst_neg_index
            assert local.shape == ((size,) if asked.amount == 1 else (size, int(asked.amount)))
            owner = batch["item"].batch[local].view(size, -1)
            assert (owner == torch.arange(size).unsqueeze(1)).all()
            drawn = item[local].view(size, -1)
            assert torch.equal(batch["user"].seed_time, seeds.cut[rows])
        else:
            left, right = store.edge_label_index
            assert torch.equal(user[left[:size]], seeds.user[rows])
            assert torch.equal(item[right[:size]], seeds.item[rows])
            assert torch.equal(store.edge_label_time, seeds.cut[rows][left])
            assert torch.equal(batch["item"].batch[right], left)
            if asked is None:
                assert "edge_label" not in store
                continue
            assert store.edge_label.tolist() == [1.0] * size + [0.0] * negatives
            drawn = item[right[size:]].view(size, -1)
            assert torch.equal(left[size:].view(size, -1)[:, 0], torch.arange(size))
        wanted = loader.link_sampler.negatives.sample(
            seeds.user[rows], seeds.cut[rows], int(asked.amount), seeds.item[rows], seed=3
        )
        assert torch.equal(drawn, wanted)
    assert edges > 500


def test_labels_are_handed_through(shop: TemporalRecGraph) -> None:
    seeds = links(shop)
    label = torch.arange(len(seeds)) % 4  # PyG counts them up by one where 0 occurs
    rating = torch.rand(len(seeds), 2)
    for given, wanted in ((label, label + 1), (rating, rating)):
        for batch in link_loader(shop, ASKED[2], size=16, edge_label=given):
            store = batch[VIEWS]
            size = store.input_id.numel()
            assert store.edge_label.dtype == given.dtype
            assert torch.equal(store.edge_label[:size], wanted[store.input_id])
            assert not store.edge_label[size:].any()
            assert store.edge_label.size(0) == 4 * size
        for batch in link_loader(shop, None, size=16, edge_label=given):
            assert torch.equal(batch[VIEWS].edge_label, given[batch[VIEWS].input_id])


@pytest.mark.parametrize("asked", ASKED, ids=NAMES)
def test_stock_link_neighbor_loader(shop: TemporalRecGraph, asked: Any) -> None:
    seeds = links(shop)
    loader = LinkNeighborLoader(
        with_reverse(shop),
        num_neighbors=[1],  # PyG looks at neither, given a sampler
        neighbor_sampler=sampler_of(shop),
        edge_label_index=(VIEWS, torch.stack([seeds.user, seeds.item])),
        edge_label_time=seeds.cut,
        time_attr="time",
        neg_sampling=asked,
        batch_size=16,
    )
    for one, two in zip(loader, link_loader(shop, asked, size=16), strict=True):
        same(one, two)


@pytest.mark.parametrize("strategy", ["last", "uniform"])
@pytest.mark.parametrize("asked", ASKED, ids=NAMES)
def test_our_loader_makes_the_batches_of_pyg(
    shop: TemporalRecGraph, check_batch: Check, asked: Any, strategy: str
) -> None:
    ours = link_neighbor_loader(
        shop,
        num_neighbors=FAN_OUT,
        relation="views",
        seeds=links(shop),
        neg_sampling=None if asked is None else asked.mode.value,
        num_negatives=1 if asked is None else int(asked.amount),
        strategy=strategy,
        batch_size=16,
        shuffle=False,
        seed=3,
    )
    assert ours.num_dropped == 0
    stock = link_loader(shop, asked, size=16)
    stock.link_sampler = sampler_of(shop, strategy=strategy)
    for epoch in range(2):
        stock.link_sampler.set_epoch(epoch)
        for one, two in zip(stock, ours, strict=True):
            same(one, two)
            check_batch(two, shop)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forks beside threads
def test_worker_processes_draw_the_same(shop: TemporalRecGraph) -> None:
    one = link_loader(shop, ASKED[1], size=32)
    two = link_loader(shop, ASKED[1], size=32, num_workers=1)
    for a, b in zip(one, two, strict=True):
        same(a, b)


class OnCuda(EventIndex):
    """An index that says it lives on a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


def test_worker_processes_cannot_use_a_gpu(
    shop: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = sampler_of(shop)
    sampler.index = OnCuda(shop, "cpu")
    monkeypatch.setattr("tgrec.sampler.neighbor.get_worker_info", lambda: object())
    seeds = links(shop)
    loader = LinkLoader(
        with_reverse(shop),
        link_sampler=sampler,
        edge_label_index=(VIEWS, torch.stack([seeds.user, seeds.item])),
        edge_label_time=seeds.cut,
    )
    with pytest.raises(ValueError, match="'num_workers' needs to be 0 with an index on CUDA"):
        loader([0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_label_time": None}, "'edge_label_time' is missing: it holds the cut"),
        ({"edge_label_time": torch.tensor([1.0])}, "'edge_label_time' needs to hold cuts as int64"),
        (
            {"edge_label_index": (reverse_type(VIEWS), torch.tensor([[0], [0]]))},
            r"'edge_label_index' needs a type \('user', r, 'item'\) \(got \('item', 'rev_views'",
        ),
        ({"edge_label_index": (VIEWS, torch.tensor([[30], [0]]))}, "'user' needs to be in 0..29"),
        ({"edge_label_index": (VIEWS, torch.tensor([[0], [12]]))}, "'item' needs to be in 0..11"),
        ({"neg_sampling": NegativeSampling("binary", 0.5)}, "'neg_sampling' needs a whole number"),
        (
            {"neg_sampling": NegativeSampling("binary", 1, dst_weight=torch.ones(12))},
            "'neg_sampling' has weights; use NegativeSampler",
        ),
        (
            {"neg_sampling": "triplet", "edge_label_time": torch.tensor([0])},
            "'neg_sampling': no item is left as a negative for user 0 at cut 0",
        ),
    ],
)
def test_bad_links_are_explained(
    shop: TemporalRecGraph, change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {
        "edge_label_index": (VIEWS, torch.tensor([[0], [0]])),
        "edge_label_time": torch.tensor([50]),
    }
    loader = LinkLoader(with_reverse(shop), link_sampler=sampler_of(shop), **arguments | change)
    with pytest.raises(ValueError, match=message):
        next(iter(loader))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_time": None}, "'input_time' is missing: it holds the cut"),
        ({"input_time": torch.tensor([1.0])}, "'input_time' needs to hold cuts as int64"),
        ({"input_nodes": ("genre", torch.tensor([0]))}, "'input_nodes' needs to be of type"),
        ({"input_nodes": ("item", torch.tensor([12]))}, "'item' needs to be in 0..11"),
    ],
)
def test_bad_nodes_are_explained(
    shop: TemporalRecGraph, change: dict[str, Any], message: str
) -> None:
    shop["genre"].num_nodes = 2
    arguments = {"input_nodes": ("user", torch.tensor([0])), "input_time": torch.tensor([50])}
    loader = NodeLoader(with_reverse(shop), node_sampler=sampler_of(shop), **arguments | change)
    with pytest.raises(ValueError, match=message):
        next(iter(loader))
