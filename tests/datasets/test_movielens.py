"""The two MovieLens releases: nodes, order of events, variants, dataset classes and cache."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch_geometric.data import InMemoryDataset

from tgrec.data import TemporalRecGraph
from tgrec.datasets import (
    DataFileError,
    DatasetNotFound,
    MovieLens1M,
    MovieLens100K,
    describe,
    movielens_1m,
    movielens_100k,
    save_graph,
)
from tgrec.datasets import movielens as module

Writer = Callable[..., Path]


def read(root: Path, **kwargs: object) -> TemporalRecGraph:
    """The miniature as it is: it has not the published checksum."""
    options: dict = {"download": False, "verify": False, "cache": False} | kwargs
    return movielens_1m(root, **options)


# ---- what is read ---------------------------------------------------------------------------


def test_nodes_keep_file_order_and_their_attributes(tiny_1m: Writer) -> None:
    graph = read(tiny_1m())
    assert graph.raw_ids("user").tolist() == [1, 2, 3]
    assert graph.raw_ids("item").tolist() == [10, 20, 30, 7]
    assert graph.strings("item", "title") == [
        "Toy Story (1995)",
        "Mis\u00e9rables, Les (1995)",
        "Trial :: Error (1997)",
        "Untitled",
    ]
    assert graph["item"].year.tolist() == [1995, 1995, 1997, 0]
    genres = [[module.GENRES_1M[g] for g in row.nonzero().view(-1)] for row in graph["item"].genre]
    assert genres[0] == ["Animation", "Children's", "Comedy"]
    assert genres[3] == ["Western"]
    assert graph["item"].genre.shape == (4, 18)
    assert graph["user"].gender.tolist() == [0, 1, 1]
    assert [module.AGES_1M[a] for a in graph["user"].age] == [1, 56, 25]
    assert graph["user"].occupation.tolist() == [10, 16, 15]
    assert "zip" not in str(graph["user"])


def test_events_are_in_the_order_time_then_file_row(tiny_1m: Writer) -> None:
    events = read(tiny_1m()).to_pandas()
    # By hand from conftest.py: rows 7, 3, 5, 4, 6, 1, 2; rows 3, 5 and rows 1, 2 tie.
    assert events["user_id"].tolist() == [2, 2, 2, 1, 3, 1, 1]
    assert events["item_id"].tolist() == [30, 20, 10, 20, 30, 30, 10]
    assert events["rating"].tolist() == [4, 3, 5, 1, 4, 5, 4]
    assert events["timestamp"].tolist()[:3] == [978299999, 978300000, 978300000]
    assert events["event_id"].tolist() == list(range(7))


def test_rated_only_leaves_out_the_unrated_item(tiny_1m: Writer) -> None:
    graph = read(tiny_1m(), rated_only=True)
    assert graph.raw_ids("item").tolist() == [10, 20, 30]
    assert graph["item"].genre.shape == (3, 18)
    assert graph["item"].genre[1].sum() == 2
    assert graph.validate()


def test_seed_keeps_users_with_five_liked_items_and_their_items(tiny_1m: Writer) -> None:
    rows = [(1, 10, 4), (1, 20, 5), (1, 30, 4), (1, 10, 5), (1, 20, 4), (1, 7, 3)]
    rows += [(2, 7, 5), (2, 10, 5), (2, 20, 5), (2, 30, 5)]  # only four
    text = "".join(f"{u}::{i}::{r}::{978300000 + k}\n" for k, (u, i, r) in enumerate(rows))
    graph = read(tiny_1m(ratings=text.encode()), variant="seed")
    assert graph.raw_ids("user").tolist() == [1]
    assert graph.raw_ids("item").tolist() == [10, 20, 30]
    assert graph.to_pandas()["rating"].min() == 4
    assert graph.num_events == 5


def test_seed_that_leaves_nothing_says_which_filter_did_it(tiny_1m: Writer) -> None:
    with pytest.raises(DataFileError, match="5 of 7 ratings are >= 4, and no user has 5"):
        read(tiny_1m(), variant="seed")


def test_movielens_100k(tiny_100k: Writer) -> None:
    graph = movielens_100k(tiny_100k(), download=False, verify=False, cache=False)
    assert graph.strings("item", "title") == ["Toy Story (1995)", "unknown"]
    assert graph["item"].year.tolist() == [1995, 0]
    assert graph["item"].genre.shape == (2, 19)
    assert [module.GENRES_100K[g] for g in graph["item"].genre[1].nonzero()] == ["unknown"]
    assert graph["user"].age.tolist() == [24, 53]
    assert [module.OCCUPATIONS_100K[k] for k in graph["user"].occupation] == ["technician", "other"]
    assert graph.to_pandas()["rating"].tolist() == [4, 3, 5]


def test_a_local_zip_reads_like_the_folder(tiny_1m: Writer, tmp_path: Path) -> None:
    root = tiny_1m()
    expected = read(root).to_pandas()
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (root / "ml-1m").iterdir():
            archive.write(path, f"ml-1m/{path.name}")
    assert read(tmp_path).to_pandas().equals(expected)


# ---- the variant "sasrec" -------------------------------------------------------------------


def sasrec(root: Path, rows: bytes, users: bytes | None, items: bytes | None) -> Path:
    folder = root / "ml-1m-sasrec"
    folder.mkdir(parents=True)
    (folder / "ml-1m.txt").write_bytes(rows)
    if users is not None and items is not None:
        (folder / "sas_to_original_users.txt").write_bytes(users)
        (folder / "sas_to_original_items.txt").write_bytes(items)
    return root


# User 1 is MovieLens user 2 and so on; items 1, 2, 3 are 30, 10, 20. The tie of user 1 is turned
# round against ratings.dat: here 10 comes before 20.
ROWS, USER_MAP, ITEM_MAP = b"1 1\n1 2\n1 3\n2 3\n2 1\n2 2\n", b"1 2\n2 1\n", b"1 30\n2 10\n3 20\n"


def test_sasrec_keeps_the_order_of_the_file_and_joins_the_rest(tiny_1m: Writer) -> None:
    graph = read(sasrec(tiny_1m(), ROWS, USER_MAP, ITEM_MAP), variant="sasrec")
    events = graph.to_pandas()
    assert events["user_id"].tolist() == [1, 1, 1, 2, 2, 2]
    assert events["item_id"].tolist() == [1, 2, 3, 3, 1, 2]
    assert events["timestamp"].tolist()[:4] == [978299999, 978300000, 978300000, 978300100]
    assert events["rating"].tolist() == [4, 5, 3, 1, 5, 4]
    assert graph["user"].movielens_id.tolist() == [2, 1]
    assert graph["item"].movielens_id.tolist() == [30, 10, 20]
    assert graph.strings("item", "title")[0] == "Trial :: Error (1997)"
    assert graph["item"].genre[:, module.GENRES_1M.index("Drama")].tolist() == [0, 0, 1]
    assert graph["user"].gender.tolist() == [1, 0]


def test_sasrec_without_maps_or_ratings_is_an_order_and_says_so(
    tiny_1m: Writer, tmp_path: Path
) -> None:
    for root in (sasrec(tiny_1m(), ROWS, None, None), sasrec(tmp_path / "b", ROWS, b"1", b"1")):
        with pytest.warns(UserWarning, match="without times, ratings and titles"):
            graph = read(root, variant="sasrec")
        assert not graph.has_time
        assert graph.to_pandas()["item_id"].tolist() == [1, 2, 3, 3, 1, 2]


def test_sasrec_file_nowhere_says_what_to_fetch(tiny_1m: Writer) -> None:
    with pytest.raises(DatasetNotFound, match=r"fetch data/ml-1m.txt of the repository kang205"):
        read(tiny_1m(), variant="sasrec")


# ---- dataset classes and the cache ----------------------------------------------------------


def test_classes_are_pyg_datasets_of_one_graph(tiny_1m: Writer, tiny_100k: Writer) -> None:
    seen: list[TemporalRecGraph] = []

    def transform(graph: TemporalRecGraph) -> TemporalRecGraph:
        seen.append(graph)
        return graph

    dataset = MovieLens1M(tiny_1m(), download=False, verify=False, transform=transform)
    assert isinstance(dataset, InMemoryDataset)
    assert len(dataset) == 1
    assert isinstance(dataset[0], TemporalRecGraph)
    assert dataset[0].validate()
    assert len(seen) == 2
    other = MovieLens100K(tiny_100k(), download=False, verify=False)
    assert other[0].num_events == 3
    other.load(_saved(dataset[0], Path(other.root)))
    assert other[0].num_events == 7


def _saved(graph: TemporalRecGraph, folder: Path) -> str:
    path = str(folder / "graph.safetensors")
    save_graph(graph, path)
    return path


def cached_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "tgrec" / "processed").glob("*"))


def test_the_second_read_comes_from_the_cache(
    tiny_1m: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_1m()
    first = read(root, cache=True)
    assert len(cached_files(tmp_path)) == 1
    assert list(root.iterdir()) == [root / "ml-1m"]  # nothing is written beside the data
    with monkeypatch.context() as patch:
        patch.setattr(module, "tables_1m", None)  # parsing would fail
        second = read(root, cache=True)
    assert str(second) == str(first)
    for key, value in first["user", "rates", "item"].items():
        assert torch.equal(second["user", "rates", "item"][key], value)
    assert second.strings("item", "title") == first.strings("item", "title")


def test_other_bytes_or_options_are_another_cache_entry(tiny_1m: Writer, tmp_path: Path) -> None:
    read(tiny_1m(), cache=True)
    read(tiny_1m(), cache=True, rated_only=True)
    other = tiny_1m(ratings=lambda b: b.replace(b"::5::", b"::2::"))
    changed = read(other, cache=True)
    assert changed.to_pandas()["rating"].max() == 4
    assert len(cached_files(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "pickle", "empty"])
def test_a_damaged_cache_is_built_anew(
    tiny_1m: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    expected = read(tiny_1m(), cache=True).to_pandas()
    (path,) = cached_files(tmp_path)
    good = path.read_bytes()
    flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    bad = {"flip": flipped, "truncate": good[:-20], "pickle": b"\x80\x04K\x01.", "empty": b""}
    path.write_bytes(bad[damage])
    with caplog.at_level(logging.WARNING, "tgrec"):
        assert read(tiny_1m(), cache=True).to_pandas().equals(expected)
    assert "built anew" in caplog.text
    assert path.read_bytes() == good


def test_without_a_writable_cache_everything_works(
    tiny_1m: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")  # no folder can be made below a file, not even by root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert read(tiny_1m(), cache=True).num_events == 7


def test_two_processes_at_once_both_succeed(tiny_1m: Writer, tmp_path: Path) -> None:
    code = (
        "from tgrec.datasets import MovieLens1M; import sys;"
        "print(MovieLens1M(sys.argv[1], download=False, verify=False)[0].num_events)"
    )
    command = [sys.executable, "-c", code, str(tiny_1m())]
    path = os.pathsep.join(
        [str(Path(module.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        for _ in range(2)
    ]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, b"7"), error.decode()
    assert len(cached_files(tmp_path)) == 1  # and no temporary file is left


# ---- the real files, where they are ---------------------------------------------------------

CARDS = Path(__file__).parents[2] / "datasets"
MAP_FILE = "ml-1m-sasrec/sas_to_original_items.txt"


@pytest.mark.parametrize(
    ("card", "variant", "file", "load"),
    [
        ("ml1m", "full", "ml-1m/ratings.dat", movielens_1m),
        ("ml1m", "rated_only", "ml-1m/ratings.dat", partial(movielens_1m, rated_only=True)),
        ("ml1m", "seed", "ml-1m/ratings.dat", partial(movielens_1m, variant="seed")),
        ("ml100k", "full", "ml-100k/u.data", movielens_100k),
        ("ml100k", "seed", "ml-100k/u.data", partial(movielens_100k, variant="seed")),
        (
            "ml1m_sasrec",
            "sasrec",
            "ml-1m-sasrec/ml-1m.txt",
            partial(movielens_1m, variant="sasrec"),
        ),
    ],
)
def test_real_data_have_the_golden_numbers(
    real_root: Callable[[str], str], card: str, variant: str, file: str, load: Callable
) -> None:
    graph = load(real_root(file), download=False, cache=False)
    golden = json.loads((CARDS / card / "stats.json").read_text())
    assert describe(graph) == golden[variant]
    assert graph.validate()


def test_real_order_against_a_sort_written_anew(real_root: Callable[[str], str]) -> None:
    root = real_root("ml-1m/ratings.dat")
    rows = []
    with open(Path(root) / "ml-1m" / "ratings.dat") as file:
        for number, line in enumerate(file):
            user, item, _, time = map(int, line.split("::"))
            rows.append((time, number, user, item))
    rows.sort()
    events = movielens_1m(root, download=False, cache=False).to_pandas()
    assert events["user_id"].tolist() == [row[2] for row in rows]
    assert events["item_id"].tolist() == [row[3] for row in rows]


def test_the_file_of_sasrec_has_our_tie_order(real_root: Callable[[str], str]) -> None:
    """So its papers and ``ml1m-loo`` break ties alike; nobody had said so."""
    root = real_root(MAP_FILE)
    sasrec = movielens_1m(root, "sasrec", download=False, cache=False)
    full = movielens_1m(root, download=False, cache=False).to_pandas()
    kept = full[full["item_id"].isin(sasrec["item"].movielens_id.tolist())]
    user, item = sasrec["user", "rates", "item"].edge_index
    order = sasrec["user"].movielens_id[user].argsort(stable=True)
    ours = kept.sort_values("user_id", kind="stable")["item_id"].tolist()
    assert sasrec["item"].movielens_id[item[order]].tolist() == ours
