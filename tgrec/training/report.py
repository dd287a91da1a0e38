"""Tables of runs for a terminal: every one carries its protocol tag, track and data name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from tgrec.metrics import bootstrap_interval, hit_ratio, mrr, ndcg, paired_bootstrap
from tgrec.training.record import RunRecord

SEED_SCALE = "uniform-28"
"""The candidate set on which the seed's published figures lie; shown, never the headline."""

ALARM = {"T1": 0.24, "T2": 0.30, "T2-coarse": 0.30}
"""NDCG@10 on `ml1m-loo` above which a run counts as a leak until its audit says otherwise."""

_SAMPLED = ("uniform-100", "popularity-100", SEED_SCALE)
_PER_USER: dict[str, Callable[[Tensor], Tensor]] = {
    "NDCG@10": lambda ranks: ndcg(ranks, 10),
    "HR@10": lambda ranks: hit_ratio(ranks, 10),
    "MRR": mrr,
}


@dataclass(frozen=True)
class RankedRun:
    """A run as the tables take it.

    Attributes:
        record: the figures.
        ranks: candidate set -> int64 `[n]`; the full ranking gives intervals and paired tests.
            Without it the run is shown with its means only.
        user: int64 `[n]`, whose ranks these are; compared between runs if given.
        groups: name -> bool `[n]`, as :class:`tgrec.training.Evaluation` has them.
    """

    record: RunRecord
    ranks: Mapping[str, Tensor] = field(default_factory=dict)
    user: Tensor | None = None
    groups: Mapping[str, Tensor] = field(default_factory=dict)


def print_summary(
    runs: Sequence[RankedRun | RunRecord],
    baseline: str | None = None,
    console: Console | None = None,
) -> None:
    """Print one or several runs: metrics with intervals, groups of users, paired tests.

    Runs of another board, track or data set go into tables of their own.

    Args:
        runs: at least one.
        baseline: label of the run that the others are tested against (`run_label`, or the name of
            the model); default the first run of each table.
        console: where to print; default standard output.

    Raises:
        ValueError: no runs, no run has the name of the baseline, or the runs of one table ranked
            different users.
    """
    if not runs:
        raise ValueError("runs is empty; pass at least one run")
    ranked = [RankedRun(run) if isinstance(run, RunRecord) else run for run in runs]
    names = [name for run in ranked for name in (run_label(run.record), run.record.model)]
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline {baseline!r} is none of the runs: {', '.join(names[::2])}")
    # Without a terminal (a log file) rich assumes 80 columns and would fold every cell.
    console = console or Console(width=None if sys.stdout.isatty() else 180)
    boards: dict[str, list[RankedRun]] = {}
    for run in ranked:
        boards.setdefault(board_title(run.record), []).append(run)
    for title, members in boards.items():
        records = [run.record for run in members]
        console.print(_summary_table(title, members))
        for record in records:
            if alarm := alarm_of(record):
                console.print(Text(alarm, style="bold red"))
        if any(record.groups for record in records):
            console.print(_group_table(title, records))
        if len([run for run in members if "full" in run.ranks]) > 1:
            console.print(_paired_table(title, members, baseline))


def board_title(record: RunRecord) -> str:
    """Protocol tag, track and data name: what a figure must never be printed without."""
    return f"{record.protocol}, track {record.track}, {record.data}"


def run_label(record: RunRecord) -> str:
    """Name of a run's row: model, variant, seed."""
    variant = f" ({record.variant})" if record.variant else ""
    return f"{record.model}{variant} seed {record.seed}"


def alarm_of(record: RunRecord) -> str | None:
    """The warning that a figure is too good to be true, or None (PROTOCOL: `ALARM`)."""
    value = record.metrics.get("full", {}).get("NDCG@10", 0.0)
    limit = ALARM[record.track]
    if record.protocol != "ml1m-loo" or value <= limit:
        return None
    return (
        f"ALARM: {run_label(record)} has NDCG@10 {value:.4f} on {record.protocol}, track "
        f"{record.track}; above {limit:.2f} it counts as a leak until the tie audit and the "
        "leak checks say otherwise"
    )


def headline_metrics(records: Sequence[RunRecord]) -> list[str]:
    """NDCG@10, HR@10, MRR as far as the records have them, else all metrics of the full ranking."""
    present = list(dict.fromkeys(m for r in records for m in r.metrics.get("full", {})))
    return [name for name in _PER_USER if name in present] or present


def sampled_sets(records: Sequence[RunRecord]) -> list[str]:
    """The sampled candidate sets of the records, those of the protocol first."""
    present = list(dict.fromkeys(s for r in records for s in r.metrics if s != "full"))
    return [s for s in _SAMPLED if s in present] + [s for s in present if s not in _SAMPLED]


def sampled_heading(candidates: str) -> str:
    """Column heading of a candidate set."""
    return f"{candidates} (seed scale)" if candidates == SEED_SCALE else candidates


def _summary_table(title: str, runs: Sequence[RankedRun]) -> Table:
    records = [run.record for run in runs]
    metrics, sampled = headline_metrics(records), sampled_sets(records)
    table = _table(
        f"{title}: full ranking, 95 % intervals over users",
        ["model", "params", "epochs", "s/epoch", *metrics, *map(sampled_heading, sampled)],
    )
    if sampled:
        table.caption = (
            "Sampled columns: NDCG@10 / HR@10 among so many drawn negatives. They do not keep "
            "the order of models and are never the headline."
        )
    for run in runs:
        record = run.record
        pace = record.seconds_per_epoch
        figures = [_with_interval(run, name) for name in metrics]
        figures += [_pair(record.metrics.get(name, {})) for name in sampled]
        fixed = [run_label(record), f"{record.parameters:,}", str(record.epochs)]
        _add(table, [*fixed, "-" if pace is None else f"{pace:.1f}", *figures])
    return table


def _group_table(title: str, records: Sequence[RunRecord]) -> Table:
    names = list(dict.fromkeys(name for record in records for name in record.groups))
    table = _table(
        f"{title}: NDCG@10 / HR@10 by events before the target, and other groups", ["model", *names]
    )
    for record in records:
        cells = []
        for name in names:
            group = record.groups.get(name, {})
            users = f" ({group['users']:,.0f} users)" if "users" in group else ""
            cells.append(_pair(group) + users)
        _add(table, [run_label(record), *cells])
    return table


def _paired_table(title: str, runs: Sequence[RankedRun], baseline: str | None) -> Table:
    runs = [run for run in runs if "full" in run.ranks]
    named = [run for run in runs if baseline in (run_label(run.record), run.record.model)]
    base = (named or runs)[0]
    table = _table(
        f"{title}: paired bootstrap over users against {run_label(base.record)}",
        ["model", "metric", "difference", "relative", "95 % interval", "p"],
    )
    for run in runs:
        if run is base:
            continue
        users = None if run.user is None or base.user is None else (run.user, base.user)
        for name, values in _PER_USER.items():
            test = paired_bootstrap(
                values(run.ranks["full"]), values(base.ranks["full"]), users=users
            )
            relative = "-" if test.relative is None else f"{100 * test.relative:+.1f} %"
            interval = f"[{test.low:+.4f}, {test.high:+.4f}]"
            cells = [f"{test.difference:+.4f}", relative, interval, f"{test.p_value:.4f}"]
            _add(table, [run_label(run.record), name, *cells])
    return table


def _with_interval(run: RankedRun, metric: str) -> str:
    value = run.record.metrics.get("full", {}).get(metric)
    if value is None:
        return "-"
    if "full" not in run.ranks or metric not in _PER_USER:
        return f"{value:.4f}"
    low, high = bootstrap_interval(_PER_USER[metric](run.ranks["full"]))
    return f"{value:.4f}\n[{low:.4f}, {high:.4f}]"


def _pair(figures: Mapping[str, float]) -> str:
    if "NDCG@10" not in figures or "HR@10" not in figures:
        return "-"
    return f"{figures['NDCG@10']:.4f} / {figures['HR@10']:.4f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    for i, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if i == 0 else "right")
    return table


def _add(table: Table, cells: Sequence[str]) -> None:
    """Add a row of literal text: rich would read brackets in a name as markup."""
    table.add_row(*(Text(cell) for cell in cells))
