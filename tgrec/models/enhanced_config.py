"""What the settings of Enhanced BERT4Rec may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TASK_WEIGHTS = {
    "item_prediction": 1.0, "next_item": 1.0, "rating_prediction": 0.3, "user_preference": 0.2,
}  # fmt: skip


def all_weights(given: Mapping[str, float]) -> dict[str, float]:
    """:data:`TASK_WEIGHTS` with what is ``given``; raises ValueError where that is impossible."""
    unknown = [task for task in given if task not in TASK_WEIGHTS]
    bad = [w for w in given.values() if not (math.isfinite(w) and w >= 0)]
    if unknown or bad:
        raise ValueError(
            f"'task_weights' needs numbers of at least 0 for some of {list(TASK_WEIGHTS)} (got "
            f"{dict(given)})"
        )
    weights = {**TASK_WEIGHTS, **given}
    if not weights["next_item"]:
        raise ValueError("'task_weights' needs a positive 'next_item': it makes the scores (got 0)")
    return weights


def possible_tasks(
    weights: Mapping[str, float], features: Sequence[str], cloze_prob: float
) -> dict[str, float]:
    """The tasks that have a weight and something to learn from."""
    lacking = {
        "item_prediction": cloze_prob == 0,
        "rating_prediction": "rating" not in features,
        "user_preference": "genre" not in features,
    }
    return {task: w for task, w in weights.items() if w and not lacking.get(task)}


def check_config(config: Mapping[str, Any]) -> None:
    """Raises ValueError for settings that are out of range."""
    for name in ("mask_prob", "unknown_prob"):
        if not 0 <= config[name] <= 1:
            raise ValueError(f"'{name}' needs to be in [0, 1] (got {config[name]})")
    if not 0 <= config["cloze_prob"] < 1:
        raise ValueError(f"'cloze_prob' needs to be in [0, 1) (got {config['cloze_prob']})")
    weight = config["graph_weight"]
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"'graph_weight' needs to be a number of at least 0 (got {weight})")
