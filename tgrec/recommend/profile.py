"""What is known of one user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from tgrec.recommend.explain import called
from tgrec.recommend.names import attributes_of
from tgrec.recommend.served import Served

RECENT, GENRES = 5, 5


@dataclass(frozen=True)
class UserProfile:
    """What is known of one user.

    Args:
        user_id: Raw id.
        attributes: What the data say of the person; codes of MovieLens in words.
        events: Number of events.
        first_time: Unix seconds of the first one, None without times or events.
        last_time: Of the last one.
        mean_rating: None without ratings or events.
        genres: Share of the events whose items have a genre, the most frequent first.
        recent: Raw ids and titles of the last items, newest first.
    """

    user_id: Any
    attributes: dict[str, Any]
    events: int
    first_time: int | None
    last_time: int | None
    mean_rating: float | None
    genres: dict[str, float]
    recent: tuple[tuple[Any, str | None], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, under the names of the fields."""
        recent = [{"item_id": item, "title": title} for item, title in self.recent]
        return {**asdict(self), "recent": recent}

    def __str__(self) -> str:
        said = [f"{name} {value}" for name, value in self.attributes.items()]
        lines = [f"user {self.user_id}{': ' if said else ''}{', '.join(said)}"]
        span = ""
        if self.first_time is not None and self.last_time is not None:
            span = f" from {_day(self.first_time)} to {_day(self.last_time)}"
        mean = "" if self.mean_rating is None else f", mean rating {self.mean_rating:.2f}"
        lines.append(f"{self.events} events{span}{mean}")
        if self.genres:
            lines.append(
                "genres: " + ", ".join(f"{name} {part:.0%}" for name, part in self.genres.items())
            )
        if self.recent:
            lines.append("last: " + ", ".join(called(item, title) for item, title in self.recent))
        return "\n".join(lines)


def _day(time: int) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"


def user_profile(served: Served, user: int) -> UserProfile:
    """Reads the profile of one node."""
    index = served.index
    places = slice(int(index.by_user.ptr[user]), int(index.by_user.ptr[user + 1]))
    log, items = index.by_user.log[places], index.by_user.other[places].cpu().numpy()
    times = index.time[log] if index.has_time and log.numel() else None
    found = served.genres
    genres: dict[str, float] = {}
    if found is not None and items.size:
        names, has = found
        share = has[items].mean(0)
        top = np.argsort(-share, kind="stable")[:GENRES]
        genres = {names[g]: float(share[g]) for g in top if share[g] > 0}
    return UserProfile(
        user_id=served.users.id(user),
        attributes=attributes_of(served.graph, "user", user),
        events=items.size,
        first_time=None if times is None else int(times[0]),
        last_time=None if times is None else int(times[-1]),
        mean_rating=_mean_rating(served, user),
        genres=genres,
        recent=tuple(
            (served.items.id(i), served.items.title(i)) for i in items[::-1][:RECENT].tolist()
        ),
    )


def _mean_rating(served: Served, user: int) -> float | None:
    graph = served.graph
    stores = [graph[t] for t in graph.interaction_types if "rating" in graph[t]]
    ratings = [store.rating[store.edge_index[0] == user] for store in stores]
    given = torch.cat(ratings) if ratings else torch.zeros(0)
    given = given[given.isfinite()]
    return float(given.double().mean()) if given.numel() else None
