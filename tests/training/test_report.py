from __future__ import annotations

import io
import re
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from tgrec.metrics import (
    bootstrap_interval,
    group_summaries,
    hit_ratio,
    length_groups,
    ndcg,
    paired_bootstrap,
    summarize,
)
from tgrec.training.record import RunRecord
from tgrec.training.report import RankedRun, alarm_of, print_summary, run_label

USERS = torch.arange(300)


def draw_ranks(seed: int, best: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(best, 60, (300,), generator=g)


def make_run(model: str, seed: int = 0, best: int = 1, **changes: Any) -> RankedRun:
    ranks = {"full": draw_ranks(seed, best)}
    ranks |= {name: (ranks["full"] + 3) // 4 for name in ("uniform-28", "popularity-100")}
    ranks["uniform-100"] = (ranks["full"] + 1) // 2
    fields: dict[str, Any] = {
        "command": "python benchmarks/ml1m.py",
        "commit": "0" * 40,
        "dirty": False,
        "date": "2026-01-02T03:04:05Z",
        "versions": {"python": "3.11.9"},
        "hardware": {"cpu": "a processor"},
        "protocol": "ml1m-loo",
        "track": "T1",
        "data": "Simulated",
        "checksum": "sha256:00",
        "model": model,
        "settings": {},
        "parameters": 1_234_567,
        "seed": seed,
        "epochs": 12,
        "seconds": 30.0,
        "seconds_per_epoch": 2.5,
        "metrics": {name: summarize(value) for name, value in ranks.items()},
        "groups": group_summaries(ranks["full"], length_groups(USERS)),
    }
    return RankedRun(RunRecord(**{**fields, **changes}), ranks, USERS)


def printed(*runs: RankedRun | RunRecord, baseline: str | None = None, width: int = 240) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summary(runs, baseline, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if re.search(rf"^\S\s+{start}", line))


def test_the_summary_shows_the_figures_with_their_intervals() -> None:
    run = make_run("sasrec")
    text = printed(run)
    row = row_of(text, "sasrec seed 0")
    values = ndcg(run.ranks["full"], 10)
    low, high = bootstrap_interval(values)
    assert f" {values.mean():.4f} " in row
    assert f" [{low:.4f}, {high:.4f}] " in text
    values = hit_ratio(run.ranks["full"], 10)
    low, high = bootstrap_interval(values)
    assert f" {values.mean():.4f} " in row
    assert f" [{low:.4f}, {high:.4f}] " in text
    assert "1,234,567" in row
    assert " 2.5 " in row
    for name in ("uniform-100", "popularity-100", "uniform-28"):
        figures = run.record.metrics[name]
        assert f"{figures['NDCG@10']:.4f} / {figures['HR@10']:.4f}" in row


def test_every_table_carries_protocol_track_and_data() -> None:
    text = printed(make_run("a"), make_run("b", seed=1))
    assert text.count("\u250f") == 3  # corners of the summary, the groups, the paired tests
    assert text.count("ml1m-loo, track T1, Simulated: ") == 3


def test_the_seed_scale_is_labelled_and_stands_last() -> None:
    text = printed(make_run("a"))
    head = next(line for line in text.splitlines() if "s/epoch" in line)
    order = [head.index(name) for name in ("NDCG@10", "uniform-100", "popularity-100")]
    assert order == sorted(order)
    assert head.rindex("uniform-28 (seed scale)") > order[-1]
    assert "never the headline" in text


def test_groups_show_their_users() -> None:
    run = make_run("a")
    row = row_of(printed(run).split("by events before")[1], "a seed 0")
    for name in ("<=50", "51-100", "101-200", ">200"):
        group = run.record.groups[name]
        cell = f"{group['NDCG@10']:.4f} / {group['HR@10']:.4f} ({group['users']} users)"
        assert cell in row


def test_paired_rows_test_against_the_first_or_the_named_run() -> None:
    a, b = make_run("good"), make_run("bad", seed=1, best=5)
    test = paired_bootstrap(ndcg(b.ranks["full"], 10), ndcg(a.ranks["full"], 10))
    paired = printed(a, b).split("paired bootstrap")[1]
    assert "against good seed 0" in paired
    row = row_of(paired, "bad seed 1")
    assert f"{test.difference:+.4f}" in row
    assert f"[{test.low:+.4f}, {test.high:+.4f}]" in row
    assert f"{test.p_value:.4f}" in row
    assert "against bad seed 1" in printed(a, b, baseline="bad")
    assert "against bad seed 1" in printed(a, b, baseline="bad seed 1")


def test_tracks_and_boards_never_share_a_table() -> None:
    runs = [make_run("a"), make_run("b", track="T2"), make_run("c", protocol="ml1m-sasrec")]
    text = printed(*runs)
    assert text.count("full ranking, 95 %") == 3
    assert "paired bootstrap" not in text  # nothing to compare inside any one table


def test_a_record_without_ranks_shows_its_means() -> None:
    record = make_run("a").record
    text = printed(record)
    assert f" {record.metrics['full']['NDCG@10']:.4f} " in text
    assert "[" not in text
    assert "paired bootstrap" not in printed(record, make_run("b").record)


def test_a_board_with_other_metrics_shows_those() -> None:
    figures = {"full": {"P@5": 0.25, "R@5": 0.125}}
    text = printed(make_run("a", protocol="weekly", metrics=figures, groups={}).record)
    assert "P@5" in text
    assert "0.2500" in text
    assert "NDCG@10" not in text


def test_a_counting_model_has_no_pace() -> None:
    row = row_of(printed(make_run("count", epochs=0, seconds_per_epoch=None)), "count seed 0")
    cells = [cell.strip() for cell in row.split("\u2502")]
    assert cells[3:5] == ["0", "-"]


def test_names_are_text_not_markup() -> None:
    assert "[bold]x[/bold] (refit) seed 0" in printed(make_run("[bold]x[/bold]", variant="refit"))


def test_too_good_a_figure_raises_the_alarm() -> None:
    high = {"full": summarize(torch.tensor([1, 1, 50, 50]))}
    leak = make_run("leak", metrics=high).record
    assert "ALARM: leak seed 0 has NDCG@10 0.5000 on ml1m-loo" in printed(leak)
    assert alarm_of(make_run("a", metrics=high, protocol="weekly").record) is None
    just = {"full": {"NDCG@10": 0.25, "HR@10": 0.4}}
    assert alarm_of(make_run("a", metrics=just).record) is not None
    assert alarm_of(make_run("a", metrics=just, track="T2").record) is None


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="runs is empty"):
        print_summary([])
    with pytest.raises(ValueError, match="baseline 'x' is none of the runs: a seed 0"):
        printed(make_run("a"), baseline="x")
    other = make_run("b", seed=1)
    moved = RankedRun(other.record, other.ranks, USERS.flip(0))
    with pytest.raises(ValueError, match="users differ from row 0"):
        printed(make_run("a"), moved)


def test_the_label_names_model_variant_and_seed() -> None:
    assert run_label(make_run("markov", seed=2, variant="refit").record) == "markov (refit) seed 2"
