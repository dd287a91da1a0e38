from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tgrec.data import Split
from tgrec.models import SASRec
from tgrec.models.io import CHECKSUM, parameters_copy
from tgrec.training import FitResult, TrainSettings, fit
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY

pytestmark = pytest.mark.usefixtures("no_litter")
Make = Callable[..., Any]


def untimed(result: FitResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in result.history]


def progress_of(folder: Path) -> dict[str, Any]:
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        saved: dict[str, Any] = json.loads(file.metadata()["progress"])
    return {k: v for k, v in saved.items() if "seconds" not in k}


def run(
    model: Any, split: Split, settings: TrainSettings, folder: Path, **kwargs: Any
) -> FitResult:
    return fit(model, split, settings, folder=folder, show=False, **kwargs)


@pytest.fixture
def checkpoint(tmp_path: Path, split: Split, settings: TrainSettings, make: Make) -> Path:
    """The folder of a finished run of one epoch that may go on to three."""
    run(make(split), split, settings, tmp_path, epochs=1)
    return tmp_path


# ---- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(
    accumulate: int,
    tmp_path: Path,
    split: Split,
    settings: TrainSettings,
    interfering: Make,
    stop: Make,
    same_files: Make,
) -> None:
    settings = replace(settings, accumulate=accumulate, warmup_steps=3, lr_decay="cosine")
    whole = interfering({}, dropout=0.3)
    expected = run(whole, split, settings, tmp_path / "whole")
    assert whole.steps == 9
    for step in range(1, 9):
        folder = tmp_path / f"step {step}"
        first = interfering({step: stop()}, dropout=0.3)
        assert run(first, split, settings, folder).stopped == "interrupted"
        # The next update of the weights: after every second batch, and after the third of an epoch.
        assert first.steps == (step if accumulate == 1 or step % 3 != 1 else step + 1)
        second = interfering({}, seed=99, dropout=0.3)  # its own weights must not matter
        result = run(second, split, settings, folder, resume=True)
        assert (result.stopped, result.best, result.best_epoch) == (
            "epochs", expected.best, expected.best_epoch,
        )  # fmt: skip
        assert untimed(result) == untimed(expected)
        assert all(
            torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True)
        )
        same_files(folder / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)
        assert progress_of(folder) == progress_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "windows"), [("bert4rec", "random"), ("tgt_bert4rec", "last"), ("sasrec", "all")]
)
def test_every_model_goes_on_to_the_same_bits(
    name: str,
    windows: Any,
    tmp_path: Path,
    split: Split,
    settings: TrainSettings,
    make: Make,
    same_files: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(settings, windows=windows)
    expected = run(make(split, name), split, settings, tmp_path / "whole")
    model, calls = make(split, name), 0
    terms = type(model).loss_terms

    def stopping(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
        return terms(self, batch)

    monkeypatch.setattr(type(model), "loss_terms", stopping)
    assert run(model, split, settings, tmp_path / "parts").stopped == "interrupted"
    result = run(make(split, name, seed=5), split, settings, tmp_path / "parts", resume=True)
    assert untimed(result) == untimed(expected)
    same_files(tmp_path / "parts" / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)


def test_a_finished_run_can_train_longer_unless_the_rate_falls_to_its_end(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, tmp_path: Path
) -> None:
    expected = run(make(split), split, settings, tmp_path / "whole")
    result = run(make(split), split, settings, checkpoint, resume=True, patience=7)
    assert untimed(result) == untimed(expected)
    cosine = replace(settings, lr_decay="cosine")
    run(make(split), split, cosine, tmp_path / "cosine", epochs=1)
    with pytest.raises(ValueError, match=r"other settings \(epochs: 1 -> 3\)"):
        run(make(split), split, cosine, tmp_path / "cosine", resume=True)


def test_a_finished_run_is_not_trained_again(
    checkpoint: Path, split: Split, settings: TrainSettings, interfering: Make, make: Make
) -> None:
    once = make(split)
    first = run(once, split, settings, checkpoint, resume=True)
    again = interfering({})
    again.__class__ = SASRec  # the class is part of what must agree
    result = run(again, split, settings, checkpoint, resume=True)
    assert again.steps == 0
    assert untimed(result) == untimed(first)
    assert all(
        torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True)
    )


def test_the_history_may_be_an_epoch_ahead_of_the_checkpoint(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    before = (checkpoint / HISTORY).read_text()
    (checkpoint / HISTORY).write_text(before + '{"epoch": 2, "loss": 0.0}\n')
    result = run(make(split), split, settings, checkpoint, resume=True)
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    assert result.history[1]["loss"] > 0
    assert (checkpoint / HISTORY).read_text().startswith(before)


# ---- what does not fit ------------------------------------------------------------------------


def refused(
    model: Any, split: Split, settings: TrainSettings, folder: Path, match: str, **kwargs: Any
) -> None:
    """Resuming fails with this message and changes neither model nor folder."""
    weights = parameters_copy(model)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        run(model, split, settings, folder, resume=True, **kwargs)
    assert "without --resume" in str(caught.value)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files
    assert all(torch.equal(v, weights[k]) for k, v in model.named_parameters())


@pytest.mark.parametrize(
    "changes",
    [{"lr": 0.5}, {"batch_size": 8}, {"seed": 1}, {"accumulate": 2}, {"lr_decay": "cosine"}],
    ids=str,
)
def test_other_settings_are_named(
    changes: dict[str, Any], checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    ((key, value),) = changes.items()
    was = getattr(settings, key)
    refused(make(split), split, settings, checkpoint, f"{key}: {was!r} -> {value!r}", **changes)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dropout": 0.5}, "model.dropout: 0.2 -> 0.5"),  # of the same shapes
        ({"d_model": 32}, "model.d_model: 16 -> 32"),
        ({"name": "bert4rec"}, "model: 'SASRec' -> 'BERT4Rec'"),
    ],
)
def test_another_model_is_named(
    kwargs: dict[str, Any],
    message: str,
    checkpoint: Path,
    split: Split,
    settings: TrainSettings,
    make: Make,
) -> None:
    refused(make(split, **kwargs), split, settings, checkpoint, message)


def test_other_frozen_parameters_are_named(
    tmp_path: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    def frozen(seed: int) -> Any:
        model = make(split, seed=seed)
        model.item.requires_grad_(False)
        return model

    run(frozen(0), split, settings, tmp_path, epochs=1)
    refused(frozen(1), split, settings, tmp_path, "digest of the frozen parameters: '")
    assert run(frozen(0), split, settings, tmp_path, resume=True).epochs == 3


def test_other_training_data_are_named(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    fewer = replace(split, train=split.train.before(200))
    refused(make(fewer), fewer, settings, checkpoint, "events: 336 -> 200")


def test_no_folder_and_no_checkpoint(
    tmp_path: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    refused(make(split), split, settings, tmp_path, f"there is no {tmp_path / CHECKPOINT}")
    with pytest.raises(ValueError, match="'resume' needs the 'folder'"):
        fit(make(split), split, settings, resume=True, show=False)


def test_a_file_cut_short_anywhere_is_refused(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    path, model = checkpoint / CHECKPOINT, make(split)
    content = path.read_bytes()
    for size in [0, 1, 7, 8, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        refused(model, split, settings, checkpoint, f"{CHECKPOINT} is damaged")
    path.write_bytes(b"\x80\x04K\x01." + content)  # a pickle is as foreign as anything else
    refused(model, split, settings, checkpoint, f"{CHECKPOINT} is damaged")


def test_a_flipped_byte_anywhere_is_refused(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    path, model = checkpoint / CHECKPOINT, make(split)
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    end = len(content[: 8 + header].rstrip())  # spaces fill the header up
    draw = random.Random(0)
    places = [0, 7, *range(8, end, 97), *draw.sample(range(8 + header, len(content)), 12)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        refused(model, split, settings, checkpoint, f"{path} is damaged")
    path.write_bytes(content)
    run(model, split, settings, checkpoint, resume=True)


def test_a_checkpoint_of_a_version_without_checksums_is_gone_on_with(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, tmp_path: Path
) -> None:
    path = checkpoint / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about.pop(CHECKSUM).startswith("sha256:")
    save_file(load_file(path), path, metadata=about)
    expected = run(make(split), split, settings, tmp_path / "whole")
    assert untimed(run(make(split), split, settings, checkpoint, resume=True)) == untimed(expected)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("optimizer/", "holds no optimizer state"),
        ("best/", "holds no best weights"),
        ("best/item", "holds no best weights"),
        ("model/item", "parameters differ: .'item'."),
        ("random/", "is damaged"),
    ],
)
def test_a_missing_part_is_named(
    part: str, message: str, checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    path = checkpoint / CHECKPOINT
    with safe_open(path, framework="pt") as file:
        about = {k: v for k, v in file.metadata().items() if k != CHECKSUM}
    left = {k: v for k, v in load_file(path).items() if not k.startswith(part)}
    save_file(left, path, metadata=about)
    refused(make(split), split, settings, checkpoint, message)
    save_file(left, path)
    refused(make(split), split, settings, checkpoint, "is damaged .*settings")


@pytest.mark.parametrize(
    ("text", "message"), [("", "has 0 of the 1 epochs"), ('{"epoch": 1', "is damaged")]
)
def test_a_damaged_history_is_named(
    text: str, message: str, checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    (checkpoint / HISTORY).write_text(text)
    with pytest.raises(ValueError, match=f"{HISTORY} {message}"):
        run(make(split), split, settings, checkpoint, resume=True)


# ---- saving that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_error_names_the_file_and_leaves_the_last_checkpoint_whole(
    call: str,
    checkpoint: Path,
    split: Split,
    settings: TrainSettings,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = (checkpoint / CHECKPOINT).read_bytes()
    real = getattr(os, call)

    def full(*args: Any) -> None:
        if CHECKPOINT in str(args) + str(sys._getframe(1).f_locals.get("path")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match=f"could not write .*{CHECKPOINT} .No space left"):
            run(make(split), split, settings, checkpoint, resume=True)
    assert (checkpoint / CHECKPOINT).read_bytes() == before
    assert run(make(split), split, settings, checkpoint, resume=True).stopped == "epochs"


KILLED = """
import os, random, resource, signal, sys, time
from pathlib import Path
import torch
from torch import nn
from tgrec.training.checkpoint import CHECKPOINT, Progress, load_checkpoint, save_checkpoint

torch.set_num_threads(1)
folder = Path(sys.argv[1])
model = nn.Linear(400, 400)
optimizer = torch.optim.Adam(model.parameters())
model(torch.ones(1, 400)).sum().backward()
optimizer.step()

def save(epoch):
    with torch.no_grad():
        model.weight.fill_(epoch)
    save_checkpoint(folder, model, optimizer, {}, Progress(epoch=epoch), {"lr": 1.0})

def loaded():
    progress, _ = load_checkpoint(folder, model, optimizer, {"lr": 1.0})
    assert bool((model.weight == progress.epoch).all()), "a mixture of two checkpoints"
    return progress.epoch

started = time.perf_counter()
save(1)
loaded()
took = time.perf_counter() - started  # a machine may be busy
random.seed(0)
for number in range(12):
    child = os.fork()
    if child == 0:
        epoch = loaded()
        while True:
            epoch += 1
            save(epoch)
    time.sleep(random.uniform(0.0, 10 * took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    last = loaded()
print("epochs saved", last)
left = list(folder.glob(".*.tmp"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # a full disk
try:
    save(10**6)
except OSError as error:
    print(error)
assert loaded() == last
assert list(folder.glob(".*.tmp")) == left
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for file in left:
    os.utime(file, (0, 0))
save(last + 1)
assert [p.name for p in folder.iterdir()] == [CHECKPOINT], "the killed left something for good"
"""


@pytest.mark.timeout(240)
def test_killed_at_any_moment_or_on_a_full_disk_the_last_checkpoint_is_whole(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, timeout=230
    )
    assert done.returncode == 0, done.stderr
    saved, error = done.stdout.splitlines()
    assert int(saved.split()[-1]) > 3
    assert f"could not write {folder / CHECKPOINT}" in error
    assert "what was there is unchanged" in error


def test_a_run_has_one_checkpoint_however_long(
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make
) -> None:
    run(make(split), split, settings, checkpoint, resume=True)
    assert sorted(p.name for p in checkpoint.iterdir()) == [CHECKPOINT, HISTORY]
