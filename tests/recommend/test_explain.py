from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.models import TCNBERT4Rec
from tgrec.recommend import Recommender
from tgrec.recommend.explain import STEPS, effects
from tgrec.recommend.occlusion import events_read, scores_without
from tgrec.recommend.served import Served, ask
from tgrec.testing import cycle_graph

Fitted = Callable[[str], Recommender]


def mine(graph: TemporalRecGraph, user: int) -> pd.DataFrame:
    events = graph.to_pandas()
    return events[events["user_id"] == user].reset_index(drop=True)


def position(rec: Recommender, user: int) -> torch.Tensor:
    return rec.served.users.positions([user], "user_id")


def without(rec: Recommender, drop: pd.Series) -> Recommender:
    """The same weights over a log in which some events never were."""
    (kind,) = rec.graph.interaction_types
    keep = ~np.isin(rec.graph[kind].event_id.numpy(), drop.to_numpy())
    out = Recommender(rec.name)
    log = rec.graph.select_events(torch.from_numpy(keep))
    out._served = Served.start(rec.model, log, "T1", "cpu")
    return out


@pytest.mark.parametrize(
    "name", ["sasrec", "gap_markov", "tgt_bert4rec", "enhanced_bert4rec", "sage"]
)
def test_an_effect_is_what_the_score_loses_if_the_event_had_never_been(
    name: str, fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec, item = fitted(name), 5
    # A history longer than the 12 events that some of the models read, and no longer than the 20
    # of which `sage` samples: of a neighbourhood nothing older takes the place of what is gone.
    counts = graph.to_pandas()["user_id"].value_counts()
    user = int(counts[counts <= 20].index[0])
    question = ask(rec.served, position(rec, user))
    read = events_read(rec.served, question)
    events = mine(graph, user)
    assert len(events) > 12
    assert read.event_id.tolist() == events["event_id"].tolist()[-read.event_id.numel() :]
    full, effect = effects(rec.served, question, item - 1, read)
    score = rec.predict(user, item)
    assert float(full[0, item - 1]) == pytest.approx(score, abs=1e-5)
    for place in range(0, read.event_id.numel(), 3):
        event = events[events["event_id"] == int(read.event_id[place])]["event_id"]
        lost = score - without(rec, event).predict(user, item)
        assert float(effect[place]) == pytest.approx(lost, abs=2e-5)


def test_several_events_left_out_at_once(fitted: Fitted, graph: TemporalRecGraph) -> None:
    for name in ("sasrec", "sage"):
        rec = fitted(name)
        question = ask(rec.served, position(rec, 7))
        read = events_read(rec.served, question)
        gone = torch.zeros(2, read.event_id.numel(), dtype=torch.bool)
        gone[0, [0, 2, -1]] = gone[1, :] = True
        scores = scores_without(rec.served, question, read, gone)
        for row in range(2):
            events = pd.Series(read.event_id[gone[row]].numpy())
            wanted = [without(rec, events).predict(7, item) for item in (3, 5, 8)]
            if row == 0 or name == "sage" or read.event_id.numel() == len(mine(graph, 7)):
                assert np.allclose(scores[row, [2, 4, 7]], wanted, atol=2e-5)


@pytest.mark.parametrize("name", ["sasrec", "tgt_bert4rec", "sage", "gap_markov"])
def test_removing_the_named_events_costs_more_than_removing_random_ones(
    name: str, fitted: Fitted
) -> None:
    rec, draw = fitted(name), torch.Generator().manual_seed(0)
    named_falls, random_falls = [], []
    for user in range(1, 25):
        item = int(rec.recommend(user, top_k=1)["item_id"][0])
        why = rec.explain(user, item, top_events=3)
        question = ask(rec.served, position(rec, user))
        read = events_read(rec.served, question)
        ids = [event.item_id - 1 for event in why.events]
        if len(ids) < 3 or read.item.numel() < 6:
            continue
        gone = torch.zeros(6, read.item.numel(), dtype=torch.bool)
        gone[0] = torch.isin(read.item, torch.tensor(ids))
        for row in range(1, 6):
            gone[row, torch.randperm(read.item.numel(), generator=draw)[:3]] = True
        falls = why.score - scores_without(rec.served, question, read, gone)[:, item - 1]
        named_falls.append(float(falls[0]))
        random_falls.append(float(falls[1:].mean()))
    assert len(named_falls) >= 8
    assert np.mean(named_falls) > np.mean(random_falls) + 0.1 * np.std(named_falls)
    better = [a > b for a, b in zip(named_falls, random_falls, strict=True)]
    assert np.mean(better) > 0.85


def test_paths_are_counts_of_other_people(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec, user, item = fitted("sasrec"), 7, 5
    found = {path.item_id: path for path in rec.explain(user, item, top_paths=60).paths}
    events = graph.to_pandas()
    own = set(events[events["user_id"] == user]["item_id"]) - {item}
    people: dict[int, set[int]] = {i: set() for i in own}
    soon: dict[int, set[int]] = {i: set() for i in own}
    for other, part in events[events["user_id"] != user].groupby("user_id"):
        items = part["item_id"].tolist()
        if item in items:
            last = items.index(item)
            for place in range(last):
                if items[place] in own:
                    people[items[place]].add(int(other))
                    if last - place <= STEPS:
                        soon[items[place]].add(int(other))
    wanted = {i: (len(people[i]), len(soon[i])) for i in own if people[i]}
    assert {i: (path.people, path.soon) for i, path in found.items()} == wanted
    order = [(path.soon, path.people) for path in rec.explain(user, item).paths]
    assert order == sorted(order, reverse=True)


def test_what_an_explanation_says(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec = fitted("tgt_bert4rec")
    table = rec.recommend(7, top_k=3)
    item = int(table["item_id"][1])
    why = rec.explain(7, item)
    assert (why.rank, why.item_id, why.title) == (2, item, table["title"][1])
    assert why.score == pytest.approx(table["score"][1], abs=1e-5)
    effect = [event.effect for event in why.events]
    assert effect == sorted(effect, reverse=True)
    assert min(effect) > 0
    genre = graph["item"].genre > 0
    named = graph.index_of("item", [event.item_id for event in why.events])
    shared = genre[item - 1] & genre[named].any(0)
    assert len(why.shared_genres) == int(shared.sum())
    assert why.alpha == pytest.approx(float(rec.model.monitor()["alpha"]))
    text, plain = str(why), why.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert why.events[0].title is not None
    for said in (table["title"][1], "rank 2", why.events[0].title, "gate:", *why.shared_genres):
        assert said in text
    assert f"gate: {why.alpha:.0%} sequence, {1 - why.alpha:.0%} temporal graph" in text
    other = fitted("sasrec").explain(7, item)
    assert (other.alpha, other.parts) == (None, ())


def test_the_gate_is_named_by_what_it_weighs() -> None:
    small: dict[str, Any] = {"d_model": 8, "n_heads": 1, "n_blocks": 1, "d_ff": 8}
    graph = cycle_graph()
    tcn = Recommender("tcn_bert4rec", **small).fit(graph, epochs=1, show=False)
    assert isinstance(tcn.model, TCNBERT4Rec)
    with torch.no_grad():
        tcn.model.gate.fill_(math.log(1 / 3))
    why = tcn.explain(history=[1, 2, 3], item_id=4)
    assert "gate: 25% masked sequence, 75% convolutions" in str(why)
    rec = Recommender("bert_hybrid_discrete", **small).fit(graph, epochs=1, show=False)
    for events, share in ((3, 30), (12, 50)):
        said = str(rec.explain(history=list(range(events)), item_id=20))
        assert f"gate: {share}% items themselves, {100 - share}% item graph" in said


def test_models_that_read_no_events_name_none(fitted: Fitted) -> None:
    why = fitted("popularity").explain(7, 5)
    assert (why.events, why.events_read) == ((), 0)
    assert "no past event was read" in str(why)


def test_a_history_of_ones_own_is_explained_too(fitted: Fitted) -> None:
    rec: Any = fitted("gap_markov")
    why = rec.explain(history=[3, 9, 21], item_id=5)
    assert why.user_id is None
    assert why.events_read == 3
    assert {event.item_id for event in why.events} <= {3, 9, 21}
    assert {path.item_id for path in why.paths} <= {3, 9, 21}
    assert "for this history" in str(why)
    assert rec.explain(history=[], item_id=5).events_read == 0
    with pytest.raises(ValueError, match="'top_events' needs to be an integer of at least 0"):
        rec.explain(7, 5, top_events=-1)


def test_ranks_are_the_places_in_the_list_of_that_moment(
    fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec, events = fitted("sasrec"), mine(graph, 7)
    at = int(events["timestamp"].iloc[-2])
    unborn = graph.num_items - graph.before(graph.event_id_at(at)).to_pandas()["item_id"].nunique()
    assert unborn > 0
    offered = rec.recommend(7, top_k=10, at=at)["item_id"].tolist()
    why = [rec.explain(7, item, at=at) for item in offered]
    assert [w.rank for w in why] == [*range(1, len(offered) + 1)]
    assert {w.left_out for w in why} == {None}


def test_what_is_not_recommended_is_said(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec, events = fitted("sasrec"), mine(graph, 7)
    at, met = int(events["timestamp"].iloc[-2]), int(events["item_id"].iloc[0])
    why = rec.explain(7, met)
    assert why.left_out == "met before"
    above = rec.recommend(7, top_k=50)["score"] >= why.score
    assert why.rank == 1 + int(above.sum())
    assert f"not recommended (met before), it would have rank {why.rank}\n" in str(why)
    late = set(graph.raw_ids("item").tolist())
    late -= set(graph.before(graph.event_id_at(at)).to_pandas()["item_id"])
    assert "not recommended (nobody had met it by then)" in str(rec.explain(7, late.pop(), at=at))
