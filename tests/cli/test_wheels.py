"""The exact lines that install PyG's accelerators, machine by machine."""

from __future__ import annotations

import pytest

from tgrec.cli.wheels import (
    ACCELERATORS,
    BUILDS,
    Machine,
    Platform,
    install_steps,
    parse_build,
    parse_minor,
)

INDEX = "https://data.pyg.org/whl"
ALL = "pip install pyg-lib torch-scatter torch-sparse -f"
PYG_LIB = "pip install pyg-lib -f"
REST = "pip install --no-build-isolation torch-scatter torch-sparse"
TOOLS = "pip install ninja wheel setuptools"
GIT = "pip install --no-build-isolation git+https://github.com/pyg-team/pyg-lib.git"
NOTHING = [REST, TOOLS, GIT]


@pytest.mark.parametrize(
    ("platform", "processor", "torch", "build", "expected"),
    [
        ("linux", "x86_64", "2.9", "cu128", [f"{ALL} {INDEX}/torch-2.9.0+cu128.html"]),
        # The index names x.y.0 for all of x.y.
        ("linux", "x86_64", "2.9.1+cu128", "cu128", [f"{ALL} {INDEX}/torch-2.9.0+cu128.html"]),
        ("linux", "x86_64", "2.10.0+cpu", "cpu", [f"{ALL} {INDEX}/torch-2.10.0+cpu.html"]),
        ("linux", "x86_64", "2.11", "cu130", [f"{ALL} {INDEX}/torch-2.11.0+cu130.html"]),
        ("linux", "x86_64", "2.12", "cu132", [f"{ALL} {INDEX}/torch-2.12.0+cu132.html"]),
        ("windows", "x86_64", "2.12", "cu126", [f"{ALL} {INDEX}/torch-2.12.0+cu126.html"]),
        (
            "windows",
            "x86_64",
            "2.12",
            "cu130",
            [f"{PYG_LIB} {INDEX}/torch-2.12.0+cu130.html", REST],
        ),
        # torch-scatter and torch-sparse have no wheels for 2.13.
        (
            "linux",
            "x86_64",
            "2.13.0",
            "cu130",
            [f"{PYG_LIB} {INDEX}/torch-2.13.0+cu130.html", REST],
        ),
        ("windows", "x86_64", "2.13", "cpu", [f"{PYG_LIB} {INDEX}/torch-2.13.0+cpu.html", REST]),
        # Apple Silicon.
        ("macos", "arm64", "2.12.1", "cpu", [f"{PYG_LIB} {INDEX}/torch-2.12.0+cpu.html", REST]),
        # No wheels at all: other processors, other builds, versions too old or too new.
        ("macos", "x86_64", "2.9", "cpu", NOTHING),
        ("linux", "arm64", "2.12", "cpu", NOTHING),
        ("linux", "riscv64", "2.12", "cpu", NOTHING),
        ("linux", "x86_64", "2.12", "cu128", NOTHING),
        ("linux", "x86_64", "2.9.1+rocm6.4", "rocm6.4", NOTHING),
        ("linux", "x86_64", "2.14.0a0+git12ab", "cpu", NOTHING),
        ("linux", "x86_64", "2.4", "cu121", NOTHING),
    ],
)
def test_lines(
    platform: Platform, processor: str, torch: str, build: str, expected: list[str]
) -> None:
    steps = install_steps(Machine(platform, processor, torch, build))
    assert [step.command for step in steps] == expected


def test_only_what_is_asked_for_is_installed() -> None:
    linux = Machine("linux", "x86_64", "2.12", "cpu")
    assert install_steps(linux, []) == []
    (step,) = install_steps(linux, ["torch-sparse"])
    assert step.command == f"pip install torch-sparse -f {INDEX}/torch-2.12.0+cpu.html"
    mac = Machine("macos", "arm64", "2.12", "cpu")
    (step,) = install_steps(mac, ["torch-scatter"])
    assert step.command == "pip install --no-build-isolation torch-scatter"


def test_what_is_there_for_another_torch_is_taken_away_and_not_taken_from_the_cache() -> None:
    mac = Machine("macos", "arm64", "2.12", "cpu")
    commands = [
        step.command for step in install_steps(mac, ["pyg-lib", "torch-sparse"], again=True)
    ]
    assert commands == [
        "pip uninstall -y pyg-lib torch-sparse",
        f"pip install --no-cache-dir pyg-lib -f {INDEX}/torch-2.12.0+cpu.html",
        "pip install --no-cache-dir --no-build-isolation torch-sparse",
    ]


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine("macos", "arm64", "2.12", "cpu"), ["xcode-select --install", "macOS arm64"]),
        (Machine("windows", "x86_64", "2.13", "cu130"), ["Visual Studio", "CUDA toolkit 13.0"]),
        (Machine("linux", "x86_64", "2.14", "cpu"), ["no wheels for torch 2.14", INDEX, "gcc"]),
        (Machine("linux", "x86_64", "2.9", "cu118"), ["torch 2.9 with cu118", "toolkit 11.8"]),
    ],
)
def test_notes_say_why_and_what_is_needed(machine: Machine, said: list[str]) -> None:
    notes = [s.note for s in install_steps(machine) if "--no-build-isolation torch" in s.command]
    (note,) = notes
    assert "about ten minutes" in note
    assert "torch has to be installed already" in note
    for words in said:
        assert words in note


def test_every_package_is_installed_exactly_once() -> None:
    for platform in ("linux", "macos", "windows"):
        for processor in ("x86_64", "arm64"):
            for minor, builds in BUILDS.items():
                for build in builds:
                    machine = Machine(platform, processor, f"{minor[0]}.{minor[1]}", build)  # type: ignore[arg-type]
                    words = " ".join(step.command for step in install_steps(machine)).split()
                    words = ["pyg-lib" if w.endswith("/pyg-lib.git") else w for w in words]
                    for name in ACCELERATORS:
                        assert words.count(name) == 1, (machine, words)


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("12.8", "cu128"),
        ("12.8.1", "cu128"),
        ("13.0", "cu130"),
        ("cu126", "cu126"),
        (" CPU", "cpu"),
    ],
)
def test_cuda_versions(text: str, build: str) -> None:
    assert parse_build(text) == build


@pytest.mark.parametrize("text", ["", "12", "128", "12.8x", "cuda", "rocm6.4", "1.2"])
def test_what_is_no_cuda_version_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"--cuda needs to be a version such as 12\.8, or cpu"):
        parse_build(text)


def test_torch_versions() -> None:
    assert parse_minor("2.13.0+cpu") == (2, 13)
    assert parse_minor("2.9") == (2, 9)
    for text in ("", "2", "torch", "v2.9"):
        with pytest.raises(ValueError, match=r"--torch needs to be a version such as 2\.9"):
            parse_minor(text)


def test_the_range_of_torch_in_the_project_is_known() -> None:
    # A new torch in pyproject.toml needs a line in the table.
    from tgrec.cli.doctor import within
    from tgrec.cli.facts import requirements

    wanted = requirements().get("torch", "torch<2.14,>=2.9")
    assert all(within(f"{major}.{minor}", wanted) for major, minor in BUILDS)
    newest = max(BUILDS)
    assert not within(f"{newest[0]}.{newest[1] + 1}", wanted)
