"""Saving that fails or is killed leaves the last checkpoint whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tgrec.data import Split
from tgrec.training import TrainSettings
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY

pytestmark = pytest.mark.usefixtures("no_litter")
Make = Callable[..., Any]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_error_names_the_file_and_leaves_the_last_checkpoint_whole(
    call: str,
    checkpoint: Path,
    split: Split,
    settings: TrainSettings,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    run: Make,
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
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, run: Make
) -> None:
    run(make(split), split, settings, checkpoint, resume=True)
    assert sorted(p.name for p in checkpoint.iterdir()) == [CHECKPOINT, HISTORY]
