"""Simulated domains: the oracle is the truth, and the taste is shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tgrec.data import leave_one_out_in
from tgrec.datasets import simulate_domains
from tgrec.datasets.simulated_domains import DOMAINS, FOLLOW
from tgrec.metrics import target_ranks

GRAPH, ORACLE = simulate_domains(num_users=300)


def test_scores_are_probabilities_of_what_is_left() -> None:
    split = leave_one_out_in(GRAPH, "food")
    odds = ORACLE.scores(split.test.user, split.test.cut, "food").exp()
    assert torch.allclose(odds.sum(1), torch.ones(len(odds)), atol=1e-5)
    assert (odds[:, GRAPH["item"].domain == 1] == 0).all()
    table = GRAPH.to_pandas()
    for user, cut, row in zip(split.test.user[:20], split.test.cut, odds, strict=False):
        past = table[(table.user_id == int(user)) & (table.event_id < int(cut))].item_id
        assert (row[torch.tensor(past.tolist())] == 0).all()


def test_events_follow_the_oracle() -> None:
    """The mean probability of the successor is that with which it was drawn, within noise."""
    split = leave_one_out_in(GRAPH, "kitchen")
    odds = ORACLE.scores(split.test.user, split.test.cut, "kitchen").exp().double()
    chosen = odds.gather(1, split.test.item.unsqueeze(1)).squeeze(1)
    # E[p(chosen)] = E[sum p^2]: the draw and the stated distribution are one.
    expected = odds.pow(2).sum(1)
    error = float((chosen - expected).std()) / np.sqrt(len(chosen))
    assert abs(float((chosen - expected).mean())) < 4 * error
    assert FOLLOW < float(odds.amax(1).mean()) < 1


def test_the_other_domain_tells_the_taste() -> None:
    """Guessing the favourite topic from one domain alone works in the other one."""
    table, topic = GRAPH.to_pandas(), ORACLE.topic
    kitchen = table[table.relation == "kitchen"].groupby("user_id").item_id
    guess = kitchen.apply(lambda items: np.bincount(topic[items]).argmax())
    food = table[table.relation == "food"]
    hit = topic[food.item_id.to_numpy()] == guess.loc[food.user_id].to_numpy()
    assert hit.mean() > 0.5


def test_same_arguments_same_graph_and_no_repeats() -> None:
    again, _ = simulate_domains(num_users=300)
    assert GRAPH.to_pandas().equals(again.to_pandas())
    assert not GRAPH.to_pandas().duplicated(["user_id", "item_id"]).any()
    assert [t[1] for t in GRAPH.interaction_types] == list(DOMAINS)
    ranks = target_ranks(
        ORACLE.scores(torch.tensor([0]), torch.tensor([0]), "food"), torch.tensor([0])
    )
    assert int(ranks) >= 1


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="'num_items' needs to be an integer of at least 30"):
        simulate_domains(num_items=10)
    with pytest.raises(ValueError, match="'relation' needs to be one of"):
        ORACLE.scores(torch.tensor([0]), torch.tensor([0]), "toys")
