"""Imports packages and says what came of it, in a process that may die of it.

    python -P tgrec/cli/probe.py torch torch-scatter @torch @data

A package built for another torch raises at import, or ends the process. So nothing is imported
where the report is written, and every result is written at once, one line of JSON each.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import sys
from typing import Any

MARK = "tgrec-probe "  # packages may print something of their own while they are imported


def package(name: str) -> dict[str, Any]:
    """Whether a package is there, its version, and why it cannot be imported."""
    module = name.replace("-", "_")
    found: dict[str, Any] = {"installed": False, "version": None, "error": None}
    try:
        found["version"] = importlib.metadata.version(name)
        found["installed"] = True
    except importlib.metadata.PackageNotFoundError:
        found["installed"] = importlib.util.find_spec(module) is not None
    if not found["installed"]:
        return found
    try:
        imported = importlib.import_module(module)
        found["version"] = found["version"] or getattr(imported, "__version__", None)
    except BaseException as error:  # whatever a package raises, SystemExit included
        found["error"] = reason(error)
    return found


def torch_build() -> dict[str, Any]:
    """What torch was built for, and the devices that it can use."""
    import torch

    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cpu_error": _use("cpu"),
        "devices": [],
        "mps_built": torch.backends.mps.is_built(),
        "mps_available": torch.backends.mps.is_available(),
    }
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(number)
            found["devices"].append({"name": name, "error": _use(f"cuda:{number}")})
    return found


def data() -> dict[str, Any]:
    """Where data are looked for, and which files are there: its place, None, or what is wrong."""
    from tgrec import datasets
    from tgrec.datasets import _fetch

    sources: dict[str, _fetch.Source] = {}
    for info in pkgutil.iter_modules(datasets.__path__):
        module = importlib.import_module(f"tgrec.datasets.{info.name}")
        for value in vars(module).values():
            if isinstance(value, _fetch.Source):
                sources[value.name] = value
    found: dict[str, Any] = {"folders": [str(folder) for folder in _fetch.folders()], "files": {}}
    for name, source in sorted(sources.items()):
        found["files"][name] = {file: _file(_fetch, source, file) for file in source.files}
    return found


def reason(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _use(device: str) -> str | None:
    """Why nothing can be computed on a device."""
    import torch

    try:
        total = float((torch.ones(2, device=device) + 1).sum())
    except (RuntimeError, AssertionError) as error:
        return reason(error)
    return None if total == 4 else f"1 + 1, twice, gave {total}"


def _file(fetch: Any, source: Any, name: str) -> dict[str, str] | None:
    try:
        found = fetch.find_file(source, name)
    except ValueError as error:
        return {"error": reason(error)}
    return None if found is None else {"path": found.path}


SPECIAL = {"@torch": torch_build, "@data": data}


def main() -> None:
    """Probes what the command line names, one line of output each."""
    for name in sys.argv[1:]:
        try:
            result = SPECIAL[name]() if name in SPECIAL else package(name)
        except BaseException as error:
            result = {"installed": True, "version": None, "error": reason(error)}
        print(MARK + json.dumps([name, result]), flush=True)


if __name__ == "__main__":
    main()
