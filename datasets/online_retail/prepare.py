"""Reads Online Retail, prints its statistics and compares them with stats.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tgrec.datasets import by_week, describe, online_retail

GOLDEN = Path(__file__).parent / "stats.json"


def measure() -> dict[str, dict[str, object]]:
    """The statistics of the graph and of its weekly form."""
    graph = online_retail()
    return {"full": describe(graph), "by_week": describe(by_week(graph))}


if __name__ == "__main__":
    measured = measure()
    print(json.dumps(measured, indent=2))
    if measured != json.loads(GOLDEN.read_text()):
        sys.exit(f"these are not the statistics in {GOLDEN}")
