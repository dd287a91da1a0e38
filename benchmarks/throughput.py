"""How fast training, ranking and loading are, as ratios measured side by side in one run.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --dataset simulated --users 200      # anywhere, in a minute

Both sides train the same weights on the same users with the same loss, in turns, and the fastest
of ``--rounds`` counts: a shared machine only ever makes a side slower. Nothing here is asserted.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from terminal import end_with_summary
from torch.utils.data import DataLoader
from usual import PaddedSequences, UsualEncoder

from tgrec.data import RecBatch, Split, Targets
from tgrec.datasets import BOARDS, movielens_1m
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import BERT4Rec, SASRec
from tgrec.sampler import EventIndex
from tgrec.training import RankedRun, TrainSettings, autocast, evaluate, keep_freed_memory

console = Console()


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
    """Threads of both sides."""


def main() -> None:
    """Parses the command line and measures."""
    options = tyro.cli(Options, description=__doc__)
    end_with_summary(lambda: measure(options))


def measure(options: Options) -> list[RankedRun]:
    """Prints the tables; there is no run to sum up."""
    for name in ("users", "batch_size", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} needs to be at least 1 (got {getattr(options, name)})")
    torch.set_num_threads(options.threads)
    board = BOARDS["ml1m-loo" if options.dataset == "ml1m" else "simulated-loo"]
    if options.dataset == "ml1m":
        loading(options)
    split = board.split(board.load(options.root, True))
    console.print(
        f"{board.dataset}, {options.threads} threads, torch {torch.__version__}", highlight=False
    )
    rows = [epoch_times(model, split, options) for model in (SASRec, BERT4Rec)]
    columns = ["model", "usual way", "tgrec fp32", "tgrec", "usual / tgrec"]
    columns += ["loss: usual", "tgrec fp32", "tgrec"]
    size = "d_model 64, 2 blocks, max_len 200"
    show(f"Training, {size}, seconds per epoch of all users", columns, rows)
    ranking(split, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(
        f"peak memory of this process, the usual way included: {peak:,.0f} MB", highlight=False
    )
    return []


def epoch_times(cls: type[SASRec] | type[BERT4Rec], split: Split, options: Options) -> list[str]:
    """One row: an epoch the usual way, ours in float32, ours."""
    torch.manual_seed(0)
    model = cls.from_graph(split.train)
    index = EventIndex(split.train)
    seeds = training_seeds(index, 200)
    chosen = seeds.select(torch.linspace(0, len(seeds) - 1, min(options.users, len(seeds))).long())
    scale = len(seeds) / len(chosen)
    usual = UsualEncoder(model)
    mask_prob = None if cls is SASRec else model.config["mask_prob"]
    data = PaddedSequences(sequences(index, chosen), 200, model.num_items, mask_prob)
    loaded = DataLoader(data, batch_size=options.batch_size, shuffle=True)
    ours = SeedLoader(index, model.sampling)
    sides: dict[str, Callable[[], float]] = {
        "usual": lambda: usual_epoch(usual, loaded),
        "fp32": lambda: our_epoch(model, ours, chosen, options, "fp32"),
        "auto": lambda: our_epoch(model, ours, chosen, options, "auto"),
    }
    losses = {"usual": usual_loss(usual, loaded)} | {
        p: our_loss(model, ours, chosen, options, p) for p in ("fp32", "auto")
    }
    # Both sides run in a process that keeps freed memory, as fit() asks for: it helps both.
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(options.rounds):
        for name, epoch in sides.items():
            best[name] = min(best[name], epoch() * scale)
    times = [f"{best[name]:.1f} s" for name in sides]
    return [
        cls.__name__,
        *times,
        f"{best['usual'] / best['auto']:.1f}",
        *(f"{v:.3f}" for v in losses.values()),
    ]


def usual_epoch(model: UsualEncoder, data: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Seconds."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # the weights stay comparable
    model.train()
    start = time.perf_counter()
    for inputs, targets in data:
        optimizer.zero_grad()
        model.loss(inputs, targets).backward()
        optimizer.step()
    return time.perf_counter() - start


def our_epoch(
    model: SASRec | BERT4Rec,
    loader: SeedLoader,
    seeds: Targets,
    options: Options,
    precision: Literal["fp32", "auto"],
) -> float:
    """Seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)
    model.train()
    start = time.perf_counter()
    for batch in loader.train_batches(seeds, options.batch_size, 0, 0):
        optimizer.zero_grad()
        _loss(model, batch, precision).backward()
        optimizer.step()
    return time.perf_counter() - start


def _loss(
    model: SASRec | BERT4Rec, batch: RecBatch, precision: Literal["fp32", "auto"]
) -> torch.Tensor:
    settings = TrainSettings(precision=precision)
    with autocast(settings):
        return model.loss(batch)


@torch.no_grad()
def usual_loss(model: UsualEncoder, data: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Mean loss without dropout; masks are drawn anew, so BERT4Rec's agrees up to the draw."""
    model.eval()
    parts = [(model.loss(inputs, targets), (targets >= 0).sum()) for inputs, targets in data]
    return float(sum(loss * n for loss, n in parts) / sum(n for _, n in parts))


@torch.no_grad()
def our_loss(
    model: SASRec | BERT4Rec,
    loader: SeedLoader,
    seeds: Targets,
    options: Options,
    precision: Literal["fp32", "auto"],
) -> float:
    """Mean loss without dropout."""
    model.eval()
    total = torch.zeros(2, dtype=torch.float64)
    with autocast(TrainSettings(precision=precision)):
        for batch in loader.train_batches(seeds, options.batch_size, 0, 0):
            sums, counts = model.loss_terms(batch)
            total += torch.stack([sums.sum(), counts.sum()])
    return float(total[0] / total[1])


def sequences(index: EventIndex, seeds: Targets) -> list[list[int]]:
    """The items of each user up to and with the seed."""
    start, stop = index.by_user.past(seeds.user, seeds.cut)
    bounds = zip(start.tolist(), stop.tolist(), strict=True)
    return [index.by_user.other[a : b + 1].tolist() for a, b in bounds]


def ranking(split: Split, options: Options) -> None:
    """Full ranking of all test users, without and with the sampled candidates beside it."""
    torch.manual_seed(0)
    model = SASRec.from_graph(split.train)
    index = EventIndex(split.graph)
    precisions: tuple[Literal["fp32", "auto"], ...] = ("fp32", "auto")
    best = {(p, sampled): float("inf") for p in precisions for sampled in (False, True)}
    for _ in range(options.rounds):
        for precision, sampled in best:
            amp = TrainSettings(precision=precision).amp
            start = time.perf_counter()
            evaluate(model, split, split.test, sampled=sampled, index=index, amp=amp)
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
