"""Trains and measures TriGRec: users in two domains, one of which is asked for.

    python benchmarks/trigrec.py all --target food
    python benchmarks/trigrec.py train --override "lr=0.0005,batch_size=64,num_epochs=50"
    python benchmarks/trigrec.py export --target food --override "EPOCH_TO_LOAD=4,SPE_DOMAIN=B"
    python benchmarks/trigrec.py recommend --target food
    python benchmarks/trigrec.py baselines --target food --models popularity markov bert4rec
    python benchmarks/trigrec.py baselines --target food --models sasrec trigrec --where alone
    python benchmarks/trigrec.py ablations --target food --only "no graph" joint

train learns the vectors of users (stage 1), export writes them into files, recommend trains the
recommender on them (stage 2), and all does the three and draws. ablations leaves out one part at a
time and tests the rest against the full model, user by user. Without TriGRec's data it says so
and runs on simulated domains. What stands on the boards: benchmarks/README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
import tyro
from ablation_runs import print_ablations
from golden import golden_of
from overrides import kinds_of
from terminal import end_with_summary, say
from trigrec_ablations import run_ablations
from trigrec_plan import MODEL_KINDS, SMALL, Options, Plan, make_plan, train_settings
from trigrec_stages import export, read_vectors, recommend, recommender, second_begun, train_users

from tgrec.cli.flags import refuse_repeated
from tgrec.data import only_domain
from tgrec.models import MODELS
from tgrec.training import (
    RankedRun,
    Task,
    latest_folder,
    new_folder,
    print_summary,
    record_run,
    run,
)


def main() -> None:
    """Parses the command line and runs it."""
    options = tyro.cli(Options, description=__doc__)
    show = print_ablations if options.command == "ablations" else print_summary
    end_with_summary(lambda: run_command(options, sys.argv[1:]), show)


def run_command(options: Options, words: Sequence[str] = ()) -> list[RankedRun]:
    """Does what was asked, in these words; returns what was measured."""
    refuse_repeated(words, Options)
    plan = make_plan(options)
    say(f"board {plan.task.board}, data: {plan.task.data}")
    read_vectors(plan)  # before anything is trained: an hour later is no time to find a wrong file
    if options.command == "baselines":
        return [one for name in options.models for one in run_baseline(plan, name)]
    if options.command == "ablations":
        return run_ablations(plan)
    going_on = options.resume and options.command != "recommend"
    if options.command == "train" or (options.command == "all" and plan.two_stages):
        label = plan.label("users")
        train_users(plan, latest_folder(options.out, label) if going_on else None)
    if options.command == "export" or (options.command == "all" and plan.two_stages):
        export(plan)
    if options.command not in ("recommend", "all"):
        return []
    stage = recommender(plan)
    resumed = None
    if options.resume:
        resumed = (
            second_begun(plan, stage)
            if options.command == "all"
            else latest_folder(options.out, plan.label(stage.name))
        )
    return [finish(plan, recommend(plan, stage, resumed))]


def run_baseline(plan: Plan, name: str) -> list[RankedRun]:
    """A model on the target domain alone, on all domains pooled, or both."""
    target, task, out = plan.options.target, plan.task, []
    golden = golden_of(name)
    sizes = {"max_len": 50, **(SMALL if task.board.startswith("simulated") else {})}
    sizes |= {k: v for k, v in plan.given.items() if k in MODEL_KINDS}
    cls = MODELS[name]
    takes = kinds_of(cls)
    model: dict[str, Any] = {k: v for k, v in sizes.items() if k in takes}
    if name == "trigrec":  # of one domain: its sequence and its counts, no vectors to read
        model |= {"stage": "recommender", "inputs": "sequence"}
    for where in plan.options.where:
        if (name, where) == ("trigrec", "pooled"):
            continue  # what the command ablations calls "sequence only"
        split = only_domain(task.split, target) if where == "alone" else task.split
        torch.manual_seed(plan.seed)
        built = cls.from_graph(split.train, **{**golden.model, **model})
        label = f"{name}_{where}"
        folder = new_folder(plan.options.out, f"{label}-{task.board}-seed{plan.seed}")
        one = Task(task.board, task.data, task.checksum, split, task.remove_seen, task.sampled)
        ranked = run(label, built, one, train_settings(name, task, plan.given), folder)
        out.append(finish(plan, ranked))
    return out


def finish(plan: Plan, ranked: RankedRun) -> RankedRun:
    """Appends the record, if that was asked for."""
    if plan.options.record is not None:
        record_run(plan.options.record, ranked)
    return ranked


if __name__ == "__main__":
    main()
