"""Genres and years of items in the item table of TGT-BERT4Rec."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, TGTBERT4Rec, load_model, save_model
from tgrec.models.side_information import item_features
from tgrec.recommend.fitting import graph_of
from tgrec.recommend.recommender import Recommender
from tgrec.recommend.starting import start_from
from tgrec.sampler import EventIndex
from tgrec.testing import check_model, noise_graph
from tgrec.training import TrainSettings, fit

SMALL: dict[str, Any] = {"d_model": 16, "n_blocks": 1, "d_ff": 16, "max_len": 8}


def with_features(
    genres: list[list[int]] | None = None, years: list[int] | None = None
) -> TemporalRecGraph:
    graph = noise_graph(num_items=4)
    if genres is not None:
        graph["item"].genre = torch.tensor(genres, dtype=torch.float32)
    if years is not None:
        graph["item"].year = torch.tensor(years)
    return graph


GRAPH = with_features([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]], [1999, 0, 1990, 1999])


def built(graph: TemporalRecGraph = GRAPH, **kwargs: Any) -> TGTBERT4Rec:
    torch.manual_seed(0)
    return TGTBERT4Rec.from_graph(graph, **{**SMALL, "item_features": True, **kwargs})


def test_features_by_hand() -> None:
    half = math.sqrt(0.5)
    values, columns = item_features(GRAPH)
    wanted = [[half, 0, half, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [half, half, 0, 0, 1]]
    torch.testing.assert_close(values, torch.tensor(wanted))
    assert columns[3:] == [("year", 1990.0), ("year", 1999.0)]
    assert len(set(columns)) == 5
    for graph, width in (
        (with_features(), 0),
        (with_features(years=[0, 0, 0, 0]), 0),
        (with_features(years=[5, 5, 0, 0]), 1),
        (with_features([[1], [0], [0], [1]]), 1),
    ):
        values, columns = item_features(graph)
        assert values.shape == (4, width)
        assert len(columns) == width


@pytest.mark.parametrize("temperature", [0.0, 0.07])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_it_is_the_model_whose_vectors_are_the_sums(temperature: float, alpha: float) -> None:
    how: dict[str, Any] = {"temperature": temperature, "fusion_alpha": alpha}
    model, plain = built(**how), built(item_features=False, **how)
    assert model.features is not None
    with torch.no_grad():
        model.features.weight.normal_()
        items = model.item[:4] + model.features.values @ model.features.weight
        plain.load_state_dict({k: v for k, v in model.state_dict().items() if "features" not in k})
        plain.item[:4] = items
    assert model.num_parameters() == plain.num_parameters() + 5 * 16
    index = EventIndex(GRAPH)
    seeds = training_seeds(index, 8)
    batch = SeedLoader(index, model.sampling).batch(seeds, key=0)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().score(batch), plain.eval().score(batch))
        torch.testing.assert_close(model.loss_terms(batch), plain.loss_terms(batch))


def test_a_graph_that_knows_nothing_gives_the_model_without() -> None:
    with pytest.warns(UserWarning, match=r"'item_features': the graph has neither .* leave"):
        model = built(with_features())
    plain = built(with_features(), item_features=False)
    assert model.features is None
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("genre", "year", "said"),
    [
        (torch.ones(1, 3), None, r"graph\['item'\].genre needs a row for each of the 4 items .*1"),
        (torch.ones(5, 3), None, r"genre needs .*\(got 5\)"),
        (None, torch.tensor([1990, 1991]), r"graph\['item'\].year needs .*\(got 2\)"),
    ],
)
def test_features_of_other_items_are_refused(genre: Any, year: Any, said: str) -> None:
    graph = with_features()
    if genre is not None:
        graph["item"].genre = genre
    if year is not None:
        graph["item"].year = year
    with pytest.raises(ValueError, match=said):
        built(graph)


def test_genres_may_be_sparse() -> None:
    sparse = with_features()
    sparse["item"].genre = GRAPH["item"].genre.to_sparse()
    dense = with_features(GRAPH["item"].genre.int().tolist())
    assert torch.equal(item_features(sparse)[0], item_features(dense)[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_features": -1}, r"'num_features' needs .*\(got -1\)"),
        ({"num_features": 2.5}, r"\(got 2.5\)"),
        ({"item_features": "False"}, r"'item_features' needs .*\(got 'False'\)"),
    ],
)
def test_bad_settings(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TGTBERT4Rec(4, **given)


@pytest.mark.parametrize("learned_only", [True, False])
def test_saved_and_loaded(learned_only: bool, tmp_path: Path) -> None:
    model = built().eval()
    save_model(model, tmp_path, learned_only=learned_only)
    again = load_model(tmp_path, MODELS, train=GRAPH if learned_only else None)
    batch = SeedLoader(EventIndex(GRAPH), model.sampling).batch(leave_one_out(GRAPH).test)
    with torch.no_grad():
        assert torch.equal(again.score(batch), model.score(batch))
    if learned_only:
        other = with_features(years=[1, 2, 3, 4])
        with pytest.raises(ValueError, match=r"holds what was learned only.*\(num_features differ"):
            load_model(tmp_path, MODELS, train=other)


def test_a_run_is_not_resumed_on_other_features(tmp_path: Path) -> None:
    """Of the same width: nothing else would tell."""

    def go_on(years: list[int], **kwargs: Any) -> int:
        split = leave_one_out(with_features(GRAPH["item"].genre.int().tolist(), years))
        settings = TrainSettings(epochs=2, batch_size=8)
        return fit(
            built(split.train), split, settings, folder=tmp_path, show=False, **kwargs
        ).epochs

    go_on([1999, 0, 1990, 1999], epochs=1)
    said = (
        r"other settings \(digest of the features of users or items in features.values: '\w+' -> "
        r"'\w+'\); give the same settings and data"
    )
    with pytest.raises(ValueError, match=said):
        go_on([1990, 0, 1999, 1999], resume=True)
    assert go_on([1999, 0, 1990, 1999], resume=True) == 2


def test_an_item_that_nobody_met_is_found_by_its_genre() -> None:
    """Half of the people meet genre 0 (even items) only, the others genre 1; 18 and 19 are new."""
    draw = torch.Generator().manual_seed(0)
    rows = [
        {"user_id": user, "item_id": 2 * int(k) + user % 2, "timestamp": 1000 * place + user}
        for user in range(40)
        for place, k in enumerate(torch.randperm(9, generator=draw)[:7])
    ]
    items = pd.DataFrame({"item_id": range(20), "genres": ["even", "odd"] * 10})
    split = leave_one_out(graph_of(pd.DataFrame(rows), items=items))
    settings = TrainSettings(epochs=12, batch_size=8, lr=0.01, eval_every=12)
    asked = SeedLoader(EventIndex(split.graph), built().sampling).batch(split.test)
    right = {}
    for known in (True, False):
        model = built(split.train, item_features=known, use_graph=False)
        fit(model, split, settings, show=False)
        with torch.no_grad():
            scores = model.eval().score(asked)
        even = asked.user % 2 == 0
        right[known] = float(((scores[:, 18] > scores[:, 19]) == even).float().mean())
    assert right[True] > 0.95
    assert right[False] < 0.8


def test_a_start_finds_genres_and_years_by_their_meaning(tmp_path: Path) -> None:
    events = pd.DataFrame({"user_id": [u for u in range(9) for _ in range(4)],
                           "item_id": [1, 2, 3, 4] * 9})  # fmt: skip
    items = pd.DataFrame({"item_id": [1, 2, 3, 4], "genres": ["Drama", "War", "Drama", "War"],
                          "year": [1990, 1991, 1992, 1990]})  # fmt: skip
    old = Recommender("tgt_bert4rec", **SMALL, item_features=True)
    old.fit(events, items=items, epochs=1, show=False).save(tmp_path)
    graph = graph_of(events, items=items.assign(
        genres=["Comedy", "Drama", "War", "War"], year=[1991, 1992, 1993, 1990]))  # fmt: skip
    model = built(leave_one_out(graph).train)
    assert model.features is not None
    fresh = model.features.weight.detach().clone()
    start_from(model, graph, tmp_path)
    assert isinstance(old.model, TGTBERT4Rec)
    assert old.model.features is not None
    there = old.model.features.weight
    # Comedy, Drama, War, 1990 to 1993 now; Drama, War, 1990 to 1992 then.
    for now, then in ((1, 0), (2, 1), (3, 2), (4, 3), (5, 4)):
        assert torch.equal(model.features.weight[now], there[then])
    for now in (0, 6):
        assert torch.equal(model.features.weight[now], fresh[now])


class WithFeatures(TGTBERT4Rec):
    """On the graphs of ``check_model``, which know nothing of their items, these have features."""

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> WithFeatures:
        dressed, draw = copy.copy(graph), torch.Generator().manual_seed(1)
        dressed["item"].genre = torch.rand(graph.num_items, 3, generator=draw) < 0.5
        dressed["item"].year = torch.randint(1990, 1996, (graph.num_items,), generator=draw)
        model = super().from_graph(dressed, item_features=True, **kwargs)
        assert model.features is not None
        assert model.features.values.any()
        return model


def test_with_features_it_passes_what_every_model_has_to() -> None:
    check_model(WithFeatures)
