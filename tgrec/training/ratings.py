"""How well a model foretells ratings, beside what needs no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, Split, Targets, TemporalRecGraph
from tgrec.loader import SeedLoader, Track
from tgrec.sampler import EventIndex


class RatesItems(Protocol):
    """A model that foretells ratings."""

    sampling: Sampling

    def rate(self, batch: RecBatch, item: Tensor) -> Tensor:
        """``[B]`` the rating that each seed gives to ``item`` ``[B]``."""
        ...


def foretells_ratings(model: object) -> TypeGuard[RatesItems]:
    """Whether a model has a rating head."""
    return isinstance(getattr(model, "rating", None), nn.Module)


@torch.no_grad()
def rating_rmse(
    model: RatesItems,
    split: Split,
    targets: Targets,
    *,
    track: Track = "T1",
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Mapping[str, float]:
    """Root mean square errors on the ratings of targets, in the unit of the ratings.

    Args:
        model: In evaluation mode, fitted on ``split.train``. It is told which item is rated, and
            reads the user's past strictly before the cut.
        split: Ordered in time, as all splits of this library are.
        targets: ``split.val`` or ``split.test``; each cut is the event of its target. Those whose
            event has no rating are left out.
        track: What the model may know about the time of the question.
        batch_size: Targets per batch.
        device: Where the model is.

    Returns:
        ``model``; ``mean``, of the mean of all training ratings; ``bias``, of :func:`bias_model`;
        and ``targets``, how many there were.

    Raises:
        ValueError: If no target has a rating.
    """
    index = EventIndex(split.graph, device)
    asked = targets.to(device)
    wanted = index.rating_of(asked.cut)
    rated = wanted.isfinite()
    asked, wanted = asked.select(rated), wanted[rated]
    if len(asked) == 0:
        raise ValueError("no target has a rating: 'split' needs a graph with ratings")
    guess = torch.zeros_like(wanted)
    for rows, batch in SeedLoader(index, model.sampling, track).eval_batches(asked, batch_size):
        guess[rows] = model.rate(batch, asked.item[rows])
    mean, user, item = bias_model(split.train)
    bias = mean + user[asked.user.cpu()] + item[asked.item.cpu()]
    known = wanted.double().cpu()

    def error(guessed: Tensor) -> float:
        return float((guessed.double().cpu() - known).square().mean().sqrt())

    return {
        "model": error(guess),
        "mean": error(torch.full_like(known, mean)),
        "bias": error(bias),
        "targets": float(len(asked)),
    }


def bias_model(
    graph: TemporalRecGraph, regularisation: float = 5.0, rounds: int = 20
) -> tuple[float, Tensor, Tensor]:
    r"""The mean rating, and how much each user and each item lies above it.

    .. math:: \min_{b} \sum_{(u, i)} (r_{ui} - \mu - b_u - b_i)^2
              + \lambda \Big(\sum_u b_u^2 + \sum_i b_i^2\Big)

    (Koren, Bell and Volinsky, IEEE Computer 2009), solved by turns. Who has no rating has bias 0.

    Args:
        graph: Training events with ratings.
        regularisation: Lambda.
        rounds: Of turns.

    Returns:
        The mean, ``[U]`` float64 and ``[N]`` float64.

    Raises:
        ValueError: If the graph has no ratings.
    """
    index = EventIndex(graph, "cpu")
    known = None if index.rating is None else index.rating.isfinite()
    if index.rating is None or known is None or not known.any():
        raise ValueError("'graph' has no ratings")
    user, item, rating = index.user[known], index.item[known], index.rating[known].double()
    mean = float(rating.mean())
    of_user = torch.zeros(graph.num_users, dtype=torch.float64)
    of_item = torch.zeros(graph.num_items, dtype=torch.float64)
    for _ in range(rounds):
        of_item = _ridge(item, rating - mean - of_user[user], graph.num_items, regularisation)
        of_user = _ridge(user, rating - mean - of_item[item], graph.num_users, regularisation)
    return mean, of_user, of_item


def _ridge(node: Tensor, residual: Tensor, size: int, regularisation: float) -> Tensor:
    total = torch.zeros(size, dtype=torch.float64).index_add_(0, node, residual)
    return total / (torch.bincount(node, minlength=size) + regularisation).clamp(min=1e-12)
