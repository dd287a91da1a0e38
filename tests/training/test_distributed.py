from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tgrec.training.distributed import Workers, start_workers, take_device

SCRIPT = Path(__file__).with_name("train_together.py")
spec = importlib.util.spec_from_file_location("train_together", SCRIPT)
assert spec is not None
assert spec.loader is not None
train_together = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_together)
CASES = list(train_together.CASES)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a run of two processes under torchrun, and what each of them reported."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed").write_text(done.stdout)
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


Together = tuple[Path, list[dict[str, Any]]]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_to_the_losses_of_one(
    case: str, together: Together, tmp_path: Path
) -> None:
    alone = train_together.train(case, tmp_path)
    terms = 3 if "tgt" in train_together.CASES[case][0] else 2 if case == "taught" else 1
    for report in together[1]:
        got = report[case]
        assert [len(losses) for losses in got["losses"]] == [terms] * len(alone["losses"])
        torch.testing.assert_close(
            torch.tensor(got["losses"]), torch.tensor(alone["losses"]), atol=1e-5, rtol=1e-5
        )
        assert got["best"] == pytest.approx(alone["best"], abs=1e-3)


@pytest.mark.parametrize("case", [*CASES, "resumed"])
def test_both_processes_end_with_the_same_weights(case: str, together: Together) -> None:
    first, second = (report[case] for report in together[1])
    assert first == second


def test_only_the_first_process_writes(together: Together) -> None:
    folder, _ = together
    assert not (folder / "rank 1").exists()
    assert sorted(p.name for p in (folder / "rank 0").iterdir()) == sorted(CASES)


def test_of_the_benchmark_too_one_process_reports(together: Together) -> None:
    folder, _ = together
    names = sorted(p.name for p in (folder / "runs").iterdir())
    assert names == ["markov-simulated-loo-T1-seed0", "sasrec-simulated-loo-T1-seed0"]
    metrics = json.loads((folder / "runs" / names[1] / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["fit"]["stopped"]) == (2, "epochs")
    printed = (folder / "printed").read_text()
    assert printed.count("board simulated-loo") == 1
    assert printed.count("full ranking, 95 % intervals") == 1


def test_two_processes_resume_to_the_losses_of_one(together: Together, tmp_path: Path) -> None:
    alone = train_together.train("sasrec", tmp_path, epochs=4)
    torch.testing.assert_close(
        torch.tensor(together[1][0]["resumed"]["losses"]),
        torch.tensor(alone["losses"]),
        atol=1e-5,
        rtol=1e-5,
    )


def test_batches_with_fewer_sequences_than_processes_are_refused(together: Together) -> None:
    folder, reports = together
    for report in reports:
        assert report["lonely"]["error"].startswith("'batch_size' needs to be larger (got 1): ")
        assert "2 processes" in report["lonely"]["error"]
    assert not (folder / "lonely").exists()


def test_without_torchrun_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for world_size in (None, "1"):
        if world_size is None:
            monkeypatch.delenv("WORLD_SIZE", raising=False)
        else:
            monkeypatch.setenv("WORLD_SIZE", world_size)
        assert start_workers(torch.device("cpu")) == Workers(0, 1)
        assert not torch.distributed.is_initialized()
    alone = Workers()
    value = torch.ones(2)
    assert alone.is_main
    assert alone.total(value) is value
    assert alone.agree(0.5, torch.device("cpu")) == 0.5


@pytest.mark.parametrize(
    ("device", "variables", "taken"),
    [
        ("cpu", {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, []),
        ("cuda", {}, []),  # what the caller has chosen stays
        ("cuda:1", {}, [1]),
        ("cuda", {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, [1]),
    ],
)
def test_each_process_takes_a_device_of_its_own(
    device: str, variables: dict[str, str], taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    take_device(torch.device(device))
    assert asked == taken


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="'cuda:0' is one device, and several processes"):
        take_device(torch.device("cuda:0"))
