"""What weekly interest is trained on, and how: the weeks of a graph, and plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph

POSITIVE = ("hidden", "weeks_of_history", "n_heads", "n_blocks", "link_epochs", "links_per_epoch",
            "epochs", "batch_size", "patience", "eval_every")  # fmt: skip


@dataclass(frozen=True)
class Weeks:
    """A graph and where its weeks begin.

    All events of a week share a time, and their order inside it says nothing: what is visible is
    cut between weeks only.

    Args:
        graph: One kind of events, in the order of their weeks.
        cuts: ``W + 1`` event ids: week i, counted from 0, holds the events with
            ``cuts[i] <= event_id < cuts[i + 1]``. Weeks may be empty.
        first: What the first week is called.

    Raises:
        ValueError: If the graph has several kinds of events, or the cuts are not ascending.
    """

    graph: TemporalRecGraph
    cuts: tuple[int, ...]
    first: int = 1

    def __post_init__(self) -> None:
        kinds = [e[1] for e in self.graph.interaction_types]
        if len(kinds) != 1:
            raise ValueError(
                f"'graph' needs one kind of events (got {kinds}); by_week() makes one of several"
            )
        if any(a > b for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
            raise ValueError(f"'cuts' needs to be ascending (got {list(self.cuts)})")

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def week(self, place: int) -> TemporalRecGraph:
        """The events of one week, as a view."""
        return self.graph.between(self.cuts[place], self.cuts[place + 1])

    def views(self, start: int, stop: int) -> list[TemporalRecGraph]:
        """The weeks ``start..stop-1``, each as a view; a negative start is the first week."""
        return [self.week(place) for place in range(max(start, 0), stop)]

    def until(self, place: int) -> Weeks:
        """What was known when week ``place`` began: no event of it, nor of a later one."""
        past = self.graph.before(self.cuts[place])
        return Weeks(past, self.cuts[: place + 1], self.first)

    def active(self) -> list[int]:
        """The weeks that have events."""
        return [i for i in range(len(self)) if self.cuts[i] < self.cuts[i + 1]]

    def links(self, place: int) -> tuple[Tensor, Tensor]:
        """Who met what in a week: users and items, ``[E]`` int64 each."""
        view = self.week(place)
        user, item = view[view.interaction_types[0]].edge_index
        return user, item

    def of(self, event_id: Tensor) -> Tensor:
        """The weeks that events lie in, int64 of the same shape."""
        cuts = torch.tensor(self.cuts, device=event_id.device)
        return torch.searchsorted(cuts, event_id, right=True) - 1

    def name(self, place: int) -> str:
        """What a week is called."""
        return f"week {self.first + place}"


@dataclass(frozen=True)
class WeeklySettings:
    """How weekly interest is trained."""

    hidden: int = 64
    """Width of all vectors."""
    num_neighbors: tuple[int, ...] = (10, 5)
    """Edges drawn per node in each hop while SAGE learns from links; -1 is all."""
    weeks_of_history: int = 8
    """Weeks that the Transformer reads."""
    weeks_to_learn: int | None = None
    """Only the latest so many weeks are learned to predict; all by default."""
    n_heads: int = 4
    """Attention heads."""
    n_blocks: int = 1
    """Blocks of the Transformer."""
    dropout: float = 0.1
    """In [0, 1)."""
    link_epochs: int = 8
    """At most so many epochs of SAGE on links."""
    links_per_epoch: int = 16_384
    """Links drawn for each of them."""
    epochs: int = 32
    """At most so many passes of the Transformer over all earlier weeks."""
    batch_size: int = 256
    """Users per step of the Transformer, links per step of SAGE."""
    lr: float = 3e-3
    """Learning rate of Adam; it rises within 10 steps and falls to 1 % like a cosine."""
    patience: int = 4
    """Stop after so many evaluations without a better validation recall."""
    eval_every: int = 4
    """Epochs of the Transformer from one evaluation to the next."""
    seed: int = 0
    """Of weights, dropout, batches and draws."""
    device: str = "cpu"
    """cpu, cuda or mps. Written for all three; mps has never been run."""

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
        learned = self.weeks_to_learn
        if learned is not None and (isinstance(learned, bool) or learned < 1):
            raise ValueError(f"'weeks_to_learn' needs to be a positive integer (got {learned!r})")
        if not self.num_neighbors or any(n == 0 or n < -1 for n in self.num_neighbors):
            raise ValueError(
                f"'num_neighbors' needs a number per hop, positive or -1 for all edges (got "
                f"{list(self.num_neighbors)}); with 0 a node would hear of nobody"
            )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"'lr' needs to be a positive number (got {self.lr})")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed >> 32:
            raise ValueError(f"'seed' needs to be an integer in 0..2**32 - 1 (got {self.seed!r})")


@dataclass(frozen=True)
class Fitted:
    """What one training came to.

    Args:
        epochs: Epochs trained.
        losses: The mean loss of each.
        recalls: Epoch -> validation recall, where there was a validation.
        seconds: Wall-clock time.
    """

    epochs: int
    losses: list[float]
    recalls: dict[int, float]
    seconds: float

    @property
    def best(self) -> int:
        """The epoch with the best recall, the earliest of several; the last without validation."""
        return max(self.recalls, key=lambda e: (self.recalls[e], -e), default=self.epochs)
