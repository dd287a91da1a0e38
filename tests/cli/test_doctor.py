"""``tgrec doctor``: facts to a report, and real processes with packages made to break."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tgrec.cli.doctor import CORE, NO_ACCELERATOR, OPTIONAL, Report, Row, build_of, report, within
from tgrec.cli.facts import Facts, Package, platform_of, run_probe
from tgrec.cli.main import other_machine
from tgrec.cli.wheels import Machine

ROOT = Path(__file__).resolve().parents[2]
TORCH: dict[str, Any] = {
    "version": "2.12.0+cpu", "cuda": None, "hip": None, "cpu_error": None, "devices": [],
    "mps_built": False, "mps_available": False,
}  # fmt: skip
WELL = Facts(
    python="3.12.1",
    system="Linux 6",
    platform="linux",
    processor="x86_64",
    packages={name: Package(True, "2.12.0") for name in (*CORE, *OPTIONAL)},
    torch=TORCH,
    data={"folders": ["/data", "/cache"], "files": {}},
    requires={"torch": "torch<2.14,>=2.9"},
)


def with_package(name: str, package: Package, facts: Facts = WELL) -> Facts:
    return replace(facts, packages={**facts.packages, name: package})


def row(found: Report, table: str, name: str) -> Row:
    (one,) = [r for r in found.tables[table] if r.name == name]
    return one


def commands(found: Report) -> list[str]:
    return [step.command for step in found.steps]


# ---- facts to a report -----------------------------------------------------------------------


def test_a_machine_in_order_needs_nothing() -> None:
    found = report(WELL)
    assert found.healthy
    assert found.steps == []
    assert found.notes == [NO_ACCELERATOR]
    assert not any(r.bad for rows in found.tables.values() for r in rows)


@pytest.mark.parametrize("name", CORE)
def test_a_missing_package_of_the_core_is_an_error(name: str) -> None:
    facts = with_package(name, Package())
    if name == "torch":
        facts = replace(facts, torch=None)
    found = report(facts)
    assert not found.healthy
    assert row(found, "needed", name) == Row(name, "not installed", CORE[name], bad=True)
    wanted = "torch<2.14,>=2.9" if name == "torch" else name
    assert commands(found) == [f'pip install "{wanted}"']
    assert name in found.notes[0]


def test_a_broken_package_of_the_core_is_installed_again() -> None:
    found = report(with_package("pandas", Package(True, "2.0", "ImportError: numpy.core")))
    assert not found.healthy
    assert row(found, "needed", "pandas").note == "ImportError: numpy.core"
    assert commands(found) == ['pip install --force-reinstall --no-deps "pandas"']


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.8.0", False), ("2.9.0", True), ("2.9", True), ("2.13.1+cu130", True), ("2.14.0", False)],
)
def test_versions_outside_the_range_are_an_error(version: str, fits: bool) -> None:
    assert within(version, "torch<2.14,>=2.9") is fits
    found = report(with_package("torch", Package(True, version)))
    assert found.healthy is fits
    if not fits:
        assert row(found, "needed", "torch").note == "tgrec needs torch<2.14,>=2.9"
        assert commands(found)[0] == 'pip install "torch<2.14,>=2.9"'


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_optional_package_is_no_error_and_has_its_line(name: str) -> None:
    found = report(with_package(name, Package()))
    assert found.healthy
    assert row(found, "optional", name) == Row(name, "not installed", OPTIONAL[name])
    page = " -f https://data.pyg.org/whl/torch-2.12.0+cpu.html"
    accelerator = name.startswith(("pyg", "torch"))
    assert commands(found) == [f"pip install {name}{page if accelerator else ''}"]


def test_an_accelerator_for_another_torch_is_no_error_but_broken() -> None:
    error = "OSError: _version_cpu.so: undefined symbol: _ZN5torch3jit17parseSchemaOrNameE"
    found = report(with_package("torch-sparse", Package(True, "0.6.18", error)))
    assert found.healthy
    broken = row(found, "optional", "torch-sparse")
    assert broken.value == "0.6.18 broken"
    assert broken.note == f"{error} (probably built for another torch)"
    assert commands(found) == [
        "pip uninstall -y torch-sparse",
        "pip install --no-cache-dir torch-sparse -f https://data.pyg.org/whl/torch-2.12.0+cpu.html",
    ]


def test_an_accelerator_that_lacks_another_one_only_needs_that() -> None:
    facts = with_package("torch-scatter", Package())
    error = "ModuleNotFoundError: No module named 'torch_scatter'"
    found = report(with_package("torch-sparse", Package(True, "0.6.18", error), facts))
    assert row(found, "optional", "torch-sparse").note == error
    page = "https://data.pyg.org/whl/torch-2.12.0+cpu.html"
    assert commands(found) == [f"pip install torch-scatter -f {page}"]


def test_an_accelerator_that_takes_pyg_with_it_is_to_be_taken_away() -> None:
    ended = "its import ends the process (status -11)"
    facts = with_package("torch-scatter", Package(True, "2.1.2", ended))
    found = report(with_package("torch-geometric", Package(True, "2.8.1", ended), facts))
    assert not found.healthy
    assert "take the broken ones away first" in found.notes[0]
    assert commands(found)[0] == "pip uninstall -y torch-scatter"
    assert not any("torch-geometric" in command for command in commands(found))


def test_devices() -> None:
    rows = report(WELL).tables["this machine"]
    assert Row("cuda", "none", "torch is built without it") in rows
    assert [r.note for r in rows if r.name == "mps"] == [
        "--device mps is written but has not been run"
    ]
    devices = [{"name": "H200", "error": None}, {"name": "K80", "error": "RuntimeError: too old"}]
    found = report(replace(WELL, torch={**TORCH, "cuda": "12.8", "devices": devices}))
    assert found.healthy  # the other device, and the CPU, work
    assert row(found, "this machine", "build of torch").value == "cu128"
    assert row(found, "this machine", "cuda:0") == Row("cuda:0", "usable", "H200")
    assert row(found, "this machine", "cuda:1").note == "K80: RuntimeError: too old"
    assert row(found, "this machine", "cuda:1").bad
    found = report(replace(WELL, torch={**TORCH, "cuda": "13.0"}))
    assert "no device answers" in row(found, "this machine", "cuda").note
    found = report(replace(WELL, platform="macos", torch={**TORCH, "mps_available": True}))
    assert row(found, "this machine", "mps").value == "available"


def test_a_torch_that_cannot_compute_is_an_error() -> None:
    found = report(replace(WELL, torch={**TORCH, "cpu_error": "RuntimeError: no kernel"}))
    assert not found.healthy
    assert found.notes[0].endswith("torch cannot compute on the CPU.")


def test_builds_of_torch() -> None:
    assert build_of(TORCH) == "cpu"
    assert build_of({**TORCH, "cuda": "12.6"}) == "cu126"
    assert build_of({**TORCH, "hip": "6.4.43482-0f2d60242"}) == "rocm6.4"


def test_data() -> None:
    files = {
        "a": {"x": {"path": "/data/a/x"}, "y": {"path": "/data/a/y"}},
        "b": {"x": {"path": "/data/b.zip:x"}},
        "c": {"x": None, "y": None},
        "d": {"x": {"path": "/data/d/x"}, "y": None},
        "e": {"x": {"error": "ChecksumError: not the published file"}},
    }
    facts = replace(WELL, data={"folders": ["/data", "/cache"], "files": files})
    rows = report(replace(facts, data_root="/data")).tables["data"]
    assert rows == [
        Row("folders", "TGREC_DATA is /data", "/data, /cache"),
        Row("a", "found", str(Path("/data/a"))),
        Row("b", "found", "/data/b.zip"),
        Row("c", "not found"),
        Row("d", "in part", "without y"),
        Row("e", "broken", "ChecksumError: not the published file", bad=True),
    ]
    assert report(facts).healthy  # data are no part of the installation
    (unknown,) = report(replace(WELL, data=None)).tables["data"]
    assert "TGREC_DATA is not set" in unknown.note


def test_names_of_platforms() -> None:
    assert platform_of("Linux", "x86_64") == ("linux", "x86_64")
    assert platform_of("Darwin", "arm64") == ("macos", "arm64")
    assert platform_of("Windows", "AMD64") == ("windows", "x86_64")
    assert platform_of("Linux", "aarch64") == ("linux", "arm64")


# ---- another machine -------------------------------------------------------------------------

HERE = Machine("linux", "arm64", "2.13.0+cu130", "cu130")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("2.9", "12.8", "linux"), Machine("linux", "arm64", "2.9", "cu128")),
        ((None, None, "macos"), Machine("macos", "arm64", "2.13.0+cu130", "cpu")),
        ((None, None, "windows"), Machine("windows", "x86_64", "2.13.0+cu130", "cu130")),
        (("2.9", None, None), Machine("linux", "arm64", "2.9", "cu130")),
        ((None, "cpu", None), Machine("linux", "arm64", "2.13.0+cu130", "cpu")),
    ],
)
def test_what_is_not_given_is_as_here(flags: tuple[Any, ...], expected: Machine) -> None:
    assert other_machine(("linux", "arm64"), HERE, *flags) == expected


@pytest.mark.parametrize(
    ("here", "flags", "message"),
    [
        (HERE, (None, "12.8", "macos"), "there is no CUDA on macOS"),
        (HERE, ("two", None, None), "--torch needs to be a version"),
        (HERE, (None, "x", None), "--cuda needs to be a version"),
        (None, (None, "12.8", "linux"), "--torch is needed"),
    ],
)
def test_flags_that_cannot_be(here: Machine | None, flags: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        other_machine(("linux", "x86_64"), here, *flags)


# ---- real processes --------------------------------------------------------------------------


def fake(folder: Path, name: str, code: str, version: str | None = "9.9") -> None:
    """A package that does what ``code`` says when it is imported."""
    (folder / name.replace("-", "_")).mkdir()
    (folder / name.replace("-", "_") / "__init__.py").write_text(code + "\n")
    if version is not None:
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_whatever_an_import_does_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "good-one", "print('hello')")
    fake(tmp_path, "no-metadata", "__version__ = '3.1'", version=None)
    fake(tmp_path, "other-torch", "raise OSError('undefined symbol: _ZN\\nand more')")
    fake(tmp_path, "lacks", "import no_such_thing")
    fake(tmp_path, "quits", "raise SystemExit(3)")
    fake(tmp_path, "crashes", "import os; os._exit(139)")
    fake(tmp_path, "late-one", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["good-one", "no-metadata", "other-torch", "lacks", "absent", "quits", "crashes"]
    found = {n: Package(**r) for n, r in run_probe([*names, "late-one"]).items()}
    assert found == {
        "good-one": Package(True, "9.9"),
        "no-metadata": Package(True, "3.1"),
        "other-torch": Package(True, "9.9", "OSError: undefined symbol: _ZN"),
        "lacks": Package(True, "9.9", "ModuleNotFoundError: No module named 'no_such_thing'"),
        "absent": Package(),
        "quits": Package(True, "9.9", "SystemExit: 3"),
        "crashes": Package(True, None, "its import ends the process (status 139)"),
        "late-one": Package(True, "9.9"),  # asked in another process
    }


def test_an_import_without_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "quick", "")
    fake(tmp_path, "slow", "import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("tgrec.cli.facts.PATIENCE", 5)
    found = run_probe(["quick", "slow"])
    assert found["quick"]["error"] is None
    assert found["slow"]["error"] == "its import does not end within 5 s"


def tgrec(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m tgrec`` with a folder of fakes before the installed packages."""
    paths = [str(ROOT), *filter(None, [str(path) if path else "", os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "tgrec", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1",
             "COLUMNS": "200"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_here_all_is_well() -> None:
    done = tgrec("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (*CORE, *OPTIONAL, "ml-1m", "mps"):
        assert name in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_broken_packages_give_a_report_and_status_1(tmp_path: Path) -> None:
    fake(tmp_path, "safetensors", "raise ImportError('no such symbol')", version="0.5")
    fake(tmp_path, "torch-scatter", "raise OSError('undefined symbol: _ZN5torch')", "2.1.2")
    # Without these two the report is plain, and still there.
    fake(tmp_path, "rich", "raise ImportError('no rich')")
    fake(tmp_path, "tyro", "raise ImportError('no tyro')")
    done = tgrec("doctor", path=tmp_path)
    assert done.returncode == 1
    assert "! safetensors  0.5 broken  ImportError: no such symbol" in done.stdout
    assert "! torch-scatter  2.1.2 broken  OSError: undefined symbol: _ZN5torch" in done.stdout
    assert "pip uninstall -y torch-scatter" in done.stdout
    assert "! rich" in done.stdout
    assert "torch-geometric" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_another_machine_needs_no_torch_here(tmp_path: Path) -> None:
    fake(tmp_path, "torch", "raise OSError('libtorch.so: no such file')")
    done = tgrec(
        "doctor", "--torch", "2.9", "--cuda", "12.8", "--platform", "windows", path=tmp_path
    )
    assert done.returncode == 0, done.stderr
    page = "https://data.pyg.org/whl/torch-2.9.0+cu128.html"
    assert f"\npip install pyg-lib torch-scatter torch-sparse -f {page}\n" in done.stdout
    done = tgrec("doctor", "--platform", "linux", path=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr == "error: --torch is needed: here torch is not installed, or does not work\n"
    )


def test_help_and_slips() -> None:
    assert "doctor" in tgrec("--help").stdout
    assert "--cuda" in tgrec("doctor", "--help").stdout
    done = tgrec("docter")
    assert done.returncode == 2
    assert "doctor" in done.stdout + done.stderr
