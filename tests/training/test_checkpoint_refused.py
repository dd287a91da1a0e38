"""Checkpoints that do not fit, or are damaged, are refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tgrec.data import Split
from tgrec.models.io import CHECKSUM, parameters_copy
from tgrec.training import TrainSettings, fit
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.fit import HISTORY

pytestmark = pytest.mark.usefixtures("no_litter")
Make = Callable[..., Any]


def refused(
    model: Any, split: Split, settings: TrainSettings, folder: Path, match: str, **kwargs: Any
) -> None:
    """Resuming fails with this message and changes neither model nor folder."""
    weights = parameters_copy(model)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        fit(model, split, settings, folder=folder, resume=True, show=False, **kwargs)
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
    tmp_path: Path, split: Split, settings: TrainSettings, make: Make, run: Make
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
    checkpoint: Path, split: Split, settings: TrainSettings, make: Make, run: Make
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
    text: str,
    message: str,
    checkpoint: Path,
    split: Split,
    settings: TrainSettings,
    make: Make,
    run: Make,
) -> None:
    (checkpoint / HISTORY).write_text(text)
    with pytest.raises(ValueError, match=f"{HISTORY} {message}"):
        run(make(split), split, settings, checkpoint, resume=True)
