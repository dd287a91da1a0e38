"""The paired tests below a table, from ranks that were kept by hand."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.metrics import bootstrap_interval, ndcg, paired_bootstrap, summarize
from tgrec.training import RunRecord, append_record, keep_ranks

USER = torch.arange(400)


@pytest.fixture(scope="module")
def script(ml1m: ModuleType) -> ModuleType:
    return importlib.import_module("make_tables")  # beside ml1m, whose folder is on the path


def draw(seed: int, high: int = 30) -> Tensor:
    return torch.randint(1, high, (400,), generator=torch.Generator().manual_seed(seed))


def recorded(
    folder: Path, model: str, ranks: Tensor, user: Tensor | None = USER, **changes: Any
) -> RunRecord:
    """A record whose figures are those of the ranks; they are kept unless `user` is None."""
    fields: dict[str, Any] = {
        "command": "python benchmarks/ml1m.py",
        "commit": "abcdef0123456789",
        "dirty": False,
        "date": "2026-01-02T03:04:05Z",
        "versions": {},
        "hardware": {},
        "protocol": "ml1m-loo",
        "track": "T1",
        "data": "MovieLens-1M",
        "checksum": "md5:a89a",
        "model": model,
        "settings": {},
        "parameters": 1,
        "seed": 0,
        "epochs": 1,
        "seconds": 1.0,
        "seconds_per_epoch": 1.0,
        "metrics": {"full": summarize(ranks)},
    }
    record = RunRecord(**{**fields, **changes})
    if user is not None:
        keep_ranks(folder, record, user, ranks)
    return record


def lines_of(script: ModuleType, records: list[RunRecord], folder: Path) -> dict[str, list[str]]:
    """First cell of each line of the table of tests -> the other cells."""
    text = script.board_table(records, detail=True, results=folder)
    table = text.partition("Over users:")[2]
    lines = [re.split(r" \| ", line.strip("| ")) for line in table.splitlines() if "| " in line]
    return {cells[0]: cells[1:] for cells in lines if ":--" not in cells[0]}


def test_each_user_of_a_row_is_compared_with_itself(script: ModuleType, tmp_path: Path) -> None:
    base, better = draw(0), (draw(0) - 4).clamp(min=1)
    records = [recorded(tmp_path, "sasrec", base), recorded(tmp_path, "tgt_bert4rec", better)]
    found = lines_of(script, records, tmp_path)
    assert found["model"] == ["seeds", "NDCG@10", "95 % interval", "- sasrec"]
    a, b = ndcg(better, 10), ndcg(base, 10)
    test, (low, high) = paired_bootstrap(a, b), bootstrap_interval(a)
    assert test.low > 0
    assert found["tgt_bert4rec"] == [
        "n=1",
        f"{float(a.mean()):.4f}",
        f"[{low:.4f}, {high:.4f}]",
        f"{float((a - b).mean()):+.4f} ({100 * float(a.mean() / b.mean() - 1):+.1f} %) "
        f"[{test.low:+.4f}, {test.high:+.4f}], p {test.p_value:.4f}",
    ]
    assert found["sasrec"][-1] == "-"


def test_a_known_difference(script: ModuleType, tmp_path: Path) -> None:
    """Every user has rank 1 in the one and rank 2 in the other: no resample differs."""
    ones = torch.ones_like(USER)
    records = [recorded(tmp_path, "sasrec", ones + 1), recorded(tmp_path, "mine", ones)]
    found = lines_of(script, records, tmp_path)
    assert found["mine"][-1] == "+0.3691 (+58.5 %) [+0.3691, +0.3691], p 0.0005"
    assert found["mine"][1:3] == ["1.0000", "[1.0000, 1.0000]"]


def test_seeds_are_averaged_user_by_user(script: ModuleType, tmp_path: Path) -> None:
    seeds = [draw(1), draw(2), draw(3)]
    records = [recorded(tmp_path, "bert4rec", draw(9))]
    records += [recorded(tmp_path, "mine", rank, seed=i) for i, rank in enumerate(seeds)]
    found = lines_of(script, records, tmp_path)
    mean = torch.stack([ndcg(rank, 10) for rank in seeds]).mean(0)
    test, (low, high) = paired_bootstrap(mean, ndcg(draw(9), 10)), bootstrap_interval(mean)
    assert found["mine"][:3] == ["n=3", f"{float(mean.mean()):.4f}", f"[{low:.4f}, {high:.4f}]"]
    assert found["mine"][3].startswith(f"{test.difference:+.4f} ")
    assert found["mine"][3].endswith(f"[{test.low:+.4f}, {test.high:+.4f}], p {test.p_value:.4f}")


def test_users_in_another_order_are_paired_by_their_ids(script: ModuleType, tmp_path: Path) -> None:
    """Row by row these two would seem to differ from user to user, and the interval be wide."""
    ranks, order = draw(0), torch.randperm(400, generator=torch.Generator().manual_seed(1))
    shuffled = recorded(tmp_path, "mine", ranks[order], USER[order])
    found = lines_of(script, [recorded(tmp_path, "sasrec", ranks), shuffled], tmp_path)
    assert found["mine"][-1] == "+0.0000 (+0.0 %) [+0.0000, +0.0000], p 1.0000"


@pytest.mark.parametrize("planted", ["user", "checksum", "seed"])
def test_other_users_are_not_compared(planted: str, script: ModuleType, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": "mine", "user": USER + 1}
    if planted == "checksum":
        changes = {"model": "mine", "checksum": "md5:other"}
    if planted == "seed":
        changes = {"model": "sasrec", "user": USER + 1, "seed": 1}
    records = [
        recorded(tmp_path, "sasrec", draw(0)),
        recorded(tmp_path, ranks=draw(1), **changes),
    ]
    with pytest.raises(ValueError, match="ranked other users .* cannot be compared"):
        script.board_table(records, detail=True, results=tmp_path)


def test_variants_are_tested_against_their_own_model(script: ModuleType, tmp_path: Path) -> None:
    """A shorter variant against the shorter full model, one without its model against nothing."""
    ones = torch.ones_like(USER)
    ranks = {"": ones, "no graph": ones + 1, "6 epochs: full": ones + 2, "6 epochs: no graph": ones,
             "9 epochs: no graph": ones}  # fmt: skip
    records = [recorded(tmp_path, "mine", rank, variant=v) for v, rank in ranks.items()]
    table = script.board_table(records, True, tmp_path).partition("What a part is worth")[2]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| m")]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("mine (6 epochs: no graph)", "mine (6 epochs: full)",
         "+0.5000 (+100.0 %) [+0.5000, +0.5000], p 0.0005"),
        ("mine (no graph)", "mine", "-0.3691 (-36.9 %) [-0.3691, -0.3691], p 0.0005"),
    ]  # fmt: skip


def test_a_branch_alone_is_shown_by_its_name_and_tested_against_its_model(
    script: ModuleType, tmp_path: Path
) -> None:
    """Records of before have the model's name."""
    ones = torch.ones_like(USER)
    both = recorded(tmp_path, "tgt_bert4rec", ones, settings={"fusion_alpha": 0.1})
    older, newer = (
        recorded(tmp_path, name, ones + 1, variant="TGT only", settings={"fusion_alpha": 0.0})
        for name in ("tgt_bert4rec", "tgt_branch")
    )
    for record in (older, newer):
        text = script.board_table([both, record], detail=True, results=tmp_path)
        table = text.partition("What a part is worth")[2]
        assert "| tgt_branch (TGT only) | tgt_bert4rec | " in table
        assert "tgt_bert4rec (TGT only)" not in text


def test_a_refit_is_no_baseline(script: ModuleType, tmp_path: Path) -> None:
    ones = torch.ones_like(USER)
    refit = {"variant": script.REFIT, "settings": {"refit_of": "sasrec seed 0"}}
    records = [
        recorded(tmp_path, "sasrec", ones + 1),
        recorded(tmp_path, "sasrec", ones, **refit),
        recorded(tmp_path, "mine", ones + 2),
    ]
    table = script.board_table(records, True, tmp_path).partition("Over users")[2]
    assert "| 95 % interval | - sasrec |\n" in table


def test_of_several_models_of_one_name_a_variant_belongs_to_the_nearest(
    script: ModuleType, tmp_path: Path
) -> None:
    ones = torch.ones_like(USER)
    full = [
        recorded(tmp_path, "mine", ones, settings={"width": 8, "graph": 1}),
        recorded(tmp_path, "mine", ones + 2, settings={"width": 4, "graph": 1, "inputs": "few"}),
    ]
    part = recorded(tmp_path, "mine", ones + 1, variant="no graph", settings={"width": 8})
    table = script.board_table([*full, part], True, tmp_path).partition("What a part is worth")[2]
    assert "-0.3691 (-36.9 %)" in table


def test_without_ranks_there_are_no_tests(script: ModuleType, tmp_path: Path) -> None:
    records = [recorded(tmp_path, name, draw(i), user=None) for i, name in enumerate("ab")]
    text = script.board_table(records, detail=True, results=tmp_path)
    assert text == script.board_table(records, detail=True)
    assert "Over users" not in text


def test_what_is_not_tested_is_named(script: ModuleType, tmp_path: Path) -> None:
    records = [
        recorded(tmp_path, "mine", draw(1)),
        recorded(tmp_path, "mine", draw(2), seed=1, user=None),  # a mean needs all its seeds
        recorded(tmp_path, "sasrec", draw(3, high=20), user=None),
        recorded(tmp_path, "sasrec", draw(4), variant="weaker"),
        recorded(tmp_path, "bert4rec", draw(5)),
    ]
    text = script.board_table(records, detail=True, results=tmp_path)
    assert "No test against sasrec, whose ranks are not kept. Ranks not kept: sasrec, mine." in text
    found = lines_of(script, records, tmp_path)
    assert found["model"][-1] == "- bert4rec"
    assert found.keys() >= {"bert4rec", "sasrec (weaker)"}
    assert "mine" not in found


def test_the_best_row_of_each_kind_is_the_baseline(script: ModuleType, tmp_path: Path) -> None:
    models = {"sasrec_alone": 20, "bert4rec_alone": 40, "markov_pooled": 30, "trigrec": 25}
    records = [
        recorded(tmp_path, name, draw(i, high), protocol="trigrec-food")
        for i, (name, high) in enumerate(models.items())
    ]
    found = lines_of(script, records, tmp_path)
    assert found["model"][-2:] == ["- sasrec_alone", "- markov_pooled"]
    assert [name for name in models if found[name][-2] == "-"] == ["sasrec_alone"]


def test_a_board_without_baselines_has_intervals_only(script: ModuleType, tmp_path: Path) -> None:
    records = [recorded(tmp_path, "sasrec", draw(0), protocol="another")]
    found = lines_of(script, records, tmp_path)
    assert found["model"] == ["seeds", "NDCG@10", "95 % interval"]
    assert len(found["sasrec"]) == 3


def test_the_check_reads_the_kept_ranks(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "benchmarks" / "results"
    block = f"{script.BEGIN}\n{script.END}\n"
    results.mkdir(parents=True)
    for page in (tmp_path / "README.md", tmp_path / "benchmarks" / "README.md"):
        page.write_text(block)
    records = [recorded(results, name, draw(i)) for i, name in enumerate(("sasrec", "mine"))]
    for record in records:
        append_record(results / "ml1m-loo.jsonl", record)
    script.main(root=tmp_path)
    script.main(check=True, root=tmp_path)
    assert "Over users" in (tmp_path / "benchmarks" / "README.md").read_text()
    assert "Over users" not in (tmp_path / "README.md").read_text()
    for path in (results / "ranks").glob("mine*"):
        path.unlink()
    with pytest.raises(SystemExit, match="stale tables: benchmarks.README.md"):
        script.main(check=True, root=tmp_path)
    capsys.readouterr()
