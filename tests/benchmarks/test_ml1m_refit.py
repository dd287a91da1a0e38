"""``benchmarks/ml1m.py --refit``: a run trained anew on train and validation, and its weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tgrec.data import TemporalRecGraph, global_time_split
from tgrec.datasets import BOARDS
from tgrec.models import MODELS
from tgrec.training import REFIT, evaluate, permute_ties, read_records, read_refit

Call = Callable[..., Any]
GATES = "--model tgt_bert4rec --n_heads 2 --tgt_blocks 1"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def first(call: Call) -> Path:
    """A finished run on T2 with a seed of its own."""
    done = call(GATES, "--track T2 --seed 3", small=True)
    assert done.code == 0
    (name,) = done.folders
    folder: Path = done.runs / name
    return folder


def test_a_refit_is_a_run_of_its_own_with_a_label(call: Call, first: Path, tmp_path: Path) -> None:
    records = tmp_path / "r.jsonl"
    done = call("--refit", str(first), "--record", str(records))
    assert done.code == 0
    assert done.folders == [first.name, f"{first.name}-refit"]
    (record,) = read_records(records)
    assert (record.variant, record.track, record.seed) == (REFIT, "T2", 3)
    assert record.epochs == read(first / "metrics.json")["best_epoch"]
    assert record.settings["chosen"] == read(first / "metrics.json")["chosen"]
    events = [line for line in done.out.splitlines() if "training events" in line]
    train = BOARDS["simulated-loo"].split(BOARDS["simulated-loo"].load(None, True)).train
    assert f" {train.num_events + 60:,} training events" in events[0]
    assert REFIT in " ".join(done.out.split())
    before, after = (read(done.runs / name / "config.json") for name in done.folders)
    assert {k for k in before["settings"] if before["settings"][k] != after["settings"][k]} == {
        "stop_after"
    }
    assert after["options"]["refit"] == first.name  # and no folders
    again = call("--refit", str(first), "--resume --record", str(tmp_path / "again.jsonl"))
    assert again.folders == done.folders
    assert read_records(tmp_path / "again.jsonl")[0].metrics == record.metrics


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--lr 0.1", "--lr: a refit has that of its run; leave it out"),
        ("--d_model 9", "--d_model: a refit has that of its run; leave it out"),
        ("--seed 0", "--seed: a refit has that of its run, 3; leave it out"),
        ("--track T1", "--track: a refit has that of its run, 'T2'; leave it out"),
        ("--board ml1m-loo", "--board: a refit has that of its run, 'simulated-loo'; leave it out"),
        ("--eval-only", "--eval_only: a refit trains as its run did, from nothing; leave it out"),
        ("--weights x", "--weights: a refit trains as its run did, from nothing; leave it out"),
        ("--teacher x", "--teacher: a refit trains as its run did, from nothing; leave it out"),
        ("--model sasrec", "is a run of 'tgt_bert4rec'; give --model tgt_bert4rec alone"),
    ],
)
def test_it_has_the_settings_of_its_run(words: str, said: str, call: Call, first: Path) -> None:
    done = call(words, "--refit", str(first))
    assert done.code == 2
    assert said in done.error
    assert done.folders == [first.name]


def test_what_the_run_had_may_be_said_again(call: Call, first: Path) -> None:
    words = "--models tgt_bert4rec --track T2 --seed 3 --board simulated-loo --refit"
    assert call(words, str(first)).code == 0


def test_other_data_are_refused(
    call: Call, first: Path, tiny: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = tiny.before(tiny.num_events - 5)
    other = replace(BOARDS["simulated-loo"], load=lambda root, download: fewer)
    monkeypatch.setitem(BOARDS, "simulated-loo", other)
    assert "are others than these; use --root" in call("--refit", str(first)).error


def test_a_board_with_a_split_by_time(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    board = BOARDS["simulated-loo"]
    monkeypatch.setitem(BOARDS, "simulated-loo", replace(board, split=global_time_split))
    done = call("--model sasrec --tie-audit", small=True)
    again = call("--model sasrec --tie-audit --refit", str(done.runs / done.folders[0]))
    assert again.code == 0
    sizes = [read(again.runs / name / "metrics.json")["groups"] for name in again.folders]
    assert {g: f["users"] for g, f in sizes[0].items()} == {
        g: f["users"] for g, f in sizes[1].items()
    }  # what was new to training stays a miss


def test_counts_are_made_anew_and_audited(call: Call, tiny: TemporalRecGraph) -> None:
    done = call("--model markov")
    again = call("--model markov --tie-audit --refit", str(done.runs / done.folders[0]))
    assert again.code == 0
    before, refit = set(again.folders), again.runs / again.folders[-1]
    call("--model markov --tie-audit --eval-only --weights", str(refit))
    (measured,) = (again.runs / name for name in set(again.folders) - before)
    board = BOARDS["simulated-loo"]
    by_hand: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(5):
        split = board.split(permute_ties(tiny, seed))
        for whole, values in by_hand.items():
            counted = MODELS["markov"].from_graph(
                (split.with_validation() if whole else split).train
            )
            metrics = evaluate(counted, split, split.test, sampled=False).metrics()
            values.append(metrics["full"]["NDCG@10"])
    for folder in (refit, measured):
        assert (
            read(folder / "tie_audit.json")["split and counted anew after permuting"]
            == by_hand[True]
        )
    assert by_hand[True] != by_hand[False]


def test_its_weights_choose_nothing_on_validation(
    call: Call, first: Path, ml1m: ModuleType, tmp_path: Path
) -> None:
    done = call("--refit", str(first))
    before, refit = set(done.folders), done.runs / done.folders[-1]
    kept = tmp_path / "kept"
    importlib.import_module("keep_weights").main(refit, "small", kept)
    measured = []
    for weights in (refit, kept / "small"):
        file = tmp_path / f"{len(measured)}.jsonl"
        words = f"--model tgt_bert4rec --track T2 --eval-only --weights {weights} --record {file}"
        assert call(words).code == 0
        measured += read_records(file)
    assert [record.variant for record in measured] == [REFIT, REFIT]
    assert measured[0].metrics == measured[1].metrics == read(refit / "metrics.json")["metrics"]
    of_the_refit = [done.runs / name for name in set(done.folders) - before]
    assert len(of_the_refit) == 2
    for weights in (refit, *of_the_refit):  # what only measured them is no way around
        for words in ("--model tgt_bert4rec --track T2 --weights", "--model sasrec --teacher"):
            said = call(words, str(weights), small="sasrec" in words).error
            assert "was trained on the events of validation too" in said
        with pytest.raises(ValueError, match="is a refit itself"):
            read_refit(weights)
    ensemble = importlib.import_module("ensemble")
    with pytest.raises(ValueError, match="an ensemble is asked on validation too"):
        ensemble.measure((first, refit))


def test_settings_of_another_version_are_named(call: Call, first: Path) -> None:
    about = read(first / "config.json")
    about["model_config"]["of_tomorrow"] = 1
    (first / "config.json").write_text(json.dumps(about))
    said = call("--refit", str(first)).error
    assert "has settings that TGTBERT4Rec does not take" in said
    assert "'of_tomorrow'" in said


def test_where_the_record_goes_is_asked_before_the_training(call: Call, tmp_path: Path) -> None:
    done = call("--model sasrec --record", str(tmp_path))
    assert "is a folder; name a file of records" in done.error
    assert done.folders == []
