"""A recommender on disk: safetensors and JSON, nothing that could run.

::

    recommender.json           what it is, with the checksums of the other two
    graph.safetensors          the log: users, items, events, titles, features
    model/config.json
    model/model.safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgrec import __version__
from tgrec.data import TemporalRecGraph
from tgrec.data.files import make_folder, near_path, write_text
from tgrec.datasets import load_graph, save_graph
from tgrec.models import RecModel, load_model, save_model
from tgrec.models.io import WEIGHTS
from tgrec.recommend.names import Names

ABOUT, GRAPH, MODEL = "recommender.json", "graph.safetensors", "model"
FORMAT = 1


def save_folder(
    folder: str | os.PathLike[str],
    model: RecModel,
    graph: TemporalRecGraph,
    about: Mapping[str, Any],
) -> None:
    """Writes the folder; ``recommender.json`` comes last, so that no half of it passes for one.

    Raises:
        ValueError: If there is a file in the place of the folder.
        OSError: If it cannot be written.
    """
    folder = make_folder(folder)
    (folder / ABOUT).unlink(missing_ok=True)
    save_graph(graph, folder / GRAPH)
    save_model(model, folder / MODEL, catalogue=catalogue_checksum(graph))
    whole = {
        "format": FORMAT,
        "tgrec": __version__,
        **about,
        "catalogue": catalogue_checksum(graph),
        "sha256": {name: _sha256(folder / name) for name in (GRAPH, f"{MODEL}/{WEIGHTS}")},
    }
    write_text(folder / ABOUT, json.dumps(whole, indent=2) + "\n")


def load_folder(
    folder: str | os.PathLike[str], models: Mapping[str, type[RecModel]]
) -> tuple[RecModel, TemporalRecGraph, dict[str, Any]]:
    """Reads what :func:`save_folder` wrote, as data: no code of the folder is run.

    Raises:
        FileNotFoundError: If there is no recommender.
        ValueError: If it is of another version or class, damaged, or put together from several.
    """
    folder = Path(folder)
    about = read_about(folder)
    for name, stated in about["sha256"].items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; copy the whole folder")
        if _sha256(folder / name) != stated:
            raise ValueError(
                f"{folder / name} is not the file that {ABOUT} was written for; copy the whole "
                f"folder anew, or save the recommender again"
            )
    graph = load_graph(folder / GRAPH)
    catalogue = catalogue_checksum(graph)
    if catalogue != about["catalogue"]:
        raise ValueError(
            f"{folder / GRAPH} has another catalogue than {ABOUT} names; item numbers would mean "
            f"other items"
        )
    model = load_model(folder / MODEL, models, graph.num_items, catalogue)
    named = {**{cls.__name__: cls for cls in models.values()}, **models}.get(about["name"])
    if named is not type(model):
        raise ValueError(
            f"{folder / ABOUT} names the model {about['name']!r}, and {folder / MODEL} holds a "
            f"{type(model).__name__}; copy the whole folder anew, or save the recommender again"
        )
    return model, graph, about


def read_about(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """``recommender.json``, checked."""
    path = Path(folder) / ABOUT
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no recommender in {str(folder)!r}: {ABOUT} is missing; write one with "
            f"Recommender.save{'' if path.parent.exists() else near_path(folder)}"
        )
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, made_by = int(about["format"]), str(about["tgrec"])
        files = dict(about["sha256"])
        if version == FORMAT:
            _check_kinds({"fit": {}, **about})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); save the recommender again") from error
    if version != FORMAT:
        raise ValueError(
            f"{path} has format {version}, written by tgrec {made_by}; this is tgrec "
            f"{__version__}, which reads format {FORMAT}: install that version, or fit and save "
            f"again"
        )
    if set(files) != {GRAPH, f"{MODEL}/{WEIGHTS}"}:  # no other path is ever opened
        raise ValueError(f"{path} is damaged (files {sorted(files)}); save the recommender again")
    return about


def _check_kinds(about: Mapping[str, Any]) -> None:
    """Raises KeyError or TypeError unless everything is there and of its kind."""
    texts, objects = ("catalogue", "name", "split", "track"), ("fit", "settings")
    for key in (*texts, *objects):
        kind = str if key in texts else dict
        if not isinstance(about[key], kind):
            raise TypeError(f"{key!r} is {about[key]!r}")


def catalogue_checksum(graph: TemporalRecGraph) -> str:
    """sha256 of the raw ids of all items, in order: what item numbers mean."""
    ids = [x if isinstance(x, str) else int(x) for x in Names.of(graph, "item").raw]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
