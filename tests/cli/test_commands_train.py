"""``tgrec train`` as a person types it: from a file to a recommender."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tgrec.cli.train import _sentences
from tgrec.data import RecBatch, TemporalRecGraph
from tgrec.models import SASRec
from tgrec.recommend import Recommender

Run = Callable[..., tuple[int, str, str]]


def test_training_leaves_a_recommender(saved: Path) -> None:
    rec = Recommender.load(saved)
    assert rec.model.config["d_model"] == 8
    about = json.loads((saved / "train.json").read_text())
    assert about["training"] == {"epochs": 1, "seed": 3}
    assert about["result"]["epochs"] == 1


def test_wandb_hears_of_every_epoch_as_it_ends(
    tgrec: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: list[str]
) -> None:
    words = ["train", home, "--model", "sasrec", *tiny[:-2], "--epochs", "2", "--out",
             tmp_path / "r", "--use_wandb"]  # fmt: skip
    assert "python -m pip install wandb" in tgrec(*words)[2]
    (tmp_path / "wandb.py").write_text(
        "import pathlib\n"
        f"out = pathlib.Path({str(tmp_path / 'r')!r})\n"
        "class Config(dict):\n"
        "    def update(self, values, allow_val_change=False):\n"
        "        assert allow_val_change, 'a setting may be said in full only at the end'\n"
        "        super().update(values)\n"
        "class Session:\n"
        "    summary, config = {}, Config()\n"
        "    def log(self, entry, step):\n"
        "        epochs = len((out / 'history.jsonl').read_text().splitlines())\n"
        "        done = (out / 'recommender.json').exists()\n"
        "        print('LOGGED', step, epochs, done, entry['val/NDCG@10'] >= 0, sorted(entry)[0])\n"
        "    def finish(self): print('DONE', self.summary['epochs'], self.config['max_len'])\n"
        "def init(project, config): print('CONFIG', config['d_model']); return Session()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    status, out, _ = tgrec(*words)
    monkeypatch.delitem(sys.modules, "wandb")
    assert status == 0
    said = [line for line in out.splitlines() if line.split()[0] in ("CONFIG", "LOGGED", "DONE")]
    assert said == ["CONFIG 8", "LOGGED 1 1 False True loss", "LOGGED 2 2 False True loss",
                    "DONE 2 6"]  # fmt: skip


def history_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_an_interrupted_training_goes_on_bit_equal(
    tgrec: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: list[str]
) -> None:
    words = ["train", home, "--model", "sasrec", *tiny[:-2], "--epochs", "3", "--batch_size", "2",
             "--json", "--out"]  # fmt: skip
    assert tgrec(*words, tmp_path / "whole")[0] == 0
    steps, terms = iter(range(1, 100)), SASRec.loss_terms

    def interrupting(self: SASRec, batch: RecBatch) -> Any:
        if next(steps) == 6:  # in the second epoch of four steps
            signal.raise_signal(signal.SIGINT)
        return terms(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SASRec, "loss_terms", interrupting)
        status, out, _ = tgrec(*words, tmp_path / "parts")
    assert status == 130
    assert (json.loads(out)["stopped"], json.loads(out)["epochs"]) == ("interrupted", 1)
    assert "--resume goes on" in _sentences(json.loads(out))
    Recommender.load(tmp_path / "parts")  # already one to ask
    status, _, err = tgrec(*words, tmp_path / "parts", "--resume", "--lr", "0.5")
    assert status == 2
    assert "lr: 0.001 -> 0.5" in err
    status, out, _ = tgrec(*words, tmp_path / "parts", "--resume")
    assert (status, json.loads(out)["epochs"]) == (0, 3)
    weights = [(tmp_path / f / "model" / "model.safetensors") for f in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    epochs = [history_of(tmp_path / f) for f in ("whole", "parts")]
    assert [e["loss"] for e in epochs[0]] == [e["loss"] for e in epochs[1]]
    # Nothing is left to resume, and it is said.
    status, _, err = tgrec(*words, tmp_path / "parts", "--resume")
    assert status == 1
    assert "start the run without --resume" in err


def test_a_teacher_is_learned_from_and_not_saved(
    tgrec: Run, home: Path, saved: Path, tmp_path: Path
) -> None:
    words = ["train", home, "--model", "gru4rec", "--d_model", "4", "--epochs", "1", "--out"]
    status, _, err = tgrec(*words, tmp_path / "a", "--distill-weight", "0.5")
    assert status == 2
    assert "'distill_weight' is of no use without 'teacher'" in err
    status, _, err = tgrec(*words, tmp_path / "a", "--teacher", saved, "--distill-weight", "0.25")
    assert status == 0, err
    assert tgrec(*words, tmp_path / "b")[0] == 0
    taught, alone = (history_of(tmp_path / f) for f in "ab")
    assert len(taught[0]["losses"]) == 2  # that of the labels, and the teacher's
    assert "losses" not in alone[0]
    how = [
        "--teacher",
        saved,
        "--distill-at",
        "all",
        "--max_len",
        Recommender.load(saved).model.config["max_len"],
    ]
    status, _, err = tgrec(*words, tmp_path / "all", *how)
    assert status == 0, err
    assert "losses" not in history_of(tmp_path / "all")[0]  # soft labels are no part of their own
    rec = Recommender.load(tmp_path / "a")
    assert rec.name == "gru4rec"
    names = [set(load_file(tmp_path / f / "model" / "model.safetensors")) for f in "ab"]
    assert names[0] == names[1]
    about = json.loads((tmp_path / "a" / "train.json").read_text())
    assert about["training"] == {"epochs": 1, "teacher": "film", "distill_weight": 0.25}
    status, _, err = tgrec("train", "other.csv", *words[2:], tmp_path / "c", "--teacher", saved)
    assert status == 2
    assert "'teacher' knows other items" in err


def test_an_interruption_saves_and_says_so(
    tgrec: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Recommender.fit

    def interrupted(self: Recommender, data: TemporalRecGraph, **kwargs: Any) -> Recommender:
        from dataclasses import replace

        fit(self, data, **kwargs)
        assert self.result is not None
        self.result = replace(self.result, stopped="interrupted")
        return self

    monkeypatch.setattr(Recommender, "fit", interrupted)
    out = tmp_path / "r"
    assert tgrec("train", home, "--model", "markov", "--out", out)[0] == 130
    assert Recommender.load(out).name == "markov"
    assert tgrec("compare", "markov", "popularity", "--data", home)[0] == 130


def test_domains_of_a_table_and_the_name_of_the_one_that_is_asked_for(
    tgrec: Run, tmp_path: Path, tiny: list[str]
) -> None:
    rows = [f"{u},{'ab'[s % 2]}{(u + s) % 9},{100 * s + u},{'ab'[s % 2]}"
            for u in range(30) for s in range(10)]  # fmt: skip
    table = tmp_path / "two.csv"
    table.write_text("user,item,time,shop\n" + "\n".join(rows))
    words = ["train", table, "--model", "trigrec", "--relation", "shop", *tiny]
    assert tgrec(*words, "--target", "b", "--out", tmp_path / "r")[0] == 0
    status, out, _ = tgrec("recommend", tmp_path / "r", "--user_id", "3", "--k", "2", "--json")
    assert status == 0
    assert {row["item_id"][0] for row in json.loads(out)} == {"b"}
    status, _, said = tgrec(*words, "--target", "c", "--out", tmp_path / "s")
    assert (status, "needs to be one of ['a', 'b'] (got 'c')" in said) == (2, True)
    wrong = [word if word != "shop" else "shops" for word in words]
    assert "'shops'" in tgrec(*wrong, "--out", tmp_path / "t")[2]


def test_training_without_arguments_asks_for_data(tgrec: Run) -> None:
    status, out, said = tgrec("train")
    assert status == 2
    assert "zip()" not in out + said
    assert "DATA" in (out + said).upper()
    assert "there is no model ''" in tgrec("train", "x.csv", "--model=")[2]


def test_json_is_all_that_is_printed(
    tgrec: Run, home: Path, tmp_path: Path, tiny: list[str]
) -> None:
    """What is said on the way, of a start and of what is chosen, goes elsewhere."""
    words = ["train", home, "--model", "tgt_bert4rec", *tiny, "--learnable_fusion", "False",
             "--choose_gates", "True", "--json"]  # fmt: skip
    assert tgrec(*words, "--out", tmp_path / "a")[0] == 0
    status, out, said = tgrec(*words, "--init_from", tmp_path / "a", "--out", tmp_path / "b")
    assert status == 0
    assert json.loads(out)["model"] == "tgt_bert4rec"
    assert "items are known there" in said
    assert "choosing on validation" in said
