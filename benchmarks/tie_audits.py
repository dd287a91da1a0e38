"""Tie audits that are kept: what they found, one line of JSON each, and their table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tgrec.training import RunRecord
from tgrec.training.report import board_title

FILE = "tie_audit.jsonl"  # beside the files of records


@dataclass(frozen=True)
class TieAudit:
    """NDCG@10 of one model with ties in several other orders.

    Args:
        board: Its title, with track and data.
        model: With the label of its variant and its seed.
        commit: Of the code.
        date: UTC, ISO 8601.
        as_filed: NDCG@10 in the order of the file.
        permuted: What was permuted -> NDCG@10 of each draw.
    """

    board: str
    model: str
    commit: str
    date: str
    as_filed: float
    permuted: dict[str, list[float]]


def keep_audit(
    results: Path, record: RunRecord, label: str, permuted: Mapping[str, Sequence[float]]
) -> None:
    """Appends an audit to the file in ``results``.

    Args:
        results: Folder of the file of records.
        record: Of the run, whose figures are those in the order of the file.
        label: What tables call the run.
        permuted: As :class:`TieAudit` holds it.
    """
    audit = TieAudit(
        board_title(record), label, record.commit, record.date,
        record.metrics["full"]["NDCG@10"], {what: [*values] for what, values in permuted.items()},
    )  # fmt: skip
    results.mkdir(parents=True, exist_ok=True)
    with (results / FILE).open("a", encoding="ascii") as file:
        file.write(json.dumps(asdict(audit)) + "\n")


def audit_table(board: str, results: Path) -> list[str]:
    """The audits of a board as blocks of Markdown, the newest of each model; none without any."""
    path = results / FILE
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    audits = sorted((TieAudit(**json.loads(line)) for line in lines), key=lambda one: one.date)
    rows = {
        (one.model, what): (one, values)
        for one in audits
        if one.board == board
        for what, values in one.permuted.items()
    }
    if not rows:
        return []
    table = ["| model | permuted | as filed | mean | least | most | draws | commit |",
             "| :-- | :-- | --: | --: | --: | --: | --: | --: |"]  # fmt: skip
    for (model, what), (one, values) in sorted(rows.items()):
        found = (one.as_filed, statistics.fmean(values), min(values), max(values))
        figures = " | ".join(f"{value:.4f}" for value in found)
        table.append(f"| {model} | {what} | {figures} | {len(values)} | {one.commit[:7]} |")
    return ["Tie audits: NDCG@10 of the same targets with ties in other orders.", "\n".join(table)]
