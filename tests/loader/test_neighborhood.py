"""Neighbourhoods in batches: against plain loops, and blind to the question."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv
from torch_geometric.utils import trim_to_layer

from tgrec.data import RecBatch, Sampling, Targets, TemporalRecGraph, reverse_type
from tgrec.loader import NeighborhoodReader, SeedLoader, training_seeds
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, scramble_future, toy_graph
from tgrec.testing.toy import MONDAY

GRAPH = noise_graph(num_users=30, num_items=9, length=(1, 14), spread=9, seed=3)
INDEX = EventIndex(GRAPH)
SEEDS = training_seeds(INDEX, None)
(FORWARD,) = GRAPH.interaction_types
BACK = reverse_type(FORWARD)
NEXT = ("item", "next", "item")
Node = tuple[int, int, int, list[Any]]


def read(sampling: Sampling, seeds: Targets = SEEDS, **kwargs: Any) -> HeteroData:
    graph = SeedLoader(INDEX, sampling, kwargs.pop("track", "T1")).batch(seeds, **kwargs).graph
    assert graph is not None
    return graph


def stores(graph: HeteroData) -> dict[str, Any]:
    """Everything in a batch, by name."""
    parts = {**graph._node_store_dict, **graph._edge_store_dict}
    return {f"{t} {k}": v for t, store in parts.items() for k, v in store.items()}


def equal(a: HeteroData, b: HeteroData) -> bool:
    a_all, b_all = stores(a), stores(b)
    return a_all.keys() == b_all.keys() and all(
        torch.equal(v, b_all[k]) if isinstance(v, Tensor) else v == b_all[k]
        for k, v in a_all.items()
    )


# ---- what is in it -----------------------------------------------------------------------------


def tree(graph: HeteroData, node_type: str, at: int) -> Node:
    """(node, time, degree, [(relation, position, time, lag, tree of the source)]) of a batch."""
    children = []
    for e in graph.edge_types:
        if e[2] == node_type:
            store = graph[e]
            for k in (store.edge_index[1] == at).nonzero().view(-1).tolist():
                below = tree(graph, e[0], int(store.edge_index[0, k]))
                children.append(
                    (e[1], int(store.e_id[k]), int(store.time[k]), int(store.lag[k]), below)
                )
    store = graph[node_type]
    about = (int(store.n_id[at]), int(store.time[at]), int(store.degree[at]))
    return *about, sorted(children)


def expected(
    graph: TemporalRecGraph, side: int, node: int, cut: int, now: int | None, fan_out: list[int]
) -> Node:
    """The same from the rows of the log: side 0 is a user, 1 an item."""
    rows = sorted(
        (int(s.event_id[k]), t[1], k, int(s.time[k]), s.edge_index[:, k].tolist())
        for t in graph.interaction_types
        for s in [graph[t]]
        for k in range(s.event_id.numel())
        if int(s.edge_index[side, k]) == node and int(s.event_id[k]) < cut
    )
    children = []
    for relation in {r[1] for r in rows} if fan_out else ():
        mine = [(lag, r) for lag, r in enumerate(reversed(rows)) if r[1] == relation]
        for lag, (event_id, _, k, time, ends) in mine[: fan_out[0]]:
            name = f"rev_{relation}" if side == 0 else relation
            below = expected(graph, 1 - side, ends[1 - side], event_id, time, fan_out[1:])
            children.append((name, k, time, lag, below))
    if now is None:
        now = rows[-1][3] if rows else 0
    return node, now, len(rows), sorted(children)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_tree_is_what_loops_over_the_log_find(seed: int, fan_out: list[int], told: bool) -> None:
    graph = noise_graph(num_users=5, num_items=4, length=(1, 7), spread=5, seed=seed)
    index = EventIndex(graph)
    reader = NeighborhoodReader(index, Sampling(num_neighbors=tuple(fan_out)))
    cuts = [0, index.end, index.end + 5, index.end // 2, index.end // 3]
    user = torch.arange(5)
    now = user * 7 + MONDAY + 10**6 if told else None
    batch = reader.read(user, torch.tensor(cuts), now)
    for u, cut in enumerate(cuts):
        asked = None if now is None else int(now[u])
        assert tree(batch, "user", u) == expected(graph, 0, u, cut, asked, fan_out)


def test_several_kinds_of_events_share_ages_and_name_their_own_edges(
    shop: TemporalRecGraph,
) -> None:
    index = EventIndex(shop)
    batch = NeighborhoodReader(index, Sampling(num_neighbors=(3, 2))).read(
        torch.arange(30), torch.full((30,), index.end - 40)
    )
    assert set(batch.edge_types) == {
        ("user", "views", "item"), ("user", "buys", "item"),
        ("item", "rev_views", "user"), ("item", "rev_buys", "user"),
    }  # fmt: skip
    for u in range(30):
        wanted = expected(shop, 0, u, index.end - 40, None, [3, 2])
        assert tree(batch, "user", u) == wanted


def test_the_toy_by_hand() -> None:
    """ann before jam (cut 9): rye, fig and ham of tea ham fig rye; who else had these by then."""
    reader = NeighborhoodReader(EventIndex(toy_graph()), Sampling(num_neighbors=(3, 1)))
    graph = reader.read(torch.tensor([0]), torch.tensor([9]))
    forward, back = ("user", "rates", "item"), ("item", "rev_rates", "user")
    assert graph["item"].n_id.tolist() == [1, 0, 3]  # ham fig rye, oldest first
    assert graph[back].lag.tolist() == [2, 1, 0]
    assert (graph[back].time - MONDAY).tolist() == [60, 3600, 700_000]
    assert graph["item"].degree.tolist() == [0, 1, 1]
    assert graph["user"].n_id.tolist() == [0, 2, 1]  # cat had had fig, bob rye, nobody ham
    assert (graph["user"].time - MONDAY).tolist() == [700_000, 60, 86_400]
    assert graph["user"].degree.tolist() == [4, 0, 2]
    assert graph[forward].edge_index.tolist() == [[1, 2], [1, 2]]
    assert graph["user"].batch_size == 1


def test_derived_edges_are_walked_in_the_last_hop(shop: TemporalRecGraph) -> None:
    """The heaviest of each item, which have no clock; the hop before is what it is without them."""
    edges = TemporalRecGraph()
    edges["item"].num_nodes = shop.num_items
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randperm(shop.num_items**2, generator=draw)[: 4 * shop.num_items]
    edges[NEXT].edge_index = torch.stack([pairs % shop.num_items, pairs // shop.num_items])
    edges[NEXT].edge_weight = torch.rand(pairs.numel(), generator=draw)
    index, views = EventIndex(shop), ("item", "rev_views", "user")
    sampling = Sampling(num_neighbors={views: (3, 0), NEXT: (0, 2)}, derived=lambda: edges)
    user, cut = torch.arange(30), torch.full((30,), index.end - 40)
    batch = NeighborhoodReader(index, sampling).read(user, cut)
    alone = NeighborhoodReader(index, Sampling(num_neighbors={views: (3,)})).read(user, cut)
    first = alone["item"].num_nodes
    assert batch.edge_types == [views, NEXT]
    assert torch.equal(batch[views].edge_index, alone[views].edge_index)
    for name in ("n_id", "batch", "time", "degree"):
        assert torch.equal(batch["item"][name][:first], alone["item"][name])
    assert batch[NEXT].num_sampled_edges == [0, batch[NEXT].edge_index.size(1)]
    assert not batch["item"].time[first:].any()
    source, target = batch[NEXT].edge_index
    for node, item in enumerate(batch["item"].n_id[:first].tolist()):
        rows = (edges[NEXT].edge_index[1] == item).nonzero().view(-1)
        rows = rows[edges[NEXT].edge_weight[rows].argsort()][-2:]
        mine = target == node
        assert batch[NEXT].e_id[mine].tolist() == rows.tolist()
        assert batch["item"].n_id[source[mine]].tolist() == edges[NEXT].edge_index[0, rows].tolist()
        assert torch.equal(batch[NEXT].edge_weight[mine], edges[NEXT].edge_weight[rows])
    with pytest.raises(ValueError, match=r"'num_neighbors' of .*needs zeros before the last hop"):
        NeighborhoodReader(index, replace(sampling, num_neighbors={views: (3, 1), NEXT: (2, 2)}))
    for hops, said in (
        ({views: (3, 0), ("user", "saved", "item"): (0, 2)}, "'saved'.*which is no kind of events"),
        ({views: [3, 0], NEXT: (0, 2)}, "needs a tuple with a number per hop"),
        ({views: 3}, "needs a tuple with a number per hop"),
    ):
        with pytest.raises(ValueError, match=said):
            NeighborhoodReader(index, replace(sampling, num_neighbors=hops))
    del edges[NEXT].edge_weight
    with pytest.raises(ValueError, match="'derived' needs 'edge_weight' for"):
        NeighborhoodReader(index, sampling)
    wrong: list[Any] = [-1, "views", True]
    for relation in wrong:
        with pytest.raises(ValueError, match="'relation' needs the number of a kind of events"):
            Sampling(relation=relation)


def test_users_without_a_past_and_data_without_times() -> None:
    graph = read(Sampling(num_neighbors=(2, 2)), replace(SEEDS, cut=SEEDS.cut * 0))
    assert graph["item"].num_nodes == graph[BACK].edge_index.size(1) == 0
    assert not graph["user"].time.any()
    assert not graph["user"].degree.any()
    table = GRAPH.to_pandas()
    untimed = EventIndex(TemporalRecGraph.from_pandas(table, time=None))
    batch = NeighborhoodReader(untimed, Sampling(num_neighbors=(2, 2))).read(SEEDS.user, SEEDS.cut)
    assert not batch["user"].time.any()
    assert not batch[BACK].time.any()
    assert int(batch[BACK].lag.max()) == 1


# ---- what is not in it -------------------------------------------------------------------------


def test_on_t1_the_moment_of_the_question_cannot_be_told() -> None:
    """Between two events of the user every cut gives the same batch, and so does every time."""
    assert SEEDS.time is not None
    previous = torch.zeros_like(SEEDS.cut)
    for row, (user, cut) in enumerate(zip(SEEDS.user.tolist(), SEEDS.cut.tolist(), strict=True)):
        own = INDEX.event_id[INDEX.user == user]
        previous[row] = own[own < cut].max()
    early = replace(SEEDS, cut=previous + 1, time=SEEDS.time + 10**6, item=SEEDS.item * 0)
    assert float((SEEDS.cut - early.cut).double().mean()) > 10
    for sampling in (Sampling(num_neighbors=(3, 3, 3)), Sampling(num_neighbors=(-1, -1))):
        assert equal(read(sampling), read(sampling, early))
    # A hop that looks up to the seed's cut would tell.
    assert not {"cut", "edge_label_time", "input_time"} & {
        k.split()[-1] for k in stores(read(Sampling(num_neighbors=(2,))))
    }


def test_nothing_at_or_past_the_cut_changes_a_batch() -> None:
    for cut in (40, 90, 150):
        seeds = Targets(torch.arange(30), torch.full((30,), cut), torch.zeros(30).long())
        other = EventIndex(scramble_future(GRAPH, cut, seed=cut))
        for sampling in (
            Sampling(num_neighbors=(-1, -1, 2)),
            Sampling(num_neighbors=(3, 3), train_strategy="uniform"),
        ):
            batches = [SeedLoader(i, sampling).batch(seeds, key=7).graph for i in (INDEX, other)]
            assert batches[0] is not None
            assert batches[1] is not None
            assert equal(batches[0], batches[1])


def test_times_of_the_question_on_each_track() -> None:
    assert SEEDS.time is not None
    size = len(SEEDS)
    t1, t2, coarse = (read(Sampling(num_neighbors=(2,)), track=t)["user"].time[:size]
                      for t in ("T1", "T2", "T2-coarse"))  # fmt: skip
    assert torch.equal(t2, SEEDS.time)
    assert bool((t1 <= t2).all())
    assert bool((t1 < t2).any())
    assert bool(((coarse >= t2) & (coarse % 3600 == 0) & (coarse - t2 < 3600)).all())
    batch = SeedLoader(INDEX, Sampling(num_neighbors=(2,)), "T2").batch(SEEDS)
    assert batch.query_time is not None
    assert torch.equal(batch.query_time, SEEDS.time.unsqueeze(1))
    assert SeedLoader(INDEX, Sampling(num_neighbors=(2,))).batch(SEEDS).query_time is None
    both = SeedLoader(INDEX, Sampling(4, (2,)), "T2").batch(SEEDS)
    assert both.query_time is not None
    assert both.query_time.shape == (size, 5)
    assert both.graph is not None
    assert torch.equal(both.graph["user"].time[:size], SEEDS.time)


# ---- which edges -------------------------------------------------------------------------------


def test_scores_read_the_newest_edges_whatever_training_reads() -> None:
    last, mixed = Sampling(num_neighbors=(2, 2)), Sampling(None, (2, 2), "uniform")
    assert equal(read(last), read(mixed))
    assert equal(read(last), read(last, key=3))  # in training too
    drawn = read(mixed, key=3)
    assert not equal(drawn, read(last))
    assert equal(drawn, read(mixed, key=3))
    assert not equal(drawn, read(mixed, key=4))
    assert int(drawn[BACK].lag.max()) > 1  # true ages, not places among the drawn
    alone = [read(mixed, SEEDS.select(torch.tensor([row])), key=3) for row in range(4)]
    for row, one in enumerate(alone):  # whoever else is in the batch
        assert tree(one, "user", 0) == tree(drawn, "user", row)


def test_batches_move_to_a_device_and_the_original_stays() -> None:
    batch = SeedLoader(INDEX, Sampling(num_neighbors=(2, 2))).batch(SEEDS)
    moved = batch.to("meta")
    assert isinstance(moved, RecBatch)
    assert moved.graph is not None
    assert batch.graph is not None
    assert moved.user.device.type == "meta"
    tensors = [v for v in stores(moved.graph).values() if isinstance(v, Tensor)]
    assert len(tensors) >= 14
    assert all(v.device.type == "meta" for v in tensors)
    assert all(
        v.device.type == "cpu" for v in stores(batch.graph).values() if isinstance(v, Tensor)
    )
    assert moved.graph["user"].num_sampled_nodes == batch.graph["user"].num_sampled_nodes


def test_models_that_ask_for_none_get_none() -> None:
    for sampling in (Sampling(max_len=4), Sampling()):
        assert SeedLoader(INDEX, sampling).batch(SEEDS).graph is None
        assert SeedLoader(INDEX, sampling).batch(SEEDS, key=1).graph is None
    with pytest.raises(ValueError, match="'sampling' needs 'num_neighbors'"):
        NeighborhoodReader(INDEX, Sampling(max_len=4))


def test_layers_of_pyg_run_on_a_batch_and_trim_it() -> None:
    graph = read(Sampling(num_neighbors=(3, 2)))
    convs = [HeteroConv({FORWARD: SAGEConv((4, 4), 4), BACK: SAGEConv((4, 4), 4)})
             for _ in range(2)]  # fmt: skip
    x = {t: torch.randn(graph[t].num_nodes, 4) for t in ("user", "item")}
    nodes, edges = graph.collect("num_sampled_nodes"), graph.collect("num_sampled_edges")
    assert {t: sum(n) for t, n in nodes.items()} == {t: v.size(0) for t, v in x.items()}
    whole, trimmed, edge_index = x, x, graph.edge_index_dict
    for layer, conv in enumerate(convs):
        whole = conv(whole, graph.edge_index_dict)
        trimmed, edge_index, _ = trim_to_layer(layer, nodes, edges, trimmed, edge_index)
        trimmed = conv(trimmed, edge_index)
    size = graph["user"].batch_size
    assert size == len(SEEDS)
    assert trimmed["user"].size(0) < whole["user"].size(0)
    assert torch.allclose(whole["user"][:size], trimmed["user"][:size], atol=1e-5)


# ---- seeds -------------------------------------------------------------------------------------


def test_some_seeds_of_each_user_other_ones_every_epoch() -> None:
    every = set(zip(SEEDS.user.tolist(), SEEDS.cut.tolist(), strict=True))
    seen: dict[tuple[int, int], int] = {}
    epochs = 200
    for key in range(epochs):
        some = training_seeds(INDEX, None, key=key, seeds_per_user=3)
        pairs = list(zip(some.user.tolist(), some.cut.tolist(), strict=True))
        assert set(pairs) <= every
        assert len(set(pairs)) == len(pairs)
        for user in range(30):
            possible = sum(u == user for u, _ in every)
            assert sum(u == user for u, _ in pairs) == min(3, possible)
        for pair in pairs:
            seen[pair] = seen.get(pair, 0) + 1
    for user, cut in every:  # each event in its share of the epochs, within 4.5 deviations
        share = min(1.0, 3 / sum(u == user for u, _ in every))
        spread = (epochs * share * (1 - share)) ** 0.5
        assert abs(seen.get((user, cut), 0) - epochs * share) <= 4.5 * spread
    first = training_seeds(INDEX, None, key=1, seeds_per_user=3)
    again = training_seeds(INDEX, None, key=1, seeds_per_user=3)
    assert torch.equal(first.cut, again.cut)
    assert len(training_seeds(INDEX, None, seeds_per_user=10**6)) == len(SEEDS)
    # Histories have their windows; the number of seeds does not touch them.
    assert torch.equal(training_seeds(INDEX, 4, seeds_per_user=1).cut, training_seeds(INDEX, 4).cut)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_neighbors": ()}, "'num_neighbors' needs one positive integer per hop"),
        ({"num_neighbors": (5, 0)}, r"'num_neighbors' needs .* \(got \(5, 0\)\)"),
        ({"num_neighbors": (-2,)}, "'num_neighbors' needs"),
        ({"num_neighbors": (True,)}, "'num_neighbors' needs"),
        ({"num_neighbors": (2.5,)}, "'num_neighbors' needs"),
        ({"train_strategy": "first"}, "'train_strategy' needs to be one of .*'first'"),
        ({"seeds_per_user": 0}, "'seeds_per_user' needs to be a positive integer.*got 0"),
        ({"seeds_per_user": True}, "'seeds_per_user' needs"),
        ({"seeds_per_user": 1.5}, "'seeds_per_user' needs"),
    ],
    ids=str,
)
def test_bad_samplings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong)
