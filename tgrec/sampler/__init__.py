"""One index, and the samplers that read it: (seed, cut) in, strictly earlier events out."""

from tgrec.sampler.event_index import EventIndex, EventList
from tgrec.sampler.history import HistorySampler, past_items
from tgrec.sampler.negative import NegativeSampler
from tgrec.sampler.neighbor import TemporalNeighborSampler

__all__ = [
    "EventIndex",
    "EventList",
    "HistorySampler",
    "NegativeSampler",
    "TemporalNeighborSampler",
    "past_items",
]
