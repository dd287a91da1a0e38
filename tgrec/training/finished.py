"""A run folder, read back as the run that made it, or as the plan of another one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from tgrec.metrics import length_groups, summarize
from tgrec.models.io import not_found_out, read_config
from tgrec.training.record import REFIT, RunRecord, is_refit
from tgrec.training.refit import Refit
from tgrec.training.report import RankedRun
from tgrec.training.run import CONFIG, METRICS, MODEL, RANKS, read_ranks
from tgrec.training.settings import TrainSettings


def read_run(folder: str | os.PathLike[str]) -> RankedRun:
    """What :func:`tgrec.training.run` returned when it left this folder.

    The label ``variant`` of a record is not in the folder, unless it is that of a refit.

    Raises:
        FileNotFoundError: The run has not come to its end.
        ValueError: A file is damaged, or they are of different runs, or the run was interrupted
            (by a version that left figures all the same).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {str(folder)!r}")
    if missing := [n for n in (CONFIG, METRICS, RANKS) if not (folder / n).is_file()]:
        raise FileNotFoundError(f"{folder} has no {missing[0]}; the run has not come to its end")
    try:
        about, measured = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (CONFIG, METRICS)
        )
        record = RunRecord(
            protocol=about["board"],
            track=about["settings"]["track"],
            checksum=about["data_checksum"],
            settings={
                **about["model_config"],
                **about["settings"],
                **about.get("further_settings", {}),
                "best_epoch": measured["best_epoch"],
                "val": measured["validation"][about["settings"]["metric"]],
                # Not in runs that only measured, nor in those of before there was such a thing.
                **({"chosen": measured["chosen"]} if "chosen" in measured else {}),
            },
            variant=REFIT if is_refit(about.get("further_settings", {})) else "",
            parameters=measured["params"],
            seconds=measured["fit"]["seconds"],
            **{
                name: about[name]
                for name in ("command", "commit", "dirty", "date", "versions", "hardware", "data")
            },
            **{
                name: measured[name]
                for name in ("model", "seed", "epochs", "seconds_per_epoch", "metrics", "groups")
            },
        )
        stopped = measured["fit"]["stopped"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} is damaged ({type(error).__name__}: {error})") from error
    if stopped == "interrupted":
        raise ValueError(f"{folder} was interrupted; finish it with --resume")
    ranks, members, user, length = _read_arrays(folder / RANKS)
    for name, figures in record.metrics.items():
        found = summarize(ranks[name]) if name in ranks else {}
        if any(abs(value - found.get(metric, 0.0)) > 1e-9 for metric, value in figures.items()):
            raise ValueError(f"{folder}: {RANKS} and {METRICS} are of different runs")
    return RankedRun(record, ranks, user, length_groups(length) | members)


def _read_arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """Ranks, groups, users and lengths of histories."""
    try:
        # numpy leaves a file open that it opened itself and that turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            user, length = (torch.from_numpy(arrays[key]) for key in ("user", "history_length"))
        return read_ranks(path), read_ranks(path, "group"), user, length
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); run it again") from error


def read_refit(folder: str | os.PathLike[str]) -> Refit:
    """How the run in this folder is trained anew on train and validation.

    Raises:
        FileNotFoundError: The run has not come to its end, or its model is not there.
        ValueError: A file is damaged; or the run was trained on more than training events, or
            measured weights of another one, so that no epoch of its own was chosen.
    """
    folder = Path(folder)
    record = read_run(folder).record
    about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if is_refit(record.settings):
        raise ValueError(f"{folder} is a refit itself; give the run that it was made from")
    if further := sorted(about.get("further_settings", {})):
        raise ValueError(
            f"{folder} began with what was trained before ({', '.join(further)}), on training "
            f"events alone; only a run from scratch can be trained anew on more"
        )
    given, epoch = about["model_config"], record.settings["best_epoch"]
    if record.parameters and not epoch:
        raise ValueError(f"{folder} has chosen no epoch on validation; give a run that trained")
    saved = read_config(folder / MODEL)["config"]
    try:
        settings = TrainSettings(**{**about["settings"], "stop_after": epoch or None})
    except TypeError as error:
        raise ValueError(
            f"{folder / CONFIG} holds settings of another version ({error}); run it again"
        ) from error
    return Refit(
        record=record,
        config=not_found_out(given),
        settings=settings,
        chosen={name: saved[name] for name in given if saved.get(name, given[name]) != given[name]},
    )
