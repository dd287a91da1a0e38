"""Tables of user vectors: made of the past alone, written and read back row by row."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tgrec.data import RecBatch, Sampling, Split, leave_one_out_in
from tgrec.datasets import simulate_domains
from tgrec.testing import scramble_future
from tgrec.training import read_user_vectors, user_table, with_user_vectors, write_user_vectors


@dataclass
class Sums:
    """Vectors that show what was read: how many events, and the sum of their items."""

    sampling: Sampling = Sampling(max_len=30)

    @property
    def vector_names(self) -> list[str]:
        return ["count", "items"]

    def represent(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        assert batch.history is not None
        mask = batch.history.mask
        count, items = mask.sum(1), (batch.history.item * mask).sum(1)
        vectors = torch.stack([count, items], dim=1).float().unsqueeze(2).expand(-1, -1, 3)
        return vectors, torch.stack([count > 0, items % 2 == 0], dim=1)


class OnlyArrays(pickle.Unpickler):
    """Reads the names that an array of numpy consists of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),  # of the bytes of the array
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy.core.numeric", "_frombuffer"),
        }
        assert (module, name) in allowed, (module, name)
        return super().find_class(module, name)


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out_in(simulate_domains(num_users=40, num_items=30)[0], "food")


def test_rows_are_users_and_hold_training_events_only(split: Split) -> None:
    table = user_table(Sums(), split, batch_size=7)
    events = split.train.to_pandas().groupby("user_id").item_id
    count, items = events.count(), events.sum()
    assert table.values[:, 0, 0].tolist() == count.tolist()
    even = (items % 2 == 0).to_numpy()
    assert table.known[:, 1].tolist() == even.tolist()
    assert table.values[:, 1, 0].tolist() == (items * even).tolist()  # 0 where not known
    for edge_type in split.graph.interaction_types:  # nothing at or past a validation target
        assert split.train[edge_type].event_id.numel() < split.graph[edge_type].event_id.numel()


def test_the_future_changes_nothing(split: Split) -> None:
    cut = int(split.test.cut.min())
    graph = scramble_future(split.graph, cut)
    other = replace(split, graph=graph)
    tables = [user_table(Sums(), s) for s in (split, other)]
    assert torch.equal(tables[0].values, tables[1].values)


def test_files_are_read_back_by_user(split: Split, tmp_path: Path) -> None:
    table = user_table(Sums(), split)
    raw = split.graph.raw_ids("user")
    paths = write_user_vectors(table, tmp_path, {"items": "spe_emb_ep3_A"}, raw, epoch=3)
    assert sorted(p.name for p in paths) == sorted(p.name for p in tmp_path.iterdir())
    assert json.loads(paths[-1].read_text())["epoch"] == 3
    expected = table.values[:, 1]
    assert torch.equal(read_user_vectors(tmp_path / "spe_emb_ep3_A.npy", raw), expected)
    assert torch.equal(load_file(tmp_path / "spe_emb_ep3_A.safetensors")["embedding"], expected)
    # What programs that unpickle get is the same array.
    with (tmp_path / "spe_emb_ep3_A.pkl").open("rb") as file:
        array = OnlyArrays(file).load()
    assert array.tolist() == expected.tolist()
    # The same users in another order get their own rows.
    turned = raw.flip(0)
    assert torch.equal(read_user_vectors(tmp_path / "spe_emb_ep3_A.npy", turned), expected.flip(0))


def test_files_that_are_not_these_users(split: Split, tmp_path: Path) -> None:
    table, raw = user_table(Sums(), split), split.graph.raw_ids("user")
    write_user_vectors(table, tmp_path, {"items": "a"}, raw)
    with pytest.raises(ValueError, match="which are not the 41 users"):
        read_user_vectors(tmp_path / "a.npy", [*raw.tolist(), 99])
    with pytest.raises(ValueError, match=r"only \.npy files are read"):
        read_user_vectors(tmp_path / "a.pkl", raw)
    with pytest.raises(FileNotFoundError, match="export the vectors"):
        read_user_vectors(tmp_path / "b.npy", raw)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.pkl").read_bytes())
    with pytest.raises(ValueError, match="is no array of numbers"):
        read_user_vectors(tmp_path / "b.npy", raw)
    np.save(tmp_path / "c.npy", np.full((40, 2), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="needs finite numbers"):
        read_user_vectors(tmp_path / "c.npy", raw)
    with pytest.raises(ValueError, match="'files' needs names of"):
        write_user_vectors(table, tmp_path, {"graph": "g"}, raw)


def test_vectors_of_another_board_are_refused(split: Split, tmp_path: Path) -> None:
    table, raw = user_table(Sums(), split), split.graph.raw_ids("user")
    path = tmp_path / "a.npy"
    write_user_vectors(table, tmp_path, {"items": "a"}, raw, board="food", checksum="1f")
    expected = table.values[:, 1]
    for about in ({}, {"board": "food"}, {"checksum": "1f", "board": "food"}, {"epoch": 3}):
        assert torch.equal(read_user_vectors(path, raw, **about), expected)
    with pytest.raises(
        ValueError, match=r"a\.npy was exported with board 'food', and 'kitchen' is"
    ):
        read_user_vectors(path, raw, board="kitchen", checksum="1f")
    with pytest.raises(ValueError, match="export the vectors for checksum '2e'"):
        read_user_vectors(path, raw, board="food", checksum="2e")
    (tmp_path / "users.json").unlink()  # nothing can be checked
    assert torch.equal(read_user_vectors(path, raw, board="kitchen"), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "users.json needs 'users', a list of the user of each row (got None)"),
        ('{"users": 5}', "needs 'users', a list of the user of each row (got 5)"),
        ('{"users": [[1]]}', "(got [[1]])"),
        ("[1, 2]", "needs 'users'"),
        ("{", "users.json is no JSON"),
        ('{"users": [1, 2]}', "which are not the 40 users"),
    ],
)
def test_damaged_lists_of_users(text: str, message: str, split: Split, tmp_path: Path) -> None:
    table, raw = user_table(Sums(), split), split.graph.raw_ids("user")
    write_user_vectors(table, tmp_path, {"items": "a"}, raw)
    (tmp_path / "users.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_user_vectors(tmp_path / "a.npy", raw)


def test_vectors_become_features_of_the_users(split: Split) -> None:
    table = user_table(Sums(), split)
    graph = with_user_vectors(split.train, table)
    assert torch.equal(graph["user"]["count"], table.values[:, 0])
    assert "count" not in split.train["user"]
    graph.validate()


def test_what_was_exported_before_stays_named(split: Split, tmp_path: Path) -> None:
    table = user_table(Sums(), split)
    ids = split.graph.raw_ids("user")
    write_user_vectors(table, tmp_path, {"count": "a"}, ids, epoch=1)
    write_user_vectors(table, tmp_path, {"items": "b"}, ids, epoch=2)
    said = json.loads((tmp_path / "users.json").read_text())
    assert (said["files"], said["epoch"]) == ({"a": "count", "b": "items"}, 2)
    (tmp_path / "a.npy").unlink()
    write_user_vectors(table, tmp_path, {"items": "b"}, ids)
    assert json.loads((tmp_path / "users.json").read_text())["files"] == {"b": "items"}
    (tmp_path / "users.json").write_text("{")  # a damaged one is written anew
    write_user_vectors(table, tmp_path, {"count": "a"}, ids)
    assert json.loads((tmp_path / "users.json").read_text())["files"] == {"a": "count"}


def test_numbers_of_other_kinds_and_users_given_twice_are_refused(
    split: Split, tmp_path: Path
) -> None:
    ids = split.graph.raw_ids("user")
    np.save(tmp_path / "x.npy", np.ones((len(ids), 2), dtype=np.complex64))
    with pytest.raises(ValueError, match="no array of numbers .of complex64"):
        read_user_vectors(tmp_path / "x.npy", ids)
    np.save(tmp_path / "x.npy", np.ones((len(ids) + 1, 2), dtype=np.float32))
    assert isinstance(ids, Tensor)
    twice = [*ids.tolist(), int(ids[0])]
    (tmp_path / "users.json").write_text(json.dumps({"users": twice}))
    with pytest.raises(ValueError, match="which are not the"):
        read_user_vectors(tmp_path / "x.npy", ids)
