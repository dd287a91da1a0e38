from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tgrec.data import Sampling, TemporalRecGraph
from tgrec.datasets import read_interactions
from tgrec.models import SASRec
from tgrec.recommend import Recommender, fitting
from tgrec.recommend.fitting import graph_of, settings_for, split_of
from tgrec.recommend.names import attributes_of, coded_profile
from tgrec.testing import cycle_graph

SMALL: dict[str, Any] = {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 8}
QUICK: dict[str, Any] = {"epochs": 1, "show": False}


def test_it_learns_what_is_there_to_be_learned(events: pd.DataFrame) -> None:
    rec = Recommender("sasrec", **SMALL, dropout=0.0)
    rec.fit(events, epochs=50, lr=1e-2, batch_size=16, eval_every=25, show=False)
    walkers = events.groupby("user_id")["item_id"].last()
    users = walkers.index.tolist()[:12]
    first = rec.recommend(users, top_k=1).set_index("user_id")["item_id"]
    hits = [first[u] == (walkers[u] + 1) % 24 for u in users]
    assert np.mean(hits) > 0.9
    assert rec.result is not None
    assert rec.result.epochs == 50


def test_columns_are_named_or_recognised(events: pd.DataFrame) -> None:
    named = events.rename(columns={"user_id": "who", "item_id": "what", "timestamp": "when"})
    usual = events.rename(columns={"user_id": "userId", "item_id": "movieId"})
    items = pd.DataFrame({"movie_id": range(24), "title": [f"film {i}" for i in range(24)],
                          "genres": ["Drama|War", "War"] * 12})  # fmt: skip
    users = pd.DataFrame({"id": sorted(set(events["user_id"])), "gender": ["F", "M"] * 24})
    left = Recommender("markov").fit(named, user="who", item="what", time="when", **QUICK)
    right = Recommender("markov").fit(usual, items=items, users=users, **QUICK)
    assert left.recommend(3, 4)["score"].equals(right.recommend(3, 4)["score"])
    found = right.recommend(3, 4)
    assert found["title"].tolist() == [f"film {i}" for i in found["item_id"]]
    assert right.graph["item"].genre.sum(0).tolist() == [12.0, 24.0]
    assert right.graph["user"].gender.tolist() == [0, 1] * 24
    assert right.user_profile(3).attributes == {"gender": "M"}
    with pytest.raises(ValueError, match="'user'"):
        Recommender("markov").fit(named, **QUICK)
    with pytest.raises(TypeError, match="'data' needs to be a DataFrame"):
        Recommender("markov").fit([(1, 2)], **QUICK)  # type: ignore[arg-type]


def test_tables_are_cleaned_as_files_are(tmp_path: Path) -> None:
    events = pd.DataFrame({"user_id": [1, 1, 2, 3], "movieId": [7, 8, 7, 9]})
    items = pd.DataFrame({"movieId": ["7", "8"], "title": ["Heat (1995)", None],
                          "genres": ["Action|Crime", ""]})  # fmt: skip
    users = pd.DataFrame({"user_id": [1, 2], "sex": ["M", None], "age": [25.0, np.nan],
                          "occupation": [4, 20]})  # fmt: skip
    tables = {"ratings": events, "movies": items, "users": users}
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    read, mine = read_interactions(tmp_path), graph_of(events, users=users, items=items)
    for node_type in ("user", "item"):
        assert {k: v.tolist() for k, v in mine[node_type].items() if k != "num_nodes"} == {
            k: v.tolist() for k, v in read[node_type].items() if k != "num_nodes"
        }
    assert mine["item"].year.tolist() == [1995, 0, 0]
    assert mine.strings("item", "title") == ["Heat (1995)", "", ""]
    people = [attributes_of(mine, "user", user) for user in range(3)]
    assert people == [
        {"gender": "M", "age": "25-34", "occupation": "college/grad student"},
        {"occupation": "writer"},
        {},
    ]


def test_an_index_with_names_is_a_column() -> None:
    events = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "timestamp": [10**9, 10**8]})
    items = pd.DataFrame({"id": [7, 8], "title": ["a", "b"]})
    users = pd.DataFrame({"user_id": [1], "age": [25]})
    plain = graph_of(events, users=users, items=items)
    moved = graph_of(events.set_index("timestamp"), users=users.set_index("user_id"),
                     items=items.set_index("id"))  # fmt: skip
    assert moved.to_pandas().equals(plain.to_pandas())
    assert moved.strings("item", "title") == ["a", "b"]
    assert moved["user"].age.tolist() == [25]


def test_genres_may_be_lists_years_missing_and_columns_ones_own() -> None:
    events = pd.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"]})
    items = pd.DataFrame({"item_id": ["a", "b"], "genres": [["War", "Drama"], None],
                          "year": [1995.0, np.nan], "price": [2.5, 3.0]})  # fmt: skip
    graph = graph_of(events, items=items)
    assert graph.strings("item", "genres") == ["War|Drama", ""]
    assert graph["item"].genre.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert graph["item"].year.tolist() == [1995, 0]
    assert graph["item"].price.tolist() == [2.5, 3.0]


def test_columns_that_cannot_be_features_are_left_out_and_named() -> None:
    events = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [7, 8, 9]})
    items = pd.DataFrame({"id": [7, 8], "title": ["a", None], "price": [1.5, 2.0],
                          "seen": [True, False], "budget": [1.0, np.nan], "box office": [1, 2],
                          "time": [3, 4], "tags": [["x"], ["y"]],
                          "released": pd.to_datetime(["1995-01-01", "1996-01-01"])})  # fmt: skip
    items = pd.concat([items, pd.DataFrame({"two": [1, 2]}), pd.DataFrame({"two": [3, 4]})], axis=1)
    with pytest.warns(UserWarning, match="'items': left out") as warned:
        graph = graph_of(events, items=items)
    (said,) = [str(w.message) for w in warned]
    for name in ("budget", "box office", "time", "tags", "released", "two"):
        assert repr(name) in said
        assert name not in graph["item"]
    assert "'price'" not in said
    assert "missing values in row 2 (1 in all); fill them" in said
    assert graph["item"].price.tolist()[:2] == [1.5, 2.0]
    assert graph["item"].seen.tolist() == [True, False, False]  # nothing is known of 9
    assert graph.strings("item", "title") == ["a", "", ""]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ({"x": [1]}, "'items': there is no column of items among .*call it item_id"),
        ({"id": ["b12"]}, "'items': column 'item_id' has ids that are no integers, first 'b12'"),
        ({"id": [5, 5]}, "'items': column 'item_id' repeats 5"),
        ({"id": [1005, 1006]}, r"'items': no id .* 'item_id', such as \[1005, 1006\], is one of"),
        ({"id": [5], "title": ["a"], "name": ["b"]}, "'title', 'name'.*could be meant"),
    ],
)
def test_slips_in_tables_of_items(items: dict[str, list[Any]], said: str) -> None:
    events = pd.DataFrame({"user_id": [1], "item_id": [5]})
    with pytest.raises(ValueError, match=said):
        graph_of(events, items=pd.DataFrame(items))


@pytest.mark.parametrize(("known", "few"), [([7], True), ([7, 8], False), ([7, 8, 9], False)])
def test_a_table_that_knows_few_of_the_ids_is_warned_of(known: list[int], few: bool) -> None:
    events = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [7, 8, 9]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph_of(events, items=pd.DataFrame({"id": known, "price": 1.0}))
    said = [str(w.message) for w in caught]
    assert len(said) == few
    if few:
        assert "'items': column 'item_id' has only 1 of the 3 ids of the events" in said[0]
        assert "such as [8, 9]" in said[0]


def test_a_profile_is_said_in_words_codes_or_years() -> None:
    events = pd.DataFrame({"user_id": [1, 2], "item_id": [5, 6]})
    users = pd.DataFrame({"user_id": [1, 2], "gender": ["M", "F"], "age": [25, 56],
                          "occupation": [4, 20]})  # fmt: skip
    graph = graph_of(events, users=users)
    wanted = {"gender": 0.0, "age": 25.0, "occupation": 20.0}
    for gender, age, job in (("F", "25-34", "writer"), (0, 25, 20), ("F", np.int64(30), 20.0)):
        assert coded_profile(graph, {"gender": gender, "age": age, "occupation": job}) == wanted
    for wrong in ({"age": [1, 2]}, {"age": float("nan")}, {"gender": None}, {"age": "25"}):
        with pytest.raises(ValueError, match=r"'(age|gender)' needs to be one of \["):
            coded_profile(graph, wrong)
    text: Any = "gender=F"
    with pytest.raises(ValueError, match=r"'profile' needs to be like \{'gender': 'F'"):
        coded_profile(graph, text)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda g: Recommender("sasrek"), "did you mean 'sasrec'"),
        (lambda g: Recommender(dict), "RecModel subclass"),  # type: ignore[arg-type]
        (lambda g: Recommender("sasrec", max_length=3), "did you mean 'max_len'"),
        (lambda g: Recommender("sasrec", epochs=3), r"option of fit\(\)"),
        (lambda g: Recommender("sasrec").fit(g, epoch=3), "did you mean 'epochs'"),
        (lambda g: Recommender("sasrec").fit(g, max_len=3), r"give it to Recommender"),
        (lambda g: Recommender("sasrec").fit(g, batch_size="a"), "'batch_size' needs to be"),
        (lambda g: Recommender("sasrec").fit(g, epochs="a"), "'epochs' needs to be"),
        (lambda g: Recommender("sasrec").fit(g, seed="x"), r"'seed' needs .*\(got 'x'\)"),
        (lambda g: Recommender("sasrec").fit(g, seed=None), r"'seed' needs .*\(got None\)"),
        (lambda g: Recommender("sasrec").fit(g, device=None), "'device' 'None' cannot be used"),
        (lambda g: Recommender("markov").fit(g, init_from="x"), "'init_from': SkipMarkov has no"),
        (lambda g: Recommender("markov").fit(g, resume=True), "'resume': SkipMarkov has no"),
        (lambda g: Recommender("popularity").fit(g, device="gpu"), "'device' 'gpu' cannot be used"),
        (lambda g: Recommender("sasrec").fit(g, split="loo"), "'split' needs to be one of"),
        (lambda g: Recommender("sasrec").fit(g, user="u"), "'user' is for tables"),
    ],
)
def test_slips_are_answered(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(cycle_graph())


def test_settings_suit_those_who_are_asked_for() -> None:
    """Of 600 users 20 have an event of the second kind."""
    rows = [(u, i, "a") for u in range(600) for i in range(3)] + [(u, 9, "b") for u in range(20)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "kind"])
    graph = TemporalRecGraph.from_pandas(table, time=None, relation="kind")
    steps = []
    for relation, seeds in ((None, 600), (0, 600), (1, 20)):
        found = settings_for(graph, Sampling(max_len=50, relation=relation), {})
        steps.append((max(1, seeds // found.batch_size), found.epochs))
    assert steps[0] == steps[1]
    assert steps[2][0] < steps[0][0]
    assert steps[2][1] >= steps[0][1]


def test_settings_suit_the_size_of_the_data() -> None:
    few = settings_for(cycle_graph(num_users=40), Sampling(max_len=50), {})
    many = settings_for(cycle_graph(num_users=20_000), Sampling(max_len=5), {})
    assert (few.batch_size, many.batch_size) == (16, 256)
    assert few.epochs == 200
    assert 5 <= many.epochs < 200
    assert many.epochs * (20_000 // 256) <= fitting.STEPS
    assert (few.windows, many.windows) == ("last", "random")
    given = settings_for(cycle_graph(), Sampling(max_len=50), {"epochs": 3, "windows": "all"})
    assert (given.epochs, given.windows, given.patience) == (3, "all", 3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_running_out_of_memory_names_the_remedies(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(fitting, "train", fail)
    with pytest.raises(MemoryError) as caught:
        Recommender("sasrec", max_len=77).fit(cycle_graph(), batch_size=31, show=False)
    assert "batch_size (now 31)" in str(caught.value)
    assert "max_len (now 77)" in str(caught.value)
    assert caught.value.__cause__ is error
    with pytest.raises(MemoryError, match="gradient_checkpointing=True"):
        Recommender("enhanced_bert4rec").fit(cycle_graph(), show=False)


def test_running_out_of_memory_while_answering_names_the_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rec = Recommender("sasrec", **SMALL).fit(cycle_graph(), **QUICK)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(SASRec, "score", fail)
    for ask in (lambda: rec.recommend(1), lambda: rec.explain(1, 2), lambda: rec.predict(1, 2)):
        with pytest.raises(MemoryError, match=r"asking SASRec .*now max_len=8.*device='cpu'"):
            ask()


def test_a_folder_that_cannot_be_is_said_before_training(
    events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(SASRec, "loss_terms", lambda *_: pytest.fail("it was trained"))
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="'folder': .*file' is a file; name another folder"):
            Recommender("sasrec", **SMALL).fit(events, folder=folder, **QUICK)
    assert (tmp_path / "file").read_text() == "mine"


def test_other_errors_of_training_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(fitting, "train", fail)
    with pytest.raises(RuntimeError, match="something else"):
        Recommender("sasrec").fit(cycle_graph(), show=False)


def test_domains_of_a_table_are_relations_and_the_target_is_what_is_recommended() -> None:
    rows = [(user, (user + step) % 10 + 10 * (step % 2), 100 * step + user, "ab"[step % 2])
            for user in range(30) for step in range(10)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "shop"])
    rec = Recommender("trigrec", target="b", **{**SMALL, "n_heads": 2})
    rec.fit(table, relation="shop", **QUICK)
    assert rec.graph.interaction_types == [("user", "a", "item"), ("user", "b", "item")]
    assert (rec.recommend(3, top_k=4)["item_id"] >= 10).all()
    with pytest.raises(ValueError, match="'relation'.*'shops'"):
        Recommender("markov").fit(table, relation="shops", **QUICK)


@pytest.mark.parametrize("split", ["leave_one_out", "global_time"])
def test_a_model_of_one_domain_is_chosen_and_measured_there(split: Any, tmp_path: Path) -> None:
    """Among the last events of all domains most would be of others, whose items come last."""
    rows = [(user, (user + step) % 10 + 10 * (step % 2), 100 * step + user, "ab"[step % 2])
            for user in range(30) for step in range(10 + user % 2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "shop"])
    rec = Recommender("trigrec", target="a", **{**SMALL, "n_heads": 2})
    rec.fit(table, relation="shop", split=split, **QUICK)
    for fitted in (rec, (rec.save(tmp_path), Recommender.load(tmp_path))[1]):
        measured = fitted.evaluate(sampled=False)
        asked = fitted.graph["user", "a", "item"].event_id
        assert torch.isin(measured.targets.cut, asked).all()
        assert int(measured.ranks["full"].max()) <= 10
        assert torch.isin(split_of(fitted.graph, split, "a").val.cut, asked).all()
        with pytest.warns(UserWarning, match="10 of them have no event in 'a'"):
            offered = fitted.recommend(3, top_k=15, filter_seen=False)
        assert sorted(offered["item_id"]) == list(range(10))
        assert "no event in 'a'" in str(fitted.explain(3, 12))
    with pytest.raises(ValueError, match="'target' needs to be in 0..1, for .* \\(got 2\\)"):
        Recommender("trigrec", target=2).fit(table, relation="shop", **QUICK)
    # Models of all events are asked for all of them.
    whole = Recommender("popularity").fit(table, relation="shop", split=split, show=False)
    kinds = whole.graph["user", "b", "item"].event_id
    assert torch.isin(whole.evaluate(sampled=False).targets.cut, kinds).any()


def test_what_is_no_tracker_is_said_before_anything_is_trained() -> None:
    name: Any = "tensorboard"
    with pytest.raises(TypeError, match="'tracker' needs to be a function .* 'tensorboard'"):
        Recommender("sasrec", **SMALL).fit(cycle_graph(), tracker=name, show=False)


def test_a_model_that_does_not_fit_into_memory_names_remedies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(SASRec, "from_graph", fail)
    with pytest.raises(MemoryError, match="building SASRec .* d_model, max_len"):
        Recommender("sasrec").fit(cycle_graph(), show=False)


@pytest.mark.parametrize("name", ["num_features", "num_edges"])
def test_what_is_found_out_from_the_data_is_not_given(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is found out from the data by fit"):
        Recommender("tgt_bert4rec", **{name: 3})
