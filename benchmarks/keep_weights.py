"""Keeps what a run has learned, small enough for the repository, under a name.

    python benchmarks/keep_weights.py runs/tgt_bert4rec-ml1m-loo-T1-seed0 tgt_bert4rec-T1
    python benchmarks/ml1m.py --weights benchmarks/weights/tgt_bert4rec-T1 --eval-only

Item-item edges that were counted from training events are left out: they are counted again,
exactly, when the weights are loaded. Features of users and items are read again, too, and have to
be the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from tgrec.models import MODELS, load_model, save_model
from tgrec.models.io import read_config

WEIGHTS = Path(__file__).resolve().parent / "weights"


def main(
    run: Annotated[Path, tyro.conf.Positional],
    name: Annotated[str, tyro.conf.Positional],
    out: Path = WEIGHTS,
) -> None:
    """Keep the weights of a run.

    Args:
        run: its folder.
        name: under which it is kept.
        out: where.
    """
    folder = run / "model" if (run / "model").is_dir() else run
    saved = read_config(folder)
    about = {k: v for k, v in saved.items() if k not in ("class", "config", "tgrec")}
    save_model(load_model(folder, MODELS), out / name, learned_only=True, **about)
    size = sum(path.stat().st_size for path in (out / name).iterdir())
    print(f"wrote {out / name}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
