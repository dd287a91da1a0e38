"""``benchmarks/ml1m.py --teacher``: who teaches, how, and what the record says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from tgrec.models import MODELS, load_model
from tgrec.training.record import RunRecord, read_records

Call = Callable[..., Any]


def record_of(done: Any, name: str) -> RunRecord:
    (record,) = read_records(done.runs.parent / name)
    return record


def weights_of(done: Any, folder: str) -> dict[str, torch.Tensor]:
    return dict(load_model(done.runs / folder / "model", MODELS).state_dict())


def test_a_teacher_changes_what_is_learned_and_is_named(call: Call) -> None:
    first = call("--model tgt_bert4rec --track T2", small=True)
    teacher = str(first.runs / first.folders[0])
    alone = call("--model sasrec", small=True)
    learned = [weights_of(alone, "sasrec-simulated-loo-T1-seed0")]
    for number, how in enumerate(("", "--distill_at all", "--distill_at all --distill_weight 0.9")):
        record = f"r{number}.jsonl"
        done = call("--model sasrec --teacher", teacher, how, "--record",
                    str(first.runs.parent / record), small=True)  # fmt: skip
        assert done.code == 0
        said = record_of(done, record)
        assert said.variant == "taught by tgt_bert4rec on T2"
        assert said.settings["teacher"].startswith("TGTBERT4Rec ")
        assert said.settings["teacher"].endswith(", T2")
        assert ("all positions" in said.settings["teacher"]) == ("all" in how)
        assert f", {0.9 if '0.9' in how else 0.5} at " in said.settings["teacher"]
        learned.append(weights_of(done, f"sasrec-simulated-loo-T1-seed0-{number + 2}"))
    for i, one in enumerate(learned):
        for other in learned[:i]:
            assert any(not torch.equal(value, other[k]) for k, value in one.items())
    config = json.loads((done.runs / done.folders[1] / "config.json").read_text())
    assert config["options"]["teacher"] == ["tgt_bert4rec-simulated-loo-T2-seed0"]  # and no folders
    assert str(done.runs) not in json.dumps(config["options"])


def test_several_teachers_are_an_ensemble_of_one_track(call: Call) -> None:
    for words in ("--seed 0", "--seed 1", "--track T2"):
        done = call("--model sasrec", words, small=True)
    one, two, other = (str(done.runs / name) for name in done.folders)
    done = call("--model sasrec --teacher", one, two, "--record", f"{one}/r.jsonl", small=True)
    (record,) = read_records(f"{one}/r.jsonl")
    assert record.variant == "taught by an ensemble on T1"
    assert record.settings["teacher"].startswith("Ensemble ")
    refused = call("--model sasrec --teacher", one, other, small=True)
    assert "--teacher: models of one track are needed (got " in refused.error
    same = call("--model bert4rec --distill_at all --teacher", one, small=True)
    assert "BERT4Rec does not; use --distill_at='end'" in same.error
    more = call("--model sasrec --distill_weight 2 --teacher", one, small=True)
    assert "'--distill_weight' of a teacher needs to be in (0, 1] (got 2.0)" in more.error
    assert same.folders == done.folders


def test_a_teacher_that_is_not_there(call: Call) -> None:
    done = call("--model sasrec --teacher nowhere", small=True)
    assert done.code == 1
    assert "nowhere" in done.error
    assert done.folders == []
