"""Reads a pickled ``dict`` of users and lists of items, without an unpickler.

A pickle is a program. This reads it as a list of instructions and follows those that make dicts,
lists and integers; at any other one it stops. Nothing can be imported, called or built in it, so
neither can a file run code, nor does one object stand in two places (the memo is never read back),
which keeps what is read as large as the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any

from tgrec.datasets._fetch import DataFileError, RawFile

_SKIPPED = frozenset({"PROTO", "MEMOIZE", "BINPUT", "LONG_BINPUT"})
_INTEGERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1"})
_ALLOWED = sorted(
    _SKIPPED
    | _INTEGERS
    | {"FRAME", "MARK", "EMPTY_DICT", "EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS"}
    | {"STOP"}
)
_MARK = object()


def read_pickled_lists(raw: RawFile) -> dict[int, list[int]]:
    """The dict that a file holds.

    Raises:
        DataFileError: If the file holds anything but a dict from distinct integers to lists of
            integers, is cut short, or goes on behind its end; names file, offset and instruction.
    """
    stack: list[Any] = []
    for name, argument, offset in _instructions(raw):
        try:
            if name in _INTEGERS:
                stack.append(_integer(argument))
            elif name in ("EMPTY_LIST", "EMPTY_DICT"):
                stack.append([] if name == "EMPTY_LIST" else {})
            elif name == "MARK":
                stack.append(_MARK)
            elif name in ("APPEND", "APPENDS"):
                _extend(stack, _taken(stack, 1 if name == "APPEND" else None))
            elif name in ("SETITEM", "SETITEMS"):
                _update(stack, _taken(stack, 2 if name == "SETITEM" else None))
            elif name == "FRAME" and argument > len(raw.data) - offset - 9:
                raise ValueError(f"the frame of {argument} bytes is longer than the file")
            elif name == "STOP":
                return _result(stack, raw, offset)
        except (ValueError, IndexError) as error:
            reason = "the stack is empty" if isinstance(error, IndexError) else error
            raise _refusal(raw, offset, name, reason) from None
    raise _refusal(raw, len(raw.data), "none", "the file has no end")


def _instructions(raw: RawFile) -> Iterator[tuple[str, Any, int]]:
    """(name, argument, offset) of the instructions, none of them but allowed ones."""
    last = 0
    try:
        for code, argument, position in pickletools.genops(raw.data):
            last = position or 0
            if code.name not in _ALLOWED:
                raise _refusal(raw, last, code.name, f"only {', '.join(_ALLOWED)} are read")
            yield code.name, argument, last
    except DataFileError:
        raise
    except (ValueError, OverflowError) as error:  # cut short, or an unknown instruction
        reason = str(error).partition(" (")[0]
        raise _refusal(raw, last, "after it", f"the file is damaged: {reason[:120]}") from None


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise ValueError("an integer of at most 64 bits is expected")
    return value


def _taken(stack: list[Any], count: int | None) -> list[Any]:
    """Pops the last ``count`` objects, or those above the last mark and the mark."""
    if count is None:
        place = len(stack) - 1
        while stack[place] is not _MARK:
            if place == 0:
                raise ValueError("there is no mark")
            place -= 1
        values = stack[place + 1 :]
        del stack[place:]
    else:
        values = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        if len(values) < count:
            raise IndexError
    if any(value is _MARK for value in values):
        raise ValueError("a mark stands where a value is expected")
    return values


def _extend(stack: list[Any], values: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, list) or not all(isinstance(v, int) for v in values):
        raise ValueError("only integers are put into lists")
    target.extend(values)


def _update(stack: list[Any], values: list[Any]) -> None:
    target, keys, lists = stack[-1], values[::2], values[1::2]
    if not isinstance(target, dict) or len(keys) != len(lists):
        raise ValueError("pairs of a user and a list are put into dicts")
    for user, items in zip(keys, lists, strict=True):
        if not isinstance(user, int) or not isinstance(items, list):
            raise ValueError("a user is an integer and has a list")
        if user in target:
            raise ValueError(f"user {user} stands twice")
        target[user] = items


def _result(stack: list[Any], raw: RawFile, offset: int) -> dict[int, list[int]]:
    if len(stack) != 1 or not isinstance(stack[0], dict):
        raise ValueError("one dict is expected at the end")
    if offset + 1 != len(raw.data):
        raise ValueError(f"{len(raw.data) - offset - 1} bytes stand behind the end")
    return stack[0]


def _refusal(raw: RawFile, offset: int, name: str, reason: object) -> DataFileError:
    return DataFileError(
        f"{raw.path}: at byte {offset}, instruction {name}: {reason}; this reads a pickled dict of "
        f"users and lists of items, and nothing else. Fetch the file again, or write the events "
        f"into a CSV file with a column for the domain"
    )
