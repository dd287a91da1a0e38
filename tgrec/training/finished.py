"""A run folder, read back as the run that made it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch

from tgrec.metrics import length_groups, summarize
from tgrec.training.record import RunRecord
from tgrec.training.report import RankedRun
from tgrec.training.run import CONFIG, METRICS, RANKS, read_ranks


def read_run(folder: str | os.PathLike[str]) -> RankedRun:
    """What :func:`tgrec.training.run` returned when it left this folder.

    The label ``variant`` of a record is not in the folder.

    Raises:
        FileNotFoundError: The run has not come to its end.
        ValueError: A file is damaged, or they are of different runs, or the run was interrupted
            (by a version that left figures all the same).
    """
    folder = Path(folder)
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
    ranks = read_ranks(folder / RANKS)
    with np.load(folder / RANKS, allow_pickle=False) as arrays:
        user, length = (torch.from_numpy(arrays[key]) for key in ("user", "history_length"))
    for name, figures in record.metrics.items():
        found = summarize(ranks[name]) if name in ranks else {}
        if any(abs(value - found.get(metric, 0.0)) > 1e-9 for metric, value in figures.items()):
            raise ValueError(f"{folder}: {RANKS} and {METRICS} are of different runs")
    groups = length_groups(length) | read_ranks(folder / RANKS, "group")
    return RankedRun(record, ranks, user, groups)
