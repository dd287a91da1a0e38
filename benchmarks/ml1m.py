"""Trains and measures models on MovieLens-1M (and the other boards), honestly.

    python benchmarks/ml1m.py --model tgt_bert4rec
    python benchmarks/ml1m.py --models popularity markov sasrec --board ml1m-time
    python benchmarks/ml1m.py --model my_model.py:MyModel --dataset simulated

Without MovieLens-1M and without a network it says so and runs on simulated data. What stands on
each board and how it is measured: benchmarks/README.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from find_model import find_model, near
from golden import Golden, golden_of
from saved import load_teacher, load_weights, saved_config
from terminal import RANK, end_with_summary, say, spell_out

from tgrec.cli.flags import refuse_repeated
from tgrec.data.files import write_text
from tgrec.datasets import BOARDS, DatasetNotFound, checksum
from tgrec.loader import Track
from tgrec.models import MODELS, RecModel
from tgrec.models.io import parameters_digest
from tgrec.nn.transformer import Positions
from tgrec.training import (
    RankedRun,
    Task,
    Teacher,
    TrainingInterrupted,
    TrainSettings,
    audited_splits,
    check_device,
    evaluate,
    fit,
    latest_folder,
    new_folder,
    permute_ties,
    record_run,
    run,
)

Dataset = Literal["auto", "ml1m", "ml100k", "simulated"]
DEFAULT_BOARD = {"ml1m": "ml1m-loo", "ml100k": "ml100k-seed", "simulated": "simulated-loo"}


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
    teacher: tuple[Path, ...] = ()
    """Learn from saved models of this board too, of any track; several are asked as an ensemble."""
    distill_at: Literal["end", "all"] | None = None
    """Ask the teacher at the end of each training sequence (if left out), or at all positions."""
    distill_weight: float | None = None
    """Its share in the loss, in (0, 1]; 0.5 if left out."""
    tie_audit: bool = False
    """Also measure with the order inside ties of the histories permuted, 5 draws."""

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


def main() -> None:
    """Parses the command line and runs it."""
    config = (tyro.conf.FlagConversionOff,)
    words = spell_out(sys.argv[1:], Options)
    options = tyro.cli(Options, args=words, description=__doc__, config=config)
    end_with_summary(lambda: run_all(options, words))


@dataclass(frozen=True)
class Planned:
    """A run about to start: what can be wrong with its options has been found out."""

    name: str
    label: str
    model: RecModel
    settings: TrainSettings
    folder: Path | None  # of the run to resume
    teacher: Teacher | None = None
    variant: str = ""  # label of the record
    further: Mapping[str, Any] = field(default_factory=dict)  # settings for the record


def run_all(options: Options, words: Sequence[str] = ()) -> list[RankedRun]:
    """One run per model, as asked for in these words; the same board, track and seed for all."""
    refuse_repeated(words, Options)
    if not options.model:
        raise ValueError(f"--model needs at least one of {list(MODELS)} or FILE.py:CLASS")
    classes = [find_model(name) for name in options.model]
    check_flags(options, classes)
    check_device(options.device)
    task = load_task(options)
    say(f"board {task.board}, track {options.track}, data: {task.data}")
    # All of them before the first is trained: an hour later is no time to find a typing error.
    teacher = load_teacher(options.teacher, task, options.distill_at, options.distill_weight)
    planned = [taught(plan(options, task, *model), teacher, options) for model in classes]
    runs = []
    for number, one in enumerate(planned, start=1):
        try:
            ranked = run_one(options, task, one)
        except TrainingInterrupted as stopped:
            left = [other.name for other in planned[number:]]
            say(
                f"{one.name}: {stopped}; --resume finishes it"
                + (f"; not run: {left}" if left else "")
            )
            break
        runs += [ranked] if ranked is not None else []
    return runs


def plan(options: Options, task: Task, name: str, cls: type[RecModel]) -> Planned:
    """Builds one model; raises for every option that does not fit it, and writes nothing."""
    golden = golden_of(name, options.track)
    settings = train_settings(options, golden, task)
    torch.manual_seed(options.seed)
    if options.weights is None:
        model = cls.from_graph(task.split.train, **model_settings(options, golden, cls))
    else:
        model = load_weights(options.weights, [cls], task)
        track = saved_config(options.weights).get("track", options.track)
        if options.eval_only and track != options.track:
            raise ValueError(
                f"--weights: {options.weights} was trained on track {track}, where other times are "
                f"known; use --track {track}"
            )
    if options.eval_only and options.weights is None and model.num_parameters():
        raise ValueError(f"--eval-only: {name} has learned parameters; give them with --weights")
    label = f"{name}-{task.board}-{options.track}-seed{options.seed}"
    folder = latest_folder(options.out, label) if options.resume else None
    # What starts from other weights, or only asks them, is no run like those from scratch.
    further = {} if options.weights is None else {"weights": parameters_digest(model.state_dict())}
    return Planned(name, label, model, settings, folder, further=further)


def taught(one: Planned, teacher: Teacher | None, options: Options) -> Planned:
    """The run with a teacher, which its record names."""
    if teacher is None:
        return one
    teacher.ready_for(one.model, torch.device("cpu"))  # raises for what does not go together
    names = [name for name, cls in MODELS.items() if type(teacher.model) is cls]
    variant = f"taught by {names[0] if names else 'an ensemble'} on {teacher.track}"
    return dataclasses.replace(
        one, teacher=teacher, variant=variant, further={**one.further, "teacher": teacher.identity}
    )


def run_one(options: Options, task: Task, one: Planned) -> RankedRun | None:
    """Trains and measures one model; None in the further processes of torchrun."""
    model, settings = one.model, one.settings
    if RANK > 0:  # one of torchrun's further processes trains with the others and leaves no trace
        if options.eval_only:
            return None
        result = fit(
            model, task.split, settings, folder=one.folder, show=False, teacher=one.teacher,
            resume=options.resume and model.num_parameters() > 0,
        )  # fmt: skip
        result.check_finished(settings.metric)
        return None
    folder = one.folder or new_folder(options.out, one.label)
    parameters, events = model.num_parameters(), task.split.train.num_events
    say(f"{one.name}: {parameters:,} parameters, {events:,} training events, run folder {folder}")
    ranked = run(one.name, model, task, settings, folder, resume=options.resume,
                 train=not options.eval_only, extra={"options": _plain(options)},
                 further_settings=one.further, teacher=one.teacher)  # fmt: skip
    labelled = dataclasses.replace(ranked.record, variant=one.variant)
    ranked = dataclasses.replace(ranked, record=labelled)
    if options.tie_audit:
        audit_ties(one.name, model, task, settings, folder)
    if options.record is not None:
        record_run(options.record, ranked)
    return ranked


def load_task(options: Options) -> Task:
    """The board; on ``--dataset auto`` the simulated one if MovieLens cannot be had."""
    dataset = options.dataset
    wanted = options.board or DEFAULT_BOARD["ml1m" if dataset == "auto" else dataset]
    if wanted not in BOARDS:
        raise ValueError(f"--board: there is no {wanted!r}{near(wanted, list(BOARDS))}")
    if BOARDS[wanted].sampled is not None:
        raise ValueError(f"--board {wanted} has domains; it is measured by benchmarks/trigrec.py")
    if dataset != "auto" and not wanted.startswith(dataset):
        raise ValueError(f"--board {wanted} is not on --dataset {dataset}; leave one of them out")
    try:
        graph = BOARDS[wanted].load(options.root, True)
    except DatasetNotFound as error:
        if dataset != "auto" or options.board is not None:
            raise
        # The first line that anybody sees: what follows is not MovieLens.
        say(f"MovieLens-1M could not be had, so this runs on SIMULATED data. {error}")
        wanted = "simulated-loo"
        graph = BOARDS[wanted].load(options.root, True)
    board = BOARDS[wanted]
    data = board.dataset if not wanted.startswith("simulated") else f"SIMULATED ({board.dataset})"
    return Task(board.tag, data, checksum(graph), board.split(graph), board.remove_seen)


def check_flags(options: Options, classes: list[tuple[str, type[RecModel]]]) -> None:
    """A flag that no chosen model takes would do nothing: say so instead."""
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


def audit_ties(
    name: str, model: RecModel, task: Task, settings: TrainSettings, folder: Path
) -> None:
    """NDCG@10 with the order inside ties permuted, 5 draws, printed and kept in the run folder.

    Weights and targets stay; models that only count are also split and counted anew after all
    ties were permuted, the targets' own included.
    """
    permuted = audited_splits(task.split, task.split.test)
    kinds = {"order in ties of the history permuted": [(model, s) for s in permuted]}
    if model.num_parameters() == 0:
        anew = [BOARDS[task.board].split(permute_ties(task.split.graph, seed)) for seed in range(5)]
        kinds["split and counted anew after permuting"] = [
            (type(model).from_graph(split.train), split) for split in anew
        ]
    audit = {}
    for kind, pairs in kinds.items():
        measured = [
            evaluate(m, split, split.test, track=settings.track, sampled=False,
                     remove_seen=task.remove_seen, device=settings.device)
            for m, split in pairs
        ]  # fmt: skip
        audit[kind] = [evaluation.metrics()["full"]["NDCG@10"] for evaluation in measured]
        low, high, mean = min(audit[kind]), max(audit[kind]), sum(audit[kind]) / len(audit[kind])
        say(f"tie audit of {name}, {kind}: NDCG@10 {mean:.4f} ({low:.4f} to {high:.4f})")
    write_text(folder / "tie_audit.json", json.dumps(audit, indent=2) + "\n")


def _plain(options: Options) -> dict[str, Any]:
    given = {k: v for k, v in dataclasses.asdict(options).items() if v not in (None, ())}
    given |= {k: v.name for k, v in given.items() if isinstance(v, Path)}
    return {**given, **({"teacher": [f.name for f in options.teacher]} if options.teacher else {})}


if __name__ == "__main__":
    main()
