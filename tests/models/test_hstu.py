"""HSTU: cosine logits, and what it knows of time on each track."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tgrec.data import RecBatch, leave_one_out
from tgrec.loader import SeedLoader, Track
from tgrec.models import HSTU
from tgrec.sampler import EventIndex
from tgrec.testing import check_model, noise_graph

SPLIT = leave_one_out(noise_graph(length=(3, 14)))
SMALL: dict[str, Any] = {"d_model": 16, "n_blocks": 2, "max_len": 9}


def model_of(**kwargs: Any) -> HSTU:
    torch.manual_seed(0)
    model = HSTU.from_graph(SPLIT.train, **{**SMALL, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.encoder.parameters():  # away from zeros
            parameter.normal_(std=0.3)
    return model


def batch_of(model: HSTU, track: Track) -> RecBatch:
    return SeedLoader(EventIndex(SPLIT.graph), model.sampling, track).batch(SPLIT.test)


@torch.no_grad()
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_scores_are_cosines_over_the_temperature(track: Track) -> None:
    model = model_of(temperature=0.1)
    batch = batch_of(model, track)
    assert batch.history is not None
    states = model.hidden(batch.history, batch.query_time)
    torch.testing.assert_close(states.norm(dim=2), torch.full(states.shape[:2], 10.0))
    cosine = torch.nn.functional.cosine_similarity(states[:, -1, None], model.item, dim=2)
    torch.testing.assert_close(model.score(batch), 10 * cosine, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="'temperature' needs to be positive"):
        HSTU(5, temperature=0.0)


@torch.no_grad()
def test_the_time_of_the_question_is_read_on_t2_and_gaps_of_the_past_on_both() -> None:
    model = model_of()
    plain = {track: batch_of(model, track) for track in ("T1", "T2")}
    assert plain["T1"].query_time is None
    assert plain["T2"].query_time is not None
    later = replace(plain["T2"], query_time=plain["T2"].query_time + 10**7)
    assert not torch.allclose(model.score(later), model.score(plain["T2"]))
    for batch in plain.values():
        history = batch.history
        assert history is not None
        # All times doubled: other gaps, the same order. Moved together: the same gaps.
        asked = batch.query_time
        wide, moved = (
            replace(
                batch,
                history=replace(history, time=change(history.time)),
                query_time=None if asked is None else change(asked),
            )
            for change in (lambda t: 2 * t, lambda t: t + 10**6)
        )
        assert not torch.allclose(model.score(wide), model.score(batch))
        assert torch.equal(model.score(moved), model.score(batch))


def test_without_time_no_time_is_read() -> None:
    model = model_of(use_time=False)
    with torch.no_grad():
        scores = {track: model.score(batch_of(model, track)) for track in ("T1", "T2")}
    assert torch.equal(scores["T1"], scores["T2"])
    check_model(HSTU, use_time=False, n_blocks=1)
