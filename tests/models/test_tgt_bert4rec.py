"""TGT-BERT4Rec: the gate, the ablations, and the seed's call under the seed's conventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import RecBatch, leave_one_out
from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import BERT4Rec, TGT_BERT4Rec, TGTBERT4Rec
from tgrec.models.io import load_model, save_model
from tgrec.nn.transformer import Block, GatedBlock
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph

ITEMS, LENGTH = 20, 10
SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 2, "d_ff": 32, "max_len": LENGTH}
SPLIT = leave_one_out(noise_graph(num_items=ITEMS))


def model_of(seed: int = 0, **kwargs: Any) -> TGTBERT4Rec:
    torch.manual_seed(seed)
    model = TGTBERT4Rec(ITEMS, **{**SMALL, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and from each other
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def seed_batch(seed: int = 0, rows: int = 6, right: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """ids, times, mask in the seed's conventions."""
    g = torch.Generator().manual_seed(seed)
    count = torch.randint(1, LENGTH + 1, (rows, 1), generator=g)
    mask = torch.arange(LENGTH) >= LENGTH - count
    ids = torch.randint(1, ITEMS + 1, (rows, LENGTH), generator=g) * mask
    times = (10**9 + torch.randint(10**6, (rows, LENGTH), generator=g).sort(1).values) * mask
    if right:
        count = count.view(-1).tolist()
        ids, times, mask = (
            torch.stack([torch.roll(row, n, 0) for row, n in zip(x, count, strict=True)])
            for x in (ids, times, mask)
        )
    return ids, times, mask


def history_batch() -> RecBatch:
    loader = SeedLoader(EventIndex(SPLIT.graph), model_of().sampling)
    return loader.batch(SPLIT.test)


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
def test_a_setting_that_is_not_read_changes_nothing(settings: dict[str, Any]) -> None:
    loader = SeedLoader(EventIndex(SPLIT.train), model_of().sampling)
    batch = next(iter(loader.train_batches(training_seeds(loader.index, LENGTH, "last"), 64, 0, 0)))

    def trained(**changed: Any) -> tuple[Any, ...]:
        torch.manual_seed(0)
        made = {**SMALL, "learnable_fusion": False, **settings, **changed}
        model = TGTBERT4Rec.from_graph(SPLIT.train, **made)
        asked: list[bool] = []
        model.choose(lambda: asked.append(True) or 0.5)
        loss, count = (x.tolist() for x in model.loss_terms(batch))
        return loss, count, model.num_parameters(), len(asked) > 1

    torch.manual_seed(0)
    unread = TGTBERT4Rec.from_graph(SPLIT.train, **{**SMALL, **settings}).unread()
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
def test_with_a_temperature_logits_are_cosines() -> None:
    """By hand: both branches and the items as directions, the branches divided by T."""
    model, batch = model_of(temperature=0.1, use_graph=False), history_batch()
    plain = model_of(use_graph=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert batch.history is not None
    history, mask_token = batch.history, torch.full((batch.user.numel(), 1), ITEMS)
    item = torch.cat([history.item, mask_token], dim=1)
    mask = torch.cat([history.mask, torch.ones_like(mask_token, dtype=torch.bool)], dim=1)
    bert = plain.bert_hidden(item, mask)[:, -1]
    tgt = plain.tgt_hidden(history, None)[:, -1]
    table = plain.item[:ITEMS]
    parts = [(x / x.norm(dim=1, keepdim=True)) / 0.1 for x in (bert, tgt)]
    fused = 0.3 * parts[0] + 0.7 * parts[1]
    expected = fused @ (table / table.norm(dim=1, keepdim=True)).t()
    torch.testing.assert_close(model.score(batch), expected)
    model.item[:ITEMS] *= torch.rand(ITEMS, 1) + 0.5
    scaled = model.encode_item()
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(ITEMS))
    assert model.monitor()["temperature"] == pytest.approx(0.1)
    assert "temperature" not in plain.monitor()


def test_the_branches_may_differ_in_depth_and_width() -> None:
    model = TGTBERT4Rec(ITEMS, **SMALL, tgt_blocks=4, tgt_d_ff=24)
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
def test_forms_that_cannot_be(name: str, value: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TGTBERT4Rec(ITEMS, **{**SMALL, name: value})


def test_gates_stand_in_the_place_of_feed_forward_layers() -> None:
    model = TGTBERT4Rec(ITEMS, **SMALL, tgt_gated=True)
    assert model.bert is not None
    assert model.tgt is not None
    assert {type(block) for block in model.tgt.blocks} == {GatedBlock}
    assert {type(block) for block in model.bert.encoder.blocks} == {Block}
    with pytest.raises(ValueError, match=r"'tgt_d_ff' needs tgt_gated=False \(got 24\)"):
        TGTBERT4Rec(ITEMS, **SMALL, tgt_gated=True, tgt_d_ff=24)


@torch.no_grad()
def test_vectors_of_times_are_read_and_cover_the_training_events() -> None:
    model = TGTBERT4Rec.from_graph(SPLIT.train, **SMALL, use_graph=False, time_vectors=True).eval()
    assert model.tgt is not None
    assert model.tgt.times is not None
    times = torch.cat([SPLIT.train[t].time for t in SPLIT.train.interaction_types])
    assert model.tgt.times.span.tolist() == [int(times.min()), int(times.max())]
    batch = history_batch()
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
    plain = TGTBERT4Rec.from_graph(SPLIT.train, **SMALL, use_time=False, time_vectors=True)
    assert plain.tgt is not None
    assert plain.tgt.times is None


@torch.no_grad()
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_no_position_reads_a_later_event_or_its_time(track: Track) -> None:
    """But on T2 the time of the one event that it is asked for."""
    model = TGTBERT4Rec.from_graph(
        SPLIT.train, **SMALL, tgt_gated=True, time_vectors=True, positions="relative"
    ).eval()
    assert model.tgt is not None
    for parameter in model.tgt.parameters():
        parameter.normal_(std=0.3)
    batch = SeedLoader(EventIndex(SPLIT.graph), model.sampling, track).batch(SPLIT.test)
    history, asked = batch.history, batch.query_time
    assert history is not None
    assert (asked is None) == (track == "T1")
    place, cut = torch.arange(history.item.size(1)), 5
    later = place > cut
    other = replace(
        history,
        item=torch.where(later, (history.item + 7) % ITEMS, history.item),
        time=torch.where(later, history.time + 10**6, history.time),
    )
    shown = None
    if asked is not None:  # entry j + 1 is when the event after edge j is asked for
        shown = torch.where(torch.arange(asked.size(1)) > cut + 1, asked + 10**6, asked)
    before, after = model.tgt_hidden(history, asked), model.tgt_hidden(other, shown)
    assert torch.equal(before[:, ~later], after[:, ~later])
    assert not torch.allclose(before[:, later], after[:, later])


# ---- the gate --------------------------------------------------------------------------------


def test_the_gate_starts_at_what_is_asked_for() -> None:
    assert TGT_BERT4Rec is TGTBERT4Rec
    for alpha in (0.3, 0.5, 0.05, 0.99):
        model = TGTBERT4Rec(ITEMS, **SMALL, fusion_alpha=alpha)
        assert float(model.alpha.detach()) == pytest.approx(alpha, abs=1e-6)
        assert isinstance(model.gate, torch.nn.Parameter)
    assert float(TGT_BERT4Rec(ITEMS).alpha.detach()) == pytest.approx(0.3, abs=1e-7)
    fixed = TGTBERT4Rec(ITEMS, **SMALL, learnable_fusion=False)
    assert not isinstance(fixed.gate, torch.nn.Parameter)
    assert float(fixed.alpha) == pytest.approx(0.3, abs=1e-7)


@torch.no_grad()
def test_the_graph_adds_its_logits_with_its_weight() -> None:
    """Fixed or learned, w stands before log(1 + p / floor), in the TGT branch's share."""
    for learnable in (True, False):
        model, off = (
            TGTBERT4Rec.from_graph(SPLIT.train, **SMALL, graph_weight=w, fusion_alpha=0.25,
                                   learnable_fusion=learnable).eval()
            for w in (1.5, 0.0)
        )  # fmt: skip
        state = {k: v for k, v in model.state_dict().items() if k != "graph_weight"}
        off.load_state_dict(state, strict=False)
        batch = history_batch()
        assert model.graph is not None
        wanted = 0.75 * 1.5 * torch.log1p(model.graph.score(batch) / 3e-4)
        torch.testing.assert_close(model.score(batch) - off.score(batch), wanted)
        assert isinstance(model.graph_weight, torch.nn.Parameter) == learnable
        assert model.monitor()["graph_weight"] == pytest.approx(1.5)
    with pytest.raises(ValueError, match="'graph_weight' needs to be a number of at least 0"):
        TGTBERT4Rec(ITEMS, **SMALL, graph_weight=-1.0)


def test_gates_are_chosen_where_the_measure_is_best(tmp_path: Path) -> None:
    """A measure with a known best; learned gates are left alone, and weights keep the choice."""

    def from_graph(**kwargs: Any) -> TGTBERT4Rec:
        return TGTBERT4Rec.from_graph(SPLIT.train, **SMALL, choose_gates=True, **kwargs)

    def measure_of(model: TGTBERT4Rec, weight: float, alpha: float) -> Callable[[], float]:
        def measure() -> float:
            gates = model.monitor()
            return -abs(gates.get("graph_weight", weight) - weight) - abs(gates["alpha"] - alpha)

        return measure

    model = from_graph(learnable_fusion=False)
    model.choose(measure_of(model, 3.0, 0.15))
    assert model.monitor() == {"alpha": pytest.approx(0.15), "graph_weight": 3.0}
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, {"tgt_bert4rec": TGTBERT4Rec})
    assert torch.equal(loaded.score(history_batch()), model.eval().score(history_batch()))
    # What it starts from stays, if nothing is better; a branch alone has no share to choose.
    model = from_graph(learnable_fusion=False, fusion_alpha=0.42, graph_weight=1.7)
    model.choose(measure_of(model, 1.7, 0.42))
    assert (model.config["fusion_alpha"], model.config["graph_weight"]) == (0.42, 1.7)
    model = from_graph(learnable_fusion=False, fusion_alpha=0.0)
    model.choose(measure_of(model, 0.5, 0.3))
    assert model.monitor() == {"alpha": 0.0, "graph_weight": 0.5}
    model = from_graph(learnable_fusion=False, use_graph=False)
    model.choose(measure_of(model, 0.5, 0.3))
    assert model.monitor() == {"alpha": pytest.approx(0.3)}
    left = TGTBERT4Rec(ITEMS, **SMALL, learnable_fusion=False)
    left.choose(measure_of(left, 3.0, 0.15))
    assert left.monitor() == {"alpha": pytest.approx(0.3)}
    with pytest.raises(ValueError, match="'choose_gates' needs learnable_fusion=False"):
        TGTBERT4Rec(ITEMS, **SMALL, choose_gates=True)


def test_choosing_that_is_interrupted_leaves_the_best_gate_so_far() -> None:
    kwargs = {**SMALL, "choose_gates": True, "learnable_fusion": False}
    model = TGTBERT4Rec.from_graph(SPLIT.train, **kwargs)
    values = iter([0.1, 0.2, 0.4, 0.3])

    def measure() -> float:
        if (value := next(values, None)) is None:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        model.choose(measure)
    assert model.monitor()["graph_weight"] == model.config["graph_weight"] == 0.5


@torch.no_grad()
def test_alpha_one_is_the_bert_branch_to_the_bit() -> None:
    both, alone = model_of(fusion_alpha=1.0), BERT4Rec(ITEMS, **SMALL).eval()
    assert both.tgt is None
    state = {k.replace("bert.", "branch."): v for k, v in both.state_dict().items() if k != "gate"}
    alone.load_state_dict(state)
    batch = history_batch()
    assert torch.equal(both.score(batch), alone.score(batch))
    full = model_of(seed=5)
    full.load_state_dict(both.state_dict(), strict=False)
    item, mask = torch.randint(ITEMS, (4, 7)), torch.ones(4, 7, dtype=torch.bool)
    assert torch.equal(full.bert_hidden(item, mask), both.bert_hidden(item, mask))


@torch.no_grad()
def test_alpha_zero_is_the_tgt_branch_to_the_bit() -> None:
    alone, full = model_of(fusion_alpha=0.0), model_of(seed=5)
    assert alone.bert is None
    assert alone.item.shape == (ITEMS, 16)  # no mask token without its reader
    state = {k: v for k, v in alone.state_dict().items() if k.startswith("tgt.")}
    full.load_state_dict(state, strict=False)
    full.item[:ITEMS] = alone.item
    batch = history_batch()
    assert batch.history is not None
    hidden = full.tgt_hidden(batch.history, None)
    assert torch.equal(hidden, alone.tgt_hidden(batch.history, None))
    last = full.tgt_hidden(batch.history, None, last=True)
    assert torch.equal(alone.encode_user(batch), last)
    torch.testing.assert_close(last, hidden[:, -1], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("learnable", [True, False])
def test_fused_is_between_its_branches(learnable: bool) -> None:
    for alpha in (0.1, 0.3, 0.9):
        model = model_of(fusion_alpha=alpha, learnable_fusion=learnable)
        _, info = model(*seed_batch(), return_fusion_info=True)
        wanted = alpha * info["bert_hidden"] + (1 - alpha) * info["tgt_hidden"]
        torch.testing.assert_close(info["fused"], wanted)
        assert float(info["alpha"]) == pytest.approx(alpha, abs=1e-6)


def test_a_branch_that_is_not_there_is_zero_in_the_info() -> None:
    _, info = model_of(fusion_alpha=1.0)(*seed_batch(), return_fusion_info=True)
    assert info["tgt_hidden"].abs().sum() == 0
    assert torch.equal(info["fused"], info["bert_hidden"])
    _, info = model_of(fusion_alpha=0.0)(*seed_batch(), return_fusion_info=True)
    assert info["bert_hidden"].abs().sum() == 0


def test_the_gate_learns_and_stays_between_zero_and_one() -> None:
    model = model_of()
    model.gate.data.fill_(40.0)
    assert 0 <= float(model.alpha.detach()) <= 1
    model = model_of()
    model(*seed_batch())[..., 1:].square().sum().backward()
    assert model.gate.grad is not None
    assert model.gate.grad.abs() > 0


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_bad_gate_is_explained(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"'fusion_alpha' needs to be in \[0, 1\]"):
        TGTBERT4Rec(ITEMS, **SMALL, fusion_alpha=alpha)


# ---- size and ablations ----------------------------------------------------------------------


def test_parameters_at_the_seeds_settings() -> None:
    model = TGT_BERT4Rec(
        num_items=3706, d_model=64, n_heads=2, n_blocks=2, d_ff=256, max_len=200, dropout=0.2,
        fusion_alpha=0.3, learnable_fusion=True,
    )  # fmt: skip
    assert 400_000 < model.num_parameters() <= 510_000


def test_the_graph_is_built_from_training_events() -> None:
    model = TGTBERT4Rec.from_graph(SPLIT.train, **SMALL)
    assert model.graph is not None
    assert model.config["num_edges"] == model.graph.config["num_edges"]
    assert TGTBERT4Rec.from_graph(SPLIT.train, **SMALL, use_graph=False).graph is None
    assert TGTBERT4Rec.from_graph(SPLIT.train, **SMALL, fusion_alpha=1.0).graph is None
    assert TGTBERT4Rec(ITEMS, **SMALL).graph is None


@torch.no_grad()
def test_without_time_the_times_change_nothing() -> None:
    ids, times, mask = seed_batch()
    other = times * 3
    timeless = model_of(use_time=False)
    assert torch.equal(timeless.predict(ids, times, mask), timeless.predict(ids, other, mask))
    timed = model_of()
    assert not torch.equal(timed.predict(ids, times, mask), timed.predict(ids, other, mask))


# ---- the seed's call -------------------------------------------------------------------------


@torch.no_grad()
def test_shapes_of_the_seeds_call() -> None:
    model = model_of()
    ids, times, mask = seed_batch()
    logits = model(ids, times, mask)
    assert logits.shape == (6, LENGTH, ITEMS + 1)
    assert logits.dtype == torch.float32
    assert torch.isneginf(logits[..., 0]).all()  # the padding is never recommended
    assert logits[..., 1:].isfinite().all()
    again, info = model(ids, times, mask, return_fusion_info=True)
    assert torch.equal(logits, again)
    assert info.keys() == {"alpha", "bert_hidden", "tgt_hidden", "fused"}
    for name in ("bert_hidden", "tgt_hidden", "fused"):
        assert info[name].shape == (6, LENGTH, 16)
    scores = model.predict(ids, times, mask)
    assert scores.shape == (6, ITEMS + 1)
    assert torch.isneginf(scores[:, 0]).all()


@torch.no_grad()
def test_padding_may_stand_on_either_side() -> None:
    model = model_of()
    left, right = seed_batch(), seed_batch(right=True)
    torch.testing.assert_close(model.predict(*left), model.predict(*right))
    # Position by position, at the real events.
    one, two = model(*left), model(*right)
    torch.testing.assert_close(one[left[2]], two[right[2]])


@torch.no_grad()
def test_more_padding_changes_nothing() -> None:
    model = model_of()
    ids, times, mask = (x[:, 3:] for x in seed_batch())
    wide = [torch.nn.functional.pad(x, (3, 0)) for x in (ids, times, mask)]
    torch.testing.assert_close(model.predict(ids, times, mask), model.predict(*wide))


@torch.no_grad()
def test_scores_are_those_of_the_recommender() -> None:
    model = model_of()
    batch = history_batch()
    h = batch.history
    assert h is not None
    scores = model.predict((h.item + 1) * h.mask, h.time, h.mask)
    assert torch.equal(scores[:, 1:], model.score(batch))


@torch.no_grad()
def test_float_times_are_scaled_times() -> None:
    model = model_of()
    ids, times, mask = seed_batch()
    year = 365 * 86_400
    scaled = (times.double() - 10**9) / year * mask
    torch.testing.assert_close(model.predict(ids, times, mask), model.predict(ids, scaled, mask))
    assert model.predict(ids, scaled.float(), mask)[:, 1:].isfinite().all()


@torch.no_grad()
def test_position_j_does_not_know_item_j_but_for_the_bert_branch() -> None:
    model = model_of()
    ids, times, _ = seed_batch()
    ids = ids.clamp(min=1)  # no padding
    mask = torch.ones_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, 6] = ids[:, 6] % ITEMS + 1
    _, one = model(ids, times, mask, return_fusion_info=True)
    _, two = model(changed, times, mask, return_fusion_info=True)
    assert torch.equal(one["tgt_hidden"][:, :7], two["tgt_hidden"][:, :7])
    assert not torch.equal(one["tgt_hidden"][:, 7:], two["tgt_hidden"][:, 7:])
    assert not torch.equal(one["bert_hidden"][:, 0], two["bert_hidden"][:, 0])  # it sees both sides


@torch.no_grad()
def test_a_mask_token_is_no_edge_of_the_graph() -> None:
    model = model_of()
    ids, times, _ = seed_batch()
    ids = ids.clamp(min=1, max=ITEMS - 1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    ids[:, 4] = ITEMS + 1
    _, one = model(ids, times, mask, return_fusion_info=True)
    model.item[ITEMS - 1].normal_()  # an item that stands nowhere
    _, two = model(ids, times, mask, return_fusion_info=True)
    assert torch.equal(one["tgt_hidden"], two["tgt_hidden"])
    assert torch.equal(one["bert_hidden"], two["bert_hidden"])


def test_predict_leaves_the_model_as_it_was() -> None:
    model = model_of(dropout=0.5).train()
    first, second = model.predict(*seed_batch()), model.predict(*seed_batch())
    assert torch.equal(first, second)
    assert model.training
    assert not first.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda i, t, m: (i, t, ~m),
            "'mask' and 'input_ids' disagree at 60 positions.*is it inverted",
        ),
        (
            lambda i, t, m: (i, t, m.long()),
            r"'mask' needs to be bool, True at real events \(got torch.int64\)",
        ),
        (
            lambda i, t, m: (i, t, m.unsqueeze(1).expand(-1, 10, -1)),
            r"'mask' needs the shape \[B, L\]",
        ),
        (lambda i, t, m: (i, t[:, 1:], m), r"'timestamps' needs the shape \[B, L\] of 'input_ids'"),
        (lambda i, t, m: (i[0], t[0], m[0]), r"needs the shape \[B, L\]"),
        (lambda i, t, m: (i + 15 * m, t, m), r"'input_ids' needs ids in 0..21 \(got 0..3\d\)"),
        (
            lambda i, t, m: (torch.where(m, -1, i), t, m),
            r"'input_ids' needs ids in 0..21 \(got -1..0\)",
        ),
        (
            lambda i, t, m: tuple(torch.cat([x, x], 1) for x in (i, t, m)),
            "'input_ids' is longer than max_len=10; keep the last 10 events",
        ),
    ],
)
def test_wrong_calls_are_explained(change: Any, message: str) -> None:
    ids, times, mask = seed_batch()
    with pytest.raises(ValueError, match=message):
        model_of()(*change(ids, times, mask))


def test_predict_refuses_mask_tokens() -> None:
    ids, times, mask = seed_batch()
    ids[:, -1] = ITEMS + 1
    with pytest.raises(
        ValueError, match="'input_ids' holds mask tokens; predict reads events only"
    ):
        model_of().predict(ids, times, mask)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mask_prob", 2.0), ("last_prob", float("nan")), ("learnable_fusion", "False"),
     ("time_vectors", "no"), ("tgt_blocks", 2.5)],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"'{name}' needs to be"):
        TGTBERT4Rec(ITEMS, **{**SMALL, name: value})
