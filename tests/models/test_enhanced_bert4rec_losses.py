"""Enhanced BERT4Rec: its losses, what each prediction weighs, and items without training events."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tgrec.models import EnhancedBERT4Rec
from tgrec.models import enhanced_bert4rec as module
from tgrec.models.enhanced_config import TASK_WEIGHTS


@torch.no_grad()
def test_every_prediction_of_a_task_weighs_the_same(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build(cloze_prob=0.3, mask_prob=0.4, unknown_prob=0.0)
    batch = enhanced_kit.training_batch(model)
    assert batch.history is not None
    assert batch.rating is not None
    cloze = module.make_cloze(batch, model.num_items, 0.4, 0.0)
    both = (module.uniform(batch.key, module.BOTH_SIDES) < 0.3).unsqueeze(1)
    # What nothing is known of is not asked for, but where the past is hidden.
    after_one = cloze.mask & torch.nn.functional.pad(cloze.mask, (1, 0))[:, :-1]
    every, rated = after_one & ~both, batch.history.rating
    assert rated is not None
    rated = torch.cat([rated, batch.rating.unsqueeze(1)], dim=1)
    wanted = {
        "next_item": every.sum(),
        "item_prediction": (cloze.hole & both).sum(),
        "rating_prediction": (every & rated.isfinite()).sum(),
        "user_preference": (enhanced_kit.graph["item"].genre[cloze.target].any(2) & every).sum(),
    }
    sums, counts = model.loss_terms(batch)
    for i, (task, number) in enumerate(zip(model.tasks.tasks, counts, strict=True)):
        assert float(number) == pytest.approx(TASK_WEIGHTS[task] * float(wanted[task]))
        heavy = enhanced_kit.build(
            task_weights={task: 2.5}, cloze_prob=0.3, mask_prob=0.4, unknown_prob=0.0
        )
        heavy.load_state_dict(model.state_dict())
        others = heavy.loss_terms(batch)
        torch.testing.assert_close(others[0][i] / others[1][i], sums[i] / number)
        assert float(others[1][i]) == pytest.approx(2.5 * float(wanted[task]))


@torch.no_grad()
def test_the_mask_token_is_no_negative_and_new_items_neither(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build(features=["genre"])
    model.inputs.set_trained(torch.arange(40) >= 5)
    items, states = model.encode_item(), torch.randn(3, 2, 16)
    rows = torch.tensor([[0, 1], [1, 1], [0, 0]]).bool()
    target = torch.tensor([[1, 5], [39, 8], [2, 3]])
    head = torch.nn.Identity()
    lost, count = model._item_loss(head, items, states, rows, target)
    logits = states[rows] @ items[5:].t()
    wanted = torch.nn.functional.cross_entropy(logits, target[rows] - 5, reduction="sum")
    torch.testing.assert_close(lost, wanted)
    assert int(count) == 3


def by_masks(model: Any, items: Tensor, states: Tensor, rows: Tensor, target: Tensor) -> Tensor:
    """The loss of items, whose rows are picked by a mask at every call."""
    trained, target = model.inputs.item_trained, target[rows]
    place = (trained.cumsum(0) - 1)[target]
    biases = model.inputs.popularity_logits()[trained], model.inputs.left_out(target)
    states = model.next_item(states)[rows]
    return module.linear_cross_entropy(states, items[trained], place, *biases)


def test_numbers_of_trained_items_follow_the_mask(enhanced_kit: SimpleNamespace) -> None:
    """Losses and gradients have the same bits, however the mask has come to the model."""
    gone = enhanced_kit.split.train[enhanced_kit.graph.interaction_types[0]].edge_index[1] % 3 == 1
    train = enhanced_kit.split.train.select_events(
        ~gone, enhanced_kit.graph.interaction_types[0][1]
    )
    made, loaded = enhanced_kit.build(train), enhanced_kit.build()
    by_hand = EnhancedBERT4Rec(**made.config).eval()
    assert by_hand.inputs.trained.tolist() == list(range(40))
    loaded.load_state_dict(made.state_dict())
    by_hand.load_state_dict(copy.deepcopy(made.state_dict()), assign=True)
    there = made.inputs.item_trained
    assert 0 < int(there.sum()) < 40
    states, rows = torch.randn(6, 3, 16), torch.rand(6, 3) < 0.7
    target = there.nonzero()[torch.randint(int(there.sum()), (6, 3)), 0]
    for model in (made, loaded, by_hand, copy.deepcopy(loaded)):
        assert model.inputs.trained.tolist() == there.nonzero()[:, 0].tolist()
        found = []
        for way in (partial(model._item_loss, model.next_item), partial(by_masks, model)):
            model.zero_grad()
            lost = way(model.encode_item(), states, rows, target)
            lost = lost[0] if isinstance(lost, tuple) else lost
            lost.backward()
            found.append([lost, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert len(found[0]) == len(found[1]) > 4
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Masks(TorchDispatchMode):
    """Notes the lengths of masks ``[N]`` by which rows are picked: a GPU is waited for there."""

    lengths: set[int]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.nonzero.default):
            picked = args[1] if func is torch.ops.aten.index.Tensor else args[:1]
            masks = [m for m in picked if m is not None and m.dtype == torch.bool]
            self.lengths |= {m.numel() for m in masks if m.dim() == 1}
        return func(*args, **(kwargs or {}))


def test_no_step_picks_items_by_a_mask(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build()
    batch = enhanced_kit.training_batch(model)
    with Masks() as masks:
        masks.lengths = set()
        by_masks(model, model.encode_item(), torch.randn(1, 1, 16), torch.ones(1, 1).bool(),
                 batch.item[:1].unsqueeze(1))  # fmt: skip
        assert masks.lengths == {model.num_items}
        masks.lengths = set()
        model.loss(batch).backward()
        assert model.num_items not in masks.lengths


def test_learned_weights_move_and_are_reported(enhanced_kit: SimpleNamespace) -> None:
    model = enhanced_kit.build(loud=False, uncertainty_weighting=True).train()
    before = model.monitor()
    assert before["weight_user_preference"] == pytest.approx(0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(enhanced_kit.training_batch(model)).backward()
        optimizer.step()
    after = model.monitor()
    for task in TASK_WEIGHTS:
        assert after[f"weight_{task}"] != before[f"weight_{task}"]
        assert after[f"loss_{task}"] > 0


@pytest.mark.parametrize("bad", [{"next_item": 0.0}, {"rating": 1.0}, {"next_item": -1.0}])
def test_bad_task_weights_are_explained(
    bad: dict[str, float], enhanced_kit: SimpleNamespace
) -> None:
    with pytest.raises(ValueError, match="'task_weights' needs"):
        enhanced_kit.build(task_weights=bad)


def test_checkpointing_changes_no_number(enhanced_kit: SimpleNamespace) -> None:
    grads = []
    for flag in (False, True):
        model = enhanced_kit.build(gradient_checkpointing=flag, n_blocks=2).train()
        batch = enhanced_kit.training_batch(model)
        torch.manual_seed(5)
        model.loss(batch).backward()
        grads.append([p.grad for p in model.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)


def test_counts_have_no_part_in_the_loss(enhanced_kit: SimpleNamespace) -> None:
    plain, model = (
        enhanced_kit.build(loud=False),
        enhanced_kit.build(loud=False, use_graph=True, graph_weight=9.0),
    )
    batch = enhanced_kit.training_batch(model)
    assert torch.equal(plain.loss(batch), model.loss(batch))
    assert plain.num_parameters() == model.num_parameters()
