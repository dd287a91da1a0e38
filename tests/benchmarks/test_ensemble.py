"""``benchmarks/ensemble.py``: runs of one board measured together, with a record of its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.metrics import ndcg
from tgrec.models import BERT4Rec, SASRec, load_model
from tgrec.sampler import EventIndex, past_items
from tgrec.training import read_records, read_run

Call = Callable[..., Any]


@pytest.fixture
def script(ml1m: ModuleType) -> ModuleType:
    return importlib.import_module("ensemble")


def test_it_ranks_by_the_mean_log_probability_of_its_members(
    script: ModuleType, call: Call, tiny: TemporalRecGraph, tmp_path: Path
) -> None:
    done = call("--models sasrec bert4rec", small=True)
    folders = [done.runs / name for name in done.folders]
    file = tmp_path / "records.jsonl"
    *members, together = script.measure(tuple(folders), record=file)
    assert [m.record for m in members] == [read_run(folder).record for folder in folders]
    # By hand: all scores at once, the past taken out, ties against the target.
    split = leave_one_out(tiny)
    index, asked = EventIndex(split.graph), split.test
    scores = torch.zeros(len(asked), tiny.num_items)
    for folder, cls in zip(folders, (BERT4Rec, SASRec), strict=True):  # in the order of names
        model = load_model(folder / "model", {cls.__name__: cls}).eval()
        batch = SeedLoader(index, model.sampling).batch(asked)
        with torch.no_grad():
            scores += model.score(batch).log_softmax(1) / 2
    own = scores.gather(1, asked.item.unsqueeze(1))
    rows, items = past_items(index, asked.user, asked.cut)
    scores[rows, items] = -torch.inf
    scores.scatter_(1, asked.item.unsqueeze(1), own)
    rank = (scores >= own).sum(1)
    assert torch.equal(together.ranks["full"], rank)
    record = together.record
    assert record.metrics["full"]["NDCG@10"] == pytest.approx(float(ndcg(rank, 10).mean()))
    assert record.parameters == sum(m.record.parameters for m in members)
    assert record.model == "ensemble of 2 bert4rec + sasrec"
    assert [who.split(",")[0] for who in record.settings["members"]] == [
        "bert4rec seed 0",
        "sasrec seed 0",
    ]
    again = script.measure(tuple(reversed(folders)))[-1].record  # the order makes no other row
    assert again.settings == record.settings
    assert read_records(file) == [record]


def test_the_command_prints_members_and_ensemble(
    script: ModuleType,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = call("--models sasrec bert4rec", small=True)
    folders = [str(done.runs / name) for name in done.folders]
    monkeypatch.setattr(sys, "argv", ["ensemble.py", *folders])
    script.main()
    printed = capsys.readouterr().out
    assert all(f"{name} seed 0" in printed for name in ("│ sasrec", "│ bert4rec"))
    assert "ensemble of 2 bert4rec + sasrec" in printed
    assert "paired bootstrap" in printed


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (("sasrec",), "an ensemble needs two runs or more (got 1)"),
        (("sasrec", "sasrec"), "a run was given twice"),
        (("sasrec", "later"), "runs of one board, track and data set are needed"),
        (("sasrec", "long"), "'members' need to read the same"),
        (("sasrec", "nothing"), "there is no run folder 'nothing'"),
    ],
)
def test_what_cannot_be_one_is_refused(
    runs: tuple[str, ...], said: str, script: ModuleType, call: Call
) -> None:
    made = {"sasrec": "--model sasrec", "later": "--model sasrec --track T2",
            "long": "--model sasrec --max_len 11"}  # fmt: skip
    folders = {"nothing": Path("nothing")}
    for name in {"sasrec", *runs} & made.keys():
        before = set(call("--help", dataset=None).folders)
        done = call(made[name], small=True)
        (new,) = set(done.folders) - before
        folders[name] = done.runs / new
    with pytest.raises((ValueError, OSError)) as error:
        script.measure(tuple(folders[name] for name in runs))
    assert said in str(error.value)
