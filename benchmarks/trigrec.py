"""Trains and measures TriGRec: users in two domains, one of which is asked for.

    python benchmarks/trigrec.py all --target food
    python benchmarks/trigrec.py train --override "lr=0.0005,batch_size=64,num_epochs=50"
    python benchmarks/trigrec.py export --target food --override "EPOCH_TO_LOAD=80,SPE_DOMAIN=B"
    python benchmarks/trigrec.py recommend --target food
    python benchmarks/trigrec.py baselines --target food --models popularity markov bert4rec

train learns the vectors of users (stage 1), export writes them into files, recommend trains the
recommender on them (stage 2), and all does the three and draws. Without TriGRec's data it says so
and runs on simulated domains. What stands on the boards: benchmarks/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from find_model import near
from golden import golden_of
from overrides import kinds_of, parse_overrides
from terminal import end_with_summary, say

from tgrec.data import only_domain
from tgrec.data.files import write_text
from tgrec.datasets import BOARDS, DatasetNotFound, checksum
from tgrec.loader import SeedLoader
from tgrec.models import MODELS, RecModel, TriGRec, load_model, save_model
from tgrec.plots import draw_gates, draw_monitored, draw_user_vectors
from tgrec.sampler import EventIndex
from tgrec.training import (
    RankedRun,
    Task,
    TrainSettings,
    fit,
    latest_folder,
    new_folder,
    read_user_vectors,
    record_run,
    run,
    user_table,
    write_user_vectors,
)

Command = Literal["train", "export", "recommend", "all", "baselines"]
Part = Literal["adversary", "alignment", "separation", "graph"]
PARTS = {"graph": "use_graph", **{n: n for n in ("adversary", "alignment", "separation")}}
STAGE1 = "stage1.json"  # summary of a stage 1 that came to its end
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Models that ml1m.py knows as well, on the target domain alone and on all of them pooled.
BASELINES = ("popularity", "markov", "bert4rec", "sasrec")
SMALL = {"d_model": 32, "n_blocks": 1, "d_ff": 64, "max_len": 16}  # for simulated domains
QUICK = {"epochs": 24, "eval_every": 6, "batch_size": 128, "lr": 5e-3, "warmup_steps": 20}
MODEL_KINDS = {k: v for k, v in kinds_of(TriGRec).items()
               if k not in ("num_items", "num_domains", "target", "stage", "loaded", "num_users",
                            "num_edges")}  # fmt: skip
TRAIN_KINDS = {
    k: v for k, v in kinds_of(TrainSettings).items() if k not in ("track", "remove_seen")
}
FILE_KINDS = {"EPOCH_TO_LOAD": int, "SPE_DOMAIN": str, "spe_emb_path": str, "cross_emb_path": str}


@dataclass
class Options:
    """What to run."""

    command: Annotated[Command, tyro.conf.Positional]
    """train, export, recommend, all (the three), or baselines."""
    target: Literal["food", "kitchen"] = "food"
    """The domain that is asked for."""
    override: str = ""
    """Settings as NAME=VALUE,NAME=VALUE: of training, of the model, and the seed's names."""
    dataset: Literal["auto", "trigrec", "simulated"] = "auto"
    """auto: TriGRec's data where they can be had, else simulated domains."""
    root: Path | None = None
    """Folder with the data; by default $TGREC_DATA, else the user's cache."""
    out: Path = Path("runs")
    """Every run leaves a folder here."""
    record: Path | None = None
    """Append results to this file of records, and keep their ranks in ranks/ beside it."""
    joint: bool = False
    """Train both stages at once (recommend, all)."""
    without: tuple[Part, ...] = ()
    """Parts to leave out: adversary, alignment, separation, graph."""
    inputs: Literal["both", "sequence", "vectors"] = "both"
    """What the recommender reads: sequence and vectors of users, or one of them."""
    models: tuple[str, ...] = BASELINES
    """Of the command baselines."""
    save_every: int = 10
    """Keep the weights of every so many epochs of stage 1 (EPOCH_TO_LOAD)."""
    resume: bool = False
    """Go on with the newest run of the same name."""


@dataclass(frozen=True)
class Plan:
    """Options, checked, with the board loaded."""

    options: Options
    task: Task
    settings: TrainSettings
    model: dict[str, Any]
    files: dict[str, Any]
    given: dict[str, Any]  # settings of training in --override
    names: list[str]  # of the domains

    def label(self, what: str) -> str:
        """Name of the run folder: what, board, seed, and what was left out."""
        left_out = "".join(f"-no_{part}" for part in sorted(self.options.without))
        inputs = "" if self.options.inputs == "both" else f"-{self.options.inputs}"
        return f"{what}{left_out}{inputs}-{self.task.board}-seed{self.settings.seed}"


def main() -> None:
    """Parses the command line and runs it."""
    end_with_summary(lambda: run_command(tyro.cli(Options, description=__doc__)))


def run_command(options: Options) -> list[RankedRun]:
    """Does what was asked; returns what was measured."""
    overrides = parse_overrides(options.override, {**TRAIN_KINDS, **MODEL_KINDS, **FILE_KINDS})
    for name in options.models:
        if name not in MODELS or name == "trigrec":
            raise ValueError(f"--models: {name!r} is no baseline{near(name, list(MODELS))}")
    if options.command in ("train", "export") and (options.joint or options.inputs == "sequence"):
        raise ValueError(f"{options.command} is about stage 1; leave --joint and --inputs out")
    plan = make_plan(options, overrides)
    say(f"board {plan.task.board}, data: {plan.task.data}")
    if options.command == "baselines":
        return [one for name in options.models for one in run_baseline(plan, name)]
    two_stages = not options.joint and options.inputs != "sequence"
    if options.command == "train" or (options.command == "all" and two_stages):
        train_users(plan)
    if options.command == "export" or (options.command == "all" and two_stages):
        export(plan)
    return [recommend(plan)] if options.command in ("recommend", "all") else []


def make_plan(options: Options, overrides: Mapping[str, Any]) -> Plan:
    """Loads the board and puts the settings together: golden ones, then those given."""
    task, names = load_task(options)
    small = task.board.startswith("simulated")
    model = {**golden_of("trigrec").model, **(SMALL if small else {}), "inputs": options.inputs}
    model |= {PARTS[part]: False if part == "graph" else 0.0 for part in options.without}
    given = {k: v for k, v in overrides.items() if k in TRAIN_KINDS}
    if "graph_weight" in overrides:  # what is asked for stays
        model["choose_weight"] = False
    model |= {k: v for k, v in overrides.items() if k in MODEL_KINDS}
    files = {k: v for k, v in overrides.items() if k in FILE_KINDS}
    if files.get("SPE_DOMAIN", "A") not in LETTERS[: len(names)]:
        raise ValueError(
            f"--override: SPE_DOMAIN needs to be one of {list(LETTERS[: len(names)])}, for "
            f"{names} (got {files['SPE_DOMAIN']!r})"
        )
    settings = train_settings("trigrec", task, given)
    return Plan(options, task, settings, model, files, given, names)


def train_settings(name: str, task: Task, given: Mapping[str, Any]) -> TrainSettings:
    """Golden settings of a model, quick ones on simulated domains, and what was given."""
    golden = golden_of(name).train
    quick = QUICK if task.board.startswith("simulated") else {}
    return TrainSettings(**{**golden, **quick, **given, "remove_seen": task.remove_seen})


def load_task(options: Options) -> tuple[Task, list[str]]:
    """The board and the names of its domains."""
    dataset = "simulated" if options.dataset == "simulated" else "trigrec"
    try:
        graph = BOARDS[f"{dataset}-{options.target}"].load(options.root, False)
    except DatasetNotFound as error:
        if options.dataset != "auto":
            raise
        # The first line that anybody sees: what follows is not TriGRec's data.
        say(f"TriGRec's data could not be had, so this runs on SIMULATED data. {error}")
        dataset = "simulated"
        graph = BOARDS[f"{dataset}-{options.target}"].load(options.root, False)
    board = BOARDS[f"{dataset}-{options.target}"]
    data = f"SIMULATED ({board.dataset})" if dataset == "simulated" else board.dataset
    task = Task(board.tag, data, checksum(graph), board.split(graph), board.remove_seen,
                board.sampled or {})  # fmt: skip
    return task, [t[1] for t in graph.interaction_types]


# ---- stage 1 -----------------------------------------------------------------------------------


def train_users(plan: Plan) -> Path:
    """Trains the vectors of users; returns the run folder."""
    options, label = plan.options, plan.label("users")
    folder = latest_folder(options.out, label) if options.resume else new_folder(options.out, label)
    model = first_stage(plan)
    say(f"stage 1: {model.num_parameters():,} parameters, run folder {folder}")

    def keep(epoch: int) -> None:
        if epoch % options.save_every == 0:
            save(model, folder / "epochs" / f"{epoch:04d}", plan)

    result = fit(model, plan.task.split, plan.settings, folder=folder, resume=options.resume,
                 after_epoch=keep)  # fmt: skip
    if result.best_epoch:
        save(model, folder / "model", plan)
    if result.stopped == "interrupted":
        (folder / STAGE1).unlink(missing_ok=True)  # of before a finished run went on
        result.check_finished(plan.settings.metric)
    about = {"best_epoch": result.best_epoch, "epochs": result.epochs, "stopped": result.stopped,
             "seconds": result.seconds, "seconds_per_epoch": result.seconds_per_epoch,
             "validation": result.best, "parameters": model.num_parameters()}  # fmt: skip
    write_text(folder / STAGE1, json.dumps(about, indent=2) + "\n")
    say(f"stage 1: {result.seconds_per_epoch:.1f} s per epoch, best epoch {result.best_epoch}")
    if "discriminator" in result.history[-1]:
        draw_monitored({"stage 1": result.history}, "discriminator", folder / "discriminator.png")
    return folder


def first_stage(plan: Plan) -> TriGRec:
    """A new model of stage 1."""
    torch.manual_seed(plan.settings.seed)
    settings = {**plan.model, "inputs": "both"}
    return TriGRec.from_graph(
        plan.task.split.train, target=plan.options.target, stage="users", **settings
    )


def save(model: RecModel, folder: Path, plan: Plan) -> None:
    """Keeps a model with the catalogue and the board that it belongs to."""
    save_model(model, folder, catalogue=plan.task.checksum, board=plan.task.board, track="T1")


def load_users(plan: Plan) -> tuple[TriGRec, int, Path]:
    """The trained first stage, the epoch of its weights, and its run folder."""
    folder = latest_folder(plan.options.out, plan.label("users").replace("-vectors", ""))
    epoch = plan.files.get("EPOCH_TO_LOAD")
    if epoch is None and not is_trained(folder):
        raise ValueError(
            f"stage 1 in {folder} has not come to its end; finish it with --resume, or choose one "
            f"of its epochs with EPOCH_TO_LOAD"
        )
    place = folder / "model" if epoch is None else folder / "epochs" / f"{epoch:04d}"
    if not place.is_dir():
        kept = sorted(int(p.name) for p in (folder / "epochs").glob("*"))
        raise ValueError(f"EPOCH_TO_LOAD: {folder} has the epochs {kept} (got {epoch})")
    task = plan.task
    model = load_model(place, MODELS, task.split.graph.num_items, task.checksum)
    assert isinstance(model, TriGRec)
    if epoch is None:
        epoch = json.loads((folder / STAGE1).read_text(encoding="utf-8"))["best_epoch"]
    return model, epoch, folder


def is_trained(folder: Path) -> bool:
    """Whether stage 1 came to its end; older interrupted ones left a summary as well."""
    path = folder / STAGE1
    if not path.is_file():
        return False
    return bool(json.loads(path.read_text(encoding="utf-8"))["stopped"] != "interrupted")


def export(plan: Plan) -> Path:
    """Writes the vectors of all users into files, and draws them; returns the folder."""
    model, epoch, run_folder = load_users(plan)
    target, names = plan.options.target, plan.names
    table = user_table(model, plan.task.split)
    only = plan.files.get("SPE_DOMAIN")
    files = {
        f"{kind}_{d}": f"{short}_emb_ep{epoch}_{LETTERS[d]}"
        for kind, short in (("specific", "spe"), ("common", "com"))
        for d in range(len(names))
        if only is None or kind == "common" or LETTERS[d] == only
    }
    letter = LETTERS[names.index(target)]
    files |= {n: f"{n}_emb_ep{epoch}_{letter}" for n in ("cross", "graph") if n in table.names}
    folder = run_folder / "embeddings" / target
    raw = plan.task.split.graph.raw_ids("user")
    about = {"epoch": epoch, "target": target, "board": plan.task.board,
             "domains": dict(zip(LETTERS, names, strict=False)),
             "events": "before each user's validation target"}  # fmt: skip
    paths = write_user_vectors(table, folder, files, raw, **about)
    say(f"exported {len(files)} vectors of {len(table.values):,} users to {folder}")
    parts: dict[str, dict[str, Any]] = {
        kind: {
            name: table.values[table.known[:, place], place]
            for d, name in enumerate(names)
            for place in [table.names.index(f"{kind}_{d}")]
        }
        for kind in ("specific", "common")
    }
    parts["cross"] = {" + ".join(names): table.values[:, table.names.index("cross")]}
    draw_user_vectors(parts, folder / "vectors.png")
    return paths[-1].parent


# ---- stage 2 -----------------------------------------------------------------------------------


def recommend(plan: Plan) -> RankedRun:
    """Trains the recommender and measures it."""
    options, task = plan.options, plan.task
    name = "trigrec_joint" if options.joint else "trigrec"
    model = recommender(plan)
    label = plan.label(name)
    folder = latest_folder(options.out, label) if options.resume else new_folder(options.out, label)
    say(f"stage 2: {model.num_parameters():,} parameters, run folder {folder}")
    extra = {"without": list(options.without), "files": plan.files}
    ranked = run(name, model, task, plan.settings, folder, resume=options.resume, extra=extra)
    if model.memory is not None and not model.config["loaded"]:
        draw_weights(plan, model, folder)
    finish(plan, ranked)
    return ranked


def recommender(plan: Plan) -> TriGRec:
    """The model of stage 2: joint, on vectors from files, or on a trained first stage."""
    options, train = plan.options, plan.task.split.train
    paths = [plan.files[k] for k in ("spe_emb_path", "cross_emb_path") if k in plan.files]
    if paths and (options.joint or options.inputs == "sequence"):
        raise ValueError("spe_emb_path and cross_emb_path are read by stage 2, with vectors")
    torch.manual_seed(plan.settings.seed)
    if paths:
        say(
            "vectors come from files: they were made of all training events, the ones that "
            "training asks for included, so they promise more there than they hold in the test"
        )
        raw = train.raw_ids("user")
        graph = train.before(torch.iinfo(torch.int64).max)
        for number, path in enumerate(paths):
            graph["user"][f"loaded_{number}"] = read_user_vectors(Path(path), raw)
        names = [f"loaded_{number}" for number in range(len(paths))]
        return TriGRec.from_graph(
            graph, target=options.target, stage="recommender", loaded=names, **plan.model
        )
    if options.joint or options.inputs == "sequence":
        return TriGRec.from_graph(train, target=options.target, stage="joint", **plan.model)
    first, epoch, folder = load_users(plan)
    say(f"stage 2 reads the encoders of {folder}, epoch {epoch}")
    sizes = ("d_model", "n_heads", "n_blocks", "d_ff", "max_len", "positions")
    settings = {k: v for k, v in plan.model.items() if k not in sizes}
    torch.manual_seed(plan.settings.seed)
    return TriGRec.second_stage(first, train, target=options.target, **settings)


@torch.no_grad()
def draw_weights(plan: Plan, model: TriGRec, folder: Path) -> None:
    """Mean weights of the vectors and of the gate over the test questions, as figure and JSON."""
    split, device = plan.task.split, plan.settings.device
    loader = SeedLoader(EventIndex(split.graph, device), model.sampling)
    parts = [
        model.eval().gates(batch) for _, batch in loader.eval_batches(split.test.to(device), 512)
    ]
    mean = torch.cat([weight for weight, _ in parts]).mean(0).tolist()
    weights = dict(zip(model.vector_names, mean, strict=True))
    for d, name in enumerate(plan.names):
        weights = {k.replace(f"_{d}", f" {name}"): v for k, v in weights.items()}
    gate = float(torch.cat([gate for _, gate in parts]).mean())
    write_text(folder / "gates.json", json.dumps({"weights": weights, "gate": gate}) + "\n")
    target = plan.options.target
    draw_gates({target: weights}, {target: gate}, folder / "gates.png")


# ---- baselines ---------------------------------------------------------------------------------


def run_baseline(plan: Plan, name: str) -> list[RankedRun]:
    """A model on the target domain alone, then on all domains pooled."""
    target, task, out = plan.options.target, plan.task, []
    golden = golden_of(name)
    small = task.board.startswith("simulated")
    for where in ("alone", "pooled"):
        split = only_domain(task.split, target) if where == "alone" else task.split
        cls = MODELS[name]
        takes = kinds_of(cls)
        model = {k: v for k, v in {"max_len": 50, **(SMALL if small else {})}.items() if k in takes}
        torch.manual_seed(plan.settings.seed)
        built = cls.from_graph(split.train, **{**golden.model, **model})
        label = f"{name}_{where}"
        folder = new_folder(plan.options.out, f"{label}-{task.board}-seed{plan.settings.seed}")
        one = Task(task.board, task.data, task.checksum, split, task.remove_seen, task.sampled)
        ranked = run(label, built, one, train_settings(name, task, plan.given), folder)
        finish(plan, ranked)
        out.append(ranked)
    return out


def finish(plan: Plan, ranked: RankedRun) -> None:
    """Appends the record, if that was asked for."""
    if plan.options.record is not None:
        record_run(plan.options.record, ranked)


if __name__ == "__main__":
    main()
