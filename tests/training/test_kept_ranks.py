from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgrec.metrics import MISS, summarize
from tgrec.training import (
    RankedRun,
    RunRecord,
    keep_ranks,
    ranks_path,
    read_kept_ranks,
    read_records,
    record_run,
    same_run,
)

USER = torch.tensor([4, 0, 300, 7])
RANK = torch.tensor([1, 70_000, MISS, 3])
ROOT = Path(__file__).resolve().parents[2]


def make_record(rank: Tensor = RANK, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "command": "python benchmarks/ml1m.py",
        "commit": "0" * 40,
        "dirty": False,
        "date": "2026-01-02T03:04:05Z",
        "versions": {},
        "hardware": {},
        "protocol": "ml1m-loo",
        "track": "T1",
        "data": "Simulated",
        "checksum": "00",
        "model": "sasrec",
        "settings": {"d_model": 64, "num_edges": (2, 3)},
        "parameters": 7,
        "seed": 0,
        "epochs": 1,
        "seconds": 1.0,
        "seconds_per_epoch": 1.0,
        "metrics": {"full": summarize(rank)},
    }
    return RunRecord(**{**fields, **changes})


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 2**40), st.one_of(st.integers(1, 2**33), st.just(MISS)), min_size=1
    )
)
def test_what_is_kept_is_read_back_by_user(ranks: dict[int, int]) -> None:
    user, rank = torch.tensor(list(ranks)), torch.tensor(list(ranks.values()))
    record = make_record(rank)
    with tempfile.TemporaryDirectory() as folder:
        keep_ranks(folder, record, user, rank)
        kept = read_kept_ranks(folder, record)
    assert kept.user.tolist() == sorted(ranks)
    assert kept.rank.tolist() == [ranks[u] for u in sorted(ranks)]
    assert kept.user.dtype == kept.rank.dtype == torch.int64


def test_the_file_is_small_and_the_same_again(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rank = torch.randint(1, 3_700, (6_000,), generator=generator)
    path = keep_ranks(tmp_path, make_record(rank), torch.arange(6_000), rank)
    first = path.read_bytes()
    assert len(first) < 25_000
    assert keep_ranks(tmp_path, make_record(rank), torch.arange(6_000), rank).read_bytes() == first
    with np.load(path, allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.itemsize for name in arrays} == {"user": 2, "rank": 2}


def test_the_record_of_a_file_names_it_and_labels_do_not(tmp_path: Path) -> None:
    record = make_record()
    relabelled = make_record(variant="no graph", command="python other.py")
    assert ranks_path(tmp_path, relabelled) == ranks_path(tmp_path, record)
    assert same_run(relabelled, record)
    written = RunRecord.from_json(record.to_json())
    assert ranks_path(tmp_path, written) == ranks_path(tmp_path, record)
    others = [
        make_record(seed=1),
        make_record(track="T2"),
        make_record(protocol="ml1m-time"),
        make_record(model="SAGE + Transformer"),
        make_record(settings={"d_model": 32, "num_edges": (2, 3)}),
        make_record(date="2026-01-02T03:04:06Z"),
        make_record(commit="1" * 40),
        make_record(checksum="01"),
        make_record(torch.tensor([1, 2, 3, 4])),
    ]
    assert len({ranks_path(tmp_path, other) for other in [record, *others]}) == 10
    assert not any(same_run(record, other) for other in others)
    assert all(" " not in ranks_path("", other).name for other in others)


def test_ranks_without_a_user_each_are_refused(tmp_path: Path) -> None:
    record = make_record()
    with pytest.raises(ValueError, match="'user' has 3 entries and 'rank' 4"):
        keep_ranks(tmp_path, record, USER[:3], RANK)
    with pytest.raises(ValueError, match="user 4 follows user 4; each user stands once"):
        keep_ranks(tmp_path, record, torch.tensor([4, 4, 5, 6]), RANK)
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_another_run_are_refused(tmp_path: Path) -> None:
    record = make_record()
    with pytest.raises(ValueError, match="are of different runs"):
        keep_ranks(tmp_path, record, USER, torch.tensor([1, 70_000, MISS, 2]))
    path = keep_ranks(tmp_path, record, USER, RANK)
    other = make_record(torch.tensor([1, 1, 2, 9]))
    path.rename(ranks_path(tmp_path, other))  # by hand
    with pytest.raises(ValueError, match=r"the record of sasrec seed 0 says .* of different runs"):
        read_kept_ranks(tmp_path, other)


def test_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ranks of sasrec seed 0 are kept at .*ranks"):
        read_kept_ranks(tmp_path, make_record())


def _short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _no_users(path: Path) -> None:
    np.savez(path, rank=np.array([1, 2]))


def _one_user_less(path: Path) -> None:
    np.savez(path, user=np.array([0, 4, 7]), rank=np.array([70_000, 1, 3, 0]))


def _objects(path: Path) -> None:
    np.savez(path, user=np.array([{}], dtype=object), rank=np.array([1]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_short, "is damaged"),
        (_no_users, "is damaged"),
        (_objects, "is damaged .*allow_pickle=False"),
        (_one_user_less, r"has \[3\] users and \[4\] ranks"),
    ],
)
def test_damaged_files(damage: Any, message: str, tmp_path: Path) -> None:
    record = make_record()
    path = keep_ranks(tmp_path, record, USER, RANK)
    damage(path)
    with pytest.raises(ValueError, match=message) as raised:
        read_kept_ranks(tmp_path, record)
    assert str(path) in str(raised.value)


def test_a_record_and_its_ranks_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "results" / "a.jsonl"
    record = make_record()
    record_run(file, RankedRun(record, {"full": RANK}, USER))
    assert read_records(file) == [record]
    assert read_kept_ranks(file.parent, record).rank.tolist() == [70_000, 1, 3, MISS]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends in the middle of a line"):
        record_run(file, RankedRun(make_record(seed=1), {"full": RANK}, USER))
    assert len(os.listdir(file.parent / "ranks")) == 1
    with pytest.raises(ValueError, match="sasrec has no ranks"):
        record_run(file, RankedRun(record))


def test_every_kept_file_of_the_repository_belongs_to_a_record() -> None:
    results = ROOT / "benchmarks" / "results"
    records = [record for file in results.glob("*.jsonl") for record in read_records(file)]
    named = {ranks_path(results, record) for record in records}
    kept = set((results / "ranks").glob("*"))
    assert sorted(path.name for path in kept - named) == []
    for record in records:
        if ranks_path(results, record) in kept:
            read_kept_ranks(results, record)
