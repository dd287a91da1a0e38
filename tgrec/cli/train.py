"""``tgrec train`` and ``tgrec eval``."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tgrec.cli.data import Source, load_data
from tgrec.cli.flags import (
    find_model,
    given,
    model_flags,
    options_class,
    spell_out,
    training_flags,
)
from tgrec.cli.measure import figures, measured, save
from tgrec.recommend import Recommender
from tgrec.recommend.fitting import SplitName
from tgrec.training import FitResult, print_summary
from tgrec.training.checkpoint import CHECKPOINT
from tgrec.training.trackers import scalars

DEFAULT = "tgt_bert4rec"
DISTILLED = ("teacher", "distill_weight", "distill_temperature", "distill_at")


@dataclass
class TrainOptions(Source):
    """Which model, on what, and where it goes."""

    model: Annotated[str, tyro.conf.arg(aliases=["-m"])] = DEFAULT
    """Name of the model; the flags below are its own."""
    out: Path | None = None
    """Folder of the recommender; runs/MODEL-DATA if left out."""
    split: SplitName = "leave_one_out"
    """What is held out to choose the weights and for 'tgrec eval'."""
    init_from: Path | None = None
    """Folder of a recommender to start from; items are matched by id."""
    teacher: Path | None = None
    """Folder of a recommender to learn from, fitted on the same data; only the new one is saved."""
    distill_weight: float | None = None
    """Share of the teacher in the loss, in (0, 1]; 0.5 if left out."""
    distill_temperature: float | None = None
    """What the scores of teacher and model are divided by; 2 if left out."""
    distill_at: Literal["end", "all"] | None = None
    """The end of each training sequence if left out, or all its positions, at temperature 1."""
    resume: bool | None = None
    """Go on with the training that was interrupted in --out; say all else as before."""
    use_wandb: bool | None = None
    """Report every epoch to Weights & Biases, which needs to be installed, while training runs."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON."""


def train(words: Sequence[str]) -> int:
    """Trains a model and saves a recommender.

    Args:
        words: What stands behind ``tgrec train``.

    Returns:
        0, or 130 if training was interrupted; the best weights so far are then saved, and a
        checkpoint that ``--resume`` goes on from.
    """
    asked = _value_of(words, "--model", "-m")
    name, cls = find_model(DEFAULT if asked is None else asked)
    of_model, of_training = model_flags(name, cls), training_flags(name)
    title = f"Trains {name} and saves a recommender, a folder of safetensors and JSON."
    options = options_class(TrainOptions, [*of_model, *of_training], title)
    chosen: Any = tyro.cli(options, args=spell_out(words, options), prog="tgrec train",
                           config=(tyro.conf.FlagCreatePairsOff,))  # fmt: skip
    if chosen.use_wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError("--use_wandb needs the package wandb: python -m pip install wandb")
    rec = Recommender(name, **given(chosen, of_model, name))
    graph = load_data(chosen.data, chosen)
    out = chosen.out or Path("runs") / f"{name}-{Path(chosen.data).resolve().name.split('.')[0]}"
    training = given(chosen, of_training, name)
    distilled = {n: getattr(chosen, n) for n in DISTILLED if getattr(chosen, n) is not None}
    # Of the teacher's folder the name: records are published, without the folders of a machine.
    told_of = training | {n: v.name if isinstance(v, Path) else v for n, v in distilled.items()}
    # Opened by the first epoch, so that what is refused before leaves nothing behind.
    session = cache(partial(_wandb_session, rec, told_of)) if chosen.use_wandb else None
    rec.fit(
        graph, split=chosen.split, init_from=chosen.init_from, folder=out,
        resume=chosen.resume is True, tracker=session and partial(_send, session), **distilled,
        **training,
    )  # fmt: skip
    result = rec.result
    assert result is not None
    save(rec, out, told_of)
    if result.stopped != "interrupted":
        (out / CHECKPOINT).unlink(missing_ok=True)
    if session is not None:
        _finish(session(), rec, result)
    told = {
        "model": name,
        "folder": str(out),
        "parameters": rec.model.num_parameters(),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "validation": result.best if result.best_epoch else None,
        "seconds": round(result.seconds, 1),
        "stopped": result.stopped,
    }
    print(json.dumps(told, indent=2) if chosen.as_json else _sentences(told))
    return 130 if result.stopped == "interrupted" else 0


def evaluate(
    folder: tyro.conf.Positional[Path],
    *,
    sampled: bool = True,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Ranks the held-out last events among all items: metrics, intervals, groups of users.

    Args:
        folder: Of a saved recommender.
        sampled: Also rank among drawn negatives, beside the full ranking.
        as_json: Print JSON.
    """
    rec = Recommender.load(folder)
    run, ratings = measured(rec, folder, sampled), rec.rating_errors()
    if as_json:
        print(json.dumps({**figures({str(folder): run}), "ratings": ratings}, indent=2))
        return 0
    print_summary([run])
    if ratings is not None:
        print(f"RMSE of {ratings['targets']:,.0f} foretold ratings: {ratings['model']:.4f}; of the "
              f"biases of user and item {ratings['bias']:.4f}, of the mean rating "
              f"{ratings['mean']:.4f}")  # fmt: skip
    return 0


def _value_of(words: Sequence[str], *flags: str) -> str | None:
    """The value of a flag, before it is known which other flags there are."""
    for word, after in zip(words, [*words, ""][1:], strict=True):
        head, equals, value = word.partition("=")
        if head in flags:
            return value if equals else after
    return None


def _sentences(told: dict[str, Any]) -> str:
    value, out = told["validation"], told["folder"]
    best = "" if value is None else f", best validation {value:.4f} in epoch {told['best_epoch']}"
    trained = f"{told['epochs']} epochs in {told['seconds']} s{best} ({told['stopped']})"
    size = f"{told['parameters']:,} parameters"
    go_on = "the same line with --resume goes on; " if told["stopped"] == "interrupted" else ""
    return (f"{told['model']}: {size}, {trained}; saved in {out}\n"
            f"next: {go_on}tgrec eval {out}; tgrec recommend {out} --user_id ID")  # fmt: skip


def _wandb_session(rec: Recommender, training: dict[str, Any]) -> Any:
    """A run of Weights & Biases; what the settings come to is known once there is a model."""
    config = {"model": rec.name, **rec.settings, **training}
    try:
        return importlib.import_module("wandb").init(project="tgrec", config=config)
    except Exception as error:  # of many kinds, none of which need be known here
        raise ValueError(
            f"--use_wandb: {error}; with WANDB_MODE=offline no account is needed"
        ) from error


def _send(session: Callable[[], Any], entry: Mapping[str, Any]) -> None:
    """One epoch as a step, while training runs."""
    session().log(scalars(entry), step=entry["epoch"])


def _finish(session: Any, rec: Recommender, result: FitResult) -> None:
    """Its last values."""
    session.config.update(rec.model.config, allow_val_change=True)
    told = dataclasses.asdict(result)
    session.summary.update({k: v for k, v in told.items() if k != "history"})
    session.finish()
