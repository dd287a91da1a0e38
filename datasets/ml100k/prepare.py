"""Reads MovieLens-100K, prints its statistics and compares them with stats.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tgrec.datasets import describe, movielens_100k

GOLDEN = Path(__file__).parent / "stats.json"


def measure() -> dict[str, dict[str, object]]:
    """The statistics of every variant of the card."""
    return {
        "full": describe(movielens_100k()),
        "seed": describe(movielens_100k(variant="seed")),
    }


if __name__ == "__main__":
    measured = measure()
    print(json.dumps(measured, indent=2))
    if measured != json.loads(GOLDEN.read_text()):
        sys.exit(f"these are not the statistics in {GOLDEN}")
