"""The generative model behind :func:`tgrec.datasets.simulate_weekly`, in plain numpy.

The number of interactions of user u with event e in week w is Poisson, independent of all others
given the weeks before, with the rate

    activity[u] * m[u, e, w] / sum over e of m[u, e, w],
    m[u, e, w] = season[e, w] * ((1 - r) * interest[u, e, w] + r * trace[u, e, w]),

where ``interest`` mixes the profiles of the two communities between which u moves, ``trace`` holds
the user's counts of earlier weeks, each week worth ``DECAY`` of the next, scaled to a sum of 1 (a
user without a past has none). Every draw is a function of (seed, week, user, event).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tgrec.data.random import uniform64

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DECAY = 0.7  # what a repeated interest loses from week to week
PERIOD = 4  # weeks from season to season
MOVE_WEEKS = 6  # that a user takes from one community to the next
CURIOSITY = 0.1  # share of interest that goes to all communities alike
CROSS = 0.02  # weight of an event outside its own community
EVENT_ZIPF, EVENT_SHIFT = 0.9, 5.0  # popularity 1 / (rank + shift) ** exponent
USER_ZIPF, USER_SHIFT = 0.8, 0.1  # activity 1 / (rank + shift * U) ** exponent

# The streams of draws, the second key after the seed.
_HOME, _NEXT, _BEGIN, _ACTIVITY, _MAIN, _POPULARITY, _PHASE, _COUNT = range(8)


@dataclass(frozen=True)
class WeeklyLatents:
    """What the generator knows and a model does not (U users, N events, K communities).

    Args:
        home: ``[U]`` the community that a user leaves.
        destination: ``[U]`` the one that the user moves to.
        begin: ``[U]`` the week, with fraction and possibly before the first, in which the move
            begins; it takes ``MOVE_WEEKS`` weeks.
        activity: ``[U]`` expected interactions per week.
        community: ``[N]`` the community of an event.
        profile: ``[K, N]`` what a community is interested in, each row adding up to 1.
        phase: ``[N]`` the week, modulo ``PERIOD``, in which an event is most popular.
        repeat_share: r above.
        season_strength: Amplitude of the seasons, between 0 and 1.
    """

    home: Ints
    destination: Ints
    begin: Floats
    activity: Floats
    community: Ints
    profile: Floats
    phase: Floats
    repeat_share: float
    season_strength: float


def make_latents(
    num_users: int,
    num_events: int,
    num_weeks: int,
    num_communities: int,
    mean_interactions: float,
    repeat_share: float,
    season_strength: float,
    seed: int,
) -> WeeklyLatents:
    """Draws users, events, and the communities of both."""

    def uniform(stream: int, size: int) -> Floats:
        draws: Floats = uniform64(seed, stream, torch.arange(size)).numpy()
        return draws

    home = (uniform(_HOME, num_users) * num_communities).astype(np.int64)
    step = 1 + (uniform(_NEXT, num_users) * (num_communities - 1)).astype(np.int64)
    activity = 1.0 / (_rank(uniform(_ACTIVITY, num_users)) + USER_SHIFT * num_users) ** USER_ZIPF
    popularity = 1.0 / (_rank(uniform(_POPULARITY, num_events)) + EVENT_SHIFT) ** EVENT_ZIPF
    community = (uniform(_MAIN, num_events) * num_communities).astype(np.int64)
    profile = np.where(np.arange(num_communities)[:, None] == community, 1.0, CROSS) * popularity
    return WeeklyLatents(
        home=home,
        destination=(home + step) % num_communities,
        begin=uniform(_BEGIN, num_users) * (num_weeks + MOVE_WEEKS) - MOVE_WEEKS,
        activity=activity * (mean_interactions / activity.mean()),
        community=community,
        profile=profile / profile.sum(axis=1, keepdims=True),
        phase=uniform(_PHASE, num_events) * PERIOD,
        repeat_share=repeat_share,
        season_strength=season_strength,
    )


def taste(latents: WeeklyLatents, week: int) -> Floats:
    """The share of each community in the users' interest in a week, ``[U, K]``."""
    moved = np.clip((week - latents.begin) / MOVE_WEEKS, 0.0, 1.0)
    rows, num_communities = np.arange(moved.size), latents.profile.shape[0]
    share = np.full((moved.size, num_communities), CURIOSITY / num_communities)
    share[rows, latents.home] += (1.0 - CURIOSITY) * (1.0 - moved)
    share[rows, latents.destination] += (1.0 - CURIOSITY) * moved
    return share


def season(latents: WeeklyLatents, week: int) -> Floats:
    """The factor of the season on each event in a week, ``[N]``, 1 on average over a period."""
    swing: Floats = np.cos(2.0 * np.pi / PERIOD * (week - latents.phase))
    return 1.0 + latents.season_strength * swing


def rates(latents: WeeklyLatents, trace: Floats, week: int) -> Floats:
    """The expected counts of a week: the one place where the distribution is defined.

    Args:
        latents: The true state.
        trace: ``[U, N]`` decayed counts of the weeks before, see :func:`remember`.
        week: From 1.

    Returns:
        ``[U, N]``; the row of user u adds up to ``activity[u]``.
    """
    total = trace.sum(axis=1, keepdims=True)
    weight = (1.0 - latents.repeat_share) * (taste(latents, week) @ latents.profile)
    weight += latents.repeat_share / np.where(total > 0.0, total, 1.0) * trace
    weight *= season(latents, week)
    weight *= latents.activity[:, None] / weight.sum(axis=1, keepdims=True)
    return weight


def remember(trace: Floats, count: Floats | Ints) -> Floats:
    """The trace of the week after one with the given counts."""
    after: Floats = DECAY * (trace + count)
    return after


def draw_counts(rate: Floats, week: int, seed: int) -> Ints:
    """Poisson counts by inversion of one uniform draw per (seed, week, user, event), ``[U, N]``."""
    num_users, num_events = rate.shape
    user, event = torch.arange(num_users).view(-1, 1), torch.arange(num_events)
    uniform = uniform64(seed, _COUNT, week, user, event).numpy().ravel()
    flat = rate.ravel()
    term = np.exp(-flat)
    counts = np.zeros(flat.size, dtype=np.int64)
    rows = np.flatnonzero(uniform > term)
    flat, term, uniform = flat[rows], term[rows], uniform[rows]
    below = term.copy()
    # Beyond the last step the probability is less than the resolution of the draw.
    most = float(flat.max(initial=0.0))
    for step in range(1, int(most + 12.0 * np.sqrt(most)) + 40):
        counts[rows] = step
        term = term * flat / step
        below = below + term
        more = uniform > below
        if not more.any():
            break
        rows, flat, term = rows[more], flat[more], term[more]
        below, uniform = below[more], uniform[more]
    return counts.reshape(rate.shape)


def make_weeks(
    latents: WeeklyLatents, num_weeks: int, seed: int
) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Draws week after week; yields user, event, count and week of each week's pairs."""
    trace = np.zeros((latents.activity.size, latents.phase.size))
    for week in range(1, num_weeks + 1):
        counts = draw_counts(rates(latents, trace, week), week, seed)
        user, event = np.nonzero(counts)
        yield user, event, counts[user, event], np.full(user.size, week)
        trace = remember(trace, counts)


def _rank(values: Floats) -> Ints:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")
