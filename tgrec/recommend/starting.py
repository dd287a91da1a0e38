"""Starting from a saved recommender: what its weights stand for is found again in the new data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.models import MODELS, RecModel
from tgrec.recommend.folder import load_folder
from tgrec.recommend.names import Names

# Rows of the new and of the old parameter that mean the same.
Shared = tuple[Tensor, Tensor]


def start_from(model: RecModel, graph: TemporalRecGraph, folder: str | os.PathLike[str]) -> int:
    """Copies the weights of a saved recommender, each to what it stood for.

    Tables of items are matched by raw id: a parameter is one if it has one row more in a model with
    one item more. Tables of users start anew: who has which number in other data is somebody else,
    and only the row of somebody unknown is taken over. Rows that stand for something else of the
    data (genres, years, codes) are matched by :meth:`RecModel.row_meanings`, all others by their
    place. What finds no counterpart stays new, and is named in a warning; so is what has none here.
    Counts are those of the new data.

    Returns:
        How many of the ``items`` of the new data were found.

    Raises:
        ValueError: If the folder's model is of another class or of other widths, or no item of the
            new data is known to it.
    """
    own = type(model)
    names = [own.__name__, *(name for name, cls in MODELS.items() if cls is own)]
    old, old_graph, _ = load_folder(folder, dict.fromkeys(names, own))
    nobody = torch.zeros(0, dtype=torch.int64)
    items = matched(Names.of(graph, "item").raw, Names.of(old_graph, "item").raw)
    ids = {"item": items, "user": (nobody, nobody)}
    if ids["item"][0].numel() == 0:
        raise ValueError(
            f"'init_from': {str(folder)!r} knows none of the items of these data by id"
        )
    tables = {name: kind for kind in ids for name in _tables(model, f"num_{kind}s")}
    meaning, before = model.row_meanings(graph), old.row_meanings(old_graph)
    source = dict(old.named_parameters())
    left = [name for name in source if name not in dict(model.named_parameters())]
    with torch.no_grad():
        for name, new in model.named_parameters():
            value = source.get(name)
            if value is None:
                left.append(name)
                continue
            if value.shape[1:] != new.shape[1:]:
                raise ValueError(
                    f"'init_from': the model in {str(folder)!r} has other settings ({name} is "
                    f"{list(value.shape)} there and {list(new.shape)} here); give Recommender(...) "
                    f"the same"
                )
            if name in tables:
                _copy_rows(new, value, ids[tables[name]])
                size = f"num_{tables[name]}s"
                _copy_rest(new, value, model.config[size], old.config[size])
            elif name in meaning:
                rows, theirs = meaning[name], before.get(name, ())
                shared = matched(rows, theirs)
                _copy_rows(new, value, shared)
                _copy_rest(new, value, len(rows), len(theirs))
                if shared[0].numel() == 0:
                    left.append(name)
            elif value.shape == new.shape:
                new.copy_(value)
            else:
                left.append(name)
    if left:
        warnings.warn(
            f"'init_from': nothing is taken over of {', '.join(sorted(left))}: not in both models, "
            f"or of other sizes or other meaning there",
            UserWarning,
            stacklevel=3,
        )
    return int(items[0].numel())


def matched(new: Sequence[Hashable] | np.ndarray, old: Sequence[Hashable] | np.ndarray) -> Shared:
    """Places in ``new`` and in ``old``, each without duplicates, of what is in both."""
    rows = _index(old).get_indexer(_index(new))
    found = np.flatnonzero(rows >= 0)
    return torch.from_numpy(found), torch.from_numpy(rows[found])


def _index(values: Sequence[Hashable] | np.ndarray) -> pd.Index:
    """An index of values as they are: tuples are one value each, no levels."""
    if isinstance(values, np.ndarray):
        return pd.Index(values)
    return pd.Index(list(values), dtype=object, tupleize_cols=False)


def _tables(model: RecModel, size: str) -> set[str]:
    """The parameters that have a row for each item, or user."""
    if size not in model.config:
        return set()
    larger = type(model)(**{**model.config, size: model.config[size] + 1})
    shapes = {name: parameter.shape for name, parameter in larger.named_parameters()}
    return {
        name
        for name, parameter in model.named_parameters()
        if shapes[name][:1] != parameter.shape[:1]
    }


def _copy_rows(parameter: Tensor, value: Tensor, shared: Shared) -> None:
    to, rows = shared
    parameter[to] = value[rows]


def _copy_rest(parameter: Tensor, value: Tensor, rows: int, old_rows: int) -> None:
    """What stands behind those rows, such as the mask token, or "unknown"."""
    extra, there = parameter[rows:], value[old_rows:]
    if extra.shape == there.shape:
        extra.copy_(there)
