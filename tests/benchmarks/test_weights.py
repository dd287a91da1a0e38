"""The weights that are shipped measure what the records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgrec.datasets import BOARDS, DatasetNotFound, load_board
from tgrec.models import MODELS, load_model
from tgrec.models.io import not_found_out, read_config
from tgrec.training import evaluate
from tgrec.training.record import read_records

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SEED = {"tgt_bert4rec-ml1m-loo-T1": 2, "tgt_bert4rec-ml1m-loo-T2": 0}  # README names them
KEPT = sorted(p.name for p in (BENCHMARKS / "weights").iterdir())


@pytest.mark.parametrize("name", KEPT)
def test_they_are_small_and_say_what_they_are(name: str) -> None:
    folder = BENCHMARKS / "weights" / name
    saved = read_config(folder)
    assert saved["board"] in BOARDS
    assert name == f"{name.split('-')[0]}-{saved['board']}-{saved['track']}"
    known = "features.values" in saved.get("node_values", {})
    assert known == bool(saved["config"].get("num_features"))
    assert sum(p.stat().st_size for p in folder.iterdir()) < 5e6


@pytest.mark.dataset
@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_they_measure_what_the_records_say(name: str) -> None:
    folder = BENCHMARKS / "weights" / name
    saved = read_config(folder)
    try:
        _, split = load_board(saved["board"], download=False)
    except DatasetNotFound as error:
        pytest.skip(str(error))
    model = load_model(folder, MODELS, train=split.train)
    found = evaluate(model, split, split.test, track=saved["track"], sampled=False).metrics()
    records = read_records(BENCHMARKS / "results" / f"{saved['board']}.jsonl")
    given = not_found_out(saved["config"])
    (record,) = [
        record
        for record in records
        if (record.track, record.seed, record.variant) == (saved["track"], SEED[name], "")
        and given.items() <= {**record.settings, **record.settings.get("chosen", {})}.items()
    ]
    # Another processor adds up in another order, which moves single ranks.
    for metric in ("NDCG@10", "HR@10", "MRR"):
        assert found["full"][metric] == pytest.approx(record.metrics["full"][metric], abs=3e-4)
