"""The command ``tgrec``."""

from __future__ import annotations

import platform as host
import sys
from collections.abc import Sequence

from tgrec.cli.doctor import CORE, OPTIONAL, Report, build_of, report
from tgrec.cli.facts import collect, platform_of, run_probe
from tgrec.cli.wheels import Machine, Platform, Step, install_steps, parse_build


def doctor(
    torch: str | None = None, cuda: str | None = None, platform: Platform | None = None
) -> int:
    """Says what of tgrec works here, and which lines install PyG's optional accelerators.

    With one of the flags it prints those lines for another machine; what is not given is as here.

    Args:
        torch: Version of torch there, for example 2.9.
        cuda: CUDA version that torch is built for there, for example 12.8; or cpu.
        platform: Operating system there.

    Returns:
        0 if all that tgrec needs works, else 1.
    """
    if torch is None and cuda is None and platform is None:
        found = report(collect([*CORE, *OPTIONAL]))
        print_report(found)
        return 0 if found.healthy else 1
    native = platform_of(host.system(), host.machine())
    here = None
    if torch is None or cuda is None:
        probed = run_probe(["@torch"])["@torch"]
        if "devices" in probed:
            here = Machine(*native, probed["version"], build_of(probed))
    machine = other_machine(native, here, torch, cuda, platform)
    major, minor = machine.minor
    print(f"torch {major}.{minor} ({machine.build}), {machine.platform}, {machine.processor}")
    print_steps(install_steps(machine))
    return 0


def other_machine(
    native: tuple[Platform, str],
    here: Machine | None,
    torch: str | None,
    cuda: str | None,
    platform: Platform | None,
) -> Machine:
    """The machine that the flags describe.

    Args:
        native: Platform and processor of this machine.
        here: This machine, if torch is installed and works.
        torch: As in :func:`doctor`.
        cuda: As in :func:`doctor`.
        platform: As in :func:`doctor`.

    Raises:
        ValueError: If a flag is no version, or torch is neither given nor installed.
    """
    version = torch or (here.torch if here is not None else None)
    if version is None:
        raise ValueError("--torch is needed: here torch is not installed, or does not work")
    where = platform or native[0]
    # Torch has had no wheels for Intel Macs since 2.3, so that macOS is Apple Silicon.
    processor = native[1] if where == native[0] else "arm64" if where == "macos" else "x86_64"
    build = "cpu" if here is None or where == "macos" else here.build
    if cuda is not None:
        build = parse_build(cuda)
    if where == "macos" and build != "cpu":
        raise ValueError(f"--cuda {cuda}: there is no CUDA on macOS; leave it out")
    machine = Machine(where, processor, version, build)
    _ = machine.minor  # raises if --torch is no version
    return machine


def print_report(found: Report) -> None:
    """Prints the tables, with rich where it works, then the lines for the shell, unbroken."""
    try:
        _print_tables(found)
    except ImportError:
        for title, rows in found.tables.items():
            print(f"\n{title}")
            for row in rows:
                print(f"  {'!' if row.bad else ' '} {row.name}  {row.value}  {row.note}".rstrip())
    print("\n" + "\n".join(found.notes))
    print_steps(found.steps)


def _print_tables(found: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    width = max(len(row.name) for rows in found.tables.values() for row in rows)
    for title, rows in found.tables.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        table.add_column(min_width=width, no_wrap=True)
        table.add_column(no_wrap=title != "data")
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(row.name, row.value, row.note, style="red" if row.bad else None)
        console.print(table)
        console.print()


def print_steps(steps: Sequence[Step]) -> None:
    """One line each, to be copied, below what has to be known about it."""
    for step in steps:
        print(f"\n# {step.note}\n{step.command}")


def main() -> None:
    """Parses the command line; where tyro does not work there is only the report."""
    try:
        import tyro
    except ImportError:
        sys.exit(doctor())
    try:
        status = tyro.extras.subcommand_cli_from_dict(
            {"doctor": doctor}, prog="tgrec", description="Temporal recommendation on PyG."
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status)
