"""What stands for a user is the last position, computed alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import RecBatch, leave_one_out
from tgrec.loader import SeedLoader, Track
from tgrec.models import BERT4Rec, RecModel, SASRec, TGTBERT4Rec
from tgrec.models.bert4rec import append_mask
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph

SPLIT = leave_one_out(noise_graph(length=(3, 14)))
SMALL: dict[str, Any] = {"d_model": 16, "d_ff": 32, "max_len": 9, "dropout": 0.3}


def last_of_all(model: RecModel, batch: RecBatch) -> Tensor:
    """By way of every position, as training computes it."""
    history = batch.history
    assert history is not None
    if isinstance(model, SASRec):
        return model.hidden(history)[:, -1]
    item, mask = append_mask(history, model.num_items)
    if isinstance(model, BERT4Rec):
        return model.branch(F.embedding(item, model.item), mask)[:, -1]
    assert isinstance(model, TGTBERT4Rec)
    bert = None if model.bert is None else model.bert_hidden(item, mask)[:, -1]
    tgt = None if model.tgt is None else model.tgt_hidden(history, batch.query_time)[:, -1]
    return model.fuse(bert, tgt)


@torch.no_grad()
@pytest.mark.parametrize("n_blocks", [1, 2])
@pytest.mark.parametrize("track", ["T1", "T2"])
@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (SASRec, {}),
        (BERT4Rec, {}),
        (TGTBERT4Rec, {}),
        (TGTBERT4Rec, {"fusion_alpha": 0.0}),
        (TGTBERT4Rec, {"fusion_alpha": 1.0}),
        (TGTBERT4Rec, {"use_time": False}),
    ],
    ids=str,
)
def test_a_user_is_the_last_position_of_the_whole(
    cls: type[RecModel], kwargs: dict[str, Any], track: Track, n_blocks: int
) -> None:
    torch.manual_seed(0)
    single = cls.from_graph(SPLIT.train, **SMALL, n_blocks=n_blocks, **kwargs).eval()
    for parameter in single.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.1)
    double = copy.deepcopy(single).double()
    loader = SeedLoader(EventIndex(SPLIT.graph), single.sampling, track)
    test = SPLIT.test
    for seeds in (test, replace(test, cut=test.cut // 2), replace(test, cut=test.cut * 0)):
        batch = loader.batch(seeds)
        for model, tolerance in ((single, 1e-6), (double, 1e-13)):
            wanted = last_of_all(model, batch)
            torch.testing.assert_close(model.encode_user(batch), wanted, rtol=0, atol=tolerance)
