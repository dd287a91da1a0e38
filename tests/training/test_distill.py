"""What a teacher adds to the loss, and that nothing else changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, Split, leave_one_out
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, Ensemble, RecModel, SASRec
from tgrec.models.io import parameters_copy
from tgrec.sampler import EventIndex
from tgrec.testing import cycle_graph
from tgrec.training import Teacher, TrainSettings, fit
from tgrec.training.distill import TaughtBatch, TaughtLoader, loss_terms, soft_loss
from tgrec.training.distributed import Workers
from tgrec.training.parts import parts_of

Make = Callable[..., Any]
LEARNING = [name for name in MODELS if name not in ("popularity", "markov", "gap_markov")]
TINY: dict[str, dict[str, Any]] = {
    "sage": {"hidden_channels": 8, "num_neighbors": (4, 2)},
    "lightgcn": {"hidden_channels": 8, "num_neighbors": (4, 2)},
    "gru4rec": {"d_model": 8, "max_len": 8},
    "caser": {"d_model": 8, "max_len": 8},
}


class Table(RecModel):
    """One score per item, whoever asks; its own loss has two terms per row."""

    def __init__(self, num_items: int, scores: tuple[float, ...] = ()) -> None:
        super().__init__(num_items)
        self.sampling = Sampling(max_len=2)
        self.table = nn.Parameter(torch.tensor(scores or (0.0,) * num_items))

    def score(self, batch: RecBatch) -> Tensor:
        return self.table.expand(batch.user.numel(), -1)

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        assert batch.item is not None
        lost = F.cross_entropy(self.score(batch), batch.item, reduction="sum")
        return (2 * lost).view(1), torch.tensor([2.0 * batch.item.numel()])


class Counting(Table):
    """One that says something else where it leaves the label out."""

    def score_left_out(self, batch: RecBatch) -> Tensor:
        return self.score(batch).flip(1)


def small(name: str, split: Split, seed: int = 0) -> RecModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"d_model": 8, "n_heads": 2, "n_blocks": 1, "d_ff": 8, "max_len": 8}
    known = MODELS[name].__init__.__code__.co_varnames
    kwargs = TINY.get(name, {k: v for k, v in sizes.items() if k in known})
    return MODELS[name].from_graph(split.train, **kwargs)


def taught_batch(split: Split, student: RecModel, teacher: Teacher) -> RecBatch:
    index = EventIndex(split.train)
    loader = TaughtLoader(index, student.sampling, "T1", teacher=teacher)
    seeds = training_seeds(index, student.sampling.max_len)
    return loader.batch(seeds.select(torch.arange(6)), key=0)


def assert_parts_add_up(
    model: RecModel, batch: RecBatch, teacher: Teacher, settings: TrainSettings
) -> None:
    parts = parts_of(batch, replace(settings, events_at_once=16), Workers())
    assert len(parts) == 3
    whole = loss_terms(model, batch, teacher)
    added = [sum(x) for x in zip(*(loss_terms(model, p, teacher) for p in parts), strict=True)]
    assert torch.allclose(whole[0], added[0])
    assert torch.allclose(whole[1], added[1])


# ---- the loss -----------------------------------------------------------------------------------


def test_three_items_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[math.log(4.0), 0.0, 0.0]])
    # At T = 1: 4/6, 1/6, 1/6 against thirds; at T = 2: 2/4, 1/4, 1/4, and times 4.
    first = 4 / 6 * math.log(2.0) + 2 / 6 * math.log(0.5)
    second = 4 * (1 / 2 * math.log(1.5) + 1 / 2 * math.log(0.75))
    assert soft_loss(student, teacher, 1.0).item() == pytest.approx(first, rel=1e-5)
    assert soft_loss(student, teacher, 2.0).item() == pytest.approx(second, rel=1e-5)
    assert soft_loss(teacher + 7, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_parts_have_their_shares(weight: float) -> None:
    student = Counting(3, (0.5, 0.0, 0.0))
    scores = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    item = torch.tensor([2, 0])
    batch = TaughtBatch(torch.tensor([0, 1]), item=item, teacher_score=scores)
    sums, counts = loss_terms(student, batch, Teacher(Table(3), weight, 3.0))
    labels = F.cross_entropy(student.score(batch), item)
    soft = soft_loss(torch.tensor([[0.0, 0.0, 0.5]] * 2), scores, 3.0).mean()
    wanted = (1 - weight) * labels + weight * soft
    assert float(sums.sum() / counts.sum()) == pytest.approx(float(wanted), rel=1e-6)
    assert float(sums[1] / counts[1]) == pytest.approx(float(soft), rel=1e-6)
    sums, counts = loss_terms(student, batch, None)
    assert float(sums / counts) == pytest.approx(float(labels), rel=1e-6)


# ---- what the teacher is asked ------------------------------------------------------------------


def test_the_teacher_reads_for_itself_what_stands_before_the_cut(split: Split) -> None:
    """Its histories are longer than the student's, and hold nothing from the cut on."""
    teacher, student = Teacher(small("sasrec", split).eval()), Table(split.train.num_items)
    batch = taught_batch(split, student, teacher)
    assert isinstance(batch, TaughtBatch)
    assert batch.history is not None
    assert batch.history.item.size(1) == 2
    index = EventIndex(split.train)
    seeds = training_seeds(index, 2).select(torch.arange(6))
    with torch.no_grad():
        alone = teacher.model.score(SeedLoader(index, Sampling(max_len=8)).batch(seeds))
    assert torch.allclose(batch.teacher_score, alone, atol=1e-6)
    assert not batch.teacher_score.requires_grad
    loader = TaughtLoader(index, student.sampling, teacher=teacher)
    assert not isinstance(loader.batch(seeds), TaughtBatch)  # a question to score


@torch.no_grad()
@pytest.mark.parametrize("name", ["markov", "gap_markov", "tgt_bert4rec", "trigrec"])
def test_counts_do_not_tell_the_label(name: str) -> None:
    """On a walk that nobody else takes, the count of the label's own transition is all there is."""
    split = leave_one_out(cycle_graph(num_users=1, num_items=24))
    model, index = small(name, split).eval(), EventIndex(split.train)
    seeds = training_seeds(index, 8)
    question = SeedLoader(index, model.sampling).batch(seeds)
    batch = TaughtLoader(index, Sampling(max_len=8), teacher=Teacher(model)).batch(seeds, key=0)
    assert isinstance(batch, TaughtBatch)
    counts_alone = name in ("markov", "gap_markov")
    without = torch.zeros(1, 24) if counts_alone else RecModel.score(model, question)
    label = int(seeds.item)
    assert float(model.score(question)[0, label]) > float(without[0, label]) + 0.1
    assert float(batch.teacher_score[0, label]) == pytest.approx(float(without[0, label]), abs=1e-3)


# ---- at every position --------------------------------------------------------------------------

CAUSAL = ("sasrec", "gru4rec", "caser", "hstu", "tcn_bert4rec", "tgt_bert4rec")


def test_who_predicts_at_every_position(split: Split) -> None:
    assert [name for name in LEARNING if small(name, split).has_next_states] == sorted(
        CAUSAL, key=LEARNING.index
    )


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_answers_after_each_event_replace_their_share_of_the_labels(
    name: str, split: Split
) -> None:
    """Every model's next items, against a softmax of all logits written out."""
    student = small(name, split).eval()
    for parameter in student.parameters():
        parameter.mul_(6)  # as if it had learned something: not all items are alike
    teacher = Teacher(small("hstu", split, seed=1).eval(), weight=0.3, at="all", track="T2")
    batch = taught_batch(split, student, teacher)
    assert not isinstance(batch, TaughtBatch)
    history, item = batch.history, batch.item
    assert batch.soft is not None
    assert batch.query_time is None  # the student's own track is T1
    assert history is not None
    assert item is not None
    index = EventIndex(split.train)
    seeds = training_seeds(index, 8).select(torch.arange(6))
    asked = SeedLoader(index, Sampling(max_len=8), "T2").batch(seeds)
    told = (teacher.model.next_states(asked) @ teacher.model.encode_item().t()).softmax(2)
    target = F.one_hot(torch.cat([history.item[:, 1:], item[:, None]], 1), student.num_items)
    said = (student.next_states(batch) @ student.encode_item().t()).log_softmax(2)
    more = (0.3 * (target.float() - told) * said).sum(2)[history.mask].sum()
    torch.manual_seed(0)
    soft, counts = loss_terms(student, batch, teacher)
    torch.manual_seed(0)
    hard, same = student.loss_terms(replace(batch, soft=None))
    assert torch.equal(counts, same)
    assert float(soft.sum() - hard.sum()) == pytest.approx(float(more), rel=1e-3)
    assert abs(float(more)) > 0.1


@torch.no_grad()
def test_soft_labels_stay_with_their_rows(split: Split, settings: TrainSettings) -> None:
    model = small("sasrec", split).eval()
    teacher = Teacher(small("gru4rec", split, seed=7).eval(), at="all")
    batch = taught_batch(split, model, teacher)
    assert_parts_add_up(model, batch, teacher, settings)
    assert batch.soft is not None
    moved = batch.to("meta").soft
    assert moved is not None
    assert moved.hidden.is_meta
    assert moved.table.is_meta


@torch.no_grad()
def test_an_ensemble_teaches_the_mean_of_its_logits(split: Split) -> None:
    members = [small("hstu", split, seed=seed).eval() for seed in (1, 2)]
    both = Ensemble(members)
    assert both.has_next_states
    batch = SeedLoader(EventIndex(split.train), both.sampling).batch(split.val)
    wanted = [m.next_states(batch) @ m.encode_item().t() for m in members]
    told = both.next_states(batch) @ both.next_table().t()
    torch.testing.assert_close(told, torch.stack(wanted).mean(0))
    end = both.score(batch)
    torch.testing.assert_close(told[:, -1].log_softmax(1), end.log_softmax(1))


def test_taught_at_every_position_a_student_learns_what_no_label_says(split: Split) -> None:
    """The teacher has learned to walk backwards; the labels walk forwards."""
    settings = TrainSettings(epochs=30, batch_size=16, lr=0.01, precision="fp32", eval_every=30)
    reversed_walk = small("sasrec", split)
    backwards = torch.arange(split.train.num_items - 1, -1, -1)
    fit(reversed_walk, split, settings, show=False)
    with torch.no_grad():  # the same model for a catalogue in the opposite order
        reversed_walk.item.copy_(reversed_walk.item[backwards])
    student = small("sasrec", split, seed=3)
    teacher = Teacher(reversed_walk, weight=1.0, at="all")
    fit(student, split, replace(settings, epochs=60), teacher=teacher, show=False)
    asked = SeedLoader(EventIndex(split.train), Sampling(max_len=8)).batch(split.val)
    with torch.no_grad():
        same = student.eval().score(asked).argmax(1) == reversed_walk.eval().score(asked).argmax(1)
    assert float(same.float().mean()) > 0.9


class LossOfItsOwn(SASRec):
    """Has states of next items, but another loss, which would not read what a teacher says."""

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        assert batch.item is not None
        lost = F.cross_entropy(self.score(batch), batch.item, reduction="sum")
        return lost.view(1), torch.tensor([float(batch.item.numel())])


class StatesOfItsOwn(SASRec):
    def next_states(self, batch: RecBatch) -> Tensor:
        return 2 * super().next_states(batch)


def test_a_loss_of_its_own_is_not_taught_at_every_position(split: Split) -> None:
    settings = {"max_len": 8, "d_model": 8}
    assert StatesOfItsOwn.from_graph(split.train, **settings).has_next_states
    student = LossOfItsOwn.from_graph(split.train, **settings)
    with pytest.raises(ValueError, match="LossOfItsOwn does not; use at='end'"):
        Teacher(small("sasrec", split), at="all").ready_for(student, torch.device("cpu"))


def test_who_cannot_be_taught_at_every_position(split: Split) -> None:
    cpu = torch.device("cpu")
    sasrec, bert = small("sasrec", split), small("bert4rec", split)
    alone = MODELS["tgt_bert4rec"].from_graph(split.train, fusion_alpha=1.0, max_len=8)
    for student, teacher in ((bert, sasrec), (sasrec, bert), (sasrec, alone), (alone, sasrec)):
        with pytest.raises(ValueError, match=r"at='all' .* (BERT4Rec|TGTBERT4Rec) does not; use"):
            Teacher(teacher, at="all").ready_for(student, cpu)
    longer = MODELS["sasrec"].from_graph(split.train, max_len=9)
    with pytest.raises(ValueError, match=r"\(got 'max_len' of 9 and 8\)"):
        Teacher(longer, at="all").ready_for(sasrec, cpu)


# ---- training -----------------------------------------------------------------------------------


def test_a_student_learns_the_order_of_its_teacher_without_labels(split: Split) -> None:
    order = torch.randperm(split.train.num_items, generator=torch.Generator().manual_seed(1))
    teacher = Table(split.train.num_items, tuple((0.2 * order.float()).tolist()))
    before = parameters_copy(teacher)
    settings = TrainSettings(epochs=20, batch_size=16, lr=0.1, precision="fp32", eval_every=20)

    def agreement(**how: Any) -> float:
        """Kendall's tau with the teacher."""
        student = Table(split.train.num_items)
        fit(student, split, settings, show=False, **how)
        s, t = student.table.detach(), teacher.table.detach()
        pairs = torch.sign(s[:, None] - s) * torch.sign(t[:, None] - t)
        return float(pairs.sum() / (len(s) * (len(s) - 1)))

    assert agreement(teacher=Teacher(teacher, weight=1.0)) == 1.0
    assert agreement() < 0.5
    assert all(torch.equal(value, before[k]) for k, value in teacher.named_parameters())
    assert teacher.table.requires_grad  # the one of the caller is left alone


@pytest.mark.parametrize("name", LEARNING)
def test_every_model_can_be_taught_by_every_kind(name: str, split: Split) -> None:
    """Gradients reach the student; teachers read histories, neighbourhoods, counts."""
    student = small(name, split).train()
    for kind in ("sasrec", "lightgcn", "gap_markov"):
        teacher = Teacher(small(kind, split, seed=1), weight=1.0).ready_for(
            student, torch.device("cpu")
        )
        batch = taught_batch(split, student, teacher)
        student.zero_grad(set_to_none=True)
        sums, counts = loss_terms(student, batch, teacher)
        (sums.sum() / counts.sum()).backward()
        grads = [p.grad for p in student.parameters() if p.grad is not None]
        assert sum(float(g.abs().sum()) for g in grads) > 0
        assert all(torch.isfinite(g).all() for g in grads)
        assert all(p.grad is None for p in teacher.model.parameters())


def test_resuming_goes_on_bit_equal_with_the_same_teacher_only(
    split: Split, settings: TrainSettings, make: Make, interfering: Make, stop: Make, tmp_path: Path
) -> None:
    teacher = Teacher(make(split, "bert4rec", seed=7))
    whole = interfering({})
    fit(whole, split, settings, teacher=teacher, show=False)
    parts = interfering({5: stop()})
    how: dict[str, Any] = {"folder": tmp_path, "show": False}
    assert fit(parts, split, settings, teacher=teacher, **how).stopped == "interrupted"
    others = [None, replace(teacher, weight=0.4), Teacher(make(split, "bert4rec", seed=8)),
              replace(teacher, track="T2")]  # fmt: skip
    for other in others:
        with pytest.raises(ValueError, match="settings .teacher: 'BERT4Rec"):
            fit(interfering({}), split, settings, teacher=other, resume=True, **how)
    again = interfering({}, seed=3)
    fit(again, split, settings, teacher=teacher, resume=True, **how)
    there = parameters_copy(whole)
    assert all(torch.equal(p, there[name]) for name, p in again.named_parameters())


@torch.no_grad()
def test_parts_of_a_batch_add_up_to_it(split: Split, settings: TrainSettings, make: Make) -> None:
    model, teacher = make(split).eval(), Teacher(make(split, seed=7).eval())
    batch = taught_batch(split, model, teacher)
    assert batch.history is not None
    assert len(set(batch.history.mask.sum(1).tolist())) > 1  # rows of several lengths
    assert_parts_add_up(model, batch, teacher, settings)


# ---- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weight": 0.0}, r"'weight' of a teacher needs to be in \(0, 1\] \(got 0.0\)"),
        ({"weight": 1.5}, r"\(got 1.5\)"),
        ({"weight": math.nan}, r"\(got nan\)"),
        ({"weight": "2"}, r"\(got '2'\)"),
        ({"temperature": "2"}, r"\(got '2'\)"),
        ({"at": "everywhere"}, r"'at' of a teacher .*\['end', 'all'\] \(got 'everywhere'\)"),
        ({"track": "T3"}, r"'track' of a teacher .*'T2-coarse'\] \(got 'T3'\)"),
        ({"at": "all", "temperature": 2.0}, r"needs to be 1, or left out, .*\(got 2.0\)"),
        ({"temperature": 0.0}, "'temperature' of a teacher needs to be a positive number"),
        ({"temperature": math.inf}, r"\(got inf\)"),
    ],
)
def test_values_are_checked(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Teacher(Table(3), **values)


def test_teachers_that_do_not_fit_are_refused(split: Split, settings: TrainSettings) -> None:
    with pytest.raises(ValueError, match="scores 3 items and Table 24; make both from the same"):
        fit(Table(24), split, settings, teacher=Teacher(Table(3)), show=False)
    popular = MODELS["popularity"].from_graph(split.train)
    with pytest.raises(ValueError, match="'teacher': Popularity has no parameters"):
        fit(popular, split, settings, teacher=Teacher(Table(24)), show=False)
