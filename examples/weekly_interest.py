"""What users turn to next week: popularity, last week again, SAGE, SAGE with a Transformer, oracle.

python examples/weekly_interest.py
python examples/weekly_interest.py --csv sales.csv --user-column customer --event-column product
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tgrec.datasets import checksum
from tgrec.datasets.weekly_source import csv_weeks, online_retail_weeks, simulated_weeks
from tgrec.plots import draw_weeks
from tgrec.training import append_record
from tgrec.training.weekly_run import Question, compare, print_table, records, write_top
from tgrec.training.weekly_settings import WeeklySettings, Weeks


@dataclass
class Options:
    dataset: Literal["simulated", "online-retail"] = "simulated"
    """Simulated interests with a known oracle, or the purchases of a real shop."""
    csv: Path | None = None
    """A table of your own instead: a row per user, event and week."""
    user_column: str = "ip_address"
    event_column: str = "pixel_event_id"
    count_column: str = "n_interactions"
    """May be missing in the table: then every row counts one."""
    week_column: str = "week_number"
    target_week: int | None = None
    """Which week to predict; by default the last full one."""
    joint: bool = False
    """Also train SAGE and Transformer together."""
    out: Path = Path("runs/weekly")
    """Where the top 5 of every user, a picture and the simulated table go."""
    record: Path | None = None
    """Append the results to this file of records."""
    train: Annotated[WeeklySettings, tyro.conf.arg(name="")] = field(default_factory=WeeklySettings)


def main(options: Options) -> None:
    settings = options.train
    if options.csv is not None:
        columns = (options.user_column, options.event_column, options.count_column)
        data = csv_weeks(options.csv, *columns, options.week_column)
    elif options.dataset == "online-retail":
        data = online_retail_weeks()
    else:
        data = simulated_weeks(options.out, settings.seed)
    number = data.target if options.target_week is None else options.target_week
    weeks = Weeks(data.graph, data.cuts, data.first)
    question, say = Question(weeks, number - data.first), partial(print, flush=True)
    sizes = f"{data.graph.num_users:,} users, {data.graph.num_items:,} events"
    say(f"{data.name}: {sizes}, {len(weeks)} weeks; asked about: week {number}")
    truth = data.truth(number)
    found = compare(question, settings, joint=options.joint, oracle=truth, say=say)
    print_table(question, found, data.name)
    best = found[-1 if truth is None else -2]  # the oracle is the last one
    write_top(options.out / "top5.csv", question, best.top, data.columns)
    if options.record is not None:
        for record in records(question, found, settings, data.name, checksum(data.graph)):
            append_record(options.record, record)
    user, first = question.typical_user(), max(0, question.target - settings.weeks_of_history)
    names = [str(data.first + week) for week in range(first, question.target + 1)]
    cuts, picture = data.cuts[first : question.target + 2], options.out / "user.png"
    draw_weeks(data.graph, user, cuts, names, best.top[user].tolist(), picture)
    say(f"wrote {options.out / 'top5.csv'} and {picture}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
