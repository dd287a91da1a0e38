"""What each part of TriGRec is worth: benchmarks/trigrec.py ablations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ablation_runs import FULL, begun, is_finished, read_back, record_once, variant_label
from find_model import near
from terminal import say
from trigrec_plan import PARTS, Plan, plan_for
from trigrec_stages import recommend, recommender, second_begun, train_users

from tgrec.training import RankedRun, TrainingInterrupted, record_run

# Name -> options that differ from those of the full model.
ABLATIONS: dict[str, Mapping[str, Any]] = {
    FULL: {},
    "no adversary": {"without": ("adversary",)},
    "no separation": {"without": ("separation",)},
    "no alignment": {"without": ("alignment",)},
    "no graph": {"without": ("graph",)},
    "no graph encoder": {"without": ("encoder",)},
    "sequence only": {"inputs": "sequence"},
    "vectors only": {"inputs": "vectors"},
    "joint": {"joint": True},
}


def run_ablations(plan: Plan) -> list[RankedRun]:
    """One run per variant that is not finished yet; the full model is the first."""
    variants = differing(plan, chosen(plan.options.only))
    say(f"{len(variants)} variants of trigrec: {', '.join(variants)}")
    runs: list[RankedRun] = []
    trained: set[str] = set()
    for name, one in variants.items():
        say(f"{name}:")
        try:
            runs.append(run_variant(one, variant_label(name, plan.given), trained))
        except TrainingInterrupted as stopped:
            say(f"{name}: {stopped}; --resume finishes it and what is left")
            break
    return runs


def chosen(only: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    """The variants to run, the full model first."""
    for name in only:
        if name not in ABLATIONS:
            raise ValueError(
                f"--only: {name!r} is no variant of trigrec{near(name, list(ABLATIONS))}"
            )
    return {k: v for k, v in ABLATIONS.items() if k in (FULL, *(only or ABLATIONS))}


def differing(plan: Plan, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Plan]:
    """The plans of the full model, and of the variants that are another one with what was given."""
    plans = {name: changed(plan, changes) for name, changes in variants.items()}
    made = {name: (one.model, one.options.joint) for name, one in plans.items()}
    same = [name for name in variants if name != FULL and made[name] == made[FULL]]
    like = f"the full model with --override {plan.options.override!r}"
    if asked := [name for name in same if name in plan.options.only]:
        raise ValueError(
            f"--only: {asked[0]!r} is {like}; leave it out, or what it lacks out of --override"
        )
    if same:
        say(f"left out, being {like}: {', '.join(same)}")
    return {name: one for name, one in plans.items() if name not in same}


def changed(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    """The plan of a variant; a part that it lacks has no weight to give."""
    options = replace(plan.options, **changes)
    lacking = {PARTS[part] for part in options.without}
    given = {k: v for k, v in plan.given.items() if k not in lacking}
    return plan_for(options, plan.task, plan.names, given)


def run_variant(plan: Plan, variant: str, trained: set[str]) -> RankedRun:
    """Trains and measures a variant, or reads it back.

    Args:
        plan: Of the variant.
        variant: Label of its record.
        trained: Stages 1 that this call has trained, by label: variants share them.
    """
    options, label = plan.options, plan.label("users")
    if plan.two_stages and label not in trained:
        train_users(plan, begun(options.out, label) if options.resume else None)
        trained.add(label)
    stage = recommender(plan)
    folder = second_begun(plan, stage) if options.resume else None
    if folder is not None and is_finished(folder):
        say(f"read back from {folder}")
        settings = {**stage.model.config, **asdict(plan.settings), **stage.further}
        ranked = of_trigrec(read_back(folder, settings, plan.task, variant), variant)
        record_once(options.record, ranked)
        return ranked
    ranked = of_trigrec(recommend(plan, stage, folder), variant)
    if options.record is not None:
        record_run(options.record, ranked)
    return ranked


def of_trigrec(ranked: RankedRun, variant: str) -> RankedRun:
    """A run as a variant of trigrec: under its own name, trigrec_joint is compared with nothing."""
    return replace(ranked, record=replace(ranked.record, model="trigrec", variant=variant))
