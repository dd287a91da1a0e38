"""The golden setting of each model, changed only here.

Chosen on validation of ml1m-loo (trigrec: of trigrec-food) by the runs in LOG.md, except where it
is said to be untried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Golden:
    """Settings of a model and of its training that differ from the defaults."""

    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)


# Small batches and a falling learning rate reach in tens of epochs what the seed's settings (below)
# need 200 for. The seed's own are asked for by flags:
#   --batch_size 256 --epochs 200 --patience 20 --lr 0.001 --lr_decay none --warmup_steps 0
#   --windows last
#   --n_blocks 2 --tgt_blocks 2 --tgt_d_ff 256 --temperature 0 --graph_weight 2
#   --positions learned --time_vectors False --item_features False --tgt_fusion_alpha 0.3
#   --tgt_learnable_fusion True
TRAIN = {"batch_size": 64, "lr": 1e-3, "lr_decay": "cosine", "warmup_steps": 100, "eval_every": 5}

# BERT4Rec learns from holes only. With 20 % of them and the same event last in every epoch it
# stopped at 0.123 on validation: hence more holes, windows that end elsewhere every epoch, and
# more sequences whose only hole is the last one.
BERT4REC = Golden(
    {"mask_prob": 0.4, "last_prob": 0.3},
    {**TRAIN, "epochs": 150, "lr": 2e-3, "windows": "random"},
)
BERT_HYBRID = Golden(BERT4REC.model, {**BERT4REC.train, "epochs": 60})

TGT = {
    "n_blocks": 1,
    "temperature": 0.07,
    "fusion_alpha": 0.1,
    "learnable_fusion": False,
    "graph_weight": 1.1,
    "choose_gates": True,
    "tgt_blocks": 8,
    "tgt_gated": True,
    "positions": "relative",
    "time_vectors": True,
    "item_features": True,
}

GOLDEN: dict[str, Golden] = {
    "sasrec": Golden(train={**TRAIN, "epochs": 60, "lr": 2e-3}),
    "bert4rec": BERT4REC,
    # Masks as for bert4rec, but all events of long histories, since most sequences are read from
    # left to right; how many are read each way was tried. The weight of the graph is chosen.
    "enhanced_bert4rec": Golden(
        {"mask_prob": 0.4, "use_graph": True, "choose_weight": True},
        {**TRAIN, "epochs": 30, "lr": 2e-3, "windows": "all"},
    ),
    # 487,059 parameters: the TGT branch is deep and narrow, with gates in the place of feed-forward
    # layers and vectors that say when events happened and, on T2, how long the newest one is ago.
    # Genres and years are part of the vectors of items.
    # All events of long histories are trained on. The gate and the weight of the graph are not
    # learned but chosen, from here on: see the model.
    "tgt_bert4rec": Golden(
        TGT,
        {**TRAIN, "epochs": 20, "lr": 3e-3, "windows": "all", "eval_every": 4},
    ),
    # One seed is one prediction here, not a whole sequence: larger batches, larger steps.
    "sage": Golden(
        {"num_neighbors": (20, 3), "seeds_per_user": 40},
        {**TRAIN, "epochs": 20, "batch_size": 256, "lr": 5e-3},
    ),
    "lightgcn": Golden(
        {"num_neighbors": (20,), "seeds_per_user": 40},
        {**TRAIN, "epochs": 20, "batch_size": 256, "lr": 5e-3},
    ),
    # The rest of seed 000's field, each under the loss of the models above and, as sasrec, for
    # about a quarter of an hour on one core. Nothing was tried but what they share with sasrec and
    # bert4rec.
    "gru4rec": Golden(train={**TRAIN, "epochs": 60, "lr": 2e-3}),
    "caser": Golden({"window": 10}, {**TRAIN, "epochs": 30, "lr": 2e-3}),
    "hstu": Golden(train={**TRAIN, "epochs": 25, "lr": 2e-3}),
    "tcn_bert4rec": Golden(train={**TRAIN, "epochs": 35, "lr": 2e-3}),
    "bert_hybrid_fixed": BERT_HYBRID,
    "bert_hybrid_discrete": BERT_HYBRID,
    "bert_hybrid_learned": BERT_HYBRID,
    "bert_hybrid_continuous": BERT_HYBRID,
    # Of each of its stages (benchmarks/trigrec.py). Lists are short and items many: what a step
    # does to an item has to be large.
    "trigrec": Golden(
        {
            "n_blocks": 1,
            "dropout": 0.1,
            "mask_prob": 0.5,
            "last_prob": 0.5,
            "positions": "relative",
            "graph_weight": 16.0,
            "choose_weight": True,
        },
        {**TRAIN, "epochs": 6, "batch_size": 256, "lr": 1e-2},
    ),  # fmt: skip
}

# Where the time of the question is known (tracks T2 and T2-coarse) fewer epochs are enough, and
# genres and years of items make no difference on validation.
GOLDEN_T2: dict[str, Golden] = {
    "tgt_bert4rec": Golden(
        {**TGT, "item_features": False},
        {**TRAIN, "epochs": 16, "lr": 3e-3, "windows": "all", "eval_every": 4},
    ),
}


def golden_of(name: str, track: str = "T1") -> Golden:
    """The golden setting of a model on a track; for models without one, the defaults."""
    on_track = {} if track == "T1" else GOLDEN_T2
    return on_track.get(name) or GOLDEN.get(name, Golden())
