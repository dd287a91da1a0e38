"""Leak probes P11-P19: ranking, the test set, tokens, positions, the time of the target.

The table of all probes is in test_leak_probes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History, RecBatch, Targets, leave_one_out
from tgrec.loader import SeedLoader, query_times, training_seeds
from tgrec.metrics import sampled_negatives
from tgrec.models import (
    BERT4Rec,
    Popularity,
    RecModel,
    SASRec,
)
from tgrec.models.bert4rec import Cloze, make_cloze
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, toy_graph
from tgrec.training import evaluate, fit

Caught = Callable[..., None]
Small = Callable[..., RecModel]
GRAPH = noise_graph(num_users=20, num_items=10, length=(4, 12), spread=12)


# ---- P11-P14: ranking ----------------------------------------------------------------------------


class Wanting(RecModel):
    """Scores a table [users, N]."""

    sampling = Popularity.sampling

    def __init__(self, table: Tensor) -> None:
        super().__init__(table.size(1))
        self.table = table

    def score(self, batch: RecBatch) -> Tensor:
        return self.table[batch.user]


def target_survives_the_filter() -> None:
    """A target that was seen before is still ranked first by who scores it highest."""
    split = leave_one_out(GRAPH)
    table = torch.zeros(GRAPH.num_users, GRAPH.num_items)
    table[split.test.user, split.test.item] = 1.0
    assert (evaluate(Wanting(table), split, split.test).ranks["full"] == 1).all()


def seen_items_do_not_count(remove_seen: bool = True) -> None:
    """A model that wants nothing but the past has the target next."""
    split = leave_one_out(GRAPH)
    index = EventIndex(GRAPH)
    table = torch.zeros(GRAPH.num_users, GRAPH.num_items)
    table[index.user, index.item] = 9.0
    table[split.test.user, split.test.item] = 1.0
    ranks = evaluate(Wanting(table), split, split.test, remove_seen=remove_seen).ranks["full"]
    assert (ranks == 1).all()


def test_p11_the_filter_spares_the_target(caught: Caught, monkeypatch: pytest.MonkeyPatch) -> None:
    def naive(
        scores: Tensor, target: Tensor, exclude: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        masked = scores.clone()
        if exclude is not None:
            masked[exclude] = -torch.inf
        own = masked.gather(1, target.unsqueeze(1))
        return (masked >= own).sum(1)

    split = leave_one_out(GRAPH)
    assert any(
        bool(((EventIndex(split.train).user == u) & (EventIndex(split.train).item == i)).any())
        for u, i in zip(split.test.user, split.test.item, strict=True)
    )
    target_survives_the_filter()
    monkeypatch.setattr(import_module("tgrec.training.evaluate"), "target_ranks", naive)
    caught(target_survives_the_filter)


def test_p12_the_filter_is_applied(caught: Caught) -> None:
    seen_items_do_not_count()
    caught(seen_items_do_not_count, False)


def drawn_candidates(monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Tensor]) -> list[Tensor]:
    """What ``evaluate`` ranks the test targets against, one row a user."""
    module, out = import_module("tgrec.training.evaluate"), []

    def record(*args: Any, **kwargs: Any) -> Tensor:
        out.append(draw(*args, **kwargs))
        return out[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module, "sampled_negatives", record)
        # A bad draw must reach the detector and not only the check of candidate_ranks.
        patch.setattr(module, "candidate_ranks", lambda scores, target, negatives: target * 0 + 1)
        split = leave_one_out(GRAPH)
        evaluate(Popularity.from_graph(split.train), split, split.test, batch_size=1000)
    return out


def negatives_are_strangers(monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Tensor]) -> None:
    """Neither the target nor anything of the past, the validation item included."""
    split, index = leave_one_out(GRAPH), EventIndex(GRAPH)
    for negatives in drawn_candidates(monkeypatch, draw):
        for user, row in zip(split.test.user.tolist(), negatives.tolist(), strict=True):
            assert not set(row) & set(index.item[index.user == user].tolist())


def test_p13_no_negative_is_target_validation_or_history(
    caught: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    def target_only(draws: Tensor, size: int, exclude: Any, weight: Any = None) -> Tensor:
        last = exclude[0].numel() - draws.size(0)  # the targets stand behind the past
        return sampled_negatives(draws, size, (exclude[0][last:], exclude[1][last:]), weight)

    negatives_are_strangers(monkeypatch, sampled_negatives)
    caught(negatives_are_strangers, monkeypatch, target_only)
    caught(
        negatives_are_strangers, monkeypatch, lambda d, k, e, w=None: torch.zeros(len(d), k).long()
    )


def test_p14_every_negative_exists(caught: Caught, monkeypatch: pytest.MonkeyPatch) -> None:
    def phantoms(draws: Tensor, size: int, exclude: Any, weight: Any = None) -> Tensor:
        return sampled_negatives(draws, size, exclude, weight) * 7  # gaps, as between raw ids

    def detector(draw: Callable[..., Tensor]) -> None:
        for negatives in drawn_candidates(monkeypatch, draw):
            real = negatives[negatives >= 0]
            assert real.numel()
            assert int(real.max()) < GRAPH.num_items

    detector(sampled_negatives)
    caught(detector, phantoms)


# ---- P15: the test set is asked once -------------------------------------------------------------


class Sealed(Targets):
    """Targets that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("user", "cut", "item", "time", "select", "to"):
            raise AssertionError("the test targets were read")
        return super().__getattribute__(name)


def test_p15_training_never_reads_the_test_targets(caught: Caught, small: Small) -> None:
    split = leave_one_out(GRAPH)
    sealed = Sealed(split.test.user, split.test.cut, split.test.item, split.test.time)

    def train(val: Targets) -> None:
        model = small("sasrec", split.train)
        fit(model, replace(split, val=val, test=sealed), epochs=1, precision="fp32", show=False)

    train(split.val)
    caught(train, sealed)


# ---- P16, P17, P19: tokens and positions ---------------------------------------------------------


def no_item_is_a_token(model: RecModel) -> None:
    """An item's vector matters to its own score and to histories that hold it, to nothing else."""
    model.eval()
    batch = SeedLoader(EventIndex(GRAPH), model.sampling).batch(leave_one_out(GRAPH).test)
    assert batch.history is not None
    before = model.score(batch).detach()
    # In a random direction: a LayerNorm does not see a constant.
    change = torch.randn(model.item.size(1), generator=torch.Generator().manual_seed(0))
    for item in (0, 1, GRAPH.num_items - 1):
        with torch.no_grad():
            model.item[item] += change  # type: ignore[index,operator]
            after = model.score(batch)
            model.item[item] -= change  # type: ignore[index,operator]
        without = ~((batch.history.item == item) & batch.history.mask).any(1)
        assert without.any()
        others = torch.arange(GRAPH.num_items) != item
        torch.testing.assert_close(after[without][:, others], before[without][:, others])


class MaskIsAnItem(BERT4Rec):
    def encode_user(self, batch: RecBatch) -> Tensor:
        assert batch.history is not None
        item = F.pad(batch.history.item, (0, 1), value=self.num_items - 1)
        mask = F.pad(batch.history.mask, (0, 1), value=True)
        return self.branch(F.embedding(item, self.item), mask)[:, -1]


class PadIsAnItem(SASRec):
    def hidden(self, history: History, last: bool = False) -> Tensor:
        everywhere = torch.ones_like(history.mask)
        return self.encoder(F.embedding(history.item, self.item), everywhere, last=last)


@pytest.mark.parametrize("name", ["bert4rec", "sasrec", "tgt_bert4rec"])
def test_p16_no_token_is_an_item(caught: Caught, small: Small, name: str) -> None:
    no_item_is_a_token(small(name, leave_one_out(GRAPH).train, max_len=16))
    caught(no_item_is_a_token, small(MaskIsAnItem, GRAPH))
    caught(no_item_is_a_token, small(PadIsAnItem, GRAPH, max_len=16))


def test_p17_a_hidden_label_is_hidden(caught: Caught, small: Small) -> None:
    index = EventIndex(GRAPH)
    model = small("bert4rec", GRAPH).eval()
    batch = SeedLoader(index, model.sampling).batch(training_seeds(index, 12), key=0)

    def detector(cloze_of: Callable[[RecBatch], Cloze]) -> None:
        """Other items under the mask tokens change no prediction there."""
        assert batch.history is not None
        assert batch.item is not None
        one = cloze_of(batch)
        token = make_cloze(batch, 10, 0.4, 0.0).item == 10
        other = replace(batch.history, item=torch.where(token[:, :-1], 3, batch.history.item))
        two = cloze_of(replace(batch, history=other, item=(batch.item + 1) % 10))
        hidden = [model.branch(F.embedding(c.item, model.item), c.mask)[token] for c in (one, two)]  # type: ignore[operator,arg-type]
        assert torch.equal(hidden[0], hidden[1])

    def shown(batch: RecBatch) -> Cloze:
        cloze = make_cloze(batch, 10, 0.4, 0.0)
        return replace(cloze, item=cloze.target)

    detector(lambda b: make_cloze(b, 10, 0.4, 0.0))
    caught(detector, shown)


def test_p19_padding_shifts_nothing(caught: Caught, small: Small) -> None:
    class FromTheLeft(SASRec):
        def hidden(self, history: History, last: bool = False) -> Tensor:
            table = self.encoder.positions.table
            self.encoder.positions.forward = lambda n: table[:n]  # type: ignore[method-assign]
            return super().hidden(history, last)

    def detector(model: RecModel) -> None:
        model.eval()
        index, test = EventIndex(GRAPH), leave_one_out(GRAPH).test
        short = test.select(SeedLoader(index, model.sampling).lengths(test) <= 8)
        loader = SeedLoader(index, model.sampling)
        with torch.no_grad():
            torch.testing.assert_close(
                model.score(loader.batch(short, max_len=8)), model.score(loader.batch(short))
            )

    for name in ("sasrec", "bert4rec", "tgt_bert4rec", "markov", "gap_markov"):
        detector(small(name, GRAPH))
    caught(detector, small(FromTheLeft, GRAPH))


# ---- P18: the time of the target -----------------------------------------------------------------


class Telling(SeedLoader):
    def batch(self, seeds: Targets, max_len: int | None = None, key: int | None = None) -> RecBatch:
        batch = super().batch(seeds, max_len, key)
        assert batch.history is not None
        return replace(batch, query_time=query_times("T2", batch.history, seeds.time))


@pytest.mark.parametrize("name", ["gap_markov", "tgt_bert4rec"])
def test_p18_the_time_of_the_target_is_not_known_on_t1(
    caught: Caught, small: Small, name: str
) -> None:
    split = leave_one_out(GRAPH)
    model = small(name, split.train).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)

    @torch.no_grad()
    def detector(loader: SeedLoader) -> None:
        assert split.test.time is not None
        later = replace(split.test, time=split.test.time + 90_000)
        assert torch.equal(model.score(loader.batch(split.test)), model.score(loader.batch(later)))

    index = EventIndex(GRAPH)
    detector(SeedLoader(index, model.sampling, "T1"))
    caught(detector, Telling(index, model.sampling, "T1"))
    caught(detector, SeedLoader(index, model.sampling, "T2"))  # T2 knows it, and says so


def test_p18_coarse_times_do_not_tell_the_burst(caught: Caught) -> None:
    split = leave_one_out(toy_graph())
    assert split.test.time is not None
    same_hour = replace(split.test, time=split.test.time // 3600 * 3600 + 1)

    def detector(track: Any) -> None:
        loader = SeedLoader(EventIndex(split.graph), SASRec(5).sampling, track)
        a, b = (loader.batch(t).query_time for t in (split.test, same_hour))
        assert a is not None
        assert b is not None
        assert torch.equal(a[1:, -1], b[1:, -1])  # ann is asked within an hour, the others on it

    with_offset = replace(split.test, time=split.test.time + 1)
    split = replace(split, test=with_offset)
    detector("T2-coarse")
    caught(detector, "T2")
