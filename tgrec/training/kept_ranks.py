"""Ranks of recorded runs, user by user: from them any two records can be compared, paired.

A record holds means. Beside a file of records, in the folder ``ranks``, lies one small file per
record (``.npz`` with the arrays ``user`` and ``rank``, no pickle), which the record names: the end
of its name is a hash of what was run and what came out. The label ``variant`` and the command are
not part of it, so that they can be put right later. Records without ranks are as valid as others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tgrec.data.files import atomic_path
from tgrec.metrics import MISS, summarize
from tgrec.training.record import RunRecord, append_record
from tgrec.training.report import RankedRun

FOLDER = "ranks"
_IDENTITY = (
    "protocol", "track", "checksum", "model", "settings", "seed", "commit", "date", "metrics",
)  # fmt: skip


@dataclass(frozen=True)
class KeptRanks:
    """Ranks of the full ranking.

    Attributes:
        user: int64 `[n]`, ascending.
        rank: int64 `[n]`, from 1; `tgrec.metrics.MISS` for a target that could not be ranked.
    """

    user: Tensor
    rank: Tensor


def record_run(file: str | os.PathLike[str], run: RankedRun) -> None:
    """Keeps the ranks of a run, then appends its record (:func:`append_record`).

    Raises:
        ValueError: The run has no ranks or no users, or what the two functions refuse; nothing is
            written then.
        OSError: A file cannot be written.
    """
    if run.user is None or "full" not in run.ranks:
        raise ValueError(f"{run.record.model} has no ranks; use append_record to record it without")
    path = keep_ranks(Path(file).parent, run.record, run.user, run.ranks["full"])
    try:
        append_record(file, run.record)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def same_run(a: RunRecord, b: RunRecord) -> bool:
    """Whether two records are of one run, however they are labelled."""
    return _identity(a) == _identity(b)


def ranks_path(results: str | os.PathLike[str], record: RunRecord) -> Path:
    """Where the ranks of a record are, or would be.

    Args:
        results: The folder that holds the file of records.
        record: Of the run.
    """
    name = f"{record.model}-{record.protocol}-{record.track}-seed{record.seed}-{_identity(record)}"
    return Path(results) / FOLDER / (re.sub(r"[^\w.-]+", "_", name) + ".npz")


def keep_ranks(
    results: str | os.PathLike[str], record: RunRecord, user: Tensor, rank: Tensor
) -> Path:
    """Writes the ranks of a record, atomically; returns the file.

    Args:
        results: The folder that holds the file of records.
        record: Of the run; its figures must be those of the ranks.
        user: int64 `[n]`, each once, in any order.
        rank: int64 `[n]` ranks of the full ranking, from 1, or `MISS`.

    Raises:
        ValueError: The ranks are not those of the record, a user stands twice, or the lengths
            differ.
        OSError: The file cannot be written.
    """
    path = ranks_path(results, record)
    if user.shape != rank.shape:
        raise ValueError(f"'user' has {user.numel()} entries and 'rank' {rank.numel()} ({path})")
    order = user.argsort()
    kept = _checked(KeptRanks(user[order].cpu(), rank[order].cpu()), record, path)
    ranks = torch.where(kept.rank == MISS, 0, kept.rank)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, user=_small(kept.user), rank=_small(ranks))
    return path


def read_kept_ranks(results: str | os.PathLike[str], record: RunRecord) -> KeptRanks:
    """The ranks of a record.

    Args:
        results: The folder that holds the file of records.
        record: Of the run.

    Raises:
        FileNotFoundError: None are kept.
        ValueError: The file is damaged, or its ranks do not have the figures of the record.
    """
    path = ranks_path(results, record)
    if not path.is_file():
        raise FileNotFoundError(f"no ranks of {record.model} seed {record.seed} are kept at {path}")
    try:
        # An open file: numpy leaves one of its own open where the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            user, rank = (
                torch.from_numpy(arrays[name].astype(np.int64)) for name in ("user", "rank")
            )
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); keep the ranks again") from error
    return _checked(KeptRanks(user, torch.where(rank == 0, MISS, rank)), record, path)


def _checked(kept: KeptRanks, record: RunRecord, path: Path) -> KeptRanks:
    """Raises unless every user stands once and the ranks have the figures of the record."""
    if kept.user.dim() != 1 or kept.user.shape != kept.rank.shape:
        shapes = f"{list(kept.user.shape)} users and {list(kept.rank.shape)} ranks"
        raise ValueError(f"{path} has {shapes}; a rank belongs to each user")
    if bool((kept.user.diff() <= 0).any()):
        row = int((kept.user.diff() <= 0).nonzero()[0])
        raise ValueError(
            f"{path}: user {int(kept.user[row + 1])} follows user {int(kept.user[row])}; each user "
            "stands once, in ascending order"
        )
    recorded, found = record.metrics.get("full", {}), summarize(kept.rank)
    for name in recorded.keys() & found.keys():
        if abs(recorded[name] - found[name]) > 1e-9:
            raise ValueError(
                f"{path}: these ranks have {name} {found[name]:.6f}, the record of {record.model} "
                f"seed {record.seed} says {recorded[name]:.6f}; they are of different runs"
            )
    return kept


def _small(values: Tensor) -> npt.NDArray[np.unsignedinteger]:
    """As the smallest unsigned integers that hold them."""
    array = values.numpy()
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _identity(record: RunRecord) -> str:
    values = json.dumps([getattr(record, name) for name in _IDENTITY], sort_keys=True)
    return hashlib.sha256(values.encode("ascii")).hexdigest()[:12]
