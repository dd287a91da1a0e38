"""The best items, as tables that people read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.metrics import top_k as best_items
from tgrec.models import RecModel
from tgrec.recommend.served import Question, Served, all_scores, ask, ask_with_history
from tgrec.sampler import past_items


def best(
    served: Served, question: Question, top_k: int, filter_seen: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The best items of each user: nodes ``[n, k]`` (-1 where there are no more) and scores.

    At a moment of the past, items that nobody had met by then are not offered: whether they are
    met later is not known. Nor are items of kinds of events that the model is not asked for.
    """
    top_k = check_count("top_k", top_k, 1)
    size = min(top_k, served.index.num_items)
    items = torch.full((question.user.numel(), size), -1)
    scores = torch.zeros(question.user.numel(), size)
    # Equal scores, as counts give them to somebody without a past, are in the order of popularity.
    order = served.by_popularity(question.log_cut)
    place = torch.argsort(order)
    absent = absent_items(served, question)
    for rows, score in all_scores(served, question):
        row, item = not_offered(question, question.user[rows], absent, filter_seen)
        chosen = best_items(score[:, order], size, exclude=(row, place[item]))
        chosen = torch.where(chosen >= 0, order[chosen], -1)
        items[rows.cpu()] = chosen.cpu()
        scores[rows.cpu()] = score.gather(1, chosen.clamp(min=0)).cpu()
    _say_if_short(served, items, top_k, absent.numel(), filter_seen)
    return items.numpy(), scores.numpy()


def absent_items(served: Served, question: Question) -> Tensor:
    """Items that nobody is offered.

    They are of other kinds of events than the model is asked for, or, at a moment of the past,
    nobody had met them by then.
    """
    if question.log_cut >= served.index.end:
        return served.elsewhere
    absent = served.first_met >= question.log_cut
    absent[served.elsewhere] = True
    return absent.nonzero().view(-1)


def not_offered(
    question: Question, user: Tensor, absent: Tensor, filter_seen: bool = True
) -> tuple[Tensor, Tensor]:
    """What no list holds: ``(rows, items)``, int64 ``[P]``, of the askers ``user`` ``[B]``.

    These are the items that nobody is offered (``absent``, of :func:`absent_items`), and, with
    ``filter_seen``, those that the asker has met.
    """
    row = torch.arange(user.numel(), device=absent.device).repeat_interleave(absent.numel())
    item = absent.repeat(user.numel())
    if not filter_seen:
        return row, item
    part = question.targets(user)
    seen = past_items(question.loader.index, part.user, part.cut)
    return torch.cat([row, seen[0]]), torch.cat([item, seen[1]])


def _say_if_short(
    served: Served, items: Tensor, top_k: int, absent: int, filter_seen: bool
) -> None:
    """Warns with the reason where lists are shorter than asked for."""
    short = ((items >= 0).sum(1) < top_k).nonzero().view(-1)
    if short.numel() == 0:
        return
    had = int((items[short[0]] >= 0).sum())
    size = served.index.num_items
    why = [f"the catalogue has {size} items"]
    elsewhere = served.elsewhere.numel() if absent else 0
    if elsewhere:
        why.append(f"{elsewhere} of them have no event in {served.asked!r}")
    if absent > elsewhere:
        why.append(f"{absent - elsewhere} of them had not been met by then")
    if filter_seen and size - absent > had:
        why.append(f"{size - absent - had} were met before (filter_seen=False offers them too)")
    whose = "the list" if items.size(0) == 1 else f"{short.numel()} of {items.size(0)} lists"
    warnings.warn(
        f"{whose} could not be filled to top_k={top_k}, the first has {had}: {', '.join(why)}",
        UserWarning,
        stacklevel=4,
    )


def table(
    served: Served, items: np.ndarray, scores: np.ndarray, user_id: np.ndarray | None = None
) -> pd.DataFrame:
    """``item_id``, ``score``, ``title`` where known, and first ``user_id`` where given ``[n]``."""
    real = items >= 0
    columns: dict[str, np.ndarray] = {}
    if user_id is not None:
        columns["user_id"] = np.repeat(user_id, real.sum(1))
    columns |= {"item_id": served.items.raw[items[real]], "score": scores[real]}
    if served.items.titles is not None:
        columns["title"] = served.items.titles[items[real]]
    return pd.DataFrame(columns)


def of_pairs(
    served: Served, user: Tensor, item: Tensor, at: Any = None, probability: bool = False
) -> np.ndarray:
    """The scores ``[n]`` (float32) of pairs of nodes; every user is asked once.

    Args:
        served: The recommender.
        user: ``[n]`` int64.
        item: ``[n]`` int64.
        at: The moment of the question.
        probability: Give the softmax over all items instead.
    """
    asking, row = user.unique(return_inverse=True)
    out = torch.zeros(user.numel())
    for rows, scores in all_scores(served, ask(served, asking, at)):
        scores = scores.softmax(1) if probability else scores
        place = torch.full((asking.numel(),), -1)
        place[rows.cpu()] = torch.arange(rows.numel())
        mine = (place[row] >= 0).nonzero().view(-1)
        out[mine] = scores.cpu()[place[row[mine]], item[mine]].float()
    return out.numpy()


@torch.no_grad()
def similar(served: Served, item: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The items most like one: nodes ``[1, k]`` and similarities.

    The cosine of the vectors of the model. Models without vectors of items (counts) score what
    follows a history of this item alone.

    Raises:
        ValueError: If the model knows nothing of items that could be alike.
    """
    top_k = check_count("top_k", top_k, 1)
    model, sampling = served.model, served.model.sampling
    if type(model).encode_item is not RecModel.encode_item:
        vectors = F.normalize(model.encode_item().float(), dim=1)
        scores = (vectors @ vectors[item]).unsqueeze(0)
    elif sampling.max_len is not None or sampling.num_neighbors is not None:
        question = ask_with_history(served, [served.items.id(item)])
        ((_, scores),) = all_scores(served, question)
    else:
        raise ValueError(
            f"similar_items: {type(model).__name__} scores all users alike and knows nothing of "
            f"what is alike; use another model, for example 'markov'"
        )
    own = torch.tensor([0]), torch.tensor([item])
    chosen = best_items(scores.cpu(), min(top_k, scores.size(1)), exclude=own)
    _say_if_short(served, chosen, top_k, 0, filter_seen=False)
    return chosen.numpy(), scores.cpu().gather(1, chosen.clamp(min=0)).numpy()


def check_count(argument: str, value: int, least: int) -> int:
    """The integer; raises ValueError unless it is one of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        kind = "a positive integer" if least else "an integer of at least 0"
        raise ValueError(f"'{argument}' needs to be {kind} (got {value!r})")
    return int(value)
