"""How PyG's optional accelerators are installed on a given machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Platform = Literal["linux", "macos", "windows"]

ACCELERATORS = ("pyg-lib", "torch-scatter", "torch-sparse")
INDEX = "https://data.pyg.org/whl"
# torch -> builds of torch for which PyG's index has wheels: the tables in the READMEs of PyG 2.8.1
# and pyg-lib 0.8.
BUILDS = {
    (2, 9): ("cpu", "cu126", "cu128", "cu130"),
    (2, 10): ("cpu", "cu126", "cu128", "cu130"),
    (2, 11): ("cpu", "cu126", "cu128", "cu130"),
    (2, 12): ("cpu", "cu126", "cu130", "cu132"),
    (2, 13): ("cpu", "cu126", "cu130", "cu132"),
}
PYG_LIB_ONLY = {(2, 13)}  # the index has no torch-scatter and no torch-sparse for these
COMPILERS = {
    "linux": "gcc or clang",
    "macos": "the Xcode command line tools (xcode-select --install)",
    "windows": "the Visual Studio Build Tools",
}


@dataclass(frozen=True)
class Machine:
    """What decides which wheel fits.

    Args:
        platform: ``linux``, ``macos`` or ``windows``.
        processor: ``x86_64`` or ``arm64``; other names are taken for one without wheels.
        torch: Its version, ``2.9`` or ``2.9.1+cu128``.
        build: What it was built for: ``cpu``, ``cu128``, ``rocm6.4``.
    """

    platform: Platform
    processor: str
    torch: str
    build: str

    @property
    def minor(self) -> tuple[int, int]:
        """``(2, 9)`` of torch 2.9.1."""
        return parse_minor(self.torch)


@dataclass(frozen=True)
class Step:
    """A line for the shell, and what has to be known about it."""

    command: str
    note: str


def parse_minor(torch: str) -> tuple[int, int]:
    """``(2, 9)`` of ``2.9``, ``2.9.1+cu128`` or ``2.9.0a0+git``.

    Raises:
        ValueError: If it is no version.
    """
    found = re.match(r"(\d+)\.(\d+)(?![\d])", torch)
    if found is None:
        raise ValueError(f"--torch needs to be a version such as 2.9 (got {torch!r})")
    return int(found[1]), int(found[2])


def parse_build(cuda: str) -> str:
    """``cu128`` of ``12.8``, ``12.8.1`` or ``cu128``; ``cpu`` of ``cpu``.

    Raises:
        ValueError: If it is neither.
    """
    text = cuda.strip().lower()
    if text == "cpu" or re.fullmatch(r"cu\d{3}", text):
        return text
    found = re.fullmatch(r"(\d{2})\.(\d)(\.\d+)?", text)
    if found is None:
        raise ValueError(f"--cuda needs to be a version such as 12.8, or cpu (got {cuda!r})")
    return f"cu{found[1]}{found[2]}"


def with_wheels(machine: Machine) -> tuple[str, ...]:
    """The accelerators that PyG's index has wheels of for a machine."""
    if machine.build not in BUILDS.get(machine.minor, ()):
        return ()
    if machine.platform == "macos":
        # pyg-lib is built for Apple Silicon; of the others there are wheels of other processors.
        return ("pyg-lib",) if (machine.processor, machine.build) == ("arm64", "cpu") else ()
    if machine.processor != "x86_64":
        return ()
    # CUDA 13 on Windows: the index lists pyg-lib alone.
    cuda_13 = machine.platform == "windows" and machine.build.startswith("cu13")
    return ("pyg-lib",) if machine.minor in PYG_LIB_ONLY or cuda_13 else ACCELERATORS


def install_steps(
    machine: Machine, packages: Sequence[str] = ACCELERATORS, again: bool = False
) -> list[Step]:
    """The lines that install ``packages`` on a machine.

    Args:
        machine: Where.
        packages: Some of :data:`ACCELERATORS`.
        again: They are there, but for another torch: take them away first, and build anew instead
            of taking what pip has kept from the last time.
    """
    if not packages:
        return []
    fresh = "--no-cache-dir " if again else ""
    wheels = [name for name in packages if name in with_wheels(machine)]
    sources = [name for name in packages if name not in wheels]
    steps = []
    if again:
        steps.append(Step(f"pip uninstall -y {' '.join(packages)}", "what is there does not work"))
    if wheels:
        major, minor = machine.minor
        page = f"{INDEX}/torch-{major}.{minor}.0+{machine.build}.html"
        steps.append(Step(f"pip install {fresh}{' '.join(wheels)} -f {page}", "wheels, in seconds"))
    return steps + _from_source(machine, sources, fresh)


def _from_source(machine: Machine, packages: list[str], fresh: str) -> list[Step]:
    if not packages:
        return []
    needs = COMPILERS[machine.platform]
    if machine.build.startswith("cu"):
        digits = machine.build.removeprefix("cu")
        needs += f" and the CUDA toolkit {digits[:-1]}.{digits[-1]} (nvcc)"
    note = (
        f"from source, since {_no_wheels(machine)}: needs {needs} and about ten minutes; torch has "
        f"to be installed already"
    )
    steps = []
    others = [name for name in packages if name != "pyg-lib"]
    if others:
        steps.append(Step(f"pip install {fresh}--no-build-isolation {' '.join(others)}", note))
    if "pyg-lib" in packages:
        source = "git+https://github.com/pyg-team/pyg-lib.git"
        steps.append(Step("pip install ninja wheel setuptools", "to build pyg-lib with"))
        steps.append(Step(f"pip install {fresh}--no-build-isolation {source}", note))
    return steps


def _no_wheels(machine: Machine) -> str:
    """Why there is no wheel."""
    major, minor = machine.minor
    known = BUILDS.get(machine.minor)
    if known is None:
        return f"this version knows of no wheels for torch {major}.{minor} (look at {INDEX})"
    if machine.build not in known:
        return f"PyG has no wheels for torch {major}.{minor} with {machine.build}"
    where = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}[machine.platform]
    return (
        f"PyG has no wheels for torch {major}.{minor}, {machine.build}, {where} {machine.processor}"
    )
