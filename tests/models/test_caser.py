"""Caser: the shared convolutions against windows that are cut out one by one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History, RecBatch
from tgrec.models import Caser

ITEMS, D, WINDOW = 9, 4, 3


def model_of() -> Caser:
    torch.manual_seed(0)
    return Caser(ITEMS, d_model=D, window=WINDOW, num_horizontal=3, num_vertical=2).eval()


def vector(model: Caser, row: list[int]) -> Tensor:
    """What the paper makes of the last events of one user, filter by filter."""
    image = torch.zeros(WINDOW, D)
    for place, item in enumerate(row[-WINDOW:], start=WINDOW - min(WINDOW, len(row))):
        image[place] = model.item[item] * math.sqrt(D)
    out = []
    for height in range(1, WINDOW + 1):
        filters = model.horizontal[height - 1]
        for kernel, bias in zip(filters.weight, filters.bias, strict=True):
            places = [image[t : t + height] for t in range(WINDOW - height + 1)]
            values = [F.relu((kernel.view(height, D) * place).sum() + bias) for place in places]
            out.append(max(values))
    for d in range(D):
        out += [(kernel * image[:, d]).sum() for kernel in model.vertical.weight]
    return model.out(F.relu(model.hide(torch.stack(out))))


@torch.no_grad()
def test_every_position_is_the_network_on_its_own_window() -> None:
    model, row = model_of(), [3, 1, 4, 1, 5]
    for padding in (0, 2):
        item = torch.tensor([[8] * padding + row])
        mask = torch.arange(item.size(1)).unsqueeze(0) >= padding
        history = History(item, item * 0, item * 0, item * 0, mask)
        hidden = model.hidden(history)[0, padding:]
        for j in range(len(row)):
            torch.testing.assert_close(hidden[j], vector(model, row[: j + 1]))
        last = model.encode_user(RecBatch(torch.tensor([0]), history))
        torch.testing.assert_close(last[0], vector(model, row))
    empty = History(item, item, item, item, torch.zeros_like(mask))
    torch.testing.assert_close(
        model.encode_user(RecBatch(torch.tensor([0]), empty))[0], vector(model, [])
    )


@pytest.mark.parametrize("name", ["window", "num_horizontal", "num_vertical"])
def test_sizes_need_to_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' needs to be positive"):
        Caser(ITEMS, **{name: 0})
