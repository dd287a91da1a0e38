"""Boards: the named pairs of a dataset and a split on which results are compared.

A result is meaningless without its board's tag, so the tag decides everything about the data:
which rows, which order, which split, and whether seen items stay among the candidates.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from tgrec.data import (
    Split,
    TemporalRecGraph,
    global_time_split,
    leave_one_out,
    leave_one_out_in,
)
from tgrec.datasets.movielens import movielens_1m, movielens_100k
from tgrec.datasets.simulated import simulate_movielens
from tgrec.datasets.simulated_domains import simulate_domains
from tgrec.datasets.trigrec import trigrec

Root = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Board:
    """One board.

    Args:
        tag: Its name in every record, for example ``ml1m-loo``.
        title: For headings.
        dataset: Data and variant, for people.
        remove_seen: Whether items of the user's history are taken out of the candidates (the
            target never is).
        description: Rows, order and split in words.
        load: (root, download) -> graph.
        split: graph -> split.
        sampled: Candidate sets ranked beside all items, by name: (drawn how, how many). None for
            those of :data:`tgrec.training.SAMPLED`.
    """

    tag: str
    title: str
    dataset: str
    remove_seen: bool
    description: str
    load: Callable[[Root, bool], TemporalRecGraph] = field(repr=False)
    split: Callable[[TemporalRecGraph], Split] = field(repr=False, default=leave_one_out)
    sampled: Mapping[str, tuple[str, int]] | None = None


_LOO = "each user's last event is the test target, the second to last the validation target"

_ACROSS = (
    ", the one before it the validation target; what the user did after the validation target, in "
    "whichever domain, is no training event, and what is not known to be before a target is not "
    "visible"
)
# The seed's protocol beside the full ranking, with negatives that exist.
_999: Mapping[str, tuple[str, int]] = {"uniform-999": ("uniform", 999)}

BOARDS: dict[str, Board] = {
    "ml1m-loo": Board(
        tag="ml1m-loo",
        title="MovieLens-1M, leave one out",
        dataset="MovieLens1M, full, rated items",
        remove_seen=True,
        description=(
            "All 1,000,209 ratings, 6,040 users, 3,706 rated items, in the order (time, file "
            f"row); {_LOO}; seen items are removed."
        ),
        load=lambda root, download: movielens_1m(root, "full", True, download),
    ),
    "ml1m-seed": Board(
        tag="ml1m-seed",
        title="MovieLens-1M, ratings of 4 and 5",
        dataset="MovieLens1M, seed",
        remove_seen=False,
        description=(
            "Ratings >= 4 of users with at least 5 of them: 6,034 users, 3,533 items; "
            f"{_LOO}; seen items stay among the candidates, as in the protocol it compares with."
        ),
        load=lambda root, download: movielens_1m(root, "seed", True, download),
    ),
    "ml1m-sasrec": Board(
        tag="ml1m-sasrec",
        title="MovieLens-1M, the file of SASRec",
        dataset="MovieLens1M, sasrec",
        remove_seen=True,
        description=(
            "The file ml-1m.txt of SASRec, BERT4Rec and gSASRec in its own order: 999,611 rows, "
            f"6,040 users, 3,416 items; {_LOO}; seen items are removed."
        ),
        load=lambda root, download: movielens_1m(root, "sasrec", True, download),
    ),
    "ml1m-time": Board(
        tag="ml1m-time",
        title="MovieLens-1M, global time split",
        dataset="MovieLens1M, full, rated items",
        remove_seen=True,
        description=(
            "All ratings, cut at the 0.9 quantile of time (validation from the 0.8 quantile): the "
            "last event of each user in an interval is the target, only what is strictly earlier "
            "is visible; seen items are removed, users and items new since training are misses."
        ),
        load=lambda root, download: movielens_1m(root, "full", True, download),
        split=lambda graph: global_time_split(graph, val=0.1, test=0.1),
    ),
    "ml100k-seed": Board(
        tag="ml100k-seed",
        title="MovieLens-100K, ratings of 4 and 5",
        dataset="MovieLens100K, seed",
        remove_seen=False,
        description=(
            "Ratings >= 4 of users with at least 5 of them: 938 users, 1,447 items; "
            f"{_LOO}; seen items stay among the candidates, like on ml1m-seed."
        ),
        load=lambda root, download: movielens_100k(root, "seed", True, download),
    ),
    "simulated-loo": Board(
        tag="simulated-loo",
        title="Simulated MovieLens, leave one out",
        dataset="SimulatedMovieLens, default size, seed 0",
        remove_seen=True,
        description=(
            "Invented data with a known oracle, 2,000 users, 600 items, no download; "
            f"{_LOO}; seen items are removed. Results on it say nothing about real people."
        ),
        load=lambda root, download: simulate_movielens()[0],
    ),
    "trigrec-food": Board(
        tag="trigrec-food",
        title="TriGRec, food asked",
        dataset="TriGRec, food",
        remove_seen=True,
        description=(
            "Food and kitchen events of 34,117 users in order, no times; each user's last food "
            f"event is the test target{_ACROSS}; 19,569 food items are ranked; seen items are "
            "removed."
        ),
        load=lambda root, download: trigrec("food", root),
        split=partial(leave_one_out_in, relation="food"),
        sampled=_999,
    ),
    "trigrec-kitchen": Board(
        tag="trigrec-kitchen",
        title="TriGRec, kitchen asked",
        dataset="TriGRec, kitchen",
        remove_seen=True,
        description=(
            "Food and kitchen events of 34,117 users in order, no times; each user's last kitchen "
            f"event is the test target{_ACROSS}; 22,795 kitchen items are ranked; seen items are "
            "removed."
        ),
        load=lambda root, download: trigrec("kitchen", root),
        split=partial(leave_one_out_in, relation="kitchen"),
        sampled=_999,
    ),
    "simulated-food": Board(
        tag="simulated-food",
        title="Simulated domains, food asked",
        dataset="simulate_domains, default size, seed 0",
        remove_seen=True,
        description=(
            "Invented users with one taste in two domains and a known oracle, no download; each "
            f"user's last food event is the test target{_ACROSS}; 60 food items are ranked; seen "
            "items are removed."
        ),
        load=lambda root, download: simulate_domains()[0],
        split=partial(leave_one_out_in, relation="food"),
        sampled=_999,
    ),
    "simulated-kitchen": Board(
        tag="simulated-kitchen",
        title="Simulated domains, kitchen asked",
        dataset="simulate_domains, default size, seed 0",
        remove_seen=True,
        description=(
            "Invented users with one taste in two domains and a known oracle, no download; each "
            f"user's last kitchen event is the test target{_ACROSS}; 60 kitchen items are "
            "ranked; seen items are removed."
        ),
        load=lambda root, download: simulate_domains()[0],
        split=partial(leave_one_out_in, relation="kitchen"),
        sampled=_999,
    ),
}


def load_board(
    tag: str, root: Root = None, download: bool = True
) -> tuple[TemporalRecGraph, Split]:
    """The graph and the split of a board.

    Args:
        tag: A key of :data:`BOARDS`.
        root: Folder with the data; by default ``$TGREC_DATA``, else the user's cache folder.
        download: Whether data that are not there may be downloaded.

    Raises:
        ValueError: If there is no such board.
        DatasetNotFound: If the data are nowhere.
    """
    if tag not in BOARDS:
        raise ValueError(f"'tag' needs to be one of {list(BOARDS)} (got {tag!r})")
    graph = BOARDS[tag].load(root, download)
    return graph, BOARDS[tag].split(graph)


def checksum(graph: TemporalRecGraph) -> str:
    """sha256 over all events (user, item, event id, time), for records of results.

    Two graphs with the same checksum have the same events in the same order, numbered alike;
    features do not count. It does not depend on device or machine.
    """
    digest = hashlib.sha256(f"{graph.num_users} {graph.num_items}".encode())
    for edge_type in sorted(graph.interaction_types):
        store = graph[edge_type]
        columns = [store.edge_index[0], store.edge_index[1], store.event_id]
        if "time" in store:
            columns.append(store.time)
        digest.update(f"\n{edge_type[1]} {len(columns)} {store.event_id.numel()}\n".encode())
        for column in columns:
            digest.update(_little_endian(column))
    return digest.hexdigest()


def _little_endian(column: Tensor) -> bytes:
    content: bytes = column.to("cpu", torch.int64).numpy().astype("<i8").tobytes()
    return content
