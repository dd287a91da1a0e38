from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tgrec.data import TemporalRecGraph
from tgrec.datasets import load_graph, save_graph
from tgrec.models import SASRec
from tgrec.recommend import Recommender
from tgrec.testing import cycle_graph, toy_graph

Fitted = Callable[[str], Recommender]


class Mine(SASRec):
    """A model of one's own."""


@pytest.fixture
def saved(fitted: Fitted, tmp_path: Path) -> Path:
    fitted("sasrec").save(tmp_path / "rec")
    return tmp_path / "rec"


def change(folder: Path, **values: Any) -> None:
    about = json.loads((folder / "recommender.json").read_text())
    (folder / "recommender.json").write_text(json.dumps({**about, **values}))


@pytest.mark.parametrize("name", ["sasrec", "tgt_bert4rec", "enhanced_bert4rec", "sage"])
def test_what_is_loaded_says_the_same(name: str, fitted: Fitted, tmp_path: Path) -> None:
    rec = fitted(name)
    rec.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    users = [1, 7, 9]
    assert loaded.recommend(users, top_k=5).equals(rec.recommend(users, top_k=5))
    assert loaded.similar_items(5).equals(rec.similar_items(5))
    assert loaded.explain(7, 5).to_dict() == rec.explain(7, 5).to_dict()
    assert loaded.user_profile(7) == rec.user_profile(7)
    assert loaded.evaluate(sampled=False).metrics() == rec.evaluate(sampled=False).metrics()
    assert loaded.name == rec.name
    assert loaded.settings.keys() == rec.settings.keys()


def test_the_folder_holds_tensors_and_json_only(saved: Path) -> None:
    files = sorted(str(p.relative_to(saved)) for p in saved.rglob("*") if p.is_file())
    assert files == [
        "graph.safetensors", "model/config.json", "model/model.safetensors", "recommender.json",
    ]  # fmt: skip
    about = json.loads((saved / "recommender.json").read_text())
    assert (about["name"], about["split"], about["track"]) == ("sasrec", "leave_one_out", "T1")


def test_saving_again_replaces_what_was_there(saved: Path, fitted: Fitted) -> None:
    fitted("gap_markov").save(saved)
    assert Recommender.load(saved).name == "gap_markov"


def test_track_and_split_come_back(tmp_path: Path) -> None:
    rec = Recommender("gap_markov").fit(cycle_graph(), track="T2", split="global_time", show=False)
    rec.save(tmp_path)
    loaded = Recommender.load(tmp_path)
    assert loaded.served.loader.track == "T2"
    assert loaded.evaluate(sampled=False).metrics() == rec.evaluate(sampled=False).metrics()
    assert "cold user" in rec.evaluate(sampled=False).groups


def test_a_class_of_ones_own_is_given_not_read(tmp_path: Path) -> None:
    rec = Recommender(Mine, d_model=8, n_blocks=1, d_ff=8, max_len=6)
    rec.fit(cycle_graph(), epochs=1, show=False).save(tmp_path)
    with pytest.raises(ValueError, match="'Mine'"):
        Recommender.load(tmp_path)
    loaded = Recommender.load(tmp_path, model=Mine)
    assert type(loaded.model) is Mine
    assert loaded.recommend(3).equals(rec.recommend(3))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2, "tgrec": "9.9"}, "format 2, written by tgrec 9.9"),
        ({"catalogue": "0" * 64}, "another catalogue"),
        ({"sha256": {}}, "damaged"),
        ({"sha256": {"../secret": "0"}}, "damaged"),
        ({"sha256": None}, "damaged"),
        ({"name": None}, "damaged .*'name' is None"),
        ({"settings": []}, r"damaged .*'settings' is \[\]"),
        ({"fit": None}, "damaged .*'fit' is None"),
        ({"name": "bert4rec"}, "names the model 'bert4rec', and .* holds a SASRec"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    values: dict[str, Any], said: str, saved: Path
) -> None:
    change(saved, **values)
    with pytest.raises(ValueError, match=said):
        Recommender.load(saved)


@pytest.mark.parametrize("key", ["name", "settings", "split", "track", "catalogue", "tgrec"])
def test_what_lacks_something_is_damaged(key: str, saved: Path) -> None:
    about = json.loads((saved / "recommender.json").read_text())
    del about[key]
    (saved / "recommender.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"is damaged \(KeyError\('{key}'\)\)"):
        Recommender.load(saved)


def test_a_file_of_another_folder_is_refused(
    saved: Path, fitted: Fitted, tmp_path: Path, graph: TemporalRecGraph
) -> None:
    fitted("tgt_bert4rec").save(tmp_path / "other")
    shutil.copy(tmp_path / "other/model/model.safetensors", saved / "model/model.safetensors")
    with pytest.raises(ValueError, match="is not the file that recommender.json was written for"):
        Recommender.load(saved)
    save_graph(graph.before(100), saved / "graph.safetensors")
    assert load_graph(saved / "graph.safetensors").num_events == 100
    with pytest.raises(ValueError, match=r"graph\.safetensors is not the file"):
        Recommender.load(saved)


def test_a_device_that_is_not_there_is_named(saved: Path) -> None:
    with pytest.raises(ValueError, match="'device' 'gpu' cannot be used here .*use device='cpu'"):
        Recommender.load(saved, device="gpu")


def test_what_is_missing_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"recommender\.json is missing"):
        Recommender.load(tmp_path)
    (saved / "graph.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"graph\.safetensors is missing"):
        Recommender.load(saved)
    (saved / "recommender.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Recommender.load(saved)


def test_a_half_written_folder_is_none(
    saved: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tgrec.recommend.folder.save_model", full)
    with pytest.raises(OSError, match="disk full"):
        fitted("gap_markov").save(saved)
    with pytest.raises(FileNotFoundError, match="there is no recommender"):
        Recommender.load(saved)


def test_a_file_in_the_place_of_the_folder_stays(tmp_path: Path) -> None:
    rec = Recommender("markov").fit(toy_graph(), show=False)
    (tmp_path / "model.pkl").write_text("mine")
    with pytest.raises(ValueError, match="is a file; name another folder"):
        rec.save(tmp_path / "model.pkl")
    assert (tmp_path / "model.pkl").read_text() == "mine"


def test_the_seed_of_the_training_is_kept(graph: TemporalRecGraph, tmp_path: Path) -> None:
    settings = {"d_model": 8, "n_blocks": 1, "max_len": 4}
    rec = Recommender("sasrec", **settings).fit(graph, epochs=1, seed=7, show=False)
    rec.save(tmp_path)
    assert (rec.seed, Recommender.load(tmp_path).seed) == (7, 7)
