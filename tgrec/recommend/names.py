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
    "user": "for somebody new pass history=[...]",
    "item": "fit again with events of it",
}
# The codes of user attributes in the two MovieLens schemas, by the width of `genre`.
_SCHEMAS: dict[int, dict[str, tuple[str, ...]]] = {
    len(GENRES_1M): {"gender": GENDERS, "age": AGE_GROUPS_1M, "occupation": OCCUPATIONS_1M},
    len(GENRES_100K): {"gender": GENDERS, "occupation": OCCUPATIONS_100K},
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
            ValueError: If one is unknown; says which, what is near, and what to do.
        """
        if len(wanted) == 0:
            return torch.zeros(0, dtype=torch.int64)
        found = self.index.get_indexer(pd.Index(list(wanted)))
        if (found < 0).any():
            unknown = [wanted[i] for i in np.flatnonzero(found < 0).tolist()]
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise ValueError(
                f"'{argument}': there is no {self.node_type} {plain(unknown[0])!r}{more} among "
                f"the {len(self.raw)} {self.node_type}s that the recommender knows"
                f"{self._near(plain(unknown[0]))}; {REMEDY[self.node_type]}"
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
            if wanted.strip().isdigit() and int(wanted) in self.index:
                return f"; ids are integers, did you mean {int(wanted)}?"
            return self._near_title(wanted)
        if numbers:
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
    """A NumPy or torch scalar as a Python one."""
    return value.item() if isinstance(value, np.generic | Tensor) else value


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
    """What the store holds of one node beside its id and title, codes in words where known."""
    store, size = graph[node_type], int(graph[node_type].num_nodes or 0)
    out: dict[str, Any] = {}
    for key, value in store.items():
        name = key.removesuffix("_bytes")
        if name in ("raw_id", "title") or not isinstance(value, Tensor):
            continue
        if key.endswith("_bytes"):
            out[name] = graph.strings(node_type, name)[position]
        elif value.dim() == 1 and value.size(0) == size and f"{name}_bytes" not in store:
            out[name] = plain(value[position])
    if node_type == "user":
        for name, words in words_of_codes(graph).items():
            if not isinstance(out[name], str):
                out[name] = words[out[name]]
    return out


def words_of_codes(graph: TemporalRecGraph) -> dict[str, tuple[str, ...]]:
    """User attribute -> the words that its codes 0, 1, ... stand for, where they are known.

    Known are those of a MovieLens schema, and strings that :func:`add_codes` has numbered.
    """
    users, items = graph["user"], graph["item"]
    found = {
        name: tuple(sorted(set(graph.strings("user", name))))
        for name in users.keys()
        if f"{name}_bytes" in users
    }
    genre = items.get("genre")
    if found or "genres_bytes" in items or not isinstance(genre, Tensor) or genre.dim() != 2:
        return found
    schema = _SCHEMAS.get(genre.size(1), {})
    coded = all(
        isinstance(users.get(name), Tensor)
        and not users[name].is_floating_point()
        and int(users[name].max()) < len(words)
        for name, words in schema.items()
    )
    return schema if coded else {}


def add_codes(graph: TemporalRecGraph) -> None:
    """Writes numbers beside strings, for the models that read them.

    A user attribute gets the place of each string in alphabetical order, ``genres`` of items the
    multi-hot ``genre``.
    """
    users, items = graph["user"], graph["item"]
    names = [key.removesuffix("_bytes") for key in users.keys() if key.endswith("_bytes")]
    for name in names:
        if name not in ("raw_id", "title"):
            codes = pd.factorize(np.asarray(graph.strings("user", name)), sort=True)[0]
            users[name] = torch.from_numpy(codes.astype(np.int64))
    genres = genres_of(graph)
    if genres is not None and "genre" not in items:
        items.genre = torch.from_numpy(genres[1].astype(np.float32))


def coded_profile(graph: TemporalRecGraph, profile: Mapping[str, Any]) -> dict[str, float]:
    """A profile in words, or in the numbers of the data, as those numbers.

    Raises:
        ValueError: If the data have no such feature of users, or not this value of it.
    """
    words, out = words_of_codes(graph), {}
    there = {key.removesuffix("_bytes") for key in graph["user"].keys()} - {"raw_id", "num_nodes"}
    for name, value in profile.items():
        if name not in there:
            raise ValueError(
                f"'profile': the data say no {name!r} of users, but {sorted(there) or 'nothing'}"
            )
        if isinstance(value, str):
            known = words.get(name, ())
            if value not in known:
                said = f"one of {list(known)}" if known else "a number, as in the data"
                raise ValueError(f"'profile': {name!r} needs to be {said} (got {value!r})")
            out[name] = float(known.index(value))
        elif name == "age" and words.get(name) == AGE_GROUPS_1M and value >= len(AGE_GROUPS_1M):
            out[name] = float(bisect_right(AGES_1M, value) - 1)  # years
        elif name in words and value not in range(len(words[name])):
            raise ValueError(
                f"'profile': {name!r} needs to be one of {list(words[name])}, or its place there, "
                f"from 0 (got {value!r})"
            )
        else:
            out[name] = float(value)
    return out
