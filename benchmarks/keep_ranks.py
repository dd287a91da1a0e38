"""Keeps the ranks of a run beside a file of records that has its record already.

    python benchmarks/keep_ranks.py runs/sasrec-ml1m-loo-T1-seed0 benchmarks/results/ml1m-loo.jsonl

``--record`` does both at once; this is for runs that were recorded without their ranks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from tgrec.training import keep_ranks, read_records, read_run, same_run


def main(
    run: Annotated[Path, tyro.conf.Positional],
    file: Annotated[Path, tyro.conf.Positional],
) -> None:
    """Keep the ranks of a run.

    Args:
        run: its folder.
        file: of records, one of which is the run's.
    """
    ranked = read_run(run)
    if ranked.user is None or not any(same_run(ranked.record, r) for r in read_records(file)):
        raise ValueError(f"{file} has no record of the run in {run}")
    path = keep_ranks(file.parent, ranked.record, ranked.user, ranked.ranks["full"])
    print(f"wrote {path}: {path.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
