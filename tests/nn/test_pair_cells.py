"""One index for kind and distance, against loops over pairs."""

from __future__ import annotations

import pytest
import torch

from tgrec.nn import pair_cells
from tgrec.nn.pair_cells import PairCells, add_to_cells, biased_scores

B, H, L, U = 2, 3, 7, 4
PAIRS = torch.randint(0, U + 1, (B, L, L), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(("places", "origin"), [(1, 0), (5, 0), (20, 0), (9, 4), (4, 2)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("asked", [1, 3, L])
def test_every_pair_reads_its_own_cell_and_adds_to_it(
    places: int, origin: int, causal: bool, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_cells, "_QUERIES", 3)
    g = torch.Generator().manual_seed(1)
    by_kind, by_place, q, k, weight = (
        torch.randn(shape, generator=g, dtype=torch.float64)
        for shape in [(H, U), (H, places), (H * B, asked, 2), (H * B, L, 2), (H * B, asked, L)]
    )
    cells = PairCells(PAIRS, U, places, origin, causal).last(asked)
    table = cells.table(H, by_kind, by_place, -100.0)
    wanted = torch.full((H * B, asked, L), -100.0, dtype=torch.float64)
    to_kind, to_place = torch.zeros(H, U).double(), torch.zeros(H, places).double()
    for h, b, i, j in torch.cartesian_prod(*map(torch.arange, (H, B, asked, L))).tolist():
        row, at = h * B + b, i + L - asked
        place = min(max(at - j + origin, 0), places - 1)
        kind = U if causal and j > at else int(PAIRS[b, at, j])
        wanted[row, i, j] += by_place[h, place]
        if kind < U:
            wanted[row, i, j] += 100.0 + by_kind[h, kind]
            to_kind[h, kind] += weight[row, i, j]
            to_place[h, place] += weight[row, i, j]
    total = torch.zeros(H, table[0].numel(), dtype=torch.float64)
    for tile in cells.tiles:
        part = biased_scores(q, k, table.flatten(1), tile)
        there = wanted[:, tile.rows, : tile.keys] + tile.by_row(q) @ tile.by_key(k).mT
        is_open = there > -50
        torch.testing.assert_close(part[is_open], there[is_open])
        assert bool((part[~is_open] < -50).all())
        assert bool((wanted[:, tile.rows, tile.keys :] < -50).all())  # left out: shut
        add_to_cells(total, weight[:, tile.rows, : tile.keys], tile)
    total = total.view(table.shape)[:, :U]
    torch.testing.assert_close(total.sum(2), to_kind)
    found = total.sum(1) if places > 1 else total.sum((1, 2)).unsqueeze(1)
    torch.testing.assert_close(found, to_place)
    assert len(cells.tiles) == max(1, asked // 3)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"'pairs' needs to be uint8 \[B, M, L\] with M <= L"):
        PairCells(PAIRS[:, :, :3], U)
    with pytest.raises(ValueError, match=r"table by distance needs to be \[3, 5\]"):
        PairCells(PAIRS, U, 5).table(H, torch.zeros(H, U), torch.zeros(H, 4), 0.0)
    q, k = torch.zeros(B, H, L - 1, 2), torch.zeros(B, H, L, 2)
    with pytest.raises(ValueError, match=r"'pairs' needs to be \[2, 6, 7\]"):
        PairCells(PAIRS, U).check(q, k, k)
