"""TGT-BERT4Rec: the seed's call under the seed's conventions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch


@torch.no_grad()
def test_shapes_of_the_seeds_call(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    ids, times, mask = tgt_kit.seed_batch()
    logits = model(ids, times, mask)
    assert logits.shape == (6, tgt_kit.LENGTH, tgt_kit.ITEMS + 1)
    assert logits.dtype == torch.float32
    assert torch.isneginf(logits[..., 0]).all()  # the padding is never recommended
    assert logits[..., 1:].isfinite().all()
    again, info = model(ids, times, mask, return_fusion_info=True)
    assert torch.equal(logits, again)
    assert info.keys() == {"alpha", "bert_hidden", "tgt_hidden", "fused"}
    for name in ("bert_hidden", "tgt_hidden", "fused"):
        assert info[name].shape == (6, tgt_kit.LENGTH, 16)
    scores = model.predict(ids, times, mask)
    assert scores.shape == (6, tgt_kit.ITEMS + 1)
    assert torch.isneginf(scores[:, 0]).all()


@torch.no_grad()
def test_padding_may_stand_on_either_side(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    left, right = tgt_kit.seed_batch(), tgt_kit.seed_batch(right=True)
    torch.testing.assert_close(model.predict(*left), model.predict(*right))
    # Position by position, at the real events.
    one, two = model(*left), model(*right)
    torch.testing.assert_close(one[left[2]], two[right[2]])


@torch.no_grad()
def test_more_padding_changes_nothing(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    ids, times, mask = (x[:, 3:] for x in tgt_kit.seed_batch())
    wide = [torch.nn.functional.pad(x, (3, 0)) for x in (ids, times, mask)]
    torch.testing.assert_close(model.predict(ids, times, mask), model.predict(*wide))


@torch.no_grad()
def test_scores_are_those_of_the_recommender(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    batch = tgt_kit.history_batch()
    h = batch.history
    assert h is not None
    scores = model.predict((h.item + 1) * h.mask, h.time, h.mask)
    assert torch.equal(scores[:, 1:], model.score(batch))


@torch.no_grad()
def test_float_times_are_scaled_times(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    ids, times, mask = tgt_kit.seed_batch()
    year = 365 * 86_400
    scaled = (times.double() - 10**9) / year * mask
    torch.testing.assert_close(model.predict(ids, times, mask), model.predict(ids, scaled, mask))
    assert model.predict(ids, scaled.float(), mask)[:, 1:].isfinite().all()


@torch.no_grad()
def test_position_j_does_not_know_item_j_but_for_the_bert_branch(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    ids, times, _ = tgt_kit.seed_batch()
    ids = ids.clamp(min=1)  # no padding
    mask = torch.ones_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, 6] = ids[:, 6] % tgt_kit.ITEMS + 1
    _, one = model(ids, times, mask, return_fusion_info=True)
    _, two = model(changed, times, mask, return_fusion_info=True)
    assert torch.equal(one["tgt_hidden"][:, :7], two["tgt_hidden"][:, :7])
    assert not torch.equal(one["tgt_hidden"][:, 7:], two["tgt_hidden"][:, 7:])
    assert not torch.equal(one["bert_hidden"][:, 0], two["bert_hidden"][:, 0])  # it sees both sides


@torch.no_grad()
def test_a_mask_token_is_no_edge_of_the_graph(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    ids, times, _ = tgt_kit.seed_batch()
    ids = ids.clamp(min=1, max=tgt_kit.ITEMS - 1)
    mask = torch.ones_like(ids, dtype=torch.bool)
    ids[:, 4] = tgt_kit.ITEMS + 1
    _, one = model(ids, times, mask, return_fusion_info=True)
    model.item[tgt_kit.ITEMS - 1].normal_()  # an item that stands nowhere
    _, two = model(ids, times, mask, return_fusion_info=True)
    assert torch.equal(one["tgt_hidden"], two["tgt_hidden"])
    assert torch.equal(one["bert_hidden"], two["bert_hidden"])


def test_predict_leaves_the_model_as_it_was(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of(dropout=0.5).train()
    first, second = model.predict(*tgt_kit.seed_batch()), model.predict(*tgt_kit.seed_batch())
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
def test_wrong_calls_are_explained(change: Any, message: str, tgt_kit: SimpleNamespace) -> None:
    ids, times, mask = tgt_kit.seed_batch()
    with pytest.raises(ValueError, match=message):
        tgt_kit.model_of()(*change(ids, times, mask))


def test_predict_refuses_mask_tokens(tgt_kit: SimpleNamespace) -> None:
    ids, times, mask = tgt_kit.seed_batch()
    ids[:, -1] = tgt_kit.ITEMS + 1
    with pytest.raises(
        ValueError, match="'input_ids' holds mask tokens; predict reads events only"
    ):
        tgt_kit.model_of().predict(ids, times, mask)
