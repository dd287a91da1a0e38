"""Datasets as temporal graphs, simulated ones with a known oracle, and the boards on them."""

from tgrec.datasets._clean import (
    clean_items,
    clean_users,
    features_only,
    graph_of_tables,
    words_in,
)
from tgrec.datasets._fetch import ChecksumError, DataFileError, DatasetNotFound
from tgrec.datasets._side import item_table, user_table
from tgrec.datasets._store import load_graph, save_graph
from tgrec.datasets.boards import BOARDS, Board, checksum, load_board
from tgrec.datasets.card import DataCard, Leak, data_card, leave_one_out_leak
from tgrec.datasets.describe import describe
from tgrec.datasets.interactions import read_interactions
from tgrec.datasets.movielens import MovieLens1M, MovieLens100K, movielens_1m, movielens_100k
from tgrec.datasets.online_retail import OnlineRetail, online_retail
from tgrec.datasets.simulated import SimulatedMovieLens, Simulation, simulate_movielens
from tgrec.datasets.simulated_domains import DomainOracle, simulate_domains
from tgrec.datasets.trigrec import TriGRecData, item_domains, read_domains, trigrec
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
    "DataCard",
    "DataFileError",
    "DatasetNotFound",
    "DomainOracle",
    "Leak",
    "MovieLens100K",
    "MovieLens1M",
    "OnlineRetail",
    "SimulatedMovieLens",
    "Simulation",
    "TriGRecData",
    "WeeklyOracle",
    "by_week",
    "checksum",
    "clean_items",
    "clean_users",
    "create_weekly_heterodata_from_df",
    "data_card",
    "describe",
    "features_only",
    "generate_dataset",
    "graph_of_tables",
    "id_features",
    "item_domains",
    "item_table",
    "leave_one_out_leak",
    "load_board",
    "load_graph",
    "load_interactions_from_csv",
    "movielens_100k",
    "movielens_1m",
    "online_retail",
    "read_domains",
    "read_interactions",
    "save_graph",
    "simulate_domains",
    "simulate_movielens",
    "simulate_weekly",
    "user_table",
    "trigrec",
    "week_cut",
    "week_number",
    "week_range",
    "week_targets",
    "weekly_graph",
    "words_in",
]
