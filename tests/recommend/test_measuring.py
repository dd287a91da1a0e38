"""Errors of foretold ratings, where ratings are missing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest

from tgrec.data import leave_one_out
from tgrec.recommend import Recommender
from tgrec.recommend.measuring import rating_errors
from tgrec.recommend.served import Served


@pytest.mark.parametrize("unrated", ["test", "train", "most"])
def test_without_ratings_there_are_no_errors(
    unrated: str, fitted: Callable[[str], Recommender]
) -> None:
    rec = fitted("enhanced_bert4rec")
    graph = copy.deepcopy(rec.graph)
    (kind,) = graph.interaction_types
    asked = leave_one_out(graph).test.cut
    rating = graph[kind].rating
    if unrated == "test":
        rating[asked] = math.nan
    elif unrated == "train":
        kept = rating[asked].clone()
        rating.fill_(math.nan)
        rating[asked] = kept
    else:
        rating[asked[1:]] = math.nan
    found = rating_errors(Served.start(rec.model, graph, "T1", "cpu"), "leave_one_out")
    if unrated == "most":
        assert found is not None
        assert found["targets"] == 1
        assert all(map(math.isfinite, found.values()))
    else:
        assert found is None
