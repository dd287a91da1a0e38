"""From scores to ranks, from ranks to metrics; imports nothing else of tgrec."""

from tgrec.metrics._check import NanScoreError
from tgrec.metrics.candidates import pairs_of, sampled_negatives
from tgrec.metrics.compare import PairedTest, bootstrap_interval, paired_bootstrap
from tgrec.metrics.consistency import check_consistent, feasible_mrr, feasible_ndcg
from tgrec.metrics.precision_recall import PrecisionRecall, precision_recall_at_k
from tgrec.metrics.rank import candidate_ranks, target_ranks, top_k
from tgrec.metrics.ranking import (
    MISS,
    group_summaries,
    hit_ratio,
    length_groups,
    mrr,
    ndcg,
    summarize,
)

__all__ = [
    "MISS",
    "NanScoreError",
    "PairedTest",
    "PrecisionRecall",
    "bootstrap_interval",
    "candidate_ranks",
    "check_consistent",
    "feasible_mrr",
    "feasible_ndcg",
    "group_summaries",
    "hit_ratio",
    "length_groups",
    "mrr",
    "ndcg",
    "paired_bootstrap",
    "pairs_of",
    "precision_recall_at_k",
    "sampled_negatives",
    "summarize",
    "target_ranks",
    "top_k",
]
