"""The two domains of TriGRec, and any users in several domains, as one temporal graph.

Domains are relations: ``('user', 'food', 'item')`` and ``('user', 'kitchen', 'item')``. Items have
``domain``, the number of their domain in the alphabetical order of the names. Every item is of one
domain.

The published files have an order and no times. Each domain's list is in order, and the two cross
files merge one whole domain with the other one but its last two events. So the order between the
domains is known, except, for some users, that of the last two events of the one against the last
two of the other. These are ordered so that nothing unproven is seen: the events of the target
domain come first, and of the other domain only what is certainly earlier precedes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets._fetch import DataFileError, RawFile, Source, data_root, get_file, user_cache
from tgrec.datasets._pickled_lists import read_pickled_lists
from tgrec.datasets._store import OneGraph, cached

Root = str | os.PathLike[str] | None
Domain = Literal["food", "kitchen"]
Lists = Mapping[int, list[int]]

TRIGREC = Source(
    name="trigrec",
    url=None,
    size=5_928_194,
    md5="",
    sha256="",
    files={
        "food_all.pkl": "e22a82e8417640d8763e2d602431d2183b0ba9bf5ed641b7936d4f09a72dc585",
        "kitchen_all.pkl": "6f94818a994e79a327a964b3d7f683725be8b2b6834c771520ccb4a732f1a65c",
        "food_train.pkl": "febf85239d31bd12d8a8d931e7505095812b668ad652ac2ef05c83e84bdd87e3",
        "kitchen_train.pkl": "366583dc30adbb92efb4097b1f868814ede6588249276c2e6b23c0f7d098562e",
        "cross_f_train.pkl": "38a1667988a67a31aed554712d23ac1bcff815645f48ad1a25a5f04a291707a3",
        "cross_k_train.pkl": "87fc205432348f236da0be69220a845857ddd2b0c182afaf1a06591fe8261f46",
    },
    origin="the folder 'data' of the repository moon2y/TriGRec (six files, 5,928,194 bytes)",
)
CODE_VERSION = 1  # part of the cache key: raise it whenever the same files give another graph
HELD_OUT = 2  # events of each list that the published training files leave out


def trigrec(
    target: Domain = "food", root: Root = None, verify: bool = True, cache: bool = True
) -> TemporalRecGraph:
    """TriGRec's data: 34,117 users, 19,569 food and 22,795 kitchen items, 453,525 events.

    Args:
        target: The domain that will be asked for; it decides how unknown order is resolved.
        root: Folder with the data; by default ``$TGREC_DATA``, else the user's cache folder.
        verify: Whether the files must have their known checksums.
        cache: Whether the graph is kept in the user's cache folder, if that is writable.

    Raises:
        DatasetNotFound: If a file is nowhere; the message says what to put where.
        ChecksumError: If ``verify`` and a file is another one.
        DataFileError: If a file holds anything but lists of integers, or the files contradict each
            other; the message names file, and offset or user.
    """
    if target not in get_args(Domain):
        raise ValueError(f"'target' needs to be one of {list(get_args(Domain))} (got {target!r})")
    raw = {name: get_file(TRIGREC, name, root, False, verify) for name in TRIGREC.files}
    key = ["trigrec", CODE_VERSION, target, *(file.sha256 for file in raw.values())]
    places = [user_cache() / "processed"] if cache else []
    return cached(key, places, lambda: _build(raw, target))


class TriGRecData(OneGraph):
    """Users in several domains as a PyG dataset: TriGRec's own files, or a CSV file of yours.

    Args:
        root: See :func:`trigrec`, as the next three; not used with ``csv``.
        target: The domain that will be asked for.
        verify: Whether the files must have their known checksums.
        cache: Whether the graph is kept.
        csv: A file with one event per line, see :func:`read_domains`.
        transform: A PyG transform, applied at every access.
        columns: As :func:`read_domains` takes them.
    """

    def __init__(
        self,
        root: Root = None,
        target: Domain = "food",
        verify: bool = True,
        cache: bool = True,
        csv: str | os.PathLike[str] | None = None,
        transform: Callable[..., Any] | None = None,
        **columns: Any,
    ) -> None:
        if csv is None and columns:
            raise ValueError(f"{sorted(columns)} describe a CSV file; pass it as 'csv'")
        graph = (
            trigrec(target, root, verify, cache) if csv is None else read_domains(csv, **columns)
        )
        super().__init__(graph, data_root(root), transform)


def read_domains(
    path: str | os.PathLike[str],
    domain: str = "domain",
    time: str | None = "timestamp",
    **columns: Any,
) -> TemporalRecGraph:
    """Users in any number of domains, from a CSV file with one event per line.

    Args:
        path: The file.
        domain: The column that names the domain of each event.
        time: The column of times; None if only the order of the lines is known.
        columns: As :meth:`TemporalRecGraph.from_csv` takes them.

    Raises:
        ValueError: If a value is not usable, or an item stands in two domains: ids that two
            domains share by accident would be one item.
    """
    if "relation" in columns:
        raise ValueError(
            f"'relation' is called 'domain' here, the column that names the domain of each event "
            f"(got relation={columns['relation']!r})"
        )
    graph = TemporalRecGraph.from_csv(os.fspath(path), relation=domain, time=time, **columns)
    try:
        graph["item"].domain = item_domains(graph)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; write the domain into the item ids") from error
    return graph


def item_domains(graph: TemporalRecGraph) -> torch.Tensor:
    """``[N]`` int64: in which of the graph's relations each item has its events.

    Raises:
        ValueError: If an item has events in several, or in none.
    """
    types = graph.interaction_types
    counts = torch.stack(
        [torch.bincount(graph[t].edge_index[1].cpu(), minlength=graph.num_items) for t in types]
    )
    bad = ((counts > 0).sum(0) != 1).nonzero().view(-1)
    if bad.numel():
        item = int(bad[0])
        found = [t[1] for t, count in zip(types, counts, strict=True) if count[item] > 0]
        ids = graph.raw_ids("item")
        ids = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        raise ValueError(
            f"{bad.numel()} items are not of one domain, first {ids[item]!r} of {found}"
        )
    return counts.argmax(0)


def _build(raw: Mapping[str, RawFile], target: Domain) -> TemporalRecGraph:
    lists = {name: read_pickled_lists(file) for name, file in raw.items()}
    _check_users(raw, lists)
    other: Domain = "kitchen" if target == "food" else "food"
    own, rest = lists[f"{target}_all.pkl"], lists[f"{other}_all.pkl"]
    own_cross, rest_cross = (lists[f"cross_{d[0]}_train.pkl"] for d in (target, other))
    _check_lists(raw, lists)
    rows: list[tuple[int, int, int, int]] = []  # user, item, domain, block
    for user, mine in own.items():
        try:
            before = places(mine, rest[user], own_cross[user], rest_cross[user])
        except ValueError as error:
            raise DataFileError(
                f"{raw[f'cross_{other[0]}_train.pkl'].path}: {error} (user {user}); fetch the six "
                f"files again"
            ) from error
        code = sorted(get_args(Domain)).index(target)
        rows += merged(user, mine, rest[user], before, code)
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "code", "block"])
    return _graph(interleaved(events))


def places(
    mine: Sequence[int], rest: Sequence[int], own_cross: Sequence[int], rest_cross: Sequence[int]
) -> list[int]:
    """For each event of ``rest``, before how many of ``mine`` it cannot be shown to be.

    ``own_cross`` holds ``mine`` without its last two events and all of ``rest``, ``rest_cross``
    the other way round. An event of ``rest`` that stands behind all of ``mine`` in ``own_cross``
    and is left out of ``rest_cross`` may be earlier or later than the last two of ``mine``: it
    counts as later.

    Returns:
        One number per event of ``rest``, ascending: how many events of ``mine`` precede it.
    """
    known = len(mine) - HELD_OUT
    coarse = _counts_before(own_cross, frozenset(rest))
    exact = _counts_before(rest_cross, frozenset(rest))
    exact += [len(mine)] * (len(rest) - len(exact))
    if any(min(e, known) != c for e, c in zip(exact[:-HELD_OUT], coarse, strict=False)):
        raise ValueError("the two cross files order the same events differently")
    return [c if c < known else e for c, e in zip(coarse, exact, strict=True)]


def _counts_before(merged_list: Sequence[int], items: frozenset[int]) -> list[int]:
    """For each event that is one of ``items``, how many others stand before it."""
    counts, others = [], 0
    for item in merged_list:
        if item in items:
            counts.append(others)
        else:
            others += 1
    return counts


def merged(
    user: int, mine: Sequence[int], rest: Sequence[int], before: Sequence[int], code: int
) -> list[tuple[int, int, int, int]]:
    """The events of one user in order: user, item, domain, and the block of the log.

    Block 0 is before the validation target (the second to last of ``mine``), block 1 before the
    test target, block 2 the rest.
    """
    out, place = [], 0
    for step in range(len(mine) + 1):
        block = max(0, step - (len(mine) - HELD_OUT))
        while place < len(rest) and before[place] == step:
            out.append((user, rest[place], 1 - code, block))
            place += 1
        if step < len(mine):
            out.append((user, mine[step], code, max(0, step + 1 - (len(mine) - HELD_OUT))))
    return out


def interleaved(events: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order for all users, which says nothing beyond the order of each.

    Between users no order is known. Blocks come one after the other, so that no training event is
    later than a target; within a block users take turns and all end at the same time.
    """
    group = events.groupby(["block", "user_id"], sort=False)
    left = group.cumcount(ascending=False)
    order = np.lexsort((events["user_id"], -left, events["block"]))
    return events.iloc[order].reset_index(drop=True)


def _graph(events: pd.DataFrame) -> TemporalRecGraph:
    names = np.array(sorted(get_args(Domain)), dtype=object)
    items = events[["item_id", "code"]].drop_duplicates("item_id").sort_values("item_id")
    return TemporalRecGraph.from_pandas(
        events.assign(relation=names[events["code"]]),
        time=None,
        relation="relation",
        items=items.rename(columns={"code": "domain"}).reset_index(drop=True),
    )


def _check_users(raw: Mapping[str, RawFile], lists: Mapping[str, Lists]) -> None:
    users = lists["food_all.pkl"].keys()
    for name, content in lists.items():
        if content.keys() != users:
            only = sorted(content.keys() ^ users)[:3]
            raise DataFileError(
                f"{raw[name].path}: its users are not those of food_all.pkl (first {only}); fetch "
                f"the six files again"
            )


def _check_lists(raw: Mapping[str, RawFile], lists: Mapping[str, Lists]) -> None:
    """The training and cross files are parts and merges of the whole lists."""
    whole = {d: lists[f"{d}_all.pkl"] for d in get_args(Domain)}
    items = {d: frozenset(i for row in rows.values() for i in row) for d, rows in whole.items()}
    if both := items["food"] & items["kitchen"]:
        raise DataFileError(
            f"{raw['kitchen_all.pkl'].path}: item {min(both)} stands in food_all.pkl as well; "
            f"fetch the six files again"
        )
    for domain, other in (("food", "kitchen"), ("kitchen", "food")):
        for user, row in whole[domain].items():
            known, cross = row[:-HELD_OUT], lists[f"cross_{domain[0]}_train.pkl"][user]
            parts = {
                f"{domain}_train.pkl": (lists[f"{domain}_train.pkl"][user], known),
                f"cross_{domain[0]}_train.pkl": (
                    [[i for i in cross if i in items[d]] for d in (domain, other)],
                    [known, whole[other][user]],
                ),
            }
            for name, (found, expected) in parts.items():
                if found != expected or len(row) <= HELD_OUT:
                    raise DataFileError(
                        f"{raw[name].path}: the list of user {user} does not fit the one in "
                        f"{domain}_all.pkl; fetch the six files again"
                    )
