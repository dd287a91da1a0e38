from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tgrec.metrics import summarize
from tgrec.training.record import RunRecord, append_record

BLOCK = "<!-- results:begin -->\nold\n<!-- results:end -->"


@pytest.fixture(scope="module")
def script(ml1m: ModuleType) -> ModuleType:
    return importlib.import_module("make_tables")  # beside ml1m, whose folder is on the path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"# Head\n\n{BLOCK}\n\ntail\n")
    (tmp_path / "benchmarks" / "README.md").write_text(f"{BLOCK}\n")
    return tmp_path


def make_record(ndcg: float = 0.2, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "command": "python benchmarks/ml1m.py",
        "commit": "abcdef0123456789",
        "dirty": False,
        "date": "2026-01-02T03:04:05Z",
        "versions": {"python": "3.11.9"},
        "hardware": {"cpu": "a processor"},
        "protocol": "ml1m-loo",
        "track": "T1",
        "data": "MovieLens-1M",
        "checksum": "md5:a89a",
        "model": "sasrec",
        "settings": {"d_model": 64},
        "parameters": 300_000,
        "seed": 0,
        "epochs": 12,
        "seconds": 30.0,
        "seconds_per_epoch": 2.5,
        "metrics": {
            "full": {"HR@10": 0.35, "NDCG@10": ndcg},
            "uniform-28": summarize(torch.tensor([1, 2, 3])),
        },
    }
    return RunRecord(**{**fields, **changes})


def add(root: Path, *records: RunRecord, file: str = "ml1m.jsonl") -> None:
    for record in records:
        append_record(root / "benchmarks" / "results" / file, record)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ") and ":--" not in line][1:]


def test_mean_and_deviation_over_seeds(script: ModuleType) -> None:
    records = [make_record(0.18 + 0.01 * seed, seed=seed) for seed in range(3)]
    text = script.board_table(records, detail=False)
    assert len(rows(text)) == 1
    assert "| sasrec | 300,000 | n=3 | 0.1900 +- 0.0100 | 0.3500 +- 0.0000 |" in text
    assert "**`ml1m-loo`, track T1, MovieLens-1M** (`md5:a89a`)" in text
    assert "uniform-28 (seed scale)" in text


def test_a_single_run_is_labelled_and_has_no_deviation(script: ModuleType) -> None:
    text = script.board_table([make_record()], detail=False)
    assert "| n=1 | 0.2000 | 0.3500 |" in text
    assert "n=1 is a single run" in text


def test_a_seed_run_again_replaces_the_older_record(script: ModuleType) -> None:
    newer = make_record(0.21, date="2026-02-01T00:00:00Z")
    older = make_record(0.19)
    assert "| n=1 | 0.2100 |" in script.board_table([newer, older], detail=False)


def test_other_settings_and_variants_are_other_rows_best_first(script: ModuleType) -> None:
    records = [
        make_record(0.19, settings={"d_model": 64, "seed": 0, "device": "cpu"}),
        make_record(0.19, settings={"d_model": 64, "seed": 1, "device": "cuda"}, seed=1),
        make_record(0.21, settings={"d_model": 128}),
        make_record(0.16, model="markov", settings={}),
        make_record(0.17, model="markov", settings={}, variant="refit"),
    ]
    found = rows(script.board_table(records, detail=False))
    assert [row.split(" | ")[0] for row in found] == [
        "| sasrec, d_model=128",
        "| sasrec, d_model=64",
        "| markov (refit)",
        "| markov",
    ]
    assert "n=2" in found[1]


def test_an_option_that_is_off_makes_no_other_row(script: ModuleType) -> None:
    older = make_record(0.19)
    newer = make_record(0.21, date="2026-02-01T00:00:00Z", settings={"d_model": 64, "new": None})
    assert "| sasrec | 300,000 | n=1 | 0.2100 |" in script.board_table([older, newer], detail=False)


def test_a_refit_stands_last_in_a_row_of_its_own(script: ModuleType) -> None:
    plain = [make_record(0.2, seed=seed) for seed in range(2)]
    refits = [
        make_record(
            0.3, seed=seed, variant=script.REFIT,
            settings={"d_model": 64, "stop_after": 8 + seed, "refit_of": f"sasrec seed {seed}"},
        )
        for seed in range(2)
    ]  # fmt: skip
    other = make_record(0.1, model="older")
    text = script.board_table([*refits, *plain, other], detail=False)
    assert [row.split(" | ")[0] for row in rows(text)] == [
        "| sasrec",
        "| older",
        "| sasrec (refit on train and validation)",
    ]
    assert all("n=2" in row for row in rows(text)[::2])
    assert script.ABOUT_REFITS in text
    assert script.ABOUT_REFITS not in script.board_table([*plain, other], detail=False)


def test_tie_audits_stand_below_their_board_the_newest_of_each_model(
    script: ModuleType, root: Path
) -> None:
    results = root / "benchmarks" / "results"
    audits = importlib.import_module("tie_audits")
    plain, new = make_record(0.2), make_record(0.21, date="2026-03-01T00:00:00Z", commit="1234567f")
    for record, values in ((new, [0.19, 0.2, 0.21]), (plain, [0.1])):
        audits.keep_audit(results, record, {"order": values})
    audits.keep_audit(results, make_record(track="T2"), {"order": [0.3]})
    add(root, plain)
    assert len(script.load(root)) == 1
    text = script.board_table([plain], True, results)
    assert "| sasrec seed 0 | order | 0.2100 | 0.2000 | 0.1900 | 0.2100 | 3 | 1234567 |" in text
    assert text.count("| sasrec seed 0 |") == 1
    assert "Tie audits" not in script.board_table([make_record(protocol="other")], True, results)
    # Other settings are another model, and so are weights that were given, whatever the seed.
    wide = make_record(0.3, settings={"d_model": 128}, seed=0)
    given = make_record(0.4, settings={"d_model": 64, "weights": "abcdef0123"}, seed=0)
    for record in (wide, given):
        audits.keep_audit(results, record, {"order": [0.1]})
    lines = [x for x in script.board_table([plain], True, results).splitlines() if "| order |" in x]
    assert len(lines) == 3
    assert [x.split(" | order")[0] for x in lines if "settings" in x] != []
    assert sum(x.startswith("| sasrec, weights abcdef0 | order | 0.4000 |") for x in lines) == 1
    assert sum(x.startswith("| sasrec seed 0, settings ") for x in lines) == 2


def test_a_line_that_is_no_audit_is_named(script: ModuleType, tmp_path: Path) -> None:
    audits = importlib.import_module("tie_audits")
    audits.keep_audit(tmp_path, make_record(), {"order": [0.1]})
    file = tmp_path / audits.FILE
    for line in ("{}", "[1]", "no"):
        file.write_text(file.read_text().splitlines()[0] + f"\n{line}\n")
        with pytest.raises(ValueError, match=r"ties.jsonl, line 2 is no tie audit"):
            audits.audit_table("any", tmp_path)


def test_groups_of_users_have_a_table_of_means(script: ModuleType) -> None:
    few, many = ({"users": 3, **summarize(torch.tensor([1, 2, rank]))} for rank in (5, 8))
    rare = {**many, "users": 9}
    records = [make_record(seed=0, groups={"<=50": few, "rare item": rare}),
               make_record(seed=1, groups={"<=50": many, "rare item": rare}),
               make_record(0.1, model="older", groups={"<=50": few})]  # fmt: skip
    text = script.board_table(records, detail=True)
    assert "| model | <=50 (3) | rare item (9) |" in text
    other = make_record(seed=2, groups={"<=50": {**few, "users": 4}})
    with pytest.raises(ValueError, match="4 users in the group '<=50', where others have 3"):
        script.board_table([*records, other], detail=True)
    mean = (few["NDCG@10"] + many["NDCG@10"]) / 2
    assert f"| sasrec | {mean:.4f} | {many['NDCG@10']:.4f} |" in text
    assert f"| older | {few['NDCG@10']:.4f} | - |" in text
    assert "rare item" not in script.board_table(records, detail=False)


def test_tracks_and_boards_have_tables_of_their_own(script: ModuleType) -> None:
    records = [
        make_record(protocol="another"),
        make_record(protocol="ml1m-sasrec"),
        make_record(track="T2"),
        make_record(),
    ]
    titles = [line for line in script.page(records, True).splitlines() if line.startswith("**")]
    assert [title.split(", M")[0] for title in titles] == [
        "**`ml1m-loo`, track T1",
        "**`ml1m-loo`, track T2",
        "**`ml1m-sasrec`, track T1",
        "**`another`, track T1",
    ]


def test_the_detailed_table_names_commit_and_command(script: ModuleType) -> None:
    text = script.board_table([make_record(), make_record(seed=1, dirty=True)], detail=True)
    assert "| 12 | 2.5 | abcdef0, abcdef0+ |" in text
    assert "- sasrec: `python benchmarks/ml1m.py`" in text


def test_both_readmes_are_rewritten_and_then_pass_the_check(
    script: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(root, make_record(), make_record(protocol="weekly", data="Simulated"))
    with pytest.raises(SystemExit, match=r"stale tables: README.md, benchmarks.README.md; run"):
        script.main(check=True, root=root)
    assert "old" in (root / "README.md").read_text()  # --check writes nothing
    script.main(root=root)
    script.main(check=True, root=root)
    assert "2 records; tables are up to date" in capsys.readouterr().out
    readme = (root / "README.md").read_text()
    assert readme.startswith("# Head\n\n<!-- results:begin -->\n**`ml1m-loo`")
    assert readme.endswith("<!-- results:end -->\n\ntail\n")
    assert "weekly" not in readme
    assert "`weekly`, track T1, Simulated" in (root / "benchmarks" / "README.md").read_text()


def test_shorter_runs_stand_on_the_longer_page_only(script: ModuleType, root: Path) -> None:
    add(root, make_record(), make_record(0.19, variant="6 epochs: no graph"))
    script.main(root=root)
    assert "6 epochs" not in (root / "README.md").read_text()
    assert "(6 epochs: no graph)" in (root / "benchmarks" / "README.md").read_text()


def test_a_new_record_makes_the_tables_stale(script: ModuleType, root: Path) -> None:
    add(root, make_record())
    script.main(root=root)
    add(root, make_record(0.22, seed=1))
    with pytest.raises(SystemExit, match="stale tables"):
        script.main(check=True, root=root)


def test_a_figure_changed_by_hand_is_found(script: ModuleType, root: Path) -> None:
    add(root, make_record())
    script.main(root=root)
    page = root / "README.md"
    page.write_text(page.read_text().replace("0.2000", "0.2100"))
    with pytest.raises(SystemExit, match="stale tables: README.md;"):
        script.main(check=True, root=root)


def test_without_records_the_tables_say_so(script: ModuleType, root: Path) -> None:
    script.main(root=root)
    assert "No results are recorded yet." in (root / "README.md").read_text()


@pytest.mark.parametrize("text", ["none", BLOCK + BLOCK, BLOCK[::-1]])
def test_missing_or_repeated_markers_are_an_error(script: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="README.md must hold <!-- results:begin -->"):
        script.replace_block(text, "new", "README.md")


def test_boards_of_domains_have_further_figures(script: ModuleType, root: Path) -> None:
    """Hand-made: the target is first for one user, fifth for the other one."""
    own = summarize(torch.tensor([1, 5]))
    metrics = {"full": own, "uniform-999": summarize(torch.tensor([1, 2]))}
    for protocol in ("trigrec-food", "ml1m-loo"):
        drawn = metrics if protocol == "trigrec-food" else {"full": own}
        record = make_record(protocol=protocol, metrics=drawn)
        append_record(root / "benchmarks" / "results" / f"{protocol}.jsonl", record)
    script.main(root=root)
    text = (root / "benchmarks" / "README.md").read_text()
    assert text.count("Further figures") == 1
    line = text[text.index("Further figures") :].splitlines()[4]
    assert line.split(" | ")[1:7] == ["0.5000", "1.0000", f"{own['NDCG@5']:.4f}", "0.5000",
                                      "1.0000", "1.0000"]  # fmt: skip
