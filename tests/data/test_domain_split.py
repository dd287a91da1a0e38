"""Leave one out in one domain: targets, what may be fitted on, candidates."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph, leave_one_out_in, only_domain
from tgrec.datasets import simulate_domains
from tgrec.models import Popularity
from tgrec.training import evaluate

# User 1: food a b c d with kitchen x between b and c, y after c, z after d. User 2 has two foods.
ROWS = [
    (1, "a", 1, "food"), (1, "b", 2, "food"), (1, "x", 3, "kitchen"), (1, "c", 4, "food"),
    (1, "y", 5, "kitchen"), (1, "d", 6, "food"), (1, "z", 7, "kitchen"),
    (2, "a", 8, "food"), (2, "b", 9, "food"), (2, "z", 10, "kitchen"),
]  # fmt: skip


@pytest.fixture
def graph() -> TemporalRecGraph:
    table = pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp", "domain"])
    return TemporalRecGraph.from_pandas(table, relation="domain")


def test_by_hand(graph: TemporalRecGraph) -> None:
    split = leave_one_out_in(graph, "food")
    names = graph.raw_ids("item")
    assert [names[i] for i in split.val.item] == ["c"]
    assert [names[i] for i in split.test.item] == ["d"]
    assert split.val.cut.tolist() == [3]
    assert split.val.time is not None
    assert split.val.time.tolist() == [4]
    # Nothing of user 1 from c on trains, y and z neither; user 2 is not asked and trains.
    assert split.train.to_pandas().item_id.tolist() == ["a", "b", "x", "a", "b", "z"]
    assert split.candidates is not None
    assert [names[i] for i in split.candidates.nonzero().view(-1)] == ["a", "b", "c", "d"]


def test_a_refit_trains_on_all_domains_until_the_test_target(graph: TemporalRecGraph) -> None:
    split = leave_one_out_in(graph, "food")
    refit = split.with_validation()
    assert refit.train.to_pandas().item_id.tolist() == ["a", "b", "x", "c", "y", "a", "b", "z"]
    assert len(refit.val) == 0
    alone = only_domain(split, "food").with_validation()
    assert alone.train.to_pandas().item_id.tolist() == ["a", "b", "c", "a", "b"]


def test_the_domain_alone(graph: TemporalRecGraph) -> None:
    split = leave_one_out_in(graph, "food")
    alone = only_domain(split, "food")
    assert [t[1] for t in alone.graph.interaction_types] == ["food"]
    assert alone.train.to_pandas().item_id.tolist() == ["a", "b", "a", "b"]
    assert torch.equal(alone.test.cut, split.test.cut)
    # The items of the other domain are gone, and targets and candidates are counted without them.
    for one in (alone.graph, alone.train):
        assert one.raw_ids("item") == ["a", "b", "c", "d"]
        assert one.num_users == graph.num_users
    assert (alone.val.item.tolist(), alone.test.item.tolist()) == ([2], [3])
    assert alone.candidates is not None
    assert alone.candidates.tolist() == [True] * 4


def test_the_same_negatives_are_drawn_for_the_domain_alone() -> None:
    split = leave_one_out_in(simulate_domains(num_users=40, num_items=30)[0], "kitchen")
    alone, sets = only_domain(split, "kitchen"), {"uniform-9": ("uniform", 9)}
    ranks = [
        evaluate(Popularity.from_graph(s.train), s, s.test, sampled=sets).ranks
        for s in (split, alone)
    ]
    assert torch.equal(ranks[0]["full"], ranks[1]["full"])
    assert torch.equal(ranks[0]["uniform-9"], ranks[1]["uniform-9"])


def test_errors(graph: TemporalRecGraph) -> None:
    with pytest.raises(ValueError, match=r"'relation' needs to be one of \['food', 'kitchen'\]"):
        leave_one_out_in(graph, "toys")
    with pytest.raises(ValueError, match="'relation' needs to be one of"):
        only_domain(leave_one_out_in(graph, "food"), "toys")
    with pytest.raises(ValueError, match=r"all targets of the split \(got 'kitchen'\)"):
        only_domain(leave_one_out_in(graph, "food"), "kitchen")
    with pytest.raises(ValueError, match=r"at least 3 events in 'kitchen'.* has 2"):
        leave_one_out_in(graph.before(6), "kitchen")
