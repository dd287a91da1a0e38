"""TGT-BERT4Rec: the gate between its branches, and the weight of the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tgrec.models import BERT4Rec, TGT_BERT4Rec, TGTBERT4Rec
from tgrec.models.io import load_model, save_model


def test_the_gate_starts_at_what_is_asked_for(tgt_kit: SimpleNamespace) -> None:
    assert TGT_BERT4Rec is TGTBERT4Rec
    for alpha in (0.3, 0.5, 0.05, 0.99):
        model = TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, fusion_alpha=alpha)
        assert float(model.alpha.detach()) == pytest.approx(alpha, abs=1e-6)
        assert isinstance(model.gate, torch.nn.Parameter)
    assert float(TGT_BERT4Rec(tgt_kit.ITEMS).alpha.detach()) == pytest.approx(0.3, abs=1e-7)
    fixed = TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, learnable_fusion=False)
    assert not isinstance(fixed.gate, torch.nn.Parameter)
    assert float(fixed.alpha) == pytest.approx(0.3, abs=1e-7)


@torch.no_grad()
def test_the_graph_adds_its_logits_with_its_weight(tgt_kit: SimpleNamespace) -> None:
    """Fixed or learned, w stands before log(1 + p / floor), in the TGT branch's share."""
    for learnable in (True, False):
        model, off = (
            TGTBERT4Rec.from_graph(tgt_kit.split.train, **tgt_kit.SMALL, graph_weight=w,
                                   fusion_alpha=0.25, learnable_fusion=learnable).eval()
            for w in (1.5, 0.0)
        )  # fmt: skip
        state = {k: v for k, v in model.state_dict().items() if k != "graph_weight"}
        off.load_state_dict(state, strict=False)
        batch = tgt_kit.history_batch()
        assert model.graph is not None
        wanted = 0.75 * 1.5 * torch.log1p(model.graph.score(batch) / 3e-4)
        torch.testing.assert_close(model.score(batch) - off.score(batch), wanted)
        assert isinstance(model.graph_weight, torch.nn.Parameter) == learnable
        assert model.monitor()["graph_weight"] == pytest.approx(1.5)
    with pytest.raises(ValueError, match="'graph_weight' needs to be a number of at least 0"):
        TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, graph_weight=-1.0)


def test_gates_are_chosen_where_the_measure_is_best(
    tmp_path: Path, tgt_kit: SimpleNamespace
) -> None:
    """A measure with a known best; learned gates are left alone, and weights keep the choice."""

    def from_graph(**kwargs: Any) -> TGTBERT4Rec:
        return TGTBERT4Rec.from_graph(
            tgt_kit.split.train, **tgt_kit.SMALL, choose_gates=True, **kwargs
        )

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
    assert torch.equal(
        loaded.score(tgt_kit.history_batch()), model.eval().score(tgt_kit.history_batch())
    )
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
    left = TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, learnable_fusion=False)
    left.choose(measure_of(left, 3.0, 0.15))
    assert left.monitor() == {"alpha": pytest.approx(0.3)}
    with pytest.raises(ValueError, match="'choose_gates' needs learnable_fusion=False"):
        TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, choose_gates=True)


def test_choosing_that_is_interrupted_leaves_the_best_gate_so_far(tgt_kit: SimpleNamespace) -> None:
    kwargs = {**tgt_kit.SMALL, "choose_gates": True, "learnable_fusion": False}
    model = TGTBERT4Rec.from_graph(tgt_kit.split.train, **kwargs)
    values = iter([0.1, 0.2, 0.4, 0.3])

    def measure() -> float:
        if (value := next(values, None)) is None:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        model.choose(measure)
    assert model.monitor()["graph_weight"] == model.config["graph_weight"] == 0.5


@torch.no_grad()
def test_alpha_one_is_the_bert_branch_to_the_bit(tgt_kit: SimpleNamespace) -> None:
    both, alone = (
        tgt_kit.model_of(fusion_alpha=1.0),
        BERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL).eval(),
    )
    assert both.tgt is None
    state = {k.replace("bert.", "branch."): v for k, v in both.state_dict().items() if k != "gate"}
    alone.load_state_dict(state)
    batch = tgt_kit.history_batch()
    assert torch.equal(both.score(batch), alone.score(batch))
    full = tgt_kit.model_of(seed=5)
    full.load_state_dict(both.state_dict(), strict=False)
    item, mask = torch.randint(tgt_kit.ITEMS, (4, 7)), torch.ones(4, 7, dtype=torch.bool)
    assert torch.equal(full.bert_hidden(item, mask), both.bert_hidden(item, mask))


@torch.no_grad()
def test_alpha_zero_is_the_tgt_branch_to_the_bit(tgt_kit: SimpleNamespace) -> None:
    alone, full = tgt_kit.model_of(fusion_alpha=0.0), tgt_kit.model_of(seed=5)
    assert alone.bert is None
    assert alone.item.shape == (tgt_kit.ITEMS, 16)  # no mask token without its reader
    state = {k: v for k, v in alone.state_dict().items() if k.startswith("tgt.")}
    full.load_state_dict(state, strict=False)
    full.item[: tgt_kit.ITEMS] = alone.item
    batch = tgt_kit.history_batch()
    assert batch.history is not None
    hidden = full.tgt_hidden(batch.history, None)
    assert torch.equal(hidden, alone.tgt_hidden(batch.history, None))
    last = full.tgt_hidden(batch.history, None, last=True)
    assert torch.equal(alone.encode_user(batch), last)
    torch.testing.assert_close(last, hidden[:, -1], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("learnable", [True, False])
def test_fused_is_between_its_branches(learnable: bool, tgt_kit: SimpleNamespace) -> None:
    for alpha in (0.1, 0.3, 0.9):
        model = tgt_kit.model_of(fusion_alpha=alpha, learnable_fusion=learnable)
        _, info = model(*tgt_kit.seed_batch(), return_fusion_info=True)
        wanted = alpha * info["bert_hidden"] + (1 - alpha) * info["tgt_hidden"]
        torch.testing.assert_close(info["fused"], wanted)
        assert float(info["alpha"]) == pytest.approx(alpha, abs=1e-6)


def test_a_branch_that_is_not_there_is_zero_in_the_info(tgt_kit: SimpleNamespace) -> None:
    _, info = tgt_kit.model_of(fusion_alpha=1.0)(*tgt_kit.seed_batch(), return_fusion_info=True)
    assert info["tgt_hidden"].abs().sum() == 0
    assert torch.equal(info["fused"], info["bert_hidden"])
    _, info = tgt_kit.model_of(fusion_alpha=0.0)(*tgt_kit.seed_batch(), return_fusion_info=True)
    assert info["bert_hidden"].abs().sum() == 0


def test_the_gate_learns_and_stays_between_zero_and_one(tgt_kit: SimpleNamespace) -> None:
    model = tgt_kit.model_of()
    model.gate.data.fill_(40.0)
    assert 0 <= float(model.alpha.detach()) <= 1
    model = tgt_kit.model_of()
    model(*tgt_kit.seed_batch())[..., 1:].square().sum().backward()
    assert model.gate.grad is not None
    assert model.gate.grad.abs() > 0


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_bad_gate_is_explained(alpha: float, tgt_kit: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"'fusion_alpha' needs to be in \[0, 1\]"):
        TGTBERT4Rec(tgt_kit.ITEMS, **tgt_kit.SMALL, fusion_alpha=alpha)
