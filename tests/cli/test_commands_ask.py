"""Asking and measuring a recommender as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tgrec.cli.ask import read_profile
from tgrec.datasets import save_graph, simulate_movielens
from tgrec.recommend import Recommender

Run = Callable[..., tuple[int, str, str]]


# ---- asking ------------------------------------------------------------------------------------


def test_answers_are_those_of_the_recommender(tgrec: Run, saved: Path, titles: list[str]) -> None:
    rec = Recommender.load(saved)
    status, out, _ = tgrec("recommend", saved, "--user_id", "2", "--k", "2", "--json")
    assert status == 0
    assert json.loads(out) == rec.recommend(2, 2).astype(object).to_dict("records")
    assert json.loads(out)[0]["title"] in titles
    _, out, _ = tgrec("recommend", saved, "--user", "2", "5", "-k", "1", "--json")
    assert [row["user_id"] for row in json.loads(out)] == [2, 5]
    _, out, _ = tgrec("similar", saved, "--item_id", "04", "--k", "3", "--json")
    assert json.loads(out) == rec.similar_items("04", 3).astype(object).to_dict("records")
    _, out, _ = tgrec("explain", saved, "--user_id", "2", "--item_id", "01")
    assert out.strip() == str(rec.explain(2, "01"))
    _, out, _ = tgrec("profile", saved, "--user_id", "2", "--json")
    assert json.loads(out)["events"] == 7


def test_titles_histories_and_moments(tgrec: Run, saved: Path, titles: list[str]) -> None:
    rec = Recommender.load(saved)
    by_title = tgrec("similar", saved, "--item_id", titles[3].upper(), "--json")
    assert by_title == tgrec("similar", saved, "--item_id", "04", "--json")
    _, out, _ = tgrec("recommend", saved, "--history", "01", titles[1], "--k", "2", "--json")
    wanted = rec.recommend(history=["01", "02"], top_k=2)
    assert json.loads(out) == wanted.astype(object).to_dict("records")
    _, out, _ = tgrec("recommend", saved, "--user_id", "2", "--at", "978300300", "--seen",
                      "--k", "3", "--json")  # fmt: skip
    wanted = rec.recommend(2, 3, filter_seen=False, at=978300300)
    assert json.loads(out) == wanted.astype(object).to_dict("records")
    words = ["recommend", saved, "--user_id", "2", "--seen", "--k", "3", "--json", "--at"]
    assert tgrec(*words, "978300300000")[1] == out
    year = rec.recommend(2, 3, filter_seen=False, at="2013")  # and not after 2013 seconds
    assert json.loads(tgrec(*words, "2013")[1]) == year.astype(object).to_dict("records")


def test_somebody_new_is_described(tgrec: Run, home: Path, tmp_path: Path, tiny: list[str]) -> None:
    graph, _ = simulate_movielens(num_users=30, num_items=24, mean_events=6)
    save_graph(graph, home / "new.tgrec")
    words = ["train", "new.tgrec", "--model", "enhanced_bert4rec", *tiny, "--n_heads", "1"]
    assert tgrec(*words, "--out", tmp_path / "r")[0] == 0
    rec, ask = Recommender.load(tmp_path / "r"), ["recommend", tmp_path / "r", "--k", "3"]
    told: dict[str, Any] = {"gender": "F", "age": 25, "occupation": 4}
    for more, history in ([], None), (["--history", "3"], [3]):
        _, out, _ = tgrec(*ask, "--profile", "gender=F, age=25,occupation=4", *more, "--json")
        wanted = rec.recommend(profile=told, history=history, top_k=3)
        assert json.loads(out) == wanted.astype(object).to_dict("records")
    item, times = rec.recommend(profile=told, top_k=1)["item_id"][0], ["2001-01-01", "978400000.5"]
    more = ["--history", "3", "9", "--times", *times, "--profile", "gender=F"]
    given: dict[str, Any] = {"history": [3, 9], "times": ["2001-01-01", 978400000]}
    given["profile"] = {"gender": "F"}
    assert json.loads(tgrec(*ask, *more, "--json")[1]) == (
        rec.recommend(top_k=3, **given).astype(object).to_dict("records")
    )
    out = tgrec("explain", tmp_path / "r", "--item_id", str(item), *more, "--json")[1]
    assert json.loads(out) == rec.explain(item_id=item, **given).to_dict()
    errors = rec.rating_errors()
    assert errors is not None
    assert json.loads(tgrec("eval", tmp_path / "r", "--json")[1])["ratings"] == errors
    said = f"RMSE of 30 foretold ratings: {errors['model']:.4f}; of the biases"
    assert said in tgrec("eval", tmp_path / "r")[1]
    for text, message in {
        "gender=X": "'gender' needs to be one of ['F', 'M'], or its number, of [0, 1] (got 'X')",
        "gender=2": "one of ['F', 'M'], or its number, of [0, 1] (got 2",
        "occupation=chef": "'occupation' needs to be one of ['other'",
        "sex=F": "the data say no 'sex' of users, but ['age', 'gender', 'occupation'",
        "gender=F,gender=M": "like gender=F,age=25",
    }.items():
        status, _, err = tgrec(*ask, "--profile", text)
        assert status == 2
        assert message in err
    assert read_profile("a=1,b=1", {"a": {0: "1", 1: "2"}}) == {"a": "1", "b": 1.0}
    assert "for somebody new" in tgrec(*ask, "--user_id", "3", "--profile", "gender=F")[2]


def test_a_list_too_short_says_why(tgrec: Run, saved: Path) -> None:
    status, out, err = tgrec("recommend", saved, "--user_id", "2", "--k", "8")
    assert status == 0
    assert len(out.splitlines()) == 3  # a heading, and the two films that the user has not met
    assert err.startswith("warning: the list could not be filled to top_k=8")


def test_the_seeds_call(tgrec: Run, saved: Path, tmp_path: Path) -> None:
    plain = tgrec("recommend", saved, "--user_id", "2", "--k", "2", "--json")[1]
    words = ["recommend", "--user_id", "2", "--k", "2", "--json", "--model_path"]
    for path in (saved, saved / "recommender.json", saved / "model" / "model.safetensors"):
        out = tgrec(*words, path, "--metadata_path", saved / "recommender.json")[1]
        assert out == plain
    best = json.loads(plain)[0]["item_id"]
    (tmp_path / "items.csv").write_text(f"id,title\n{best},My name for it\n")
    out = tgrec(*words, saved, "--metadata_path", tmp_path / "items.csv")[1]
    assert [row["title"] for row in json.loads(out)] == ["My name for it", ""]
    status, _, err = tgrec(*words, tmp_path / "best_model.pt")
    assert status == 1
    assert "--model_path: there is no recommender at" in err


# ---- measuring ---------------------------------------------------------------------------------


def test_eval_and_compare_agree(tgrec: Run, saved: Path) -> None:
    metrics = Recommender.load(saved).evaluate().metrics()
    status, out, _ = tgrec("eval", saved, "--json")
    alone = json.loads(out)["models"][str(saved)]
    assert status == 0
    assert alone["metrics"] == metrics
    assert json.loads(out)["ratings"] is None
    low, high = alone["intervals"]["NDCG@10"]
    assert low <= metrics["full"]["NDCG@10"] <= high
    status, out, err = tgrec("compare", saved, "popularity", "--baseline", "popularity", "--json")
    both = json.loads(out)
    assert status == 0
    assert "training popularity" in err
    assert both["models"][str(saved)]["metrics"] == metrics
    (test,) = [t for t in both["tests"] if t["metric"] == "NDCG@10"]
    other = both["models"]["popularity"]["metrics"]["full"]["NDCG@10"]
    assert test["difference"] == pytest.approx(metrics["full"]["NDCG@10"] - other)


def test_models_that_were_told_different_things_are_not_compared(
    tgrec: Run, saved: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    graph = Recommender.load(saved).graph
    rec = Recommender("sasrec", d_model=8, n_blocks=1, d_ff=8, max_len=6)
    rec.fit(graph, epochs=1, track="T2", show=False).save(told)
    for words in ((saved, told), (told, "markov", "--track", "T1")):
        status, _, err = tgrec("compare", *words)
        assert status == 2
        assert "models on several tracks (['T1', 'T2'])" in err
    status, out, _ = tgrec("compare", told, "markov", "--json")
    assert status == 0
    assert json.loads(out)["track"] == "T2"


def test_tables_name_model_and_seed(tgrec: Run, saved: Path) -> None:
    status, out, _ = tgrec("compare", saved, "markov", "--sampled", "false")
    assert status == 0
    assert "sasrec (film) seed 3" in out
    assert "markov seed 0" in out
    assert "paired bootstrap" in out
    assert "uniform-100" not in out
