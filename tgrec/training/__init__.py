"""Training, measuring, and what a run leaves behind."""

from tgrec.training.allocator import keep_freed_memory
from tgrec.training.checkpoint import load_checkpoint, save_checkpoint
from tgrec.training.distill import Teacher
from tgrec.training.evaluate import SAMPLED, Evaluation, evaluate
from tgrec.training.finished import read_refit, read_run
from tgrec.training.fit import fit
from tgrec.training.kept_ranks import (
    KeptRanks,
    keep_ranks,
    ranks_path,
    read_kept_ranks,
    record_run,
    same_run,
)
from tgrec.training.ratings import bias_model, foretells_ratings, rating_rmse
from tgrec.training.record import REFIT, RunRecord, append_record, read_records
from tgrec.training.refit import Refit
from tgrec.training.report import RankedRun, print_summary
from tgrec.training.result import FitResult
from tgrec.training.run import Task, latest_folder, new_folder, read_ranks, run
from tgrec.training.settings import TrainSettings, autocast, check_device
from tgrec.training.stop import NotFiniteError, TrainingInterrupted
from tgrec.training.tie_audit import audited_splits, permute_ties
from tgrec.training.user_vectors import (
    UserTable,
    read_user_vectors,
    user_table,
    with_user_vectors,
    write_user_vectors,
)

__all__ = [
    "REFIT",
    "SAMPLED",
    "Evaluation",
    "FitResult",
    "KeptRanks",
    "NotFiniteError",
    "RankedRun",
    "Refit",
    "RunRecord",
    "Task",
    "Teacher",
    "TrainSettings",
    "TrainingInterrupted",
    "UserTable",
    "append_record",
    "audited_splits",
    "bias_model",
    "autocast",
    "check_device",
    "evaluate",
    "fit",
    "foretells_ratings",
    "keep_freed_memory",
    "keep_ranks",
    "latest_folder",
    "load_checkpoint",
    "new_folder",
    "permute_ties",
    "print_summary",
    "ranks_path",
    "rating_rmse",
    "read_kept_ranks",
    "read_ranks",
    "read_records",
    "read_refit",
    "read_run",
    "read_user_vectors",
    "record_run",
    "run",
    "same_run",
    "save_checkpoint",
    "user_table",
    "with_user_vectors",
    "write_user_vectors",
]
