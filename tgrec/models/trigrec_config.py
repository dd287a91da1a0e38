"""Which arguments of TriGRec go together."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

Stage = Literal["users", "recommender", "joint"]
Inputs = Literal["both", "sequence", "vectors"]


def check_config(config: dict[str, Any]) -> None:
    """Raises ValueError for arguments of TriGRec that do not go together."""
    for name, allowed in (("stage", get_args(Stage)), ("inputs", get_args(Inputs))):
        if config[name] not in allowed:
            raise ValueError(f"'{name}' needs to be one of {list(allowed)} (got {config[name]!r})")
    for name in ("mask_prob", "last_prob"):
        if not 0 <= config[name] <= 1:
            raise ValueError(f"'{name}' needs to be in [0, 1] (got {config[name]})")
    for name in ("adversary", "alignment", "separation", "graph_weight"):
        if not (math.isfinite(config[name]) and config[name] >= 0):
            raise ValueError(f"'{name}' needs to be a weight of at least 0 (got {config[name]})")
    if not config["relations"]:
        raise ValueError("'relations' needs the name of at least one domain (got none)")
    if not 0 <= config["target"] < len(config["relations"]):
        raise ValueError(
            f"'target' needs to be in 0..{len(config['relations']) - 1} (got {config['target']})"
        )
    if config["inputs"] == "sequence" and config["stage"] == "users":
        raise ValueError("'inputs' is 'sequence', which has no vectors of users to train")
    if config["loaded"] and (config["stage"] != "recommender" or config["inputs"] == "sequence"):
        raise ValueError("'loaded' vectors are read by stage 'recommender', with 'vectors'")
