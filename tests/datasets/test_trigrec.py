"""TriGRec's files: the order between domains, and that what is unproven is not seen."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import TemporalRecGraph, leave_one_out_in
from tgrec.datasets import (
    ChecksumError,
    DataFileError,
    DatasetNotFound,
    TriGRecData,
    describe,
    item_domains,
    read_domains,
    trigrec,
)
from tgrec.datasets.trigrec import TRIGREC, places

CARD = Path(__file__).parents[2] / "datasets" / "trigrec"
Lists = dict[int, list[int]]


def split_orders(orders: Lists) -> dict[str, Lists]:
    """The six files of users whose true order over both domains is given (kitchen from 100)."""
    food = {u: [i for i in row if i < 100] for u, row in orders.items()}
    kitchen = {u: [i for i in row if i >= 100] for u, row in orders.items()}
    return {
        "food_all": food,
        "kitchen_all": kitchen,
        "food_train": {u: row[:-2] for u, row in food.items()},
        "kitchen_train": {u: row[:-2] for u, row in kitchen.items()},
        "cross_f_train": {u: [i for i in r if i not in food[u][-2:]] for u, r in orders.items()},
        "cross_k_train": {u: [i for i in r if i not in kitchen[u][-2:]] for u, r in orders.items()},
    }


def write(folder: Path, files: dict[str, Lists]) -> Path:
    (folder / "trigrec").mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        # Lists of their own: a pickle names an object that it has seen by its number.
        copies = {user: [int(str(i)) for i in row] for user, row in rows.items()}
        (folder / "trigrec" / f"{name}.pkl").write_bytes(pickle.dumps(copies, 4))
    return folder


# User 0: the last two of both domains are at the end, in an order that no file tells. User 1: all
# kitchen events lie before the last two of food; user 2: the other way round; user 3 mixed.
ORDERS: Lists = {
    0: [1, 100, 2, 101, 102, 3],
    1: [110, 111, 112, 1, 4, 5],
    2: [6, 7, 8, 120, 121, 122],
    3: [9, 130, 10, 11, 131, 132, 12, 13],
}


def visible(graph: TemporalRecGraph, cut: int, user: int) -> set[int]:
    table = graph.to_pandas()
    return set(table[(table.user_id == user) & (table.event_id < cut)].item_id.tolist())


def test_orders_by_hand(tmp_path: Path) -> None:
    root = write(tmp_path, split_orders(ORDERS))
    graph = trigrec("food", root, verify=False, cache=False)
    graph.validate()
    order = graph.to_pandas().groupby("user_id").item_id.apply(list).to_dict()
    # 101 and 102 may be before or after 2 and 3, so they come last.
    assert order[0] == [1, 100, 2, 3, 101, 102]
    assert order[1] == [110, 111, 112, 1, 4, 5]
    assert order[2] == [6, 7, 8, 120, 121, 122]
    assert order[3] == [9, 130, 10, 11, 12, 13, 131, 132]
    other = trigrec("kitchen", root, verify=False, cache=False)
    order = other.to_pandas().groupby("user_id").item_id.apply(list).to_dict()
    assert order[0] == [1, 100, 101, 102, 2, 3]
    assert order[2] == [6, 7, 8, 120, 121, 122]


def merges(a: list[int], b: list[int]) -> list[list[int]]:
    size = len(a) + len(b)
    out = []
    for where in itertools.combinations(range(size), len(a)):
        first, second = iter(a), iter(b)
        out.append([next(first) if i in where else next(second) for i in range(size)])
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 5), st.integers(3, 5), st.randoms(use_true_random=False))
def test_an_event_is_placed_before_another_only_if_every_possible_order_says_so(
    foods: int, kitchens: int, draw: object
) -> None:
    food, kitchen = list(range(foods)), list(range(100, 100 + kitchens))
    every = merges(food, kitchen)
    truth = draw.choice(every)  # type: ignore[attr-defined]
    files = split_orders({0: truth})
    cross = [files[f"cross_{d}_train"][0] for d in "fk"]
    possible = [m for m in every if [split_orders({0: m})[f"cross_{d}_train"][0] for d in "fk"]
                == cross]  # fmt: skip
    found = places(food, kitchen, *cross)
    for j, item in enumerate(kitchen):
        # The latest possible place: as many food events before it as in any possible order.
        assert found[j] == max(sum(i < 100 for i in m[: m.index(item)]) for m in possible)


def test_what_is_seen_before_a_target_is_truly_earlier(tmp_path: Path) -> None:
    root = write(tmp_path, split_orders(ORDERS))
    for target in ("food", "kitchen"):
        split = leave_one_out_in(trigrec(target, root, verify=False, cache=False), target)  # type: ignore[arg-type]
        ids = split.graph.raw_ids("item")
        for targets in (split.val, split.test):
            for user, cut, item in zip(targets.user, targets.cut, targets.item, strict=True):
                row = ORDERS[int(user)]
                earlier = set(row[: row.index(int(ids[item]))])
                assert visible(split.graph, int(cut), int(user)) <= earlier


def test_no_training_event_is_later_than_a_target(tmp_path: Path) -> None:
    split = leave_one_out_in(
        trigrec("food", write(tmp_path, split_orders(ORDERS)), verify=False, cache=False), "food"
    )
    newest = max(int(split.train[t].event_id.max()) for t in split.train.interaction_types)
    assert newest < int(split.val.cut.min())
    assert int(split.val.cut.max()) < int(split.test.cut.min())


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("kitchen_all", {0: [1, 100, 101]}, "item 1 stands in food_all"),
        ("food_train", {0: [2]}, "the list of user 0 does not fit"),
        ("cross_f_train", {0: [100, 101, 102, 1, 2]}, "the list of user 0 does not fit"),
        ("cross_k_train", {3: [130, 9, 10, 11, 12, 13]}, r"events differently \(user 3\); fetch"),
        ("cross_k_train", {7: [1]}, r"its users are not those .* \(first \[7\]\)"),
    ],
)
def test_files_that_contradict_each_other(
    name: str, change: Lists, why: str, tmp_path: Path
) -> None:
    files = split_orders(ORDERS)
    files[name] = {**files[name], **change}
    root = write(tmp_path, files)
    with pytest.raises(DataFileError, match=why) as caught:
        trigrec("food", root, verify=False, cache=False)
    assert f"{name}.pkl: " in str(caught.value)


def test_only_the_published_files_are_taken(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="food_all.pkl.*TGREC_DATA"):
        trigrec("food", tmp_path)
    root = write(tmp_path, split_orders(ORDERS))
    with pytest.raises(ChecksumError, match="verify=False"):
        trigrec("food", root)
    with pytest.raises(ValueError, match="'target' needs to be one of"):
        trigrec("toys", root)  # type: ignore[arg-type]


def test_a_csv_file_with_domains_and_times(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        "user_id,item_id,timestamp,domain\n7,a,30,toys\n7,b,10,food\n7,c,20,books\n9,a,5,toys\n"
    )
    graph = TriGRecData(csv=path)[0]
    assert [t[1] for t in graph.interaction_types] == ["books", "food", "toys"]
    assert graph.has_time
    assert graph["item"].domain.tolist() == [2, 1, 0]
    assert graph.to_pandas().item_id.tolist() == ["a", "b", "c", "a"]
    path.write_text("user_id,item_id,timestamp,domain\n7,a,30,toys\n7,a,10,food\n")
    with pytest.raises(ValueError, match=r"'a' of \['food', 'toys'\].*write the domain into"):
        read_domains(path)
    path.write_text("user_id,item_id,timestamp,domain\n7,3,30,toys\n7,3,10,food\n")
    with pytest.raises(ValueError, match=r"first 3 of \['food', 'toys'\]"):
        read_domains(path)
    with pytest.raises(ValueError, match="pass it as 'csv'"):
        TriGRecData(user="who")


def test_domains_of_items(tmp_path: Path) -> None:
    graph = trigrec("food", write(tmp_path, split_orders(ORDERS)), verify=False, cache=False)
    assert torch.equal(item_domains(graph), graph["item"].domain)
    assert torch.equal(graph["item"].domain, (graph.raw_ids("item") >= 100).long())


def test_the_card_has_the_checksums_of_the_code() -> None:
    sums = dict(reversed(line.split()) for line in (CARD / "SHA256SUMS").read_text().splitlines())
    assert sums == dict(TRIGREC.files)


@pytest.mark.slow
def test_the_real_data_are_golden(real_root: Callable[[str], str]) -> None:
    root = real_root("trigrec/food_all.pkl")
    golden = json.loads((CARD / "stats.json").read_text())
    graph = trigrec("food", root)
    assert describe(graph).items() <= golden["food"].items()
    train = leave_one_out_in(graph, "food").train
    kinds = {t[1]: train[t].event_id.numel() for t in train.interaction_types}
    assert kinds == golden["food"]["training"]
