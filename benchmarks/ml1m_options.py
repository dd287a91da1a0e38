"""The options of benchmarks/ml1m.py, and what they make of a model and of its training."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from golden import Golden

from tgrec.cli.flags import given_flags
from tgrec.loader import Track
from tgrec.models import RecModel
from tgrec.nn.transformer import Positions
from tgrec.training import RunRecord, Task, TrainSettings
from tgrec.training.record import check_appendable

Dataset = Literal["auto", "ml1m", "ml100k", "simulated"]


@dataclass
class Options:
    """What to run. Settings left out are the golden ones of each model (benchmarks/golden.py)."""

    model: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--models"])] = ("tgt_bert4rec",)
    """Names from tgrec.models.MODELS, or FILE.py:CLASS; several give one table."""
    board: str | None = None
    """One of ml1m-loo, ml1m-seed, ml1m-sasrec, ml1m-time, ml100k-seed, simulated-loo."""
    track: Track = "T1"
    """T1: history only. T2: the query time is given. T2-coarse: it is rounded up to the hour."""
    dataset: Dataset = "auto"
    """auto: MovieLens-1M where it can be had, else the simulated set."""
    root: Path | None = None
    """Folder with the data; by default $TGREC_DATA, else the user's cache."""
    out: Path = Path("runs")
    """Every run leaves a folder here."""
    record: Path | None = None
    """Append the result to this file of records, and keep its ranks in ranks/ beside it."""
    seed: int = 0
    """Of the weights, the order of batches, the masks and the dropout."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    resume: bool = False
    """Continue the newest run of this name in --out, bit-equal to one that never stopped."""
    weights: Path | None = None
    """Start from a saved model: a run folder, or its 'model' folder."""
    eval_only: bool = False
    """Do not train; needs --weights for models that learn."""
    refit: Path | None = None
    """Train what a finished run trained anew, on train and validation: its folder."""
    teacher: tuple[Path, ...] = ()
    """Learn from saved models of this board too, of any track; several are asked as an ensemble."""
    distill_at: Literal["end", "all"] | None = None
    """Ask the teacher at the end of each training sequence (if left out), or at all positions."""
    distill_weight: float | None = None
    """Its share in the loss, in (0, 1]; 0.5 if left out."""
    tie_audit: bool = False
    """Also measure with the order inside ties of the histories permuted, 5 draws; kept with
    --record."""

    epochs: int | None = None
    """At most so many."""
    patience: int | None = None
    """Stop after so many evaluations without a better validation NDCG@10."""
    eval_every: int | None = None
    """Evaluate after every so many epochs."""
    batch_size: int | None = None
    """Sequences per step, on average."""
    lr: float | None = None
    """Learning rate."""
    weight_decay: float | None = None
    """Decoupled weight decay."""
    warmup_steps: int | None = None
    """Steps of linear warm-up."""
    lr_decay: Literal["none", "cosine"] | None = None
    """How the learning rate falls."""
    accumulate: int | None = None
    """Batches per step of the optimizer."""
    clip: float | None = None
    """Largest norm of the gradient, 0 for none."""
    windows: Literal["last", "all", "random", "early"] | None = None
    """Train on each user's last max_len events, on all in windows, or on a window that moves."""
    precision: Literal["auto", "bf16", "fp32"] | None = None
    """Of products."""

    d_model: int | None = None
    """Width."""
    n_heads: int | None = None
    """Attention heads."""
    n_blocks: int | None = None
    """Blocks (of each branch)."""
    d_ff: int | None = None
    """Width of the feed-forward layers."""
    tgt_blocks: int | None = None
    """Blocks of the TGT branch, where they are not as many as of the BERT branch."""
    tgt_d_ff: int | None = None
    """Width of its feed-forward layers, likewise."""
    tgt_gated: bool | None = None
    """Whether the TGT branch has gates in the place of feed-forward layers."""
    time_vectors: bool | None = None
    """Whether the TGT branch reads vectors of gaps and of the period beside its attention."""
    item_features: bool | None = None
    """Whether genres and years of items are part of the item vectors (tgt_bert4rec)."""
    temperature: float | None = None
    """Where the learned temperature of cosine logits starts; 0 for inner products."""
    max_len: int | None = None
    """Events read per user."""
    dropout: float | None = None
    """Dropout."""
    mask_prob: float | None = None
    """Share of positions masked (BERT branch)."""
    last_prob: float | None = None
    """Share of sequences in which only the last position is masked (BERT branch)."""
    positions: Positions | None = None
    """Kind of position vectors."""
    tgt_fusion_alpha: float | None = None
    """Share of the BERT branch; 1 is that branch alone, 0 the TGT branch alone."""
    tgt_learnable_fusion: bool | None = None
    """Whether that share and the weight of the graph are learned."""
    graph_weight: float | None = None
    """Weight of the item-item transitions in the scores."""
    choose_gates: bool | None = None
    """Whether share and weight are chosen on validation; not if one is given here, or learned."""
    use_time: bool | None = None
    """Whether the TGT branch reads times."""
    use_graph: bool | None = None
    """Whether item-item transitions are read (TGT branch; scores of enhanced_bert4rec)."""
    hidden_channels: int | None = None
    """Width (graph encoders)."""
    num_neighbors: tuple[int, ...] | None = None
    """Events per node in each hop, the user's own first (graph encoders)."""


# Options that are settings of a model, by the name of its argument.
MODEL_FLAGS = {
    **{n: n for n in ("d_model", "n_heads", "n_blocks", "d_ff", "max_len", "dropout", "mask_prob",
                      "last_prob", "positions", "use_time", "use_graph", "hidden_channels",
                      "num_neighbors", "tgt_blocks", "tgt_d_ff", "tgt_gated", "time_vectors",
                      "item_features", "temperature", "graph_weight", "choose_gates")},
    "tgt_fusion_alpha": "fusion_alpha",
    "tgt_learnable_fusion": "learnable_fusion",
}  # fmt: skip
TRAIN_FLAGS = ("epochs", "patience", "eval_every", "batch_size", "lr", "weight_decay",
               "warmup_steps", "lr_decay", "accumulate", "clip", "windows",
               "precision")  # fmt: skip


def check_flags(options: Options, classes: list[tuple[str, type[RecModel]]]) -> None:
    """A flag that no chosen model takes would do nothing: say so instead."""
    if options.record is not None:
        check_appendable(options.record)
    for flag, argument in MODEL_FLAGS.items():
        if getattr(options, flag) is None:
            continue
        if not any(takes(cls, argument) for _, cls in classes):
            raise ValueError(f"--{flag}: none of {[n for n, _ in classes]} has that setting")
        if options.weights is not None:
            raise ValueError(f"--{flag}: the model in --weights has its own; leave one of them out")
    for flag in (*TRAIN_FLAGS, "teacher") if options.eval_only else ():
        if getattr(options, flag) not in (None, ()):
            raise ValueError(f"--{flag}: --eval-only trains nothing; leave one of them out")
    if options.weights is not None and len(classes) > 1:
        raise ValueError(f"--weights belongs to one model (got {len(classes)} models)")


def check_read(options: Options, models: Mapping[str, RecModel]) -> None:
    """Nor would one that they take and, built as they are, do not read."""
    for flag in (*MODEL_FLAGS, *TRAIN_FLAGS):
        reasons = [why_unread(model, flag) for model in models.values()]
        if getattr(options, flag) is not None and all(reasons):
            why = ", ".join(dict.fromkeys(filter(None, reasons)))
            raise ValueError(f"--{flag} is not read by {' and '.join(models)}: {why}; leave it out")


def why_unread(model: RecModel, flag: str) -> str | None:
    """Why a model makes no use of a flag; None if it does."""
    if flag in TRAIN_FLAGS:
        return None if model.num_parameters() else "what only counts is not trained"
    if not takes(type(model), MODEL_FLAGS[flag]):
        return "there is no such setting"
    return model.unread().get(MODEL_FLAGS[flag])


# What may be said of a refit: it has the settings, the board, the track and the seed of its run.
OF_A_REFIT = {"model", "dataset", "root", "out", "record", "device", "resume", "refit", "tie_audit"}


def as_the_run(options: Options, words: Sequence[str], run: RunRecord) -> Options:
    """The options of a refit with what its run says; raises for what would be another training."""
    for flag in given_flags(words, Options):
        asked, had = getattr(options, flag), vars(run).get("protocol" if flag == "board" else flag)
        if flag in ("weights", "eval_only", "teacher", "distill_at", "distill_weight"):
            raise ValueError(f"--{flag}: a refit trains as its run did, from nothing; leave it out")
        if flag not in OF_A_REFIT and not (flag in ("board", "track", "seed") and asked == had):
            kept = "" if had is None else f", {had!r}"
            raise ValueError(f"--{flag}: a refit has that of its run{kept}; leave it out")
    return dataclasses.replace(
        options, board=run.protocol, track=cast(Track, run.track), seed=run.seed
    )


def takes(cls: type[RecModel], argument: str) -> bool:
    """Whether a model's constructor has an argument."""
    return argument in inspect.signature(cls.__init__).parameters


def model_settings(options: Options, golden: Golden, cls: type[RecModel]) -> dict[str, Any]:
    """Golden settings, overridden by flags."""
    given = {
        a: getattr(options, f) for f, a in MODEL_FLAGS.items() if getattr(options, f) is not None
    }
    if {"fusion_alpha", "graph_weight"} & given.keys() or given.get("learnable_fusion"):
        given = {"choose_gates": False, "choose_weight": False, **given}  # what is asked for stays
    if "tgt_d_ff" in given:
        given.setdefault("tgt_gated", False)  # only feed-forward layers have a width
    return {**golden.model, **{a: v for a, v in given.items() if takes(cls, a)}}


def train_settings(options: Options, golden: Golden, task: Task) -> TrainSettings:
    """Golden settings, overridden by flags."""
    given = {f: getattr(options, f) for f in TRAIN_FLAGS if getattr(options, f) is not None}
    common = {"track": options.track, "seed": options.seed, "device": options.device,
              "remove_seen": task.remove_seen}  # fmt: skip
    return TrainSettings(**{**golden.train, **given, **common})


def in_words(options: Options) -> dict[str, Any]:
    """What was asked for, for the run's folder."""
    given = {k: v for k, v in dataclasses.asdict(options).items() if v not in (None, ())}
    given |= {k: v.name for k, v in given.items() if isinstance(v, Path)}
    return {**given, **({"teacher": [f.name for f in options.teacher]} if options.teacher else {})}
