"""``benchmarks/trigrec.py``: the whole pipeline on a tiny set, stopped and resumed."""

from __future__ import annotations

import importlib
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tgrec.models import TriGRec
from tgrec.training import read_kept_ranks, read_records, read_run

TINY = "--override d_model=8,d_ff=8,max_len=12,batch_size=16,num_epochs=1,eval_every=1"
Call = Callable[[str], tuple[int, str]]


def test_the_whole_pipeline(trigrec: Call, tmp_path: Path) -> None:
    record = tmp_path / "records.jsonl"
    code, printed = trigrec(f"all --target kitchen {TINY} --save_every 1 --record {record}")
    assert code == 0, printed
    assert "SIMULATED" in printed
    users, recommender = sorted((tmp_path / "runs").iterdir(), reverse=True)
    assert users.name == "users-simulated-kitchen-seed0"
    assert recommender.name == "trigrec-simulated-kitchen-seed0"
    assert (users / "epochs" / "0001" / "model.safetensors").is_file()
    folder = users / "embeddings" / "kitchen"
    for stem in ("spe_emb_ep1_A", "spe_emb_ep1_B", "com_emb_ep1_A", "cross_emb_ep1_B"):
        assert np.load(folder / f"{stem}.npy", allow_pickle=False).shape == (40, 8)
        assert (folder / f"{stem}.pkl").is_file()
    assert len(json.loads((folder / "users.json").read_text())["users"]) == 40
    assert (recommender / "model" / "model.safetensors").is_file()
    gates = json.loads((recommender / "gates.json").read_text())
    assert sum(gates["weights"].values()) == pytest.approx(1, abs=1e-4)
    for picture in (users / "discriminator.png", folder / "vectors.png", recommender / "gates.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    (measured,) = read_records(record)
    assert (measured.model, measured.protocol) == ("trigrec", "simulated-kitchen")
    assert list(measured.metrics) == ["full", "uniform-999"]
    assert len(read_kept_ranks(tmp_path, measured).rank) > 0
    first = measured.settings["stage1"]
    frozen = json.loads((users / "stage1.json").read_text())
    assert (first["run"], first["epoch"]) == (users.name, frozen["best_epoch"])
    assert (first["seconds"], first["parameters"]) == (frozen["seconds"], frozen["parameters"])
    assert measured.parameters > first["parameters"]
    assert (measured.settings["without"], measured.settings["files"]) == (None, None)
    assert read_run(recommender).record.to_json() == measured.to_json()
    assert measured.settings["stage1_settings"]["epochs"] == 1
    # Stage 2 on the vectors of the files says what they hold.
    path = folder / "spe_emb_ep1_A.npy"
    code, printed = trigrec(f"all --target kitchen {TINY},spe_emb_path={path}")
    assert code == 0, printed
    assert "vectors come from files" in printed
    assert "stage 1" not in printed  # there is nothing that would read it
    assert "nothing says" not in printed
    # Training events of the one target are what the other one asks for.
    code, printed = trigrec(f"recommend --target food {TINY},spe_emb_path={path}")
    assert code == 2
    assert "with board 'simulated-kitchen', and 'simulated-food' is asked for" in printed
    alone = tmp_path / "alone.npy"
    alone.write_bytes(path.read_bytes())
    code, printed = trigrec(f"recommend --target food {TINY},spe_emb_path={alone}")
    assert code == 0, printed
    assert "there is no users.json beside it, so nothing says" in " ".join(printed.split())
    # One of the domains, of one epoch.
    code, printed = trigrec(f"export --target kitchen {TINY},EPOCH_TO_LOAD=1,SPE_DOMAIN=B")
    assert code == 0, printed
    assert "exported 5 vectors of 40 users" in printed
    code, printed = trigrec(f"export --target kitchen {TINY},EPOCH_TO_LOAD=7")
    assert code == 2
    assert "has the epochs [1] (got 7)" in printed


def test_an_interrupted_stage_1_ends_all_of_it(
    trigrec: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"all {TINY},num_epochs=2 --save_every 1".replace("num_epochs=1,", "")
    with monkeypatch.context() as patch:
        stop_at(patch, "users", 5)
        code, printed = trigrec(words)
    assert code == 130
    assert "interrupted in epoch 2, validation NDCG@10" in printed
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "users-simulated-food-seed0"
    assert not (folder / "stage1.json").exists()
    code, printed = trigrec(f"recommend {TINY}")
    assert code == 2
    assert "has not come to its end; finish it with --resume" in printed


def test_all_goes_on_where_it_was_stopped(
    trigrec: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"all {TINY.replace('num_epochs=1', 'num_epochs=2')} --record {tmp_path / 'r.jsonl'}"
    assert trigrec(words)[0] == 0
    (tmp_path / "runs").rename(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, "users", 5)
        assert trigrec(words)[0] == 130
    code, printed = trigrec(f"{words} --resume")  # stage 2 was never begun
    assert code == 0, printed
    with monkeypatch.context() as patch:
        stop_at(patch, "users", 1)  # stage 1 is finished: nothing of it is trained
        code, printed = trigrec(f"{words} --resume")
    assert code == 0, printed
    whole, once, again = read_records(tmp_path / "r.jsonl")
    assert whole.metrics == once.metrics == again.metrics
    assert whole.settings["stage1"]["digest"] == again.settings["stage1"]["digest"]
    assert once.settings["stage1"] == again.settings["stage1"]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    # On another stage 1 the same stage 2 cannot go on.
    assert trigrec(f"train {TINY},lr=0.05")[0] == 0
    code, printed = trigrec(f"recommend {TINY.replace('num_epochs=1', 'num_epochs=2')} --resume")
    assert code == 2
    assert "other settings (digest of the frozen parameters: '" in printed


def test_what_stage_1_was_not_trained_with_is_refused(trigrec: Call, tmp_path: Path) -> None:
    assert trigrec(f"train {TINY}")[0] == 0
    for command in ("export", "recommend"):
        for setting in ("maxlen=3", "use_graph=False", "adversary=0"):
            words = TINY.replace("max_len=12", setting) if "max" in setting else f"{TINY},{setting}"
            code, printed = trigrec(f"{command} {words}")
            assert code == 2
            name, _, value = setting.replace("maxlen", "max_len").partition("=")
            assert f"--override: {name}={float(value) if name == 'adversary' else value}" in printed
            assert "was trained with" in printed
    for number, width in enumerate((8, 6)):
        np.save(tmp_path / f"{number}.npy", np.zeros((40, width), dtype=np.float32))
    files = f"spe_emb_path={tmp_path / '0.npy'},cross_emb_path={tmp_path / '1.npy'}"
    code, printed = trigrec(f"recommend --override {files}")
    assert code == 2
    assert "one width are needed (got spe_emb_path: 8, cross_emb_path: 6)" in printed


def test_ablations_share_stage_1_and_are_read_back(
    trigrec: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"ablations {TINY},adversary=0.2 --record {tmp_path / 'r.jsonl'} --only"
    with monkeypatch.context() as patch:
        stop_at(patch, "joint", 1)
        code, printed = trigrec(f"{words} vectors\\ only no\\ adversary joint")
    assert code == 0, printed
    assert "4 variants of trigrec: full, no adversary, vectors only, joint" in printed
    assert "joint: interrupted in epoch 1" in printed
    labels = [f"1 epochs, 16 a batch: {v}" for v in ("full", "no adversary", "vectors only")]
    assert [r.variant for r in read_records(tmp_path / "r.jsonl")] == labels
    names = {p.name.partition("-simulated")[0] for p in (tmp_path / "runs").iterdir()}
    assert names == {
        "users", "users-no_adversary", "trigrec", "trigrec-no_adversary", "trigrec-vectors",
        "trigrec_joint",
    }  # fmt: skip
    with monkeypatch.context() as patch:
        stop_at(patch, "users", 1)  # nothing but the joint model is trained
        stop_at(patch, "recommender", 1)
        code, printed = trigrec(f"{words} vectors\\ only no\\ adversary joint --resume")
    assert code == 0, printed
    assert printed.count("read back from") == 3
    assert "paired bootstrap over users against the full model" in " ".join(printed.split())
    assert len(list((tmp_path / "runs").iterdir())) == 6
    records = read_records(tmp_path / "r.jsonl")
    assert [r.variant for r in records] == [*labels, "1 epochs, 16 a batch: joint"]
    assert {r.model for r in records} == {"trigrec"}
    # All of them are tested against the full model.
    tables = importlib.import_module("make_tables")
    rows = tables.group_seeds(records)
    (_, table) = tables.variant_table(rows, tables.row_labels(rows), tmp_path)
    assert len(table.splitlines()) == 2 + 3
    with monkeypatch.context() as patch:
        stop_at(patch, "joint", 1)  # the joint model is read back as well
        code, printed = trigrec(f"{words} vectors\\ only no\\ adversary joint --resume")
    assert code == 0, printed
    assert len(read_records(tmp_path / "r.jsonl")) == 4
    first = [r.settings.get("stage1", {}).get("run") for r in records]
    assert first[0] == first[2] == "users-simulated-food-seed0"
    assert first[3] is None
    assert [r.settings["adversary"] for r in records] == [0.2, 0, 0.2, 0.2]


def test_gates_of_both_targets_are_drawn_together(
    trigrec: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    stages = importlib.import_module("trigrec_stages")
    monkeypatch.setattr(stages, "draw_gates", lambda w, g, path: drawn.append([*w, *g]))
    for target in ("kitchen", "food"):
        assert trigrec(f"recommend --joint --target {target} {TINY}")[0] == 0
    assert drawn == [["kitchen"] * 2, ["food", "kitchen"] * 2]


def test_what_stage_1_was_trained_with_is_recorded(trigrec: Call, tmp_path: Path) -> None:
    """Where it is not the golden way: such a run is in no row with golden ones."""
    words = "d_model=8,d_ff=8,max_len=12,eval_every=1"
    folder = tmp_path / "runs" / "users-simulated-food-seed0"
    assert trigrec(f"train --override {words},epochs=1,mask_prob=0.2")[0] == 0
    record = tmp_path / "r.jsonl"
    again = f"recommend --override {words},epochs=1 --record {record}"
    assert trigrec(again)[0] == 0
    config = json.loads((folder / "config.json").read_text())
    # Had all been golden but seed and device, and what a record of stage 2 says as well:
    golden = {**config["settings"], "epochs": 24, "eval_every": 6, "seed": 3, "device": "cuda"}
    stages, plans = (importlib.import_module(n) for n in ("trigrec_stages", "trigrec_plan"))
    plan = plans.make_plan(plans.Options("recommend", dataset="simulated"))
    model = TriGRec(30, mask_prob=0.5, last_prob=0.5, dropout=0.1, d_model=4, adversary=0.0)
    first = stages.FirstStage(model, 1, folder, 1.0, golden)
    assert first.unlike(plan) is None
    assert replace(first, settings={**golden, "lr": 0.5}).unlike(plan) == {"lr": 0.5}
    assert replace(first, settings=None).unlike(plan) == {"training": "not known"}
    (folder / "config.json").unlink()  # as older ones are
    assert trigrec(again)[0] == 0
    said = [r.settings["stage1_settings"] for r in read_records(record)]
    assert said == [{"epochs": 1, "eval_every": 1, "mask_prob": 0.2},
                    {"mask_prob": 0.2, "training": "not known"}]  # fmt: skip


def test_joint_without_and_baselines(trigrec: Call, tmp_path: Path) -> None:
    code, printed = trigrec(f"recommend --joint --without graph adversary {TINY}")
    assert code == 0, printed
    code, printed = trigrec(f"baselines --models markov sasrec {TINY}")
    assert code == 0, printed
    names = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert names == [
        "markov_alone-simulated-food-seed0",
        "markov_pooled-simulated-food-seed0",
        "sasrec_alone-simulated-food-seed0",
        "sasrec_pooled-simulated-food-seed0",
        "trigrec_joint-no_adversary-no_graph-simulated-food-seed0",
    ]


def stop_at(patch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """A signal reaches this process in a training step of a stage."""
    steps, terms = 0, TriGRec.loss_terms

    def counted(self: TriGRec, batch: Any) -> Any:
        nonlocal steps
        steps += self.stage == stage
        if steps == step and self.stage == stage:
            signal.raise_signal(signal.SIGTERM)
        return terms(self, batch)

    patch.setattr(TriGRec, "loss_terms", counted)
