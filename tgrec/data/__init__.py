"""The temporal graph, its splits, and the batches that models see."""

from tgrec.data.batch import History, RecBatch, Sampling, Targets
from tgrec.data.reverse import reverse_type, with_reverse
from tgrec.data.split import Split, global_time_split, leave_one_out
from tgrec.data.temporal_graph import TemporalRecGraph

__all__ = [
    "History",
    "RecBatch",
    "Sampling",
    "Split",
    "Targets",
    "TemporalRecGraph",
    "global_time_split",
    "leave_one_out",
    "reverse_type",
    "with_reverse",
]
