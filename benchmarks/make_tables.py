"""Write the result tables of README.md and benchmarks/README.md from benchmarks/results/*.jsonl.

    python benchmarks/make_tables.py            # rewrite what stands between the markers
    python benchmarks/make_tables.py --check    # fail if a table is stale (used in CI)

A row is one model with one choice of settings; its figures are the mean and the standard deviation
over the seeds. Where a seed was run again, the newest record counts. Where ranks are kept
(benchmarks/results/ranks), paired tests over users follow.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch
import tyro
from find_model import called, made_as
from tie_audits import audit_table
from torch import Tensor

from tgrec.metrics import bootstrap_interval, ndcg, paired_bootstrap
from tgrec.training.kept_ranks import ranks_path, read_kept_ranks
from tgrec.training.record import REFIT, RunRecord, is_refit, read_records
from tgrec.training.report import board_title, headline_metrics, sampled_heading, sampled_sets

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks", "results")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MAIN_BOARD = "ml1m-loo"
# The order of the protocol; other boards follow by name.
BOARDS = (MAIN_BOARD, "ml1m-seed", "ml1m-sasrec", "ml1m-time", "ml100k-seed", "trigrec", "weekly")
# Which rows the others of a board are tested against: the best one of each kind of model.
BASELINES = {
    MAIN_BOARD: ("sasrec", "bert4rec"),
    "trigrec-food": ("*_alone", "*_pooled"),
    "trigrec-kitchen": ("*_alone", "*_pooled"),
}
# What does not make another row: seeds are averaged, a device changes no figure, the epoch and
# value that chose the weights are no settings, and every seed has a first stage of its own.
NOT_A_SETTING = frozenset({"seed", "device", "val", "best_epoch", "chosen", "stage1", "refit_of"})
ABOUT_REFITS = (
    f"Rows called {REFIT!r} stand last, apart from the protocol: the model above them trained anew "
    "on the events of validation too, for as many epochs and with the gates that validation chose "
    "before; nothing was chosen for them."
)

Row = list[RunRecord]


def main(check: bool = False, root: Path = ROOT) -> None:
    """Regenerate the tables.

    Args:
        check: write nothing; exit with status 1 if a file is stale.
        root: folder of the repository.
    """
    records = load(root)
    # Shorter runs, which were made to compare variants, stand on the longer page only.
    first = [r for r in records if r.protocol == MAIN_BOARD and ": " not in r.variant]
    pages = {
        root / "README.md": page(first, detail=False),
        root / "benchmarks" / "README.md": page(records, detail=True, results=root / RESULTS),
    }
    stale = []
    for path, body in pages.items():
        text = path.read_text(encoding="utf-8")
        new = replace_block(text, body, str(path.relative_to(root)))
        if new != text:
            stale.append(str(path.relative_to(root)))
            if not check:
                path.write_text(new, encoding="utf-8")
    if check and stale:
        sys.exit(
            f"stale tables: {', '.join(stale)}; run python benchmarks/make_tables.py and commit"
        )
    print(f"{len(records)} records; " + ("tables are up to date" if check else f"wrote {stale}"))


def load(root: Path) -> list[RunRecord]:
    """All records below `root`, by file name and line."""
    files = sorted((root / RESULTS).glob("*.jsonl"))
    return [record for file in files for record in read_records(file)]


def page(records: Sequence[RunRecord], detail: bool, results: Path | None = None) -> str:
    """All tables of a page; boards, tracks and data sets never share one.

    Args:
        records: of all boards.
        detail: whether to say which code and which command made each row.
        results: folder whose kept ranks are tested; None leaves tests out.
    """
    if not records:
        return "No results are recorded yet."
    order = {name: place for place, name in enumerate(BOARDS)}
    boards: dict[tuple[int, str], Row] = {}
    for record in records:
        place = (order.get(record.protocol, len(order)), board_title(record))
        boards.setdefault(place, []).append(record)
    return "\n\n".join(board_table(boards[place], detail, results) for place in sorted(boards))


def board_table(records: Row, detail: bool, results: Path | None = None) -> str:
    """The Markdown table of one board, best NDCG@10 first, with what its figures mean."""
    rows = group_seeds(records)
    metrics, sampled = headline_metrics(records), sampled_sets(records)
    first = metrics[:1]
    rows.sort(
        key=lambda row: (
            is_refit(row[0].settings),
            *(-_mean(row, "full", name) for name in first),
            row_names(row)[0],
        )
    )
    names = row_labels(rows)
    heads = ["model", "params", "seeds", *metrics, *map(sampled_heading, sampled)]
    heads += ["epochs", "s/epoch", "commit"] if detail else []
    lines = [_line(heads), _line([":--"] + ["--:"] * (len(heads) - 1))]
    for name, row in zip(names, rows, strict=True):
        cells = [name, f"{row[0].parameters:,}", f"n={len(row)}"]
        cells += [_spread(row, "full", metric) for metric in metrics]
        cells += [_spread(row, candidates, "NDCG@10") for candidates in sampled]
        lines.append(_line(cells + (_details(row) if detail else [])))
    title = f"**`{records[0].protocol}`, track {records[0].track}, {records[0].data}**"
    checksums = ", ".join(f"`{c}`" for c in sorted({record.checksum for record in records}))
    notes = "Mean +- standard deviation over n seeds; n=1 is a single run. Full ranking"
    if sampled:
        notes += "; the columns to the right: NDCG@10 among drawn negatives, never the headline"
    block = [f"{title} ({checksums})", "\n".join(lines), notes + "."]
    block += [ABOUT_REFITS] if is_refit(rows[-1][0].settings) else []
    if results is not None:
        block += test_table(rows, names, results) + variant_table(rows, names, results)
        block += audit_table(board_title(records[0]), results)
    if detail:
        block += group_table(rows, names) + further_table(rows, names)
        commands = [f"- {name}: `{row[0].command}`" for name, row in zip(names, rows, strict=True)]
        block.append("\n".join(commands))
    return "\n\n".join(block)


def group_table(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """NDCG@10 of groups of users, as blocks of Markdown; none if there are fewer than two."""
    sizes: dict[str, int] = {}
    for record in (record for row in rows for record in row):
        for group, figures in record.groups.items():
            size = int(figures["users"])
            if sizes.setdefault(group, size) != size:
                raise ValueError(
                    f"{record.protocol}: {record.model}, seed {record.seed}, has {size} users in "
                    f"the group {group!r}, where others have {sizes[group]}"
                )
    if len(sizes) < 2:
        return []
    lines = [_line(["model", *(f"{group} ({size:,})" for group, size in sizes.items())])]
    lines.append(_line([":--"] + ["--:"] * len(sizes)))
    for name, row in zip(names, rows, strict=True):
        values = [[r.groups[g]["NDCG@10"] for r in row if g in r.groups] for g in sizes]
        means = [f"{statistics.fmean(v):.4f}" if len(v) == len(row) else "-" for v in values]
        lines.append(_line([name, *means]))
    about = "NDCG@10 by the number of events before the target, and of other groups (their size)."
    return [about, "\n".join(lines)]


def further_table(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """On boards of one domain among several: the figures that papers on them give beside."""
    if not all("uniform-999" in record.metrics for row in rows for record in row):
        return []
    asked = [("full", name) for name in ("HR@1", "HR@5", "NDCG@5")]
    asked += [("uniform-999", name) for name in ("HR@1", "HR@5", "HR@10", "NDCG@5", "MRR")]
    lines = [_line(["model", *(f"{name} ({candidates})" for candidates, name in asked)])]
    lines.append(_line([":--"] + ["--:"] * len(asked)))
    for name, row in zip(names, rows, strict=True):
        lines.append(_line([name, *(f"{_mean(row, *one):.4f}" for one in asked)]))
    return ["Further figures, means over the seeds; full ranking and 999 drawn negatives.",
            "\n".join(lines)]  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """A row whose ranks are kept: NDCG@10 of each user, the mean over the seeds."""

    name: str
    row: Row
    user: Tensor
    values: Tensor


def test_table(rows: Sequence[Row], names: Sequence[str], results: Path) -> list[str]:
    """Intervals and paired tests over users, as blocks of Markdown; none where no ranks are kept.

    The users are resampled, each with the mean of its figures over the seeds of the row.
    """
    read = [per_user(name, row, results) for name, row in zip(names, rows, strict=True)]
    tested = [one for one in read if one is not None]
    if not tested:
        return []
    bases, notes = [], []
    for pattern in BASELINES.get(rows[0][0].protocol, ()):
        # The best of all rows, not of those with ranks: a test against a weaker one is no test.
        kind = [
            i for i, row in enumerate(rows)
            if fnmatchcase(row[0].model, pattern) and not is_refit(row[0].settings)
        ]  # fmt: skip
        base = read[kind[0]] if kind else None
        if base is not None:
            bases.append(base)
        elif kind:
            notes.append(f"No test against {names[kind[0]]}, whose ranks are not kept.")
    lines = [_line(["model", "seeds", "NDCG@10", "95 % interval", *(f"- {b.name}" for b in bases)])]
    lines.append(_line([":--"] + ["--:"] * (3 + len(bases))))
    for one in tested:
        low, high = bootstrap_interval(one.values)
        cells = [one.name, f"n={len(one.row)}", f"{float(one.values.mean()):.4f}"]
        cells += [f"[{low:.4f}, {high:.4f}]", *(paired_cell(one, base) for base in bases)]
        lines.append(_line(cells))
    untested = [name for name, one in zip(names, read, strict=True) if one is None]
    notes += [f"Ranks not kept: {', '.join(untested)}."] if untested else []
    about = (
        "Over users: NDCG@10 of each user, mean over the seeds; the spread over seeds stands above."
    )
    if bases:
        about += (
            " Behind each minus a baseline, the best of its kind: difference, relative, 95 % "
            "interval and two-sided p of a paired bootstrap, not corrected for the number of tests."
        )
    return [about, "\n".join(lines), *([" ".join(notes)] if notes else [])]


def variant_table(rows: Sequence[Row], names: Sequence[str], results: Path) -> list[str]:
    """Paired tests of each variant against its model, as blocks of Markdown; none without ranks.

    ``6 epochs: no graph`` is a variant of ``6 epochs: full``, ``no graph`` of the model itself; of
    several rows of that name, of the one whose settings differ least.
    """
    read = [per_user(name, row, results) for name, row in zip(names, rows, strict=True)]
    tested = [one for one in read if one is not None]
    lines = []
    for one in tested:
        record = one.row[0]
        settings, colon, _ = record.variant.rpartition(": ")
        full = made_as(record), f"{settings}: full" if colon else ""
        if (called(record), record.variant) == full:
            continue
        bases = [b for b in tested if (called(b.row[0]), b.row[0].variant) == full]
        if not bases:
            continue
        base = min(bases, key=partial(differences, one))
        cells = [one.name, base.name, f"{one.row[0].parameters:,}"]
        lines.append(_line([*cells, f"{float(one.values.mean()):.4f}", paired_cell(one, base)]))
    if not lines:
        return []
    heads = ["variant", "of", "params", "NDCG@10", "difference to it"]
    about = "What a part is worth: variants against their models, paired over users as above."
    return [about, "\n".join([_line(heads), _line([":--"] * 2 + ["--:"] * 3), *lines])]


def differences(one: Tested, other: Tested) -> int:
    """How many settings of two rows differ."""
    left, right = _settings(one.row[0]), _settings(other.row[0])
    return sum(left.get(name) != right.get(name) for name in left.keys() | right.keys())


def per_user(name: str, row: Row, results: Path) -> Tested | None:
    """A row with its ranks, or None unless those of all its seeds are kept."""
    if not all(ranks_path(results, record).is_file() for record in row):
        return None
    kept = [read_kept_ranks(results, record) for record in row]
    for record, ranks in zip(row, kept, strict=True):
        _check_same_users(f"{name}, seed {record.seed},", record, ranks.user, row[0], kept[0].user)
    values = torch.stack([ndcg(ranks.rank, 10) for ranks in kept]).mean(0)
    return Tested(name, row, kept[0].user, values)


def paired_cell(one: Tested, base: Tested) -> str:
    """The outcome of a paired test."""
    if one is base:
        return "-"
    _check_same_users(one.name, one.row[0], one.user, base.row[0], base.user)
    test = paired_bootstrap(one.values, base.values, users=(one.user, base.user))
    relative = "" if test.relative is None else f" ({100 * test.relative:+.1f} %)"
    interval = f"[{test.low:+.4f}, {test.high:+.4f}]"
    return f"{test.difference:+.4f}{relative} {interval}, p {test.p_value:.4f}"


def _check_same_users(
    name: str, record: RunRecord, user: Tensor, other: RunRecord, others: Tensor
) -> None:
    """Ids of users say nothing across data sets; equal numbers of users prove nothing."""
    if record.checksum != other.checksum or not torch.equal(user, others):
        raise ValueError(
            f"{record.protocol}: {name} and {other.model}, seed {other.seed}, ranked other users "
            f"({user.numel()} of {record.checksum}, {others.numel()} of {other.checksum}); they "
            "cannot be compared"
        )


def group_seeds(records: Row) -> list[Row]:
    """Records of one row each: same model, variant and settings, one record a seed, the newest."""
    rows: dict[str, dict[int, RunRecord]] = {}
    for record in sorted(records, key=lambda record: record.date):
        key = json.dumps([record.model, record.variant, _settings(record)], sort_keys=True)
        rows.setdefault(key, {})[record.seed] = record
    return [[row[seed] for seed in sorted(row)] for row in rows.values()]


def row_names(row: Row) -> tuple[str, dict[str, object]]:
    """Model with variant, and its settings."""
    record = row[0]
    name = f"{called(record)} ({record.variant})" if record.variant else called(record)
    return name, _settings(record)


def row_labels(rows: Sequence[Row]) -> list[str]:
    """Name of each row; rows of one name add the settings in which they differ."""
    labels = []
    for row in rows:
        name, settings = row_names(row)
        twins = [row_names(other)[1] for other in rows if row_names(other)[0] == name]
        keys = sorted({key for twin in twins for key in twin})
        differ = [key for key in keys if any(twin.get(key) != settings.get(key) for twin in twins)]
        extra = ", ".join(f"{key}={settings.get(key)}" for key in differ)
        labels.append(f"{name}, {extra}" if extra else name)
    return labels


def replace_block(text: str, body: str, name: str) -> str:
    """`text` with `body` between its markers; `name` is the file in errors."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{name} must hold {BEGIN} and then {END}, once each")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{body}\n{END}{rest.split(END)[1]}"


def _settings(record: RunRecord) -> dict[str, object]:
    # An option that older runs did not have yet is off where it is None.
    given = {key: value for key, value in record.settings.items() if value is not None}
    # The epoch that was chosen before is where a refit ends.
    skipped = NOT_A_SETTING | ({"stop_after"} if is_refit(record.settings) else set())
    return {key: value for key, value in given.items() if key not in skipped}


def _values(row: Row, candidates: str, metric: str) -> list[float]:
    tables = [record.metrics.get(candidates, {}) for record in row]
    return [table[metric] for table in tables if metric in table]


def _mean(row: Row, candidates: str, metric: str) -> float:
    values = _values(row, candidates, metric)
    return statistics.fmean(values) if values else 0.0


def _spread(row: Row, candidates: str, metric: str) -> str:
    values = _values(row, candidates, metric)
    if len(values) != len(row):
        return "-"
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.4f}"


def _details(row: Row) -> list[str]:
    epochs = sorted({record.epochs for record in row})
    paces = [r.seconds_per_epoch for r in row if r.seconds_per_epoch is not None]
    # A plus marks code that differed from its commit.
    commits = sorted({record.commit[:7] + ("+" if record.dirty else "") for record in row})
    span = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
    return [span, f"{statistics.fmean(paces):.1f}" if paces else "-", ", ".join(commits)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    tyro.cli(main)
