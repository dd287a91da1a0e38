"""Several models that answer together."""

from __future__ import annotations

import copy

import pytest
import torch

from tgrec.data import RecBatch, leave_one_out
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import BERT4Rec, Ensemble, RecModel, SASRec, TGTBERT4Rec, TriGRec
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph
from tgrec.training import Teacher, fit

SPLIT = leave_one_out(noise_graph(num_items=20))
SMALL = {"d_model": 8, "n_blocks": 1, "d_ff": 16, "max_len": 10}


def members() -> list[RecModel]:
    torch.manual_seed(0)
    classes = (SASRec, TGTBERT4Rec, BERT4Rec)
    return [cls.from_graph(SPLIT.train, **SMALL).eval() for cls in classes]


def training_batch() -> RecBatch:
    loader = SeedLoader(EventIndex(SPLIT.train), members()[0].sampling)
    return next(loader.train_batches(training_seeds(loader.index, 10, "last", 0), 8, 0, 0))


@torch.no_grad()
def test_its_probabilities_are_the_geometric_mean_of_those_of_its_members() -> None:
    models, batch = members(), training_batch()
    ensemble = Ensemble(models)
    wanted = torch.stack([m.score(batch).softmax(1) for m in models]).prod(0) ** (1 / 3)
    torch.testing.assert_close(ensemble.score(batch).exp(), wanted)
    left_out = torch.stack([m.score_left_out(batch).softmax(1) for m in models]).prod(0) ** (1 / 3)
    torch.testing.assert_close(ensemble.score_left_out(batch).exp(), left_out)
    assert (left_out - wanted).abs().max() > 1e-4  # the counts of one of them
    torch.testing.assert_close(
        Ensemble(models[:1]).score(batch), models[0].score(batch).log_softmax(1)
    )
    assert ensemble.num_parameters() == sum(m.num_parameters() for m in models)


def test_a_student_learns_from_it() -> None:
    student = SASRec.from_graph(SPLIT.train, **SMALL)
    other = copy.deepcopy(student)
    taught = fit(student, SPLIT, epochs=1, show=False, teacher=Teacher(Ensemble(members())))
    alone = fit(other, SPLIT, epochs=1, show=False)
    assert taught.history[0]["loss"] != alone.history[0]["loss"]
    assert not torch.equal(student.item, other.item)


def test_members_that_do_not_go_together_are_named() -> None:
    model = SASRec(20, **SMALL)
    with pytest.raises(ValueError, match="'members' needs at least one model"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"the same items \(got 20 and 21\)"):
        Ensemble([model, SASRec(21, **SMALL)])
    with pytest.raises(ValueError, match=r"max_len=10.*max_len=9.*give them the same settings"):
        Ensemble([model, SASRec(20, **{**SMALL, "max_len": 9})])


def test_members_read_the_same_transitions() -> None:
    """What they are asked for in training does not matter; the neighbourhoods do."""
    models = [
        TriGRec.from_graph(SPLIT.train, stage=stage, **SMALL).eval()
        for stage in ("users", "joint", "joint")
    ]
    ensemble = Ensemble(models[:2])
    batch = SeedLoader(EventIndex(SPLIT.graph), ensemble.sampling).batch(SPLIT.test)
    with torch.no_grad():
        assert ensemble.score(batch).isfinite().all()
    assert models[2].users is not None
    assert models[2].users.edges is not None
    models[2].users.edges.weight[0] *= 2
    with pytest.raises(ValueError, match="give them the same settings and training events"):
        Ensemble(models)
