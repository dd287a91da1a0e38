"""Data of which a week can be predicted: simulated interests, anybody's CSV, Online Retail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.datasets.online_retail import Root, online_retail
from tgrec.datasets.weekly import WeeklyOracle, generate_dataset, simulate_weekly
from tgrec.datasets.weekly_table import (
    COUNT,
    EVENT,
    USER,
    WEEK,
    load_interactions_from_csv,
    weekly_graph,
)
from tgrec.datasets.weeks import by_week, week_cut, week_range

LAST_FULL_WEEK = (
    2186  # of Online Retail, from Monday 2011-11-28: the data end on Friday of the next
)
CSV_NAME = "user_event_interactions.csv"


@dataclass(frozen=True)
class WeeklyData:
    """One graph for all weeks, and what is needed to ask about one of them.

    Args:
        name: For people; says so if the data are simulated.
        graph: As :func:`weekly_graph` makes it.
        columns: What users and events are called.
        target: Number of the week to predict unless another one is asked for.
        oracle: Of simulated data.
    """

    name: str
    graph: TemporalRecGraph
    columns: tuple[str, str]
    target: int
    oracle: WeeklyOracle | None = None

    @property
    def first(self) -> int:
        """Number of the first week."""
        return week_range(self.graph).start

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where each week begins, the first to the last, and one past the last event."""
        weeks = week_range(self.graph)
        return tuple(week_cut(self.graph, week) for week in range(weeks.start, weeks.stop + 1))

    def truth(self, week: int) -> Tensor | None:
        """``[U, N]`` the true rates of a week of simulated data, None of others."""
        if self.oracle is None:
            return None
        return self.oracle.score(week, self.graph.raw_ids("user"), self.graph.raw_ids("item"))


def simulated_weeks(folder: str | os.PathLike[str], seed: int = 0) -> WeeklyData:
    """Writes ``user_event_interactions.csv`` into a folder and reads it back.

    Args:
        folder: Made if it is not there.
        seed: Of the simulation.
    """
    path = Path(folder) / CSV_NAME
    generate_dataset(path, seed=seed)
    graph = weekly_graph(load_interactions_from_csv(path)[0])
    _, oracle = simulate_weekly(seed=seed)  # the same arguments give the same table
    last = week_range(graph)[-1]
    return WeeklyData("SIMULATED weekly interest", graph, (USER, EVENT), last, oracle)


def csv_weeks(
    path: str | os.PathLike[str],
    user: str = USER,
    event: str = EVENT,
    count: str | None = COUNT,
    week: str = WEEK,
) -> WeeklyData:
    """Reads anybody's table; the last week is asked about.

    Args:
        path: A file with a header line and commas.
        user: Names of columns, as :func:`load_interactions_from_csv` takes them.
        event: Likewise.
        count: Likewise.
        week: Likewise.

    Raises:
        FileNotFoundError: If there is no such file.
        DataFileError: If the file is no such table.
    """
    df, *_ = load_interactions_from_csv(path, user=user, event=event, count=count, week=week)
    graph = weekly_graph(df)
    return WeeklyData(Path(path).name, graph, (user, event), week_range(graph)[-1])


def online_retail_weeks(root: Root = None) -> WeeklyData:
    """The weeks of Online Retail: one event for each customer, product and week.

    Counts are lines of invoices. The week asked about is that from Monday 2011-11-28, the last full
    one. Raises as :func:`online_retail` does.
    """
    graph = by_week(online_retail(root))
    return WeeklyData("OnlineRetail", graph, ("customer", "product"), LAST_FULL_WEEK)
