"""What a graph says about its users, items and events beside who met what: read and binned."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import TemporalRecGraph

USER_FEATURES = ("gender", "age", "occupation")
FEATURES = ("genre", "year", "popularity", "user", *USER_FEATURES, "rating", "calendar", "gap")
"""What :class:`tgrec.models.EnhancedBERT4Rec` can read; where each stands in a graph:

``genre`` (``[N, G]`` multi-hot) and ``year`` (``[N]``, 0 is unknown) of items; ``gender``, ``age``
and ``occupation`` (``[U]``, negative is unknown) of users; ``rating`` and ``time`` of events, the
latter for ``calendar`` and ``gap``; ``popularity`` is how many events an item has, ``user`` the
user's own number, learned from ratings.
"""

# Values of ``age`` beyond this are years, which are binned at the bounds that MovieLens-1M
# publishes; otherwise they are codes of groups already.
MAX_AGE_CODE = 16
AGE_BOUNDS = (18.0, 25.0, 35.0, 45.0, 50.0, 56.0)
# Features with more different values are binned by quantiles.
MAX_BINS = 128


def available_features(graph: TemporalRecGraph) -> tuple[str, ...]:
    """Those of :data:`FEATURES` that a graph has."""
    found = {"popularity"}
    if genres(graph).size(1):
        found.add("genre")
    if graph.has_time:
        found |= {"calendar", "gap"}
    values = ((name, feature_values(graph, name)) for name in ("year", "rating", *USER_FEATURES))
    found |= {name for name, value in values if is_known(name, value).any()}
    found |= {"user"} if "rating" in found else set()
    return tuple(name for name in FEATURES if name in found)


def chosen_features(graph: TemporalRecGraph, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The features to read: all that the graph has, or those asked for.

    Raises:
        ValueError: If one that is asked for is not in the graph, or no feature at all.
    """
    there = available_features(graph)
    if wanted is None:
        return there
    wanted = tuple(wanted)
    for name in wanted:
        if name not in FEATURES:
            raise ValueError(f"'features' needs to be some of {list(FEATURES)} (got {name!r})")
        if name not in there:
            raise ValueError(
                f"'features' asks for {name!r}, which the graph does not have; it has {list(there)}"
            )
    return tuple(name for name in FEATURES if name in wanted)


def genres(graph: TemporalRecGraph) -> Tensor:
    """``[N, G]`` float32 shares of each item's genres: rows add up to 1, or 0 where none is known.

    G is 0 if the graph has no genres.
    """
    value = graph["item"].get("genre")
    if not isinstance(value, Tensor) or value.dim() != 2:
        return torch.zeros(graph.num_items, 0)
    _check_length("item", "genre", value, graph.num_items)
    hot = (value.to_dense() > 0).float().cpu()
    return hot / hot.sum(1, keepdim=True).clamp(min=1)


def item_features(graph: TemporalRecGraph) -> tuple[Tensor, list[Hashable]]:
    """``[N, F]`` float32 genres and years of items, and what the F columns stand for.

    Genres of an item share a row of length 1, the bin of its year is one of 1 (a bin for each year
    that occurs, see :func:`bin_edges`); what is not known is 0. F is 0 if the graph has neither.
    """
    shares, years = genres(graph), feature_values(graph, "year")
    columns: list[Hashable] = (
        [("genre", m) for m in genre_meanings(graph)] if shares.size(1) else []
    )
    parts = [shares.sqrt()]
    if is_known("year", years).any():
        edges = bin_edges("year", years)
        codes = bin_codes("year", years, edges)
        parts.append(F.one_hot(codes, len(edges) + 2)[:, : len(edges) + 1].float())
        columns += [("year", m) for m in bin_meanings(graph, "year", edges)]
    return torch.cat(parts, dim=1), columns


def asked_features(graph: TemporalRecGraph) -> Tensor:
    """The values of :func:`item_features` for a model that was asked to read them.

    A warning says so if there are none.
    """
    values = item_features(graph)[0]
    if values.size(1) == 0:
        warnings.warn(
            "'item_features': the graph has neither graph['item'].genre [N, G] nor a known "
            "graph['item'].year [N], so there are none to read; give genres or years of the items "
            "(items= in fit), or leave item_features out",
            UserWarning,
            stacklevel=3,
        )
    return values


def feature_values(graph: TemporalRecGraph, name: str) -> Tensor:
    """The values of ``year``, of a user feature, or of ``rating``; none if the graph lacks it."""
    if name == "rating":
        stores = [graph[t] for t in graph.interaction_types]
        parts = [s.rating.float().cpu() for s in stores if "rating" in s]
        return torch.cat(parts) if parts else torch.zeros(0)
    value = graph["item" if name == "year" else "user"].get(name)
    if not isinstance(value, Tensor) or value.dim() != 1:
        return torch.zeros(0)
    _check_length(*(("item", name, value, graph.num_items) if name == "year" else
                    ("user", name, value, graph.num_users)))  # fmt: skip
    return value.float().cpu()


def _check_length(kind: str, name: str, value: Tensor, size: int) -> None:
    if value.size(0) != size:
        raise ValueError(
            f"graph[{kind!r}].{name} needs a row for each of the {size} {kind}s (got "
            f"{value.size(0)})"
        )


def is_known(name: str, values: Tensor) -> Tensor:
    """Which values say something: years other than 0, codes from 0 on, any rating."""
    said = {"year": values != 0, "rating": values.isfinite()}.get(name, values >= 0)
    return values.isfinite() & said


def bin_edges(name: str, values: Tensor) -> list[float]:
    """The edges between the bins of a feature, ascending; one bin more than edges.

    A bin for every value that occurs, so that years are relative to the first one, except for ages
    in years and for features of more than :data:`MAX_BINS` values.
    """
    known = values[is_known(name, values)].double()
    if name == "age" and known.numel() and float(known.max()) > MAX_AGE_CODE:
        return list(AGE_BOUNDS)
    distinct = known.unique()
    if distinct.numel() > MAX_BINS:
        # A slice of the sorted values: torch.quantile takes no more than 2^24 of them.
        place = torch.linspace(0, known.numel() - 1, MAX_BINS + 1)[1:-1].long()
        edges: list[float] = known.sort().values[place].unique().tolist()
        return edges
    between: list[float] = ((distinct[1:] + distinct[:-1]) / 2).tolist()
    return between


def bin_codes(name: str, values: Tensor, edges: Sequence[float]) -> Tensor:
    """int64 bins of values, ``len(edges) + 1`` where a value is not known."""
    bounds = torch.tensor(edges, dtype=torch.float32, device=values.device)
    codes = torch.bucketize(values.float().contiguous(), bounds, right=True)
    return torch.where(is_known(name, values), codes, len(edges) + 1)


def feature_bins(graph: TemporalRecGraph, names: Iterable[str]) -> dict[str, list[float]]:
    """Feature -> edges, for those of ``names`` that are binned."""
    binned = [name for name in names if name in ("year", "rating", *USER_FEATURES)]
    return {name: bin_edges(name, feature_values(graph, name)) for name in binned}


def genre_meanings(graph: TemporalRecGraph) -> Sequence[Hashable]:
    """What the columns of ``genre`` stand for: words, or places where there are none."""
    if "genres_bytes" in graph["item"]:
        lists = (text.split("|") for text in graph.strings("item", "genres"))
        return sorted(set().union(*lists) - {""})
    width = genres(graph).size(1)
    return [("genre", column, width) for column in range(width)]


def bin_meanings(graph: TemporalRecGraph, name: str, edges: Sequence[float]) -> list[Hashable]:
    """What the bins of a feature stand for: their words, the only value, or from where to where."""
    bounds = [-torch.inf, *edges, torch.inf]
    spans = list(zip(bounds[:-1], bounds[1:], strict=True))
    if name == "rating":  # a 3 of 5 is no 3 of 10
        return [(span, tuple(edges)) for span in spans]
    values = feature_values(graph, name)
    values = values[is_known(name, values)].unique()
    held = torch.bucketize(values, torch.tensor(edges), right=True)
    has_words = f"{name}_bytes" in graph["user"]
    words = sorted(set(graph.strings("user", name)) - {""}) if has_words else None
    out: list[Hashable] = []
    for place, span in enumerate(spans):
        own = values[held == place].tolist()
        if words and own:
            out.append(tuple(words[int(code)] for code in own))
        else:
            out.append(own[0] if len(own) == 1 else span)
    return out
