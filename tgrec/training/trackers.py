"""Where the history of a run goes beside its file: TensorBoard, Weights & Biases, MLflow.

A tracker is any callable that takes the entry of an epoch, as it stands in ``history.jsonl``::

    fit(model, split, tracker=tensorboard("logs/first"))
    fit(model, split, tracker=print)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tracker = Callable[[Mapping[str, Any]], None]


def tensorboard(folder: str | os.PathLike[str]) -> Tracker:
    """Writes TensorBoard's event files into ``folder``.

    Raises:
        ImportError: If the package is not installed; says how to install it.
    """
    _optional("tensorboard")
    writer = _optional("torch.utils.tensorboard").SummaryWriter(str(folder))

    def track(entry: Mapping[str, Any]) -> None:
        for name, value in scalars(entry).items():
            writer.add_scalar(name, value, entry["epoch"])
        writer.flush()

    return track


def wandb(project: str, **settings: Any) -> Tracker:
    """Logs to Weights & Biases; ``settings`` go to ``wandb.init`` (``mode="offline"`` and so on).

    A run that was begun before in this process is finished: it would take the epochs of both.

    Raises:
        ImportError: As in :func:`tensorboard`.
    """
    run = _optional("wandb").init(project=project, **{"reinit": True, **settings})
    return lambda entry: run.log(scalars(entry), step=entry["epoch"])


def mlflow(experiment: str, **settings: Any) -> Tracker:
    """Logs to MLflow; ``settings`` go to ``mlflow.start_run``.

    A run that was begun before in this process is ended first.

    Raises:
        ImportError: As in :func:`tensorboard`.
    """
    package = _optional("mlflow")
    package.set_experiment(experiment)
    package.end_run()
    package.start_run(**settings)

    def track(entry: Mapping[str, Any]) -> None:
        # MLflow takes no @ in names.
        values = {name.replace("@", "_at_"): value for name, value in scalars(entry).items()}
        package.log_metrics(values, step=entry["epoch"])

    return track


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an entry but its epoch, by name: ``val/NDCG@10`` for one inside another."""
    return {name: float(value) for name, value in _flat(entry) if name != "epoch"}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield from _flat(dict(enumerate(value)), name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise ImportError(
            f"this tracker needs the package {name!r}: python -m pip install {name}"
        ) from error
