"""Our own loader of links: epochs, seeds, what is dropped, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_geometric.data import HeteroData

from tgrec.data import Targets, TemporalRecGraph, reverse_type
from tgrec.loader import TemporalLinkLoader, link_neighbor_loader
from tgrec.sampler import EventIndex, NegativeSampler
from tgrec.testing import toy_graph

Check = Callable[[HeteroData, TemporalRecGraph], int]
VIEWS, BUYS, NEXT = ("user", "views", "item"), ("user", "buys", "item"), ("item", "next", "item")


def make(graph: TemporalRecGraph, **kwargs: Any) -> TemporalLinkLoader:
    arguments: dict[str, Any] = {"num_neighbors": [3, 2], "relation": "views", "batch_size": 16}
    return link_neighbor_loader(graph, **arguments | kwargs)


def content(loader: TemporalLinkLoader) -> list[list[Any]]:
    """One epoch as numbers: which links, which negatives, which edges."""
    out = []
    for batch in loader:
        store = batch[loader.input_data.input_type]
        edges = [s.e_id.tolist() for s in batch.edge_stores]
        out.append([store.input_id.tolist(), batch["item"].n_id.tolist(), edges])
    return out


def order(loader: TemporalLinkLoader) -> list[int]:
    return [k for batch in content(loader) for k in batch[0]]


# ---- which links, and in which order ------------------------------------------------------------


@pytest.mark.parametrize("asked", ["binary", "triplet", None])
def test_every_event_is_a_link_at_its_own_cut(
    shop: TemporalRecGraph, check_batch: Check, asked: Any
) -> None:
    loader = make(shop, neg_sampling=asked)
    store, seen = shop[VIEWS], []
    for batch in loader:
        check_batch(batch, shop)
        rows = batch[VIEWS].input_id
        seen += rows.tolist()
        cut = batch["user"].seed_time if asked == "triplet" else batch[VIEWS].edge_label_time
        assert torch.equal(cut[: len(rows)], store.event_id[rows])
        assert torch.equal(batch["user"].n_id[: len(rows)], store.edge_index[0, rows])
        assert torch.equal(batch["item"].n_id[: len(rows)], store.edge_index[1, rows])
        for kind in (VIEWS, BUYS):
            for t in (kind, reverse_type(kind)):
                owner = batch[t[0]].batch[batch[t].edge_index[0]]
                assert (batch[t].event_id < store.event_id[rows][owner]).all()
    assert len(seen) == len(set(seen)) == store.event_id.numel() - loader.num_dropped
    assert (loader.num_dropped > 0) == (asked is not None)


def test_links_without_a_negative_are_left_out() -> None:
    graph = toy_graph()
    loader = link_neighbor_loader(graph, num_neighbors=[2], shuffle=False, batch_size=5)
    kept = order(loader)
    assert loader.num_dropped == 12 - len(kept)
    user, item = graph["user", "rates", "item"].edge_index.tolist()
    for event in range(12):
        met = {item[e] for e in range(event) if user[e] == user[event]}
        others = {item[e] for e in range(event)} - met - {item[event]}
        assert (event in kept) == bool(others)
    assert 0 < len(kept) < 12


@pytest.mark.parametrize("size", [1, 7, 16, 1000])
@pytest.mark.parametrize("drop_last", [False, True])
def test_length(shop: TemporalRecGraph, size: int, drop_last: bool) -> None:
    loader = make(shop, batch_size=size, drop_last=drop_last)
    links = shop[VIEWS].event_id.numel() - loader.num_dropped
    sizes = [len(batch[0]) for batch in content(loader)]
    assert len(loader) == len(sizes)
    assert sum(sizes) == (links // size * size if drop_last else links)
    assert set(sizes[:-1]) <= {size}


def test_epochs_are_functions_of_seed_and_number(shop: TemporalRecGraph) -> None:
    for strategy in ("last", "uniform"):
        loader = make(shop, strategy=strategy, seed=1)
        first, second = content(loader), content(loader)
        assert loader.epoch == 2
        assert order(make(shop, seed=1)) == [k for b in first for k in b[0]]
        assert [b[0] for b in first] != [b[0] for b in second]
        assert sorted(k for b in first for k in b[0]) == sorted(k for b in second for k in b[0])
        again = make(shop, strategy=strategy, seed=1)
        again.epoch = 1  # as a resumed run would
        assert content(again) == second
        assert content(make(shop, strategy=strategy, seed=2)) != first


def test_without_shuffling_the_order_is_that_of_the_log(shop: TemporalRecGraph) -> None:
    loader = make(shop, shuffle=False, strategy="uniform")
    one, two = content(loader), content(loader)
    rows = [k for b in one for k in b[0]]
    assert rows == sorted(rows) == [k for b in two for k in b[0]]
    assert [b[1] for b in one] != [b[1] for b in two]  # other negatives and neighbours


def test_two_iterations_at_a_time_do_not_disturb_each_other(shop: TemporalRecGraph) -> None:
    alone = make(shop, strategy="uniform")
    epochs = [content(alone), content(alone)]
    both = make(shop, strategy="uniform")
    pairs = list(zip(both, both, strict=True))
    for k in range(2):
        found = [[p[k][VIEWS].input_id.tolist(), p[k]["item"].n_id.tolist()] for p in pairs]
        assert found == [b[:2] for b in epochs[k]]


def test_a_batch_keeps_its_values_while_others_are_made(
    shop: TemporalRecGraph, check_batch: Check
) -> None:
    for batch in list(make(shop, batch_size=4)):
        check_batch(batch, shop)


def test_seeds_of_ones_own(shop: TemporalRecGraph) -> None:
    user, item = torch.tensor([4, 4, 29, 0]), torch.tensor([1, 2, 11, 0])
    cut = torch.tensor([70, 5, shop.num_events + 50, 0])  # beyond the end, and before everything
    seeds = Targets(user, cut, item)
    loader = make(shop, seeds=seeds, shuffle=False, batch_size=3)
    (batch,) = loader
    assert loader.num_dropped == 1  # nothing there at cut 0
    rows = batch[VIEWS].input_id
    assert rows.tolist() == [0, 1, 2]  # rows of the seeds, whatever was dropped
    assert torch.equal(batch["user"].n_id[:3], user[:3])
    late = Targets(user.flip(0), cut.flip(0), item.flip(0))
    (batch,) = make(shop, seeds=late, shuffle=False, batch_size=3)
    assert batch[VIEWS].input_id.tolist() == [1, 2, 3]
    # Without negatives the first events of all are links as well, without any past.
    (batch,) = make(shop, seeds=seeds.select(torch.tensor([3])), neg_sampling=None)
    assert batch["user"].n_id.tolist() == [0]
    assert batch["user"].x.shape == (1, 6)
    assert batch["item"].n_id.tolist() == [0]
    assert all(s.edge_index.shape == (2, 0) for s in batch.edge_stores)
    none = seeds.select(torch.zeros(0, dtype=torch.int64))
    assert len(make(shop, seeds=none)) == 0
    assert list(make(shop, seeds=none)) == []
    assert list(make(shop, seeds=none, shuffle=False)) == []


def test_derived_types_and_single_directions(shop: TemporalRecGraph, check_batch: Check) -> None:
    fan_out = {BUYS: [0, 2], reverse_type(VIEWS): [4, 0], NEXT: [2, 2]}
    edges = dict.fromkeys(fan_out, 0)
    for batch in make(shop, num_neighbors=fan_out, relation="buys"):
        check_batch(batch, shop)
        for t in batch.edge_types:
            if t in fan_out:
                assert batch[t].num_sampled_edges[1] <= batch[t].e_id.numel()
                edges[t] += batch[t].e_id.numel()
            else:
                assert batch[t].e_id.numel() == 0
    assert min(edges.values()) > 50


def test_popular_negatives_and_ones_own(shop: TemporalRecGraph) -> None:
    index = EventIndex(shop)
    for negatives in ("popularity", NegativeSampler(index, "popularity")):
        loader = make(shop, index=index, negatives=negatives, shuffle=False, num_negatives=2)
        batch = next(iter(loader))
        store = batch[VIEWS]
        size = store.input_id.numel()
        drawn = batch["item"].n_id[store.edge_label_index[1, size:]].view(size, 2)
        rows = store.input_id
        edges = shop[VIEWS].edge_index[:, rows]
        cut = shop[VIEWS].event_id[rows]
        wanted = NegativeSampler(index, "popularity").sample(edges[0], cut, 2, edges[1])
        assert torch.equal(drawn, wanted)


def test_transforms_are_applied_once(shop: TemporalRecGraph) -> None:
    calls = []

    def mark(batch: HeteroData) -> HeteroData:
        calls.append(batch["user"].x.shape)
        batch.marked = True
        return batch

    loader = make(shop, transform=mark)
    assert all(batch.marked for batch in loader)
    assert len(calls) == len(loader)


def test_the_graph_is_not_changed(shop: TemporalRecGraph) -> None:
    before = shop.clone()
    list(make(shop))
    assert shop.edge_types == before.edge_types
    for store, old in zip(shop.stores, before.stores, strict=True):
        assert list(store.keys()) == list(old.keys())
        assert all(torch.equal(v, old[k]) for k, v in store.items() if torch.is_tensor(v))


def test_data_without_times(shop: TemporalRecGraph, check_batch: Check) -> None:
    for kind in (VIEWS, BUYS):
        del shop[kind].time
    for batch in make(shop):
        check_batch(batch, shop)
    with pytest.raises(ValueError, match="'window' needs event times"):
        make(shop, window=60)


# ---- bad input ----------------------------------------------------------------------------------


def other_events(graph: TemporalRecGraph) -> TemporalRecGraph:
    other = graph.clone()
    other[VIEWS].edge_index = other[VIEWS].edge_index.roll(1, dims=1)
    return other


SEED = Targets(torch.tensor([1]), torch.tensor([50]), torch.tensor([2]))
BAD: list[tuple[dict[str, Any], str]] = [
    ({"relation": "rents"}, r"'relation' needs to be one of \['views', 'buys'\] \(got 'rents'\)"),
    ({"relation": None}, r"'relation' needs to name one of \['views', 'buys'\]"),
    ({"num_neighbors": [0, 0]}, "'num_neighbors' draws nothing in hop 1"),
    ({"num_neighbors": [2, 0]}, "'num_neighbors' draws nothing in hop 2"),
    ({"num_neighbors": [2, -3]}, "'num_neighbors' needs integers of at least 0, or -1"),
    ({"num_neighbors": [True]}, "'num_neighbors' needs integers"),
    ({"num_neighbors": [2.0]}, "'num_neighbors' needs integers"),
    ({"num_neighbors": []}, "'num_neighbors' needs one number per hop"),
    ({"num_neighbors": 5}, "'num_neighbors' needs a list"),
    ({"num_neighbors": {VIEWS: [1], BUYS: [1, 2]}}, "'num_neighbors' needs one number per hop"),
    ({"num_neighbors": {("user", "rents", "item"): [1]}}, "'num_neighbors' names the unknown"),
    ({"num_neighbors": {("item", "near", "item"): [1]}}, "'num_neighbors' names the unknown"),
    ({"seeds": Targets(SEED.user, SEED.cut.float(), SEED.item)}, "'cut' needs to be int64.*float"),
    ({"seeds": Targets(SEED.user, SEED.cut[:0], SEED.item)}, "'cut' needs to be int64 of shape"),
    ({"seeds": Targets(SEED.user + 29, SEED.cut, SEED.item)}, r"'user' needs to be in 0..29"),
    ({"seeds": Targets(SEED.user - 2, SEED.cut, SEED.item)}, r"'user' .*0..29 \(got -1..-1\)"),
    ({"seeds": Targets(SEED.user, SEED.cut, SEED.item + 10)}, r"'item' needs to be in 0..11"),
    ({"seeds": torch.tensor([1])}, r"'seeds' needs to be Targets\(user, cut, item\)"),
    ({"neg_sampling": "pairs"}, "'neg_sampling' needs to be 'binary', 'triplet' or None"),
    ({"num_negatives": 0}, r"'num_negatives' needs to be a positive integer \(got 0\)"),
    ({"num_negatives": 1.5}, r"'num_negatives' needs to be a positive integer \(got 1.5\)"),
    ({"num_negatives": True}, "'num_negatives' needs to be a positive integer"),
    ({"negatives": "zipf"}, "'negatives' needs to be 'uniform', 'popularity' or a NegativeSampler"),
    ({"strategy": "first"}, "'strategy' needs to be one of"),
    ({"replace": True}, "'replace' needs strategy 'uniform'"),
    ({"hop_time": "node"}, "'hop_time' needs to be one of"),
    ({"window": (5, 4)}, "'window' needs to be .start, end.*start before end"),
    ({"window": 0}, "'window' needs to be a positive number of seconds"),
    ({"window": -60}, "'window' needs to be a positive number of seconds"),
    ({"batch_size": 0}, r"'batch_size' needs to be a positive integer \(got 0\)"),
    ({"batch_size": -1}, "'batch_size' needs to be a positive integer"),
    ({"batch_size": 2.5}, "'batch_size' needs to be a positive integer"),
    ({"batch_size": None}, "'batch_size' needs to be a positive integer"),
    (
        {"backend": "dgl"},
        "'backend' needs to be one of .*'tgrec', 'pyg-lib', 'torch-sparse'.*'dgl'",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_explained(
    shop: TemporalRecGraph, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(shop, **change)


def test_an_index_of_another_graph_is_refused(shop: TemporalRecGraph) -> None:
    others = {
        "fewer events": shop.before(50),
        "another kind": toy_graph(),
        "other edges at the same ids": other_events(shop),
        "more items": shop.clone(),
        "other ids": shop.clone(),
    }
    others["more items"]["item"].num_nodes = 13
    for kind in (VIEWS, BUYS):
        others["other ids"][kind].event_id = others["other ids"][kind].event_id + 1
    for other in others.values():
        with pytest.raises(ValueError, match="'index' holds .* build the index from this graph"):
            make(shop, index=EventIndex(other))
        if other.num_items != shop.num_items:
            with pytest.raises(ValueError, match="'negatives' draws for .* users"):
                make(shop, negatives=NegativeSampler(EventIndex(other)))
    make(shop, index=EventIndex(shop.clone()))  # another index of the same events is fine


def test_triplets_without_a_negative_name_their_link(shop: TemporalRecGraph) -> None:
    """The loader leaves such links out; whoever calls the sampler gets told."""
    loader = make(shop, neg_sampling="triplet")
    loader.input_data.time = torch.zeros_like(loader.input_data.time)
    with pytest.raises(ValueError, match="'neg_sampling': no item is left .* at cut 0"):
        next(iter(loader))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("asked", ["binary", "triplet", None])
def test_the_same_on_a_gpu(shop: TemporalRecGraph, asked: Any, where: str) -> None:
    """With the graph on the device as well, and with its features left behind."""
    index = EventIndex(shop, "cuda")
    arguments: dict[str, Any] = {"neg_sampling": asked, "strategy": "uniform", "num_negatives": 2}
    there = make(shop.clone().to(where), index=index, **arguments)
    for one, two in zip(make(shop, **arguments), there, strict=True):
        assert two["user"].n_id.device.type == "cuda"
        assert two["user"].x.device.type == where
        for store, other in zip(one.stores, two.stores, strict=True):
            for key, value in store.items():
                if torch.is_tensor(value):
                    assert torch.equal(value, other[key].cpu()), key


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.cuda
def test_unknown_nodes_are_refused_before_a_gpu_sees_them(shop: TemporalRecGraph) -> None:
    index = EventIndex(shop, "cuda")
    for change, message in BAD:
        if "seeds" in change:
            with pytest.raises(ValueError, match=message):
                make(shop, index=index, **change)
