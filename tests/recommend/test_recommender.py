from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tgrec
from tgrec.data import Targets, TemporalRecGraph
from tgrec.loader import SeedLoader
from tgrec.models import SASRec
from tgrec.recommend import Recommender
from tgrec.recommend.served import Served, ask_with_history
from tgrec.sampler import EventIndex
from tgrec.testing import toy_graph

Fitted = Callable[[str], Recommender]
ALL = ["sasrec", "tgt_bert4rec", "enhanced_bert4rec", "sage", "gap_markov", "popularity"]


def seen_by(graph: TemporalRecGraph, user: int) -> pd.DataFrame:
    events = graph.to_pandas()
    return events[events["user_id"] == user]


def test_importing_tgrec_imports_nothing_heavy() -> None:
    code = "import sys, tgrec; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert tgrec.Recommender is Recommender
    with pytest.raises(AttributeError, match="Recomender"):
        tgrec.Recomender  # noqa: B018


# ---- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_best_items_by_the_models_own_scores(
    name: str, fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec = fitted(name)
    table = rec.recommend(7, top_k=5)
    index = EventIndex(graph)
    (user,) = graph.index_of("user", [7]).tolist()
    one = torch.tensor([user])
    seeds = Targets(one, torch.tensor([graph.num_events]), one, one)
    with torch.no_grad():
        scores = rec.model.score(SeedLoader(index, rec.model.sampling).batch(seeds))[0]
    scores[graph.index_of("item", seen_by(graph, 7)["item_id"].to_numpy())] = -torch.inf
    wanted = scores.topk(5)
    assert list(table.columns) == ["item_id", "score", "title"]
    assert np.allclose(table["score"], wanted.values, atol=1e-5)
    if name != "popularity":  # whose scores tie
        places = graph.index_of("item", table["item_id"].to_numpy())
        assert places.tolist() == wanted.indices.tolist()
    titles = graph.strings("item", "title")
    places = graph.index_of("item", table["item_id"].to_numpy())
    assert table["title"].tolist() == [titles[i] for i in places.tolist()]
    assert rec.predict(7, table["item_id"][1]) == pytest.approx(table["score"][1], abs=1e-5)


@pytest.mark.parametrize("name", ["sasrec", "sage", "gap_markov"])
def test_many_users_at_once_get_what_each_gets_alone(name: str, fitted: Fitted) -> None:
    rec, users = fitted(name), [3, 60, 1, 17]
    together = rec.recommend(users, top_k=4)
    assert list(together.columns) == ["user_id", "item_id", "score", "title"]
    assert together["user_id"].tolist() == [u for u in users for _ in range(4)]
    for user in users:
        mine = together[together["user_id"] == user].reset_index(drop=True)
        alone = rec.recommend(user, top_k=4)
        assert mine["item_id"].tolist() == alone["item_id"].tolist()
        assert np.allclose(mine["score"], alone["score"], atol=1e-5)
    for many in (np.array(users), torch.tensor(users), pd.Series(users), tuple(users)):
        assert rec.recommend(many, top_k=4)["item_id"].equals(together["item_id"])


def test_pairs_are_scored_in_their_order(fitted: Fitted) -> None:
    rec = fitted("sasrec")
    pairs = [(3, 5), (60, 5), (3, 9), (1, 1), (3, 5)]
    scores = rec.batch_predict(pairs)
    assert np.allclose(scores, [rec.predict(u, i) for u, i in pairs], atol=1e-5)
    for given in (np.array(pairs), torch.tensor(pairs), pd.DataFrame(pairs), iter(pairs)):
        assert np.array_equal(rec.batch_predict(given), scores)
    assert rec.batch_predict([]).shape == (0,)
    assert len(rec.recommend([])) == 0
    no_pairs: list[Any] = [[1, 2], [(1, 2, 3)], ["ab"]]
    for wrong in no_pairs:
        with pytest.raises(ValueError, match=r"'pairs' needs to hold pairs \(user_id, item_id\)"):
            rec.batch_predict(wrong)
    number: Any = 7
    with pytest.raises(ValueError, match="'pairs' needs to be a list"):
        rec.batch_predict(number)


def test_k_is_filled_or_the_reason_is_told(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec = fitted("sasrec")
    seen = set(seen_by(graph, 7)["item_id"])
    new = graph.num_items - len(seen)
    assert set(rec.recommend(7, top_k=new)["item_id"]).isdisjoint(seen)  # and no warning
    with pytest.warns(UserWarning, match=f"catalogue has {graph.num_items} items, {len(seen)}"):
        assert len(rec.recommend(7, top_k=new + 1)) == new
    everything = rec.recommend(7, top_k=graph.num_items, filter_seen=False)
    assert set(everything["item_id"]) == set(graph.raw_ids("item").tolist())
    with pytest.warns(UserWarning, match=r"top_k=1000000000000, the first has"):
        assert len(rec.recommend(7, top_k=10**12)) == new  # and no memory is taken for more
    with pytest.warns(UserWarning, match="top_k=1000000000000"):
        assert len(rec.similar_items(7, top_k=10**12)) == graph.num_items - 1
    with pytest.raises(ValueError, match="'top_k'"):
        rec.recommend(7, top_k=0)


def test_somebody_without_a_past_gets_what_is_popular_from_models_that_count(
    fitted: Fitted, graph: TemporalRecGraph
) -> None:
    counts = graph.to_pandas()["item_id"].value_counts()
    found = fitted("gap_markov").recommend(history=[], top_k=5)
    assert (found["score"] == 0).all()
    assert [counts[i] for i in found["item_id"]] == sorted(counts, reverse=True)[:5]


# ---- as of a time -------------------------------------------------------------------------------


def other_future(graph: TemporalRecGraph, cut: int) -> TemporalRecGraph:
    """The same past; every later event has another item."""
    out: TemporalRecGraph = graph.clone()
    (kind,) = out.interaction_types
    later = out[kind].event_id >= cut
    item = out[kind].edge_index[1]
    item[later] = (item[later] * 7 + 3) % graph.num_items
    return out


@pytest.mark.parametrize("name", ALL)
def test_nothing_later_is_looked_at(name: str, fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec = fitted(name)
    (kind,) = graph.interaction_types
    at = int(graph[kind].time[graph.num_events // 4])
    changed = Recommender(name)
    changed._served = Served.start(
        rec.model, other_future(graph, graph.event_id_at(at)), "T1", "cpu"
    )
    users = [1, 5, 9, 30]
    left, right = (r.recommend(users, top_k=6, at=at) for r in (rec, changed))
    assert left.equals(right)
    assert not left.equals(rec.recommend(users, top_k=6)) or name == "popularity"
    before = graph.before(graph.event_id_at(at)).to_pandas()
    assert set(left["item_id"]) <= set(before["item_id"])
    stamp = pd.Timestamp(at, unit="s")
    assert rec.recommend(users, top_k=6, at=stamp).equals(left)
    assert rec.recommend(users, top_k=6, at=f"{stamp:%Y-%m-%d %H:%M:%S}").equals(left)
    if name not in ("popularity", "sage"):
        item = int(left["item_id"][0])
        assert rec.explain(1, item, at=at).to_dict() == changed.explain(1, item, at=at).to_dict()


def test_what_was_seen_later_may_be_offered_then(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec, events = fitted("sasrec"), seen_by(graph, 7)
    at = int(events["timestamp"].iloc[-1])
    then = set(events[events["timestamp"] < at]["item_id"])
    known = set(graph.before(graph.event_id_at(at)).to_pandas()["item_id"])
    offered = rec.recommend(7, top_k=len(known - then), at=at)
    assert set(offered["item_id"]) == known - then


def test_the_moment_is_told_on_track_t2_only(graph: TemporalRecGraph) -> None:
    last = int(seen_by(graph, 7)["timestamp"].iloc[-1])
    for track, same in (("T1", True), ("T2", False)):
        rec = Recommender("gap_markov").fit(graph, track=track, show=False)
        history = seen_by(graph, 7)["item_id"].tolist()
        times = [last] * len(history)
        soon, late = (
            rec.recommend(history=history, times=times, at=last + gap, top_k=20, filter_seen=False)
            for gap in (1, 25)
        )
        assert np.array_equal(soon["score"], late["score"])  # one class of gaps
        late = rec.recommend(
            history=history, times=times, at=last + 10**5, top_k=20, filter_seen=False
        )
        assert np.array_equal(soon["score"], late["score"]) == same


def test_fractions_of_a_moment_are_dropped(fitted: Fitted) -> None:
    rec = fitted("sasrec")
    assert rec.recommend(7, at=975000000.5).equals(rec.recommend(7, at=975000000))


@pytest.mark.parametrize("wrong", ["soon", True, 10**30, float("nan"), float("inf"), [1], None])
def test_a_moment_is_a_time(wrong: Any, fitted: Fitted) -> None:
    with pytest.raises(ValueError, match="'times' needs to be Unix seconds or a date"):
        fitted("sasrec").recommend(history=[1], times=[wrong])
    if wrong is not None:
        with pytest.raises(ValueError, match="'at' needs to be Unix seconds or a date"):
            fitted("sasrec").recommend(7, at=wrong)


# ---- somebody new -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sasrec", "tgt_bert4rec", "gap_markov", "enhanced_bert4rec"])
def test_the_same_history_gets_the_same_items(
    name: str, fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec, events = fitted(name), seen_by(graph, 7)
    known = 7 if name == "enhanced_bert4rec" else None  # which reads who it is
    history, times = events["item_id"].tolist(), events["timestamp"].tolist()
    given = rec.recommend(known, 6, history=history, times=times)
    stored = rec.recommend(7, 6)
    if name == "enhanced_bert4rec":  # ratings of the given events are not known
        assert not set(given["item_id"]) & set(history)
    else:
        assert given["item_id"].equals(stored["item_id"])
        assert np.allclose(given["score"], stored["score"], atol=1e-5)


def test_a_new_user_of_a_neighbourhood_model_is_one_more_user(
    fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec = fitted("sage")
    history, last = [3, 9, 21], int(graph.to_pandas()["timestamp"].iloc[-1])
    times = [last - 30, last - 20, last + 5]
    found = rec.recommend(history=history, times=times, top_k=6)
    events = graph.to_pandas()[["user_id", "item_id", "timestamp", "rating"]]
    mine = pd.DataFrame({"user_id": 999, "item_id": history, "timestamp": times, "rating": 3.0})
    more = TemporalRecGraph.from_pandas(pd.concat([events, mine]), rating="rating")
    served = Recommender("sage")
    served._served = Served.start(rec.model, more, "T1", "cpu")
    wanted = served.recommend(999, top_k=6)
    assert found["item_id"].tolist() == wanted["item_id"].tolist()
    assert np.allclose(found["score"], wanted["score"], atol=1e-5)
    assert len(rec.recommend(history=[3, 9, 3], top_k=6)) == 6  # an item twice


def test_events_of_a_history_are_of_the_kind_of_their_items() -> None:
    rows = [(u, i, t, "books" if i < 5 else "films") for t, (u, i) in
            enumerate((u, (u + k) % 10) for u in range(12) for k in range(6))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "relation"])
    graph = TemporalRecGraph.from_pandas(table, relation="relation")
    rec = Recommender("markov").fit(graph, show=False)
    question = ask_with_history(rec.served, [7, 2, 9])
    index = question.loader.index
    assert [index.relations[r] for r in index.relation.tolist()] == ["films", "books", "films"]
    assert index.item.tolist() == [7, 2, 9]


def test_events_of_a_history_after_the_moment_do_not_count(fitted: Fitted) -> None:
    rec = fitted("tgt_bert4rec")
    early = rec.recommend(history=[3, 9], times=["2001-01-01", "2001-01-02"], at="2001-01-03")
    late = rec.recommend(
        history=[3, 9, 21], times=["2001-01-01", "2001-01-02", "2001-01-03"], at="2001-01-03"
    )
    assert early.equals(late)


def test_a_profile_is_read_by_models_that_read_profiles(fitted: Fitted) -> None:
    rec = fitted("enhanced_bert4rec")
    woman = rec.recommend(profile={"gender": "F", "age": "25-34"}, top_k=60)
    man = rec.recommend(profile={"gender": "M", "age": 56}, top_k=60)
    assert not np.allclose(
        woman.sort_values("item_id")["score"], man.sort_values("item_id")["score"]
    )
    assert woman.equals(rec.recommend(profile={"gender": 0, "age": 2}, top_k=60))
    assert woman.equals(rec.recommend(profile={"gender": "F", "age": 30}, top_k=60))  # years
    with pytest.raises(ValueError, match=r"'gender' needs to be one of \['F', 'M'\]"):
        rec.recommend(profile={"gender": "X"})
    with pytest.raises(ValueError, match="'profile': SASRec reads no features"):
        fitted("sasrec").recommend(history=[1], profile={"gender": "F"})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "'user_id', 'history' or 'profile' needs to be given"),
        ({"user_id": 1, "times": [1]}, "'times' belongs to 'history'"),
        ({"history": [1, 2], "times": [5]}, "one time per item"),
        ({"history": [1, 2], "times": [5, 4]}, "needs to ascend"),
        ({"history": [1, 777]}, "'history': there is no item 777"),
        ({"user_id": [1, 2], "history": [1]}, "belong to one user"),
        ({"user_id": [1, 61, 62]}, r"no user 61 \(and 1 more\) among the 60 users"),
        ({"history": "abc"}, r"'history' needs to be a list \(got 'abc'\)"),
        ({"history": 5}, "'history' needs to be a list"),
        ({"history": [[1, 2]]}, r"'history' needs an id, .* for each item \(got \[1, 2\]\)"),
        ({"history": [1], "times": 5}, "'times' needs to be a list"),
        ({"user_id": [None]}, r"'user_id' needs an id, .* \(got None\)"),
        ({"user_id": float("nan")}, "there is no user nan among the 60 users"),
        ({"user_id": 10**30}, "there is no user 10+ among"),
        ({"user_id": 61}, "did you mean 59 or 60"),
        ({"user_id": "7"}, "ids are integers, did you mean 7"),
    ],
)
def test_what_cannot_be_asked_is_said(asked: dict[str, Any], said: str, fitted: Fitted) -> None:
    with pytest.raises(ValueError, match=said):
        fitted("sasrec").recommend(**asked)


def test_ids_and_histories_of_every_kind(fitted: Fitted) -> None:
    rec = fitted("sasrec")
    for user in (np.int64(7), torch.tensor(7), 7.0):
        assert rec.recommend(user).equals(rec.recommend(7))
    wanted = rec.recommend(history=[3, 9])
    for history in (np.array([3, 9]), pd.Series([3, 9]), torch.tensor([3, 9]), (3, 9)):
        assert rec.recommend(history=history).equals(wanted)
    assert len(rec.recommend(history=np.array([], dtype=int))) == 10
    for item in (None, [1, 2]):
        with pytest.raises(ValueError, match="'item_id' needs an id, an integer or a string"):
            rec.similar_items(item)
        with pytest.raises(ValueError, match="'item_id' needs an id"):
            rec.explain(7, item)


def test_near_names_are_offered_for_strings_and_titles(
    fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec = Recommender("markov").fit(toy_graph(), show=False)
    with pytest.raises(ValueError, match="did you mean 'ann'"):
        rec.recommend("anne")
    with pytest.raises(ValueError, match="'item_id': there is no item 'teas'.*'tea'"):
        rec.predict("ann", "teas")
    title = graph.strings("item", "title")[4]
    with pytest.raises(ValueError, match=r"did you mean 5 \(Simulated Film"):
        fitted("sasrec").similar_items(title.lower())


# ---- similar items and profiles -----------------------------------------------------------------


def test_similar_items_by_hand(fitted: Fitted, graph: TemporalRecGraph) -> None:
    rec = fitted("sasrec")
    assert isinstance(rec.model, SASRec)
    vectors = rec.model.item.detach().double().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors[4]
    order = [i for i in np.argsort(-cosine) if i != 4][:5]
    found = rec.similar_items(5, top_k=5)
    assert found["item_id"].tolist() == [i + 1 for i in order]
    assert np.allclose(found["score"], cosine[order], atol=1e-5)
    follow = fitted("gap_markov").similar_items(5, top_k=5)
    wanted = fitted("gap_markov").recommend(history=[5], top_k=5)
    assert set(follow["score"].round(6)) == set(wanted["score"].round(6))
    with pytest.raises(ValueError, match="Popularity scores all users alike"):
        fitted("popularity").similar_items(5)


def test_the_profile_of_a_user(fitted: Fitted, graph: TemporalRecGraph) -> None:
    profile, events = fitted("sasrec").user_profile(7), seen_by(graph, 7)
    assert profile.events == len(events)
    assert profile.mean_rating == pytest.approx(events["rating"].mean())
    assert (profile.first_time, profile.last_time) == (
        events["timestamp"].min(),
        events["timestamp"].max(),
    )
    assert [item for item, _ in profile.recent] == events["item_id"].tolist()[::-1][:5]
    assert profile.attributes["gender"] in ("F", "M")
    places = graph.index_of("item", events["item_id"].to_numpy())
    share = (graph["item"].genre[places] > 0).double().mean(0)
    assert max(profile.genres.values()) == pytest.approx(float(share.max()))
    assert f"user 7: gender {profile.attributes['gender']}" in str(profile)
    assert profile.to_dict()["recent"][0]["item_id"] == events["item_id"].iloc[-1]


def test_evaluate_asks_for_the_events_that_were_held_out(
    fitted: Fitted, graph: TemporalRecGraph
) -> None:
    rec = fitted("gap_markov")
    found = rec.evaluate(sampled=False)
    assert len(found.targets) == 60
    ranks = found.ranks["full"]
    last = seen_by(graph, 7).iloc[-1]
    (row,) = (found.targets.user == graph.index_of("user", [7])[0]).nonzero().view(-1).tolist()
    assert int(found.targets.item[row]) == int(graph.index_of("item", [last["item_id"]])[0])
    assert found.metrics()["full"]["HR@10"] == pytest.approx(float((ranks <= 10).double().mean()))

    with pytest.raises(ValueError, match="evaluate: 'sample' is no option.*did you mean 'sampled'"):
        rec.evaluate(sample=False)


def test_errors_of_ratings_are_told_where_ratings_are_foretold(fitted: Fitted) -> None:
    found = fitted("enhanced_bert4rec").rating_errors()
    assert found is not None
    assert set(found) == {"model", "mean", "bias", "targets"}
    assert found["targets"] == 60
    assert 0 < found["model"] < 4
    assert fitted("sasrec").rating_errors() is None


def test_before_fit_there_is_nothing_to_ask() -> None:
    rec = Recommender("sasrec", max_len=5)
    assert repr(rec) == "Recommender('sasrec', max_len=5): not fitted"
    with pytest.raises(RuntimeError, match="not fitted"):
        rec.recommend(1)
