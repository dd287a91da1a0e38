"""TGT-BERT4Rec: its form, the ablations, and what no position may read."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import BERT4Rec, TGT_BERT4Rec, TGTBERT4Rec
from tgrec.nn.transformer import Block, GatedBlock
from tgrec.sampler import EventIndex

# ---- what is not there ------------------------------------------------------------------------

OTHER: dict[str, Any] = {
    "n_blocks": 3, "d_ff": 24, "tgt_blocks": 3, "tgt_d_ff": 24, "tgt_gated": True,
    "time_vectors": True, "use_time": False, "use_graph": False, "graph_weight": 7.0,
    "learnable_fusion": True, "mask_prob": 0.9, "last_prob": 0.9, "choose_gates": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion_alpha": 1.0},
        {"fusion_alpha": 0.0},
        {"fusion_alpha": 0.0, "tgt_blocks": 1, "tgt_d_ff": 16},
        {"fusion_alpha": 0.0, "use_graph": False},
        {"fusion_alpha": 0.3, "use_graph": False, "use_time": False},
    ],
)
def test_a_setting_that_is_not_read_changes_nothing(
    settings: dict[str, Any], tgt_kit: SimpleNamespace
) -> None:
    loader = SeedLoader(EventIndex(tgt_kit.split.train), tgt_kit.model_of().sampling)
    batch = next(
        iter(loader.train_batches(training_seeds(loader.index, tgt_kit.LENGTH, "last"), 64, 0, 0))
    )

    def trained(**changed: Any) -> tuple[Any, ...]:
        torch.manual_seed(0)
        made = {**tgt_kit.SMALL, "learnable_fusion": False, **settings, **changed}
        model = TGTBERT4Rec.from_graph(tgt_kit.split.train, **made)
        asked: list[bool] = []
        model.choose(lambda: asked.append(True) or 0.5)
        loss, count = (x.tolist() for x in model.loss_terms(batch))
        return loss, count, model.num_parameters(), len(asked) > 1

    torch.manual_seed(0)
    unread = TGTBERT4Rec.from_graph(tgt_kit.split.train, **{**tgt_kit.SMALL, **settings}).unread()
    assert unread
    for name in unread:
        assert trained(**{name: OTHER[name]}) == trained(), name


def test_a_model_of_one_branch_goes_by_another_name() -> None:
    names = [TGTBERT4Rec.name_of("mine", {"fusion_alpha": a}) for a in (0, 0.0, 0.3, 1, 1.0)]
    assert names == ["tgt_branch", "tgt_branch", "mine", "bert_branch", "bert_branch"]
    assert TGTBERT4Rec.name_of("mine", {}) == "mine"
    assert BERT4Rec.name_of("mine", {"fusion_alpha": 0}) == "mine"


# ---- cosine logits and the form of the TGT branch ----------------------------------------------


@torch.no_grad()
def test_with_a_temperature_logits_are_cosines(tgt_kit: SimpleNamespace) -> None:
    """By hand: both branches and the items as directions, the branches divided by T."""
    model, batch = tgt_kit.model_of(temperature=0.1, use_graph=False), tgt_kit.history_batch()
    plain = tgt_kit.model_of(use_graph=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert batch.history is not None
    history, mask_token = batch.history, torch.full((batch.user.numel(), 1), tgt_kit.ITEMS)
    item = torch.cat([history.item, mask_token], dim=1)
    mask = torch.cat([history.mask, torch.ones_like(mask_token, dtype=torch.bool)], dim=1)
    bert = plain.bert_hidden(item, mask)[:, -1]
    tgt = plain.tgt_hidden(history, None)[:, -1]
    table = plain.item[: tgt_kit.ITEMS]
    parts = [(x / x.norm(dim=1, keepdim=True)) / 0.1 for x in (bert, tgt)]
    fused = 0.3 * parts[0] + 0.7 * parts[1]
    expected = fused @ (table / table.norm(dim=1, keepdim=True)).t()
    torch.testing.assert_close(model.score(batch), expected)
    model.item[: tgt_kit.ITEMS] *= torch.rand(tgt_kit.ITEMS, 1) + 0.5
    scaled = model.encode_item()
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(tgt_kit.ITEMS))
    assert model.monitor()["temperature"] == pytest.approx(0.1)
    assert "temperature" not in plain.monitor()


def test_the_branches_may_differ_in_depth_and_width(tgt_kit: SimpleNamespace) -> None:
    model = TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, tgt_blocks=4, tgt_d_ff=24)
    assert model.bert is not None
    assert model.tgt is not None
    assert (len(model.bert.encoder.blocks), len(model.tgt.blocks)) == (2, 4)
    assert (model.bert.encoder.blocks[0].up.out_features, model.tgt.blocks[0].up.out_features) == (
        32,
        24,
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("tgt_blocks", 0, "'tgt_blocks' and 'tgt_d_ff' need to be positive"),
        ("tgt_d_ff", -1, "'tgt_blocks' and 'tgt_d_ff' need to be positive"),
        ("temperature", -0.1, "'temperature' needs to be a number of at least 0"),
        ("temperature", float("nan"), "'temperature' needs to be a number of at least 0"),
    ],
)
def test_forms_that_cannot_be(name: str, value: float, said: str, tgt_kit: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=said):
        TGTBERT4Rec(tgt_kit.ITEMS, **{**tgt_kit.SMALL, name: value})


def test_gates_stand_in_the_place_of_feed_forward_layers(tgt_kit: SimpleNamespace) -> None:
    model = TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, tgt_gated=True)
    assert model.bert is not None
    assert model.tgt is not None
    assert {type(block) for block in model.tgt.blocks} == {GatedBlock}
    assert {type(block) for block in model.bert.encoder.blocks} == {Block}
    with pytest.raises(ValueError, match=r"'tgt_d_ff' needs tgt_gated=False \(got 24\)"):
        TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, tgt_gated=True, tgt_d_ff=24)


@torch.no_grad()
def test_vectors_of_times_are_read_and_cover_the_training_events(tgt_kit: SimpleNamespace) -> None:
    model = TGTBERT4Rec.from_graph(
        tgt_kit.split.train, **tgt_kit.SMALL, use_graph=False, time_vectors=True
    ).eval()
    assert model.tgt is not None
    assert model.tgt.times is not None
    times = torch.cat([tgt_kit.split.train[t].time for t in tgt_kit.split.train.interaction_types])
    assert model.tgt.times.span.tolist() == [int(times.min()), int(times.max())]
    batch = tgt_kit.history_batch()
    assert batch.history is not None
    # With zeros, as at the start, only the bias of the attention reads times; it starts at zero.
    moved = replace(batch, history=replace(batch.history, time=batch.history.time + 10**5))
    assert torch.equal(model.score(moved), model.score(batch))
    for table in (model.tgt.times.since, model.tgt.times.period):
        table.normal_()
        wide = replace(batch, history=replace(batch.history, time=2 * batch.history.time))
        assert not torch.allclose(model.score(wide), model.score(batch))
        table.zero_()
    model.tgt.times.until.normal_()  # the question after the last event, known on T2 only
    asked = torch.cat([batch.history.time, batch.history.time[:, -1:] + 5], dim=1)
    known, later = (replace(batch, query_time=asked + delay) for delay in (0, 10**6))
    assert not torch.allclose(model.score(known), model.score(later))
    plain = TGTBERT4Rec.from_graph(
        tgt_kit.split.train, **tgt_kit.SMALL, use_time=False, time_vectors=True
    )
    assert plain.tgt is not None
    assert plain.tgt.times is None


@torch.no_grad()
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_no_position_reads_a_later_event_or_its_time(
    track: Track, tgt_kit: SimpleNamespace
) -> None:
    """But on T2 the time of the one event that it is asked for."""
    model = TGTBERT4Rec.from_graph(
        tgt_kit.split.train,
        **tgt_kit.SMALL,
        tgt_gated=True,
        time_vectors=True,
        positions="relative",
    ).eval()
    assert model.tgt is not None
    for parameter in model.tgt.parameters():
        parameter.normal_(std=0.3)
    batch = SeedLoader(EventIndex(tgt_kit.split.graph), model.sampling, track).batch(
        tgt_kit.split.test
    )
    history, asked = batch.history, batch.query_time
    assert history is not None
    assert (asked is None) == (track == "T1")
    place, cut = torch.arange(history.item.size(1)), 5
    later = place > cut
    other = replace(
        history,
        item=torch.where(later, (history.item + 7) % tgt_kit.ITEMS, history.item),
        time=torch.where(later, history.time + 10**6, history.time),
    )
    shown = None
    if asked is not None:  # entry j + 1 is when the event after edge j is asked for
        shown = torch.where(torch.arange(asked.size(1)) > cut + 1, asked + 10**6, asked)
    before, after = model.tgt_hidden(history, asked), model.tgt_hidden(other, shown)
    assert torch.equal(before[:, ~later], after[:, ~later])
    assert not torch.allclose(before[:, later], after[:, later])


# ---- size and ablations ----------------------------------------------------------------------


def test_parameters_at_the_seeds_settings() -> None:
    model = TGT_BERT4Rec(
        num_items=3706, d_model=64, n_heads=2, n_blocks=2, d_ff=256, max_len=200, dropout=0.2,
        fusion_alpha=0.3, learnable_fusion=True,
    )  # fmt: skip
    assert 400_000 < model.num_parameters() <= 510_000


def test_the_graph_is_built_from_training_events(tgt_kit: SimpleNamespace) -> None:
    model = TGTBERT4Rec.from_graph(tgt_kit.split.train, **tgt_kit.SMALL)
    assert model.graph is not None
    assert model.config["num_edges"] == model.graph.config["num_edges"]
    assert (
        TGTBERT4Rec.from_graph(tgt_kit.split.train, **tgt_kit.SMALL, use_graph=False).graph is None
    )
    assert (
        TGTBERT4Rec.from_graph(tgt_kit.split.train, **tgt_kit.SMALL, fusion_alpha=1.0).graph is None
    )
    assert TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL).graph is None


@torch.no_grad()
def test_without_time_the_times_change_nothing(tgt_kit: SimpleNamespace) -> None:
    ids, times, mask = tgt_kit.seed_batch()
    other = times * 3
    timeless = tgt_kit.model_of(use_time=False)
    assert torch.equal(timeless.predict(ids, times, mask), timeless.predict(ids, other, mask))
    timed = tgt_kit.model_of()
    assert not torch.equal(timed.predict(ids, times, mask), timed.predict(ids, other, mask))


@pytest.mark.parametrize(
    ("name", "value"),
    [("mask_prob", 2.0), ("last_prob", float("nan")), ("learnable_fusion", "False"),
     ("time_vectors", "no"), ("tgt_blocks", 2.5)],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(
    name: str, value: Any, tgt_kit: SimpleNamespace
) -> None:
    with pytest.raises(ValueError, match=f"'{name}' needs to be"):
        TGTBERT4Rec(tgt_kit.ITEMS, **{**tgt_kit.SMALL, name: value})
