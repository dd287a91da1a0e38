"""TCN-BERT4Rec: the gate, the branches and the three parts of the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tgrec.data import leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models import BERT4Rec, TCNBERT4Rec
from tgrec.models.bert4rec import make_cloze
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph

SPLIT = leave_one_out(noise_graph(length=(3, 14)))
SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 32, "max_len": 9}
BATCH = SeedLoader(EventIndex(SPLIT.graph), TCNBERT4Rec(1, **SMALL).sampling).batch(
    SPLIT.test, key=3
)


def model_of(**kwargs: Any) -> TCNBERT4Rec:
    torch.manual_seed(0)
    return TCNBERT4Rec(SPLIT.graph.num_items, **{**SMALL, "dropout": 0.0, **kwargs}).eval()


def test_the_gate_starts_at_what_is_asked_for_and_can_be_fixed() -> None:
    assert model_of().monitor() == {"alpha": pytest.approx(0.5)}
    for learnable in (True, False):
        model = model_of(fusion_alpha=0.3, learnable_fusion=learnable)
        assert model.monitor() == {"alpha": pytest.approx(0.3)}
        model.loss(BATCH).backward()
        assert (model.gate.grad is not None) == learnable
    assert model_of().num_parameters() == model_of(learnable_fusion=False).num_parameters() + 1
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"'fusion_alpha' needs to be in \(0, 1\)"):
            model_of(fusion_alpha=wrong)
    with pytest.raises(ValueError, match="'levels' needs to be positive"):
        model_of(levels=0)


@torch.no_grad()
def test_users_are_the_mixture_of_both_branches() -> None:
    model, alone = model_of(fusion_alpha=0.3), BERT4Rec(SPLIT.graph.num_items, **SMALL).eval()
    state = model.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    assert BATCH.history is not None
    wanted = 0.3 * alone.encode_user(BATCH) + 0.7 * model.next_states(BATCH)[:, -1]
    torch.testing.assert_close(model.encode_user(BATCH), wanted)


@torch.no_grad()
def test_the_loss_has_three_parts() -> None:
    model, (history, item) = model_of(fusion_alpha=0.3), (BATCH.history, BATCH.item)
    assert history is not None
    assert item is not None
    cloze = make_cloze(BATCH, model.num_items, model.mask_prob, model.last_prob)
    table = model.encode_item()
    states = model.branch(F.embedding(cloze.item, model.item), cloze.mask)
    tcn = model.next_states(BATCH)
    target = torch.cat([history.item, item[:, None]], dim=1)[:, 1:]
    fused = 0.3 * states[:, -1] + 0.7 * tcn[:, -1]
    wanted = [
        F.cross_entropy(states[cloze.hole] @ table.t(), cloze.target[cloze.hole], reduction="sum"),
        F.cross_entropy(tcn[history.mask] @ table.t(), target[history.mask], reduction="sum"),
        F.cross_entropy(fused @ table.t(), item, reduction="sum"),
    ]
    sums, counts = model.loss_terms(BATCH)
    torch.testing.assert_close(sums, torch.stack(wanted), rtol=1e-4, atol=1e-3)
    assert counts.tolist() == [cloze.hole.sum(), history.mask.sum(), item.numel()]
