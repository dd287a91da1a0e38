"""``--override "lr=0.0005,batch_size=64"``: typed values by name, as TriGRec takes them."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from find_model import near

# The seed's spelling of some settings.
SEED_NAMES = {
    "num_epochs": "epochs",
    "maxlen": "max_len",
    "num_heads": "n_heads",
    "num_layers": "n_blocks",
    "hidden_dim": "d_model",
    "dropout_rate": "dropout",
}


def parse_overrides(
    text: str, kinds: Mapping[str, Any], elsewhere: Collection[str] = ()
) -> dict[str, Any]:
    """The values of ``name=value,name=value``.

    Args:
        text: What was given; empty for nothing.
        kinds: Name -> type: ``int``, ``float``, ``bool``, ``str``, a Literal, or one of these or
            None.
        elsewhere: Names that are options of their own.

    Returns:
        Name -> value, with the seed's names replaced by those used here.

    Raises:
        ValueError: If a name is unknown or stands twice, or a value is not of its type.
    """
    out: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        given, equals, value = part.partition("=")
        name = SEED_NAMES.get(given.strip(), given.strip())
        if not equals:
            raise ValueError(f"--override: {part!r} is not NAME=VALUE")
        if name not in kinds and name in elsewhere:
            raise ValueError(f"--override: {name} is an option of its own; give --{name}")
        if name not in kinds:
            known = [*kinds, *SEED_NAMES]
            raise ValueError(f"--override: there is no {given.strip()!r}{near(name, known)}")
        if name in out:
            raise ValueError(f"--override: {name!r} stands twice; leave one of them out")
        out[name] = _value(name, value.strip(), kinds[name])
    return out


def kinds_of(source: type | Callable[..., Any]) -> dict[str, Any]:
    """Name -> type of the fields of a dataclass, or of the arguments of a class."""
    hints = typing.get_type_hints(source if dataclasses.is_dataclass(source) else source.__init__)
    names = inspect.signature(source).parameters
    return {name: hints[name] for name in names if name in hints}


def _value(name: str, text: str, kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is Literal:
        allowed = list(typing.get_args(kind))
        if text not in allowed:
            raise ValueError(f"--override: {name} needs to be one of {allowed} (got {text!r})")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--override: {name} needs to be True or False (got {text!r})")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        wanted = {int: "an integer", float: "a number"}.get(kind, kind.__name__)
        raise ValueError(f"--override: {name} needs to be {wanted} (got {text!r})") from None
