"""A sequence as a model that fills in what is hidden may see it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History
from tgrec.nn.gap_attention import NUM_BUCKETS, gap_pairs

LOWEST, HIGHEST = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Tokens:
    """A sequence as the model may see it; S = L + 1. Position p is asked for event p.

    Args:
        item: ``[B, S]`` int64, ``num_items`` is the mask token.
        mask: ``[B, S]`` bool, True at real positions.
        known: ``[B, S]`` bool, where there is an event whose item, time and rating may be read.
        time: ``[B, S]`` int64 Unix seconds; where the time is not known, that of the latest event
            before it which is, so that nothing lies between the two, or the first where none is
            (so ``time`` and ``asked`` say something only where ``known`` and ``timed`` do, or as
            the gap to a later position).
        asked: ``[B, S]`` int64 the time at which position p looks back: on T2 that of event p where
            only what is before it is read, else ``time``.
        timed: ``[B, S]`` bool, where ``asked`` is known.
        rating: ``[B, S]`` float32, NaN where not known; None if the model reads none.
    """

    item: Tensor
    mask: Tensor
    known: Tensor
    time: Tensor
    asked: Tensor
    timed: Tensor
    rating: Tensor | None


def cloze_tokens(
    history: History, query_time: Tensor | None, item: Tensor, mask: Tensor, known: Tensor
) -> Tokens:
    """The events of a history and the question after it, each in its own place.

    Args:
        history: ``[B, L]``.
        query_time: ``[B, L + 1]`` as in :class:`tgrec.data.RecBatch`, None on T1.
        item: ``[B, S]`` what is shown, with mask tokens among it.
        mask: ``[B, S]`` bool, True at real positions.
        known: ``[B, S]`` bool, where an event may be read.
    """
    time = F.pad(history.time, (0, 1))
    rating = known_ratings(history, (0, 1), known)
    timed = known
    if query_time is None:
        time = carried_time(time, known)
    else:
        time, timed = torch.where(mask, torch.where(known, time, query_time), 0), mask
    return Tokens(item, mask, known, time, time, timed, rating)


def causal_tokens(
    history: History, query_time: Tensor | None, num_items: int, no_past: Tensor | None = None
) -> Tokens:
    """The events before each question: a mask token, then the history, so that p shows event p - 1.

    Args:
        history: ``[B, L]``.
        query_time: ``[B, L + 1]`` as in :class:`tgrec.data.RecBatch`, None on T1.
        num_items: The mask token.
        no_past: ``[B]`` bool, of whom no event is shown.
    """
    known = F.pad(history.mask, (1, 0))
    mask = F.pad(history.mask, (0, 1), value=True)  # one question more than events
    if no_past is not None:
        known = known & ~no_past.unsqueeze(1)
    item = torch.where(known, F.pad(history.item, (1, 0)), num_items)
    time = F.pad(history.time, (1, 0))
    rating = known_ratings(history, (1, 0), known)
    if query_time is None:
        time = carried_time(time, known)
        return Tokens(item, mask, known, time, time, known, rating)
    asked = torch.where(mask, query_time, 0)
    return Tokens(item, mask, known, torch.where(known, time, asked), asked, mask, rating)


def known_ratings(history: History, pad: tuple[int, int], known: Tensor) -> Tensor | None:
    """``[B, S]`` the ratings of events that may be read, NaN elsewhere; None if there are none."""
    if history.rating is None:
        return None
    return torch.where(known, F.pad(history.rating, pad), math.nan)


def choose_rows(rows: Tensor, one: Tokens, other: Tokens) -> Tokens:
    """In each row of ``rows`` ``[B]`` bool the tokens of ``one``, else those of ``other``."""
    chosen: dict[str, Any] = {
        field.name: _where(rows, getattr(one, field.name), getattr(other, field.name))
        for field in fields(Tokens)
    }
    return Tokens(**chosen)


def _where(rows: Tensor, one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return None
    return torch.where(rows.unsqueeze(1), one, other)


def token_pairs(tokens: Tokens, both_sides: Tensor | None, gaps: bool) -> Tensor:
    """``[B, S, S]`` uint8 kinds of pairs for attention, and which must not see each other.

    Args:
        tokens: What is read. Where nothing is known of a row its positions see only themselves:
            each is then the question of somebody without a past.
        both_sides: ``[B]`` bool, which rows see what is behind a position; none if None.
        gaps: Whether the kind is the time between the two
            (:data:`tgrec.nn.gap_attention.NUM_BUCKETS` kinds), or one for all.
    """
    place = torch.arange(tokens.mask.size(1), device=tokens.mask.device)
    others = ~tokens.known.any(1).view(-1, 1, 1) & (place != place.unsqueeze(1))
    shut = shut_pairs(tokens.mask, both_sides) | others
    if not gaps:
        return shut.to(torch.uint8)
    pairs = gap_pairs(tokens.asked, tokens.time, tokens.mask, causal=False)
    return pairs.masked_fill_(shut, NUM_BUCKETS)


def shut_pairs(mask: Tensor, both_sides: Tensor | None) -> Tensor:
    """``[B, S, S]`` bool, which positions must not see which: padding, and what is behind them.

    Args:
        mask: ``[B, S]`` bool, True at real positions.
        both_sides: ``[B]`` bool, which rows see what is behind a position; none if None.
    """
    place = torch.arange(mask.size(1), device=mask.device)
    future = place > place.unsqueeze(1)
    if both_sides is not None:
        future = future & ~both_sides.view(-1, 1, 1)
    return future | ~mask.unsqueeze(1)


def carried_time(time: Tensor, known: Tensor) -> Tensor:
    """``[B, S]`` times that are not known, replaced by the latest known one before them.

    Before the first known one it is that one, and 0 where none is known.
    """
    carried = torch.where(known, time, LOWEST).cummax(1).values
    first = torch.where(known, time, HIGHEST).amin(1, keepdim=True)
    carried = torch.where(carried == LOWEST, first, carried)
    return torch.where(known.any(1, keepdim=True), carried, 0)
