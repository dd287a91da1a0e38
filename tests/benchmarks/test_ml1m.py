"""Runs of the command: what they print, what they leave, how they stop and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tgrec.models import SASRec
from tgrec.training import read_ranks, read_records

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., Any]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def figures(path: Path) -> Any:
    return read(path / "metrics.json")["metrics"]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``stop_at(5)``: a signal reaches this process during the fifth training step from now on."""

    def plant(step: int, number: int = signal.SIGTERM) -> None:
        steps, terms = 0, SASRec.loss_terms

        def counted(self: SASRec, batch: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                signal.raise_signal(number)
            return terms(self, batch)

        monkeypatch.setattr(SASRec, "loss_terms", counted)

    return plant


# ---- what is said and kept --------------------------------------------------------------------


def test_one_model_leaves_one_folder_that_names_the_data_simulated(call: Call) -> None:
    done = call("--model sasrec", small=True)
    assert done.code == 0
    (name,) = done.folders
    assert name == "sasrec-simulated-loo-T1-seed0"
    folder = done.runs / name
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "history.jsonl", "checkpoint.safetensors", "metrics.json", "ranks.npz",
        "model",
    }  # fmt: skip
    assert done.out.splitlines()[0].startswith("board simulated-loo, track T1, data: SIMULATED")
    assert "SIMULATED" in read(folder / "config.json")["data"]
    assert "SIMULATED" in read(folder / "metrics.json")["data"]
    assert "NDCG@10" in done.out
    assert "epoch 2/2" in done.err
    options = read(folder / "config.json")["options"]
    assert options["epochs"] == 2
    assert options["d_model"] == 8


def test_several_models_give_one_table_with_paired_tests(call: Call, tmp_path: Path) -> None:
    records = tmp_path / "records" / "tiny.jsonl"
    done = call("--models popularity markov gap_markov --record", str(records))
    assert done.code == 0
    assert [name.split("-")[0] for name in done.folders] == ["gap_markov", "markov", "popularity"]
    printed = " ".join(done.out.split())
    assert "paired bootstrap over users against popularity seed 0" in printed
    assert all(f"{name} seed 0" in printed for name in ("popularity", "markov", "gap_markov"))
    first = read_records(records)
    assert [record.model for record in first] == ["popularity", "markov", "gap_markov"]
    assert all("SIMULATED" in record.data for record in first)
    assert first[0].metrics == figures(done.runs / done.folders[-1])
    # A second call adds its lines and a folder of its own.
    again = call("--model popularity --seed 0 --record", str(records))
    assert read_records(records)[:3] == first
    assert len(read_records(records)) == 4
    assert len(again.folders) == 4
    assert "popularity-simulated-loo-T1-seed0-2" in again.folders


def test_the_fusion_can_be_fixed_with_false(call: Call) -> None:
    words = "--model tgt_bert4rec --n_heads 2 --tgt_fusion_alpha 0.5 --tgt_learnable_fusion"
    runs = [call(words, value, small=True) for value in ("False", "True")]
    assert [run.code for run in runs] == [0, 0]
    folders = [runs[0].runs / name for name in runs[1].folders]
    configs = [read(folder / "config.json")["model_config"] for folder in folders]
    assert [config["learnable_fusion"] for config in configs] == [False, True]
    assert [config["fusion_alpha"] for config in configs] == [0.5, 0.5]
    params = [read(folder / "metrics.json")["params"] for folder in folders]
    assert params[1] == params[0] + 2  # the gate and the weight of the graph
    alphas = [
        json.loads((f / "history.jsonl").read_text().splitlines()[-1])["alpha"] for f in folders
    ]
    assert alphas[0] == 0.5
    assert alphas[1] != 0.5


def test_one_branch_alone_goes_by_another_name(call: Call, tmp_path: Path) -> None:
    records = tmp_path / "r.jsonl"
    words = f"--model tgt_bert4rec --d_model 8 --max_len 5 --epochs 1 --record {records}"
    for alpha in (0, 1):
        done = call(words, f"--tgt_fusion_alpha {alpha}")
        assert done.code == 0
    folders = [f"{name}-simulated-loo-T1-seed0" for name in ("bert_branch", "tgt_branch")]
    assert done.folders == folders
    assert [record.model for record in read_records(records)] == ["tgt_branch", "bert_branch"]
    assert read(done.runs / folders[0] / "metrics.json")["model"] == "bert_branch"
    assert "tgt_bert4rec" not in done.out
    again = call("--model tgt_bert4rec --refit", str(done.runs / folders[1]))
    assert "tgt_branch-simulated-loo-T1-seed0-refit" in again.folders
    assert "a run of 'tgt_branch'; give --model tgt_bert4rec alone" in call(
        "--model sasrec --refit", str(done.runs / folders[1])
    ).error  # fmt: skip


def test_both_spellings_of_a_flag_are_one(call: Call) -> None:
    one = call("--model sasrec --eval_every 2 --d_model 8 --max_len 5 --epochs 2")
    other = call("--model sasrec --eval-every 2 --d-model 8 --max-len=5 --epochs 2")
    assert (one.code, other.code) == (0, 0)
    configs = [read(other.runs / name / "config.json") for name in other.folders]
    assert configs[0]["settings"] == configs[1]["settings"]
    assert configs[0]["model_config"] == configs[1]["model_config"]


def test_the_tracks_are_measured_apart(call: Call) -> None:
    done = call("--model gap_markov --track T2")
    assert done.folders == ["gap_markov-simulated-loo-T2-seed0"]
    assert read(done.runs / done.folders[0] / "metrics.json")["protocol"] == "simulated-loo T2"


def test_a_tie_audit_is_printed_and_kept(call: Call, tmp_path: Path) -> None:
    done = call("--model gap_markov --tie-audit")
    audit = read(done.runs / done.folders[0] / "tie_audit.json")
    assert len(audit) == 2
    assert all(len(values) == 5 for values in audit.values())
    assert done.out.count("tie audit of gap_markov") == 2
    assert not list(tmp_path.rglob("ties.jsonl"))
    records = tmp_path / "records" / "r.jsonl"
    other = call("--model sasrec --tie_audit True --record", str(records), small=True)
    (record,) = read_records(records)
    (line,) = (records.parent / "audits" / "ties.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert kept["permuted"] == read(other.runs / "sasrec-simulated-loo-T1-seed0" / "tie_audit.json")
    assert kept["as_filed"] == record.metrics["full"]["NDCG@10"]
    assert (kept["model"], kept["commit"]) == ("sasrec seed 0", record.commit)
    assert len(read(other.runs / "sasrec-simulated-loo-T1-seed0" / "tie_audit.json")) == 1


# ---- weights ----------------------------------------------------------------------------------


def test_saved_weights_measure_the_same_and_can_be_trained_on(call: Call) -> None:
    trained = call("--model sasrec --lr 0.01 --warmup_steps 0", small=True)
    first = trained.runs / trained.folders[0]
    for weights in (first, first / "model"):
        done = call("--model sasrec --eval-only --weights", str(weights))
        assert done.code == 0
        second = done.runs / done.folders[-1]
        assert figures(second) == figures(first)
        assert not (second / "history.jsonl").exists()
        ranks = [read_ranks(folder / "ranks.npz") for folder in (first, second)]
        assert all((ranks[0][name] == ranks[1][name]).all() for name in ranks[0])
    more = call("--model sasrec --epochs 1 --lr 1e-5 --batch_size 60 --weights", str(first))
    assert more.code == 0
    history = (more.runs / more.folders[-1] / "history.jsonl").read_text().splitlines()
    fresh = json.loads((first / "history.jsonl").read_text().splitlines()[0])
    assert json.loads(history[0])["loss"] < fresh["loss"]


def test_counting_models_are_measured_without_weights(call: Call) -> None:
    done = call("--models popularity gap_markov --eval-only")
    assert done.code == 0
    assert len(done.folders) == 2


# ---- stopping and going on --------------------------------------------------------------------


def test_a_stopped_run_is_reported_and_resumed_to_the_same_figures(
    call: Call, stop_at: Callable[..., None], tmp_path: Path
) -> None:
    records = tmp_path / "r.jsonl"
    whole = call("--model sasrec --seed 3", small=True)
    expected = figures(whole.runs / whole.folders[0])
    (whole.runs / whole.folders[0]).rename(tmp_path / "whole")
    stop_at(6)
    line = f"--models sasrec markov --seed 3 --record {records}"
    part = call(line, small=True)
    assert part.code == 0
    assert part.folders == ["sasrec-simulated-loo-T1-seed3"]
    assert "sasrec: interrupted in epoch 2, validation NDCG@10 " in part.out
    assert "so far (epoch 1); --resume finishes it; not run: ['markov']" in part.out
    folder = part.runs / part.folders[0]
    assert not (folder / "metrics.json").exists()  # the test is asked once, at the end
    assert not records.exists()  # what is unfinished is no result
    rest = call(f"--model sasrec --seed 3 --resume --record {records}", small=True)
    assert rest.code == 0
    assert rest.folders == part.folders
    assert figures(folder) == expected
    assert [record.epochs for record in read_records(records)] == [2]


def test_resume_takes_the_newest_run_and_refuses_other_settings(call: Call) -> None:
    runs = [call("--model sasrec", small=True) for _ in range(2)][0].runs
    before = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file()}
    done = call("--model sasrec --resume --lr 0.5", small=True)
    assert done.code == 2
    assert "seed0-2/checkpoint.safetensors is of a run with other settings (lr: 0.002 -> 0.5)" in (
        done.error
    )
    done = call("--model sasrec --resume --dropout 0.5", small=True)
    assert "model.dropout: 0.2 -> 0.5" in done.error
    assert {p: p.read_bytes() for p in done.runs.rglob("*") if p.is_file()} == before


def test_ctrl_c_outside_training_is_one_line(
    call: Call, ml1m: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ml1m, "load_task", interrupted)
    done = call("--model popularity")
    assert done.code == 130
    assert done.err == "interrupted; --resume continues from what was saved\n"


def test_a_loss_that_is_no_number_is_one_line_and_leaves_no_figures(call: Call) -> None:
    done = call("--model sasrec --lr 1e30 --epochs 3", small=True)
    assert done.code == 1
    assert "epoch 1" in done.error
    assert "lr=1e+30" in done.error
    assert not (done.runs / done.folders[0] / "metrics.json").exists()
    assert list(done.runs.rglob("*.tmp")) == []


@pytest.mark.timeout(300)
def test_sigterm_from_outside_ends_with_the_best_weights_and_exit_code_0(tmp_path: Path) -> None:
    """The whole of it once: a process, no data, no network, a signal in the middle."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    data = {"TGREC_DATA": str(tmp_path / "data"), "XDG_CACHE_HOME": str(tmp_path)}
    words = "--model sasrec --d_model 8 --n_blocks 1 --max_len 10 --epochs 5000 --eval_every 1"
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "benchmarks" / "ml1m.py"),
                *words.split(),
                "--out",
                tmp_path,
            ],
            env={**os.environ, **nowhere, **data, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=err,
        )
        folder = tmp_path / "sasrec-simulated-loo-T1-seed0"
        deadline = time.monotonic() + 280
        while not (folder / "checkpoint.safetensors").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=max(1.0, deadline - time.monotonic())) == 0
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[0].startswith("MovieLens-1M could not be had, so this runs on SIMULATED data.")
    assert "https://" in lines[0]
    assert "TGREC_DATA" in lines[0]
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert "interrupted in epoch" in lines[-1]
    assert not (folder / "metrics.json").exists()
    assert (folder / "model" / "model.safetensors").is_file()


def test_a_counting_model_does_not_depend_on_the_seed(call: Call) -> None:
    call("--model gap_markov --seed 0")
    done = call("--model gap_markov --seed 1")
    values = [figures(done.runs / name)["full"] for name in done.folders]
    assert values[0] == values[1]
