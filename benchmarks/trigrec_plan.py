"""What benchmarks/trigrec.py was asked to do, checked, with the board loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from find_model import near
from golden import golden_of
from overrides import kinds_of, parse_overrides
from terminal import say

from tgrec.datasets import BOARDS, DatasetNotFound, checksum
from tgrec.models import MODELS, TriGRec
from tgrec.models.trigrec_config import check_config
from tgrec.training import Task, TrainSettings, check_device

Command = Literal["train", "export", "recommend", "all", "baselines", "ablations"]
Part = Literal["adversary", "alignment", "separation", "graph", "encoder"]
WEIGHTS = ("adversary", "alignment", "separation")
PARTS = {"graph": "use_graph", "encoder": "encode_graph", **{name: name for name in WEIGHTS}}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Models that ml1m.py knows as well, on the target domain alone and on all of them pooled.
BASELINES = ("popularity", "markov", "bert4rec", "sasrec")
SMALL = {"d_model": 32, "n_blocks": 1, "d_ff": 64, "max_len": 16}  # for simulated domains
QUICK = {"epochs": 24, "eval_every": 6, "batch_size": 128, "lr": 5e-3, "warmup_steps": 20}
MODEL_KINDS = {k: v for k, v in kinds_of(TriGRec).items()
               if k not in ("num_items", "relations", "target", "stage", "loaded", "num_users",
                            "num_edges", "inputs")}  # fmt: skip
TRAIN_KINDS = {
    k: v for k, v in kinds_of(TrainSettings).items() if k not in ("track", "remove_seen")
}
FILE_KINDS = {"EPOCH_TO_LOAD": int, "SPE_DOMAIN": str, "spe_emb_path": str, "cross_emb_path": str}
# Who reads them; with --joint and --inputs sequence, nobody.
READ_BY = {
    "EPOCH_TO_LOAD": ("export", "recommend", "all"),
    "SPE_DOMAIN": ("export", "all"),
    "spe_emb_path": ("recommend", "all"),
    "cross_emb_path": ("recommend", "all"),
    "graph_weight": ("recommend", "all", "ablations", "baselines"),
    "choose_weight": ("recommend", "all", "ablations", "baselines"),
}
# The same for options that are not of --override.
OPTION_READ_BY = {
    "joint": ("recommend", "all"),
    "without": ("train", "export", "recommend", "all"),
    "inputs": ("recommend", "all"),
    "models": ("baselines",),
    "where": ("baselines",),
    "only": ("ablations",),
    "save_every": ("train", "all", "ablations"),
    "resume": ("train", "recommend", "all", "ablations"),
}
OF_STAGE_1 = (*WEIGHTS, "encoder")


@dataclass
class Options:
    """What to run."""

    command: Annotated[Command, tyro.conf.Positional]
    """train, export, recommend, all (the three), baselines, or ablations."""
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
    """Parts to leave out: adversary, alignment, separation, graph, or only its encoder."""
    inputs: Literal["both", "sequence", "vectors"] = "both"
    """What the recommender reads: sequence and vectors of users, or one of them."""
    models: tuple[str, ...] = BASELINES
    """Of the command baselines; trigrec is here its sequence and its counts, of one domain."""
    where: tuple[Literal["alone", "pooled"], ...] = ("alone", "pooled")
    """Of the command baselines: on the target domain alone, on all domains pooled."""
    only: tuple[str, ...] = ()
    """Of the command ablations: variants to run beside the full model; by default all."""
    save_every: int = 2
    """Keep the weights of every so many epochs of stage 1 (EPOCH_TO_LOAD)."""
    resume: bool = False
    """Go on with the newest run of the same name, which has to be there. all also starts stage 2
    where it was not begun, ablations any variant, and it reads back what is finished."""


@dataclass(frozen=True)
class Plan:
    """Options, checked, with the board loaded."""

    options: Options
    task: Task
    settings: TrainSettings
    model: dict[str, Any]
    given: dict[str, Any]  # of --override
    names: list[str]  # of the domains

    @property
    def two_stages(self) -> bool:
        """Whether stage 2 stands on a stage 1 of its own."""
        sequence = self.options.inputs == "sequence"
        return not (self.options.joint or sequence or self.paths)

    @property
    def paths(self) -> dict[str, Path]:
        """Files of vectors to read instead of making them."""
        return {k: Path(v) for k, v in self.given.items() if k.endswith("_emb_path")}

    def label(self, what: str, board: str | None = None) -> str:
        """Name of the run folder: what, board, seed, and what was left out."""
        left_out = "".join(f"-no_{part}" for part in sorted(self.options.without))
        whole = what == "users" or self.options.inputs == "both"  # of stage 1 there is one kind
        inputs = "" if whole else f"-{self.options.inputs}"
        loaded = "-loaded" if self.paths and what != "users" else ""
        return f"{what}{left_out}{inputs}{loaded}-{board or self.task.board}-seed{self.seed}"

    @property
    def seed(self) -> int:
        """Of everything."""
        return self.settings.seed


def make_plan(options: Options) -> Plan:
    """Loads the board and puts the settings together; raises for all that does not fit."""
    elsewhere = vars(options).keys() - {"override"}
    kinds = {**TRAIN_KINDS, **MODEL_KINDS, **FILE_KINDS}
    given = parse_overrides(options.override, kinds, elsewhere)
    check_options(options, given)
    check_device(given.get("device", "cpu"))
    task, names = load_task(options)
    return plan_for(options, task, names, given)


def plan_for(options: Options, task: Task, names: list[str], given: Mapping[str, Any]) -> Plan:
    """The settings of a board that is loaded: golden ones, then those given."""
    small = task.board.startswith("simulated")
    model = {**golden_of("trigrec").model, **(SMALL if small else {}), "inputs": options.inputs}
    if "graph_weight" in given:  # what is asked for stays
        model["choose_weight"] = False
    model |= {k: v for k, v in given.items() if k in MODEL_KINDS}
    model |= {PARTS[part]: 0.0 if part in WEIGHTS else False for part in options.without}
    usual = {k: p.default for k, p in inspect.signature(TriGRec).parameters.items()}
    check_config({**usual, **model, "relations": names})  # before a stage is trained
    if given.get("SPE_DOMAIN", "A") not in LETTERS[: len(names)]:
        raise ValueError(
            f"--override: SPE_DOMAIN needs to be one of {list(LETTERS[: len(names)])}, for "
            f"{names} (got {given['SPE_DOMAIN']!r})"
        )
    settings = train_settings("trigrec", task, given)
    epoch, every = given.get("EPOCH_TO_LOAD"), options.save_every
    if options.command == "all" and epoch is not None:
        if epoch % every or not 1 <= epoch <= settings.epochs:
            raise ValueError(
                f"--override: EPOCH_TO_LOAD needs to be an epoch that is kept, every {every} of "
                f"{settings.epochs} (got {epoch}); see --save_every"
            )
    return Plan(options, task, settings, model, dict(given), names)


def check_options(options: Options, given: Mapping[str, Any]) -> None:
    """Raises for options that do not go together, or that nothing would read."""
    for name in options.models:
        if name not in MODELS:
            raise ValueError(f"--models: {name!r} is no baseline{near(name, list(MODELS))}")
    if not options.where or (options.where == ("pooled",) and "trigrec" in options.models):
        raise ValueError("--where needs 'alone' for trigrec, and something for any model")
    if options.save_every < 1:
        raise ValueError(f"--save_every needs to be a positive integer (got {options.save_every})")
    check_commands(options)
    check_stage_1(options, given)
    if {"graph", "encoder"} <= {*options.without}:
        raise ValueError("--without graph encoder: the graph has no encoder without it; leave "
                         "'encoder' out")  # fmt: skip
    for part in options.without:
        if PARTS[part] in given:
            raise ValueError(f"--without {part} and --override {PARTS[part]}: give one of them")
    taken = set().union(*(kinds_of(MODELS[name]) for name in options.models))
    for name in given:
        if options.command == "baselines" and name in MODEL_KINDS and name not in taken:
            raise ValueError(f"--override: none of {list(options.models)} has a setting {name!r}")
    alone = "--joint" if options.joint else ""
    alone = "--inputs sequence" if options.inputs == "sequence" else alone
    for name in given:
        unread = bool(alone) and name in FILE_KINDS
        if name in READ_BY and (unread or options.command not in READ_BY[name]):
            words = f"{options.command} {alone}".strip()
            raise ValueError(f"--override: {name} is not read by {words!r}; leave it out")
    if "EPOCH_TO_LOAD" in given and options.command == "recommend":
        if other := [name for name in given if name.endswith("_emb_path")]:
            raise ValueError(f"--override: EPOCH_TO_LOAD and {other[0]}: give one of them")


def check_commands(options: Options) -> None:
    """Raises for options that the command would not read."""
    usual = {field.name: field.default for field in fields(options)}
    changed = {k: v for k in OPTION_READ_BY if (v := getattr(options, k)) != usual[k]}
    for name, value in changed.items():
        if options.command not in OPTION_READ_BY[name]:
            variant = options.command == "ablations" and name in ("joint", "without", "inputs")
            remedy = "choose its variant with --only" if variant else "leave it out"
            raise ValueError(
                f"--{name} is not read by {options.command!r} (got {value!r}); {remedy}"
            )
    if options.inputs == "sequence" and options.joint:
        raise ValueError(
            "--joint is not read with --inputs sequence, which has no stage 1 to train beside it; "
            "leave one of them out"
        )
    if "save_every" in changed and (options.joint or options.inputs == "sequence"):
        alone = "--joint" if options.joint else "--inputs sequence"
        raise ValueError(
            f"--save_every is of stage 1, which {alone} does not have (got {options.save_every}); "
            f"leave it out"
        )


def check_stage_1(options: Options, given: Mapping[str, Any]) -> None:
    """Raises for parts of stage 1 in a model without one: the same model under another label."""
    alone = ["--inputs sequence"] if options.inputs == "sequence" else []
    alone += [f"--override {name}" for name in given if name.endswith("_emb_path")]
    named = [PARTS[part] for part in OF_STAGE_1]
    asked = [f"--override {name}={given[name]}" for name in named if name in given]
    asked += [f"--without {part}" for part in OF_STAGE_1 if part in options.without]
    if alone and asked:
        raise ValueError(
            f"{asked[0]} is not read with {alone[0]}, where no vectors of users are learned; leave "
            f"one of them out"
        )


def train_settings(name: str, task: Task, given: Mapping[str, Any]) -> TrainSettings:
    """Golden settings of a model, quick ones on simulated domains, and what was given."""
    golden = golden_of(name).train
    quick = QUICK if task.board.startswith("simulated") else {}
    ours = {k: v for k, v in given.items() if k in TRAIN_KINDS}
    return TrainSettings(**{**golden, **quick, **ours, "remove_seen": task.remove_seen})


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
