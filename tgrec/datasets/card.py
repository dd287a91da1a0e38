"""One screen about a dataset: how much there is, since when, and how far a split can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.datasets.describe import describe

if TYPE_CHECKING:
    from rich.table import Table

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Leak:
    """What training on a leave-one-out split knows of the time after its questions.

    Attributes:
        targets: Test targets: the last events of the users with at least three.
        later_events: Share of training events that are later than a test target, on average over
            the targets. What is counted, trained or drawn from all training events at once knows
            this part of the future of the average question; 0 under a split by time.
        later_target_item: Share of targets whose very item has a training event, always of another
            user, that is later than the target.
    """

    targets: int
    later_events: float
    later_target_item: float


@dataclass(frozen=True)
class DataCard:
    """A dataset in numbers; ``print`` shows it on one screen.

    Attributes:
        users: User nodes.
        items: Item nodes, those without events included.
        items_with_events: Items that somebody met.
        events: All events.
        density: Share of the pairs of users and items (with events) that are events; repeated ones
            count each time.
        first_time: Unix s of the first event, None without times.
        last_time: Of the last one.
        tied_pairs: Share of adjacent events of a user that share a second; their order is that of
            the file.
        tied_last_two: Share of users whose last two events do: there the file decides what is
            asked in a leave-one-out test.
        history: Quantile (``"0"`` .. ``"1"``) -> events per user, of users with events.
        short_users: Users with one or two events, who only train in a leave-one-out split.
        ratings: ``(lowest, mean, highest)`` of those that are known, or None.
        relations: Kind of event -> how many.
        features: Node type -> its attributes.
        leak: Of a leave-one-out split; None if no user has three events, or there are
            no times, so that nobody knows which of two users came first.
    """

    users: int
    items: int
    items_with_events: int
    events: int
    density: float
    first_time: int | None
    last_time: int | None
    tied_pairs: float | None
    tied_last_two: float | None
    history: dict[str, int]
    short_users: int
    ratings: tuple[float, float, float] | None
    relations: dict[str, int]
    features: dict[str, list[str]]
    leak: Leak | None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """What is shown: a heading and a text per line."""
        unrated = self.items - self.items_with_events
        quantiles = ", ".join(f"{_QUANTILE_NAMES[q]} {n:,}" for q, n in self.history.items())
        rows = [
            ("users", f"{self.users:,}"),
            ("items", f"{self.items:,}" + (f" ({unrated:,} without events)" if unrated else "")),
            ("events", f"{self.events:,} ({100 * self.density:.3g} % of all pairs)"),
            ("span", self._span()),
            ("ties", self._ties()),
            ("events per user", quantiles),
            ("short histories", f"{self.short_users:,} users with fewer than 3 events only train"),
        ]
        if self.ratings is not None:
            low, mean, high = self.ratings
            rows.append(("ratings", f"{low:g} to {high:g}, mean {mean:.2f}"))
        if len(self.relations) > 1:
            kinds = ", ".join(f"{name} {count:,}" for name, count in self.relations.items())
            rows.append(("kinds of events", kinds))
        for node_type, names in self.features.items():
            rows.append((f"known of {node_type}s", ", ".join(names) or "ids only"))
        return [*rows, ("leave-one-out leak", self._leak())]

    def _span(self) -> str:
        if self.first_time is None or self.last_time is None:
            return "no times, only an order"
        first, last = (datetime.fromtimestamp(t, UTC) for t in (self.first_time, self.last_time))
        days = (self.last_time - self.first_time) / 86_400
        return f"{first:%Y-%m-%d} to {last:%Y-%m-%d} ({days:,.0f} days)"

    def _ties(self) -> str:
        if self.tied_pairs is None or self.tied_last_two is None:
            return "unknown without times"
        return (f"{_percent(self.tied_pairs)} of a user's neighbouring events share a second; the "
                f"last two of {_percent(self.tied_last_two)} of users do")  # fmt: skip

    def _leak(self) -> str:
        if self.leak is None:
            unknown = "unknown without times"
            return unknown if self.first_time is None else "no user has the 3 events it needs"
        return (f"{_percent(self.leak.later_events)} of training events are later than a test "
                f"target (mean over {self.leak.targets:,}); {_percent(self.leak.later_target_item)}"
                f" of targets have later training events of their own item. A split by time has "
                f"neither.")  # fmt: skip

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.rows())

    def __rich__(self) -> Table:
        # Here and not above: the package is imported by `tgrec doctor` where rich may be broken.
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False, box=None)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in self.rows():
            table.add_row(Text(name), Text(text))
        return table


def data_card(graph: TemporalRecGraph) -> DataCard:
    """Counts everything that a :class:`DataCard` says of a graph.

    Raises:
        ValueError: If the graph has no events.
    """
    if graph.num_events == 0:
        raise ValueError("'graph' has no events; a data card needs at least one")
    counts = describe(graph)
    types = graph.interaction_types
    user = torch.cat([graph[t].edge_index[0] for t in types]).cpu()
    lengths = torch.bincount(user, minlength=graph.num_users)
    own = lengths[lengths > 0].sort().values
    at = [min(own.numel() - 1, int(q * own.numel())) for q in _QUANTILES]
    relations = {t[1]: graph[t].event_id.numel() for t in types}
    return DataCard(
        users=counts["users"],
        items=counts["items"],
        items_with_events=counts["items_with_events"],
        events=counts["events"],
        density=graph.num_events / (own.numel() * counts["items_with_events"]),
        first_time=counts["first_time"],
        last_time=counts["last_time"],
        tied_pairs=counts["tied_pairs"],
        tied_last_two=counts["tied_last_two"],
        history={f"{q:g}": int(own[i]) for q, i in zip(_QUANTILES, at, strict=True)},
        short_users=int((own < 3).sum()),
        ratings=_ratings(graph),
        relations=relations,
        features={node_type: _features(graph, node_type) for node_type in ("user", "item")},
        leak=leave_one_out_leak(graph) if int(own[-1]) >= 3 and graph.has_time else None,
    )


def leave_one_out_leak(graph: TemporalRecGraph) -> Leak:
    """Counts how much of the future a leave-one-out split trains on; see :class:`Leak`.

    "Later" is by ``event_id``: (time, input row).

    Raises:
        ValueError: If no user has three events, or the graph has no times.
    """
    if not graph.has_time:
        raise ValueError("'graph' has no times: which event of two users is later is not known")
    split = leave_one_out(graph)
    train, targets = split.train, split.test
    types = train.interaction_types
    event_id = torch.cat([train[t].event_id for t in types]).cpu()
    item = torch.cat([train[t].edge_index[1] for t in types]).cpu()
    earlier = torch.searchsorted(event_id.sort().values, targets.cut)
    later: Tensor = 1.0 - earlier.double() / event_id.numel()
    newest = torch.full((graph.num_items,), -1)
    newest.scatter_reduce_(0, item, event_id, reduce="amax")
    return Leak(
        targets=len(targets),
        later_events=round(float(later.mean()), 4),
        later_target_item=round(float((newest[targets.item] > targets.cut).double().mean()), 4),
    )


_QUANTILE_NAMES = {"0": "min", "0.25": "25 %", "0.5": "median", "0.75": "75 %", "0.9": "90 %",
                   "1": "max"}  # fmt: skip


def _ratings(graph: TemporalRecGraph) -> tuple[float, float, float] | None:
    parts = [graph[t].rating.double() for t in graph.interaction_types if "rating" in graph[t]]
    known = torch.cat([part[part.isfinite()] for part in parts]) if parts else torch.zeros(0)
    if known.numel() == 0:
        return None
    return float(known.min()), float(known.mean()), float(known.max())


def _features(graph: TemporalRecGraph, node_type: str) -> list[str]:
    """Attributes of a node type, strings by their names, without ids."""
    names = [key.removesuffix("_bytes") for key in graph[node_type].keys()]
    return [n for n in names if n not in ("num_nodes", "raw_id") and not n.endswith("_offsets")]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
