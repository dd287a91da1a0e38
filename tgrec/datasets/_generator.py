"""The generative model behind :mod:`tgrec.datasets.simulated`, in plain numpy.

Every random number is a raw 64-bit draw of PCG64, whose stream numpy keeps stable, turned into
integers by shifts and products. Weights are *integers held in float64*, below 2**53, so that sums
and matrix products are exact in any order: the same seed gives the same bytes on every machine,
whatever its vector units and its BLAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NUM_GENRES = 18
DAY = 86_400
SESSION_GAP = 3_600  # seconds: a pause of an hour or more begins a new session
EPOCH = 956_700_000  # 2000-04-25, as in MovieLens-1M
JOIN_DAYS = 300
DRIFT_DAYS, PHASES = 32, 16  # tastes move from start to end within this many days, in steps
GAP_DAYS = np.array([1, 1, 2, 3, 5, 8, 13, 27])  # equally likely days from session to session

# What happens between two events, in 256ths: a new session, the same second, or a few seconds.
TIE, SECONDS, SESSION = 0, 1, 2
PROB = np.array([140, 95, 21])
# The next item is drawn from base weights plus bonuses, in 16ths of the sum of base weights:
SHELF_BONUS = np.array([[8, 5, 3, 2], [0, 0, 0, 0], [0, 0, 0, 0]])  # by kind, shelf distance
SEQUEL_BONUS = np.array([[0, 5, 10], [4, 14, 14], [3, 3, 3]])  # by kind, lag of the predecessor
RECENT = SEQUEL_BONUS.shape[1]
MAX_EVENTS = 1_000  # a user's events in one session then always end before the next day
MAX_ITEMS = 10_000  # keeps every sum of weights below 2**53

_ITEMS, _PROTOTYPES, _USERS, _CLOCK, _CHOICE, _RATING = range(6)


@dataclass(frozen=True)
class Latents:
    """What the generator knows and a model does not (U users, N items, G genres).

    Args:
        popularity: ``[N]`` integer weights, about ``1 / (rank + 1)``.
        genre: ``[N, G]`` integer weights, the same sum in each row.
        shelf: ``[N, 4]`` the items that follow on the same shelf, nearest first.
        sequel: ``[N]`` the sequel, -1 if there is none.
        part: ``[N]`` 1 for a first film or a single one, 2 for its sequel and so on.
        year: ``[N]``.
        start: ``[U, G]`` integer tastes on the first day.
        end: ``[U, G]`` integer tastes after ``DRIFT_DAYS`` days.
        people: ``[U, 3]`` gender, age and occupation codes; the first two shape tastes.
    """

    popularity: Floats
    genre: Floats
    shelf: Ints
    sequel: Ints
    part: Ints
    year: Ints
    start: Floats
    end: Floats
    people: Ints


@dataclass(frozen=True)
class Clock:
    """When each user's events happen, ``[U, T]`` each; independent of the items chosen.

    Args:
        kind: TIE, SECONDS or SESSION, of the step from the event before.
        day: Days since joining, the same within a session.
        start: Unix seconds at which the session began.
        time: Unix seconds.
    """

    kind: Ints
    day: Ints
    start: Ints
    time: Ints


def draw(seed: int, stream: int, *shape: int) -> NDArray[np.uint64]:
    """Raw 64-bit draws of one of the independent streams of a seed."""
    generator = np.random.PCG64(np.random.SeedSequence([seed, stream]))
    return generator.random_raw(int(np.prod(shape))).reshape(shape)


def below(raw: NDArray[np.uint64], bound: int) -> Ints:
    """Uniform integers in [0, bound) from raw draws, for bounds below 2**32."""
    return (((raw >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def make_latents(num_users: int, num_items: int, seed: int) -> Latents:
    """Draws items, people and their tastes."""
    raw = draw(seed, _ITEMS, num_items, 6)
    index = np.arange(num_items)
    # Of every five items the first two, or three, are one series.
    head = index - index % 5
    length = 2 + (below(raw[head, 0], 3) == 0)
    in_series = (index - head < length) & (head + length <= num_items)
    part = np.where(in_series, index - head + 1, 1)
    has_next = in_series & (part < length)
    source = np.where(in_series, head, index)  # a series shares its genres

    main = np.minimum(below(raw[source, 1], NUM_GENRES), below(raw[source, 2], NUM_GENRES))
    second = below(raw[source, 3], NUM_GENRES)
    genre = np.zeros((num_items, NUM_GENRES))
    genre[index, second] += 2.0
    genre[index, main] += 4.0
    rank = np.argsort(np.argsort(raw[:, 4], kind="stable"), kind="stable")
    year = 1935 + below(raw[source, 5], 60) + 2 * (part - 1)
    people, start, end = _tastes(num_users, seed)
    return Latents(
        popularity=(20_000 // (rank + 1)).astype(np.float64) + 1.0,
        genre=genre,
        shelf=_shelves(main, raw[:, 0]),
        sequel=np.where(has_next, index + 1, -1),
        part=part,
        year=year,
        start=start,
        end=end,
        people=people,
    )


def _shelves(main: Ints, raw: NDArray[np.uint64]) -> Ints:
    """Items of one genre in random order, cut into shelves of twelve: the next four of each."""
    order = np.lexsort((raw, main))
    follow = np.empty((main.size, SHELF_BONUS.shape[1]), dtype=np.int64)
    for first in range(0, main.size, 12):
        members = order[first : first + 12]
        for distance in range(follow.shape[1]):
            follow[members, distance] = np.roll(members, -distance - 1)
    return follow


def _tastes(num_users: int, seed: int) -> tuple[Ints, Floats, Floats]:
    def skewed(raw: NDArray[np.uint64]) -> Ints:
        return below(raw, 33) ** 4 // 32**3  # 0..32, mostly small: a few favourites

    raw = draw(seed, _USERS, num_users, 3 + 2 * NUM_GENRES)
    people = np.stack([below(raw[:, k], n) for k, n in enumerate((2, 7, 21))], axis=1)
    groups = skewed(draw(seed, _PROTOTYPES, 14, NUM_GENRES))[people[:, 0] * 7 + people[:, 1]]
    start = 1 + groups // 2 + skewed(raw[:, 3 : 3 + NUM_GENRES])
    end = 1 + groups // 2 + skewed(raw[:, 3 + NUM_GENRES :])
    return people, start.astype(np.float64), end.astype(np.float64)


def make_counts(num_users: int, mean_events: int, seed: int) -> Ints:
    """Events per user: between 5 and 3 * mean, most users below the mean, as in MovieLens."""
    u = below(draw(seed, _CLOCK, num_users), 2**15)
    return 5 + (3 * (mean_events - 5) * u * u >> 30)


def make_clock(num_users: int, steps: int, seed: int) -> Clock:
    """Draws sessions and bursts for all users."""
    raw = draw(seed, _CLOCK, num_users, 4 * steps + 2)[:, 1:]
    joined = EPOCH + below(raw[:, 0], JOIN_DAYS * DAY)
    at = raw[:, 1:].reshape(num_users, 4, steps)
    kind = np.searchsorted(np.cumsum(PROB), below(at[:, 0], 256), side="right")
    kind[:, 0] = SESSION
    new = kind == SESSION
    days = np.where(new, GAP_DAYS[below(at[:, 1], GAP_DAYS.size)], 0)
    days[:, 0] = 0
    start_step = np.where(new, days * DAY + below(at[:, 2], DAY // 4), 0)
    start_step[:, 0] = 0
    start = joined[:, None] + np.cumsum(start_step, axis=1)
    gap = np.cumsum(np.where(kind == SECONDS, 1 + below(at[:, 3], 60), 0), axis=1)
    before = np.maximum.accumulate(np.where(new, gap, 0), axis=1)  # gaps of earlier sessions
    return Clock(kind, np.cumsum(days, axis=1), start, start + gap - before)


def affinity(latents: Latents, user: Ints, day: Ints) -> Floats:
    """How well each item's genres meet the users' tastes of that day, ``[B, N]`` integers."""
    phase = np.minimum(day * PHASES // DRIFT_DAYS, PHASES).astype(np.float64)[:, None]
    taste = latents.start[user] * (PHASES - phase) + latents.end[user] * phase
    product: Floats = taste @ latents.genre.T
    return product


def item_weights(
    latents: Latents, user: Ints, day: Ints, kind: Ints, recent: Ints, seen: Bools
) -> Floats:
    """The unnormalised distribution of the next item: the one place where it is defined.

    ``popularity * affinity**4`` for what is unseen, plus, as shares of its sum, bonuses for what
    follows the last item on its shelf and for sequels of the last three items.

    Args:
        latents: The true state.
        user: ``[B]``.
        day: ``[B]`` days since joining, at the event.
        kind: ``[B]`` TIE, SECONDS or SESSION.
        recent: ``[B, 3]`` the last items, newest first, -1 where there is none.
        seen: ``[B, N]`` True at items that the user already has; they never come again.

    Returns:
        ``[B, N]`` integers in float64.
    """
    fit = np.floor(affinity(latents, user, day) / 32.0)
    weights = latents.popularity * (fit * fit * fit * fit + 1.0)
    weights[seen] = 0.0
    share = np.floor(weights.sum(axis=1) / 16.0)
    rows = np.arange(user.size)

    def add(item: Ints, bonus: Ints) -> None:
        ok = (item >= 0) & ~seen[rows, item]  # item -1 reads the last column, and is not used
        weights[rows[ok], item[ok]] += share[ok] * bonus[ok]

    last = recent[:, 0]
    for distance in range(SHELF_BONUS.shape[1]):
        follower = np.where(last >= 0, latents.shelf[last, distance], -1)
        add(follower, SHELF_BONUS[kind, distance])
    for lag in range(RECENT):
        item = recent[:, lag]
        add(np.where(item >= 0, latents.sequel[item], -1), SEQUEL_BONUS[kind, lag])
    return weights


def make_items(latents: Latents, clock: Clock, counts: Ints, seed: int, chunk: int = 2048) -> Ints:
    """Draws every user's items step by step, ``[U, T]``, -1 past the user's last event."""
    num_users, steps = clock.kind.shape
    num_items = latents.popularity.size
    raw = draw(seed, _CHOICE, num_users, steps)
    items = np.full((num_users, steps), -1, dtype=np.int64)
    for first in range(0, num_users, chunk):
        users = np.arange(first, min(first + chunk, num_users))
        seen = np.zeros((users.size, num_items), dtype=np.bool_)
        recent = np.full((users.size, RECENT), -1, dtype=np.int64)
        for step in range(int(counts[users].max())):
            rows = np.flatnonzero(counts[users] > step)
            user = users[rows]
            weights = item_weights(
                latents, user, clock.day[user, step], clock.kind[user, step],
                recent[rows], seen[rows],
            )  # fmt: skip
            chosen = _choose(weights, raw[user, step])
            items[user, step] = chosen
            seen[rows, chosen] = True
            recent[rows] = np.concatenate([chosen[:, None], recent[rows, :-1]], axis=1)
    return items


def _choose(weights: Floats, raw: NDArray[np.uint64]) -> Ints:
    """Inverse of the cumulative weights, exact: all numbers but one product are integers."""
    cumulative = np.cumsum(weights, axis=1)
    total = cumulative[:, -1]
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    target = np.minimum(np.floor(uniform * total), total - 1.0)
    chosen: Ints = (cumulative <= target[:, None]).sum(axis=1)
    return chosen


def make_ratings(latents: Latents, user: Ints, item: Ints, day: Ints, seed: int) -> Ints:
    """1 to 5 stars for E events: better the better the item meets the taste of that day."""
    noise = below(draw(seed, _RATING, user.size), 4)
    stars = np.empty(user.size, dtype=np.int64)
    for first in range(0, user.size, 4096):
        part = slice(first, first + 4096)
        fit = affinity(latents, user[part], day[part])
        own = fit[np.arange(fit.shape[0]), item[part]] * fit.shape[1]
        mean = fit.sum(axis=1)
        level = (own > mean).astype(np.int64) + (2 * own > 3 * mean) + (own > 3 * mean)
        stars[part] = 2 + level + (noise[part] == 3) - (noise[part] == 0)
    return np.clip(stars, 1, 5)
