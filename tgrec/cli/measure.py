"""A recommender as a measured run, and ``tgrec compare``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from tgrec.cli.data import TableFlags, load_data
from tgrec.cli.flags import find_model, given, options_class, spell_out, training_flags
from tgrec.data import TemporalRecGraph
from tgrec.data.files import write_text
from tgrec.datasets import checksum
from tgrec.metrics import bootstrap_interval, hit_ratio, mrr, ndcg, paired_bootstrap
from tgrec.models import MODELS
from tgrec.recommend import Recommender
from tgrec.recommend.folder import read_about
from tgrec.training import RankedRun, RunRecord, print_summary
from tgrec.training.record import command_line, environment
from tgrec.training.report import run_label

HISTORY = "train.json"
_METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "NDCG@10": lambda ranks: ndcg(ranks, 10),
    "HR@10": lambda ranks: hit_ratio(ranks, 10),
    "MRR": mrr,
}


@dataclass
class CompareOptions(TableFlags):
    """What is compared, on what."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of models, which are trained now, and folders of saved recommenders."""
    data: str | None = None
    """What to train on, as in 'tgrec train'; the data of the first folder if left out."""
    baseline: str | None = None
    """The one that all others are tested against; the first if left out."""
    sampled: bool | None = None
    """Also rank among drawn negatives (default: True)."""
    out: Path | None = None
    """Save the trained ones here, one folder each."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON."""


def compare(words: Sequence[str]) -> int:
    """Trains or loads several models and prints one table: metrics, intervals, paired tests.

    Args:
        words: What stands behind ``tgrec compare``.

    Returns:
        0, or 130 if training was interrupted.

    Raises:
        ValueError: If a name is unknown or there twice, or the folders are fitted on other data.
    """
    flags = training_flags()
    options = options_class(CompareOptions, flags, "Compares models on the same held-out events.")
    chosen: Any = tyro.cli(options, args=spell_out(words, options), prog="tgrec compare",
                           config=(tyro.conf.FlagCreatePairsOff,))  # fmt: skip
    named: list[str] = list(chosen.models)
    if len(named) < 2 or len(set(named)) < len(named):
        raise ValueError(f"MODELS: at least two different names or folders are needed (got "
                         f"{named})")  # fmt: skip
    folders = {name: Recommender.load(name) for name in named if Path(name).is_dir()}
    for name in set(named) - set(folders):
        find_model(name)
    training = given(chosen, flags)
    if len(folders) == len(named) and (training or chosen.data):
        raise ValueError("--data and training flags are for models to train; all are folders")
    graph = _common_data(folders, chosen)
    splits = {rec.split for rec in folders.values()} or {"leave_one_out"}
    if len(splits) > 1:
        raise ValueError(f"the folders hold out other events ({sorted(splits)}); a comparison "
                         f"needs the same")  # fmt: skip
    training = training | _common_track(folders, training)
    runs: dict[str, RankedRun] = {}
    for name in named:
        rec = folders.get(name)
        if rec is None:
            print(f"training {name}", file=sys.stderr)
            rec = Recommender(find_model(name)[0]).fit(graph, split=min(splits), **training)
            if rec.result is not None and rec.result.stopped == "interrupted":
                print(f"{name}: interrupted; nothing is compared", file=sys.stderr)
                return 130
            if chosen.out is not None:
                save(rec, chosen.out / name, training)
        folder = Path(name) if name in folders else None
        runs[name] = measured(rec, folder, chosen.sampled is not False, training)
    base = chosen.baseline or named[0]
    if base not in runs:
        raise ValueError(f"--baseline: {base!r} is none of {named}")
    if chosen.as_json:
        print(json.dumps(figures(runs, base), indent=2))
    else:
        print_summary(list(runs.values()), run_label(runs[base].record))
    return 0


def _common_track(folders: dict[str, Recommender], training: dict[str, Any]) -> dict[str, Any]:
    """The track of the folders, on which the others are trained; who knows more wins."""
    tracks = {rec.served.loader.track for rec in folders.values()}
    asked = {training["track"]} if "track" in training else set()
    if len(tracks | asked) > 1:
        raise ValueError(
            f"models on several tracks ({sorted(tracks | asked)}) were told different things; a "
            f"comparison needs one"
        )
    return {"track": min(tracks)} if tracks else {}


def save(rec: Recommender, folder: Path, training: dict[str, Any]) -> None:
    """A recommender, and beside it ``train.json``: what was asked for and how training went."""
    rec.save(folder)
    result = rec.result
    told = {} if result is None else dataclasses.asdict(result)
    told.pop("history", None)
    told["best"] = told.get("best") if told.get("best_epoch") else None
    about = {"command": command_line(), "training": training, "result": told, **environment()}
    write_text(folder / HISTORY, json.dumps(about, indent=2, default=str) + "\n")


def measured(
    rec: Recommender,
    folder: Path | None = None,
    sampled: bool = True,
    training: dict[str, Any] | None = None,
) -> RankedRun:
    """Evaluates a recommender on its held-out events, as the tables take it.

    Args:
        rec: Fitted or loaded.
        folder: Where it was loaded from, which tells how it was trained.
        sampled: Also rank among drawn negatives.
        training: Options that it was trained with, if it was trained now.
    """
    told = dataclasses.asdict(rec.result) if rec.result is not None else {}
    asked = training or {}
    if folder is not None:
        told = read_about(folder).get("fit", {})
        if (folder / HISTORY).is_file():
            about = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
            told, asked = about["result"], about["training"]
    evaluation = rec.evaluate(sampled=sampled)
    graph = rec.graph
    record = RunRecord(
        command=command_line(),
        protocol=rec.split,
        track=rec.served.loader.track,
        data=f"{graph.num_users:,} users, {graph.num_items:,} items, {graph.num_events:,} events",
        checksum=checksum(graph),
        model=type(rec.model).name_of(rec.name, rec.model.config),
        settings={**rec.model.config, **asked},
        parameters=rec.model.num_parameters(),
        seed=rec.seed,
        epochs=int(told.get("epochs", 0)),
        seconds=float(told.get("seconds", 0.0)),
        seconds_per_epoch=told.get("seconds_per_epoch") if told.get("epochs") else None,
        metrics=evaluation.metrics(),
        groups=evaluation.group_metrics(),
        variant=""
        if folder is None or folder.resolve().name == rec.name
        else folder.resolve().name,
        **environment(),
    )
    return RankedRun(record, evaluation.ranks, evaluation.targets.user, evaluation.groups)


def figures(runs: dict[str, RankedRun], baseline: str | None = None) -> dict[str, Any]:
    """The tables of :func:`tgrec.training.print_summary` as plain JSON values."""
    first = next(iter(runs.values())).record
    out: dict[str, Any] = {
        "protocol": first.protocol, "track": first.track, "data": first.data,
        "checksum": first.checksum, "models": {}, "tests": [],
    }  # fmt: skip
    for name, run in runs.items():
        full = run.ranks["full"]
        out["models"][name] = {
            "model": run.record.model,
            "parameters": run.record.parameters,
            "epochs": run.record.epochs,
            "metrics": run.record.metrics,
            "groups": run.record.groups,
            "intervals": {m: bootstrap_interval(f(full)) for m, f in _METRICS.items()},
        }
        if baseline is None or name == baseline:
            continue
        for metric, values in _METRICS.items():
            test = paired_bootstrap(values(full), values(runs[baseline].ranks["full"]))
            told = {"model": name, "baseline": baseline, "metric": metric}
            out["tests"].append({**told, **dataclasses.asdict(test)})
    return out


def _common_data(folders: dict[str, Recommender], chosen: CompareOptions) -> TemporalRecGraph:
    """What is compared on; the folders and ``--data`` need to agree."""
    graphs = {name: rec.graph for name, rec in folders.items()}
    if chosen.data is not None:
        graphs["--data"] = load_data(chosen.data, chosen)
    if not graphs:
        raise ValueError(f"--data is needed: there is no folder among {list(chosen.models)}, "
                         f"models are {', '.join(MODELS)}")  # fmt: skip
    sums = {name: checksum(graph) for name, graph in graphs.items()}
    first = next(iter(sums))
    for name, value in sums.items():
        if value != sums[first]:
            raise ValueError(f"{first} and {name} have other events; a comparison needs the same "
                             f"data")  # fmt: skip
    return graphs[first]
