"""How fast neighbours are sampled and loaded, beside PyG's loaders in the same run.

    python benchmarks/sampler_throughput.py
    python benchmarks/sampler_throughput.py --events 1 10 100 --json sampler.json
    python benchmarks/sampler_throughput.py --quick            # small sizes, in seconds

All sides load the same links, in turns; the median over the rounds counts. A causal side returns
only what was known at the cut of each link. Nothing here is asserted.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from rich.console import Console
from rich.table import Table
from sampler_sides import FAN_OUT, SPARSE, WIDTH, Batch, Side, loaders, samplers, with_features
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import Targets, TemporalRecGraph
from tgrec.data.files import write_text
from tgrec.datasets import DatasetNotFound, movielens_1m, simulate_movielens
from tgrec.sampler import EventIndex, TemporalNeighborSampler
from tgrec.sampler.neighbor import HopTime
from tgrec.training import keep_freed_memory
from tgrec.training.record import environment

console = Console()
# The most that a log and its index take while the index is made; measured at 20 million events.
BYTES_PER_EVENT = 170


@dataclass
class Options:
    """What to measure."""

    dataset: Literal["auto", "ml1m", "simulated"] = "auto"
    """MovieLens-1M, simulated data of its size, or the second where the first is missing."""
    root: Path | None = None
    """Folder with the data; by default $TGREC_DATA, else the user's cache."""
    batch_size: int = 1024
    """Links per batch."""
    rounds: int = 9
    """Each side is timed so often, in turns."""
    batches: int = 12
    """Batches per round."""
    events: tuple[float, ...] = (1, 10)
    """Sizes of the log for the growth of cost, in millions. 100 need 17 GB of memory."""
    at_once: int | None = None
    """Users sampled in a single call; by default a million on CUDA and 65,536 on the CPU."""
    device: str = "cpu"
    """Where ours samples, and where batches are wanted."""
    threads: int = 1
    """Threads of all sides."""
    quick: bool = False
    """Tiny sizes, to see that everything runs."""
    json: Path | None = None
    """Write all figures to this file."""


@dataclass
class Report:
    """All tables of a run: title -> rows, a row being column -> figure."""

    environment: dict[str, Any]
    options: dict[str, Any]
    data: str
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def main() -> None:
    """Prints all tables."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    graph, data = load(options)
    if options.quick:
        options.batch_size, options.rounds, options.batches = 64, 2, 2
        options.events, options.at_once = (0.004, 0.01), 100
    machine = dict(environment())
    asked_for = asdict(options) | {"root": None, "json": None}  # folders are nobody's business
    report = Report(machine, asked_for, data)
    say(f"{data}; {options.device}; {machine['hardware']}; {machine['versions']}")
    links = some_links(graph, options)
    index = EventIndex(graph, options.device)
    rich_graph = with_features(graph)
    asked = f"{FAN_OUT}, {options.batch_size} links a batch"
    compare(report, f"Sampler, {asked}", samplers(graph, index, links, options.batch_size), options)
    for negatives, title in ((False, ""), (True, " and one negative a link")):
        sides = loaders(rich_graph, index, links, options.batch_size, options.device, negatives)
        compare(report, f"Loader, {asked}, {WIDTH} floats a node{title}", sides, options)
    single_call(report, index, options)
    snapshots(report, graph, options)
    growth(report, graph, options)
    if options.json is not None:
        write_text(options.json, json.dumps(asdict(report), indent=1) + "\n")


def load(options: Options) -> tuple[TemporalRecGraph, str]:
    """The graph and its name."""
    if options.quick:
        return simulate_movielens(200, 120, 20)[0], "SIMULATED data, tiny"
    if options.dataset != "simulated":
        try:
            return movielens_1m(options.root), "MovieLens-1M"
        except DatasetNotFound as error:
            if options.dataset == "ml1m":
                raise SystemExit(f"error: {error}") from error
            say(f"MovieLens-1M could not be had, so this runs on SIMULATED data. {error}")
    return copies(simulate_movielens(2000, 600, 60)[0], 8), "SIMULATED data of the size of ML-1M"


def copies(graph: TemporalRecGraph, number: int) -> TemporalRecGraph:
    """So many copies of all events, interleaved in time, each with users and items of its own."""
    store, copy = graph[graph.interaction_types[0]], torch.arange(number)
    out = TemporalRecGraph()
    out["user"].num_nodes = graph.num_users * number
    out["item"].num_nodes = graph.num_items * number
    sides = zip(store.edge_index, (graph.num_users, graph.num_items), strict=True)
    edges = [(node.unsqueeze(1) + size * copy).view(-1) for node, size in sides]
    events = out[graph.interaction_types[0]]
    events.edge_index = torch.stack(edges)
    events.event_id = torch.arange(edges[0].numel())
    events.time = store.time.repeat_interleave(number)
    return out


def some_links(graph: TemporalRecGraph, options: Options) -> Targets:
    """Events at random with their own cuts, none of the first tenth, which have little past."""
    store = graph[graph.interaction_types[0]]
    size = store.event_id.numel()
    wanted = min(size - size // 10, options.batch_size * options.batches * options.rounds)
    rows = torch.randperm(size - size // 10)[:wanted] + size // 10
    user, item = store.edge_index[:, rows]
    return Targets(user, store.event_id[rows], item)


def compare(report: Report, title: str, sides: Sequence[Side], options: Options) -> None:
    """A table of links per second, with the ratio to PyG on torch-sparse."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    sizes: dict[str, list[tuple[int, int]]] = {side.name: [] for side in sides}
    runs = [(side.name, side.batch) for side in sides if side.batch is not None]
    for _, batch in runs:  # the first batches are slower
        batch(), batch()
    for _ in range(options.rounds):
        for name, batch in runs:
            start = now(options)
            for _ in range(options.batches):
                made = batch()
            seconds[name].append((now(options) - start) / options.batches)
            sizes[name].append(size_of(made))
            del made
    base = statistics.median(seconds[SPARSE]) if seconds.get(SPARSE) else None
    rows = []
    for side in sides:
        row: dict[str, Any] = {"side": side.name, "causal": side.causal, "missing": side.missing}
        if side.batch is not None:
            median = statistics.median(seconds[side.name])
            nodes, edges = (statistics.mean(n) for n in zip(*sizes[side.name], strict=True))
            row["links_per_s"] = options.batch_size / median
            row["times_torch_sparse"] = None if base is None else base / median
            row |= {"nodes": nodes, "edges": edges, "edges_per_s": edges / median}
        rows.append(row)
    report.tables[title] = rows
    show(title, rows)


def single_call(report: Report, index: EventIndex, options: Options) -> None:
    """Many seeds in one call, and how near that comes to copying what it returns."""
    number = options.at_once or (1_000_000 if options.device.startswith("cuda") else 65_536)
    sampler = TemporalNeighborSampler(index, FAN_OUT, hop_time="edge")
    first, last = index.num_events // 10, index.num_events
    rows = torch.randint(first, last, (number,), device=index.device)
    seeds = {"user": (index.user[rows], index.event_id[rows], torch.arange(number).to(rows))}
    out = sampler.sample(seeds)
    parts: list[Any] = [out.node, out.batch, out.row, out.col, out.edge]
    size = sum(tensor.nbytes for part in parts for tensor in part.values())
    edges = size_of(out)[1]
    del out, parts
    source = torch.zeros(size // 8, dtype=torch.int64, device=index.device)
    target = torch.empty_like(source)
    sampled, copied = medians(
        [lambda: sampler.sample(seeds), lambda: target.copy_(source)], options
    )
    row = {
        "users": number, "seconds": sampled, "users_per_s": number / sampled, "edges": edges,
        "bytes": size, "share_of_copy": copied / sampled,
    }  # fmt: skip
    title = f"One call, {FAN_OUT}, last, edge time; share: time of a copy of what it returns"
    report.tables[title] = [row]
    show(title, [row])


def snapshots(report: Report, graph: TemporalRecGraph, options: Options) -> None:
    """All weeks of the log, as views and as PyG's copies."""
    hetero, weeks = graph.to_hetero(), list(graph.snapshots("W"))
    bounds = [(int(week.time_start), int(week.time_end)) for week in weeks]
    kind = graph.interaction_types[0]
    for week, (start, end) in zip(weeks, bounds, strict=True):
        theirs = hetero.snapshot(start, end - 1)[kind].edge_index
        if not torch.equal(theirs, week[kind].edge_index):
            raise RuntimeError(f"the two sides disagree about the events in {start}..{end}")
    views, copied = medians(
        [
            lambda: sum(1 for _ in graph.snapshots("W")),
            lambda: sum(1 for a, b in bounds if hetero.snapshot(a, b - 1)),
        ],
        options,
    )
    row = {
        "weeks": len(weeks), "snapshots_s": views, "HeteroData.snapshot_s": copied,
        "ratio": copied / views,
    }  # fmt: skip
    title = f"All weeks of {graph.num_events:,} events: views, and PyG's copies"
    report.tables[title] = [row]
    show(title, [row])


def growth(report: Report, graph: TemporalRecGraph, options: Options) -> None:
    """What more events cost: building the index, its memory, and sampling."""
    rows: list[dict[str, Any]] = []
    for millions in options.events:
        number = max(1, round(millions * 1e6 / graph.num_events))
        row: dict[str, Any] = {"events": number * graph.num_events, "missing": ""}
        needed, free = row["events"] * BYTES_PER_EVENT / 1e9, free_memory_gb()
        if free is not None and needed > free:
            row["missing"] = f"not run: needs {needed:.1f} GB, {free:.1f} GB are free"
        else:
            row |= growth_of(graph, number, options)
        rows.append(row)
    title = f"Growth: copies of the log; sampler, {FAN_OUT}, last"
    report.tables[title] = rows
    show(title, rows)


def growth_of(graph: TemporalRecGraph, number: int, options: Options) -> dict[str, Any]:
    """The figures of one size."""
    big = copies(graph, number)
    start = now(options)
    index = EventIndex(big, options.device)
    row: dict[str, Any] = {"build_s": now(options) - start}
    links = some_links(big, options)
    del big
    columns = [vars(part).values() for part in (index, index.by_user, index.by_item)]
    row["index_gb"] = sum(t.nbytes for c in columns for t in c if isinstance(t, Tensor)) / 1e9
    for hop_time in get_args(HopTime):
        sampler = TemporalNeighborSampler(index, FAN_OUT, hop_time=hop_time)
        seconds = sampling_seconds(sampler, links, options)
        row[f"{hop_time}_time_links_per_s"] = options.batch_size / seconds
    return row


def sampling_seconds(sampler: TemporalNeighborSampler, links: Targets, options: Options) -> float:
    """Median over batches of links."""
    seconds = []
    links = links.to(sampler.index.device)
    for rows in torch.arange(len(links), device=links.user.device).split(options.batch_size):
        user, item, cut = links.user[rows], links.item[rows], links.cut[rows]
        batch = torch.arange(len(rows), device=rows.device)
        start = now(options)
        sampler.sample({"user": (user, cut, batch), "item": (item, cut, batch)})
        seconds.append(now(options) - start)
    return statistics.median(seconds)


def medians(works: Sequence[Callable[[], object]], options: Options) -> list[float]:
    """Seconds of each, in turns."""
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(options.rounds + 1):
        for work, mine in zip(works, seconds, strict=True):
            start = now(options)
            work()
            if turn:  # the first is slower
                mine.append(now(options) - start)
    return [statistics.median(mine) for mine in seconds]


def now(options: Options) -> float:
    """Seconds, after all that the device was asked for is done."""
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def free_memory_gb() -> float | None:
    """What could be taken without harm; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return found[0] * 1024 / 1e9 if found else None


def size_of(batch: Batch) -> tuple[int, int]:
    """Nodes and edges of a batch or of a sample."""
    if isinstance(batch, HeteroData):
        nodes = sum(int(batch[t].num_nodes or 0) for t in batch.node_types)
        return nodes, sum(batch[t].num_edges for t in batch.edge_types)
    return sum(n.numel() for n in batch.node.values()), sum(r.numel() for r in batch.row.values())


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints one table; a row without figures says why."""
    columns = [c for c in max(rows, key=len) if c != "missing"]
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(
            column.replace("_", " "), justify="left" if column == columns[0] else "right"
        )
    for row in rows:
        cells = [word(row[c]) if c in row else "" for c in columns]
        if row.get("missing"):
            cells[cells.index("")] = row["missing"]
        table.add_row(*cells)
    console.print(table)


def word(value: object) -> str:
    """A cell: at least three digits of a number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)


def say(line: str) -> None:
    """Prints a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    keep_freed_memory()
    main()
