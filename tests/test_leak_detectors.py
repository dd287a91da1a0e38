"""The universal leak detectors, and leaks planted for them.

*Future-scramble*: whatever is asked before a cut is bit-identical after everything from the cut on
has changed. *Oracle item*: an item that only a leak leads to is never recommended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import pytest
import torch

from tgrec.data import RecBatch, Split, Targets, TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models import (
    MODELS,
    RecModel,
    SkipMarkov,
)
from tgrec.sampler import EventIndex
from tgrec.testing import cycle_graph, noise_graph, scramble_future
from tgrec.testing.toy import MONDAY
from tgrec.training import evaluate, fit

Caught = Callable[..., None]
Small = Callable[..., RecModel]
GRAPH = noise_graph(num_users=20, num_items=10, length=(4, 12), spread=12)


# ---- the universal detectors ---------------------------------------------------------------------


def blind_to_the_future(
    make: Callable[[TemporalRecGraph, int], tuple[RecModel, SeedLoader]],
) -> None:
    """Everything is made from a graph and a cut, and asked at the cut, on both tracks."""
    cut = GRAPH.num_events * 2 // 3
    user = torch.arange(GRAPH.num_users)
    seeds = Targets(user, torch.full_like(user, cut), user * 0, user * 0 + MONDAY + 10**6)
    for track in ("T1", "T2"):
        scores = []
        for graph in (GRAPH, scramble_future(GRAPH, cut)):
            model, loader = make(graph, cut)
            batch = replace(loader, track=track).batch(seeds)
            scores.append(model.eval().score(batch).detach())
        assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("name", MODELS)
def test_future_scramble(small: Small, name: str) -> None:
    def honest(graph: TemporalRecGraph, cut: int) -> tuple[RecModel, SeedLoader]:
        past = graph.before(cut)
        model = small(name, past)
        if model.num_parameters():  # trained as well as made
            split = Split(past, past, *[leave_one_out(past).val] * 2)
            fit(model, split, epochs=1, precision="fp32", show=False)
        return model, SeedLoader(EventIndex(graph), model.sampling)

    blind_to_the_future(honest)


def test_future_scramble_catches_planted_leaks(caught: Caught, small: Small) -> None:
    def fitted_on_all(graph: TemporalRecGraph, cut: int) -> tuple[RecModel, SeedLoader]:
        model = SkipMarkov.from_graph(graph)
        return model, SeedLoader(EventIndex(graph), model.sampling)

    def reads_on(graph: TemporalRecGraph, cut: int) -> tuple[RecModel, SeedLoader]:
        class Late(SeedLoader):
            def batch(self, seeds: Targets, *args: Any, **kwargs: Any) -> RecBatch:
                return super().batch(replace(seeds, cut=seeds.cut + 9), *args, **kwargs)

        model = small("sasrec", graph.before(cut))
        return model, Late(EventIndex(graph), model.sampling)

    def trained_on_all(graph: TemporalRecGraph, cut: int) -> tuple[RecModel, SeedLoader]:
        model = small("sasrec", graph.before(cut))
        split = leave_one_out(graph)
        fit(model, replace(split, train=graph), epochs=1, precision="fp32", show=False)
        return model, SeedLoader(EventIndex(graph), model.sampling)

    for leak in (fitted_on_all, reads_on, trained_on_all):
        caught(blind_to_the_future, leak)


def oracle_split() -> Split:
    """Walks on a cycle, but every test target is one item that occurs nowhere else."""
    table = cycle_graph(num_users=96).to_pandas()
    last = table.groupby("user_id")["timestamp"].idxmax()
    table.loc[last, "item_id"] = 24
    return leave_one_out(TemporalRecGraph.from_pandas(table))


def oracle_is_not_found(make: Callable[[TemporalRecGraph], RecModel], split: Split) -> None:
    model = make(split.train)
    fit(
        model, split, epochs=12, batch_size=16, lr=1e-2, precision="fp32", show=False,
        eval_every=12,
    )  # fmt: skip
    ranks = evaluate(model, split, split.test).ranks
    assert (split.test.item == 24).all()
    # At least 15 of 25 items are unseen: chance is an eighth to be among the first two.
    assert float((ranks["full"] <= 2).double().mean()) <= 1 / 3


@pytest.mark.parametrize("name", MODELS)
def test_oracle_item(caught: Caught, small: Small, name: str) -> None:
    split = oracle_split()
    still = {"dropout": 0.0} if "dropout" in signature(MODELS[name]).parameters else {}

    def make(graph: TemporalRecGraph) -> RecModel:
        return small(name, graph, **still)

    oracle_is_not_found(make, split)
    caught(oracle_is_not_found, make, replace(split, train=split.graph, val=split.test))
