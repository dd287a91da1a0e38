"""Models on disk: weights as safetensors, everything else as JSON. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from tgrec import __version__
from tgrec.data import TemporalRecGraph
from tgrec.data.files import atomic_path, write_text
from tgrec.models.base import RecModel

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Name of the checksum in the header of a file, and how its value begins.
CHECKSUM, SHA256 = "checksum", "sha256:"


# Settings that `from_graph` finds out from the data.
FOUND_OUT = frozenset({"num_items", "num_users", "num_edges", "num_genres", "bins",
                       "relations", "num_features", "num_user_features"})  # fmt: skip
# Buffers into which `from_graph` copies what the graph says of its nodes. They alone are compared:
# what is counted or averaged may differ in its last bits from one machine to the next.
NODE_VALUES = frozenset({
    "features.values", "inputs.item_genre", "inputs.item_year", "inputs.user_values",
    "item_features", "user_features", "item_domain", "user_vectors",
})  # fmt: skip


def save_model(
    model: RecModel, folder: str | os.PathLike[str], *, learned_only: bool = False, **about: Any
) -> None:
    """Writes ``config.json`` and ``model.safetensors`` into ``folder``, each atomically.

    Args:
        model: Any recommender.
        folder: Made if missing.
        learned_only: Leave out what was counted from the training events and what their graph says
            of its nodes (buffers), often many times as large as what was learned;
            :func:`load_model` then needs this graph, and knows it by digests.
        about: Further JSON values to keep, for example the catalogue's checksum.
    """
    folder = Path(folder)
    whole = model.state_dict()
    values = dict(model.named_parameters()) if learned_only else whole
    tensors = {k: v.detach().cpu().contiguous() for k, v in values.items()}
    config = {"class": type(model).__name__, "config": model.config, "tgrec": __version__, **about}
    if len(values) < len(whole):
        config["learned_only"] = True
        config["node_values"] = node_digests(model)
    write_tensors(folder / WEIGHTS, tensors)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file atomically, ``about`` and a checksum of all in its header.

    Raises:
        OSError: If it cannot be written; the message names ``path``.
    """
    about = about or {}
    header = {**about, CHECKSUM: _checksum(tensors, about)}
    # Not save_file: it writes into a file of its own, which a kill would leave behind for good.
    content = safetensors.torch.save(tensors, header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and ``about`` of a file of :func:`write_tensors`, checked.

    Files of versions that wrote no checksum are taken as they are.

    Raises:
        ValueError: If the file is damaged or cannot be read; says how, not which file it is.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error
    # Its value tells a checksum from an old file's lack of one, should its name be damaged.
    if CHECKSUM in about or any(value.startswith(SHA256) for value in about.values()):
        stated = about.pop(CHECKSUM, None)
        if stated != _checksum(tensors, about):
            raise ValueError("its content does not match its checksum")
    return tensors, about


def _checksum(tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> str:
    """Over names, types, shapes and bytes of the tensors, and over ``about``."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        content: Any = tensor.flatten().view(torch.uint8).numpy()  # typeshed knows no buffers
        digest.update(content)
    return SHA256 + digest.hexdigest()


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`save_model` wrote beside the weights."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no model in {str(folder)!r}: {CONFIG} is missing; a run folder keeps its "
            f"model in the sub-folder 'model'"
        )
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config["class"], config["config"]["num_items"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a model's configuration ({error!r}); save the model again"
        ) from error
    return config


def load_model(
    folder: str | os.PathLike[str],
    models: Mapping[str, type[RecModel]],
    num_items: int | None = None,
    catalogue: str | None = None,
    train: TemporalRecGraph | None = None,
) -> RecModel:
    """Rebuilds a saved model.

    Args:
        folder: Written by :func:`save_model`.
        models: Classes it may be of; found by class name.
        num_items: If given, the catalogue that the model is wanted for.
        catalogue: If given, the checksum of that catalogue; compared with the saved one.
        train: The training events, of which a model that was saved with ``learned_only`` counts
            what it has counted, and reads what it has read of users and items; others need none.

    Raises:
        FileNotFoundError: If there is no model.
        ValueError: If the files are damaged, or the model is of another class or catalogue, or
            ``train`` is not what it was trained on.
    """
    folder, saved = Path(folder), read_config(folder)
    classes = {cls.__name__: cls for cls in models.values()}
    if saved["class"] not in classes:
        raise ValueError(
            f"{folder}: holds a {saved['class']!r}, not one of {sorted(classes)}; for a model of "
            f"your own pass --model FILE.py:CLASS"
        )
    wanted = num_items if num_items is not None else saved["config"]["num_items"]
    if saved["config"]["num_items"] != wanted:
        raise ValueError(
            f"{folder}: the model is for {saved['config']['num_items']} items, the data have "
            f"{wanted}; its weights belong to another catalogue"
        )
    if catalogue is not None and saved.get("catalogue") not in (None, catalogue):
        raise ValueError(
            f"{folder}: the model was trained on the catalogue {saved['catalogue']}, the data are "
            f"{catalogue}; item numbers would mean other items"
        )
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder}: {WEIGHTS} is missing; copy the whole folder")
    learned_only = bool(saved.get("learned_only"))
    try:
        model = _make(classes[saved["class"]], saved["config"], train if learned_only else None)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder / CONFIG}: {saved['class']} cannot be made from it ({error}); was it saved "
            f"by another version of the class?"
        ) from error
    # As JSON, which knows no tuples. Options that came later have their defaults.
    made = json.loads(json.dumps(model.config))
    unlike = sorted(k for k, v in saved["config"].items() if made.get(k) != v)
    if learned_only and (train is None or unlike):
        others = f"those given give other counts or features ({', '.join(unlike)} differ)"
        why = "none were given" if train is None else others
        raise ValueError(
            f"{folder} holds what was learned only, and needs the training events for what was "
            f"counted or read: {why}; pass train=split.train of the board it was trained on"
        )
    if learned_only:
        _check_nodes(model, saved, folder)
    try:
        tensors = read_tensors(folder / WEIGHTS)[0]
        load_parameters(model, tensors) if learned_only else model.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split("\n\t")[:2])  # torch lists every tensor
        raise ValueError(
            f"{folder / WEIGHTS} does not hold the weights that {CONFIG} describes ({reason}); "
            f"copy both files anew from where they were saved, or train again if another version "
            f"of tgrec saved them"
        ) from error
    return model.eval()


def not_found_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that ``from_graph`` is given."""
    return {name: value for name, value in config.items() if name not in FOUND_OUT}


def _make(cls: type[RecModel], config: dict[str, Any], train: TemporalRecGraph | None) -> RecModel:
    """The model of a configuration, without weights; counts are made where there are events."""
    if train is None:
        return cls(**config)
    return cls.from_graph(train, **not_found_out(config))


def node_digests(model: torch.nn.Module) -> dict[str, str]:
    """Buffer -> digest, for those of :data:`NODE_VALUES` that a model has, if not empty."""
    held = {name: value for name, value in model.named_buffers() if name in NODE_VALUES}
    return {name: parameters_digest({name: v}) for name, v in held.items() if v.numel()}


def _check_nodes(model: RecModel, saved: Mapping[str, Any], folder: Path) -> None:
    """Raises ValueError if the graph says something else of its nodes than when it was saved.

    Versions that wrote no digests are believed.
    """
    was, now = saved.get("node_values", {}), node_digests(model)
    if differing := sorted(name for name in was.keys() & now.keys() if was[name] != now[name]):
        raise ValueError(
            f"{folder} holds what was learned only, from other features of users or items than "
            f"those in 'train' (other values in {', '.join(differing)}); make 'train' with the "
            f"tables of users and items that it was trained with, or train again"
        )


def parameters_copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The learned values, copied to the CPU."""
    return {k: v.detach().cpu().clone() for k, v in model.named_parameters()}


def parameters_digest(parameters: Mapping[str, torch.Tensor]) -> str:
    """Twelve characters that tell these values from all others."""
    values = {k: v.detach().cpu().contiguous() for k, v in parameters.items()}
    return _checksum(values, {}).removeprefix(SHA256)[:12]


def load_parameters(model: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Puts back what :func:`parameters_copy` took."""
    own = dict(model.named_parameters())
    if own.keys() != values.keys():
        raise ValueError(f"parameters differ: {sorted(own.keys() ^ values.keys())}")
    for name, value in values.items():
        if own[name].shape != value.shape:
            shapes = f"{list(value.shape)}, not {list(own[name].shape)}"
            raise ValueError(f"parameter {name} has the shape {shapes}")
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
