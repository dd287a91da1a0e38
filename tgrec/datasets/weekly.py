"""Weekly interest: a simulated log of drifting communities and seasons, with a known oracle.

Users move from one community of taste to another, what they are interested in has its seasons, and
what they met in earlier weeks comes again. Since the true distribution of every week is known
(:class:`WeeklyOracle`), so is the best score that any model can reach. Results on this data are
always named as simulated.

Functions that read tables of weeks, simulated or not, are in :mod:`tgrec.datasets.weekly_table`,
cuts, targets and numbers of weeks in :mod:`tgrec.datasets.weeks`; all can be had from here too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tgrec.data.files import atomic_path
from tgrec.datasets import _weekly_generator as generator
from tgrec.datasets._weekly_generator import Ints, WeeklyLatents
from tgrec.datasets.weekly_table import (
    COUNT,
    EVENT,
    USER,
    WEEK,
    create_weekly_heterodata_from_df,
    id_features,
    load_interactions_from_csv,
    weekly_graph,
    weekly_table,
)
from tgrec.datasets.weeks import by_week, week_cut, week_number, week_range, week_targets

__all__ = [
    "COUNT",
    "EVENT",
    "USER",
    "WEEK",
    "WeeklyLatents",
    "WeeklyOracle",
    "by_week",
    "create_weekly_heterodata_from_df",
    "generate_dataset",
    "id_features",
    "load_interactions_from_csv",
    "simulate_weekly",
    "week_cut",
    "week_number",
    "week_range",
    "week_targets",
    "weekly_graph",
    "weekly_table",
]

MAX_CELLS = 20_000_000  # users times events: the simulation holds several matrices of this size


@dataclass(frozen=True)
class WeeklyOracle:
    """The true distribution of one simulated table.

    Args:
        latents: The true communities, moves, seasons and activities.
        user: ``[P]`` 0-based user of each row of the table, in its order.
        event: ``[P]`` 0-based event.
        count: ``[P]``.
        week: ``[P]``, from 1.
        num_weeks: The last week of the table.
        users: The ``ip_address`` of each user.
        events: The ``pixel_event_id`` of each event, also of those that nobody met.
    """

    latents: WeeklyLatents
    user: Ints
    event: Ints
    count: Ints
    week: Ints
    num_weeks: int
    users: tuple[str, ...]
    events: tuple[int, ...]

    def score(
        self,
        week: int,
        users: Sequence[Any] | Tensor | None = None,
        events: Sequence[Any] | Tensor | None = None,
    ) -> Tensor:
        """The expected count of every user and event in a week, given all weeks before it.

        Exact: the function that computes it made the data (``tgrec.datasets._weekly_generator``
        has the formula). It knows the true tastes of that week and the realised counts of earlier
        weeks, and nothing of the week itself.

        No ranking has a higher expected Recall@k or Precision@k. Counts are independent Poisson
        given the past, so event e is met with probability ``p_e = 1 - exp(-score_e)``, and with M
        the number of other events met, the expected recall that listing e adds is

            p_e * E[1 / (1 + M)],

        which for two events e and f differs by ``(p_e - p_f) * E[1 / (1 + M')]``, M' the number of
        events met besides both: the larger score always adds more.

        Args:
            week: From 1 to ``num_weeks + 1``; the last is the week after the table.
            users: Raw ids that give the rows, such as ``list(user_map)`` or
                ``graph.raw_ids("user")``; None for all users in the order of ``self.users``.
            events: The same for the columns.

        Returns:
            ``[U, N]`` float32.

        Raises:
            ValueError: If the week is out of range or an id is unknown.
        """
        if (
            isinstance(week, bool)
            or not isinstance(week, int)
            or not 1 <= week <= self.num_weeks + 1
        ):
            raise ValueError(
                f"'week' needs to be an integer in 1..{self.num_weeks + 1}, the weeks of the table "
                f"and the one after it (got {week!r})"
            )
        trace = np.zeros((len(self.users), len(self.events)))
        for past in range(1, week):
            count = np.zeros_like(trace)
            rows = self.week == past
            count[self.user[rows], self.event[rows]] = self.count[rows]
            trace = generator.remember(trace, count)
        score = torch.from_numpy(generator.rates(self.latents, trace, week)).to(torch.float32)
        if users is not None:
            score = score[_positions("users", self.users, users)]
        if events is not None:
            score = score[:, _positions("events", self.events, events)]
        return score


def simulate_weekly(
    num_users: int = 1000,
    num_events: int = 500,
    num_weeks: int = 9,
    seed: int = 0,
    num_communities: int = 20,
    mean_interactions: float = 11.1,
    repeat_share: float = 0.25,
    season_strength: float = 0.8,
) -> tuple[pd.DataFrame, WeeklyOracle]:
    """Draws a table of weekly interests and its oracle; the same arguments give the same table.

    Users move within six weeks from one community of taste to another, events have seasons of
    four weeks, and what a user met in earlier weeks comes again, the likelier the nearer the week.
    Popularity and activity follow Zipf's law. ``tgrec.datasets._weekly_generator`` has the formula.

    Args:
        num_users: U.
        num_events: N.
        num_weeks: Weeks are numbered from 1.
        seed: Of everything.
        num_communities: K, at least 2.
        mean_interactions: Expected interactions per user and week, the mean over users.
        repeat_share: Share of a week's interest that goes to events met before, in [0, 1).
        season_strength: Amplitude of the seasons, in [0, 1).

    Returns:
        The table, with the columns ``ip_address`` (str), ``pixel_event_id``, ``n_interactions`` and
        ``week_number`` (int64), one row per user, event and week with a count of at least 1,
        ordered by week, user and event; and the oracle.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check_whole("num_users", num_users, 1)
    _check_whole("num_events", num_events, 1)
    _check_whole("num_weeks", num_weeks, 1)
    _check_whole("num_communities", num_communities, 2)
    _check_whole("seed", seed, 0)
    _check_share("repeat_share", repeat_share)
    _check_share("season_strength", season_strength)
    if not 0.0 < mean_interactions <= 100.0:
        raise ValueError(
            f"'mean_interactions' needs to be above 0 and at most 100 (got {mean_interactions!r})"
        )
    if num_users * num_events > MAX_CELLS:
        raise ValueError(
            f"'num_users' * 'num_events' needs to be at most {MAX_CELLS:,} "
            f"(got {num_users:,} * {num_events:,})"
        )
    latents = generator.make_latents(
        num_users, num_events, num_weeks, num_communities,
        mean_interactions, repeat_share, season_strength, seed,
    )  # fmt: skip
    parts = zip(*generator.make_weeks(latents, num_weeks, seed), strict=True)
    user, event, count, week = (np.concatenate(part) for part in parts)
    users = tuple(f"10.{u >> 16}.{u >> 8 & 255}.{u & 255}" for u in range(num_users))
    table = pd.DataFrame(
        {
            USER: np.asarray(users)[user],
            EVENT: event + 1,
            COUNT: count,
            WEEK: week,
        }
    )
    events = tuple(range(1, num_events + 1))
    return table, WeeklyOracle(latents, user, event, count, week, num_weeks, users, events)


def generate_dataset(
    path: str | os.PathLike[str] = "user_event_interactions.csv",
    num_users: int = 1000,
    num_events: int = 500,
    num_weeks: int = 9,
    seed: int = 0,
) -> pd.DataFrame:
    """Writes the table of :func:`simulate_weekly` as CSV and returns it.

    The file appears whole or not at all, and the same arguments give the same bytes.

    Raises:
        ValueError: If a size is not usable.
        OSError: If the file cannot be written.
    """
    table, _ = simulate_weekly(num_users, num_events, num_weeks, seed)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return table


def _positions(argument: str, known: Sequence[Any], wanted: Sequence[Any] | Tensor) -> Tensor:
    values = wanted.tolist() if isinstance(wanted, Tensor) else list(wanted)
    place = {name: row for row, name in enumerate(known)}
    unknown = [value for value in values if value not in place]
    if unknown:
        raise ValueError(
            f"'{argument}' holds {len(unknown)} ids that the simulation does not have, first "
            f"{unknown[:3]}; its ids are {known[0]!r} to {known[-1]!r}"
        )
    return torch.tensor([place[value] for value in values], dtype=torch.int64)


def _check_whole(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"'{name}' needs to be an integer of at least {low} (got {value!r})")


def _check_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise ValueError(f"'{name}' needs to be a number in [0, 1) (got {value!r})")
