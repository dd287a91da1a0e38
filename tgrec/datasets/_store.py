"""Graphs on disk as safetensors: no pickle, written whole or not at all, checked when read.

PyG keeps processed datasets with ``torch.save`` and falls back to unsafe unpickling when it reads
them. Here a file holds tensors and one JSON string, and a digest over both, so that neither a
truncated nor an altered file is ever taken for data.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch_geometric.data import InMemoryDataset

from tgrec.data import TemporalRecGraph
from tgrec.datasets._fetch import atomic_file

log = logging.getLogger("tgrec")

FORMAT = 1
_KEY = "tgrec"  # a single metadata entry: safetensors does not keep the order of several
_PLAIN = (int, float, str, bool, type(None))


def save_graph(graph: TemporalRecGraph, path: str | os.PathLike[str]) -> None:
    """Writes a graph to ``path``, atomically; equal graphs give equal bytes.

    Raises:
        TypeError: If an attribute is neither a tensor nor a plain JSON value.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for prefix, store in _stores(graph):
        for name, value in store.items():
            if isinstance(value, Tensor):
                # A copy: slices of a graph share memory, which safetensors refuses.
                tensors[f"{prefix}/{name}"] = value.detach().cpu().clone().contiguous()
            elif isinstance(value, _PLAIN):
                plain[f"{prefix}/{name}"] = value
            else:
                raise TypeError(
                    f"attribute {name!r} of {store._key!r} is a {type(value).__name__}; only "
                    f"tensors, numbers and strings can be saved"
                )
    meta: dict[str, Any] = {
        "format": FORMAT,
        "nodes": list(graph.node_types),
        "edges": [list(t) for t in graph.edge_types],
        "plain": plain,
        "names": [f"{prefix}/{name}" for prefix, store in _stores(graph) for name in store.keys()],
    }
    meta["sha256"] = _digest(meta, tensors)
    content = safetensors.torch.save(tensors, {_KEY: json.dumps(meta, sort_keys=True)})
    with atomic_file(Path(path)) as file:
        file.write(content)


def load_graph(path: str | os.PathLike[str]) -> TemporalRecGraph:
    """Reads what :func:`save_graph` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, altered or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no graph file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        expected = meta.pop("sha256")
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']}, {FORMAT} expected")
        if _digest(meta, tensors) != expected:
            raise ValueError("its content does not match its checksum")
        return _rebuild(meta, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path}: is no graph that this version can read ({error}); delete it and make it anew"
        ) from error


def cached(
    key: Sequence[object], places: Sequence[Path], build: Callable[[], TemporalRecGraph]
) -> TemporalRecGraph:
    """The graph that ``build`` makes, from the first cache folder that has it.

    Any number of processes may do this at once: each writes a file of its own and renames it. A
    damaged file is built anew. Where no folder is writable nothing is cached.

    Args:
        key: Everything that decides the graph: name, options, checksums of sources, code version.
        places: Cache folders, the preferred one first.
        build: Makes the graph.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, *key]).encode()).hexdigest()
    paths = [place / f"{key[0]}-{digest[:20]}.safetensors" for place in places]
    for path in paths:
        try:
            return load_graph(path)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            log.warning("cached graph is not usable, it is built anew: %s", error)
    graph = build()
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_graph(graph, path)
            break
        except OSError as error:
            log.info("%s: no graph cached here (%s)", path.parent, error)
    return graph


class OneGraph(InMemoryDataset):
    """A PyG dataset of one graph, which never touches PyG's own (unsafe) files.

    Args:
        graph: The graph that ``dataset[0]`` gives.
        root: Its data folder, for information.
        transform: A PyG transform, applied at every access.
    """

    def __init__(
        self,
        graph: TemporalRecGraph,
        root: str | os.PathLike[str] | None = None,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(None if root is None else str(root), transform)
        self._data = graph

    @classmethod
    def save(cls, data_list: Any, path: str) -> None:
        """Writes the graph as safetensors; see :func:`tgrec.datasets.save_graph`."""
        if len(data_list) != 1:
            raise ValueError(f"'data_list' needs to hold one graph (got {len(data_list)})")
        save_graph(data_list[0], path)

    def load(self, path: str, data_cls: Any = TemporalRecGraph) -> None:
        """Reads a graph from safetensors; see :func:`tgrec.datasets.load_graph`."""
        self._data = load_graph(path)


def _stores(graph: TemporalRecGraph) -> Iterator[tuple[str, Any]]:
    yield "g", graph._global_store
    for number, node_type in enumerate(graph.node_types):
        yield f"n{number}", graph[node_type]
    for number, edge_type in enumerate(graph.edge_types):
        yield f"e{number}", graph[edge_type]


def _rebuild(meta: dict[str, Any], tensors: dict[str, Tensor]) -> TemporalRecGraph:
    graph = TemporalRecGraph()
    stores: dict[str, Any] = {"g": graph}
    stores |= {f"n{i}": graph[name] for i, name in enumerate(meta["nodes"])}
    stores |= {f"e{i}": graph[tuple(names)] for i, names in enumerate(meta["edges"])}
    for key in meta["names"]:
        prefix, _, name = key.partition("/")
        stores[prefix][name] = tensors[key] if key in tensors else meta["plain"][key]
    return graph


def _digest(meta: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        payload: Any = tensor.flatten().view(torch.uint8).numpy()  # typeshed knows no buffers
        digest.update(payload)
    return digest.hexdigest()
