"""GRU4Rec: padding on the left never meets the state."""

from __future__ import annotations

import math

import torch

from tgrec.data import History
from tgrec.models import GRU4Rec
from tgrec.models.gru4rec import rotate

ITEMS = 9


def model_of(n_blocks: int = 2) -> GRU4Rec:
    torch.manual_seed(0)
    return GRU4Rec(ITEMS, d_model=4, hidden_channels=6, n_blocks=n_blocks, max_len=8).eval()


def history_of(rows: list[list[int]], length: int) -> History:
    """Left-padded, with other items than 0 at padding."""
    mask = torch.tensor([[j >= length - len(row) for j in range(length)] for row in rows])
    item = torch.tensor([[7] * (length - len(row)) + row for row in rows])
    return History(item, item * 0, item * 0, item * 0, mask)


def test_rotate_moves_rows_in_a_ring() -> None:
    x = torch.arange(8).view(2, 4, 1)
    got = rotate(x, torch.tensor([1, -2]))[:, :, 0]
    assert got.tolist() == [[3, 0, 1, 2], [6, 7, 4, 5]]


@torch.no_grad()
def test_padded_rows_are_the_steps_of_the_cell() -> None:
    model, rows = model_of(n_blocks=1), [[3, 1, 4, 1, 5], [2], [6, 5]]
    hidden = model.hidden(history_of(rows, 5))
    cell = torch.nn.GRUCell(4, 6)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in model.gru.state_dict().items()})
    for row, got in zip(rows, hidden, strict=True):
        state = torch.zeros(6)
        for item, h in zip(row, got[5 - len(row) :], strict=True):
            state = cell(model.item[item] * math.sqrt(4), state)
            torch.testing.assert_close(h, model.project(state), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_nothing_before_the_first_event_is_read() -> None:
    model, rows = model_of(), [[3, 1, 4], [2], []]
    narrow, wide = (model.hidden(history_of(rows, n)) for n in (3, 8))
    for row, a, b in zip(rows, narrow, wide, strict=True):
        torch.testing.assert_close(a[3 - len(row) :], b[8 - len(row) :])
    torch.testing.assert_close(wide[2, -1], model.project.bias)  # the state of nobody
