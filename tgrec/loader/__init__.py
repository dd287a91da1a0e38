"""From seeds to the batches that models see."""

from tgrec.loader.seed_loader import SeedLoader, training_seeds
from tgrec.loader.tracks import TRACKS, Track, query_times

__all__ = ["TRACKS", "SeedLoader", "Track", "query_times", "training_seeds"]
