"""Reads SimulatedMovieLens, prints its statistics and compares them with stats.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tgrec.datasets import describe, simulate_movielens

GOLDEN = Path(__file__).parent / "stats.json"


def measure() -> dict[str, dict[str, object]]:
    """The statistics of every variant of the card."""
    return {
        "default": describe(simulate_movielens()[0]),
    }


if __name__ == "__main__":
    measured = measure()
    print(json.dumps(measured, indent=2))
    if measured != json.loads(GOLDEN.read_text()):
        sys.exit(f"these are not the statistics in {GOLDEN}")
