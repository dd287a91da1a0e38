"""TransitionTable against dense counts: normalising, mixing rows, leaving one's own out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgrec.nn import transition
from tgrec.nn.transition import TransitionTable

Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def random_counts(seed: int, classes: int, items: int) -> tuple[Tensor, Tensor]:
    """Counts ``[G, N, N]``, two thirds of them zero, and occurrences ``[N]``."""
    g = torch.Generator().manual_seed(seed)
    counts = torch.rand(classes, items, items, generator=g) * 8
    counts[torch.rand(classes, items, items, generator=g) < 0.66] = 0
    return counts, torch.randint(0, 30, (items,), generator=g).float()


def edges_of(counts: Tensor) -> list[tuple[Tensor, Tensor]]:
    out = []
    for block in counts:
        index = block.nonzero()  # sorted by (source, target)
        out.append((index.t().contiguous(), block[tuple(index.t())]))
    return out


def dense(counts: Tensor, occurrences: Tensor, mass: str) -> Tensor:
    """``[G, N, N]`` by the formula of the docstring."""
    own = counts.sum(2) if mass == "weights" else occurrences.expand(counts.size(0), -1)
    return counts / (own.unsqueeze(2) + 10) / (occurrences + 10) ** 0.15


def reads(seed: int, classes: int, items: int, rows: int = 5, width: int = 7) -> tuple[Tensor, ...]:
    """Items, classes and weights to read; items repeat, some weights are zero (padding)."""
    g = torch.Generator().manual_seed(seed)
    item = torch.randint(items, (rows, width), generator=g)
    kind = torch.randint(classes, (rows, width), generator=g)
    weight = torch.rand(rows, width, generator=g)
    weight[torch.rand(rows, width, generator=g) < 0.3] = 0
    return item, kind, weight


@pytest.mark.parametrize("mass", ["weights", "events"])
@pytest.mark.parametrize("dense_bytes", [0, 2**29])
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_rows_are_mixed_as_in_a_dense_table(
    mass: str, dense_bytes: int, seed: int, classes: int, items: int
) -> None:
    counts, occurrences = random_counts(seed, classes, items)
    table = TransitionTable.fill(edges_of(counts), occurrences, mass)  # type: ignore[arg-type]
    item, kind, weight = reads(seed + 1, classes, items)
    wanted = (dense(counts, occurrences, mass)[kind, item] * weight.unsqueeze(2)).sum(1)
    before, transition.DENSE_BYTES = transition.DENSE_BYTES, dense_bytes
    try:
        out = table(item, kind, weight)
    finally:
        transition.DENSE_BYTES = before
    assert out.dtype == torch.float32
    assert (table.dense is not None) == (dense_bytes > 0)
    torch.testing.assert_close(out, wanted)


@pytest.mark.parametrize("mass", ["weights", "events"])
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_leaving_out_is_a_recount(mass: str, seed: int, classes: int, items: int) -> None:
    counts, occurrences = random_counts(seed, classes, items)
    item, kind, weight = reads(seed + 1, classes, items)
    g = torch.Generator().manual_seed(seed + 2)
    target = torch.randint(items, (item.size(0),), generator=g)
    counted_as = torch.randint(classes, item.shape, generator=g)
    own = torch.rand(item.shape, generator=g)
    own[torch.rand(item.shape, generator=g) < 0.4] = 0
    # What is to be left out has been counted before.
    for row in range(item.size(0)):
        for place in range(item.size(1)):
            counts[counted_as[row, place], item[row, place], target[row]] += own[row, place]
    table = TransitionTable.fill(edges_of(counts), occurrences, mass)  # type: ignore[arg-type]
    out = table.leaving_out(item, kind, weight, target, own, counted_as, mass == "weights")
    for row in range(item.size(0)):
        recount = counts.clone()
        for place in range(item.size(1)):
            recount[counted_as[row, place], item[row, place], target[row]] -= own[row, place]
        rows = dense(recount, occurrences, mass)[kind[row], item[row]]
        wanted = (rows * weight[row].unsqueeze(1)).sum(0)
        torch.testing.assert_close(out[row], wanted, rtol=1e-4, atol=1e-5)
    assert (out >= 0).all()


def test_nothing_of_ones_own_leaves_all_as_it_is() -> None:
    counts, occurrences = random_counts(3, 2, 5)
    table = TransitionTable.fill(edges_of(counts), occurrences)
    item, kind, weight = reads(4, 2, 5)
    target, none = torch.zeros(5, dtype=torch.int64), torch.zeros(item.shape)
    torch.testing.assert_close(
        table.leaving_out(item, kind, weight, target, none, kind), table(item, kind, weight)
    )


def test_empty_batches_and_empty_histories() -> None:
    counts, occurrences = random_counts(3, 2, 5)
    table = TransitionTable.fill(edges_of(counts), occurrences)
    for shape in ((0, 3), (4, 0)):
        none = torch.zeros(shape, dtype=torch.int64)
        out = table(none, none, none.float())
        assert out.shape == (shape[0], 5)
        assert out.sum() == 0


def test_a_table_filled_by_loading_reads_what_was_loaded() -> None:
    counts, occurrences = random_counts(3, 2, 5)
    table = TransitionTable.fill(edges_of(counts), occurrences)
    item, kind, weight = reads(4, 2, 5)
    other = TransitionTable.fill(edges_of(counts * 2), occurrences + 1)
    empty = TransitionTable(5, 2, table.target.numel())
    assert not torch.equal(other(item, kind, weight), table(item, kind, weight))
    for loaded in (other, empty):  # whatever it kept of its old numbers is gone
        loaded.load_state_dict(table.state_dict())
        assert torch.equal(loaded(item, kind, weight), table(item, kind, weight))


def test_a_table_that_was_never_filled_says_so() -> None:
    empty = TransitionTable(5, 2, num_edges=7)
    item, kind, weight = reads(4, 2, 5)
    message = "'num_edges' announced 7 counts, and the TransitionTable holds 0: .*from_graph"
    with pytest.raises(RuntimeError, match=message):
        empty(item, kind, weight)
    with pytest.raises(RuntimeError, match=message):
        empty.leaving_out(item, kind, weight, item[:, 0], weight, kind)
    # None announced, none missed.
    assert TransitionTable(5, 2, num_edges=0)(item, kind, weight).abs().sum() == 0
    # What has been looked at once is looked at again after loading.
    counts, occurrences = random_counts(3, 2, 5)
    table = TransitionTable.fill(edges_of(counts), occurrences)
    table(item, kind, weight)
    table.load_state_dict(TransitionTable(5, 2, table.target.numel()).state_dict())
    with pytest.raises(RuntimeError, match="holds 0"):
        table(item, kind, weight)


def test_autocast_does_not_reach_the_counts() -> None:
    counts, occurrences = random_counts(3, 2, 5)
    table = TransitionTable.fill(edges_of(counts), occurrences)
    item, kind, weight = reads(4, 2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(table(item, kind, weight), table(item, kind, weight).float())
        out = table(item, kind, weight)
    assert torch.equal(out, table(item, kind, weight))


def test_whole_rows_stay_where_they_are_until_the_table_moves() -> None:
    """A captured CUDA graph reads them at their address."""
    edges = [(torch.tensor([[0, 1], [1, 0]]), torch.ones(2))]
    table = TransitionTable.fill(edges, torch.ones(2))
    one = torch.ones(1, 1, dtype=torch.int64)
    table(one, one * 0, one.float())
    dense = table.dense
    assert dense is not None
    assert table.to("cpu").dense is dense
    assert table.double().dense is None
