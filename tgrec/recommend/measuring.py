"""How good a fitted recommender is on the events that it was not fitted on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tgrec.recommend.fitting import meant, split_of
from tgrec.recommend.served import Served
from tgrec.sampler import EventIndex
from tgrec.training import Evaluation, evaluate, foretells_ratings, rating_rmse


def ranks_of(served: Served, split: str, options: Mapping[str, Any]) -> Evaluation:
    """Ranks the held-out last events.

    Args:
        served: The recommender.
        split: What is held out.
        options: Of :func:`tgrec.training.evaluate`.

    Raises:
        ValueError: If there is no such option.
    """
    parameters = inspect.signature(evaluate).parameters.items()
    known = [name for name, parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise ValueError(f"evaluate: {name!r} is no option: {known}{meant(name, known)}")
    parts = split_of(served.graph, split, served.asked)
    given = {"track": served.loader.track, "device": served.index.device, **options}
    return evaluate(served.model, parts, parts.test, index=served.index, **given)


def rating_errors(served: Served, split: str) -> Mapping[str, float] | None:
    """See :meth:`tgrec.recommend.Recommender.rating_errors`; None, too, where nothing is rated.

    That is, if no held-out event has a rating to compare with, or none that was trained on has.
    """
    if not foretells_ratings(served.model):
        return None
    parts, device = split_of(served.graph, split, served.asked), served.index.device
    asked = served.index.rating_of(parts.test.cut.to(device))
    if not (_any_known(asked) and _any_known(EventIndex(parts.train, "cpu").rating)):
        return None
    track = served.loader.track
    return rating_rmse(served.model, parts, parts.test, track=track, device=device)


def _any_known(ratings: Tensor | None) -> bool:
    return ratings is not None and bool(ratings.isfinite().any())
