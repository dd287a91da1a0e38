"""Trains small models and writes what came out; run by torchrun, or called for one process."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tgrec.data import leave_one_out
from tgrec.datasets import BOARDS, simulate_movielens
from tgrec.models import MODELS
from tgrec.testing import cycle_graph
from tgrec.training import Teacher, fit

SMALL: dict[str, Any] = {
    "d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 32, "max_len": 8, "dropout": 0.0,
}  # fmt: skip
# Case -> (model, settings).
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("sasrec", {"batch_size": 16}),
    "bert4rec": ("bert4rec", {"batch_size": 15}),
    "tgt_bert4rec": ("tgt_bert4rec", {"batch_size": 16, "weight_decay": 0.1}),
    "accumulated": ("tgt_bert4rec", {"batch_size": 7, "accumulate": 2}),
    "taught": ("sasrec", {"batch_size": 16}),
    "parts": ("tgt_bert4rec", {"batch_size": 16, "events_at_once": 40}),
    "chosen": ("tgt_bert4rec", {"batch_size": 16}),
}
CHOSEN = {"learnable_fusion": False, "choose_gates": True}


def train(case: str, folder: Path, **overrides: Any) -> dict[str, Any]:
    """Losses and weights of one case, from weights that depend on the rank."""
    torch.set_num_threads(1)
    name, settings = CASES[case]
    rank = int(os.environ.get("RANK", "0"))
    split = leave_one_out(cycle_graph())
    torch.manual_seed(rank)
    gates = CHOSEN if case == "chosen" else {}
    model = MODELS[name].from_graph(split.train, **SMALL, **gates)
    if case == "taught":
        torch.manual_seed(7)  # the same teacher in all processes
        teacher = MODELS["bert4rec"].from_graph(split.train, **SMALL)
        settings = {**settings, "teacher": Teacher(teacher)}
    wanted = {"epochs": 3, "lr": 1e-2, "precision": "fp32", "show": False, **settings, **overrides}
    result = fit(model, split, folder=folder / case, **wanted)
    losses = [entry.get("losses", [entry["loss"]]) for entry in result.history]
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    gates = {name: model.config.get(name) for name in ("fusion_alpha", "graph_weight")}
    return {"losses": losses, "best": result.best, "weights": weights.tolist(), "gates": gates}


def main(folder: Path) -> None:
    rank = os.environ["RANK"]
    runs = {case: train(case, folder / f"rank {rank}") for case in CASES}
    runs["resumed"] = train("sasrec", folder / "rank 0", epochs=4, resume=True)
    try:
        train("sasrec", folder / "lonely", batch_size=1)
    except ValueError as error:
        runs["lonely"] = {"error": str(error)}
    (folder / f"{rank}.json").write_text(json.dumps(runs))
    benchmark(folder / "runs")


def benchmark(out: Path) -> None:
    """The command itself, on a tiny board: every process calls it, as torchrun does."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    ml1m = importlib.import_module("ml1m")
    tiny = simulate_movielens(num_users=60, num_items=40, mean_events=10)[0]
    BOARDS["simulated-loo"] = replace(BOARDS["simulated-loo"], load=lambda root, download: tiny)
    line = "--models markov sasrec --dataset simulated --epochs 2 --d_model 8 --max_len 10"
    sys.argv = ["ml1m.py", *line.split(), "--out", str(out)]
    ml1m.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
