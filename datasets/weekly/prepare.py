"""Draws the simulated weekly table, measures it and reference scorers, compares with stats.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph
from tgrec.datasets import describe, simulate_weekly, week_cut, week_targets, weekly_graph
from tgrec.metrics import precision_recall_at_k, top_k

GOLDEN = Path(__file__).parent / "stats.json"
SEEDS = (0, 1, 2)
PERIOD = 4  # weeks from season to season
# Chosen by the recall of week 8 given weeks 1 to 7.
COUNT_DECAY, TASTE_DECAY, RANK, REPEAT = 0.7, 0.85, 20, 0.4


def references(seed: int, target: int = 9, k: int = 5) -> dict[str, dict[str, float]]:
    """Precision@k and Recall@k of scorers that see the weeks before ``target`` alone.

    Only the first of them knows the truth; nothing is learned by the others.
    """
    table, oracle = simulate_weekly(seed=seed)
    graph = weekly_graph(table)
    weeks = past_counts(graph, target)
    popularity = weeks.sum(dim=(0, 1)).expand_as(weeks[0])
    scores = {
        "oracle": oracle.score(target, graph.raw_ids("user"), graph.raw_ids("item")),
        "popularity": popularity,
        "last week": weeks[-1] + 1e-6 * popularity,
        "decayed counts": decayed(weeks, COUNT_DECAY) + 1e-6 * popularity,
        "communities": communities(weeks, torch.ones(target, graph.num_items)),
        "communities and seasons": communities(weeks, seasons(weeks)),
    }
    pairs = week_targets(graph, target)
    return {
        name: precision_recall_at_k(top_k(score.float(), k), pairs, graph.num_items).summary()
        for name, score in scores.items()
    }


def past_counts(graph: TemporalRecGraph, target: int) -> Tensor:
    """Counts of the weeks before ``target``, ``[target - 1, U, N]`` float64."""
    out = torch.zeros(target - 1, graph.num_users, graph.num_items, dtype=torch.float64)
    for week in range(1, target):
        view = graph.between(week_cut(graph, week), week_cut(graph, week + 1))
        store = view["user", "interacts", "item"]
        out[week - 1][store.edge_index[0], store.edge_index[1]] = store.edge_attr[:, 0].double()
    return out


def decayed(weeks: Tensor, decay: float) -> Tensor:
    """The sum over weeks, each worth ``decay`` of the next, ``[U, N]``."""
    age = torch.arange(len(weeks) - 1, -1, -1, dtype=weeks.dtype)
    return torch.einsum("w,wun->un", decay**age, weeks)


def seasons(weeks: Tensor) -> Tensor:
    """Factors of all past weeks and the target, ``[T, N]``: one harmonic per item, by ridge."""
    share = weeks.sum(dim=1)
    share = share / share.mean(dim=0).clamp(min=1e-9)
    angle = 2.0 * torch.pi / PERIOD * torch.arange(1, len(weeks) + 2, dtype=weeks.dtype)
    basis = torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], dim=1)
    ridge = torch.diag(torch.tensor([0.0, 0.3, 0.3], dtype=weeks.dtype))
    known = basis[:-1]
    weight = torch.linalg.solve(known.T @ known + ridge, known.T @ share)
    return (basis @ weight).clamp(min=0.05)


def communities(weeks: Tensor, season: Tensor) -> Tensor:
    """Low-rank tastes of deseasoned decayed counts, mixed with the counts, in season."""
    season = season.to(weeks.dtype)
    counts = decayed(weeks / season[:-1].unsqueeze(1), TASTE_DECAY)
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
    left, values, right = torch.linalg.svd(share.sqrt(), full_matrices=False)
    taste = (left[:, :RANK] * values[:RANK] @ right[:RANK]).clamp(min=0.0) ** 2 * season[-1]
    again = decayed(weeks, COUNT_DECAY) * season[-1]
    parts = [x / x.sum(dim=1, keepdim=True).clamp(min=1e-9) for x in (taste, again)]
    return (1.0 - REPEAT) * parts[0] + REPEAT * parts[1]


def agrees(one: object, two: object) -> bool:
    """Whether two trees of figures are equal, measured ones up to the last bits of a library."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(agrees(one[key], two[key]) for key in one)
    if isinstance(one, float) and isinstance(two, float):
        return abs(one - two) < 0.003
    return one == two


def measure() -> dict[str, object]:
    """The statistics of the card."""
    return {
        "default": describe(weekly_graph(simulate_weekly()[0])),
        "week 9": {
            str(seed): {
                name: {key: round(value, 3) for key, value in figures.items()}
                for name, figures in references(seed).items()
            }
            for seed in SEEDS
        },
    }


if __name__ == "__main__":
    measured = measure()
    print(json.dumps(measured, indent=2))
    if not agrees(measured, json.loads(GOLDEN.read_text())):
        sys.exit(f"these are not the statistics in {GOLDEN}")
