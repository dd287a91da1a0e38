"""The BERT + graph hybrids: the graph that is counted, the shares by length, what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from tgrec.data import TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models import (
    BERT4Rec,
    BERTHybridContinuous,
    BERTHybridDiscrete,
    BERTHybridFixed,
    BERTHybridLearned,
    load_model,
    save_model,
)
from tgrec.models.bert_hybrid import BERTHybrid, LengthShare, neighbor_counts
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, scramble_future

CLASSES: list[type[BERTHybrid]] = [
    BERTHybridFixed, BERTHybridDiscrete, BERTHybridLearned, BERTHybridContinuous,
]  # fmt: skip
SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 32, "max_len": 60}
SPLIT = leave_one_out(noise_graph(40, 12, (3, 14)))


def graph_of(histories: list[list[int]]) -> TemporalRecGraph:
    rows = [(u, i, t) for u, row in enumerate(histories) for t, i in enumerate(row)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return TemporalRecGraph.from_pandas(frame)


def dense(graph: TemporalRecGraph) -> Tensor:
    index, weight = neighbor_counts(graph)
    out = torch.zeros(graph.num_items, graph.num_items)
    out[index[0], index[1]] = weight
    assert int((out != 0).sum()) == weight.numel()  # every edge once
    return out


def test_neighbours_are_counted_within_three_events_and_kept_from_five() -> None:
    # 0 and 1 meet 5 times in both orders, 0 and 4 never: they are four events apart.
    histories = [[0, 1, 2, 3, 4]] * 3 + [[1, 0]] * 2 + [[2, 3, 2]] * 2
    wanted = torch.eye(5)
    for i, j, count in ((0, 1, 5), (2, 3, 7)):
        wanted[i, j] = wanted[j, i] = count
    assert torch.equal(dense(graph_of(histories)), wanted)
    more = dense(graph_of(histories * 2))
    assert more[0, 4] == 0
    assert more[0, 3] == more[1, 4] == 6


def test_only_training_events_are_counted() -> None:
    cut = int(SPLIT.test.cut.median())
    other = scramble_future(SPLIT.graph, cut)
    a, b = (neighbor_counts(g.before(cut)) for g in (SPLIT.graph, other))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    held = neighbor_counts(SPLIT.graph)[1].sum() > neighbor_counts(SPLIT.train)[1].sum()
    assert held


def test_shares_by_length() -> None:
    n = torch.tensor([0, 10, 11, 50, 51, 200])
    assert LengthShare("fixed")(n).tolist() == pytest.approx([0.3] * 6)
    for fusion in ("discrete", "learned"):
        got = LengthShare(fusion)(n)
        assert got.tolist() == pytest.approx([0.3, 0.3, 0.5, 0.5, 0.7, 0.7])
        assert got.requires_grad == (fusion == "learned")
    share = LengthShare("continuous")
    first, second = share.curve[0], share.curve[2]
    for length, got in zip(n.tolist(), share(n).tolist(), strict=True):
        x = torch.log(torch.tensor([length + 1.0]))
        hidden = (first.weight[:, 0] * x + first.bias).clamp(min=0)
        wanted = torch.sigmoid(second.weight[0] @ hidden + second.bias)
        assert got == pytest.approx(wanted.item())


@torch.no_grad()
@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_read_is_the_mixture_by_the_length_of_the_history(cls: type[BERTHybrid]) -> None:
    torch.manual_seed(0)
    model = cls.from_graph(SPLIT.train, **SMALL).eval()
    model.to_read.weight.normal_()
    batch = SeedLoader(EventIndex(SPLIT.graph), model.sampling).batch(SPLIT.test)
    history = batch.history
    assert history is not None
    table = model.graph(model.encode_item()) @ model.to_read.weight.t()
    mask_token = model.num_items
    items = torch.cat([history.item, torch.full((len(SPLIT.test), 1), mask_token)], dim=1)
    got = model.embed(items, history)
    for row in range(0, len(SPLIT.test), 7):
        n = history.mask[row].sum().view(1)
        alpha = model.share(n)
        for place, item in enumerate(items[row].tolist()):
            own = model.item[item]
            other = own if item == mask_token else table[item]
            torch.testing.assert_close(got[row, place], alpha * own + (1 - alpha) * other)


@torch.no_grad()
def test_with_the_whole_share_it_is_bert4rec() -> None:
    torch.manual_seed(0)
    model = BERTHybridLearned.from_graph(SPLIT.train, **SMALL).eval()
    model.share.values.fill_(50.0)
    alone = BERT4Rec(SPLIT.graph.num_items, **SMALL).eval()
    alone.load_state_dict({name: model.state_dict()[name] for name in alone.state_dict()})
    batch = SeedLoader(EventIndex(SPLIT.graph), model.sampling).batch(SPLIT.test)
    torch.testing.assert_close(model.score(batch), alone.score(batch))


@torch.no_grad()
@pytest.mark.parametrize("cls", CLASSES)
def test_the_graph_is_saved_with_the_model(cls: type[BERTHybrid], tmp_path: Path) -> None:
    model = cls.from_graph(SPLIT.train, **SMALL).eval()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, {c.__name__: c for c in CLASSES})
    assert isinstance(loaded, cls)
    batch = SeedLoader(EventIndex(SPLIT.graph), model.sampling).batch(SPLIT.test)
    assert torch.equal(loaded.score(batch), model.score(batch))
    assert loaded.monitor() == model.monitor()
    assert len(model.monitor()) == 3
    assert not torch.equal(loaded.score(batch), cls(SPLIT.graph.num_items, **SMALL).score(batch))
