"""Which column of a table of pairs is which."""

from __future__ import annotations

import pandas as pd
import pytest

from tgrec.recommend.names import listed_pairs

PAIRS = pd.DataFrame({"user_id": [3, 60], "item_id": [5, 9]})
RATINGS = pd.DataFrame({"rating": [1.0, 2.0], "movieId": [5, 9], "score": [0.0, 0.0],
                        "userId": [3, 60], "title": ["a", "b"]})  # fmt: skip


@pytest.mark.parametrize(
    "table",
    [
        PAIRS,
        PAIRS[["item_id", "user_id"]],
        RATINGS,
        PAIRS.set_index("user_id"),
        PAIRS.set_index(["item_id", "user_id"]),
        PAIRS.set_axis(["who", "what"], axis=1),
        PAIRS.set_axis([0, 1], axis=1),
    ],
)
def test_columns_are_known_by_their_names(table: pd.DataFrame) -> None:
    assert listed_pairs(table) == ([3, 60], [5, 9])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (PAIRS.set_axis(["item_id", "who"], axis=1), r"'item_id', 'who'\], of which 0 and 1"),
        (PAIRS.assign(uid=[1, 2]), "of which 2 and 1"),
        (pd.DataFrame({"a": [1], "b": [2], "c": [3]}), "of which 0 and 0.*; call them user_id and"),
        (PAIRS[["user_id"]], "of which 1 and 0"),
    ],
)
def test_columns_that_could_be_anything_are_not_guessed(table: pd.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=f"'pairs' needs one column of users .*{said}"):
        listed_pairs(table)
