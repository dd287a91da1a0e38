"""Trains and measures models on MovieLens-1M (and the other boards), honestly.

    python benchmarks/ml1m.py --model tgt_bert4rec
    python benchmarks/ml1m.py --models popularity markov sasrec --board ml1m-time
    python benchmarks/ml1m.py --model my_model.py:MyModel --dataset simulated
    python benchmarks/ml1m.py --model sasrec --refit runs/sasrec-ml1m-loo-T1-seed0

Without MovieLens-1M and without a network it says so and runs on simulated data. What stands on
each board and how it is measured: benchmarks/README.md.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from find_model import find_model, made_as, near
from golden import golden_of
from ml1m_options import (
    Options,
    as_the_run,
    check_flags,
    check_read,
    in_words,
    model_settings,
    train_settings,
)
from saved import load_teacher, load_weights, saved_config
from terminal import RANK, end_with_summary, say, spell_out
from tie_audits import keep_audit

from tgrec.cli.flags import refuse_repeated
from tgrec.data.files import write_text
from tgrec.datasets import BOARDS, DatasetNotFound, checksum
from tgrec.models import MODELS, RecModel
from tgrec.models.io import not_found_out, parameters_digest
from tgrec.training import (
    RankedRun,
    Refit,
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
    read_refit,
    record_run,
    run,
)
from tgrec.training.record import is_refit

DEFAULT_BOARD = {"ml1m": "ml1m-loo", "ml100k": "ml100k-seed", "simulated": "simulated-loo"}


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
    refit: Refit | None = None
    variant: str = ""  # label of the record
    further: Mapping[str, Any] = field(default_factory=dict)  # settings for the record


def run_all(options: Options, words: Sequence[str] = ()) -> list[RankedRun]:
    """One run per model, as asked for in these words; the same board, track and seed for all."""
    refuse_repeated(words, Options)
    if not options.model:
        raise ValueError(f"--model needs at least one of {list(MODELS)} or FILE.py:CLASS")
    classes = [find_model(name) for name in options.model]
    refit = None if options.refit is None else read_refit(options.refit)
    if refit is not None:
        options = as_the_run(options, words, refit.record)
    check_flags(options, classes)
    check_device(options.device)
    task = load_task(options)
    say(f"board {task.board}, track {options.track}, data: {task.data}")
    # All of them before the first is trained: an hour later is no time to find a typing error.
    teacher = load_teacher(options.teacher, task, options.distill_at, options.distill_weight)
    if refit is not None:
        planned = [plan_refit(options, task, *classes[0], refit)]
    else:
        planned = [taught(plan(options, task, *model), teacher, options) for model in classes]
    check_read(options, dict(zip(options.model, (one.model for one in planned), strict=True)))
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
    name = cls.name_of(name, model.config)
    label = f"{name}-{task.board}-{options.track}-seed{options.seed}"
    folder = latest_folder(options.out, label) if options.resume else None
    # What starts from other weights, or only asks them, is no run like those from scratch.
    further = {} if options.weights is None else {"weights": parameters_digest(model.state_dict())}
    if options.weights is not None and is_refit(saved := saved_config(options.weights)):
        if not options.eval_only:
            raise ValueError(
                f"--weights: {options.weights} was trained on the events of validation too, by "
                f"which this run would be chosen; use --eval-only, or the run that it was made from"
            )
        further["refit_of"] = saved["refit_of"]
    return Planned(name, label, model, settings, folder, further=further)


def plan_refit(
    options: Options, task: Task, name: str, cls: type[RecModel], refit: Refit
) -> Planned:
    """The model of a run, built anew of the events of train and validation; writes nothing."""
    run, made = refit.record, made_as(refit.record)
    if name not in (run.model, made) or len(options.model) > 1:
        raise ValueError(
            f"--refit: {options.refit} is a run of {run.model!r}; give --model {made} alone"
        )
    if run.checksum != task.checksum:
        raise ValueError(f"--refit: the data of {options.refit} are others than these; use --root")
    torch.manual_seed(options.seed)
    try:
        model = cls.from_graph(task.fitted_on(True).train, **refit.config)
    except TypeError as error:
        raise ValueError(
            f"--refit: {options.refit} has settings that {cls.__name__} does not take ({error}); "
            f"it may be of another version"
        ) from error
    settings = dataclasses.replace(refit.settings, device=options.device)
    name = cls.name_of(name, model.config)
    label = f"{name}-{task.board}-{options.track}-seed{options.seed}-refit"
    folder = latest_folder(options.out, label) if options.resume else None
    return Planned(name, label, model, settings, folder, refit=refit)


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
    model, settings, fitted_on = one.model, one.settings, task.fitted_on(one.refit is not None)
    if RANK > 0:  # one of torchrun's further processes trains with the others and leaves no trace
        if options.eval_only:
            return None
        result = fit(
            model, fitted_on, settings, folder=one.folder, show=False, teacher=one.teacher,
            resume=options.resume and model.num_parameters() > 0,
        )  # fmt: skip
        result.check_finished(settings.metric)
        return None
    folder = one.folder or new_folder(options.out, one.label)
    parameters, events = model.num_parameters(), fitted_on.train.num_events
    say(f"{one.name}: {parameters:,} parameters, {events:,} training events, run folder {folder}")
    ranked = run(one.name, model, task, settings, folder, resume=options.resume,
                 train=not options.eval_only, extra={"options": in_words(options)},
                 further_settings=one.further, teacher=one.teacher,
                 refit=one.refit)  # fmt: skip
    if one.variant:
        labelled = dataclasses.replace(ranked.record, variant=one.variant)
        ranked = dataclasses.replace(ranked, record=labelled)
    if options.record is not None:
        record_run(options.record, ranked)
    audit = audit_ties(one, task, folder) if options.tie_audit else {}
    if options.record is not None and audit:
        keep_audit(options.record.parent, ranked.record, audit)
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


def audit_ties(one: Planned, task: Task, folder: Path) -> dict[str, list[float]]:
    """NDCG@10 with the order inside ties permuted, 5 draws, printed and kept in the run folder.

    Weights and targets stay; models that only count are also split and counted anew after all
    ties were permuted, the targets' own included.
    """
    model, settings = one.model, one.settings
    permuted = audited_splits(task.split, task.split.test)
    kinds = {"order in ties of the history permuted": [(model, s) for s in permuted]}
    if model.num_parameters() == 0:
        refit = one.refit is not None or is_refit(one.further)
        given = not_found_out(model.config)
        anew = [BOARDS[task.board].split(permute_ties(task.split.graph, seed)) for seed in range(5)]
        fitted = [(split.with_validation() if refit else split).train for split in anew]
        counted = [type(model).from_graph(train, **given) for train in fitted]
        kinds["split and counted anew after permuting"] = list(zip(counted, anew, strict=True))
    audit: dict[str, list[float]] = {}
    for kind, pairs in kinds.items():
        measured = [
            evaluate(m, split, split.test, track=settings.track, sampled=False,
                     remove_seen=task.remove_seen, device=settings.device)
            for m, split in pairs
        ]  # fmt: skip
        audit[kind] = [evaluation.metrics()["full"]["NDCG@10"] for evaluation in measured]
        low, high, mean = min(audit[kind]), max(audit[kind]), sum(audit[kind]) / len(audit[kind])
        say(f"tie audit of {one.name}, {kind}: NDCG@10 {mean:.4f} ({low:.4f} to {high:.4f})")
    write_text(folder / "tie_audit.json", json.dumps(audit, indent=2) + "\n")
    return audit


if __name__ == "__main__":
    main()
