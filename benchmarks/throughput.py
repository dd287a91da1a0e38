"""How fast training, ranking and loading are, as ratios measured side by side in one run.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --dataset simulated --users 200      # anywhere, in a minute
    python benchmarks/throughput.py --device cuda --users 6040           # and with CUDA graphs
    python benchmarks/throughput.py --to-quality --device cuda           # BERT4Rec, as in its paper

All sides train the same weights on the same users with the same loss, in turns, and the fastest
of ``--rounds`` counts: a shared machine only ever makes a side slower. Ours are whole training
steps as ``fit`` takes them, clipping and bookkeeping included; the others do not clip. The loss is
shown of the three sides that can be asked for it without dropout; the compiled loop is the usual
model and the CUDA graphs are the steps of the row above. Nothing here is asserted. The code
for CUDA has not been run on a GPU yet.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from golden import GOLDEN
from rich.console import Console
from rich.table import Table
from terminal import end_with_summary
from to_quality import PAPER, to_quality
from training_sides import TrainingSides

from tgrec.cli.flags import given_flags, refuse_repeated
from tgrec.data import Split
from tgrec.datasets import BOARDS, movielens_1m
from tgrec.models import SASRec
from tgrec.sampler import EventIndex
from tgrec.training import (
    RankedRun,
    TrainSettings,
    check_device,
    evaluate,
    keep_freed_memory,
)

console = Console()
OF_TO_QUALITY = {"quality", "epochs"}
OF_THE_SIDES = {"users", "batch_size", "rounds", "model", "compiled", "no_compiled"}


@dataclass
class Options:
    """What to measure on."""

    dataset: Literal["ml1m", "simulated"] = "ml1m"
    """MovieLens-1M, or the simulated set."""
    root: Path | None = None
    """Folder with the data; by default $TGREC_DATA, else the user's cache."""
    users: int = 600
    """Users per timed epoch, spread evenly; times are scaled up to all users."""
    batch_size: int = 128
    """Sequences per step."""
    rounds: int = 3
    """Each side is timed so often, in turns; the fastest counts."""
    threads: int = 2
    """Threads of all sides."""
    device: str = "cpu"
    """cpu or cuda."""
    model: tuple[Literal["sasrec", "bert4rec", "hstu", "tgt_bert4rec"], ...] = (
        "sasrec", "bert4rec", "hstu",
    )  # fmt: skip
    """What to train: two blocks of 64 channels, hstu eight layers, tgt_bert4rec its golden setting;
    the usual way is written for the first two only."""
    compiled: bool = True
    """Whether the hand-written loop is compiled and timed, too."""
    to_quality: bool = False
    """Instead of all this: BERT4Rec from nothing until it is as good as its paper says."""
    quality: float = PAPER
    """How good that is: NDCG@10 of the validation target, popularity-100."""
    epochs: int | None = None
    """Passes at most until then; by default those of the golden setting."""


def main() -> None:
    """Parses the command line and measures."""
    words = sys.argv[1:]
    options = tyro.cli(Options, args=words, description=__doc__)
    end_with_summary(lambda: measure(options, words))


def check(options: Options, words: Sequence[str]) -> None:
    """Raises a ValueError for what is out of range, or would not be read."""
    for name in ("users", "batch_size", "rounds", "threads", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} needs to be at least 1 (got {value})")
    if not 0 < options.quality <= 1:
        raise ValueError(f"--quality needs to lie in (0, 1] (got {options.quality})")
    if not options.model:
        raise ValueError("--model needs at least one")
    unread = OF_THE_SIDES if options.to_quality else OF_TO_QUALITY
    for flag in given_flags(words, Options):
        if flag in unread:
            told = "is not read with" if options.to_quality else "is read with"
            raise ValueError(f"--{flag} {told} --to-quality{' only' * (not options.to_quality)}")
    check_device(options.device)


def measure(options: Options, words: Sequence[str] = ()) -> list[RankedRun]:
    """Prints the tables of what was asked for in these words; there is no run to sum up."""
    refuse_repeated(words, Options)
    check(options, words)
    torch.set_num_threads(options.threads)
    real = "ml1m-sasrec" if options.to_quality else "ml1m-loo"
    board = BOARDS[real if options.dataset == "ml1m" else "simulated-loo"]
    if options.to_quality:
        golden = GOLDEN["bert4rec"].train
        settings = TrainSettings(**golden, device=options.device)
        settings = replace(settings, epochs=options.epochs or golden["epochs"])
        split = board.split(board.load(options.root, True))
        to_quality(split, settings, options.quality, console)
        return []
    if options.dataset == "ml1m":
        loading(options)
    split = board.split(board.load(options.root, True))
    console.print(
        f"{board.dataset}, {options.threads} threads, torch {torch.__version__}", highlight=False
    )
    sides = [TrainingSides(name, split, options) for name in options.model]
    rows = [row for side in sides for row in side.rows(options.rounds)]
    columns = ["model", "side", "s / epoch", "times tgrec", "loss"]
    show("Training: seconds per epoch of all users, and the loss of the weights", columns, rows)
    for line in sorted({line for side in sides for line in side.left_out}):
        console.print(line, highlight=False)
    ranking(split, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(
        f"peak memory of this process, the usual way included: {peak:,.0f} MB", highlight=False
    )
    return []


def ranking(split: Split, options: Options) -> None:
    """Full ranking of all test users, without and with the sampled candidates beside it."""
    torch.manual_seed(0)
    model = SASRec.from_graph(split.train).to(options.device)
    index = EventIndex(split.graph, options.device)
    precisions: tuple[Literal["fp32", "auto"], ...] = ("fp32", "auto")
    best = {(p, sampled): float("inf") for p in precisions for sampled in (False, True)}
    for _ in range(options.rounds):
        for precision, sampled in best:
            amp = TrainSettings(precision=precision, device=options.device).amp
            start = time.perf_counter()
            evaluate(  # its ranks are on the host when it returns
                model, split, split.test, sampled=sampled, index=index, amp=amp,
                device=options.device,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            best[precision, sampled] = min(best[precision, sampled], seconds)
    rows = [[p, f"{best[p, False]:.2f} s", f"{best[p, True]:.2f} s"] for p in precisions]
    show(f"SASRec: ranking of {len(split.test):,} users among {split.graph.num_items:,} items",
         ["precision", "full ranking", "and among sampled candidates"], rows)  # fmt: skip


def loading(options: Options) -> None:
    """From ratings.dat to an index."""
    seconds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        graph = movielens_1m(options.root, "full", True, cache=False)
        read = time.perf_counter()
        EventIndex(graph)
        seconds.append((time.perf_counter() - start, read - start))
    total, read = min(seconds)
    show("From ratings.dat to a built EventIndex", ["read, graph", "index", "together"],
         [[f"{read:.2f} s", f"{total - read:.2f} s", f"{total:.2f} s"]])  # fmt: skip


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints one table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    keep_freed_memory()
    main()
