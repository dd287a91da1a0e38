"""What of tgrec works on a machine, and how to install what does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tgrec.cli.facts import Facts, Package
from tgrec.cli.wheels import ACCELERATORS, Machine, Step, install_steps

# Package, as it is installed -> what it is for.
CORE = {
    "numpy": "arrays",
    "pandas": "tables of events, in and out",
    "networkx": "graphs to look at",
    "safetensors": "saved models and graphs",
    "tyro": "command lines",
    "rich": "tables on the screen",
    "torch": "everything that is computed",
    "torch-geometric": "the graph store is its HeteroData",
}
OPTIONAL = {
    "pyg-lib": "PyG's NeighborSampler (this or torch-sparse), grouped products",
    "torch-scatter": "PyG's reductions over groups",
    "torch-sparse": "PyG's SparseTensor, and its NeighborSampler without pyg-lib",
    "matplotlib": "drawings (tgrec.plots)",
    "pyarrow": "Parquet files in pandas",
}
NO_ACCELERATOR = (
    "Nothing in tgrec needs pyg-lib, torch-scatter or torch-sparse: its own samplers read its\n"
    "event index. PyG's NeighborSampler, which link_neighbor_loader takes on request, needs\n"
    "pyg-lib or torch-sparse; PyG uses all three where they are."
)

State = Literal["ok", "missing", "broken", "version"]


@dataclass(frozen=True)
class Row:
    """A line of a table: what, which, and what to say of it; ``bad`` if something is wrong."""

    name: str
    value: str
    note: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Report:
    """What is printed: tables by title, sentences, lines for the shell; and the exit status."""

    tables: Mapping[str, Sequence[Row]]
    notes: Sequence[str]
    steps: Sequence[Step]
    healthy: bool


def report(facts: Facts) -> Report:
    """Everything that ``tgrec doctor`` says about a machine."""
    states = {name: state(name, facts) for name in (*CORE, *OPTIONAL)}
    computes = facts.torch is not None and facts.torch["cpu_error"] is None
    healthy = computes and all(states[name] == "ok" for name in CORE)
    tables = {
        "this machine": machine_rows(facts),
        "needed": [_package_row(name, facts, states[name], CORE[name]) for name in CORE],
        "optional": [_package_row(name, facts, states[name], OPTIONAL[name]) for name in OPTIONAL],
        "data": data_rows(facts),
    }
    notes = [] if healthy else [_trouble(facts, states)]
    steps = _core_steps(facts, states) + _accelerator_steps(facts, states)
    for name in OPTIONAL:
        if states[name] == "missing" and name not in ACCELERATORS:
            steps.append(Step(f"pip install {name}", OPTIONAL[name]))
    return Report(tables, [*notes, NO_ACCELERATOR], steps, healthy)


# ---- packages ------------------------------------------------------------------------------------


def state(name: str, facts: Facts) -> State:
    """Whether a package is there, works, and is of a version that tgrec takes."""
    package = facts.packages.get(name, Package())
    if not package.installed:
        return "missing"
    if package.error is not None:
        return "broken"
    if package.version is not None and not within(package.version, facts.requires.get(name, "")):
        return "version"
    return "ok"


def within(version: str, requirement: str) -> bool:
    """Whether ``2.9.1+cpu`` fulfils ``torch<2.14,>=2.9``; only these two signs are read."""
    have = _numbers(version)
    for sign, text in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
        bound = _numbers(text)
        if (sign == ">=" and have < bound) or (sign == "<" and have >= bound):
            return False
    return True


def _numbers(version: str) -> list[int]:
    """``[2, 9]`` of ``2.9.0+cpu``: zeros at the end say nothing."""
    found = re.match(r"[\d.]*", version)
    parts = [int(part) for part in found[0].split(".") if part] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def does_not_load(name: str, facts: Facts) -> bool:
    """Whether an accelerator is there and its own code fails: it was built for another torch.

    One that only lacks another package is not meant.
    """
    error = facts.packages.get(name, Package()).error
    return (
        name in ACCELERATORS and error is not None and not error.startswith("ModuleNotFoundError")
    )


def _package_row(name: str, facts: Facts, found: State, purpose: str) -> Row:
    package = facts.packages.get(name, Package())
    if found == "ok":
        return Row(name, package.version or "installed", purpose)
    if found == "missing":
        return Row(name, "not installed", purpose, bad=name in CORE)
    if found == "version":
        return Row(name, package.version or "", f"tgrec needs {facts.requires[name]}", bad=True)
    why = (package.error or "") + (
        " (probably built for another torch)" if does_not_load(name, facts) else ""
    )
    return Row(name, f"{package.version or ''} broken".strip(), why, bad=True)


def _trouble(facts: Facts, states: Mapping[str, State]) -> str:
    names = [name for name in CORE if states[name] != "ok"]
    if not names:
        return "Something that tgrec needs is broken: torch cannot compute on the CPU."
    text = f"Something that tgrec needs is missing or broken: {', '.join(names)}."
    if "torch-geometric" in names and any(does_not_load(name, facts) for name in ACCELERATORS):
        text += " PyG imports the accelerators that it finds; take the broken ones away first."
    return text


def _core_steps(facts: Facts, states: Mapping[str, State]) -> list[Step]:
    """What installs or mends the packages that tgrec needs."""
    steps = []
    for command, wanted in (
        ("pip install", ("missing", "version")),
        ("pip install --force-reinstall --no-deps", ("broken",)),
    ):
        names = [name for name in CORE if states[name] in wanted]
        if "broken" in wanted and any(does_not_load(name, facts) for name in ACCELERATORS):
            names = [name for name in names if name != "torch-geometric"]
        if names:
            quoted = [f'"{facts.requires.get(name, name)}"' for name in names]
            steps.append(Step(f"{command} {' '.join(quoted)}", "what tgrec needs"))
    return steps


def _accelerator_steps(facts: Facts, states: Mapping[str, State]) -> list[Step]:
    if facts.torch is None:
        return []
    machine = Machine(
        facts.platform, facts.processor, facts.torch["version"], build_of(facts.torch)
    )
    broken = [name for name in ACCELERATORS if does_not_load(name, facts)]
    absent = [name for name in ACCELERATORS if states[name] == "missing"]
    return install_steps(machine, broken, again=True) + install_steps(machine, absent)


# ---- machine and data ----------------------------------------------------------------------------


def build_of(torch: Mapping[str, Any]) -> str:
    """``cpu``, ``cu128`` or ``rocm6.4``, of what :func:`tgrec.cli.probe.torch_build` says."""
    if torch["cuda"]:
        return "cu" + "".join(torch["cuda"].split(".")[:2])
    if torch["hip"]:
        return "rocm" + ".".join(torch["hip"].split(".")[:2])
    return "cpu"


def machine_rows(facts: Facts) -> list[Row]:
    """Python, the system, torch's build, and the devices."""
    rows = [Row("python", facts.python), Row("system", f"{facts.system}, {facts.processor}")]
    if facts.torch is None:
        return [*rows, Row("devices", "unknown", "torch cannot be imported", bad=True)]
    devices = facts.torch["devices"]
    rows.append(Row("build of torch", build_of(facts.torch)))
    rows.append(_device_row("cpu", "", facts.torch["cpu_error"]))
    for number, device in enumerate(devices):
        rows.append(_device_row(f"cuda:{number}", device["name"], device["error"]))
    if not devices and build_of(facts.torch) == "cpu":
        rows.append(Row("cuda", "none", "torch is built without it"))
    elif not devices:
        rows.append(Row("cuda", "none", "no device answers; is there one, and a driver for it?"))
    mps = "available" if facts.torch["mps_available"] else "none"
    rows.append(Row("mps", mps, "--device mps is written but has not been run"))
    return rows


def _device_row(name: str, text: str, error: str | None) -> Row:
    if error is None:
        return Row(name, "usable", text)
    return Row(name, "not usable", f"{text}: {error}" if text else error, bad=True)


def data_rows(facts: Facts) -> list[Row]:
    """Where data are looked for, and which datasets are there."""
    variable = f"TGREC_DATA is {facts.data_root}" if facts.data_root else "TGREC_DATA is not set"
    if facts.data is None:
        return [Row("folders", "unknown", f"tgrec.datasets cannot be imported; {variable}")]
    rows = [Row("folders", variable, ", ".join(facts.data["folders"]))]
    for name, files in facts.data["files"].items():
        wrong = [found["error"] for found in files.values() if found and "error" in found]
        absent = [file for file, found in files.items() if found is None]
        if wrong:
            rows.append(Row(name, "broken", wrong[0], bad=True))
        elif len(absent) == len(files):
            rows.append(Row(name, "not found"))
        elif absent:
            rows.append(Row(name, "in part", f"without {', '.join(absent)}"))
        else:
            rows.append(Row(name, "found", _holder(*next(iter(files.items())))))
    return rows


def _holder(file: str, found: Mapping[str, str]) -> str:
    """The archive or the folder that holds a file."""
    archive = found["path"].removesuffix(f":{file}")
    return archive if archive != found["path"] else str(Path(archive).parent)
