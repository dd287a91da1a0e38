"""The two stages of benchmarks/trigrec.py: vectors of users, their files, the recommender."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ablation_runs import begun
from terminal import say
from trigrec_plan import LETTERS, MODEL_KINDS, TRAIN_KINDS, Plan, plan_for

from tgrec.data.files import write_text
from tgrec.loader import SeedLoader
from tgrec.models import MODELS, RecModel, TriGRec, load_model, save_model
from tgrec.models.io import parameters_digest
from tgrec.plots import draw_gates, draw_monitored, draw_user_vectors
from tgrec.sampler import EventIndex
from tgrec.training import (
    RankedRun,
    fit,
    latest_folder,
    new_folder,
    read_user_vectors,
    run,
    user_table,
    write_user_vectors,
)
from tgrec.training.fit import HISTORY
from tgrec.training.run import CONFIG
from tgrec.training.user_vectors import SIDECAR

SUMMARY = "stage1.json"  # of a stage 1 that came to its end
# Settings that the encoders have from stage 1.
ENCODERS = ("d_model", "n_heads", "n_blocks", "d_ff", "max_len", "positions", "use_graph",
            "encode_graph", "adversary", "alignment", "separation")  # fmt: skip
# Settings that make no other stage 1, or are those of stage 2 as well.
NOT_OF_STAGE_1 = {*ENCODERS, "graph_weight", "choose_weight", "seed", "device"}


@dataclass(frozen=True)
class FirstStage:
    """A trained stage 1: the model, the epoch of its weights, its run folder, and its seconds.

    ``settings`` are those of its training; older run folders do not say them.
    """

    model: TriGRec
    epoch: int
    folder: Path
    seconds: float
    settings: dict[str, Any] | None

    def about(self) -> dict[str, Any]:
        """What a record of stage 2 says of it."""
        values = dict(self.model.named_parameters())
        return {"run": self.folder.name, "epoch": self.epoch, "seconds": self.seconds,
                "parameters": sum(p.numel() for p in values.values()),
                "digest": parameters_digest(values)}  # fmt: skip

    def unlike(self, golden: Plan) -> dict[str, Any] | None:
        """Its settings where they are not the golden ones; None if they all are.

        None leaves no trace in tables, so golden runs share a row with older records, which do not
        say how stage 1 was trained.
        """
        defaults = {k: p.default for k, p in inspect.signature(TriGRec).parameters.items()}
        usual = {**defaults, **golden.model, **asdict(golden.settings)}
        had = {**self.model.config, **(self.settings or {})}
        names = (MODEL_KINDS.keys() | TRAIN_KINDS.keys()) - NOT_OF_STAGE_1
        out = {k: had[k] for k in sorted(names & had.keys()) if had[k] != usual[k]}
        return (out if self.settings else {**out, "training": "not known"}) or None


# ---- stage 1 -----------------------------------------------------------------------------------


def train_users(plan: Plan, resumed: Path | None) -> Path:
    """Trains the vectors of users, in a folder of their own or on in one; returns the folder."""
    options = plan.options
    folder = resumed or new_folder(options.out, plan.label("users"))
    model = first_stage(plan)
    say(f"stage 1: {model.num_parameters():,} parameters, run folder {folder}")
    config = json.dumps({"settings": asdict(plan.settings), "model_config": model.config}, indent=2)
    if resumed is None:
        write_text(folder / CONFIG, config + "\n")

    def keep(epoch: int) -> None:
        if epoch % options.save_every == 0:
            save(model, folder / "epochs" / f"{epoch:04d}", plan)

    result = fit(model, plan.task.split, plan.settings, folder=folder, resume=resumed is not None,
                 after_epoch=keep)  # fmt: skip
    write_text(folder / CONFIG, config + "\n")  # of a resumed one, which is the same by now
    if result.best_epoch:
        save(model, folder / "model", plan)
    if result.stopped == "interrupted":
        (folder / SUMMARY).unlink(missing_ok=True)  # of before a finished run went on
        result.check_finished(plan.settings.metric)
    before = summary(folder)
    if before is not None and before["epochs"] == result.epochs:
        say(f"stage 1 was finished, best epoch {result.best_epoch}")
        return folder
    about = {"best_epoch": result.best_epoch, "epochs": result.epochs, "stopped": result.stopped,
             "seconds": result.seconds, "seconds_per_epoch": result.seconds_per_epoch,
             "validation": result.best, "parameters": model.num_parameters()}  # fmt: skip
    write_text(folder / SUMMARY, json.dumps(about, indent=2) + "\n")
    say(f"stage 1: {result.seconds_per_epoch:.1f} s per epoch, best epoch {result.best_epoch}")
    if "discriminator" in result.history[-1]:
        draw_monitored(
            {"stage 1": result.history}, "discriminator", folder / "discriminator.png",
            what="accuracy of the discriminator", chance=1 / len(plan.names),
        )  # fmt: skip
    return folder


def first_stage(plan: Plan) -> TriGRec:
    """A new model of stage 1."""
    torch.manual_seed(plan.seed)
    # What only stage 2 reads makes no other stage 1, so that --resume takes it.
    own = {k: v for k, v in plan.model.items() if k not in ("graph_weight", "choose_weight")}
    own["inputs"] = "both"
    return TriGRec.from_graph(
        plan.task.split.train, target=plan.options.target, stage="users", **own
    )


def save(model: RecModel, folder: Path, plan: Plan) -> None:
    """Keeps a model with the catalogue and the board that it belongs to."""
    save_model(model, folder, catalogue=plan.task.checksum, board=plan.task.board, track="T1")


def load_users(plan: Plan) -> FirstStage:
    """The newest trained first stage, at the epoch that was asked for; raises if it is another."""
    options, label = plan.options, plan.label("users")
    try:
        folder = latest_folder(options.out, label)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no stage 1 {label!r} in {str(options.out)!r}; train it first, with the "
            f"command train and otherwise the same options"
        ) from error
    epoch = plan.given.get("EPOCH_TO_LOAD")
    about = summary(folder)
    if epoch is None and about is None:
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
    check_encoders(plan, model, folder)
    config = folder / CONFIG
    settings = json.loads(config.read_text("utf-8"))["settings"] if config.is_file() else None
    if epoch is None:
        assert about is not None
        return FirstStage(model, about["best_epoch"], folder, about["seconds"], settings)
    lines = (folder / HISTORY).read_text(encoding="utf-8").splitlines()
    return FirstStage(model, epoch, folder, json.loads(lines[epoch - 1])["seconds"], settings)


def summary(folder: Path) -> dict[str, Any] | None:
    """What a stage 1 that came to its end left; older interrupted ones left a file as well."""
    path = folder / SUMMARY
    about: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return about if about.get("stopped", "interrupted") != "interrupted" else None


def check_encoders(plan: Plan, first: TriGRec, folder: Path) -> None:
    """Raises if --override asks for other encoders than those that were trained."""
    for name in ENCODERS:
        given, had = plan.given.get(name, first.config[name]), first.config[name]
        if given != had:
            raise ValueError(
                f"--override: {name}={given}, but stage 1 in {folder} was trained with "
                f"{name}={had}; leave it out, or train stage 1 anew with it"
            )


def export(plan: Plan) -> Path:
    """Writes the vectors of all users into files, and draws them; returns the folder."""
    first = load_users(plan)
    target, names = plan.options.target, plan.names
    table = user_table(first.model, plan.task.split)
    only = plan.given.get("SPE_DOMAIN")
    files = {
        f"{kind}_{d}": f"{short}_emb_ep{first.epoch}_{LETTERS[d]}"
        for kind, short in (("specific", "spe"), ("common", "com"))
        for d in range(len(names))
        if only is None or kind == "common" or LETTERS[d] == only
    }
    letter = LETTERS[names.index(target)]
    files |= {
        n: f"{n}_emb_ep{first.epoch}_{letter}" for n in ("cross", "graph") if n in table.names
    }
    folder = first.folder / "embeddings" / target
    raw = plan.task.split.graph.raw_ids("user")
    about = {"epoch": first.epoch, "target": target, **belongs_to(plan),
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
    # Of each user there is one, of the events of all domains.
    parts["cross, one a user"] = {" + ".join(names): table.values[:, table.names.index("cross")]}
    draw_user_vectors(parts, folder / "vectors.png")
    return paths[-1].parent


def belongs_to(plan: Plan) -> dict[str, str]:
    """What vectors are of: those of another target were made of events that are asked for here."""
    return {"board": plan.task.board, "checksum": plan.task.checksum}


# ---- stage 2 -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecondStage:
    """A recommender about to be trained, and what its record says beside its settings."""

    name: str
    model: TriGRec
    first: FirstStage | None
    further: dict[str, Any]


def recommender(plan: Plan) -> SecondStage:
    """The model of stage 2: joint, on vectors from files, or on a trained first stage."""
    options, train = plan.options, plan.task.split.train
    files = {k: v for k, v in plan.given.items() if k == "EPOCH_TO_LOAD"}
    files |= {k: path.name for k, path in plan.paths.items()}
    # What an older record lacks is None, and leaves no trace in tables.
    further: dict[str, Any] = {"without": list(options.without) or None, "files": files or None}
    torch.manual_seed(plan.seed)
    if plan.paths:
        return SecondStage("trigrec", on_files(plan), None, further)
    if not plan.two_stages:
        model = TriGRec.from_graph(train, target=options.target, stage="joint", **plan.model)
        return SecondStage("trigrec_joint" if options.joint else "trigrec", model, None, further)
    first = load_users(plan)
    say(f"stage 2 reads the encoders of {first.folder}, epoch {first.epoch}")
    settings = {k: v for k, v in plan.model.items() if k not in ENCODERS}
    torch.manual_seed(plan.seed)
    model = TriGRec.second_stage(first.model, train, target=options.target, **settings)
    golden = plan_for(replace(options, without=()), plan.task, plan.names, {})
    further |= {"stage1": first.about(), "stage1_settings": first.unlike(golden)}
    return SecondStage("trigrec", model, first, further)


def on_files(plan: Plan) -> TriGRec:
    """The recommender on vectors that files hold."""
    say(
        "vectors come from files: they were made of all training events, the ones that "
        "training asks for included, so they promise more there than they hold in the test"
    )
    for path in plan.paths.values():
        if not (path.parent / SIDECAR).is_file():
            say(
                f"{path}: there is no {SIDECAR} beside it, so nothing says whose rows these are, "
                f"nor that no event that {plan.task.board} asks for is in them"
            )
    graph = plan.task.split.train.before(torch.iinfo(torch.int64).max)
    for name, values in read_vectors(plan).items():
        graph["user"][name] = values
    return TriGRec.from_graph(
        graph, target=plan.options.target, stage="recommender", loaded=list(plan.paths),
        **plan.model,
    )  # fmt: skip


def read_vectors(plan: Plan) -> dict[str, torch.Tensor]:
    """``[U, D]`` of each file that was given; raises if they do not go together."""
    raw = plan.task.split.train.raw_ids("user")
    about = belongs_to(plan)
    vectors = {name: read_user_vectors(path, raw, **about) for name, path in plan.paths.items()}
    widths = {name: values.size(1) for name, values in vectors.items()}
    if "d_model" in plan.given:
        widths["d_model"] = plan.given["d_model"]
    if len(set(widths.values())) > 1:
        said = ", ".join(f"{name}: {width}" for name, width in widths.items())
        raise ValueError(f"--override: vectors of one width are needed (got {said})")
    return vectors


def recommend(plan: Plan, stage: SecondStage, resumed: Path | None) -> RankedRun:
    """Trains the recommender and measures it."""
    model, first = stage.model, stage.first
    folder = resumed or new_folder(plan.options.out, plan.label(stage.name))
    frozen = "" if first is None else f" learned, {first.about()['parameters']:,} of stage 1"
    say(f"stage 2: {model.num_parameters():,} parameters{frozen}, run folder {folder}")
    ranked = run(stage.name, model, plan.task, plan.settings, folder, resume=resumed is not None,
                 further_settings=stage.further)  # fmt: skip
    if model.memory is not None and not model.config["loaded"]:
        draw_weights(plan, model, folder)
    return ranked


def second_begun(plan: Plan, stage: SecondStage) -> Path | None:
    """The newest folder of a stage 2 to go on with, if it was begun on this stage 1."""
    folder = begun(plan.options.out, plan.label(stage.name))
    if folder is None or stage.first is None:
        return folder
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    about = config.get("further_settings", {}).get("stage1") or {}
    return folder if about.get("run") in (None, stage.first.folder.name) else None


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
    found = other_gates(plan, folder) | {plan.options.target: (weights, gate)}
    both = {name: found[name] for name in plan.names if name in found}
    draw_gates(
        {name: weights for name, (weights, _) in both.items()},
        {name: gate for name, (_, gate) in both.items()},
        folder / "gates.png",
    )


def other_gates(plan: Plan, folder: Path) -> dict[str, tuple[dict[str, float], float]]:
    """Weights and gate of the same model for the other targets, where it was measured."""
    out, target, board = {}, plan.options.target, plan.task.board
    what = "trigrec_joint" if plan.options.joint else "trigrec"
    for name in plan.names:
        label = plan.label(what, board.replace(target, name))
        try:
            path = latest_folder(folder.parent, label) / "gates.json"
        except FileNotFoundError:
            continue
        if name != target and path.is_file():
            about = json.loads(path.read_text(encoding="utf-8"))
            out[name] = about["weights"], about["gate"]
    return out
