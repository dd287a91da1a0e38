"""``benchmarks/sampler_throughput.py`` runs, and its tables hold what they say; no times here."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch_geometric.typing as pyg

from tgrec.datasets import DatasetNotFound, simulate_movielens
from tgrec.sampler import EventIndex
from tgrec.testing import toy_graph

ROOT = Path(__file__).resolve().parents[2]
SPARSE = "PyG on torch-sparse"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """The script as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("sampler_throughput")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What ``--quick`` printed, and its JSON."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    script = ROOT / "benchmarks" / "sampler_throughput.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--json", str(file)],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def sides_of(figures: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """The three tables that compare sides: name of the side -> row."""
    tables = [t for name, t in figures["tables"].items() if name.startswith(("Sampler", "Loader"))]
    return [{row["side"]: row for row in table} for table in tables]


def test_every_figure_is_a_positive_number(quick: tuple[str, dict[str, Any]]) -> None:
    rows = [row for table in quick[1]["tables"].values() for row in table]
    figures = [v for row in rows for v in row.values() if isinstance(v, int | float)]
    assert len(figures) > 100
    assert all(math.isfinite(v) and (v > 0 or v is False) for v in figures)


def test_every_side_is_named_and_measured_or_says_why_not(
    quick: tuple[str, dict[str, Any]],
) -> None:
    printed, figures = quick
    tables = sides_of(figures)
    assert len(tables) == 3
    for table in tables:
        assert sum(name.startswith("tgrec") for name in table) == 5
        assert sum(name.startswith("PyG") for name in table) == 3
        for name, row in table.items():
            assert name in printed
            assert bool(row["missing"]) != ("links_per_s" in row)
            assert row["causal"] == (name.startswith("tgrec") or "last" in name)
        if not table[SPARSE]["missing"]:
            assert table[SPARSE]["times_torch_sparse"] == 1
        for row in table.values():
            base = table[SPARSE].get("links_per_s")
            if base and not row["missing"]:
                assert row["times_torch_sparse"] == pytest.approx(row["links_per_s"] / base)
    assert "SIMULATED" in printed.splitlines()[0]
    assert "SIMULATED" in figures["data"]


def test_merged_batches_have_the_same_edges_and_fewer_nodes(
    quick: tuple[str, dict[str, Any]],
) -> None:
    for table in sides_of(quick[1]):
        for name in ("tgrec last, edge time", "tgrec last, seed time"):
            trees, merged = table[name], table[f"{name}, merged"]
            assert merged["edges"] == trees["edges"]
            assert merged["nodes"] < trees["nodes"] / 2


def test_the_other_tables(quick: tuple[str, dict[str, Any]]) -> None:
    one_call, weeks, growth = list(quick[1]["tables"].values())[3:]
    assert one_call[0]["users"] == 100
    assert weeks[0]["ratio"] == pytest.approx(
        weeks[0]["HeteroData.snapshot_s"] / weeks[0]["snapshots_s"]
    )
    assert growth[1]["events"] == 3 * growth[0]["events"]
    assert growth[1]["index_gb"] == pytest.approx(3 * growth[0]["index_gb"], rel=0.01)
    assert quick[1]["environment"]["hardware"]["threads"] == quick[1]["options"]["threads"] == 1
    assert str(Path.home()) not in json.dumps(quick[1])


def test_copies_are_copies_with_nodes_of_their_own(bench: ModuleType) -> None:
    graph = toy_graph()
    kind = graph.interaction_types[0]
    tripled = bench.copies(graph, 3)
    assert tripled.validate()
    assert tripled.num_events == 3 * graph.num_events
    for k in range(3):
        user, item = tripled[kind].edge_index[:, k::3]
        offsets = torch.tensor([[graph.num_users * k], [graph.num_items * k]])
        assert torch.equal(torch.stack([user, item]) - offsets, graph[kind].edge_index)
        assert torch.equal(tripled[kind].time[k::3], graph[kind].time)


def test_links_are_events_at_their_own_cuts(bench: ModuleType) -> None:
    graph = simulate_movielens(60, 100, 20)[0]
    links = bench.some_links(graph, bench.Options(batch_size=50, batches=2, rounds=3))
    index = EventIndex(graph)
    assert len(links) == 300
    assert int(links.cut.min()) >= graph.num_events // 10
    assert torch.equal(index.user[links.cut], links.user)
    assert torch.equal(index.item[links.cut], links.item)


def test_what_does_not_fit_into_memory_is_not_tried(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "free_memory_gb", lambda: 1.0)
    report = bench.Report({}, {}, "")
    bench.growth(report, toy_graph(), bench.Options(events=(0.00002, 100), batch_size=4))
    (small, large), *rest = report.tables.values()
    assert rest == []
    assert small["missing"] == ""
    assert small["build_s"] > 0
    assert large["missing"] == "not run: needs 17.0 GB, 1.0 GB are free"
    assert "build_s" not in large


def test_without_the_data_simulated_ones_are_named(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(root: Path | None) -> None:
        raise DatasetNotFound("put ratings.dat there")

    small = simulate_movielens(60, 100, 20)
    monkeypatch.setattr(bench, "movielens_1m", missing)
    monkeypatch.setattr(bench, "simulate_movielens", lambda *sizes: small)
    graph, data = bench.load(bench.Options())
    assert data == "SIMULATED data of the size of ML-1M"
    assert graph.num_events == 8 * small[0].num_events
    assert "could not be had" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"ratings\.dat"):
        bench.load(bench.Options(dataset="ml1m"))


@pytest.mark.parametrize(
    ("lib", "sparse", "wanted"),
    [
        (False, True, ["", "not installed"]),
        (False, False, ["not installed", "not installed"]),
        (True, True, ["not run: PyG takes pyg-lib where both are installed", ""]),
    ],
)
def test_what_is_not_installed_is_no_figure(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, lib: bool, sparse: bool, wanted: list[str]
) -> None:
    monkeypatch.setattr(pyg, "WITH_PYG_LIB", lib)
    monkeypatch.setattr(pyg, "WITH_TORCH_SPARSE", sparse)
    sides = sys.modules["sampler_sides"]
    assert [sides.missing(name) for name in (SPARSE, "PyG on pyg-lib")] == wanted
