"""What each part of a model is worth: the model without it, against the full one.

    python benchmarks/ablations.py
    python benchmarks/ablations.py --model enhanced_bert4rec --only "no profile" "no gap"
    python benchmarks/ablations.py --resume

One run per variant, all with the golden settings of the model, then one table: intervals over
users, and a paired bootstrap of each variant against the full model. How it is measured:
benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ml1m
import torch
import tyro
from ablation_runs import (
    FULL,
    begun,
    is_finished,
    print_ablations,
    read_back,
    record_once,
    short_name,
    variant_label,
)
from find_model import near
from golden import golden_of
from ml1m_options import Dataset, model_settings, train_settings
from ml1m_options import Options as Flags
from terminal import end_with_summary, say

from tgrec.data import TemporalRecGraph
from tgrec.loader import Track
from tgrec.models import MODELS
from tgrec.models.side_information import available_features
from tgrec.training import RankedRun, Task, TrainingInterrupted, check_device


@dataclass(frozen=True)
class Variant:
    """What is changed of the full model: settings, and features that it does not read."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


# The user's id is learned from ratings alone, so that it goes where they, or their task, go.
ABLATIONS: dict[str, dict[str, Variant]] = {
    "tgt_bert4rec": {
        FULL: Variant(),
        "no graph": Variant({"use_graph": False}),
        "no time": Variant({"use_time": False}),
        "no vectors of times": Variant({"time_vectors": False}),
        "no genres and years": Variant({"item_features": False}),
        "feed-forward blocks": Variant({"tgt_gated": False, "tgt_d_ff": 64}),
        "BERT only": Variant({"fusion_alpha": 1.0}),
        "TGT only": Variant({"fusion_alpha": 0.0}),
        "learned alpha": Variant(
            {
                "learnable_fusion": True,
                "fusion_alpha": 0.3,
                "graph_weight": 2.0,
                "choose_gates": False,
            }
        ),
    },
    "enhanced_bert4rec": {
        FULL: Variant(),
        "no graph": Variant({"use_graph": False}),
        "no genre, no year": Variant(without=("genre", "year")),
        "no popularity": Variant(without=("popularity",)),
        "no profile": Variant(without=("gender", "age", "occupation")),
        "no user id": Variant(without=("user",)),
        "no rating, no user id": Variant(without=("rating", "user")),
        "no calendar": Variant(without=("calendar",)),
        "no gap": Variant(without=("gap",)),
        "item tasks only, no user id": Variant(
            {"task_weights": {"rating_prediction": 0.0, "user_preference": 0.0}}
        ),
    },
}


@dataclass
class Options:
    """What to run."""

    model: str = "tgt_bert4rec"
    """tgt_bert4rec or enhanced_bert4rec."""
    only: tuple[str, ...] = ()
    """Variants to run beside the full model; by default all."""
    board: str | None = None
    """As in ml1m.py, and so are the other options."""
    track: Track = "T1"
    """T1, T2 or T2-coarse."""
    dataset: Dataset = "auto"
    """auto: MovieLens-1M where it can be had, else the simulated set."""
    root: Path | None = None
    """Folder with the data; by default $TGREC_DATA, else the user's cache."""
    out: Path = Path("runs")
    """Every run leaves a folder here."""
    record: Path | None = None
    """Append the results to this file of records, and keep their ranks in ranks/ beside it."""
    seed: int = 0
    """Of all runs."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    resume: bool = False
    """Read finished variants back from --out, continue the one that was interrupted."""
    epochs: int | None = None
    """At most so many."""
    batch_size: int | None = None
    """Sequences per step, on average."""


def main() -> None:
    """Parses the command line and runs it."""
    end_with_summary(lambda: run_all(tyro.cli(Options, description=__doc__)), show=print_ablations)


def run_all(options: Options) -> list[RankedRun]:
    """One run per variant that is not finished yet; the full model is the first."""
    variants = chosen(options)
    check_device(options.device)
    common = vars(options).keys() - {"model", "only", "resume"}
    flags = Flags(model=(options.model,), **{k: getattr(options, k) for k in common})
    task = ml1m.load_task(flags)
    say(f"board {task.board}, track {options.track}, data: {task.data}")
    check_features(options, variants, task.split.train)
    planned = differing(
        options, [plan(options, flags, task, *variant) for variant in variants.items()]
    )
    done = {
        one.label: read_back(
            one.folder, {**one.model.config, **asdict(one.settings)}, task, one.variant
        )
        for one in planned
        if one.folder is not None and is_finished(one.folder)
    }
    left = [name_of(one) for one in planned if one.label not in done]
    number = "1 run" if len(left) == 1 else f"{len(left)} runs"
    also = f"; read back from {options.out}: {len(done)}" if done else ""
    say(f"{number} of {options.model}: {', '.join(left) or 'none'}{also}")
    runs = []
    for one in planned:
        if one.label in done:
            runs.append(done[one.label])
            record_once(options.record, runs[-1])
            continue
        say(f"{name_of(one)}:")
        resume = replace(flags, resume=one.folder is not None)
        try:
            ranked = ml1m.run_one(resume, task, one)
        except TrainingInterrupted as stopped:
            say(f"{name_of(one)}: {stopped}; --resume finishes it and what is left")
            break
        runs += [ranked] if ranked is not None else []
    return runs


def chosen(options: Options) -> dict[str, Variant]:
    """The variants to run, the full model first."""
    if options.model == "trigrec":
        raise ValueError("--model trigrec has domains; use benchmarks/trigrec.py ablations")
    if options.model not in ABLATIONS:
        raise ValueError(
            f"--model: there are no ablations of {options.model!r}"
            f"{near(options.model, list(ABLATIONS))}"
        )
    variants = ABLATIONS[options.model]
    for name in options.only:
        if name not in variants:
            raise ValueError(
                f"--only: {name!r} is no variant of {options.model}{near(name, list(variants))}"
            )
    return {k: v for k, v in variants.items() if k in (FULL, *(options.only or variants))}


def differing(options: Options, planned: Sequence[ml1m.Planned]) -> list[ml1m.Planned]:
    """The full model, and the variants that are another one with this golden setting."""
    full = planned[0].model.config
    same = [name_of(one) for one in planned[1:] if one.model.config == full]
    asked = [name for name in same if name in options.only]
    if asked:
        raise ValueError(
            f"--only: {asked[0]!r} is the full model on track {options.track}, since its golden "
            f"setting is like that already; leave it out"
        )
    if same:
        say(f"left out, since the full model on track {options.track} is like that: "
            f"{', '.join(same)}")  # fmt: skip
    return [one for one in planned if one is planned[0] or one.model.config != full]


def check_features(
    options: Options, variants: Mapping[str, Variant], train: TemporalRecGraph
) -> None:
    """Leaving out what the data do not have would be the full model under another name."""
    there = available_features(train)
    for name, variant in variants.items():
        if variant.without and not set(variant.without) & set(there):
            others = [k for k in variants if k not in (FULL, name)]
            raise ValueError(
                f"{name!r} of {options.model}: the data have no {' and no '.join(variant.without)}"
                f" to leave out; choose others of {others} with --only"
            )


def plan(options: Options, flags: Flags, task: Task, name: str, variant: Variant) -> ml1m.Planned:
    """Builds one variant and finds the folder to go on with; writes nothing."""
    golden = golden_of(options.model, options.track)
    cls, train = MODELS[options.model], task.split.train
    changed = dict(variant.settings)
    if variant.without:
        changed["features"] = [f for f in available_features(train) if f not in variant.without]
    torch.manual_seed(options.seed)
    model = cls.from_graph(train, **{**model_settings(flags, golden, cls), **changed})
    settings = train_settings(flags, golden, task)
    slug = name.replace(",", "").replace(" ", "_")
    label = f"{options.model}-{slug}-{task.board}-{options.track}-seed{options.seed}"
    folder = begun(options.out, label) if options.resume else None
    return ml1m.Planned(
        options.model, label, model, settings, folder, variant=variant_label(name, vars(options))
    )


def name_of(one: ml1m.Planned) -> str:
    """Name of a variant."""
    return short_name(one.variant)


if __name__ == "__main__":
    main()
