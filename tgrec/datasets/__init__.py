"""Datasets as temporal graphs, simulated ones with a known oracle, and the boards on them."""

from tgrec.datasets._fetch import ChecksumError, DataFileError, DatasetNotFound
from tgrec.datasets._store import load_graph, save_graph
from tgrec.datasets.boards import BOARDS, Board, checksum, load_board
from tgrec.datasets.describe import describe
from tgrec.datasets.movielens import MovieLens1M, MovieLens100K, movielens_1m, movielens_100k
from tgrec.datasets.online_retail import OnlineRetail, online_retail
from tgrec.datasets.simulated import SimulatedMovieLens, Simulation, simulate_movielens
from tgrec.datasets.weekly import WeeklyOracle, generate_dataset, simulate_weekly
from tgrec.datasets.weekly_table import (
    create_weekly_heterodata_from_df,
    id_features,
    load_interactions_from_csv,
    weekly_graph,
)
from tgrec.datasets.weeks import by_week, week_cut, week_number, week_range, week_targets

__all__ = [
    "BOARDS",
    "Board",
    "ChecksumError",
    "DataFileError",
    "DatasetNotFound",
    "MovieLens100K",
    "MovieLens1M",
    "OnlineRetail",
    "SimulatedMovieLens",
    "Simulation",
    "WeeklyOracle",
    "by_week",
    "checksum",
    "create_weekly_heterodata_from_df",
    "describe",
    "generate_dataset",
    "id_features",
    "load_board",
    "load_graph",
    "load_interactions_from_csv",
    "movielens_100k",
    "movielens_1m",
    "online_retail",
    "save_graph",
    "simulate_movielens",
    "simulate_weekly",
    "week_cut",
    "week_number",
    "week_range",
    "week_targets",
    "weekly_graph",
]
