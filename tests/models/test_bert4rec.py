"""The cloze: what is masked, how often, and what the draws depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History, RecBatch
from tgrec.data.random import hash_keys
from tgrec.models import BERT4Rec
from tgrec.models.bert4rec import Cloze, append_mask, holes, holes_at_most, make_cloze
from tgrec.testing.static_step import as_on_cuda

ITEMS = 1000


def batch_of(rows: int, length: int, seed: int = 0, shortest: int = 1) -> RecBatch:
    """Training batches of left-padded histories, ``shortest..length`` events each."""
    g = torch.Generator().manual_seed(seed)
    count = torch.randint(shortest, length + 1, (rows, 1), generator=g)
    mask = torch.arange(length) >= length - count
    item = torch.randint(ITEMS, (rows, length), generator=g) * mask
    zero = torch.zeros_like(item)
    history = History(item, zero, zero - 1, zero, mask)
    user = torch.arange(rows)
    return RecBatch(
        user, history, torch.randint(ITEMS, (rows,), generator=g), key=hash_keys(seed, user)
    )


def test_shares_of_holes_and_of_what_they_show() -> None:
    batch = batch_of(4000, 25, shortest=25)
    cloze = make_cloze(batch, ITEMS, mask_prob=0.2, last_prob=0.1)
    inner = cloze.hole[:, :-1]
    rows = inner.any(1)
    # A row of a tenth has no hole but the last; the others have 20 % (25 positions: 0.4 % none).
    assert float((~rows).float().mean()) == pytest.approx(0.1 + 0.9 * 0.8**25, abs=0.015)
    assert float(inner.float().mean()) == pytest.approx(0.9 * 0.2, abs=0.005)
    shown, target = cloze.item[:, :-1][inner], cloze.target[:, :-1][inner]
    assert float((shown == ITEMS).float().mean()) == pytest.approx(0.8, abs=0.01)
    assert float((shown == target).float().mean()) == pytest.approx(0.1, abs=0.01)
    noise = shown[(shown != ITEMS) & (shown != target)]
    assert noise.numel() / shown.numel() == pytest.approx(0.1, abs=0.01)
    assert float(noise.double().mean()) == pytest.approx(ITEMS / 2, abs=25)


def test_the_last_position_is_always_a_mask_token() -> None:
    cloze = make_cloze(batch_of(300, 12), ITEMS, 0.2, 0.1)
    assert cloze.hole[:, -1].all()
    assert (cloze.item[:, -1] == ITEMS).all()
    assert torch.equal(cloze.target[:, -1], batch_of(300, 12).item)  # type: ignore[arg-type]


def test_what_is_no_hole_stays_and_padding_is_never_one() -> None:
    batch = batch_of(300, 12)
    assert batch.history is not None
    cloze = make_cloze(batch, ITEMS, 0.9, 0.0)
    assert torch.equal(cloze.item[~cloze.hole], cloze.target[~cloze.hole])
    assert not cloze.hole[:, :-1][~batch.history.mask].any()
    assert torch.equal(cloze.mask[:, :-1], batch.history.mask)


@pytest.mark.parametrize(("mask_prob", "last_prob", "share"), [(0, 0, 0), (1, 0, 1), (1, 1, 0)])
def test_extreme_shares(mask_prob: float, last_prob: float, share: float) -> None:
    cloze = make_cloze(batch_of(200, 9, shortest=9), ITEMS, mask_prob, last_prob)
    assert float(cloze.hole[:, :-1].float().mean()) == share


def test_draws_depend_on_key_and_place_from_the_end_only() -> None:
    batch = batch_of(64, 12)
    assert batch.history is not None
    whole = make_cloze(batch, ITEMS, 0.3, 0.2)
    # More padding, and other rows beside it.
    columns = [x for x in vars(batch.history).values() if x is not None]
    padded = History(*(F.pad(x, (5, 0)) for x in columns))
    wide = make_cloze(replace(batch, history=padded), ITEMS, 0.3, 0.2)
    assert torch.equal(wide.item[:, 5:], whole.item)
    assert torch.equal(wide.hole[:, 5:], whole.hole)
    rows = torch.tensor([60, 3, 17])
    part = RecBatch(
        batch.user[rows],
        History(*(x[rows] for x in columns)),
        batch.item[rows],  # type: ignore[index]
        key=batch.key[rows],  # type: ignore[index]
    )
    assert torch.equal(make_cloze(part, ITEMS, 0.3, 0.2).item, whole.item[rows])
    other = make_cloze(replace(batch, key=batch.key + 1), ITEMS, 0.3, 0.2)  # type: ignore[operator]
    assert not torch.equal(other.hole, whole.hole)


def test_a_question_needs_no_key_and_training_does() -> None:
    with pytest.raises(ValueError, match="needs 'key' for its random draws; use a SeedLoader"):
        make_cloze(replace(batch_of(2, 3), key=None), ITEMS, 0.2, 0.1)


def test_inference_puts_a_mask_token_behind() -> None:
    batch = batch_of(2, 3)
    assert batch.history is not None
    item, mask = append_mask(batch.history, ITEMS)
    assert torch.equal(item[:, :-1], batch.history.item)
    assert item[:, -1].tolist() == [ITEMS, ITEMS]
    assert mask[:, -1].all()


def test_the_hidden_item_never_reaches_its_own_prediction() -> None:
    torch.manual_seed(0)
    model = BERT4Rec(ITEMS, 16, 2, 2, 32, max_len=12).eval()
    batch = batch_of(32, 12, shortest=6)
    assert batch.history is not None
    cloze = make_cloze(batch, ITEMS, 0.3, 0.0)
    token = cloze.item == ITEMS
    other = replace(batch.history, item=torch.where(token[:, :-1], 7, batch.history.item))
    again = make_cloze(replace(batch, history=other, item=batch.item * 0), ITEMS, 0.3, 0.0)  # type: ignore[operator]
    one, two = (model.branch(F.embedding(c.item, model.item), c.mask) for c in (cloze, again))
    assert torch.equal(one[token], two[token])


@pytest.mark.parametrize("name", ["mask_prob", "last_prob"])
def test_bad_shares_are_explained(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' needs to be in \[0, 1\] \(got 1.5\)"):
        BERT4Rec(5, **{name: 1.5})


def test_masks_of_two_epochs_differ() -> None:
    batch = batch_of(64, 20, shortest=20)
    holes = [
        make_cloze(replace(batch, key=hash_keys(epoch, batch.user)), ITEMS, 0.2, 0.0).hole
        for epoch in range(2)
    ]
    agree = float((holes[0] & holes[1])[:, :-1].float().mean())
    assert agree == pytest.approx(0.04, abs=0.02)  # independent


# ---- where the holes are, on devices that must not wait for it ---------------------------------


def cloze_of(hole: Tensor) -> Cloze:
    return Cloze(hole.long(), hole, hole, hole.long())


def test_holes_are_found_in_their_order_with_room_behind_them() -> None:
    g = torch.Generator().manual_seed(3)
    hole = torch.rand(20, 9, generator=g) < 0.3
    hole[:, -1] = True
    rows, kept = holes(cloze_of(hole), 0.3)
    assert kept is None
    assert torch.equal(rows, hole.flatten().nonzero().view(-1))
    with as_on_cuda():
        there, kept = holes(cloze_of(hole), 0.3)
    assert kept is not None
    assert there.numel() == kept.numel() == holes_at_most(20, 9, 0.3)
    assert torch.equal(there[kept], rows)
    assert int(kept.sum()) == rows.numel() < kept.numel()


def test_more_holes_than_room_lose_the_last_of_them() -> None:
    hole = torch.ones(50, 200, dtype=torch.bool)
    with as_on_cuda():
        rows, kept = holes(cloze_of(hole), 0.1)
    assert kept is not None
    assert kept.all()
    assert torch.equal(rows, torch.arange(holes_at_most(50, 200, 0.1)))


@pytest.mark.parametrize(
    ("rows", "length", "prob"), [(1, 2, 0.2), (3, 50, 0.4), (256, 111, 0.2), (64, 201, 0.4)]
)
def test_there_is_room_for_all_holes(rows: int, length: int, prob: float) -> None:
    most = holes_at_most(rows, length, prob)
    assert most <= rows * length
    for seed in range(20):
        batch = batch_of(rows, length - 1, seed, shortest=length - 1)
        found = int(make_cloze(batch, ITEMS, prob, 0.0).hole.sum())
        assert found <= most
        assert found > 0.8 * most or rows < 5  # and little more than that
