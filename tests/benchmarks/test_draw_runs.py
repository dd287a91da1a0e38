"""``benchmarks/draw_runs.py``: its measures against sums by hand, and the drawings of a run."""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tgrec.data import leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models import TGTBERT4Rec
from tgrec.nn.gap_attention import gap_bucket
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SPLIT = leave_one_out(noise_graph(num_items=20))


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("draw_runs")
    sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(("last", "drawn"), [(0.4, True), (0.3, False)])
def test_a_gate_has_a_trace_where_it_moves(
    last: float, drawn: bool, script: ModuleType, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    epochs = [{"epoch": i, "loss": 2.0, "alpha": a} for i, a in enumerate((0.3, last), start=1)]
    (run / "history.jsonl").write_text("".join(json.dumps(e) + "\n" for e in epochs))
    script.main([run], out=tmp_path / "out")
    assert (tmp_path / "out" / "training.png").is_file()
    assert (tmp_path / "out" / "alpha.png").is_file() == drawn


def test_a_gate_that_reads_the_length_has_a_trace_for_each(script: ModuleType) -> None:
    history = [{"epoch": i, "loss": 1.0, "alpha_short": 0.3 + 0.1 * i, "alpha_long": 0.5}
               for i in (1, 2)]  # fmt: skip
    traces = script.gate_traces({"run": history, "fixed": [{"epoch": 1, "alpha": 0.2}]})
    assert traces == {"run, short histories": [{"epoch": 1, "alpha": 0.4},
                                               {"epoch": 2, "alpha": 0.5}]}  # fmt: skip


def model(**kwargs: bool) -> TGTBERT4Rec:
    torch.manual_seed(0)
    small = {"d_model": 16, "n_blocks": 1, "tgt_blocks": 2, "d_ff": 16, "max_len": 10}
    train = copy.copy(SPLIT.train).clone()
    if kwargs.get("item_features"):
        train["item"].genre = torch.eye(3)[torch.arange(train.num_items) % 3]
    out = TGTBERT4Rec.from_graph(train, **small, temperature=0.1, **kwargs).eval()
    assert out.tgt is not None
    with torch.no_grad():
        for parameter in out.tgt.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return out


@torch.no_grad()
@pytest.mark.parametrize("golden_on_t2", [False, True])
def test_attention_by_gap_is_the_softmax_of_the_first_block(
    golden_on_t2: bool, script: ModuleType
) -> None:
    net = model(tgt_gated=golden_on_t2, time_vectors=golden_on_t2, item_features=not golden_on_t2)
    batch = SeedLoader(EventIndex(SPLIT.graph), model().sampling).batch(SPLIT.test)
    mass = script.attention_by_gap(net, batch)
    torch.testing.assert_close(mass.sum(dim=1), torch.ones(2), rtol=1e-4, atol=1e-4)
    history, tgt = batch.history, net.tgt
    assert history is not None
    assert tgt is not None
    assert tgt.pair_bias is not None
    x = net.table()[history.item]
    if tgt.times is not None:
        x = x + tgt.times(history.time, history.mask, history.time)
    x = x * 4 + tgt.positions(history.item.size(1))
    q, k, _ = tgt.blocks[0].heads(tgt.blocks[0].norm_1(x), last=False)
    expected, rows = torch.zeros(64), history.mask.any(dim=1).nonzero().view(-1).tolist()
    for b in rows:
        for h in range(2):
            real = history.mask[b].nonzero().view(-1)
            bucket = gap_bucket(history.time[b, -1] - history.time[b, real]).long()
            score = k[b, h, real] @ q[b, h, -1] / 8**0.5 + tgt.pair_bias[0, h, bucket]
            expected.index_add_(0, bucket, score.softmax(0) / (2 * len(rows)))
    torch.testing.assert_close(mass[0], expected, rtol=1e-3, atol=1e-4)


def test_gaps_that_are_not_in_the_data_are_not_drawn(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net, drawn = model(), []
    assert net.tgt is not None
    assert net.tgt.pair_bias is not None
    monkeypatch.setattr(script, "draw_by_gap", lambda *given: drawn.append(given))
    script.draw_model(net, SPLIT, "T1", tmp_path, "run", [])
    batch = SeedLoader(EventIndex(SPLIT.graph), net.sampling).batch(SPLIT.test)
    history = batch.history
    assert history is not None
    met: list[set[int]] = [set(), set()]  # between any two events, and before the newest one
    for row, mask in zip(history.time, history.mask, strict=True):
        times = row[mask]
        met[0] |= {int(gap_bucket(b - a)) for n, b in enumerate(times) for a in times[: n + 1]}
        met[1] |= {int(gap_bucket(times[-1] - a)) for a in times}
    for expected, (values, seconds, *_) in zip(met, drawn, strict=True):
        kept = torch.tensor(sorted(expected))
        assert len(kept) <= int(kept.max())  # bucket 2 at least is missing in between
        assert torch.equal(seconds, script.bucket_seconds()[kept])
        assert all(value.shape == seconds.shape for value in values.values())
    first = drawn[0][0]["block 1"]
    kept = torch.tensor(sorted(met[0]))
    torch.testing.assert_close(first, net.tgt.pair_bias[0, :, kept].mean(dim=0).detach())


@torch.no_grad()
def test_the_parts_are_those_of_the_score(script: ModuleType) -> None:
    net, batch = model(), SeedLoader(EventIndex(SPLIT.graph), model().sampling).batch(SPLIT.test)
    shares = script.parts_of_scores(net, batch, SPLIT.test.item)
    assert list(shares) == ["BERT branch", "TGT branch", "item-item edges"]
    whole = sum(shares.values())
    lifted = ~whole.isnan()
    torch.testing.assert_close(whole[lifted], torch.ones(int(lifted.sum())))
    alone = TGTBERT4Rec(20, d_model=16, n_blocks=1, max_len=10, fusion_alpha=0.0).eval()
    assert list(script.parts_of_scores(alone, batch, SPLIT.test.item)) == ["TGT branch"]


def test_buckets_begin_where_gap_bucket_says(script: ModuleType) -> None:
    start = script.bucket_seconds()
    whole = start == start.round()  # bucket 2 would begin at a second and a half
    assert torch.equal(gap_bucket(start[whole].long()), whole.nonzero().view(-1).to(torch.uint8))
