"""Somebody who is not in the log is read as if they were."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import HeteroData

from tgrec.data import Sampling, TemporalRecGraph
from tgrec.loader import GuestReader, NeighborhoodReader, reader_below
from tgrec.sampler import EventIndex

USERS, ITEMS = 9, 7


def events(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events of everybody and of a guest, who meets every item once; few seconds, so many ties."""
    draw = np.random.default_rng(seed)

    def table(user: np.ndarray, item: np.ndarray) -> pd.DataFrame:
        time = np.sort(draw.integers(0, 12, len(user)))
        kind = np.where(item % 2 == 0, "even", "odd")
        return pd.DataFrame({"user_id": user, "item_id": item, "timestamp": time, "kind": kind})

    everybody = table(draw.integers(0, USERS, 80), draw.integers(0, ITEMS, 80))
    return everybody, table(np.full(ITEMS - 2, USERS), draw.permutation(ITEMS)[: ITEMS - 2])


def graph_of(table: pd.DataFrame, timed: bool) -> TemporalRecGraph:
    nodes = {"users": pd.DataFrame({"user_id": range(USERS + 1)}),
             "items": pd.DataFrame({"item_id": range(ITEMS)})}  # fmt: skip
    time = "timestamp" if timed else None
    return TemporalRecGraph.from_pandas(table, time=time, relation="kind", **nodes)


def same(left: HeteroData, right: HeteroData) -> None:
    """Up to positions of edges, which are those of other indices."""
    assert left["user"].batch_size == right["user"].batch_size
    assert left.edge_types == right.edge_types
    for one, other in zip(left.stores, right.stores, strict=True):
        assert set(one.keys()) == set(other.keys())
        for key, value in one.items():
            if isinstance(value, torch.Tensor) and key != "e_id":
                assert torch.equal(value, other[key]), (one._key, key)
            elif key != "e_id":
                assert value == other[key], (one._key, key)


@pytest.mark.parametrize("hops", [(3,), (4, 2), (-1, -1)])
@pytest.mark.parametrize("timed", [True, False])
def test_a_guest_is_read_as_one_more_user_of_the_log(hops: tuple[int, ...], timed: bool) -> None:
    sampling = Sampling(num_neighbors=hops)
    for seed in range(8):
        everybody, mine = events(seed)
        whole = EventIndex(graph_of(pd.concat([everybody, mine]), timed))
        log, own = (EventIndex(graph_of(part, timed)) for part in (everybody, mine))
        below = reader_below(log, sampling)
        user = torch.full((2,), USERS)
        reader = GuestReader(own, sampling, log, below, log.end)
        found = reader.read(user, torch.full((2,), own.end))
        same(found, NeighborhoodReader(whole, sampling).read(user, torch.full((2,), whole.end)))
        assert found["user"].n_id.numel() > 2 or len(hops) == 1


def test_derived_edges_hang_below_the_events_of_a_guest() -> None:
    edges = TemporalRecGraph()
    edges["item"].num_nodes = ITEMS
    pairs = torch.arange(0, ITEMS * ITEMS, 3)
    edges["item", "next", "item"].edge_index = torch.stack([pairs % ITEMS, pairs // ITEMS])
    edges["item", "next", "item"].edge_weight = (pairs * 7 % 13).float()
    hops = {("item", "rev_even", "user"): (3, 0), ("item", "rev_odd", "user"): (3, 0),
            ("item", "next", "item"): (0, 2)}  # fmt: skip
    sampling = Sampling(num_neighbors=hops, derived=lambda: edges)
    assert not sampling.meets_others
    everybody, mine = events(1)
    whole = EventIndex(graph_of(pd.concat([everybody, mine]), True))
    log, own = (EventIndex(graph_of(part, True)) for part in (everybody, mine))
    reader = GuestReader(own, sampling, log, reader_below(log, sampling), log.end)
    user = torch.full((2,), USERS)
    found = reader.read(user, torch.full((2,), own.end))
    wanted = NeighborhoodReader(whole, sampling).read(user, torch.full((2,), whole.end))
    same(found, wanted)
    assert found["item", "next", "item"].edge_index.size(1) > 4


def test_nothing_of_the_log_at_or_past_its_cut_is_read() -> None:
    sampling = Sampling(num_neighbors=(-1, -1))
    everybody, mine = events(0)
    whole = graph_of(everybody, True)
    log, before, own = (
        EventIndex(g) for g in (whole, whole.before(40), graph_of(mine, True))
    )  # fmt: skip
    user, cut = torch.tensor([USERS]), torch.tensor([own.end])
    read = [
        GuestReader(own, sampling, index, reader_below(index, sampling), 40).read(user, cut)
        for index in (log, before)
    ]
    same(*read)
