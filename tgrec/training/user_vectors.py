"""Vectors of users as a table: computed before a cut, written to files, put into the graph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tgrec.data import RecBatch, Sampling, Split, Targets, TemporalRecGraph
from tgrec.data.files import atomic_path, write_text
from tgrec.loader import SeedLoader
from tgrec.models.io import write_tensors
from tgrec.sampler import EventIndex

SIDECAR = "users.json"


class UserModel(Protocol):
    """A model that makes several vectors of a user."""

    sampling: Sampling

    @property
    def vector_names(self) -> list[str]:
        """The K names."""
        ...

    def represent(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """``[B, K, D]`` vectors and ``[B, K]`` bool whether they are known."""
        ...


@dataclass(frozen=True)
class UserTable:
    """Vectors of all users, row by row as the graph numbers them.

    Args:
        names: Of the K vectors.
        values: ``[U, K, D]`` float32, 0 where not known.
        known: ``[U, K]`` bool.
    """

    names: list[str]
    values: Tensor
    known: Tensor


@torch.no_grad()
def user_table(model: UserModel, split: Split, batch_size: int = 512) -> UserTable:
    """The vectors of all users from their training events and nothing else.

    Args:
        model: In evaluation mode afterwards, on the CPU.
        split: Of :func:`tgrec.data.leave_one_out_in`, whose training events of a user all stand
            before the user's validation target.
        batch_size: Users at a time.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    index = EventIndex(split.train)
    loader, size = SeedLoader(index, model.sampling), split.train.num_users
    user = torch.arange(size)
    seeds = Targets(user, torch.full_like(user, index.end), torch.zeros_like(user), user * 0)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows, batch in loader.eval_batches(seeds, batch_size):
        parts.append((rows, *model.represent(batch)))
    order = torch.argsort(torch.cat([rows for rows, _, _ in parts]))
    values = torch.cat([v.float() for _, v, _ in parts])[order]
    known = torch.cat([k for _, _, k in parts])[order]
    return UserTable(list(model.vector_names), values * known.unsqueeze(2), known)


def with_user_vectors(graph: TemporalRecGraph, table: UserTable) -> TemporalRecGraph:
    """A copy of the graph (tensors shared) whose users carry the vectors as features, by name."""
    out = graph._with_events({t: slice(None) for t in graph.interaction_types})
    for place, name in enumerate(table.names):
        out["user"][name] = table.values[:, place].contiguous()
    return out


def write_user_vectors(
    table: UserTable, folder: Path, files: dict[str, str], raw_ids: Tensor | list[str], **about: Any
) -> list[Path]:
    """Writes vectors as ``.npy``, ``.safetensors`` and ``.pkl``, and whose rows they are.

    The pickles hold an array, for programs that expect one; nothing here ever reads them.

    Args:
        table: What to write.
        folder: Made if missing.
        files: Name of a vector -> name of its files, without ending.
        raw_ids: Of the users, by row; they go into ``users.json`` beside the files.
        about: Further JSON values for that file.

    Returns:
        The paths, ``users.json`` last.
    """
    unknown = sorted(files.keys() - set(table.names))
    if unknown:
        raise ValueError(f"'files' needs names of {table.names} (got {unknown[0]!r})")
    paths = []
    for name, stem in files.items():
        values = table.values[:, table.names.index(name)].contiguous()
        array = values.numpy()
        with atomic_path(folder / f"{stem}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        with atomic_path(folder / f"{stem}.pkl") as temporary, temporary.open("wb") as file:
            array.dump(file)
        write_tensors(folder / f"{stem}.safetensors", {"embedding": values}, {"vector": name})
        paths += [folder / f"{stem}.{end}" for end in ("npy", "pkl", "safetensors")]
    ids = raw_ids.tolist() if isinstance(raw_ids, Tensor) else raw_ids
    try:
        said = _sidecar(folder / SIDECAR)
    except ValueError:  # damaged: it is written anew
        said = {}
    before = said.get("files") if said.get("users") == ids else None
    kept = {stem: name for stem, name in (before or {}).items() if _exported(folder, stem)}
    named = {**kept, **{stem: name for name, stem in files.items()}}
    rows = {"users": ids, "files": named, **about}
    write_text(folder / SIDECAR, json.dumps(rows) + "\n")
    return [*paths, folder / SIDECAR]


def read_user_vectors(path: Path, raw_ids: Tensor | list[str], **about: Any) -> Tensor:
    """``[U, D]`` float32: vectors of a ``.npy`` file, in the order of ``raw_ids``.

    Rows are matched by the ``users.json`` beside the file; without one they have to be as many as
    there are users, and are taken in order.

    Args:
        path: The file.
        raw_ids: Of the users, by row.
        about: What ``users.json`` has to say of these, if it says anything: the same users have
            other training events on another board, and vectors made of them may hold its targets.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no ``.npy`` file of finite numbers, its users are not these, or
            ``users.json`` is damaged or says something else.
    """
    if path.suffix != ".npy":
        raise ValueError(
            f"{path}: only .npy files are read, a pickle may run anything; use the .npy file that "
            f"was written beside it"
        )
    try:
        array = np.load(path, allow_pickle=False)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"of {array.dtype}")
        values = torch.from_numpy(array).float()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(path)!r}; export the vectors") from None
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no array of numbers ({error})") from error
    ids = raw_ids.tolist() if isinstance(raw_ids, Tensor) else raw_ids
    if values.dim() != 2 or not bool(values.isfinite().all()):
        raise ValueError(f"{path} needs finite numbers of shape [users, D]")
    said = _sidecar(path.parent / SIDECAR)
    for name, value in about.items():
        if said.get(name, value) != value:
            raise ValueError(
                f"{path} was exported with {name} {said[name]!r}, and {value!r} is asked for: it "
                f"may hold what is asked there; export the vectors for {name} {value!r}"
            )
    rows = said.get("users", ids)
    place = {user: row for row, user in enumerate(rows)}
    if len(place) != len(rows) or len(rows) != values.size(0) or place.keys() != set(ids):
        raise ValueError(
            f"{path} has {values.size(0)} rows of {len(place)} users, which are not the "
            f"{len(ids)} users of the data; export the vectors for these data"
        )
    return values[torch.tensor([place[user] for user in ids], dtype=torch.int64)]


def _exported(folder: Path, stem: str) -> bool:
    """Whether the file of an earlier export is still there."""
    return (folder / f"{stem}.npy").is_file()


def _sidecar(path: Path) -> dict[str, Any]:
    """What ``users.json`` says; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); export the vectors again") from error
    users = said.get("users") if isinstance(said, dict) else None
    if not isinstance(users, list) or not all(isinstance(user, int | str) for user in users):
        raise ValueError(
            f"{path} needs 'users', a list of the user of each row (got {_short(users)}); export "
            f"the vectors again"
        )
    return dict(said)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
