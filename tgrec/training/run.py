"""One run from settings to a folder with everything it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tgrec.data import Split
from tgrec.data.files import atomic_path, write_text
from tgrec.models.base import RecModel
from tgrec.models.io import save_model
from tgrec.sampler import EventIndex
from tgrec.training.distill import Teacher
from tgrec.training.evaluate import SAMPLED, Evaluation, evaluate
from tgrec.training.fit import fit
from tgrec.training.record import (
    REFIT,
    Environment,
    RunRecord,
    command_line,
    environment,
    is_refit,
)
from tgrec.training.refit import Refit
from tgrec.training.report import RankedRun
from tgrec.training.result import FitResult
from tgrec.training.settings import TrainSettings
from tgrec.training.stop import NotFiniteError

CONFIG, METRICS, RANKS, MODEL = "config.json", "metrics.json", "ranks.npz", "model"


@dataclass(frozen=True)
class Task:
    """What is measured on: a board, loaded.

    Args:
        board: Its tag, for example ``ml1m-loo``.
        data: Name of the data for people; says so if they are simulated.
        checksum: Of the events.
        split: What to fit on and what to ask.
        remove_seen: Whether items of the past are left out of the ranking.
        sampled: Candidate sets ranked beside all items, see :data:`tgrec.training.SAMPLED`.
    """

    board: str
    data: str
    checksum: str
    split: Split
    remove_seen: bool
    sampled: Mapping[str, tuple[str, int]] = field(default_factory=lambda: SAMPLED)

    def fitted_on(self, refit: bool) -> Split:
        """What a model is fitted on; what it is asked, and among which items, is ``split``'s."""
        return self.split.with_validation() if refit else self.split


def new_folder(out: str | os.PathLike[str], name: str) -> Path:
    """Makes ``out/name``, or ``out/name-2`` and so on: no run ever writes into another's folder."""
    number = 1
    while True:
        folder = Path(out) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=False)
            return folder
        except FileExistsError:
            number += 1


def latest_folder(out: str | os.PathLike[str], name: str) -> Path:
    """The newest of the folders that :func:`new_folder` made for ``name``."""
    ours = re.compile(re.escape(name) + r"(-\d+)?")
    found = [p for p in Path(out).glob("*") if ours.fullmatch(p.name) and p.is_dir()]
    if not found:
        raise FileNotFoundError(
            f"--resume: there is no run {name!r} in {str(out)!r}; start it without --resume"
        )
    return max(found, key=lambda p: (len(p.name), p.name))


def run(
    name: str,
    model: RecModel,
    task: Task,
    settings: TrainSettings,
    folder: Path,
    *,
    resume: bool = False,
    train: bool = True,
    show: bool = True,
    extra: Mapping[str, Any] | None = None,
    further_settings: Mapping[str, Any] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    teacher: Teacher | None = None,
    refit: Refit | None = None,
) -> RankedRun:
    """Trains (if ``train``), asks the test targets once, and writes the run folder.

    The folder holds ``config.json`` (options, versions, commit, data checksum), ``history.jsonl``
    and a checkpoint while training, ``metrics.json``, ``ranks.npz`` and ``model/``, each written
    atomically.

    Args:
        name: The model's name in tables, unless a part is left out that it promises
            (:meth:`RecModel.name_of`).
        model: From ``from_graph(task.split.train)``, or loaded weights.
        task: What to measure on.
        settings: How to train; also the track and the device of the evaluation, which is in fp32.
        folder: From :func:`new_folder`.
        resume: Continue the training in ``folder``. Models without parameters have none, and are
            measured again.
        train: False only evaluates.
        show: Print progress.
        extra: Further JSON values for ``config.json``.
        further_settings: JSON values for the settings of the record beside those of model and
            training, such as what another training has left.
        after_epoch: As :func:`fit` takes it.
        teacher: Likewise.
        refit: Of which run this is the training anew on train and validation, with ``model`` from
            ``from_graph(task.fitted_on(True).train)``. Nothing is chosen; what that run chose is
            taken over. The record is labelled.

    Raises:
        NotFiniteError: As :func:`fit`; the best weights so far are then in ``model/``.
        TrainingInterrupted: By Ctrl-C or SIGTERM. The test is not asked; beside the checkpoint the
            best weights so far are in ``model/``, and ``resume`` finishes the run.
    """
    given = dict(model.config)  # training may choose some of it
    name = type(model).name_of(name, given)
    further = {**(further_settings or {}), **({"refit_of": refit.identity} if refit else {})}
    # Whatever is made of the weights of a refit: validation says as little of it.
    origin = {"refit_of": further["refit_of"]} if is_refit(further) else {}
    made_with = environment()  # now: the code may have moved on when a long run ends
    about = {
        "model": name,
        "board": task.board,
        "data": task.data,
        "data_checksum": task.checksum,
        "command": command_line(),
        "settings": asdict(settings),
        "model_config": given,
        **({"further_settings": further} if further else {}),
        **made_with,
        **(extra or {}),
    }
    write_config = partial(write_text, folder / CONFIG, json.dumps(about, indent=2) + "\n")
    if not resume:  # a resumed run may turn out not to be the same: then its file stays as it is
        write_config()
    result = FitResult(stopped="not trained")
    keep = partial(
        save_model, model, folder / MODEL, catalogue=task.checksum, board=task.board,
        track=settings.track, **origin,
    )  # fmt: skip
    if train:
        try:
            result = fit(
                model, task.fitted_on(refit is not None), settings, folder=folder, show=show,
                teacher=teacher, after_epoch=after_epoch,
                resume=resume and model.num_parameters() > 0,
            )  # fmt: skip
        except NotFiniteError as error:
            if error.best_epoch:
                keep()
            raise
    if resume:
        write_config()
    if result.stopped == "interrupted":
        if result.best_epoch:
            keep()
        for figures in (METRICS, RANKS):  # of before a finished run went on
            (folder / figures).unlink(missing_ok=True)
        result.check_finished(settings.metric)
    for setting, value in refit.chosen.items() if refit else ():
        model.put_chosen(setting, value)
    model.to(settings.device)
    index = EventIndex(task.split.graph, settings.device)
    evaluation = evaluate(
        model, task.split, task.split.test, track=settings.track, remove_seen=task.remove_seen,
        device=settings.device, index=index, sampled=task.sampled,
    )  # fmt: skip
    write_ranks(folder / RANKS, evaluation)
    keep()
    record = _record(name, model, given, further, task, settings, result, evaluation, made_with)
    write_text(folder / METRICS, json.dumps(_metrics(record, settings, result), indent=2) + "\n")
    return RankedRun(record, evaluation.ranks, evaluation.targets.user, evaluation.groups)


def write_ranks(path: Path, evaluation: Evaluation) -> None:
    """Saves ranks and targets, from which every table can be derived again without the model."""
    arrays = {f"rank/{k}": v.numpy() for k, v in evaluation.ranks.items()}
    arrays |= {f"group/{k}": v.numpy() for k, v in evaluation.groups.items()}
    targets = evaluation.targets
    arrays |= {
        "user": targets.user.numpy(),
        "item": targets.item.numpy(),
        "cut": targets.cut.numpy(),
    }
    arrays["history_length"] = evaluation.history_length.numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_ranks(path: str | os.PathLike[str], kind: str = "rank") -> dict[str, torch.Tensor]:
    """Candidate set -> ``[n]`` ranks, or name -> ``[n]`` bool for the kind ``group``.

    As :func:`write_ranks` saved them.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return {
            k.removeprefix(f"{kind}/"): torch.from_numpy(arrays[k])
            for k in arrays
            if k.startswith(f"{kind}/")
        }


def _record(
    name: str,
    model: RecModel,
    given: dict[str, Any],
    further: Mapping[str, Any],
    task: Task,
    settings: TrainSettings,
    result: FitResult,
    evaluation: Evaluation,
    made_with: Environment,
) -> RunRecord:
    return RunRecord(
        command=command_line(),
        protocol=task.board,
        track=settings.track,
        data=task.data,
        checksum=task.checksum,
        model=name,
        settings={
            **given,
            **asdict(settings),
            **further,
            "best_epoch": result.best_epoch,
            "val": _finite(result.best),
            **({"chosen": _chosen(given, model)} if result.epochs else {}),
        },
        parameters=sum(p.numel() for p in model.parameters()),
        seed=settings.seed,
        epochs=result.epochs,
        seconds=result.seconds,
        seconds_per_epoch=result.seconds_per_epoch if result.epochs else None,
        metrics=evaluation.metrics(),
        groups=evaluation.group_metrics(),
        variant=REFIT if is_refit(further) else "",
        **made_with,
    )


def _metrics(record: RunRecord, settings: TrainSettings, result: FitResult) -> dict[str, Any]:
    fitted = {k: v for k, v in dataclasses.asdict(result).items() if k != "history"}
    return {
        "protocol": f"{record.protocol} {record.track}",
        "data": record.data,
        "model": record.model,
        "metrics": record.metrics,
        "groups": record.groups,
        "params": record.parameters,
        "seconds_per_epoch": record.seconds_per_epoch,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        **({"chosen": record.settings["chosen"]} if result.epochs else {}),
        "seconds_to_best": result.seconds_to_best,
        "peak_memory_mb": result.peak_memory_mb,
        "seed": settings.seed,
        "validation": {settings.metric: _finite(result.best)},
        "fit": {k: _finite(v) if isinstance(v, float) else v for k, v in fitted.items()},
    }


def _chosen(given: dict[str, Any], model: RecModel) -> dict[str, Any]:
    """What training has chosen of the model's settings (:meth:`RecModel.choose`)."""
    return {k: v for k, v in model.config.items() if k not in given or given[k] != v}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
