"""What there is on this machine, found out without importing any of it here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tgrec.cli import probe
from tgrec.cli.wheels import Platform

PATIENCE = 180  # seconds for all imports of one process


@dataclass(frozen=True)
class Package:
    """What is known of one package.

    Args:
        installed: Whether it is there.
        version: Its version, where it tells one.
        error: Why it cannot be imported.
    """

    installed: bool = False
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Facts:
    """All that a report is made of.

    Args:
        python: Version of Python.
        system: Name and release of the operating system.
        platform: One of the three that wheels are made for.
        processor: ``x86_64`` or ``arm64``, or another name.
        packages: By name.
        torch: What :func:`tgrec.cli.probe.torch_build` says, None if torch does not work.
        data: What :func:`tgrec.cli.probe.data` says, None if tgrec.datasets does not work.
        requires: What tgrec asks for, by package, as in ``torch<2.14,>=2.9``.
        data_root: Value of ``$TGREC_DATA``.
    """

    python: str
    system: str
    platform: Platform
    processor: str
    packages: Mapping[str, Package]
    torch: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None
    requires: Mapping[str, str] = field(default_factory=dict)
    data_root: str | None = None


def collect(names: Sequence[str]) -> Facts:
    """The facts of this machine, with those of the packages ``names``."""
    # PyG imports the accelerators, so that it comes after them: the one that ends the process is
    # then known by its name.
    late = ["torch-geometric", "@data"]
    results = run_probe([*(n for n in names if n not in late), "@torch", *late])
    where, processor = platform_of(platform.system(), platform.machine())
    return Facts(
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()}",
        platform=where,
        processor=processor,
        packages={name: Package(**results[name]) for name in names},
        torch=results["@torch"] if "devices" in results["@torch"] else None,
        data=results["@data"] if "folders" in results["@data"] else None,
        requires=requirements(),
        data_root=os.environ.get("TGREC_DATA") or None,
    )


def platform_of(system: str, machine: str) -> tuple[Platform, str]:
    """The names that wheels go by, of those that :mod:`platform` gives."""
    names: dict[str, Platform] = {"Darwin": "macos", "Windows": "windows"}
    processors = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
    return names.get(system, "linux"), processors.get(machine.lower(), machine)


def requirements() -> dict[str, str]:
    """What tgrec asks for, by package; empty where it is not installed but only found."""
    try:
        lines = importlib.metadata.requires("tgrec") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    always = [line for line in lines if ";" not in line]  # behind it stands an extra
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(): line for line in always}


def run_probe(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What :mod:`tgrec.cli.probe` says of each name, also of one that ends the process."""
    results: dict[str, dict[str, Any]] = {}
    left = list(names)
    while left:
        ended = _run_once(left, results)
        left = [name for name in left if name not in results]
        if left:
            results[left[0]] = {"installed": True, "version": None, "error": ended}
            left = left[1:]
    return results


def _run_once(names: Sequence[str], results: dict[str, dict[str, Any]]) -> str:
    """Runs one process, fills ``results`` as far as it gets, and says how it ended."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-P", str(Path(probe.__file__)), *names]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)  # fmt: skip
        printed, ended = done.stdout, f"its import ends the process (status {done.returncode})"
    except subprocess.TimeoutExpired as error:
        printed = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        ended = f"its import does not end within {PATIENCE} s"
    for line in printed.splitlines():
        if line.startswith(probe.MARK):
            name, result = json.loads(line.removeprefix(probe.MARK))
            results[name] = result
    return ended
