"""From seeds to the batches that models see."""

from tgrec.loader.seed_loader import WINDOWS, SeedLoader, training_seeds
from tgrec.loader.tracks import TRACKS, Track, query_times

__all__ = ["TRACKS", "WINDOWS", "SeedLoader", "Track", "query_times", "training_seeds"]
