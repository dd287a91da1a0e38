"""What a model may know about the time of the question."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from tgrec.data import History

Track = Literal["T1", "T2", "T2-coarse"]
TRACKS: tuple[Track, ...] = get_args(Track)
HOUR = 3600


def query_times(track: Track, history: History | None, time: Tensor | None) -> Tensor | None:
    """The time at which the event after each history position is asked for.

    Args:
        track: ``T1`` gives None: a model knows the times of the past only. ``T2`` gives the time
            of the next event, as in HSTU. ``T2-coarse`` rounds it up to the hour, so that it no
            longer says that the next event belongs to a burst of same-second ratings.
        history: ``[B, L]``; None counts as L = 0.
        time: ``[B]`` int64 Unix seconds of the seeds themselves, the last question.

    Returns:
        ``[B, L + 1]`` int64, entry j is the time of the question that follows the first j events
        of the row; the last entry is the question of the seed. None on T1.
    """
    if track not in TRACKS:
        raise ValueError(f"'track' needs to be one of {list(TRACKS)} (got {track!r})")
    if track == "T1":
        return None
    if time is None:
        raise ValueError(f"track {track} needs the times of events, and these data have none")
    asked = time.unsqueeze(1)
    if history is not None:
        asked = torch.cat([history.time, asked], dim=1)
    if track == "T2-coarse":
        asked = -torch.div(-asked, HOUR, rounding_mode="floor") * HOUR
    return asked
