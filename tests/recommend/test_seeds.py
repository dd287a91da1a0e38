# ruff: noqa: B905 - the snippets stand as they are
"""The README snippets of the seeds, with only the imports changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tgrec.data import TemporalRecGraph
from tgrec.recommend import Recommender, seeds
from tgrec.recommend.seeds import Bert4Rec, RecommendationEngine, ml_1m

Fitted = Callable[[str], Recommender]


def train_test_split(
    frame: pd.DataFrame, test_size: float, random_state: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As in scikit-learn, which tgrec does not need."""
    order = np.random.default_rng(random_state).permutation(len(frame))
    cut = round(len(frame) * test_size)
    return frame.iloc[order[cut:]], frame.iloc[order[:cut]]


def mean_squared_error(true: Any, predicted: Any) -> float:
    return float(np.mean((np.asarray(true) - np.asarray(predicted)) ** 2))


@pytest.fixture
def _tiny_ml_1m(graph: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "movielens_1m", lambda root=None: graph)


@pytest.mark.usefixtures("_tiny_ml_1m")
def test_the_tutorial_of_seed_002(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Step 1
    data = ml_1m.load()
    ratings_df = data["ratings"]
    print(f"Loaded {len(ratings_df)} ratings")
    train_df, test_df = train_test_split(ratings_df, test_size=0.2, random_state=42)
    train_users = train_df["user_id"].values
    train_items = train_df["movie_id"].values
    train_ratings = train_df["rating"].values
    test_users = test_df["user_id"].values
    test_items = test_df["movie_id"].values
    test_ratings = test_df["rating"].values
    # Step 2
    model = Bert4Rec(
        name="Bert4Rec_Model",
        max_seq_len=50,
        hidden_dim=64,
        num_layers=2,
        num_heads=2,
        mask_prob=0.15,
        epochs=2,  # 20 in the tutorial
        batch_size=256,
        learning_rate=0.001,
        verbose=True,
    )
    print(f"Initialized {model.name}")
    # Step 3
    model.fit(user_ids=train_users, item_ids=train_items, ratings=train_ratings)
    print("Training complete!")
    # Step 4
    score = model.predict(user_id=1, item_id=100)
    print(f"Predicted score: {score:.3f}")
    test_predictions = model.batch_predict(list(zip(test_users[:100], test_items[:100])))
    # Step 5
    user_id = 1
    recommendations = model.recommend(user_id=user_id, top_k=10)
    print(f"Top-10 recommendations for User {user_id}:")
    for rank, item_id in enumerate(recommendations, 1):
        print(f"  {rank}. Item {item_id}")
    # Step 6
    test_pred = [model.predict(u, i) for u, i in zip(test_users[:30], test_items[:30])]
    rmse = np.sqrt(mean_squared_error(test_ratings[:30], test_pred))
    print(f"Test RMSE: {rmse:.4f}")
    # Step 7
    model.save("bert4rec_model.pkl")
    loaded = Bert4Rec.load("bert4rec_model.pkl")
    test_score = loaded.predict(1, 100)
    print(f"Loaded model prediction: {test_score:.3f}")

    assert score == test_score == 0.0  # there is no item 100 in these data
    assert loaded.predict(1, recommendations[0]) == model.predict(1, recommendations[0]) > 0
    assert loaded == model
    assert np.allclose(test_predictions[:30], test_pred, atol=1e-6)
    assert len(set(recommendations)) == 10
    assert set(recommendations).isdisjoint(train_df[train_df["user_id"] == 1]["movie_id"])
    assert (tmp_path / "bert4rec_model.pkl" / "recommender.json").is_file()
    assert "Top-10 recommendations for User 1:\n  1. Item" in capsys.readouterr().out
    every = model.batch_predict([(1, i) for i in sorted(set(train_items))])
    assert every.sum() == pytest.approx(1.0, abs=1e-4)
    config = model.recommender.model.config
    names = ("max_len", "d_model", "n_blocks", "n_heads", "mask_prob", "positions")
    assert [config[name] for name in names] == [50, 64, 2, 2, 0.15, "sinusoidal"]


def test_ratings_may_be_unknown() -> None:
    model = Bert4Rec(hidden_dim=8, num_layers=1, num_heads=1, epochs=1, verbose=False)
    model.fit([1, 1, 1, 2, 2], [5, 6, 7, 5, 6], ratings=[5.0, math.nan, 0.0, math.nan, 1.0])
    (kind,) = model.recommender.graph.interaction_types
    ratings = model.recommender.graph[kind].rating
    assert ratings.isnan().tolist() == [False, True, False, True, False]


def test_times_put_the_arrays_in_order(graph: TemporalRecGraph) -> None:
    events = graph.to_pandas()
    mixed = events.sample(frac=1, random_state=0)
    left, right = (
        Bert4Rec(hidden_dim=8, num_layers=1, epochs=1, verbose=False).fit(
            t["user_id"], t["item_id"], t["rating"], t["timestamp"]
        )
        for t in (events[events["timestamp"].diff() != 0], mixed)
    )
    assert left.recommender.graph.has_time
    assert right.recommender.graph.to_pandas()["timestamp"].is_monotonic_increasing


@pytest.mark.usefixtures("_tiny_ml_1m")
def test_the_three_tables(graph: TemporalRecGraph) -> None:
    data = ml_1m.load()
    ratings, users, movies = data["ratings"], data["users"], data["movies"]
    assert list(ratings.columns) == ["user_id", "movie_id", "rating", "timestamp"]
    assert len(ratings) == graph.num_events
    assert list(users.columns) == ["user_id", "gender", "age", "occupation"]
    assert set(users["gender"]) == {"F", "M"}
    assert set(users["age"]) <= {1, 18, 25, 35, 45, 50, 56}
    assert list(movies.columns) == ["movie_id", "title", "genres"]
    hot = graph["item"].genre.sum(1).tolist()
    assert [len(g.split("|")) for g in movies["genres"]] == hot
    # The tables are what the recommender takes.
    rec = Recommender("markov").fit(ratings, users=users, items=movies, show=False)
    profile = RecommendationEngine(rec).get_user_profile(7)
    assert profile["age_group"] in seeds.AGE_GROUPS_1M
    assert profile["occupation_code"] == users.set_index("user_id")["occupation"][7]


def test_the_engine_of_seed_001(fitted: Fitted, graph: TemporalRecGraph, tmp_path: Path) -> None:
    fitted("enhanced_bert4rec").save(tmp_path)
    engine = RecommendationEngine(tmp_path)
    recommendations = engine.get_recommendations(
        user_id=23, item_sequence=[1, 5, 10, 15], k=10, filter_seen=True
    )
    explanation = engine.explain_recommendation(
        user_id=23, item_sequence=[1, 5, 10, 15], recommended_item_id=42
    )
    profile = engine.get_user_profile(user_id=23)

    assert len(recommendations) == 10
    assert set(recommendations[0]) == {"item_id", "score", "genres", "year", "title"}
    assert {r["item_id"] for r in recommendations}.isdisjoint([1, 5, 10, 15])
    best = recommendations[0]
    assert best["title"] == graph.strings("item", "title")[best["item_id"] - 1]
    assert best["year"] == int(graph["item"].year[best["item_id"] - 1])
    assert len(best["genres"]) == int(graph["item"].genre[best["item_id"] - 1].sum())
    assert set(explanation) - {"explanation"} == {
        "recommended_item", "user_profile", "user_preferred_genres", "genre_overlap",
        "recent_sequence_length", "explanation_text",
    }  # fmt: skip
    assert explanation["recommended_item"]["item_id"] == 42
    assert explanation["recent_sequence_length"] == 4
    overlap = (graph["item"].genre[41] > 0) & (graph["item"].genre[[0, 4, 9, 14]] > 0).any(0)
    assert len(explanation["genre_overlap"]) == int(overlap.sum())
    assert json.loads(json.dumps(explanation)) == explanation
    assert explanation["user_profile"] == profile
    assert profile == {
        "gender": "FM"[int(graph["user"].gender[22])],
        "age_group": seeds.AGE_GROUPS_1M[int(graph["user"].age[22])],
        "occupation_code": int(graph["user"].occupation[22]),
    }


def test_a_profile_that_the_data_do_not_have_is_said(graph: TemporalRecGraph) -> None:
    rec = Recommender("markov").fit(graph.to_pandas(), show=False)
    with pytest.raises(ValueError, match="do not say gender, age, occupation"):
        RecommendationEngine(rec).get_user_profile(7)
    (best,) = RecommendationEngine(rec).get_recommendations(7, [1, 5], k=1)
    assert (best["genres"], best["year"], best["title"]) == ([], None, None)


def test_somebody_whom_the_data_do_not_know_has_a_sequence(fitted: Fitted) -> None:
    rec = fitted("enhanced_bert4rec")
    engine = RecommendationEngine(rec)
    found = engine.get_recommendations("nobody", [1, 5, 10], k=3)
    assert [row["item_id"] for row in found] == rec.recommend(history=[1, 5, 10], top_k=3)[
        "item_id"
    ].tolist()
    why = engine.explain_recommendation("nobody", [1, 5, 10], 42)
    assert (why["user_profile"], why["recent_sequence_length"]) == ({}, 3)


def test_slips_of_the_seeds_calls(fitted: Fitted, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'user_ids', 'item_ids' need one value .*\[2, 3\]"):
        Bert4Rec().fit([1, 2], [1, 2, 3])
    fitted("sasrec").save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"bert4rec\.json is missing; Recommender\.load"):
        Bert4Rec.load(tmp_path)
