"""Datasets as temporal graphs, simulated ones with a known oracle, and the boards on them."""

from tgrec.datasets._fetch import ChecksumError, DataFileError, DatasetNotFound
from tgrec.datasets._store import load_graph, save_graph
from tgrec.datasets.boards import BOARDS, Board, checksum, load_board
from tgrec.datasets.describe import describe
from tgrec.datasets.movielens import MovieLens1M, MovieLens100K, movielens_1m, movielens_100k
from tgrec.datasets.simulated import SimulatedMovieLens, Simulation, simulate_movielens

__all__ = [
    "BOARDS",
    "Board",
    "ChecksumError",
    "DataFileError",
    "DatasetNotFound",
    "MovieLens100K",
    "MovieLens1M",
    "SimulatedMovieLens",
    "Simulation",
    "checksum",
    "describe",
    "load_board",
    "load_graph",
    "movielens_100k",
    "movielens_1m",
    "save_graph",
    "simulate_movielens",
]
