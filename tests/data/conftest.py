"""Graphs from rows, for tests that compare with brute force over the same rows."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from tgrec.data import TemporalRecGraph

Row = tuple[int, int, int, str]


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., TemporalRecGraph]:
    """``graph_of(rows, relations, timed)`` of rows (user, item, time, kind); 5 users, 7 items."""

    def build(rows: list[Row], relations: bool = False, timed: bool = True) -> TemporalRecGraph:
        table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"])
        return TemporalRecGraph.from_pandas(
            table,
            time="timestamp" if timed else None,
            relation="kind" if relations else None,
            users=pd.DataFrame({"user_id": range(5)}),
            items=pd.DataFrame({"item_id": range(7)}),
        )

    return build
