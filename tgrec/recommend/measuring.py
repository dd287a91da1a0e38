"""How good a fitted recommender is on the events that it was not fitted on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tgrec.recommend.fitting import meant, split_of
from tgrec.recommend.served import Served
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
    parts = split_of(served.graph, split)
    given = {"track": served.loader.track, "device": served.index.device, **options}
    return evaluate(served.model, parts, parts.test, index=served.index, **given)


def rating_errors(served: Served, split: str) -> Mapping[str, float] | None:
    """See :meth:`tgrec.recommend.Recommender.rating_errors`."""
    if not foretells_ratings(served.model):
        return None
    parts, device = split_of(served.graph, split), served.index.device
    track = served.loader.track
    return rating_rmse(served.model, parts, parts.test, track=track, device=device)
