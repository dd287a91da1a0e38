"""Reads the file of SASRec, prints its statistics and compares them with stats.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tgrec.datasets import describe, movielens_1m

GOLDEN = Path(__file__).parent / "stats.json"


def measure() -> dict[str, dict[str, object]]:
    """The statistics of every variant of the card."""
    return {
        "sasrec": describe(movielens_1m(variant="sasrec")),
    }


if __name__ == "__main__":
    measured = measure()
    print(json.dumps(measured, indent=2))
    if measured != json.loads(GOLDEN.read_text()):
        sys.exit(f"these are not the statistics in {GOLDEN}")
