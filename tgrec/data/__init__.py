"""The temporal graph, its splits, and the batches that models see."""

from tgrec.data.batch import History, RecBatch, Sampling, SoftLabels, Targets
from tgrec.data.domain_split import leave_one_out_in, only_domain
from tgrec.data.recognise import Columns, graph_from, recognise_columns
from tgrec.data.reverse import reverse_type, with_reverse
from tgrec.data.split import Split, global_time_split, leave_one_out
from tgrec.data.temporal_graph import TemporalRecGraph

__all__ = [
    "Columns",
    "History",
    "RecBatch",
    "Sampling",
    "SoftLabels",
    "Split",
    "Targets",
    "TemporalRecGraph",
    "global_time_split",
    "graph_from",
    "leave_one_out",
    "leave_one_out_in",
    "only_domain",
    "recognise_columns",
    "reverse_type",
    "with_reverse",
]
