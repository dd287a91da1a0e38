"""All that a run needs to go on exactly where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tgrec.models.io import load_parameters, parameters_copy, read_tensors, write_tensors

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Progress:
    """Where a run is.

    Args:
        epoch: Epochs finished.
        step: Steps finished in the epoch that is under way.
        sums, counts: Loss terms of these steps.
        best: Best validation value so far.
        best_epoch: Epoch (from 1) in which it was seen, 0 for none.
        waited: Evaluations since.
        seconds: Training time so far, evaluation included.
        seconds_to_best: Of it, until the best weights.
        train_seconds: Of it, in training steps.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    best: float = float("-inf")
    best_epoch: int = 0
    waited: int = 0
    seconds: float = 0.0
    seconds_to_best: float = 0.0
    train_seconds: float = 0.0


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
    settings: dict[str, Any],
) -> None:
    """Writes one file, atomically: weights, best weights, optimizer, random state, progress.

    A checksum over all of it is part of the file, so that :func:`load_checkpoint` sees any damage.
    """
    tensors = {f"model/{k}": v for k, v in parameters_copy(model).items()}
    tensors |= {f"best/{k}": v.contiguous() for k, v in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer/{index}/{key}"] = torch.as_tensor(value).cpu().clone()
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    about = {
        "progress": json.dumps(asdict(progress)),
        "settings": json.dumps(settings, sort_keys=True),
    }
    write_tensors(folder / CHECKPOINT, tensors, about)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> tuple[Progress, dict[str, Tensor]]:
    """Puts everything back; returns the progress and the best weights.

    Nothing is changed unless the whole file fits.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it is damaged, incomplete or of a run with other settings or data.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"--resume: there is no {path}; start the run without --resume")
    try:
        tensors, about = read_tensors(path)
        saved = json.loads(about["settings"])
        progress = Progress(**json.loads(about["progress"]))
        random = tensors["random/cpu"]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start the run without --resume") from error
    wanted = json.loads(json.dumps(settings, sort_keys=True))
    # A setting that only one of two versions of the code has cannot be compared.
    differing = sorted(k for k in saved.keys() & wanted.keys() if saved[k] != wanted[k])
    if differing:
        changes = ", ".join(f"{k}: {saved[k]!r} -> {wanted[k]!r}" for k in differing)
        raise ValueError(
            f"--resume: {path} is of a run with other settings ({changes}); give the same settings "
            f"and data, or start the run without --resume"
        )
    best, state = _part(tensors, "best/"), _optimizer_state(tensors)
    if progress.epoch + progress.step > 0 and not state:
        raise ValueError(f"{path} holds no optimizer state; start the run without --resume")
    if best.keys() != (dict(model.named_parameters()).keys() if progress.best_epoch else set()):
        raise ValueError(f"{path} holds no best weights; start the run without --resume")
    try:
        load_parameters(model, _part(tensors, "model/"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; start the run without --resume") from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(random)
    if torch.cuda.is_available() and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return progress, best


def read_history(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The entries of the first ``epochs`` epochs of ``history.jsonl``.

    It is written just before the checkpoint, so after a crash it may be one epoch ahead.

    Raises:
        ValueError: If there are fewer.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines[:epochs]]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); start the run without --resume") from error
    if len(entries) < epochs:
        raise ValueError(
            f"{path} has {len(entries)} of the {epochs} epochs of its checkpoint; start the run "
            f"without --resume"
        )
    return entries


def _optimizer_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Parameter number -> its moments and step."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = value
    return state


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
