"""The command ``tgrec``."""

from __future__ import annotations

import dataclasses
import difflib
import os
import platform as host
import sys
import warnings
from collections.abc import Callable, Sequence
from json import dumps

from tgrec import __version__
from tgrec.cli.doctor import CORE, OPTIONAL, Report, build_of, report
from tgrec.cli.facts import collect, platform_of, run_probe
from tgrec.cli.wheels import Machine, Platform, Step, install_steps, parse_build


def doctor(
    torch: str | None = None,
    cuda: str | None = None,
    platform: Platform | None = None,
    json: bool = False,
) -> int:
    """Says what of tgrec works here, and which lines install PyG's optional accelerators.

    With one of the flags it prints those lines for another machine; what is not given is as here.

    Args:
        torch: Version of torch there, for example 2.9.
        cuda: CUDA version that torch is built for there, for example 12.8; or cpu.
        platform: Operating system there.
        json: Print JSON.

    Returns:
        0 if all that tgrec needs works, else 1.
    """
    if torch is None and cuda is None and platform is None:
        found = report(collect([*CORE, *OPTIONAL]))
        if json:
            print(dumps(dataclasses.asdict(found), indent=2))
        else:
            print_report(found)
        return 0 if found.healthy else 1
    native = platform_of(host.system(), host.machine())
    here = None
    if torch is None or cuda is None:
        probed = run_probe(["@torch"])["@torch"]
        if "devices" in probed:
            here = Machine(*native, probed["version"], build_of(probed))
    machine = other_machine(native, here, torch, cuda, platform)
    steps = install_steps(machine)
    if json:
        print(dumps([dataclasses.asdict(step) for step in steps], indent=2))
        return 0
    major, minor = machine.minor
    print(f"torch {major}.{minor} ({machine.build}), {machine.platform}, {machine.processor}")
    print_steps(steps)
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


COMMANDS = {
    "doctor": "what of tgrec works here, and how to install what does not",
    "data import": "read a table of events once and keep it",
    "data card": "one screen about a dataset, and how much a split leaks",
    "train": "train a model and save a recommender",
    "eval": "measure a saved recommender on its held-out events",
    "compare": "several models or recommenders in one table, with tests",
    "recommend": "the best items for a user, or for a history",
    "similar": "the items most like one",
    "explain": "why an item is recommended",
    "profile": "what the data say of a user",
}
EPILOG = """`tgrec COMMAND --help` lists the flags of a command; `-` and `_` are both taken.

exit status
  0    done
  1    could not be done: something is missing, broken or unreadable, or memory ended
  2    asked for wrongly: a command, flag, name, id or value
  130  interrupted; what was trained so far is saved"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status; see :data:`EPILOG`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _warn
    try:
        status = run(words)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except (ValueError, TypeError) as error:
        status = _complain(error, 2)
    except ImportError as error:
        status = _complain(error, 1, "; `tgrec doctor` says what is wrong")
    except BrokenPipeError:  # `tgrec ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (OSError, ArithmeticError, MemoryError, RuntimeError) as error:
        status = _complain(error, 1)
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Finds the command and calls it.

    Raises:
        ValueError: If there is no such command; says what may be meant.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"tgrec {__version__}")
        return 0
    name, rest = words[0], list(words[1:])
    if name == "data":
        if not rest or rest[0] in ("-h", "--help"):
            print(usage("data "))
            return 0
        name, rest = f"data {rest[0]}", rest[1:]
    if name not in COMMANDS:
        known = [*COMMANDS, *(c.partition(" ")[2] for c in COMMANDS if " " in c)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        full = [c for c in COMMANDS if near and c.endswith(near[0])]
        hint = f"did you mean 'tgrec {full[0]}'?" if full else f"there are {', '.join(COMMANDS)}"
        raise ValueError(f"there is no command {name!r}; {hint}")
    if name == "doctor":
        return _doctor(rest)
    # Here and not above: the doctor has to start where half of the rest is broken.
    from tgrec.cli import ask, data, flags, measure, train

    own_flags = {"train": train.train, "compare": measure.compare}
    if name in own_flags:
        return own_flags[name](rest)
    functions: dict[str, Callable[..., int]] = {
        "data import": data.import_data, "data card": data.card, "eval": train.evaluate,
        "recommend": ask.recommend, "similar": ask.similar, "explain": ask.explain,
        "profile": ask.profile,
    }  # fmt: skip
    flags.refuse_repeated(rest, functions[name])
    return _call(functions[name], name, rest)


def usage(prefix: str = "") -> str:
    """All commands, or those that begin with ``prefix``."""
    shown = {name: text for name, text in COMMANDS.items() if name.startswith(prefix)}
    lines = [f"  {name:<12} {text}" for name, text in shown.items()]
    return "\n".join([f"usage: tgrec {prefix}COMMAND ...", "", *lines, "", EPILOG])


def _doctor(words: list[str]) -> int:
    try:
        import tyro  # noqa: F401
    except ImportError:  # the report is most wanted where packages are broken
        return doctor()
    return _call(doctor, "doctor", words)


def _call(function: Callable[..., int], name: str, words: list[str]) -> int:
    import tyro

    pairs_off = (tyro.conf.FlagCreatePairsOff,)
    status: int = tyro.cli(function, args=words, prog=f"tgrec {name}", config=pairs_off)
    return status


def _complain(error: BaseException, status: int, more: str = "") -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {text}{more}", file=sys.stderr)
    return status


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line, without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)
