from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.metrics import group_summaries, length_groups, summarize
from tgrec.training import record as module
from tgrec.training.record import (
    RunRecord,
    append_record,
    check_appendable,
    command_line,
    environment,
    read_records,
)

RANKS = torch.tensor([1, 4, 9, 30, 200])
GOOD: dict[str, Any] = {
    "command": "python benchmarks/ml1m.py --model sasrec --seed 3",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "date": "2026-01-02T03:04:05Z",
    "versions": {"python": "3.11.9", "torch": "2.13.0"},
    "hardware": {"cpu": "a processor", "cpus": 2, "threads": 1, "gpu": "none"},
    "protocol": "ml1m-loo",
    "track": "T1",
    "data": "MovieLens-1M",
    "checksum": "md5:a89aa3591bc97d6d4e0c89459ff39362",
    "model": "sasrec",
    "settings": {"d_model": 64, "dropout": 0.2, "num_neighbors": (10, 5), "tie": None},
    "parameters": 300_000,
    "seed": 3,
    "epochs": 40,
    "seconds": 812.5,
    "seconds_per_epoch": 20.3125,
    "metrics": {"full": summarize(RANKS), "uniform-28": summarize(torch.tensor([1, 1, 2, 3, 9]))},
    "groups": group_summaries(RANKS, length_groups(torch.tensor([10, 60, 60, 150, 300]))),
}


def record(**changes: Any) -> RunRecord:
    return RunRecord(**{**GOOD, **changes})


def test_a_record_survives_its_line() -> None:
    line = record().to_json()
    assert "\n" not in line
    assert line.isascii()
    assert RunRecord.from_json(line) == record()
    assert record().settings["num_neighbors"] == [10, 5]  # as JSON gives it back


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.text()
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_settings_survive_the_line(values: dict[str, Any]) -> None:
    line = record(settings=values).to_json()
    assert "\n" not in line
    assert RunRecord.from_json(line) == record(settings=values)


def test_metrics_come_back_to_the_last_bit() -> None:
    third = {"full": {"HR@10": 1 / 3, "NDCG@10": 0.1 + 0.2}}
    assert RunRecord.from_json(record(metrics=third).to_json()).metrics == third


def test_records_are_appended_and_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "results" / "ml1m.jsonl"
    for seed in range(3):
        append_record(path, record(seed=seed))
    assert [r.seed for r in read_records(path)] == [0, 1, 2]
    assert path.read_bytes().count(b"\n") == 3
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("changes", "where"),
    [
        (lambda v: {"metrics": {"full": {"HR@10": v}}}, "metrics.full.HR@10"),
        (lambda v: {"settings": {"rates": [0.1, {"last": v}]}}, r"settings.rates\[1\].last"),
        (lambda v: {"seconds": v}, "seconds"),
        (lambda v: {"groups": {"<=50": {"MRR": v}}}, "groups.<=50.MRR"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(value: float, changes: Any, where: str) -> None:
    with pytest.raises(ValueError, match=f"{where} is .*finite numbers only"):
        record(**changes(value))


def test_impossible_figures_are_not_appended(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, record())
    before = path.read_bytes()
    seed_table = {"full": {"HR@10": 0.949, "NDCG@10": 0.767, "MRR": 0.489}}
    with pytest.raises(ValueError, match=r"metrics.full: HR@10 = 0.949 and MRR = 0.489 allow"):
        append_record(path, record(metrics=seed_table))
    with pytest.raises(ValueError, match="groups.<=50: HR@5"):
        append_record(path, record(groups={"<=50": {"users": 3, "HR@5": 0.5, "HR@10": 0.4}}))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"track": "T3"}, ValueError, "track is 'T3'; it must be one of T1, T2, T2-coarse"),
        ({"protocol": ""}, ValueError, "protocol is empty"),
        ({"metrics": {}}, ValueError, "metrics is empty"),
        ({"metrics": {"full": {}}}, TypeError, "metrics.full must map metrics to numbers"),
        ({"metrics": {"full": {"MRR": "0.1"}}}, TypeError, "metrics.full.MRR must be a number"),
        ({"seed": "3"}, TypeError, "seed must be int, got '3'"),
        ({"seed": True}, TypeError, "seed must be int, got True"),
        ({"epochs": 1.5}, TypeError, "epochs must be int"),
        ({"dirty": "no"}, TypeError, "dirty must be bool or NoneType"),
        ({"settings": {"d": torch.tensor(1)}}, TypeError, r"settings.d is a Tensor.*\.item\(\)"),
        ({"settings": {"n": np.int64(1)}}, TypeError, "settings.n is a int64"),
        ({"settings": {"p": Path("x")}}, TypeError, r"settings.p is a .*str\(\) for a path"),
        ({"settings": {1: 2}}, TypeError, "settings has the key 1"),
    ],
)
def test_bad_fields_are_named(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        record(**changes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: Expecting"),
        ("[1]", "line 3: a record is a JSON object, got list"),
        ('{"seed": NaN}', "line 3: NaN is not a finite number"),
        ('{"seed": 1}', "line 3: missing fields: checksum, command"),
        (json.dumps({**dataclasses.asdict(record()), "x": 1}), "line 3: unknown fields: x"),
        (record().to_json().replace("812.5", "1e999"), "line 3: seconds is inf"),
        (record().to_json().replace('"T1"', '"T9"'), "line 3: track is 'T9'"),
        (record(metrics={"full": {"HR@1": 0.5, "HR@5": 0.4}}).to_json(), "line 3: metrics.full: "),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{record().to_json()}\n\n{line}\n")
    with pytest.raises(ValueError, match=f"bad.jsonl, {message}"):
        read_records(path)


def test_a_line_cut_short_blocks_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(record().to_json()[:100])
    for asked in (partial(append_record, record=record()), check_appendable):
        with pytest.raises(ValueError, match="r.jsonl ends in the middle of a line"):
            asked(path)
    assert path.stat().st_size == 100


def test_where_a_record_can_go_is_known_before(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; name a file of records"):
        check_appendable(tmp_path)
    for path in (tmp_path / "no" / "r.jsonl", tmp_path / "r.jsonl"):
        check_appendable(path)
        assert not path.exists()
        append_record(path, record())
        check_appendable(path)


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    append_record(path, record())
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(module.os, "write", lambda handle, data: write(handle, data[:50]))
    with pytest.raises(OSError, match="only part of a line; nothing was appended"):
        append_record(path, record(seed=4))
    assert path.read_bytes() == before


def test_writers_at_once_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    records = [record(seed=seed, settings={"filler": "x" * 5000}) for seed in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: append_record(path, r), records))
    assert sorted(r.seed for r in read_records(path)) == list(range(100))


def test_the_environment_fills_its_fields_of_a_record() -> None:
    found = environment()
    assert {"python", "torch", "torch_geometric", "numpy", "tgrec"} == set(found["versions"])
    assert "unknown" not in found["versions"].values()
    assert set(found["hardware"]) == {"cpu", "cpus", "threads", "gpu"}
    assert found["date"].endswith("Z")
    others = {key: value for key, value in GOOD.items() if key not in found}
    assert RunRecord(**found, **others).commit == found["commit"]


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._commit(tmp_path) == ("unknown", None)  # no repository
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module._commit(tmp_path) == ("unknown", None)  # no git


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_and_dirty_flag_are_those_of_the_code(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    for folder in ("tgrec", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file.py").write_text("1\n")
    (tmp_path / "pyproject.toml").write_text("\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert module._commit(tmp_path) == (commit, False)
    # What the runs themselves write does not make the next seed of a comparison dirty.
    (tmp_path / "benchmarks" / "results" / "file.py").write_text("2\n")
    (tmp_path / "benchmarks" / "README.md").write_text("table\n")
    assert module._commit(tmp_path) == (commit, False)
    (tmp_path / "tgrec" / "new.py").write_text("2\n")  # untracked code counts
    assert module._commit(tmp_path) == (commit, True)
    # A package installed below somebody else's repository has no commit.
    assert module._commit(tmp_path / "tgrec") == ("unknown", None)


def test_the_command_names_no_folder_of_this_machine() -> None:
    argv = ["/home/x/tgrec/benchmarks/ml1m.py", "--root=/data/secret/ml1m", "/etc/a b", "--k", "5"]
    line = command_line(argv, cwd="/home/x/tgrec")
    assert line == "python benchmarks/ml1m.py --root=.../ml1m '.../a b' --k 5"
