"""Which part of the past a sampler may see."""

from __future__ import annotations

import torch
from torch import Tensor

from tgrec.sampler.event_index import EventIndex

Window = int | tuple[int, int]


def check_window(window: Window | None, has_time: bool) -> None:
    """Raises ValueError unless the window is positive seconds or an ascending pair of times."""
    if window is None:
        return
    if not has_time:
        raise ValueError("'window' needs event times, and this graph has only an order")
    if isinstance(window, tuple):
        whole = all(isinstance(t, int) and not isinstance(t, bool) for t in window)
        if len(window) != 2 or not whole or window[0] >= window[1]:
            raise ValueError(
                f"'window' needs to be (start, end) in whole Unix seconds with start before end "
                f"(got {window})"
            )
    elif isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(
            f"'window' needs to be a positive number of seconds, or (start, end) in Unix seconds "
            f"(got {window!r})"
        )


def visible(index: EventIndex, cut: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """``(cut, floor)``, each ``[B]``: only events with ``floor <= event_id < cut`` are visible.

    A window in seconds ends at the newest event before the cut, not at the time of the seed:
    what is visible is then said by earlier events alone.
    """
    if index.num_events == 0:
        return cut, torch.zeros_like(cut)
    if isinstance(window, tuple):
        bounds = torch.tensor(window, device=cut.device)
        low, high = _first_id(index, torch.searchsorted(index.time, bounds))
        return torch.minimum(cut, high), low.expand_as(cut)
    newest = (torch.searchsorted(index.event_id, cut.contiguous()) - 1).clamp_(min=0)
    oldest = index.time.index_select(0, newest) - window
    return cut, _first_id(index, torch.searchsorted(index.time, oldest, right=True))


def _first_id(index: EventIndex, place: Tensor) -> Tensor:
    """The event id at each place of the log, one past the last id behind it."""
    ids = index.event_id.index_select(0, place.clamp(max=index.num_events - 1))
    return torch.where(place < index.num_events, ids, index.end)
