"""Write the result tables of README.md and benchmarks/README.md from benchmarks/results/*.jsonl.

    python benchmarks/make_tables.py            # rewrite what stands between the markers
    python benchmarks/make_tables.py --check    # fail if a table is stale (used in CI)

A row is one model with one choice of settings; its figures are the mean and the standard deviation
over the seeds. Where a seed was run again, the newest record counts.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from tgrec.training.record import RunRecord, read_records
from tgrec.training.report import board_title, headline_metrics, sampled_heading, sampled_sets

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MAIN_BOARD = "ml1m-loo"
# The order of the protocol; other boards follow by name.
BOARDS = (MAIN_BOARD, "ml1m-seed", "ml1m-sasrec", "ml1m-time", "ml100k-seed", "trigrec", "weekly")
# What does not make another row: seeds are averaged, a device changes no figure, and the epoch and
# value that chose the weights are no settings.
NOT_A_SETTING = frozenset({"seed", "device", "val", "best_epoch"})

Row = list[RunRecord]


def main(check: bool = False, root: Path = ROOT) -> None:
    """Regenerate the tables.

    Args:
        check: write nothing; exit with status 1 if a file is stale.
        root: folder of the repository.
    """
    records = load(root)
    pages = {
        root / "README.md": page([r for r in records if r.protocol == MAIN_BOARD], detail=False),
        root / "benchmarks" / "README.md": page(records, detail=True),
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
    files = sorted((root / "benchmarks" / "results").glob("*.jsonl"))
    return [record for file in files for record in read_records(file)]


def page(records: Sequence[RunRecord], detail: bool) -> str:
    """All tables of a page; boards, tracks and data sets never share one."""
    if not records:
        return "No results are recorded yet."
    order = {name: place for place, name in enumerate(BOARDS)}
    boards: dict[tuple[int, str], Row] = {}
    for record in records:
        place = (order.get(record.protocol, len(order)), board_title(record))
        boards.setdefault(place, []).append(record)
    return "\n\n".join(board_table(boards[place], detail) for place in sorted(boards))


def board_table(records: Row, detail: bool) -> str:
    """The Markdown table of one board, best NDCG@10 first, with what its figures mean."""
    rows = group_seeds(records)
    metrics, sampled = headline_metrics(records), sampled_sets(records)
    first = metrics[:1]
    rows.sort(key=lambda row: [-_mean(row, "full", name) for name in first] + [row_names(row)[0]])
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
    if detail:
        commands = [f"- {name}: `{row[0].command}`" for name, row in zip(names, rows, strict=True)]
        block.append("\n".join(commands))
    return "\n\n".join(block)


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
    name = f"{record.model} ({record.variant})" if record.variant else record.model
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
    return {key: value for key, value in record.settings.items() if key not in NOT_A_SETTING}


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
