"""What the settings of TGT-BERT4Rec may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# What choose_gates tries, one after the other; no branch is left without a say.
GRAPH_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.5, 7.0)
ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
# What a model of one branch is called, by its fusion_alpha.
BRANCHES: dict[float | None, str] = {0.0: "tgt_branch", 1.0: "bert_branch"}
SWITCHES = ("tgt_gated", "time_vectors", "learnable_fusion", "choose_gates", "use_time",
            "use_graph", "item_features")  # fmt: skip


def check_config(config: Mapping[str, Any]) -> None:
    """Raises ValueError for settings that are out of range, or do not go together."""
    alpha, blocks, width = (config[k] for k in ("fusion_alpha", "tgt_blocks", "tgt_d_ff"))
    if not 0 <= alpha <= 1:
        raise ValueError(f"'fusion_alpha' needs to be in [0, 1] (got {alpha})")
    for name in ("mask_prob", "last_prob"):
        if not 0 <= config[name] <= 1:
            raise ValueError(f"'{name}' needs to be in [0, 1] (got {config[name]})")
    for name in SWITCHES:
        if not isinstance(config[name], bool):
            raise ValueError(f"'{name}' needs to be True or False (got {config[name]!r})")
    for name in ("tgt_blocks", "tgt_d_ff"):
        if not (config[name] is None or type(config[name]) is int):
            raise ValueError(f"'{name}' needs to be an integer or None (got {config[name]!r})")
    for name in ("temperature", "graph_weight"):
        value = config[name]
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"'{name}' needs to be a number of at least 0 (got {value})")
    columns = config["num_features"]
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 0:
        raise ValueError(f"'num_features' needs to be an integer of at least 0 (got {columns!r})")
    if config["choose_gates"] and config["learnable_fusion"]:
        raise ValueError("'choose_gates' needs learnable_fusion=False (got True)")
    if any(value is not None and value < 1 for value in (blocks, width)):
        raise ValueError(
            f"'tgt_blocks' and 'tgt_d_ff' need to be positive or None (got {blocks} and {width}); "
            f"a model without the TGT branch has fusion_alpha=1"
        )
    if config["tgt_gated"] and width is not None:
        raise ValueError(f"'tgt_d_ff' needs tgt_gated=False (got {width}): gates have none")


def unread(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings that a model with these does not read: why not (:meth:`RecModel.unread`)."""
    alpha, blocks = config["fusion_alpha"], config["tgt_blocks"]
    if alpha == 1:
        return dict.fromkeys(
            ("tgt_blocks", "tgt_d_ff", "tgt_gated", "time_vectors", "use_time", "use_graph",
             "graph_weight", "learnable_fusion", "choose_gates"),
            "fusion_alpha=1 builds the BERT branch alone, without a graph or a gate",
        )  # fmt: skip
    out = {}
    if alpha == 0:
        out = dict.fromkeys(("mask_prob", "last_prob"), "fusion_alpha=0 builds no BERT branch")
        if blocks is not None:
            out["n_blocks"] = f"fusion_alpha=0 builds no BERT branch, and tgt_blocks is {blocks}"
        if config["tgt_gated"] or config["tgt_d_ff"] is not None:
            out["d_ff"] = "fusion_alpha=0 builds no BERT branch, and the TGT branch has its own"
    if not config["use_time"]:
        out["time_vectors"] = "use_time=False takes all times out"
    if alpha == 0 and not config["use_graph"]:
        why = "one branch without a graph leaves nothing to weigh"
        out |= dict.fromkeys(("learnable_fusion", "choose_gates"), why)
    return out
