"""`RunRecord`: one measured run as one line of JSON; no number enters the repository otherwise."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import torch

import tgrec
from tgrec.metrics import check_consistent

if sys.platform != "win32":
    import fcntl

TRACKS = ("T1", "T2", "T2-coarse")
REFIT = "refit on train and validation"
"""The label of records whose model was fitted on the events of validation too."""
_ROOT = Path(tgrec.__file__).resolve().parents[1]
# What decides a number; results and prose change between the seeds of one comparison.
_CODE = ("tgrec", "benchmarks", "pyproject.toml", ":!benchmarks/results", ":!*.md")


@dataclass(frozen=True)
class RunRecord:
    """What was run, on what, and what came out.

    Mappings become plain dicts and tuples lists, so that a record equals what is read back.

    Attributes:
        command: the command line that repeats the run (`command_line`).
        commit: of the code, or "unknown".
        dirty: whether the code differed from the commit; None if unknown.
        date: UTC, ISO 8601.
        versions: of python, torch, torch_geometric, numpy, tgrec.
        hardware: `cpu`, `cpus`, `threads`, `gpu`.
        protocol: tag of the board, such as `ml1m-loo`.
        track: `T1`, `T2` or `T2-coarse`.
        data: name of the data set.
        checksum: of its file, with the kind, such as `md5:a89a...`.
        model: name of the model.
        settings: every setting that the run can be repeated from.
        parameters: number of learned values in the model: those of this training, and the frozen
            ones of another that it stands on.
        seed: of the run.
        epochs: trained; 0 for a counting model.
        seconds: of fitting, wall clock.
        seconds_per_epoch: or None without epochs.
        metrics: candidate set (`full`, `uniform-100`, ...) -> metric -> mean over users.
        groups: group of users -> metric -> mean over its users, with the count `users`.
        variant: a label for a row of its own, such as `REFIT`.

    Raises:
        TypeError: a field has another type, or holds something that JSON has no word for.
        ValueError: a number is not finite, a text is empty, or the track unknown.
    """

    command: str
    commit: str
    dirty: bool | None
    date: str
    versions: dict[str, str]
    hardware: dict[str, str | int]
    protocol: str
    track: str
    data: str
    checksum: str
    model: str
    settings: dict[str, Any]
    parameters: int
    seed: int
    epochs: int
    seconds: float
    seconds_per_epoch: float | None
    metrics: dict[str, dict[str, float]]
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    variant: str = ""

    def __post_init__(self) -> None:
        """Bring every field to plain JSON types and refuse what is not."""
        for name, kinds in _KINDS.items():
            value = _plain(name, getattr(self, name))
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"{name} must be {wanted}, got {value!r}")
            if value == "" and name != "variant":
                raise ValueError(f"{name} is empty; a record names it")
            object.__setattr__(self, name, value)
        if self.track not in TRACKS:
            raise ValueError(f"track is {self.track!r}; it must be one of {', '.join(TRACKS)}")
        if not self.metrics:
            raise ValueError("metrics is empty; a record without a figure is not a result")
        for part, table in (("metrics", self.metrics), ("groups", self.groups)):
            for name, figures in table.items():
                _check_figures(f"{part}.{name}", figures)

    def to_json(self) -> str:
        """One line of JSON, without the line feed."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False, ensure_ascii=True)

    @classmethod
    def from_json(cls, line: str) -> RunRecord:
        """The record on a line.

        Raises:
            TypeError: a field has another type.
            ValueError: the line is not JSON, or a field is missing, unknown or out of range.
        """
        values = json.loads(line, parse_constant=_refuse_constant)
        if not isinstance(values, dict):
            raise ValueError(f"a record is a JSON object, got {type(values).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"unknown fields: {', '.join(unknown)}")
        if missing := sorted(known - values.keys()):
            raise ValueError(f"missing fields: {', '.join(missing)}")
        return cls(**values)


def is_refit(said: Mapping[str, Any]) -> bool:
    """Whether settings, or what is said of weights, are of a refit: validation trained it, too."""
    return "refit_of" in said


def run_identity(record: RunRecord) -> str:
    """What tells a run from all others: its model and seed, on which code and when."""
    return f"{record.model} seed {record.seed}, {record.commit}, {record.date}"


class Environment(TypedDict):
    """The fields of a `RunRecord` that the machine fills in: `RunRecord(**environment(), ...)`."""

    commit: str
    dirty: bool | None
    date: str
    versions: dict[str, str]
    hardware: dict[str, str | int]


def append_record(path: str | os.PathLike[str], record: RunRecord) -> None:
    """Append one line to a file of records (`append_line`).

    Args:
        path: a `.jsonl` file; it and its folder are created if absent.
        record: its figures must be possible (`tgrec.metrics.check_consistent`).

    Raises:
        ValueError: the figures exclude each other, or the file ends in the middle of a line.
        OSError: the file cannot be written.
    """
    _check_possible(record)
    append_line(path, record.to_json())


def check_appendable(path: str | os.PathLike[str]) -> None:
    """What `append_line` would refuse, to be asked before an hour of training.

    Raises:
        ValueError: it is a folder, or the file ends in the middle of a line.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file of records")
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                raise ValueError(f"{path} ends in the middle of a line; remove that line first")


def append_line(path: str | os.PathLike[str], text: str) -> None:
    """Append a line of ASCII; it is there whole and on disk, or not at all.

    One `write` to the locked file, opened for appending, then fsync. A line that a full disk cut
    short is taken back.

    Raises:
        ValueError: the file ends in the middle of a line.
        OSError: the file cannot be written.
    """
    path = Path(path)
    line = (text + "\n").encode("ascii")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # Between writers: a file shows its new size before all of a long line is in it.
        _lock(handle)
        size = os.fstat(handle).st_size
        if size:
            os.lseek(handle, size - 1, os.SEEK_SET)
            if os.read(handle, 1) != b"\n":
                raise ValueError(f"{path} ends in the middle of a line; remove that line first")
        if os.write(handle, line) != len(line):
            os.ftruncate(handle, size)
            raise OSError(f"{path}: the disk took only part of a line; nothing was appended")
        os.fsync(handle)
    finally:
        os.close(handle)


def read_records(path: str | os.PathLike[str]) -> list[RunRecord]:
    """All records of a file, in its order; empty lines are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no record or its figures are impossible (names file and line).
    """
    out = []
    text = Path(path).read_text(encoding="utf-8")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = RunRecord.from_json(line)
            _check_possible(record)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        out.append(record)
    return out


def environment() -> Environment:
    """Commit, versions, hardware and date; what cannot be found out is "unknown"."""
    commit, dirty = _commit(_ROOT)
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    versions |= {name: _version(name) for name in ("torch_geometric", "numpy")}
    versions["tgrec"] = tgrec.__version__
    hardware: dict[str, str | int] = {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "commit": commit,
        "dirty": dirty,
        "date": date,
        "versions": versions,
        "hardware": hardware,
    }


def command_line(argv: Sequence[str] | None = None, cwd: str | None = None) -> str:
    """The command that repeats this run, without the folders of this machine.

    Paths below `cwd` become relative to it; of another absolute path only the name is kept,
    behind `.../`, because records are published.

    Args:
        argv: default `sys.argv`.
        cwd: default the current folder.
    """
    here = Path(cwd or Path.cwd())
    words = [_publishable(word, here) for word in (sys.argv if argv is None else argv)]
    return shlex.join(["python", *words])


def _publishable(word: str, here: Path) -> str:
    name, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    path = Path(value)
    if not path.is_absolute():
        return word
    short = path.relative_to(here) if path.is_relative_to(here) else Path("...", path.name)
    return f"{name}{equals}{short}"


def _lock(handle: int) -> None:
    """Wait for the file to be ours until it is closed (on Windows, one writer at a time)."""
    if sys.platform != "win32":
        fcntl.flock(handle, fcntl.LOCK_EX)


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("command", "commit", "date", "protocol", "track", "data"), (str,)),
    **dict.fromkeys(("checksum", "model", "variant"), (str,)),
    **dict.fromkeys(("versions", "hardware", "settings", "metrics", "groups"), (dict,)),
    **dict.fromkeys(("parameters", "seed", "epochs"), (int,)),
    "dirty": (bool, type(None)),
    "seconds": (float, int),
    "seconds_per_epoch": (float, int, type(None)),
}


def _plain(where: str, value: object) -> object:
    """`value` in plain JSON types; `where` names it in errors."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; a record holds finite numbers only")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where} has the key {odd[0]!r}; keys of a record are strings")
        return {key: _plain(f"{where}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{where}[{i}]", item) for i, item in enumerate(value)]
    raise TypeError(
        f"{where} is a {type(value).__name__}; a record holds text, numbers, lists and mappings "
        "(use .item() for a tensor, str() for a path)"
    )


def _check_figures(where: str, figures: object) -> None:
    if not isinstance(figures, dict) or not figures:
        raise TypeError(f"{where} must map metrics to numbers, got {figures!r}")
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise TypeError(f"{where}.{name} must be a number, got {value!r}")


def _check_possible(record: RunRecord) -> None:
    for part, table in (("metrics", record.metrics), ("groups", record.groups)):
        for name, figures in table.items():
            try:
                check_consistent(figures)
            except ValueError as error:
                raise ValueError(f"{part}.{name}: {error}") from error


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a finite number")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _commit(root: Path) -> tuple[str, bool | None]:
    """Commit and dirty flag of the repository that `root` is the top of, else unknown.

    An installed package may lie inside somebody else's repository (a virtual environment in a
    project's folder), whose commit says nothing about this code.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        return "unknown", None
    status = _git(root, "status", "--porcelain", "--", *_CODE)
    return commit, None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command that only reads, or None if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
