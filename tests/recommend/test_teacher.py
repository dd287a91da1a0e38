"""Whom a recommender may learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tgrec.data import RecBatch, TemporalRecGraph
from tgrec.models import HSTU
from tgrec.recommend import Recommender

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 32, "show": False}
SMALL: dict[str, Any] = {"d_model": 8, "n_blocks": 1, "d_ff": 8, "max_len": 8}


def test_a_folder_teaches_as_the_recommender_does(
    graph: TemporalRecGraph, fitted: Callable[[str], Recommender], tmp_path: Path
) -> None:
    teacher = fitted("sasrec")
    teacher.save(tmp_path)
    before = teacher.recommend(1, 5)
    told = []
    for given in (teacher, tmp_path, None):
        rec = Recommender("sasrec", **SMALL).fit(graph, teacher=given, **QUICK)
        told.append(rec.recommend([1, 2], 5))
    assert told[0].equals(told[1])
    assert not told[0].equals(told[2])
    assert teacher.recommend(1, 5).equals(before)


def test_a_teacher_that_may_have_seen_the_answers_is_refused(
    graph: TemporalRecGraph, fitted: Callable[[str], Recommender]
) -> None:
    teacher, student = fitted("sasrec"), Recommender("sasrec", **SMALL)
    rows = graph.to_pandas()
    for data, how, said in [
        (rows[rows["item_id"] != rows["item_id"].min()], {}, "'teacher' knows other items"),
        (rows[rows["user_id"] != 1], {}, "'teacher' knows other users"),
        (graph.before(graph.num_events - 5), {}, "'teacher' was fitted on other events"),
        (graph, {"split": "global_time"}, "'teacher' was fitted with split='leave_one_out'"),
    ]:
        with pytest.raises(ValueError, match=f"{said}.* fit (it|both) "):
            student.fit(data, teacher=teacher, **how, **QUICK)
    with pytest.raises(ValueError, match="'distill_temperature' is of no use without 'teacher'"):
        student.fit(graph, distill_temperature=3.0, **QUICK)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"distill_weight": 2}, r"'distill_weight' of a teacher .*\(got 2\)"),
        ({"distill_temperature": 0}, r"'distill_temperature' of a teacher .*\(got 0\)"),
        ({"distill_at": "start"}, r"'distill_at' of a teacher .*\(got 'start'\)"),
        (
            {"distill_at": "all", "distill_temperature": 3},
            r"'distill_temperature' of a teacher .* with distill_at='all' \(got 3\)",
        ),
        ({"distill_at": "all"}, r"with distill_at='all' .*'max_len' of 12 and 6.*distill_at='end'"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_given(
    how: dict[str, Any],
    said: str,
    graph: TemporalRecGraph,
    fitted: Callable[[str], Recommender],
) -> None:
    student = Recommender("sasrec", **{**SMALL, "max_len": 6})
    with pytest.raises(ValueError, match=said):
        student.fit(graph, teacher=fitted("sasrec"), **how, **QUICK)


def test_a_teacher_of_another_track_at_every_position(graph: TemporalRecGraph) -> None:
    teacher = Recommender("hstu", **{k: v for k, v in SMALL.items() if k != "d_ff"})
    teacher.fit(graph, track="T2", **QUICK)
    learned, losses = [], []
    for how in ({}, {"distill_at": "end"}, {"distill_at": "all"}, None):
        rec = Recommender("sasrec", **SMALL)
        rec.fit(graph, **({} if how is None else {"teacher": teacher, **how}), **QUICK)
        assert rec.result is not None
        learned.append(rec.recommend([1, 2], 5))
        losses.append(rec.result.history[0].get("losses"))
    assert learned[0].equals(learned[1])  # the end is the default
    assert not learned[2].equals(learned[1])
    assert not learned[2].equals(learned[3])
    assert [losses[1] is None, losses[2], losses[3]] == [False, None, None]  # no part of its own
    with pytest.raises(ValueError, match="'distill_at' is of no use without 'teacher'"):
        Recommender("sasrec", **SMALL).fit(graph, distill_at="all", **QUICK)


def test_the_track_of_the_teacher_counts(
    graph: TemporalRecGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Recommender("hstu", **{k: v for k, v in SMALL.items() if k != "d_ff"})
    teacher.fit(graph, track="T2", **QUICK)
    asked = []
    states = HSTU.next_states

    def watched(self: HSTU, batch: RecBatch) -> Tensor:
        asked.append(batch.query_time is not None)
        return states(self, batch)

    monkeypatch.setattr(HSTU, "next_states", watched)
    Recommender("sasrec", **SMALL).fit(graph, teacher=teacher, distill_at="all", **QUICK)
    assert asked
    assert all(asked)
