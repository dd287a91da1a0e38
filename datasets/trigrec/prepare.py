"""Reads TriGRec's data, prints their statistics and compares them with stats.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

from tgrec.data import leave_one_out_in
from tgrec.datasets import describe, trigrec
from tgrec.datasets.trigrec import Domain

GOLDEN = Path(__file__).parent / "stats.json"


def measure() -> dict[str, dict[str, object]]:
    """The statistics of the graph for each target, and what its board trains on."""
    out: dict[str, dict[str, object]] = {}
    targets: tuple[Domain, ...] = get_args(Domain)
    for target in targets:
        graph = trigrec(target)
        split = leave_one_out_in(graph, target)
        kinds = {t[1]: split.train[t].event_id.numel() for t in split.train.interaction_types}
        out[target] = {**describe(graph), "training": kinds, "targets": len(split.test)}
    return out


if __name__ == "__main__":
    measured = measure()
    print(json.dumps(measured, indent=2))
    if measured != json.loads(GOLDEN.read_text()):
        sys.exit(f"these are not the statistics in {GOLDEN}")
