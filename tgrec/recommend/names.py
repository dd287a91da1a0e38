"""Raw ids, titles and genres in words; whatever is unknown is named, with what may be meant."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.data.recognise import NAMES, index_as_columns, plain_name
from tgrec.datasets import words_in
from tgrec.datasets.movielens import (
    AGE_GROUPS_1M,
    AGES_1M,
    GENDERS,
    GENRES_1M,
    GENRES_100K,
    OCCUPATIONS_1M,
    OCCUPATIONS_100K,
)

REMEDY = {
    "user": "for somebody new ask with a history",
    "item": "fit again with events of it, or with it in the table 'items'",
}
# What user attributes are coded as: code -> word.
Words = dict[str, dict[int, str]]


def _places(**words: tuple[str, ...]) -> Words:
    return {name: dict(enumerate(own)) for name, own in words.items()}


# By the width of `genre` what our readers of MovieLens write, and what is published with 1M.
_READ: dict[int, Words] = {
    len(GENRES_1M): _places(gender=GENDERS, age=AGE_GROUPS_1M, occupation=OCCUPATIONS_1M),
    len(GENRES_100K): _places(gender=GENDERS, occupation=OCCUPATIONS_100K),
}
_PUBLISHED: Words = {
    "age": dict(zip(AGES_1M, AGE_GROUPS_1M, strict=True)),
    **_places(occupation=OCCUPATIONS_1M),
}
_GENRES = {len(GENRES_1M): GENRES_1M, len(GENRES_100K): GENRES_100K}


@dataclass(frozen=True)
class Names:
    """The names of all nodes of one type.

    Args:
        node_type: ``user`` or ``item``.
        raw: ``[N]`` raw ids, int64 or strings.
        index: The same, to look up in.
        titles: ``[N]`` titles where the data have them.
    """

    node_type: str
    raw: np.ndarray
    index: pd.Index
    titles: np.ndarray | None = None

    @classmethod
    def of(cls, graph: TemporalRecGraph, node_type: str) -> Names:
        """Reads them from the store."""
        ids = graph.raw_ids(node_type)
        raw = ids.cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids, dtype=object)
        titles = None
        if "title_bytes" in graph[node_type]:
            titles = np.asarray(graph.strings(node_type, "title"), dtype=object)
        return cls(node_type, raw, pd.Index(raw), titles)

    def positions(self, wanted: Sequence[Any], argument: str) -> Tensor:
        """Node numbers ``[n]`` (int64) of raw ids.

        Raises:
            ValueError: If one is no id, or unknown; says which, what is near, and what to do.
        """
        ids = [plain(value) for value in wanted]
        if not ids:
            return torch.zeros(0, dtype=torch.int64)
        for value in ids:
            if not isinstance(value, str | int | float):
                raise ValueError(
                    f"'{argument}' needs an id, an integer or a string as in the data, for each "
                    f"{self.node_type} (got {value!r})"
                )
        found = self.index.get_indexer(pd.Index(ids))
        if (found < 0).any():
            unknown = [ids[i] for i in np.flatnonzero(found < 0).tolist()]
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise ValueError(
                f"'{argument}': there is no {self.node_type} {unknown[0]!r}{more} among "
                f"the {len(self.raw)} {self.node_type}s that the recommender knows"
                f"{self._near(unknown[0])}; {REMEDY[self.node_type]}"
            )
        return torch.from_numpy(found.astype(np.int64))

    def known(self, wanted: Sequence[Any]) -> np.ndarray:
        """``[n]`` bool, which raw ids are known."""
        return np.asarray(self.index.get_indexer(pd.Index(list(wanted))) >= 0)

    def id(self, position: int) -> Any:
        """The raw id of a node as a plain int or str."""
        return plain(self.raw[position])

    def title(self, position: int) -> str | None:
        """Its title, None where the data have none."""
        return None if self.titles is None else str(self.titles[position])

    def _near(self, wanted: Any) -> str:
        """What may have been meant, as a question."""
        numbers = self.raw.dtype.kind == "i"
        if numbers and isinstance(wanted, str):
            if wanted.strip().isdecimal() and int(wanted) in self.index:
                return f"; ids are integers, did you mean {int(wanted)}?"
            return self._near_title(wanted)
        if numbers:
            if not abs(wanted) < 2**63:  # nor is NaN near anything
                return "; ids are integers"
            closest = np.argsort(np.abs(self.raw - wanted), kind="stable")[:2]
            return f"; did you mean {' or '.join(str(self.raw[i]) for i in sorted(closest))}?"
        if str(wanted) in self.index:
            return f"; ids are strings, did you mean {str(wanted)!r}?"
        near = difflib.get_close_matches(str(wanted), [str(x) for x in self.raw], n=2, cutoff=0.5)
        return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""

    def _near_title(self, wanted: str) -> str:
        """A title in the place of an id."""
        if self.titles is None:
            return "; ids are integers"
        titles = {str(title).lower(): i for i, title in enumerate(self.titles)}
        near = difflib.get_close_matches(wanted.lower(), titles, n=1, cutoff=0.5)
        if not near:
            return "; ids are integers"
        place = titles[near[0]]
        return f"; did you mean {self.id(place)} ({self.title(place)})?"


def plain(value: Any) -> Any:
    """A NumPy or torch scalar as a Python one; all else as it is.

    So are NumPy's moments, of which nanoseconds would become a number without a unit.
    """
    if isinstance(value, np.datetime64):
        return value
    scalar = isinstance(value, np.generic) or (isinstance(value, Tensor) and value.dim() == 0)
    return value.item() if scalar else value


def is_many(value: Any) -> bool:
    """Whether a value is a list, array, Series or tensor of values, and not one value."""
    return np.iterable(value) and not isinstance(value, str | bytes | Mapping)


def listed(values: Any, argument: str) -> list[Any]:
    """The plain values of a list, array, Series or tensor.

    Raises:
        ValueError: If it is none.
    """
    if not is_many(values):
        raise ValueError(f"'{argument}' needs to be a list (got {values!r})")
    return [plain(value) for value in values]


def listed_pairs(pairs: Any) -> tuple[list[Any], list[Any]]:
    """Users and items of pairs ``(user_id, item_id)``: a list, an array ``[n, 2]`` or a table.

    The columns of a table are known by their usual names; two columns without are taken in order.

    Raises:
        ValueError: If one of them is no pair.
    """
    if isinstance(pairs, pd.DataFrame):
        user, item = _columns_of_pairs(pairs)
        return listed(user, "pairs"), listed(item, "pairs")
    rows = [listed(row, "pairs") if is_many(row) else [row] for row in listed(pairs, "pairs")]
    for row in rows:
        if len(row) != 2:
            raise ValueError(f"'pairs' needs to hold pairs (user_id, item_id) (got {row})")
    return [user for user, _ in rows], [item for _, item in rows]


def _columns_of_pairs(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The columns of users and of items, of which one may be the index."""
    whole = index_as_columns(table)
    names = [plain_name(str(column)) for column in whole.columns]
    users, items = ([i for i, n in enumerate(names) if n in NAMES[r]] for r in ("user", "item"))
    if not users and not items and table.shape[1] == 2:
        return table.iloc[:, 0], table.iloc[:, 1]
    if len(users) != 1 or len(items) != 1:
        columns = [str(column) for column in whole.columns]
        raise ValueError(
            f"'pairs' needs one column of users and one of items (got {columns}, of which "
            f"{len(users)} and {len(items)} are called so); call them user_id and item_id"
        )
    return whole.iloc[:, users[0]], whole.iloc[:, items[0]]


def genres_of(graph: TemporalRecGraph) -> tuple[tuple[str, ...], np.ndarray] | None:
    """The names of G genres and who has them, ``[N, G]`` bool; None if items carry none.

    Read are strings ``genres`` such as ``Comedy|Drama``, else a multi-hot ``genre`` ``[N, G]``,
    whose columns are those of MovieLens where it has as many.
    """
    store = graph["item"]
    if "genres_bytes" in store:
        lists = [
            [g.strip() for g in text.replace(",", "|").split("|") if g.strip()]
            for text in graph.strings("item", "genres")
        ]
        names = tuple(sorted({g for row in lists for g in row}))
        place = {g: i for i, g in enumerate(names)}
        has = np.zeros((len(lists), len(names)), dtype=bool)
        for row, genres in enumerate(lists):
            has[row, [place[g] for g in genres]] = True
        return names, has
    multi_hot = store.get("genre")
    if not isinstance(multi_hot, Tensor) or multi_hot.dim() != 2:
        return None
    width = multi_hot.size(1)
    names = _GENRES.get(width, tuple(f"genre {i}" for i in range(width)))
    return names, multi_hot.cpu().numpy() > 0


def attributes_of(graph: TemporalRecGraph, node_type: str, position: int) -> dict[str, Any]:
    """What is known of one node beside its id and title, codes in words where these are known."""
    store, size = graph[node_type], int(graph[node_type].num_nodes or 0)
    words = words_of_codes(graph) if node_type == "user" else {}
    out: dict[str, Any] = {}
    for key, value in store.items():
        name = key.removesuffix("_bytes")
        if name in ("raw_id", "title") or not isinstance(value, Tensor):
            continue
        if key.endswith("_bytes"):
            out[name] = graph.strings(node_type, name)[position] or None
        elif value.dim() == 1 and value.size(0) == size and f"{name}_bytes" not in store:
            code = plain(value[position])
            out[name] = words[name].get(code) if name in words else code
    return {name: value for name, value in out.items() if value is not None}


def words_of_codes(graph: TemporalRecGraph) -> Words:
    """User attribute -> the words that its codes stand for, where they are known.

    Known are texts (:func:`tgrec.datasets.graph_of_tables` numbers them), and the codes of
    MovieLens, if all users have such codes.
    """
    users, genre = graph["user"], graph["item"].get("genre")
    names = {key.removesuffix("_bytes") for key in users.keys() if key.endswith("_bytes")}
    found = _places(**{name: words_in(graph, name) for name in names - {"raw_id", "title"}})
    read = isinstance(genre, Tensor) and genre.dim() == 2 and "genres_bytes" not in graph["item"]
    schemas = [_READ.get(genre.size(1), {})] if read and not found else []
    coded = (schema for schema in [*schemas, _PUBLISHED] if schema and _has(users, schema))
    return {**next(coded, {}), **found}


def _has(users: Any, schema: Words) -> bool:
    """Whether all that users have of these attributes is coded so."""
    return all(
        isinstance(users.get(name), Tensor)
        and not users[name].is_floating_point()
        and set(users[name].unique().tolist()) <= {-1, *words}
        for name, words in schema.items()
    )


def coded_profile(graph: TemporalRecGraph, profile: Mapping[str, Any]) -> dict[str, float]:
    """A profile in words, or in the numbers of the data, as those numbers.

    Raises:
        ValueError: If the data have no such feature of users, or not this value of it.
    """
    if not isinstance(profile, Mapping):
        raise ValueError(f"'profile' needs to be like {{'gender': 'F', 'age': 25}} (got "
                         f"{profile!r})")  # fmt: skip
    words = words_of_codes(graph)
    keys = [key for key in graph["user"].keys() if not key.endswith("_offsets")]
    there = {key.removesuffix("_bytes") for key in keys} - {"raw_id", "num_nodes"}
    for name in profile:
        if name not in there:
            raise ValueError(
                f"'profile': the data say no {name!r} of users, but {sorted(there) or 'nothing'}"
            )
    return {name: _code(name, plain(value), words.get(name)) for name, value in profile.items()}


def _code(name: str, value: Any, words: Mapping[int, str] | None) -> float:
    """The number of a value of a user attribute."""
    number = isinstance(value, int | float) and value == value
    if words is None and number:
        return float(value)
    if words is None:
        raise ValueError(
            f"'profile': {name!r} needs to be a number, as in the data (got {value!r})"
        )
    if number and value in words:
        return float(value)
    if name == "age" and number and value > 0 and {*words.values()} <= {*AGE_GROUPS_1M}:  # years
        value = AGE_GROUPS_1M[bisect_right(AGES_1M, value) - 1]
    for code, word in words.items():
        if word == value:
            return float(code)
    raise ValueError(f"'profile': {name!r} needs to be one of {list(words.values())}, or its "
                     f"number, of {list(words)} (got {value!r})")  # fmt: skip
