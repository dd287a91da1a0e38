"""From a table to a trained model: settings that fit, what to start from, what if memory ends."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from tgrec.data import (
    Sampling,
    Split,
    TemporalRecGraph,
    global_time_split,
    leave_one_out,
    leave_one_out_in,
)
from tgrec.data.recognise import index_as_columns, recognise_columns
from tgrec.datasets import checksum, clean_items, clean_users, features_only, graph_of_tables
from tgrec.models import MODELS, RecModel
from tgrec.models.io import FOUND_OUT
from tgrec.recommend.memory import naming_remedies
from tgrec.recommend.names import Names
from tgrec.recommend.served import Served
from tgrec.training import FitResult, TrainSettings
from tgrec.training import fit as train

SplitName = Literal["leave_one_out", "global_time"]
# Of the default settings: steps of an epoch, and of all epochs.
STEPS_PER_EPOCH, STEPS, MOST_EPOCHS = 32, 8000, 200


def model_class(model: str | type[RecModel]) -> type[RecModel]:
    """The class of a name of ``MODELS``, or the class itself.

    Raises:
        ValueError: If there is no such model.
    """
    if isinstance(model, str):
        if model not in MODELS:
            raise ValueError(
                f"'model' needs to be one of {list(MODELS)} or a RecModel subclass (got "
                f"{model!r}){meant(model, MODELS)}"
            )
        return MODELS[model]
    if not (isinstance(model, type) and issubclass(model, RecModel)):
        raise ValueError(
            f"'model' needs to be one of {list(MODELS)} or a RecModel subclass (got {model!r})"
        )
    return model


def check_model_settings(cls: type[RecModel], settings: Mapping[str, Any]) -> None:
    """Raises ValueError if the class has no such setting."""
    known = list(inspect.signature(cls).parameters)[1:]
    for name in settings:
        if name not in known:
            training = {f.name for f in fields(TrainSettings)}
            where = "; it is an option of fit()" if name in training else meant(name, known)
            raise ValueError(f"{name!r} is no setting of {cls.__name__}: {known}{where}")
        if name in FOUND_OUT and cls in MODELS.values():
            raise ValueError(f"{name!r} is found out from the data by fit(); leave it out")


def graph_of(
    data: pd.DataFrame | TemporalRecGraph,
    *,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    **columns: str | None,
) -> TemporalRecGraph:
    """The store of a table of events, or the store itself.

    Tables of users and items may call their columns as is usual, and lack what they do not know
    (:func:`tgrec.datasets.clean_users`, :func:`tgrec.datasets.clean_items`). Further columns are
    kept if they can be features; a warning names those that cannot.
    """
    if isinstance(data, TemporalRecGraph):
        given = [k for k, v in {**columns, "users": users, "items": items}.items() if v is not None]
        if given:
            raise ValueError(f"'{given[0]}' is for tables; a graph has its columns already")
        return data
    for argument, table in {"data": data, "users": users, "items": items}.items():
        if table is not None and not isinstance(table, pd.DataFrame):
            other = " or a TemporalRecGraph" if argument == "data" else ""
            raise TypeError(f"'{argument}' needs to be a DataFrame{other} (got "
                            f"{type(table).__name__})")  # fmt: skip
    data = index_as_columns(data)
    found = recognise_columns(data, **columns)
    if users is not None:
        users = features_only(clean_users(users, found.user), "user", found.user)
    if items is not None:
        items = features_only(clean_items(items, found.item), "item", found.item)
    return graph_of_tables(data, users=users, items=items, **columns)


def split_of(graph: TemporalRecGraph, split: str, relation: str | None = None) -> Split:
    """What is fitted on, and what is held out to choose and to measure.

    Args:
        graph: All events.
        split: How.
        relation: The only kind of event that the model is asked for, where there are several.
    """
    if split not in get_args(SplitName):
        raise ValueError(f"'split' needs to be one of {list(get_args(SplitName))} (got {split!r})")
    if len(graph.interaction_types) < 2:
        relation = None
    if split == "global_time":
        return global_time_split(graph, relation=relation)
    return leave_one_out(graph) if relation is None else leave_one_out_in(graph, relation)


def settings_for(
    graph: TemporalRecGraph, sampling: Sampling, given: Mapping[str, Any]
) -> TrainSettings:
    """Settings that suit data of any size; what is given wins.

    Batches are small enough for :data:`STEPS_PER_EPOCH` steps in an epoch, epochs at most as many
    as make :data:`STEPS` steps, and training stops after a tenth of them without a better
    validation value. Windows wander over histories that are longer than the model reads.

    Raises:
        ValueError: If there is no such setting.
    """
    known = [f.name for f in fields(TrainSettings)]
    for name in given:
        if name not in known:
            size = name in ("max_len", "d_model", "hidden_channels", "dropout")
            where = "; give it to Recommender(...)" if size else meant(name, known)
            raise ValueError(f"fit: {name!r} is no training option: {known}{where}")
    TrainSettings(**given)  # raises for values that nothing can be made of
    users = torch.cat([graph[t].edge_index[0] for t in graph.interaction_types])
    lengths = torch.bincount(users, minlength=graph.num_users)
    asked, windows = lengths > 1, "last"
    if sampling.relation is not None:
        mine = graph[graph.interaction_types[sampling.relation]].edge_index[0]
        asked = asked & (torch.bincount(mine, minlength=graph.num_users) > 0)
    seeds = int(asked.sum())
    if sampling.max_len is None:
        per_user = sampling.seeds_per_user
        seeds = int((lengths if per_user is None else lengths.clamp(max=per_user)).sum())
    elif int(lengths.max()) > sampling.max_len:
        windows = "random"
    batch_size = 2 ** min(8, max(4, (seeds // STEPS_PER_EPOCH).bit_length() - 1))
    batch_size = given.get("batch_size", batch_size)
    steps = max(1, seeds // max(1, batch_size))
    epochs = given.get("epochs", min(MOST_EPOCHS, max(5, STEPS // steps)))
    defaults = {
        "batch_size": batch_size,
        "epochs": epochs,
        "patience": max(3, epochs // 10),
        "windows": windows,
    }
    return TrainSettings(**{**defaults, **given})


def build_or_say_why(
    cls: type[RecModel], graph: TemporalRecGraph, settings: Mapping[str, Any]
) -> RecModel:
    """A new model; running out of memory says which settings make it smaller."""
    known = [name for name in ("d_model", "hidden_channels", "max_len") if name in
             inspect.signature(cls).parameters]  # fmt: skip
    smaller = f"smaller sizes in Recommender(): {', '.join(known) or 'see its settings'}"
    with naming_remedies(f"building {cls.__name__}", "cpu", [smaller]):
        return cls.from_graph(graph, **settings)


def train_or_say_why(
    model: RecModel, split: Split, settings: TrainSettings, **options: Any
) -> FitResult:
    """Trains; running out of memory says what makes a step smaller.

    Args:
        model: As :func:`tgrec.training.fit` takes it.
        split: The same.
        settings: The same.
        **options: The same: ``show``, ``folder``, ``resume``, ``tracker``, ``teacher``.

    Raises:
        MemoryError: If memory does not suffice.
    """
    at_once = f"events_at_once={settings.events_at_once or 16384}"
    remedies = [f"a smaller batch_size (now {settings.batch_size}) in fit()",
                f"parts of batches in fit() ({at_once}, or less)"]  # fmt: skip
    if "max_len" in model.config:
        now = model.config["max_len"]
        remedies.append(f"a smaller max_len (now {now}) in Recommender()")
    for name, value in model.config.items():
        if "checkpoint" in name and not value:
            remedies.append(f"gradient checkpointing, {name}=True in Recommender()")
    with naming_remedies(f"training {type(model).__name__}", settings.device, remedies):
        return train(model, split, settings, **options)


def check_teacher(
    served: Served, split: SplitName, graph: TemporalRecGraph, wanted: SplitName
) -> None:
    """Raises ValueError if a fitted recommender cannot teach, or has seen what is held out here.

    Args:
        served: The teacher's model and log.
        split: What was held out of it.
        graph: The student's log.
        wanted: What is held out of that.
    """
    own, theirs = (
        {kind: Names.of(g, kind).raw for kind in ("item", "user")} for g in (graph, served.graph)
    )
    for kind in ("item", "user"):
        if not np.array_equal(own[kind], theirs[kind]):
            raise ValueError(
                f"'teacher' knows other {kind}s ({len(theirs[kind])}) than these data "
                f"({len(own[kind])}), or in another order; fit it on the same data"
            )
    if checksum(graph) != checksum(served.graph):
        raise ValueError(
            "'teacher' was fitted on other events of these users and items, and may have seen what "
            "is held out here; fit it on the same data"
        )
    if split != wanted:
        raise ValueError(
            f"'teacher' was fitted with split={split!r}, and may have seen what split={wanted!r} "
            f"holds out; fit both with the same"
        )


def meant(name: str, known: Iterable[str]) -> str:
    """What may be meant by a name, as a question."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
