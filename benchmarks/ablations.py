"""What each part of a model is worth: the model without it, against the full one.

    python benchmarks/ablations.py
    python benchmarks/ablations.py --model enhanced_bert4rec --only "no profile" "no gap"
    python benchmarks/ablations.py --resume

One run per variant, all with the golden settings of the model, then one table: intervals over
users, and a paired bootstrap of each variant against the full model. How it is measured:
benchmarks/README.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ml1m
import torch
import tyro
from find_model import near
from golden import golden_of
from rich.console import Console
from rich.table import Table
from rich.text import Text
from terminal import RANK, end_with_summary, say
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.loader import Track
from tgrec.metrics import bootstrap_interval, ndcg, paired_bootstrap, summarize
from tgrec.models import MODELS
from tgrec.models.side_information import available_features
from tgrec.training import (
    RankedRun,
    RunRecord,
    Task,
    TrainingInterrupted,
    check_device,
    latest_folder,
    read_records,
    read_run,
    record_run,
    same_run,
)
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.report import alarm_of, board_title

FULL = "full"
# Of whom tables of their own are printed: name of the group, and how it is called in the title.
GROUPS = {
    "<=50": ", at most 50 events before the target",
    "rare item": ", targets of the rarer half of the items",
}
# Options that make another setting than the golden one, and how labels call them.
LABELLED = {"epochs": "epochs", "batch_size": "a batch"}
# What a record holds beside the settings of a run.
OUTCOMES = ("best_epoch", "val", "chosen", "device")


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
    dataset: ml1m.Dataset = "auto"
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
    flags = ml1m.Options(model=(options.model,), **{k: getattr(options, k) for k in common})
    task = ml1m.load_task(flags)
    say(f"board {task.board}, track {options.track}, data: {task.data}")
    check_features(options, variants, task.split.train)
    planned = [plan(options, flags, task, *variant) for variant in variants.items()]
    done = {one.label: read_back(one, task) for one in planned if is_finished(one.folder)}
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


def plan(
    options: Options, flags: ml1m.Options, task: Task, name: str, variant: Variant
) -> ml1m.Planned:
    """Builds one variant and finds the folder to go on with; writes nothing."""
    golden = golden_of(options.model, options.track)
    cls, train = MODELS[options.model], task.split.train
    changed = dict(variant.settings)
    if variant.without:
        changed["features"] = [f for f in available_features(train) if f not in variant.without]
    torch.manual_seed(options.seed)
    model = cls.from_graph(train, **{**ml1m.model_settings(flags, golden, cls), **changed})
    settings = ml1m.train_settings(flags, golden, task)
    slug = name.replace(",", "").replace(" ", "_")
    label = f"{options.model}-{slug}-{task.board}-{options.track}-seed{options.seed}"
    folder = begun(options.out, label) if options.resume else None
    return ml1m.Planned(
        options.model, label, model, settings, folder, variant=variant_label(options, name)
    )


def variant_label(options: Options, name: str) -> str:
    """What a record calls a variant: what differs from the golden setting, then its name."""
    given = {what: getattr(options, option) for option, what in LABELLED.items()}
    changed = ", ".join(f"{value} {what}" for what, value in given.items() if value is not None)
    return f"{changed}: {name}" if changed else "" if name == FULL else name


def name_of(one: ml1m.Planned) -> str:
    """Name of a variant."""
    return one.variant.rpartition(": ")[2] or FULL


def begun(out: Path, label: str) -> Path | None:
    """The newest folder of a run, if something is in it to go on with."""
    try:
        folder = latest_folder(out, label)
    except FileNotFoundError:
        return None
    return folder if is_finished(folder) or (folder / CHECKPOINT).is_file() else None


def is_finished(folder: Path | None) -> bool:
    """Whether a run came to its end; older interrupted ones left figures as well."""
    if folder is None or not (folder / "metrics.json").is_file():
        return False
    fitted = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["fit"]
    return bool(fitted["stopped"] != "interrupted")


def read_back(one: ml1m.Planned, task: Task) -> RankedRun:
    """A finished run; raises if it had other settings or other data."""
    assert one.folder is not None
    ranked = read_run(one.folder)
    wanted = json.loads(json.dumps({**one.model.config, **asdict(one.settings)}))
    wanted = {**wanted, "data": task.checksum}
    had = {**ranked.record.settings, "data": ranked.record.checksum}
    differing = [k for k in wanted if k not in OUTCOMES and wanted[k] != had.get(k)]
    if differing:
        changes = ", ".join(f"{k}: {had.get(k)!r} -> {wanted[k]!r}" for k in sorted(differing))
        raise ValueError(
            f"--resume: {one.folder} is of a run with other settings ({changes}); give the same "
            "ones, or another --out"
        )
    return replace(ranked, record=replace(ranked.record, variant=one.variant))


def record_once(file: Path | None, ranked: RankedRun) -> None:
    """Records a run that was read back, unless that was done when it ended."""
    if file is None or RANK > 0:
        return
    if not file.exists() or not any(same_run(ranked.record, r) for r in read_records(file)):
        record_run(file, ranked)


def print_ablations(runs: Sequence[RankedRun]) -> None:
    """Each variant against the first run: over all users, and over some of them."""
    # Without a terminal (a log file) rich assumes 80 columns and would fold every cell.
    console = Console(width=None if sys.stdout.isatty() else 180)
    base = runs[0]
    console.print(ablation_table(runs))
    for group, what in GROUPS.items():
        lacking = [
            run.record.variant.rpartition(": ")[2] or FULL
            for run in runs
            if group not in run.groups
        ]
        if lacking:
            say(f"no table of {group!r}: {', '.join(lacking)} ran before this group was measured")
        elif bool(base.groups[group].any()):
            console.print(ablation_table(runs, group, what))
    for record in (run.record for run in runs):
        say_alarm(console, record)


def ablation_table(runs: Sequence[RankedRun], group: str | None = None, what: str = "") -> Table:
    """NDCG@10, HR@10 and MRR of the full ranking over the users of a group, or over all."""
    base = runs[0]
    title = f"{board_title(base.record)}: {base.record.model} seed {base.record.seed}{what}"
    table = Table(
        title=Text(f"{title}, paired bootstrap over users against the full model"),
        caption="NDCG@10, HR@10 and MRR of the full ranking; intervals cover 95 %.",
        title_justify="left",
        caption_justify="left",
    )
    heads = ("variant", "params", "epochs", "users", "NDCG@10", "interval", "HR@10", "MRR",
             "difference", "relative", "interval", "p")  # fmt: skip
    for head in heads:
        table.add_column(Text(head), justify="left" if head == "variant" else "right")
    for run in runs:
        ranks = ranks_of(run, group)
        low, high = bootstrap_interval(ndcg(ranks, 10))
        figures = summarize(ranks)
        table.add_row(
            run.record.variant.rpartition(": ")[2] or FULL,
            f"{run.record.parameters:,}",
            str(run.record.epochs),
            f"{ranks.numel():,}",
            f"{figures['NDCG@10']:.4f}",
            Text(f"[{low:.4f}, {high:.4f}]"),
            f"{figures['HR@10']:.4f}",
            f"{figures['MRR']:.4f}",
            *(["-"] * 4 if run is base else against(run, base, group)),
        )
    return table


def ranks_of(run: RankedRun, group: str | None) -> Tensor:
    """The full ranking's ranks of a group, or of all."""
    return run.ranks["full"] if group is None else run.ranks["full"][run.groups[group]]


def against(run: RankedRun, base: RankedRun, group: str | None) -> list[str | Text]:
    """The cells of a paired test."""
    assert run.user is not None
    assert base.user is not None
    users = (run.user, base.user)
    if group is not None:
        users = (run.user[run.groups[group]], base.user[base.groups[group]])
    a, b = (ndcg(ranks_of(one, group), 10) for one in (run, base))
    test = paired_bootstrap(a, b, users=users)
    relative = "-" if test.relative is None else f"{100 * test.relative:+.1f} %"
    interval = Text(f"[{test.low:+.4f}, {test.high:+.4f}]")
    return [f"{test.difference:+.4f}", relative, interval, f"{test.p_value:.4f}"]


def say_alarm(console: Console, record: RunRecord) -> None:
    """A figure that is too good to be true is said to be one."""
    if alarm := alarm_of(record):
        console.print(Text(alarm, style="bold red"))


if __name__ == "__main__":
    main()
