"""How well a run's model foretells ratings, beside the mean and a bias model.

    python benchmarks/ratings.py runs/enhanced_bert4rec-ml1m-loo-T1-seed0

Asked for are the ratings of the test events of the run's board, each after everything that is known
of its user; the model is told which item is rated.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgrec.datasets import DatasetNotFound, checksum, load_board
from tgrec.models import MODELS, EnhancedBERT4Rec, load_model
from tgrec.models.io import read_config
from tgrec.training import rating_rmse

MEASURED = {
    "model": "the model",
    "bias": "biases of user and item (Koren et al., 2009)",
    "mean": "the mean of all training ratings",
}


def main(run: Annotated[Path, tyro.conf.Positional], root: Path | None = None) -> None:
    """Measure the ratings that a run's model foretells.

    Args:
        run: its folder, or a folder of weights.
        root: folder with the data; by default $TGREC_DATA, else the user's cache.
    """
    folder = run / "model" if (run / "model").is_dir() else run
    saved = read_config(folder)
    if missing := [key for key in ("board", "track") if key not in saved]:
        raise ValueError(f"{run} does not say its {missing[0]}; give a run of benchmarks/ml1m.py")
    graph, split = load_board(saved["board"], root)
    model = load_model(folder, MODELS, catalogue=checksum(graph), train=split.train).eval()
    if not isinstance(model, EnhancedBERT4Rec) or model.rating is None:
        raise ValueError(f"{run} is a {type(model).__name__} without a rating head; only "
                         "enhanced_bert4rec on data with ratings has one")  # fmt: skip
    errors = rating_rmse(model, split, split.test, track=saved["track"])
    title = f"{saved['board']}, track {saved['track']}: {errors['targets']:,.0f} ratings foretold"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("by")
    table.add_column("RMSE", justify="right")
    for name, what in MEASURED.items():
        table.add_row(what, f"{errors[name]:.4f}")
    # Without a terminal (a log file) rich assumes 80 columns and would fold every cell.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except (ValueError, OSError, DatasetNotFound) as error:
        sys.exit(f"error: {error}")
