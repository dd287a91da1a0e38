"""Starting from another model: every weight is found again by what it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.models import BERT4Rec, EnhancedBERT4Rec, SASRec, TGTBERT4Rec
from tgrec.recommend import Recommender
from tgrec.recommend.fitting import graph_of
from tgrec.recommend.starting import matched, start_from

SMALL: dict[str, Any] = {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 8}
QUICK: dict[str, Any] = {"epochs": 1, "show": False}


def shifted(events: pd.DataFrame) -> TemporalRecGraph:
    """Items 10..23 keep their ids, 24..33 are new; numbered from 0 they are all others."""
    kept = events[events["item_id"] >= 10]
    new = events[events["item_id"] < 10].assign(item_id=lambda t: t["item_id"] + 24)
    return TemporalRecGraph.from_pandas(pd.concat([kept, new]))


@pytest.mark.parametrize("cls", [SASRec, BERT4Rec])
def test_weights_of_another_catalogue_are_matched_by_raw_id(
    cls: Any, events: pd.DataFrame, tmp_path: Path
) -> None:
    old = Recommender(cls, **SMALL)
    old.fit(events, **QUICK)
    # A class of one's own is saved and found by its name; here it is one of MODELS.
    old.save(tmp_path)
    graph = shifted(events)
    torch.manual_seed(5)
    model = cls.from_graph(leave_one_out(graph).train, **SMALL)
    before = {k: v.clone() for k, v in model.named_parameters()}
    assert start_from(model, graph, tmp_path) == 14
    assert isinstance(old.model, cls)
    for item in range(10, 24):
        (row,) = graph.index_of("item", [item]).tolist()
        assert torch.equal(model.item[row], old.model.item[item])
    for item in range(24, 34):
        (row,) = graph.index_of("item", [item]).tolist()
        assert torch.equal(model.item[row], before["item"][row])
    assert torch.equal(model.item[24:], old.model.item[24:])  # the mask token, where there is one
    rest = {k: v for k, v in model.named_parameters() if k != "item"}
    theirs = dict(old.model.named_parameters())
    assert all(torch.equal(v, theirs[k]) for k, v in rest.items())


def test_a_start_that_does_not_fit_is_said(events: pd.DataFrame, tmp_path: Path) -> None:
    Recommender("sasrec", **SMALL).fit(events, **QUICK).save(tmp_path)
    with pytest.raises(ValueError, match="'init_from'.*other settings"):
        Recommender("sasrec", **{**SMALL, "d_model": 8}).fit(events, init_from=tmp_path, **QUICK)
    strange = events.assign(item_id=events["item_id"] + 1000)
    with pytest.raises(ValueError, match="knows none of the items"):
        Recommender("sasrec", **SMALL).fit(strange, init_from=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="holds a 'SASRec'"):
        Recommender("bert4rec", **SMALL).fit(events, init_from=tmp_path, **QUICK)


def described(events: pd.DataFrame, genres: str, years: int, jobs: list[str]) -> dict[str, Any]:
    """Arguments of fit: genres alternate, years follow each other, jobs too."""
    ids = sorted(set(events["user_id"]))
    items = pd.DataFrame({"item_id": range(24), "genres": [genres, genres.split("|")[0]] * 12,
                          "year": [years + i % 3 for i in range(24)]})  # fmt: skip
    work = [jobs[i % len(jobs)] for i in range(len(ids))]
    users = pd.DataFrame({"user_id": ids, "occupation": work})
    return {"items": items, "users": users}


def test_genres_years_and_words_are_matched_by_what_they_mean(
    events: pd.DataFrame, tmp_path: Path
) -> None:
    old = Recommender("enhanced_bert4rec", **SMALL)
    old.fit(events, **described(events, "Drama|War", 1990, ["cook", "nurse", "poet"]), **QUICK)
    old.save(tmp_path)
    other = described(events, "Comedy|Drama", 1991, ["baker", "cook", "poet"])
    graph = graph_of(events, **other)
    model = EnhancedBERT4Rec.from_graph(leave_one_out(graph).train, **SMALL)
    before = {k: v.clone() for k, v in model.named_parameters()}
    start_from(model, graph, tmp_path)
    theirs, own = dict(old.model.named_parameters()), dict(model.named_parameters())
    # Columns of genres: Drama and War before, Comedy and Drama now.
    for name in ("inputs.genre", "preference.weight", "preference.bias"):
        assert torch.equal(own[name][1], theirs[name][0])
        assert torch.equal(own[name][0], before[name][0])
    # 1990 to 1992 before, 1991 to 1993 now.
    years, jobs = "inputs.tables.year", "inputs.tables.occupation"
    assert torch.equal(own[years][[0, 1, 3]], theirs[years][[1, 2, 3]])  # the last is unknown
    assert torch.equal(own[years][2], before[years][2])
    assert torch.equal(own[jobs][[1, 2, 3]], theirs[jobs][[0, 2, 3]])  # cook, poet, unknown
    assert torch.equal(own[jobs][0], before[jobs][0])


def test_periods_are_taken_over_only_of_the_same_span(events: pd.DataFrame, tmp_path: Path) -> None:
    settings = {**SMALL, "tgt_gated": True, "time_vectors": True}
    old = Recommender("tgt_bert4rec", **settings)
    old.fit(events, **QUICK).save(tmp_path)
    later = events.assign(timestamp=events["timestamp"] + 10**6)
    for table, same in ((events, True), (later, False)):
        graph = graph_of(table)
        model = TGTBERT4Rec.from_graph(leave_one_out(graph).train, **settings)
        if same:
            start_from(model, graph, tmp_path)
        else:
            with pytest.warns(UserWarning, match=r"nothing is taken over of tgt\.times\.period:"):
                start_from(model, graph, tmp_path)
        own, theirs = dict(model.named_parameters()), dict(old.model.named_parameters())
        assert torch.equal(own["tgt.times.period"], theirs["tgt.times.period"]) == same
        assert torch.equal(own["tgt.times.since"], theirs["tgt.times.since"])


def test_what_has_no_counterpart_is_named(events: pd.DataFrame, tmp_path: Path) -> None:
    Recommender("sasrec", **{**SMALL, "n_blocks": 2}).fit(events, **QUICK).save(tmp_path)
    graph = graph_of(events)
    shallow = SASRec.from_graph(leave_one_out(graph).train, **SMALL)
    with pytest.warns(UserWarning, match=r"nothing is taken over of encoder\.blocks\.1\."):
        start_from(shallow, graph, tmp_path)


def test_matching_finds_both_places() -> None:
    new, old = matched([("a", 1), "b", ("c", 2)], [("c", 2), ("a", 1), "d"])
    assert (new.tolist(), old.tolist()) == ([0, 2], [1, 0])
    assert matched(["a"], [])[0].numel() == 0


def test_users_of_other_data_are_other_people(events: pd.DataFrame, tmp_path: Path) -> None:
    """Both are numbered from 0, and nothing of the one is known of the other."""
    ratings = events.assign(rating=events["item_id"] % 5 + 1)
    old = Recommender("enhanced_bert4rec", **SMALL).fit(ratings, **QUICK)
    old.save(tmp_path)
    graph = graph_of(ratings)
    model = EnhancedBERT4Rec.from_graph(leave_one_out(graph).train, **SMALL)
    before = model.inputs.user
    assert before is not None
    kept, theirs = before.detach().clone(), dict(old.model.named_parameters())["inputs.user"]
    assert start_from(model, graph, tmp_path) == graph.num_items
    assert torch.equal(model.inputs.user[: graph.num_users], kept[: graph.num_users])
    assert not torch.equal(kept[: graph.num_users], theirs[: graph.num_users])
    assert torch.equal(model.inputs.user[graph.num_users :], theirs[graph.num_users :])


def test_how_much_was_found_is_printed(
    events: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Recommender("sasrec", **SMALL).fit(events, **QUICK).save(tmp_path)
    quick = {**QUICK, "show": True}
    Recommender("sasrec", **SMALL).fit(shifted(events), init_from=tmp_path, **quick)
    assert "init_from: 14 of 24 items are known there" in capsys.readouterr().err
