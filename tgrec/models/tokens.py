"""A sequence as a model that fills in what is hidden may see it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History

LOWEST, HIGHEST = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Tokens:
    """A sequence as the model may see it; S = L + 1.

    Args:
        item: ``[B, S]`` int64, ``num_items`` is the mask token.
        mask: ``[B, S]`` bool, True at real positions.
        known: ``[B, S]`` bool, real and not to be predicted: item, time and rating may be read.
        time: ``[B, S]`` int64 Unix seconds; where the time is not known, that of the latest event
            before it which is, so that nothing lies between the two.
        timed: ``[B, S]`` bool, where the time is known: on T2 also that of the question.
        rating: ``[B, S]`` float32, 0 where not known; None if the model reads none.
    """

    item: Tensor
    mask: Tensor
    known: Tensor
    time: Tensor
    timed: Tensor
    rating: Tensor | None


def make_tokens(
    history: History, query_time: Tensor | None, item: Tensor, mask: Tensor, known: Tensor
) -> Tokens:
    """The tokens of a history and of one question after it.

    Args:
        history: ``[B, L]``.
        query_time: ``[B, L + 1]`` as in :class:`tgrec.data.RecBatch`, None on T1.
        item: ``[B, S]`` what is shown, with mask tokens among it.
        mask: ``[B, S]`` bool, True at real positions.
        known: ``[B, S]`` bool, where an event may be read.
    """
    time = F.pad(history.time, (0, 1))
    rating = None if history.rating is None else F.pad(history.rating, (0, 1)) * known
    if query_time is None:
        return Tokens(item, mask, known, carried_time(time, known), known, rating)
    time = torch.where(known, time, query_time)
    return Tokens(item, mask, known, torch.where(mask, time, 0), mask, rating)


def carried_time(time: Tensor, known: Tensor) -> Tensor:
    """``[B, S]`` times that are not known, replaced by the latest known one before them.

    Before the first known one it is that one, and 0 where none is known.
    """
    carried = torch.where(known, time, LOWEST).cummax(1).values
    first = torch.where(known, time, HIGHEST).amin(1, keepdim=True)
    carried = torch.where(carried == LOWEST, first, carried)
    return torch.where(known.any(1, keepdim=True), carried, 0)
