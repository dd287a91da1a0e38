"""What benchmarks/ml1m.py reads back: weights to start from, to measure, or to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from tgrec.loader import Track
from tgrec.models import MODELS, Ensemble, RecModel, load_model
from tgrec.models.io import read_config
from tgrec.training import Task, Teacher
from tgrec.training.record import is_refit


def load_weights(
    folder: Path, classes: Iterable[type[RecModel]], task: Task, flag: str = "weights"
) -> RecModel:
    """A saved model for this catalogue and, since boards split differently, for this board."""
    saved = saved_config(folder)
    board = saved.get("board", task.board)
    if board != task.board:
        raise ValueError(
            f"--{flag}: {folder} was trained on the board {board}, whose training events may be "
            f"test events of {task.board}; use --board {board}"
        )
    size, train = task.split.graph.num_items, task.fitted_on(is_refit(saved)).train
    known = {cls.__name__: cls for cls in classes}
    return load_model(model_folder(folder), known, size, task.checksum, train)


def model_folder(folder: Path) -> Path:
    """Where the model is: a run keeps it in a folder of its own."""
    return folder / "model" if (folder / "model").is_dir() else folder


def saved_config(folder: Path) -> dict[str, Any]:
    """What is said of the weights in ``folder``."""
    return read_config(model_folder(folder))


def load_teacher(
    folders: Sequence[Path], task: Task, at: Literal["end", "all"] | None, weight: float | None
) -> Teacher | None:
    """The models in ``folders`` as one teacher, which is asked on the track it was trained on.

    Args:
        folders: Of models of tgrec.models.MODELS, trained on this board; several teach as an
            ensemble.
        task: The board.
        at: As :class:`Teacher` takes it, and so is ``weight``; None is what it does by itself.
        weight: Likewise.

    Raises:
        ValueError: If there are none but one of the others is given, or they do not go together.
    """
    given: dict[str, Any] = {k: v for k, v in {"at": at, "weight": weight}.items() if v is not None}
    if not folders:
        if given:
            raise ValueError(f"--distill_{next(iter(given))} needs --teacher")
        return None
    if refits := [str(folder) for folder in folders if is_refit(saved_config(folder))]:
        raise ValueError(
            f"--teacher: {', '.join(refits)} was trained on the events of validation too, by which "
            f"its pupil is chosen; give the run that it was made from"
        )
    tracks: dict[Track, Path] = {saved_config(f).get("track", "T1"): f for f in folders}
    if len(tracks) > 1:
        said = ", ".join(f"{folder} of {track}" for track, folder in tracks.items())
        raise ValueError(f"--teacher: models of one track are needed (got {said})")
    members = [load_weights(folder, MODELS.values(), task, "teacher") for folder in folders]
    model = members[0] if len(members) == 1 else Ensemble(members)
    return Teacher(model, track=next(iter(tracks)), prefix="--distill_", **given)
