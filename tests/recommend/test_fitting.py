from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tgrec.data import Sampling, TemporalRecGraph, leave_one_out
from tgrec.datasets import read_interactions
from tgrec.models import BERT4Rec, SASRec
from tgrec.recommend import Recommender, fitting
from tgrec.recommend.fitting import graph_of, settings_for, start_from
from tgrec.recommend.names import attributes_of, coded_profile
from tgrec.testing import cycle_graph

SMALL: dict[str, Any] = {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 8}
QUICK: dict[str, Any] = {"epochs": 1, "show": False}


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    """Everybody walks the cycle 0, 1, ..., 23, 0."""
    return cycle_graph().to_pandas().drop(columns="event_id")


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


def test_genres_may_be_lists_years_missing_and_columns_ones_own() -> None:
    events = pd.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"]})
    items = pd.DataFrame({"item_id": ["a", "b"], "genres": [["War", "Drama"], None],
                          "year": [1995.0, np.nan], "price": [2.5, 3.0]})  # fmt: skip
    graph = graph_of(events, items=items)
    assert graph.strings("item", "genres") == ["War|Drama", ""]
    assert graph["item"].genre.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert graph["item"].year.tolist() == [1995, 0]
    assert graph["item"].price.tolist() == [2.5, 3.0]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ({"x": [1]}, "'items': there is no column of items among .*call it item_id"),
        ({"id": ["b12"]}, "'items': column 'item_id' has ids that are no integers, first 'b12'"),
        ({"id": [5, 5]}, "'items': column 'item_id' repeats 5"),
        ({"id": [5], "title": ["a"], "name": ["b"]}, "'title', 'name'.*could be meant"),
    ],
)
def test_slips_in_tables_of_items(items: dict[str, list[Any]], said: str) -> None:
    events = pd.DataFrame({"user_id": [1], "item_id": [5]})
    with pytest.raises(ValueError, match=said):
        graph_of(events, items=pd.DataFrame(items))


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
        (lambda g: Recommender("popularity").fit(g, device="gpu"), "'device' 'gpu' cannot be used"),
        (lambda g: Recommender("sasrec").fit(g, split="loo"), "'split' needs to be one of"),
        (lambda g: Recommender("sasrec").fit(g, user="u"), "'user' is for tables"),
    ],
)
def test_slips_are_answered(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(cycle_graph())


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


def test_other_errors_of_training_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(fitting, "train", fail)
    with pytest.raises(RuntimeError, match="something else"):
        Recommender("sasrec").fit(cycle_graph(), show=False)


# ---- starting from another model ----------------------------------------------------------------


def shifted(events: pd.DataFrame) -> TemporalRecGraph:
    """Items 10..23 keep their ids, 24..33 are new; numbered from 0 they are all others."""
    kept = events[events["item_id"] >= 10]
    new = events[events["item_id"] < 10].assign(item_id=lambda t: t["item_id"] + 24)
    return TemporalRecGraph.from_pandas(pd.concat([kept, new]))


@pytest.mark.parametrize("cls", [SASRec, BERT4Rec])
def test_weights_of_another_catalogue_are_matched_by_raw_id(
    cls: Any, events: pd.DataFrame, tmp_path: Path
) -> None:
    old = Recommender(cls, **SMALL)
    old.fit(events, **QUICK)
    # A class of one's own is saved and found by its name; here it is one of MODELS.
    old.save(tmp_path)
    graph = shifted(events)
    torch.manual_seed(5)
    model = cls.from_graph(leave_one_out(graph).train, **SMALL)
    before = {k: v.clone() for k, v in model.named_parameters()}
    assert start_from(model, graph, tmp_path)["items"] == 14
    assert isinstance(old.model, cls)
    for item in range(10, 24):
        (row,) = graph.index_of("item", [item]).tolist()
        assert torch.equal(model.item[row], old.model.item[item])
    for item in range(24, 34):
        (row,) = graph.index_of("item", [item]).tolist()
        assert torch.equal(model.item[row], before["item"][row])
    assert torch.equal(model.item[24:], old.model.item[24:])  # the mask token, where there is one
    rest = {k: v for k, v in model.named_parameters() if k != "item"}
    theirs = dict(old.model.named_parameters())
    assert all(torch.equal(v, theirs[k]) for k, v in rest.items())


def test_a_start_that_does_not_fit_is_said(events: pd.DataFrame, tmp_path: Path) -> None:
    Recommender("sasrec", **SMALL).fit(events, **QUICK).save(tmp_path)
    with pytest.raises(ValueError, match="'init_from'.*other settings"):
        Recommender("sasrec", **{**SMALL, "d_model": 8}).fit(events, init_from=tmp_path, **QUICK)
    strange = events.assign(item_id=events["item_id"] + 1000)
    with pytest.raises(ValueError, match="knows none of the items"):
        Recommender("sasrec", **SMALL).fit(strange, init_from=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="holds a 'SASRec'"):
        Recommender("bert4rec", **SMALL).fit(events, init_from=tmp_path, **QUICK)
