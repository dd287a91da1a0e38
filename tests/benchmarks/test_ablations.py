"""``benchmarks/ablations.py`` on a tiny set: what it runs, what it reads back, what it prints."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tgrec.data import TemporalRecGraph
from tgrec.metrics import ndcg, paired_bootstrap, summarize
from tgrec.models import TGTBERT4Rec
from tgrec.training import read_kept_ranks, read_records, read_run

pytestmark = pytest.mark.usefixtures("call")  # tiny data, no network
Call = Callable[..., tuple[int, str]]
TRAIN = {"epochs": 2, "eval_every": 1, "batch_size": 16}
MODEL = {"d_model": 8, "n_heads": 2, "n_blocks": 1, "d_ff": 16, "max_len": 10}
GATES = {
    "fusion_alpha": 0.1, "learnable_fusion": False, "graph_weight": 1.1, "choose_gates": True,
    "tgt_gated": True, "time_vectors": True, "item_features": True,
}  # fmt: skip


@pytest.fixture
def script(ml1m: ModuleType) -> ModuleType:
    return importlib.import_module("ablations")


@pytest.fixture
def started(ml1m: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders of the runs that were started."""
    names, run = [], ml1m.run

    def counted(name: str, model: Any, task: Any, settings: Any, folder: Path, **more: Any) -> Any:
        names.append(folder.name.partition("-simulated")[0])
        return run(name, model, task, settings, folder, **more)

    monkeypatch.setattr(ml1m, "run", counted)
    return names


@pytest.fixture
def ablate(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """``ablate("--only", "no graph")``: exit code, and all that was printed on one line."""
    golden = importlib.import_module("golden")
    for name, settings in (("tgt_bert4rec", MODEL | GATES), ("enhanced_bert4rec", MODEL)):
        monkeypatch.setitem(golden.GOLDEN, name, golden.Golden(settings, TRAIN))

    def run(*words: str) -> tuple[int, str]:
        fixed = ["--dataset", "simulated", "--out", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", ["ablations.py", *words, *fixed])
        capsys.readouterr()
        code = 0
        try:
            script.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        printed = capsys.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return run


def folder_of(tmp_path: Path, variant: str, model: str = "tgt_bert4rec") -> Path:
    return tmp_path / "runs" / f"{model}-{variant}-simulated-loo-T1-seed0"


def test_one_command_makes_all_runs_and_one_table(
    ablate: Call, started: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "records" / "a.jsonl"
    code, printed = ablate("--record", str(file), "--epochs", "1")
    assert code == 0, printed
    names = ["full", "no graph", "no time", "no vectors of times", "no genres and years",
             "feed-forward blocks", "BERT only", "TGT only", "learned alpha"]  # fmt: skip
    assert f"9 runs of tgt_bert4rec: {', '.join(names)}" in printed
    assert printed.index("9 runs") < printed.index("run folder")
    assert started == [f"tgt_bert4rec-{name.replace(' ', '_')}" for name in names]
    title = "paired bootstrap over users against the full model"
    assert printed.count(title) == 3
    assert printed.count(f"at most 50 events before the target, {title}") == 1
    assert printed.count(f"targets of the rarer half of the items, {title}") == 1
    records = read_records(file)
    # A shorter run is no seed of the golden one, and the variants are those of the shorter run.
    assert [record.variant for record in records] == [f"1 epochs: {name}" for name in names]
    full, *others = (record.settings for record in records)
    changed = [
        {k for k in full if other[k] != full[k]} - {"num_edges", "val", "best_epoch", "chosen"}
        for other in others
    ]
    assert changed == [
        {"use_graph"}, {"use_time"}, {"time_vectors"}, {"item_features", "num_features"},
        {"tgt_gated", "tgt_d_ff"},
        {"fusion_alpha"}, {"fusion_alpha"},
        {"learnable_fusion", "fusion_alpha", "graph_weight", "choose_gates"},
    ]  # fmt: skip
    shares = [settings["fusion_alpha"] for settings in others]
    assert (shares[-3:-1], full["epochs"]) == ([1.0, 0.0], 1)
    sizes = [records[0].parameters - record.parameters for record in records]
    assert (sizes[1], sizes[-1]) == (0, -2)  # learned: the gate and the weight of the graph
    assert min(abs(size) for size in sizes[2:-1]) > 1
    # The printed tests are those of the ranks that were kept.
    base, other = (read_kept_ranks(file.parent, record) for record in records[:2])
    test = paired_bootstrap(ndcg(other.rank, 10), ndcg(base.rank, 10))
    assert f"{test.difference:+.4f}" in printed
    assert f"[{test.low:+.4f}, {test.high:+.4f}]" in printed
    assert f"{test.p_value:.4f}" in printed
    runs = [read_run(folder) for folder in sorted(file.parents[1].glob("runs/*-full-*"))[:1]]
    rare = runs[0].groups["rare item"]
    assert 0 < int(rare.sum()) < rare.numel()
    assert f"{summarize(runs[0].ranks['full'][rare])['NDCG@10']:.4f}" in printed


def test_a_variant_that_is_the_full_model_is_left_out(
    ablate: Call, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a golden setting that has neither gates nor vectors of times."""
    golden = importlib.import_module("golden")
    plain = MODEL | GATES | {"tgt_gated": False, "tgt_d_ff": 64, "time_vectors": False}
    monkeypatch.setitem(golden.GOLDEN, "tgt_bert4rec", golden.Golden(plain, TRAIN))
    code, printed = ablate("--epochs", "1", "--only", "feed-forward blocks", "BERT only")
    assert code == 2
    assert "'feed-forward blocks' is the full model on track T1" in printed
    assert started == []
    code, printed = ablate("--epochs", "1")
    assert code == 0, printed
    said = (
        "left out, since the full model on track T1 is like that: no vectors of times, feed-forward"
    )
    assert said in printed
    assert len(started) == 7


def test_finished_variants_are_read_back_and_not_run_again(
    ablate: Call, started: list[str], tmp_path: Path
) -> None:
    file = str(tmp_path / "a.jsonl")
    words = ("--epochs", "1", "--only", "no graph")
    first = ablate(*words, "--record", file)
    assert first[0] == 0, first[1]
    assert len(started) == 2
    before = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    code, printed = ablate(*words, "BERT only", "--resume", "--record", file)
    assert code == 0, printed
    assert started[2:] == ["tgt_bert4rec-BERT_only"]
    assert "1 run of tgt_bert4rec: BERT only; read back from" in printed
    assert {p: p.read_bytes() for p in before} == before
    names = ["full", "no graph", "BERT only"]
    assert [record.variant for record in read_records(file)] == [f"1 epochs: {n}" for n in names]
    # A third time nothing is left to do, and a file that has no records yet gets all of them.
    other = str(tmp_path / "b.jsonl")
    code, again = ablate(*words, "BERT only", "--resume", "--record", other)
    assert code == 0, again
    assert len(started) == 3
    assert "0 runs of tgt_bert4rec: none" in again
    table = printed[printed.index("paired bootstrap") : printed.index("cover 95 %")]
    assert table in again
    assert read_records(other) == read_records(file)
    assert len(list((tmp_path / "ranks").iterdir())) == 3


def test_an_interrupted_variant_is_continued(
    ablate: Call, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ablate("--only", "no time")
    assert whole[0] == 0, whole[1]
    expected = read_run(folder_of(tmp_path, "no_time")).record.metrics
    (tmp_path / "runs").rename(tmp_path / "whole")
    steps, terms = 0, TGTBERT4Rec.loss_terms

    def stopped(self: TGTBERT4Rec, batch: Any) -> Any:
        nonlocal steps
        steps += not self.config["use_time"]
        if steps == 3 and not self.config["use_time"]:
            signal.raise_signal(signal.SIGTERM)
        return terms(self, batch)

    monkeypatch.setattr(TGTBERT4Rec, "loss_terms", stopped)
    file = tmp_path / "a.jsonl"
    code, printed = ablate("--only", "no time", "learned alpha", "--record", str(file))
    assert code == 0, printed
    assert "no time: interrupted in epoch 1, nothing measured yet; --resume" in printed
    assert len(read_records(file)) == 1
    code, printed = ablate("--only", "no time", "--resume", "--record", str(file))
    assert code == 0, printed
    assert started[4:] == ["tgt_bert4rec-no_time"]
    assert read_run(folder_of(tmp_path, "no_time")).record.metrics == expected
    assert [record.variant for record in read_records(file)] == ["", "no time"]


def test_resume_starts_what_left_nothing_and_refuses_other_settings(
    ablate: Call, started: list[str], tmp_path: Path
) -> None:
    folder_of(tmp_path, "full").mkdir(parents=True)  # killed before its first epoch
    words = ("--only", "learned alpha", "--resume", "--epochs")
    code, printed = ablate(*words, "1")
    assert code == 0, printed
    assert len(started) == 2
    assert (tmp_path / "runs" / (folder_of(tmp_path, "full").name + "-2")).is_dir()
    code, printed = ablate(*words, "2")
    assert code == 2
    assert "is of a run with other settings (epochs: 1 -> 2); give the same ones" in printed
    assert len(started) == 2


def test_side_information_is_left_out_by_group(
    ablate: Call, script: ModuleType, started: list[str], tmp_path: Path
) -> None:
    names = ["no genre, no year", "item tasks only, no user id"]
    code, printed = ablate("--model", "enhanced_bert4rec", "--epochs", "1", "--only", *names)
    assert code == 0, printed
    slugs = ("full", "no_genre_no_year", "item_tasks_only_no_user_id")
    full, no_genre, items = (
        read_run(folder_of(tmp_path, slug, "enhanced_bert4rec")).record.settings for slug in slugs
    )
    assert set(full["features"]) - set(no_genre["features"]) == {"genre", "year"}
    assert set(full["features"]) - set(items["features"]) == {"user"}
    weights = items["task_weights"]
    assert [task for task in weights if weights[task]] == ["item_prediction", "next_item"]


def test_every_group_of_features_is_left_out_once(script: ModuleType) -> None:
    groups = [set(variant.without) for variant in script.ABLATIONS["enhanced_bert4rec"].values()]
    features = importlib.import_module("tgrec.models.side_information").FEATURES
    assert set().union(*groups) == set(features)


def test_features_that_the_data_lack_cannot_be_left_out(
    script: ModuleType, tiny: TemporalRecGraph
) -> None:
    train = tiny.before(10**18)
    for name in ("gender", "age", "occupation"):
        del train["user"][name]
    variants = script.ABLATIONS["enhanced_bert4rec"]
    options = script.Options(model="enhanced_bert4rec")
    with pytest.raises(ValueError, match="'no profile' .* the data have no gender and no age"):
        script.check_features(options, variants, train)
    rest = {name: variant for name, variant in variants.items() if name != "no profile"}
    script.check_features(options, rest, train)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "no grph"), "'no grph' is no variant of tgt_bert4rec; did you mean 'no graph'"),
        (("--model", "tgt_bert"), "no ablations of 'tgt_bert'; did you mean 'tgt_bert4rec'"),
        (("--model", "trigrec"), "use benchmarks/trigrec.py ablations"),
        (("--device", "nowhere"), "'device' 'nowhere' cannot be used here"),
        (("--board", "trigrec-food"), "measured by benchmarks/trigrec.py"),
    ],
)
def test_wrong_words(
    words: tuple[str, ...], message: str, ablate: Call, started: list[str], tmp_path: Path
) -> None:
    code, printed = ablate(*words)
    assert code == 2
    assert message in printed
    assert printed.startswith("error: ")
    assert started == []
    assert not (tmp_path / "runs").exists()


# ---- ranks of runs that were recorded without -------------------------------------------------


def test_ranks_are_kept_afterwards(
    call: Callable[..., Any], ml1m: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = importlib.import_module("keep_ranks").main
    file = tmp_path / "r.jsonl"
    done = call(f"--model markov --record {file}")
    assert done.code == 0
    (path,) = (tmp_path / "ranks").iterdir()
    before = path.read_bytes()
    path.unlink()
    keep(done.runs / done.folders[0], file)
    assert path.read_bytes() == before
    assert f"wrote {path}" in capsys.readouterr().out
    text = file.read_text()
    file.write_text(text.replace('"commit": "', '"commit": "1'))
    with pytest.raises(ValueError, match="has no record of the run in"):
        keep(done.runs / done.folders[0], file)


def test_the_other_script_keeps_what_it_measured(call: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    done = call(f"--models popularity markov --record {file}")
    records = read_records(file)
    for record, name in zip(records, ("popularity", "markov"), strict=True):
        run = read_run(done.runs / f"{name}-simulated-loo-T1-seed0")
        kept = read_kept_ranks(tmp_path, record)
        assert run.user is not None
        order = run.user.argsort()
        assert kept.user.tolist() == run.user[order].tolist()
        assert kept.rank.tolist() == run.ranks["full"][order].tolist()
        assert json.loads(record.to_json()) == json.loads(run.record.to_json())
