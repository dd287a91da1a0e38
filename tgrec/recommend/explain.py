"""Why an item: what carried its score, and what in the log supports it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgrec.metrics import target_ranks
from tgrec.recommend.occlusion import Read, events_read, scores_without
from tgrec.recommend.ranking import absent_items, check_count, not_offered
from tgrec.recommend.served import Question, Served
from tgrec.sampler import past_items

# A path is short if the item was met within so many events after the other one.
STEPS = 5


@dataclass(frozen=True)
class PastEvent:
    """One event of the asker, and what it did for the score.

    Args:
        item_id: Raw id.
        title: Where known.
        time: Unix seconds, None where the data have none.
        effect: By how much the score falls if the model does not see this event.
    """

    item_id: Any
    title: str | None
    time: int | None
    effect: float


@dataclass(frozen=True)
class Path:
    """A way through the graph: an item of the asker, other people, the explained item.

    Args:
        item_id: Raw id of the asker's item.
        title: Where known.
        people: How many others met that item and later the explained one.
        soon: How many of them within :data:`STEPS` events.
    """

    item_id: Any
    title: str | None
    people: int
    soon: int


@dataclass(frozen=True)
class Explanation:
    """Why an item got its score.

    Args:
        user_id: Raw id; None for a history of somebody unknown.
        item_id: Raw id of the explained item.
        title: Where known.
        score: As :meth:`Recommender.predict` gives it.
        rank: Beside the items that :meth:`Recommender.recommend` offers, 1 is best; it is behind
            those with an equal score.
        left_out: Why ``recommend`` does not offer this item, None if it does.
        events_read: How many past events the model looked at.
        events: Those without which the score falls, the strongest first.
        paths: The best supported ways from items of the asker to this one.
        shared_genres: Genres that the item has in common with one of ``events`` at least.
        alpha: In models with a gate the share of the first of ``parts``, else None; the rest is the
            share of the second.
        parts: What the gate weighs, none without one.
    """

    user_id: Any
    item_id: Any
    title: str | None
    score: float
    rank: int
    left_out: str | None
    events_read: int
    events: tuple[PastEvent, ...]
    paths: tuple[Path, ...]
    shared_genres: tuple[str, ...]
    alpha: float | None
    parts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, under the names of the fields."""
        out = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}

    def __str__(self) -> str:
        who = "this history" if self.user_id is None else f"user {self.user_id}"
        name = called(self.item_id, self.title)
        where = f"rank {self.rank} of what is new"
        if self.left_out is not None:
            where = f"not recommended ({self.left_out}), it would have rank {self.rank}"
        lines = [f"{name} for {who}: score {self.score:.4g}, {where}"]
        if self.events:
            lines.append(f"carried by ({self.events_read} events read; without it the score falls)")
            lines += [
                f"  {event.effect:9.4f}  {called(event.item_id, event.title)}{_day(event.time)}"
                for event in self.events
            ]
        elif self.events_read:
            lines.append(f"none of the {self.events_read} past events read raised the score")
        else:
            lines.append("no past event was read")
        if self.paths:
            lines.append(
                f"paths through the graph (people who went on to it, within {STEPS} events)"
            )
            lines += [
                f"  {called(path.item_id, path.title)} -> {path.people} "
                f"{'person' if path.people == 1 else 'people'} ({path.soon} soon) -> {name}"
                for path in self.paths
            ]
        if self.shared_genres:
            lines.append(f"shared genres: {', '.join(self.shared_genres)}")
        if self.alpha is not None:
            first, second = self.parts
            lines.append(f"gate: {self.alpha:.0%} {first}, {1 - self.alpha:.0%} {second}")
        return "\n".join(lines)


def called(item_id: Any, title: str | None) -> str:
    """How an item is named in a text."""
    return f"{title} [{item_id}]" if title else f"item {item_id}"


def _day(time: int | None) -> str:
    return "" if time is None else f", {datetime.fromtimestamp(time, UTC):%Y-%m-%d}"


@torch.no_grad()
def explain(
    served: Served, question: Question, item: int, user_id: Any, top_events: int, top_paths: int
) -> Explanation:
    """Explains the score of one item for one asker; see :class:`Explanation`."""
    top_events = check_count("top_events", top_events, 0)
    top_paths = check_count("top_paths", top_paths, 0)
    read = events_read(served, question)
    full, effect = effects(served, question, item, read)
    named = [i for i in effect.argsort(descending=True).tolist() if effect[i] > 0][:top_events]
    target = question.targets()
    _, seen = past_items(question.loader.index, target.user, target.cut)
    absent = absent_items(served, question)
    others = not_offered(question, question.user, absent)
    rank = target_ranks(full, torch.tensor([item], device=full.device), others)
    timed = served.index.has_time
    alpha, *parts = served.model.mixture(read.item.numel()) or (None,)
    events = tuple(
        PastEvent(
            item_id=served.items.id(int(read.item[i])),
            title=served.items.title(int(read.item[i])),
            time=int(read.time[i]) if timed else None,
            effect=float(effect[i]),
        )
        for i in named
    )
    return Explanation(
        user_id=user_id,
        item_id=served.items.id(item),
        title=served.items.title(item),
        score=float(full[0, item]),
        rank=int(rank[0]),
        left_out=_left_out(served, item, seen, absent),
        events_read=read.item.numel(),
        events=events,
        paths=paths(served, question, item, seen, top_paths),
        shared_genres=_shared_genres(served, item, [int(read.item[i]) for i in named]),
        alpha=alpha,
        parts=tuple(parts),
    )


def _left_out(served: Served, item: int, seen: Tensor, absent: Tensor) -> str | None:
    if bool((served.elsewhere == item).any()):
        return f"it has no event in {served.asked!r}, which is asked for"
    if bool((seen == item).any()):
        return "met before"
    return "nobody had met it by then" if bool((absent == item).any()) else None


def effects(served: Served, question: Question, item: int, read: Read) -> tuple[Tensor, Tensor]:
    r"""The scores ``[1, N]``, and by how much that of ``item`` falls without each event ``[E]``.

    .. math:: \text{effect}_e = s_i(h) - s_i(h \setminus e)

    measured by asking the model again for every event, not read from attention weights, which
    need not say what the score depends on (Jain and Wallace, NAACL 2019, arXiv 1902.10186).
    """
    size = read.event_id.numel()
    nothing = torch.zeros(1, size, dtype=torch.bool, device=read.event_id.device)
    each = torch.eye(size, dtype=torch.bool, device=read.event_id.device)
    full = scores_without(served, question, read, nothing)
    without = scores_without(served, question, read, each)
    return full, full[0, item].cpu() - without[:, item].cpu()


def paths(
    served: Served, question: Question, item: int, mine: Tensor, top: int
) -> tuple[Path, ...]:
    """The items of the asker from which most other people went on to ``item``.

    Counted are people, each once per item, in the events before the question.
    """
    events, cut = served.index.by_item, question.log_cut
    start, stop = (
        int(place)
        for place in events.past(
            torch.tensor([item], device=mine.device), torch.tensor([cut], device=mine.device)
        )
    )
    who, twin = events.other[start:stop], events.twin[start:stop]
    # An unknown asker has a node of its own, which is none of these.
    others = who != question.user[0]
    who, twin = who[others], twin[others]
    if who.numel() == 0 or mine.numel() == 0:
        return ()
    # All that each of these people had met before they met the item.
    first = served.index.by_user.ptr[who]
    count = twin - first
    rows = torch.repeat_interleave(count)
    place = torch.arange(rows.numel(), device=rows.device) - (count.cumsum(0) - count)[rows]
    place = place + first[rows]
    wanted = torch.zeros(served.index.num_items, dtype=torch.bool, device=mine.device)
    wanted[mine] = True
    wanted[item] = False
    before = served.index.by_user.other[place]
    mine_too = wanted[before]
    rows, place, before = rows[mine_too], place[mine_too], before[mine_too]
    near = twin[rows] - place <= STEPS
    size = served.index.num_items
    people = torch.bincount((who[rows] * size + before).unique() % size, minlength=size)
    soon = torch.bincount((who[rows][near] * size + before[near]).unique() % size, minlength=size)
    order = np.lexsort((-people.cpu().numpy(), -soon.cpu().numpy()))[:top]
    return tuple(
        Path(served.items.id(i), served.items.title(i), int(people[i]), int(soon[i]))
        for i in order.tolist()
        if people[i] > 0
    )


def _shared_genres(served: Served, item: int, others: list[int]) -> tuple[str, ...]:
    found = served.genres
    if found is None or not others:
        return ()
    names, has = found
    shared = has[item] & has[others].any(0)
    return tuple(names[g] for g in np.flatnonzero(shared))
