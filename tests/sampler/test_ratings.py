"""Ratings of the past, for those who ask: by brute force, and never those at or past the cut."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tgrec.data import Sampling, TemporalRecGraph
from tgrec.loader import SeedLoader, training_seeds
from tgrec.sampler import EventIndex, HistorySampler
from tgrec.testing import noise_graph, scramble_future, toy_graph


def all_questions(graph: TemporalRecGraph) -> tuple[Tensor, Tensor]:
    users, cuts = torch.arange(graph.num_users), torch.arange(graph.num_events + 2)
    return users.repeat_interleave(cuts.numel()), cuts.repeat(users.numel())


def test_histories_hold_the_ratings_of_their_events() -> None:
    graph = toy_graph()
    index = EventIndex(graph)
    by_event = dict(enumerate(graph[graph.interaction_types[0]].rating.tolist()))
    history = HistorySampler(index, 3, rating=True).sample(*all_questions(graph))
    assert history.rating is not None
    wanted = torch.tensor(
        [[by_event.get(e, math.nan) for e in row] for row in history.event_id.tolist()]
    )
    torch.testing.assert_close(history.rating, wanted, rtol=0, atol=0, equal_nan=True)
    latest = history.latest(2).rating
    torch.testing.assert_close(latest, wanted[:, 1:], rtol=0, atol=0, equal_nan=True)
    assert HistorySampler(index, 3).sample(*all_questions(graph)).rating is None


@pytest.mark.parametrize("cut", [0, 5, 11])
def test_the_future_has_no_say(cut: int) -> None:
    graph = toy_graph()
    users = torch.arange(4)
    asked = (users, torch.full_like(users, cut))
    one, two = (
        HistorySampler(EventIndex(g), 5, rating=True).sample(*asked).rating
        for g in (graph, scramble_future(graph, cut))
    )
    torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_targets_have_theirs_while_training_only() -> None:
    index = EventIndex(toy_graph())
    loader = SeedLoader(index, Sampling(max_len=4, rating=True))
    seeds = training_seeds(index, 4)
    rating = loader.batch(seeds, key=0).rating
    assert rating is not None
    assert index.rating is not None
    assert rating.tolist() == index.rating[seeds.cut].tolist()
    assert loader.batch(seeds).rating is None
    assert SeedLoader(index, Sampling(max_len=4)).batch(seeds, key=0).rating is None
    found = index.rating_of(torch.tensor([3, 99]))
    assert found[0] == 4.0
    assert found[1].isnan()


def test_without_ratings_nothing_is_known() -> None:
    index = EventIndex(noise_graph())
    loader = SeedLoader(index, Sampling(max_len=4, rating=True))
    batch = loader.batch(training_seeds(index, 4), key=0)
    assert batch.history is not None
    assert batch.history.rating is not None
    assert batch.rating is not None
    assert batch.history.rating.isnan().all()
    assert batch.rating.isnan().all()


def test_two_kinds_of_events_of_which_one_is_rated() -> None:
    table = toy_graph().to_pandas()
    table["kind"] = ["a", "b"] * 6
    graph = TemporalRecGraph.from_pandas(table, rating="rating", relation="kind")
    del graph["user", "b", "item"].rating
    rating = EventIndex(graph).rating
    assert rating is not None
    assert rating[1::2].isnan().all()
    assert rating[::2].tolist() == table["rating"].tolist()[::2]
