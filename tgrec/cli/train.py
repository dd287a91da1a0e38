"""``tgrec train`` and ``tgrec eval``."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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

DEFAULT = "tgt_bert4rec"


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
    use_wandb: bool | None = None
    """Send the history of training to Weights & Biases, which needs to be installed."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON."""


def train(words: Sequence[str]) -> int:
    """Trains a model and saves a recommender.

    Args:
        words: What stands behind ``tgrec train``.

    Returns:
        0, or 130 if training was interrupted; the best weights so far are then saved.
    """
    name, cls = find_model(_value_of(words, "--model", "-m") or DEFAULT)
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
    rec.fit(graph, split=chosen.split, init_from=chosen.init_from, **training)
    result = rec.result
    assert result is not None
    save(rec, out, training)
    if chosen.use_wandb:
        _send_to_wandb(rec, result)
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
    run = measured(Recommender.load(folder), folder, sampled)
    if as_json:
        print(json.dumps(figures({str(folder): run}), indent=2))
    else:
        print_summary([run])
    return 0


def _value_of(words: Sequence[str], *flags: str) -> str | None:
    """The value of a flag, before it is known which other flags there are."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        head, equals, value = word.partition("=")
        if head in flags:
            return value if equals else after
    return None


def _sentences(told: dict[str, Any]) -> str:
    value, out = told["validation"], told["folder"]
    best = "" if value is None else f", best validation {value:.4f} in epoch {told['best_epoch']}"
    trained = f"{told['epochs']} epochs in {told['seconds']} s{best} ({told['stopped']})"
    size = f"{told['parameters']:,} parameters"
    return (f"{told['model']}: {size}, {trained}; saved in {out}\n"
            f"next: tgrec eval {out}; tgrec recommend {out} --user_id ID")  # fmt: skip


def _send_to_wandb(rec: Recommender, result: FitResult) -> None:
    """Every epoch of the history as a step."""
    session = importlib.import_module("wandb").init(
        project="tgrec", config={"model": rec.name, **rec.model.config}
    )
    for entry in result.history:
        session.log(entry, step=entry["epoch"])
    told = dataclasses.asdict(result)
    session.summary.update({k: v for k, v in told.items() if k != "history"})
    session.finish()
