"""The ranking code, once for all models."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tgrec.data import RecBatch, Split, Targets
from tgrec.data.random import uniform64
from tgrec.loader import SeedLoader, Track
from tgrec.metrics import (
    MISS,
    candidate_ranks,
    group_summaries,
    length_groups,
    sampled_negatives,
    summarize,
    target_ranks,
)
from tgrec.models.base import RecModel
from tgrec.models.popularity import item_counts
from tgrec.sampler import EventIndex, past_items

# Candidate sets ranked beside the full catalogue: (drawn how, how many).
SAMPLED: Mapping[str, tuple[str, int]] = {
    "uniform-100": ("uniform", 100),
    "popularity-100": ("popularity", 100),
    "uniform-28": ("uniform", 28),
}

# First key of the draws of each kind. Another number is another draw, which is not comparable.
_STREAM = {"uniform": 0x756E69, "popularity": 0x706F70}


@dataclass(frozen=True)
class Evaluation:
    """The ranks of all targets, from which every table can be derived again.

    Args:
        ranks: Candidate set -> ``[n]`` int64 rank of the target, 1 is best, ties count against it;
            ``tgrec.metrics.MISS`` (all metrics 0) for a target that is a miss by definition.
        history_length: ``[n]`` int64 number of events before each target.
        targets: What was asked.
        groups: Name -> ``[n]`` bool, whose figures are reported: by length of history, ``rare
            item`` (the target is of the rarer half of the items of training), cold users and items.
    """

    ranks: dict[str, Tensor]
    history_length: Tensor
    targets: Targets
    groups: dict[str, Tensor] = field(default_factory=dict)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Candidate set -> metric -> mean over users."""
        return {name: summarize(ranks) for name, ranks in self.ranks.items()}

    def group_metrics(self) -> dict[str, dict[str, float]]:
        """Group -> full-ranking metrics, and the number of ``users``."""
        return group_summaries(self.ranks["full"], self.groups)


@torch.no_grad()
def evaluate(
    model: RecModel,
    split: Split,
    targets: Targets,
    *,
    track: Track = "T1",
    remove_seen: bool = True,
    sampled: bool | Mapping[str, tuple[str, int]] = True,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    index: EventIndex | None = None,
    amp: bool = False,
) -> Evaluation:
    """Ranks the target of every row among all items, and among sampled candidates.

    ``rank = 1 + #{other items with score >= the target's}``; items of the user's past do not count
    (if ``remove_seen``), the target always does. Only one batch of scores is ever held: the
    users x items matrix is not built. Where ``split.cold_is_miss``, targets that training has
    never seen get the rank ``tgrec.metrics.MISS`` in every candidate set. Where
    ``split.candidates`` are given, no other item is ranked or drawn.

    Args:
        model: Any recommender; it is put into evaluation mode and back.
        split: Histories come from ``split.graph``, strictly before each cut; sampled candidates
            are drawn by the popularity in ``split.train``.
        targets: ``split.val`` or ``split.test``.
        track: What the model may know about the time of the question.
        remove_seen: Leave the items of the past out of the ranking.
        sampled: Also rank among the candidate sets of :data:`SAMPLED`, or among these.
        batch_size: Users per batch.
        device: Where the model is.
        index: An index over ``split.graph`` on that device, to save building it.
        amp: Run the model under autocast to bfloat16, as training and validation do where the
            hardware has it (:attr:`TrainSettings.amp`); for a Transformer it is twice as fast.
            Products of users and items stay in float32, so that no ties arise, but single ranks
            move: NDCG@10 on ml1m-loo by less than 0.0005, up or down.

    Raises:
        ValueError: If a score is NaN, the model scores another number of items, a target is no
            candidate, or ``sampled`` names no candidate sets.
    """
    if not isinstance(sampled, bool | Mapping):
        raise ValueError(
            f"'sampled' needs to be True, False or a mapping of candidate sets, such as "
            f"{{'uniform-100': ('uniform', 100)}} (got {sampled!r})"
        )
    index = EventIndex(split.graph, device) if index is None else index
    loader = SeedLoader(index, model.sampling, track)
    asked = targets.to(device)
    popularity = item_counts(split.train).to(device)
    ranked = _Ranked.of(split, targets, device)
    sets = (SAMPLED if sampled else {}) if isinstance(sampled, bool) else sampled
    names = ["full", *sets]
    ranks = {name: torch.zeros_like(asked.item) for name in names}
    was_training = model.training
    model.eval()
    try:
        for rows, batch in loader.eval_batches(asked, batch_size):
            part = asked.select(rows)
            with torch.autocast(part.user.device.type, torch.bfloat16) if amp else nullcontext():
                scores = _scores(model, batch)
            if scores.shape != (rows.numel(), split.graph.num_items):
                raise ValueError(
                    f"{type(model).__name__}.score returned {list(scores.shape)} for "
                    f"{rows.numel()} users and {split.graph.num_items} items; was the model made "
                    f"for another catalogue?"
                )
            scores, part, seen, counts = ranked.only(
                scores, part, past_items(index, part.user, part.cut), popularity
            )
            ranks["full"][rows] = target_ranks(scores, part.item, seen if remove_seen else None)
            for name, negatives in _candidates(part, seen, counts, sets).items():
                ranks[name][rows] = candidate_ranks(scores, part.item, negatives)
    finally:
        model.train(was_training)
    ranks = {name: found.cpu() for name, found in ranks.items()}
    length, counts = loader.lengths(asked).cpu(), popularity.cpu()
    groups = {
        **length_groups(length),
        "rare item": _of_the_rarer_half(counts, split.candidates)[targets.item],
        **_cold_groups(split, targets, counts, length, ranks),
    }
    return Evaluation(ranks, length, targets, groups)


def _scores(model: RecModel, batch: RecBatch) -> Tensor:
    """Scores; a model whose last product autocast has rounded is asked again without autocast."""
    device = batch.user.device.type
    scores = model.score(batch)
    if scores.dtype != torch.float32 and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            scores = model.score(batch)
    return scores


@dataclass(frozen=True)
class _Ranked:
    """The items that are ranked, ``[M]`` in ascending order, and the place of each item there."""

    items: Tensor | None = None
    place: Tensor | None = None

    @classmethod
    def of(cls, split: Split, targets: Targets, device: torch.device | str) -> _Ranked:
        if split.candidates is None:
            return cls()
        if not bool(split.candidates[targets.item].all()):
            missing = int((~split.candidates[targets.item]).sum())
            raise ValueError(
                f"'targets' holds {missing} items that are no candidates; were they made for "
                f"another split?"
            )
        items = split.candidates.nonzero().view(-1)
        place = torch.full((split.candidates.numel(),), -1)
        place[items] = torch.arange(items.numel())
        return cls(items.to(device), place.to(device))

    def only(
        self, scores: Tensor, part: Targets, seen: tuple[Tensor, Tensor], counts: Tensor
    ) -> tuple[Tensor, Targets, tuple[Tensor, Tensor], Tensor]:
        """The same without other items, numbered anew."""
        if self.items is None or self.place is None:
            return scores, part, seen, counts
        item = self.place[seen[1]]
        kept = item >= 0
        part = Targets(part.user, part.cut, self.place[part.item], part.time)
        columns = scores.index_select(1, self.items)
        return columns, part, (seen[0][kept], item[kept]), counts[self.items]


def _candidates(
    part: Targets,
    seen: tuple[Tensor, Tensor],
    popularity: Tensor,
    sets: Mapping[str, tuple[str, int]],
) -> dict[str, Tensor]:
    """Candidate set -> ``[B, K]`` items outside the past and the target, the same for any model."""
    own = torch.arange(len(part), device=part.user.device)
    outside = (torch.cat([seen[0], own]), torch.cat([seen[1], part.item]))
    out: dict[str, Tensor] = {}
    for kind, stream in _STREAM.items():
        sizes = {name: size for name, (how, size) in sets.items() if how == kind}
        if not sizes:
            continue
        weight = popularity if kind == "popularity" else None
        draws = _draws(stream, part.user, popularity.numel())
        drawn = sampled_negatives(draws, max(sizes.values()), outside, weight)
        # In the order of the draw: the first 28 of 100 are a draw of 28.
        out |= {name: drawn[:, :size] for name, size in sizes.items()}
    return out


def _draws(stream: int, user: Tensor, num_items: int) -> Tensor:
    """``[B, N]`` uniform numbers, each a function of (stream, user, item) alone."""
    item = torch.arange(num_items, device=user.device)
    # A few users at a time: hashing holds several int64 copies of what it works on.
    return torch.cat([uniform64(stream, some.unsqueeze(1), item) for some in user.split(64)])


def _of_the_rarer_half(counts: Tensor, candidates: Tensor | None) -> Tensor:
    """``[N]`` bool: of the candidates with training events, those with the median number or fewer.

    Candidates only, so that it is the same items whether other domains are in the graph or not.
    """
    there = counts > 0 if candidates is None else (counts > 0) & candidates.to(counts.device)
    return there & (counts <= counts[there].median()) if there.any() else there


def _cold_groups(
    split: Split, targets: Targets, popularity: Tensor, length: Tensor, ranks: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Under a time split, what training has never seen is a miss, and is reported."""
    if not split.cold_is_miss:
        return {}
    cold_item, cold_user = popularity[targets.item] == 0, length == 0
    for values in ranks.values():
        values[cold_item | cold_user] = MISS
    return {"cold item": cold_item, "cold user": cold_user, "warm": ~(cold_item | cold_user)}
