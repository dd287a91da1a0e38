"""Boards: what a tag promises, splits by hand on a small one, and the checksum of events."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.datasets import BOARDS, DatasetNotFound, checksum, describe, load_board, movielens_1m

CARDS = Path(__file__).parents[2] / "datasets"


def graph_of(rows: list[tuple[int, int, int]]) -> TemporalRecGraph:
    return TemporalRecGraph.from_pandas(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    )


def test_tags_and_what_they_say() -> None:
    assert list(BOARDS) == [
        "ml1m-loo",
        "ml1m-seed",
        "ml1m-sasrec",
        "ml1m-time",
        "ml100k-seed",
        "simulated-loo",
        "trigrec-food",
        "trigrec-kitchen",
        "simulated-food",
        "simulated-kitchen",
    ]
    assert all(board.tag == tag for tag, board in BOARDS.items())
    kept = [tag for tag, board in BOARDS.items() if not board.remove_seen]
    assert kept == ["ml1m-seed", "ml100k-seed"]
    for board in BOARDS.values():
        removed = "seen items are removed" in board.description
        assert removed == board.remove_seen
        assert removed or "seen items stay" in board.description
    with pytest.raises(FrozenInstanceError):
        BOARDS["ml1m-loo"].tag = "x"  # type: ignore[misc]


def test_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'tag' needs to be one of \['ml1m-loo', .* \(got 'ml1m'"):
        load_board("ml1m")


def test_missing_data_say_so(tmp_path: Path) -> None:
    for tag in BOARDS:
        if not tag.startswith("simulated"):
            with pytest.raises(DatasetNotFound, match="TGREC_DATA"):
                load_board(tag, tmp_path, download=False)


def test_simulated_board_is_golden_and_leaves_out_the_last_two() -> None:
    graph, split = load_board("simulated-loo")
    golden = json.loads((CARDS / "simulated" / "stats.json").read_text())
    assert describe(graph) == golden["default"]
    assert len(split.test) == len(split.val) == graph.num_users
    assert split.train.num_events == graph.num_events - 2 * graph.num_users
    last = graph.to_pandas().groupby("user_id")["item_id"].last()
    assert graph.raw_ids("item")[split.test.item].tolist() == last.tolist()


def test_describe_by_hand() -> None:
    # User 1: 10, 10, 20 (one tie, not at the end); user 2: 5, 5 (a tie at the end); user 3: 7.
    rows = [(1, 1, 10), (1, 2, 10), (1, 3, 20), (2, 1, 5), (2, 2, 5), (3, 1, 7)]
    stats = describe(graph_of(rows))
    assert (stats["users"], stats["items"], stats["events"]) == (3, 3, 6)
    assert (stats["first_time"], stats["last_time"]) == (5, 20)
    assert stats["tied_pairs"] == pytest.approx(2 / 3, abs=1e-4)
    assert stats["tied_last_two"] == 0.5
    order_only = pd.DataFrame(rows, columns=["user_id", "item_id", "t"]).drop(columns="t")
    stats = describe(TemporalRecGraph.from_pandas(order_only, time=None))
    assert stats["tied_pairs"] is None
    assert stats["events"] == 6


def test_checksum_sees_every_event_column_and_nothing_else() -> None:
    rows = [(1, 1, 10), (1, 2, 10), (2, 1, 11)]
    graph = graph_of(rows)
    same = graph_of(rows)
    same["item"].x = torch.ones(2, 3)
    assert checksum(graph) == checksum(same)
    others = [
        graph_of([(1, 2, 10), (1, 1, 10), (2, 1, 11)]),  # order inside the tie
        graph_of([(1, 1, 10), (1, 2, 10), (2, 1, 12)]),  # time
        graph_of([(1, 1, 10), (1, 2, 10), (2, 2, 11)]),  # item
        graph_of([(1, 1, 10), (1, 2, 10), (1, 1, 11)]),  # user
        graph.before(2),
        graph.since(1),
    ]
    assert len({checksum(g) for g in [graph, *others]}) == 7
    # Written out once, so that records of years ago can still be compared.
    assert checksum(graph).startswith("86638a5859a27b37")


@pytest.mark.parametrize(
    ("tag", "file", "users", "items", "train", "targets"),
    [
        ("ml1m-loo", "ml-1m/ratings.dat", 6040, 3706, 988_129, 6040),
        ("ml1m-seed", "ml-1m/ratings.dat", 6034, 3533, 563_204, 6034),
        ("ml1m-sasrec", "ml-1m-sasrec/sas_to_original_items.txt", 6040, 3416, 987_531, 6040),
        ("ml1m-time", "ml-1m/ratings.dat", 6040, 3706, 800_164, 1209),
        ("ml100k-seed", "ml-100k/u.data", 938, 1447, 53_485, 938),
    ],
)
def test_real_boards(
    real_root: Callable[[str], str],
    tag: str,
    file: str,
    users: int,
    items: int,
    train: int,
    targets: int,
) -> None:
    graph, split = load_board(tag, real_root(file), download=False)
    assert (graph.num_users, graph.num_items) == (users, items)
    assert split.train.num_events == train
    assert len(split.test) == targets
    assert all(graph["item"].genre.sum(dim=1) > 0)


def test_the_unrated_items_are_on_no_board(real_root: Callable[[str], str]) -> None:
    full = movielens_1m(real_root("ml-1m/ratings.dat"), download=False, cache=False)
    assert describe(full)["items"] - describe(full)["items_with_events"] == 177
