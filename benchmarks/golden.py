"""The golden setting of each model: chosen on validation of ml1m-loo, changed here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Golden:
    """Settings of a model and of its training that differ from the defaults."""

    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)


# The settings of seed 000: d_model 64, 2 heads, 2 blocks, d_ff 256, max_len 200, dropout 0.2,
# batch 256, lr 0.001, 200 epochs, patience 20. They are also the defaults of the classes.
SEED = {"batch_size": 256, "lr": 1e-3, "epochs": 200, "patience": 20}

GOLDEN: dict[str, Golden] = {
    "sasrec": Golden(train=SEED),
    "bert4rec": Golden(train=SEED),
    "tgt_bert4rec": Golden(train=SEED),
}
