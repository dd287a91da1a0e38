"""From seeds to the batches that models see."""

from tgrec.loader.guest import GuestReader, reader_below
from tgrec.loader.link_loader import TemporalLinkLoader, link_neighbor_loader
from tgrec.loader.neighborhood import NeighborhoodReader
from tgrec.loader.seed_loader import WINDOWS, SeedLoader, training_seeds
from tgrec.loader.tracks import TRACKS, Track, query_times

__all__ = [
    "TRACKS",
    "WINDOWS",
    "GuestReader",
    "NeighborhoodReader",
    "SeedLoader",
    "TemporalLinkLoader",
    "Track",
    "link_neighbor_loader",
    "query_times",
    "reader_below",
    "training_seeds",
]
