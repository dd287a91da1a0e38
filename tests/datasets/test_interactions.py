"""Anybody's files: every dialect gives one graph, and every slip names file, line and column."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.datasets import DataFileError, checksum, movielens_100k, read_interactions

ROWS = [(1, 30, 5, 978300760), (2, 10, 3, 978300000), (1, 20, 1, 978300100), (2, 30, 4, 978299999)]
HEAD = "userId,movieId,rating,timestamp"


def lines(sep: str, head: str = "") -> bytes:
    rows = [sep.join(map(str, row)) for row in ROWS]
    return ("\n".join([*([head.replace(",", sep)] if head else []), *rows]) + "\n").encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", lines(",", HEAD)),
        ("a.csv", b"\xef\xbb\xbf" + lines(",", HEAD).replace(b"\n", b"\r\n")),
        ("a.csv", lines(",", HEAD).rstrip()),
        ("a.csv.gz", gzip.compress(lines(",", HEAD))),
        ("a.tsv", lines("\t", HEAD)),
        ("a.csv", lines(";", HEAD)),
        ("a.inter", lines("\t", "user_id:token,item_id:token,rating:float,timestamp:float")),
        ("a.dat", lines("::")),
        ("u.data", lines("\t")),
        ("a.txt", lines(" ")),
        ("a.csv", lines(",")),
        ("a.dat", "\n".join(f"{u}::{i}::{t}::{r}" for u, i, r, t in ROWS).encode()),
    ],
    ids=["csv", "windows", "no last end", "gzip", "tsv", "semicolons", "recbole", "colons", "tabs",
         "blanks", "no header", "time before rating"],
)  # fmt: skip
def test_every_dialect_gives_the_same_graph(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    table = read_interactions(tmp_path / name).to_pandas()
    wanted = sorted((t, n, u, i, r) for n, (u, i, r, t) in enumerate(ROWS))
    assert list(table[["timestamp", "user_id", "item_id", "rating"]].itertuples(index=False)) == [
        (t, u, i, r) for t, _, u, i, r in wanted
    ]


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(ROWS, columns=["user", "item", "rating", "when"])
    table["when"] = pd.to_datetime(table["when"], unit="s")
    table.to_parquet(tmp_path / "a.parquet")
    graph = read_interactions(tmp_path / "a.parquet", time="when")
    assert graph.to_pandas()["timestamp"].tolist() == sorted(row[3] for row in ROWS)
    table.set_index("when").to_parquet(tmp_path / "c.parquet")
    items = pd.DataFrame({"movieId": [10, 20, 30], "title": ["x", "y", "z"]}).set_index("movieId")
    items.to_parquet(tmp_path / "items.parquet")
    again = read_interactions(tmp_path / "c.parquet", time="when", items=tmp_path / "items.parquet")
    assert again.to_pandas().equals(graph.to_pandas())
    assert again.strings("item", "title") == ["x", "y", "z"]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataFileError, match=r"b\.parquet: is no readable Parquet file"):
        read_interactions(tmp_path / "b.parquet")


def test_two_and_three_columns_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2\n1 3\n2 2\n")
    graph = read_interactions(tmp_path / "a.txt")
    assert not graph.has_time
    assert graph.to_pandas()["item_id"].tolist() == [2, 3, 2]
    (tmp_path / "b.csv").write_text("1,2,4.5\n")
    assert read_interactions(tmp_path / "b.csv").to_pandas()["rating"].tolist() == [4.5]
    (tmp_path / "c.csv").write_text("1,2,978300760\n")
    assert read_interactions(tmp_path / "c.csv").to_pandas()["timestamp"].tolist() == [978300760]
    (tmp_path / "d.csv").write_text("978300760,bob,jam\n")
    graph = read_interactions(tmp_path / "d.csv", names=["t", "who", "sku"], user="who", time="t")
    assert graph.raw_ids("user") == ["bob"]


# ---- files of items and users ----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_a_folder_as_movietweetings_has_it(folder: Callable[..., Path]) -> None:
    root = folder(
        ratings_dat="1::0104257::8::1364690142\n1::1074638::7::1365029107\n3::104257::1::1364690143\n",
        movies_dat="0104257::A Few Good Men (1992)::Crime|Drama\n104257::Other (2001)::\n"
        "7::Unseen::Drama\n1074638::Skyfall (2012)::Action\n",
        users_dat="1::18405182\n2::999\n3::31260677\n",
    )
    graph = read_interactions(root)
    # Ids with leading zeros are other ids than those without.
    assert graph.raw_ids("item") == ["0104257", "104257", "7", "1074638"]
    assert graph.strings("item", "title")[0] == "A Few Good Men (1992)"
    assert graph["item"].year.tolist() == [1992, 2001, 0, 2012]
    assert graph.strings("item", "genres") == ["Crime|Drama", "", "Drama", "Action"]
    columns = ["Action", "Crime", "Drama"]
    rows = [{columns[c] for c in row.nonzero().view(-1).tolist()} for row in graph["item"].genre]
    assert rows == [{"Crime", "Drama"}, set(), {"Drama"}, {"Action"}]
    assert graph.num_users == 3  # the second one has no events
    assert "18405182" not in str(graph.to_dict())  # a person's account elsewhere is not read


def test_items_and_users_with_headers(folder: Callable[..., Path]) -> None:
    root = folder(
        clicks_csv="customer_id,sku,ts\nann,jam,100\nbob,tea,200\nbob,pin,300\n",
        products_csv='sku,name,category,price\njam,"Jam, red","Food, Sweet",3\ntea,Tea,,\n',
        people_csv="user_id,gender,age,job\nbob,m,25-34,baker\nann,f,18-24,actor\n",
    )
    graph = read_interactions(root, users=root / "people.csv")
    assert graph.raw_ids("item") == ["jam", "tea", "pin"]
    assert graph.strings("item", "title") == ["Jam, red", "Tea", ""]
    assert graph["item"].genre.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert graph.raw_ids("user") == ["bob", "ann"]
    assert graph["user"].gender.tolist() == [1, 0]
    assert graph["user"].age.tolist() == [1, 0]
    assert graph["user"].occupation.tolist() == [1, 0]
    assert "price" not in graph["item"]


def test_what_files_of_users_do_not_say_is_unknown(folder: Callable[..., Path]) -> None:
    root = folder(
        ratings_csv="user,item\n1,5\n2,5\n3,5\n",
        users_csv="user,gender,age,job\n1,M,,cook\n2,,30,\n",
    )
    graph = read_interactions(root)
    assert graph.strings("user", "gender") == ["M", "", ""]
    assert graph.strings("user", "occupation") == ["cook", "", ""]
    people = graph["user"]
    assert [people[name].tolist() for name in ("gender", "age", "occupation")] == [
        [0, -1, -1], [-1, 30, -1], [0, -1, -1]
    ]  # fmt: skip


def test_integers_only_if_all_files_have_integers(folder: Callable[..., Path]) -> None:
    text = "user,item\n1,5\n1,6\n"
    root = folder(a_csv=text, movies_csv="id,title\n5,five\n6,six\n")
    graph = read_interactions(root / "a.csv", items=root / "movies.csv")
    assert isinstance(graph.raw_ids("item"), torch.Tensor)
    (root / "movies.csv").write_text("id,title\n5,five\n6,six\n07,seven\n")
    graph = read_interactions(root / "a.csv", items=root / "movies.csv")
    assert graph.raw_ids("item") == ["5", "6", "07"]
    assert isinstance(graph.raw_ids("user"), torch.Tensor)


@pytest.mark.parametrize(
    ("events", "movies"),
    [
        ("user, item ,rating\n 1, 26 ,4\n1,\t27, 5\n", 'id, title\n26, "Heat, (1995)"\n 27 , Up\n'),
        ("user,item,rating\n1.0,26.0,4.0\n1.0,27.0,5.0\n", 'id,title\n26,"Heat, (1995)"\n27,Up\n'),
        ("user,item,rating\n1,26,4\n1,27,5\n", "id;title\n26.0;Heat, (1995)\n27.0;Up\n"),
        ("user :: item :: rating\n1 :: 26 :: 4\n1 :: 27 :: 5\n", "26 :: Heat, (1995)\n27 :: Up \n"),
    ],
    ids=["blanks", "points", "points in items", "colons"],
)
def test_ids_are_numbers_however_they_are_written(
    events: str, movies: str, folder: Callable[..., Path]
) -> None:
    graph = read_interactions(folder(ratings_csv=events, movies_csv=movies))
    assert graph.to_pandas()[["user_id", "item_id", "rating"]].values.tolist() == [
        [1, 26, 4], [1, 27, 5]
    ]  # fmt: skip
    assert graph.num_items == 2
    assert graph.strings("item", "title") == ["Heat, (1995)", "Up"]


def test_points_are_kept_where_an_id_needs_them(folder: Callable[..., Path]) -> None:
    root = folder(a_csv="user,item\n1,1.0\n1,1.5\n2,007.0\n")
    assert read_interactions(root / "a.csv").raw_ids("item") == ["007.0", "1.0", "1.5"]


@pytest.mark.parametrize("empty", ["", "nan", "NaN"])
def test_a_rating_may_be_unknown(empty: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"user,item,rating\n1,5,0\n1,6,{empty}\n2,5,4.5\n")
    ratings = read_interactions(tmp_path / "a.csv").to_pandas()["rating"]
    assert ratings.isna().tolist() == [False, True, False]
    assert ratings.dropna().tolist() == [0.0, 4.5]
    (tmp_path / "b.csv").write_text(f"user,item,rating\n1,5,{empty}\n1,6,{empty}\n")
    assert "rating" not in read_interactions(tmp_path / "b.csv").to_pandas()


# ---- slips -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kwargs", "message"),
    [
        ("user,item,time\n1,2,3\n1,,4\n", {}, "'item': column 'item' has missing ids in line 3"),
        ("user,item,time\n1,2,3\n1,2,soon\n", {}, "'time': .* not a time in line 3 .*'soon'"),
        ("user,item,rating\n1,2,3\n1,2,good\n", {}, "'rating': .* not a number in line 3 .*'good'"),
        ("user,item,rating\n1,2,3\n1,2,inf\n", {}, "'rating': .* is infinite .* in line 3"),
        ("user,item\n1,2\n1,2,3\n", {}, "Expected 2 fields in line 3, saw 3"),
        ("1::2::3::978300760\n1::2\n", {}, "'time': .* missing times in line 2"),
        ("a,b\nc,d\n", {}, r"'user': none of the columns \['a', 'b'\]"),
        ("1,2,3,4,5\n", {}, r"has no header line, and its 5 columns .*names=\[\.\.\.\]"),
        ("1,2,3,4\n", {}, "has no header line, and its 4 columns"),
        ("1,2\n", {"names": ["user"]}, "'names' needs to name 2 columns"),
        ("user,item\n1,2\n", {"user": "usr"}, r"no column 'usr'.*did you mean user='user'"),
        ("user,item\n", {}, "has no rows"),
        ("", {}, "the file is empty"),
    ],
)
def test_slips_name_file_line_and_column(
    content: str, kwargs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataFileError, match=rf"a\.csv.*{message}"):
        read_interactions(tmp_path / "a.csv", **kwargs)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("movies", "x,title\n5,five\n", "movies.csv: 'items': there is no column of items among"),
        ("movies", "id,title,name\n5,five,5\n", r"columns \['title', 'name'\] could be meant"),
        ("movies", "id,title\n5,a\n5,b\n", "'items': column 'item' repeats 5"),
        ("users", "x\n1\n", "users.csv: 'users': there is no column of users"),
        ("users", "user,age\n7,20\n8,30\n9,40\n", r"'users': no id .*\[7, 8\], .*such as \[1\]"),
        ("movies", "id,title\n05,five\n", r"'items': no id .*'item', .*\['05'\], .* \['5'\]; give"),
    ],
)
def test_slips_in_side_tables(
    name: str, text: str, message: str, folder: Callable[..., Path]
) -> None:
    root = folder(**{"ratings_csv": "user,item\n1,5\n", f"{name}_csv": text})
    with pytest.raises(DataFileError, match=message):
        read_interactions(root)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere"):
        read_interactions(tmp_path / "nowhere.csv")
    (tmp_path / "b.csv").write_text("user,item\n1,2\n")
    with pytest.raises(FileNotFoundError, match="has no file named ratings or .*'b.csv'"):
        read_interactions(tmp_path)


@pytest.mark.dataset
def test_movielens_as_anybodys_file(real_root: Callable[[str], str]) -> None:
    root = real_root("ml-100k/u.data")
    mine = read_interactions(Path(root) / "ml-100k" / "u.data")
    assert checksum(mine) == checksum(movielens_100k(root, cache=False))
