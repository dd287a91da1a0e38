"""Runs of ablations: what is read back, what is recorded, and the tables of paired tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from terminal import RANK, say
from torch import Tensor

from tgrec.metrics import bootstrap_interval, ndcg, paired_bootstrap, summarize
from tgrec.training import (
    RankedRun,
    RunRecord,
    Task,
    latest_folder,
    read_records,
    read_run,
    record_run,
    same_run,
)
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.report import alarm_of, board_title

FULL = "full"
# Of whom tables of their own are printed: name of the group, and how it is called in the title.
GROUPS = {
    "<=50": ", at most 50 events before the target",
    "rare item": ", targets of the rarer half of the items",
}
# Options that make another setting than the golden one, and how labels call them.
LABELLED = {"epochs": "epochs", "batch_size": "a batch"}
# What a record holds beside the settings of a run.
OUTCOMES = ("best_epoch", "val", "chosen", "device")


def short_name(variant: str) -> str:
    """Name of a variant, without the settings that its label begins with."""
    return variant.rpartition(": ")[2] or FULL


def variant_label(name: str, given: Mapping[str, Any]) -> str:
    """What a record calls a variant: what differs from the golden setting, then its name.

    Args:
        name: Of the variant.
        given: Options by name, None where they were not given.
    """
    values = {what: given.get(option) for option, what in LABELLED.items()}
    changed = ", ".join(f"{value} {what}" for what, value in values.items() if value is not None)
    return f"{changed}: {name}" if changed else "" if name == FULL else name


def begun(out: Path, label: str) -> Path | None:
    """The newest folder of a run, if something is in it to go on with."""
    try:
        folder = latest_folder(out, label)
    except FileNotFoundError:
        return None
    return folder if is_finished(folder) or (folder / CHECKPOINT).is_file() else None


def is_finished(folder: Path | None) -> bool:
    """Whether a run came to its end; older interrupted ones left figures as well."""
    if folder is None or not (folder / "metrics.json").is_file():
        return False
    fitted = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["fit"]
    return bool(fitted["stopped"] != "interrupted")


def read_back(folder: Path, settings: Mapping[str, Any], task: Task, variant: str) -> RankedRun:
    """A finished run; raises if it had other settings or other data."""
    ranked = read_run(folder)
    wanted = {**json.loads(json.dumps(settings)), "data": task.checksum}
    had = {**ranked.record.settings, "data": ranked.record.checksum}
    differing = [k for k in wanted if k not in OUTCOMES and wanted[k] != had.get(k)]
    if differing:
        changes = ", ".join(f"{k}: {had.get(k)!r} -> {wanted[k]!r}" for k in sorted(differing))
        raise ValueError(
            f"--resume: {folder} is of a run with other settings ({changes}); give the same "
            "ones, or another --out"
        )
    return replace(ranked, record=replace(ranked.record, variant=variant))


def record_once(file: Path | None, ranked: RankedRun) -> None:
    """Records a run that was read back, unless that was done when it ended."""
    if file is None or RANK > 0:
        return
    if not file.exists() or not any(same_run(ranked.record, r) for r in read_records(file)):
        record_run(file, ranked)


def print_ablations(runs: Sequence[RankedRun]) -> None:
    """Each variant against the first run: over all users, and over some of them."""
    # Without a terminal (a log file) rich assumes 80 columns and would fold every cell.
    console = Console(width=None if sys.stdout.isatty() else 180)
    base = runs[0]
    console.print(ablation_table(runs))
    for group, what in GROUPS.items():
        lacking = [short_name(run.record.variant) for run in runs if group not in run.groups]
        if lacking:
            say(f"no table of {group!r}: {', '.join(lacking)} ran before this group was measured")
        elif bool(base.groups[group].any()):
            console.print(ablation_table(runs, group, what))
    for record in (run.record for run in runs):
        say_alarm(console, record)


def ablation_table(runs: Sequence[RankedRun], group: str | None = None, what: str = "") -> Table:
    """NDCG@10, HR@10 and MRR of the full ranking over the users of a group, or over all."""
    base = runs[0]
    title = f"{board_title(base.record)}: {base.record.model} seed {base.record.seed}{what}"
    table = Table(
        title=Text(f"{title}, paired bootstrap over users against the full model"),
        caption="NDCG@10, HR@10 and MRR of the full ranking; intervals cover 95 %.",
        title_justify="left",
        caption_justify="left",
    )
    heads = ("variant", "params", "epochs", "users", "NDCG@10", "interval", "HR@10", "MRR",
             "difference", "relative", "interval", "p")  # fmt: skip
    for head in heads:
        table.add_column(Text(head), justify="left" if head == "variant" else "right")
    for run in runs:
        ranks = ranks_of(run, group)
        low, high = bootstrap_interval(ndcg(ranks, 10))
        figures = summarize(ranks)
        table.add_row(
            short_name(run.record.variant),
            f"{run.record.parameters:,}",
            str(run.record.epochs),
            f"{ranks.numel():,}",
            f"{figures['NDCG@10']:.4f}",
            Text(f"[{low:.4f}, {high:.4f}]"),
            f"{figures['HR@10']:.4f}",
            f"{figures['MRR']:.4f}",
            *(["-"] * 4 if run is base else against(run, base, group)),
        )
    return table


def ranks_of(run: RankedRun, group: str | None) -> Tensor:
    """The full ranking's ranks of a group, or of all."""
    return run.ranks["full"] if group is None else run.ranks["full"][run.groups[group]]


def against(run: RankedRun, base: RankedRun, group: str | None) -> list[str | Text]:
    """The cells of a paired test."""
    assert run.user is not None
    assert base.user is not None
    users = (run.user, base.user)
    if group is not None:
        users = (run.user[run.groups[group]], base.user[base.groups[group]])
    a, b = (ndcg(ranks_of(one, group), 10) for one in (run, base))
    test = paired_bootstrap(a, b, users=users)
    relative = "-" if test.relative is None else f"{100 * test.relative:+.1f} %"
    interval = Text(f"[{test.low:+.4f}, {test.high:+.4f}]")
    return [f"{test.difference:+.4f}", relative, interval, f"{test.p_value:.4f}"]


def say_alarm(console: Console, record: RunRecord) -> None:
    """A figure that is too good to be true is said to be one."""
    if alarm := alarm_of(record):
        console.print(Text(alarm, style="bold red"))
