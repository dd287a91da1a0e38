"""Tie audits that are kept: what they found, one line of JSON each, and their table."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tgrec.training import RunRecord
from tgrec.training.record import append_line
from tgrec.training.report import board_title, run_label

FILE = "audits/ties.jsonl"  # in the folder of the files of records, among which it is none
# Of a record's settings: where it ran, and what came out.
NOT_OF_THE_MODEL = frozenset({"device", "seed", "val", "best_epoch", "chosen"})


@dataclass(frozen=True)
class TieAudit:
    """NDCG@10 of one model with ties in several other orders.

    Args:
        board: Its title, with track and data.
        model: With the label of its variant and its seed; or which weights they were, where some
            were given, since the seed is then of nothing.
        settings: Digest of those of model and training; other ones are another model.
        commit: Of the code.
        date: UTC, ISO 8601.
        as_filed: NDCG@10 in the order of the file.
        permuted: What was permuted -> NDCG@10 of each draw.
    """

    board: str
    model: str
    settings: str
    commit: str
    date: str
    as_filed: float
    permuted: dict[str, list[float]]


def keep_audit(results: Path, record: RunRecord, permuted: Mapping[str, Sequence[float]]) -> None:
    """Appends an audit to the file in ``results``.

    Args:
        results: Folder of the file of records.
        record: Of the run, whose figures are those in the order of the file.
        permuted: As :class:`TieAudit` holds it.

    Raises:
        ValueError: The file ends in the middle of a line.
        OSError: It cannot be written.
    """
    weights = record.settings.get("weights")
    settings = {k: v for k, v in record.settings.items() if k not in NOT_OF_THE_MODEL}
    audit = TieAudit(
        board=board_title(record),
        model=f"{record.model}, weights {weights[:7]}" if weights else run_label(record),
        settings=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:7],
        commit=record.commit,
        date=record.date,
        as_filed=record.metrics["full"]["NDCG@10"],
        permuted={what: [*values] for what, values in permuted.items()},
    )
    append_line(results / FILE, json.dumps(asdict(audit)))


def read_audits(path: Path) -> list[TieAudit]:
    """All audits of a file, the oldest first; none if there is no file.

    Raises:
        ValueError: A line is no audit.
    """
    audits = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            audits.append(TieAudit(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number} is no tie audit ({error})") from error
    return sorted(audits, key=lambda one: one.date)


def audit_table(board: str, results: Path) -> list[str]:
    """The audits of a board as blocks of Markdown, the newest of each model; none without any."""
    audits = [one for one in read_audits(results / FILE) if one.board == board]
    newest = {
        (one.model, one.settings, what): (one, values)
        for one in audits
        for what, values in one.permuted.items()
    }
    if not newest:
        return []
    table = ["| model | permuted | as filed | mean | least | most | draws | commit |",
             "| :-- | :-- | --: | --: | --: | --: | --: | --: |"]  # fmt: skip
    for (model, settings, what), (one, values) in sorted(newest.items()):
        if any(other.model == model and other.settings != settings for other in audits):
            model = f"{model}, settings {settings}"
        found = (one.as_filed, statistics.fmean(values), min(values), max(values))
        figures = " | ".join(f"{value:.4f}" for value in found)
        table.append(f"| {model} | {what} | {figures} | {len(values)} | {one.commit[:7]} |")
    return ["Tie audits: NDCG@10 of the same targets with ties in other orders.", "\n".join(table)]
