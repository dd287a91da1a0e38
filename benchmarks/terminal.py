"""What the scripts print where, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields

from rich.console import Console

from tgrec.training import RankedRun, print_summary

RANK = int(os.environ.get("RANK", "0"))  # of this process under torchrun
console = Console(quiet=RANK > 0)


def end_with_summary(
    work: Callable[[], Sequence[RankedRun]],
    show: Callable[[Sequence[RankedRun]], None] = print_summary,
) -> None:
    """Works, shows the runs, and exits with 1 or 2 and one line where something is wrong."""
    try:
        runs = work()
    except KeyboardInterrupt as stopped:
        complain(f"{str(stopped) or 'interrupted'}; --resume continues from what was saved")
        sys.exit(130)
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        complain(f"error: {error}")
        sys.exit(2 if isinstance(error, ValueError | TypeError) else 1)
    if runs:
        show(runs)


def complain(text: str) -> None:
    """Prints one line on stderr."""
    line = " ".join(text.split())
    Console(stderr=True).print(line, style="red", highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints one line, however long."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def spell_out(arguments: list[str], options: type) -> list[str]:
    """``--resume`` alone means ``--resume True``; ``true`` and ``false`` are taken as well."""
    switches = {f"__{f.name}" for f in fields(options) if "bool" in str(f.type)}
    out: list[str] = []
    for word, after in zip(arguments, [*arguments, "--"][1:], strict=True):
        is_value = bool(out) and out[-1].replace("-", "_") in switches
        out.append(word.capitalize() if is_value else word)
        if word.replace("-", "_") in switches and after.startswith("--"):
            out.append("True")
    return out
