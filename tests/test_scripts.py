"""The scripts run as a person runs them: in a process of their own, on simulated data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tgrec.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
# Nothing answers there, so that a download fails at once, with a network and without.
NOWHERE = "http://127.0.0.1:9"
TINY = ["--epochs", "1", "--d_model", "16", "--n-blocks", "1", "--max_len=20"]


def script(
    *words: str | Path, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``python script ...`` at one thread and returns what it printed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, str(ROOT / words[0]), *map(str, words[1:])],
        cwd=cwd,
        env={**os.environ, **settings, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One call with all models: the folder of runs and what was printed."""
    out = tmp_path_factory.mktemp("runs")
    words = ["benchmarks/ml1m.py", "--dataset", "simulated", "--models", *MODELS, *TINY]
    return out, ok(script(*words, "--out", out))


@pytest.mark.slow
def test_all_models_in_one_call_give_one_table(runs: tuple[Path, str]) -> None:
    out, printed = runs
    assert len(list(out.iterdir())) == len(MODELS)
    assert "paired bootstrap" in " ".join(printed.split())  # titles are folded to their table
    for name in MODELS:
        assert f"{name} seed 0" in printed


@pytest.mark.slow
def test_every_run_leaves_its_folder(runs: tuple[Path, str]) -> None:
    for name, cls in MODELS.items():
        (folder,) = (p for p in runs[0].iterdir() if p.name.startswith(f"{name}-simulated"))
        config = json.loads((folder / "config.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        assert "SIMULATED" in config["data"]
        assert "simulated-loo" in metrics["protocol"]
        assert {"config.json", "metrics.json", "ranks.npz", "model"} <= {
            p.name for p in folder.iterdir()
        }
        assert {"full", "uniform-100", "popularity-100", "uniform-28"} == set(metrics["metrics"])
        assert json.loads((folder / "model" / "config.json").read_text())["class"] == cls.__name__
        if metrics["params"]:
            entries = (folder / "history.jsonl").read_text().splitlines()
            assert len(entries) == metrics["epochs"] == 1
        # The table can be derived again from the saved ranks, without the model.
        with np.load(folder / "ranks.npz", allow_pickle=False) as arrays:
            ranks = arrays["rank/full"]
        assert np.mean(ranks <= 10) == pytest.approx(metrics["metrics"]["full"]["HR@10"])
        assert str(ROOT) not in json.dumps(config)


@pytest.mark.slow
def test_saved_weights_measure_the_same(runs: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = runs
    (first,) = out.glob("sasrec-*")
    words = ["benchmarks/ml1m.py", "--dataset", "simulated", "--model", "sasrec", "--eval-only"]
    ok(script(*words, "--weights", first, "--out", tmp_path))
    (second,) = tmp_path.iterdir()
    # Another precision would move single ranks; the same call may not.
    values = [json.loads((f / "metrics.json").read_text())["metrics"] for f in (first, second)]
    assert values[0] == values[1]


@pytest.mark.slow
def test_weights_are_kept_small_and_measure_the_same(
    runs: tuple[Path, str], tmp_path: Path
) -> None:
    (first,) = runs[0].glob("tgt_bert4rec-*")
    ok(script("benchmarks/keep_weights.py", first, "kept", "--out", tmp_path / "weights"))
    size = sum(path.stat().st_size for path in (tmp_path / "weights" / "kept").iterdir())
    assert size < sum(path.stat().st_size for path in (first / "model").iterdir()) / 5
    words = ["benchmarks/ml1m.py", "--dataset", "simulated", "--eval-only", "--weights"]
    ok(script(*words, tmp_path / "weights" / "kept", "--out", tmp_path / "runs"))
    (second,) = (tmp_path / "runs").iterdir()
    values = [json.loads((f / "metrics.json").read_text())["metrics"] for f in (first, second)]
    assert values[0] == values[1]


@pytest.mark.slow
def test_runs_are_drawn(runs: tuple[Path, str], tmp_path: Path) -> None:
    folders = [*runs[0].glob("sasrec-*"), *runs[0].glob("tgt_bert4rec-*")]
    ok(script("benchmarks/draw_runs.py", *folders, "--out", tmp_path))
    name = folders[1].name
    parts = (f"{what}-{name}" for what in ("time-bias", "attention", "parts"))
    wanted = {"training", "ranks", *parts}  # the gate of the golden setting has no trace
    assert {path.stem for path in tmp_path.iterdir()} == wanted
    missing = script("benchmarks/draw_runs.py", tmp_path)
    assert missing.returncode == 1
    assert "is no run folder" in missing.stderr


@pytest.mark.slow
def test_a_model_of_ones_own_runs_from_anywhere(tmp_path: Path) -> None:
    model = f"{ROOT / 'examples' / 'custom_model.py'}:LastFew"
    words = ["benchmarks/ml1m.py", "--dataset", "simulated", "--model", model, *TINY[:4]]
    assert "LastFew seed 0" in ok(script(*words, cwd=tmp_path))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["LastFew-simulated-loo-T1-seed0"]


def offline(folder: Path) -> dict[str, str]:
    """An environment without data and without a network."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    return {**proxies, "TGREC_DATA": str(folder), "XDG_CACHE_HOME": str(folder), "no_proxy": ""}


@pytest.mark.slow
def test_without_data_the_first_line_says_so(tmp_path: Path) -> None:
    words = ["benchmarks/ml1m.py", "--model", "popularity", "--out", tmp_path / "runs"]
    printed = ok(script(*words, **offline(tmp_path)))
    first, *rest = printed.splitlines()
    assert "MovieLens-1M could not be had" in first
    assert "simulated" in first.lower()
    assert "SIMULATED" in "\n".join(rest)


def test_ml1m_asked_for_and_not_there_is_an_error(tmp_path: Path) -> None:
    words = ["benchmarks/ml1m.py", "--model", "popularity", "--dataset", "ml1m"]
    done = script(*words, "--out", tmp_path / "runs", **offline(tmp_path))
    assert done.returncode != 0
    assert "ratings.dat" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "bert4rek"], "bert4rec"),
        (["--modle", "sasrec"], "--model"),
        (["--board", "ml1m-lo"], "ml1m-loo"),
        (["--model", "missing.py:Model"], "missing.py"),
        (["--model", "popularity", "--d_model", "8"], "d_model"),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_what_is_near(
    words: list[str], said: str, tmp_path: Path
) -> None:
    done = script("benchmarks/ml1m.py", "--dataset", "simulated", *words, cwd=tmp_path)
    assert done.returncode == 2 or "missing.py" in said
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart.py", "custom_model.py"])
def test_examples_run(name: str, tmp_path: Path) -> None:
    printed = ok(script(f"examples/{name}", cwd=tmp_path))
    assert ("Simulated Film" if name == "quickstart.py" else "passes check_model") in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weekly_interest_from_nothing_to_the_table(tmp_path: Path) -> None:
    few = ["--link-epochs", "1", "--links-per-epoch", "512", "--epochs", "2", "--eval-every", "2"]
    small = ["--hidden", "16", "--num-neighbors", "4", "2", "--weeks-of-history", "4"]
    words = ["examples/weekly_interest.py", *few, *small, "--joint", "--out", tmp_path / "out"]
    printed = ok(script(*words, "--record", tmp_path / "weekly.jsonl", cwd=tmp_path))
    for name in ("popularity", "repeat last week", "SAGE + Transformer, joint", "oracle"):
        assert name in printed
    assert "SIMULATED" in printed
    assert "s left in this part" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"user_event_interactions.csv", "top5.csv", "user.png"}
    assert len((tmp_path / "out" / "top5.csv").read_text().splitlines()) == 1001
    assert len((tmp_path / "weekly.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target-week", "12"], "week 12; the data hold week 1 to week 4"),
        (["--user-column", "customr"], "did you mean user='customer'"),
        (["--num-neighbors", "4", "0"], "with 0 a node would hear of nobody"),
        (["--device", "nowhere"], "'device' 'nowhere' cannot be used here"),
    ],
)
def test_weekly_interest_says_what_is_wrong(words: list[str], said: str, tmp_path: Path) -> None:
    lines = [f"{u},{e},{w}" for w in (1, 2, 3, 4) for u in range(5) for e in range(6)]
    (tmp_path / "sales.csv").write_text("\n".join(["customer,product,week", *lines]))
    columns = {"--user-column": "customer", "--event-column": "product", "--week-column": "week"}
    columns |= {words[0]: words[1]} if words[0] in columns else {}
    rest = [] if words[0] in columns else words
    named = [word for pair in columns.items() for word in pair]
    done = script("examples/weekly_interest.py", "--csv", "sales.csv", *named, *rest, cwd=tmp_path)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.replace("\u2502", " ").split())
    assert "Traceback" not in done.stderr or "num-neighbors" in words[0]


def test_examples_are_short_and_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 80
        assert path.name in listed


@pytest.mark.slow
def test_result_tables_are_up_to_date() -> None:
    assert "up to date" in ok(script("benchmarks/make_tables.py", "--check"))
