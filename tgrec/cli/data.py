"""``tgrec data import`` and ``tgrec data card``, and what ``DATA`` may be in every command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import rich
import tyro

from tgrec.data import TemporalRecGraph
from tgrec.data.files import near_path
from tgrec.datasets import (
    data_card,
    load_graph,
    movielens_1m,
    movielens_100k,
    online_retail,
    read_interactions,
    save_graph,
    simulate_movielens,
)

DATASETS: dict[str, Callable[[], TemporalRecGraph]] = {
    "ml-1m": movielens_1m,
    "ml-100k": movielens_100k,
    "online-retail": online_retail,
    "simulated": lambda: simulate_movielens()[0],
}
_GRAPH = (".tgrec", ".safetensors")


@dataclass
class TableFlags:
    """How to read tables of events."""

    items: Path | None = None
    """Table of items: ids, titles, genres."""
    users: Path | None = None
    """Table of users: ids, gender, age, occupation."""
    user: str | None = None
    """Column of users; recognised by its name if left out, as the next three."""
    item: str | None = None
    """Column of items."""
    time: str | None = None
    """Column of times: Unix seconds or finer, or ISO dates."""
    rating: str | None = None
    """Column of ratings."""
    relation: str | None = None
    """Column of kinds of events, such as the domains of trigrec; never recognised."""
    sep: str | None = None
    """Separator of the table; found out if left out."""
    names: tuple[str, ...] | None = None
    """Columns of a table without a header line."""


@dataclass
class Source(TableFlags):
    """Where events come from, and which columns of a table they are in."""

    data: tyro.conf.Positional[str] = tyro.MISSING
    """A table (CSV, TSV, '::', gzip, Parquet), a folder with such tables, a file of 'tgrec data
    import', or one of ml-1m, ml-100k, online-retail, simulated."""


def load_data(data: str, flags: TableFlags) -> TemporalRecGraph:
    """The graph that ``DATA`` and flags for tables name.

    Raises:
        ValueError: If it is neither a name nor a file, or flags for tables are given for another.
        FileNotFoundError: If it looks like a path and there is no such file.
    """
    names = [f.name for f in fields(TableFlags)]
    told = {n: getattr(flags, n) for n in names if getattr(flags, n) is not None}
    path = Path(data)
    named = data in DATASETS and not path.exists()
    if (named or path.suffix in _GRAPH) and told:
        raise ValueError(f"--{next(iter(told))} is for tables; {data} is none")
    if named:
        return DATASETS[data]()
    if path.suffix in _GRAPH:
        return load_graph(path)
    if not path.exists():
        known = f"; names are {', '.join(DATASETS)}"
        raise FileNotFoundError(f"DATA: {data!r} is neither a file nor a folder nor a name"
                                f"{near_path(path, DATASETS) or known}")  # fmt: skip
    return read_interactions(path, **told)


def import_data(
    source: tyro.conf.OmitArgPrefixes[Source],
    out: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Reads a table of events once, keeps it as a graph, and shows its data card.

    Args:
        source: What to read.
        out: File to write; the name of the data with the ending .tgrec in this folder if left out.
        as_json: Print JSON.
    """
    graph = load_data(source.data, source)
    out = out or Path(Path(source.data).resolve().name.partition(".")[0] + ".tgrec")
    if out.suffix not in _GRAPH:
        raise ValueError(f"--out needs to end in {' or '.join(_GRAPH)} (got {str(out)!r})")
    save_graph(graph, out)
    _show(graph, as_json, {"file": str(out)})
    if not as_json:
        print(f"\nwritten to {out}")
    return 0


def card(
    source: tyro.conf.OmitArgPrefixes[Source],
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """One screen about a dataset: sizes, span, ties, histories, and how much a split leaks.

    Args:
        source: The data.
        as_json: Print JSON.
    """
    _show(load_data(source.data, source), as_json, {})
    return 0


def _show(graph: TemporalRecGraph, as_json: bool, more: dict[str, str]) -> None:
    found = data_card(graph)
    if as_json:
        print(json.dumps({**more, **found.to_dict()}, indent=2))
    else:
        rich.print(found)
