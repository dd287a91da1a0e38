"""Flags of a model, made from its class: what it takes is taken, and nothing else."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from tgrec.models import MODELS, RecModel
from tgrec.models.enhanced_config import TASK_WEIGHTS
from tgrec.models.io import FOUND_OUT
from tgrec.training import TrainSettings

# Our name -> the names that the seed projects and others use; good for every model that has it.
ALIASES = {
    "d_model": ("hidden-size", "hidden-dim"),
    "n_heads": ("num-heads",),
    "n_blocks": ("num-layers",),
    "max_len": ("seq-length", "max-seq-length", "max-seq-len"),
    "fusion_alpha": ("tgt-fusion-alpha",),
    "learnable_fusion": ("tgt-learnable-fusion",),
    "lr": ("learning-rate",),
    "epochs": ("max-epochs",),
}
# Settings that the seed project of a model trains it with.
SEED_SETTINGS: dict[str, dict[str, Any]] = {
    "enhanced_bert4rec": {
        "d_model": 256, "n_heads": 4, "n_blocks": 4, "max_len": 50, "dropout": 0.2,
        "batch_size": 64, "lr": 1e-4, "epochs": 100, "patience": 15,
    },
}  # fmt: skip
# Where nothing is said, these follow the size of the data.
FITTED = frozenset({"epochs", "batch_size", "patience", "windows"})


@dataclass(frozen=True)
class Flag:
    """One flag: an argument of a model or of its training.

    Args:
        name: Of the flag, with underscores.
        kind: Type of its value.
        default: In words, for the help.
        help: What it is.
        group: ``model``, ``training``, or the argument of the model that is a mapping of it.
    """

    name: str
    kind: Any
    default: str
    help: str
    group: str = field(default="model")


def find_model(name: str) -> tuple[str, type[RecModel]]:
    """The name as it stands in ``MODELS``, and the class.

    Raises:
        ValueError: If there is none; says what may be meant.
    """
    plain = name.replace("-", "_").lower()
    if plain in MODELS:
        return plain, MODELS[plain]
    near = difflib.get_close_matches(plain, MODELS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"models are {', '.join(MODELS)}"
    raise ValueError(f"there is no model {name!r}; {hint}")


def model_flags(name: str, cls: type[RecModel]) -> list[Flag]:
    """A flag for each setting of a model; settings by name, such as task weights, one by one."""
    hints, helps = get_type_hints(cls.__init__), dict[str, str]()
    wider = get_type_hints(cls.from_graph)
    hints |= {k: v for k, v in wider.items() if k in hints and v == int | str}  # a name will do too
    for base in reversed(cls.__mro__[: cls.__mro__.index(RecModel)]):
        helps |= _argument_docs(base.__dict__.get("__doc__") or "")
    flags = []
    for argument, parameter in list(inspect.signature(cls).parameters.items()):
        if argument in FOUND_OUT or argument == "task_weights":
            continue
        default = SEED_SETTINGS.get(name, {}).get(argument, parameter.default)
        told = _in_words(default)
        kind = _flag_type(hints[argument])
        flags.append(Flag(argument, kind, told, helps.get(argument, f"See {cls.__name__}.")))
    if "task_weights" in hints:
        for task, weight in TASK_WEIGHTS.items():
            left = "it makes the scores" if task == "next_item" else "0 leaves it out"
            text = f"Weight of this task in the loss; {left}."
            flags.append(Flag(task, float, str(weight), text, "task_weights"))
    return flags


def training_flags(name: str | None = None) -> list[Flag]:
    """A flag for each field of :class:`TrainSettings`."""
    hints, helps = get_type_hints(TrainSettings), _argument_docs(TrainSettings.__doc__ or "")
    flags = []
    for one in dataclasses.fields(TrainSettings):
        told = "as the data need it" if one.name in FITTED else _in_words(one.default)
        told = str(SEED_SETTINGS.get(name or "", {}).get(one.name, told))
        kind = _flag_type(hints[one.name])
        flags.append(Flag(one.name, kind, told, helps[one.name], "training"))
    return flags


def options_class(base: type[Any], flags: Sequence[Flag], title: str) -> type[Any]:
    """A dataclass with the fields of ``base`` and one optional field per flag."""
    fields = []
    for flag in flags:
        aliases = tuple(f"--{alias}" for alias in ALIASES.get(flag.name, ()))
        annotation = Annotated[
            flag.kind | None,  # type: ignore[name-defined]
            tyro.conf.arg(
                aliases=aliases,
                help=flag.help,
                metavar=_metavar(flag.kind),
                help_behavior_hint=f"(default: {flag.default})",
            ),
        ]
        fields.append((flag.name, annotation, dataclasses.field(default=None)))
    made = dataclasses.make_dataclass("Options", fields, bases=(base,), kw_only=True)
    made.__doc__ = title
    return made


def given(options: Any, flags: Sequence[Flag], name: str | None = None) -> dict[str, Any]:
    """What was asked for by flags, and the seed's settings of the model ``name`` for the rest.

    Returns:
        Arguments by name; a group of its own (``task_weights``) as one mapping.
    """
    known = {flag.name for flag in flags}
    out = {k: v for k, v in SEED_SETTINGS.get(name or "", {}).items() if k in known}
    for flag in flags:
        value = getattr(options, flag.name)
        if value is None:
            continue
        if flag.group in ("model", "training"):
            out[flag.name] = value
        else:
            out.setdefault(flag.group, {})[flag.name] = value
    return out


def spell_out(words: Sequence[str], options: type[Any]) -> list[str]:
    """``--resume`` alone means ``--resume True``; ``true`` and ``false`` are taken as well.

    So is ``--resume=false``.

    Raises:
        ValueError: As :func:`refuse_repeated`.
    """
    refuse_repeated(words, options)
    hints = get_type_hints(options)
    switches = {f"--{name}" for name, kind in hints.items() if bool in get_args(kind)}
    for name in [s.removeprefix("--") for s in switches]:
        switches |= {f"--{alias.replace('-', '_')}" for alias in ALIASES.get(name, ())}
    words = [part for word in words for part in _name_and_value(word, switches)]
    out: list[str] = []
    for word, after in zip(words, [*words, "--"][1:], strict=False):
        is_value = bool(out) and _plain(out[-1]) in switches
        out.append(word.capitalize() if is_value else word)
        if _plain(word) in switches and after.lower() not in ("true", "false"):
            out.append("True")
    return out


def refuse_repeated(words: Sequence[str], options: Callable[..., Any]) -> None:
    """Raises ValueError if a flag is given twice: tyro takes the last one without a word.

    Args:
        words: What stands behind the command.
        options: The function or the dataclass that they are parsed for.
    """
    seen: set[str] = set()
    for flag in given_flags(words, options):
        if flag in seen:
            raise ValueError(
                f"--{flag} is given twice; give it once, with all values behind it if it takes "
                f"several"
            )
        seen.add(flag)


def given_flags(words: Sequence[str], options: Callable[..., Any]) -> list[str]:
    """The flags among ``words``, by the names of what they set; arguments as above."""
    names: dict[str, str] = {}
    for name, kind in get_type_hints(options, include_extras=True).items():
        for mark in getattr(kind, "__metadata__", ()):
            names |= {_plain(a): f"--{name}" for a in getattr(mark, "aliases", None) or ()}
    flags = [_plain(word.partition("=")[0]) for word in words]
    flags = [names.get(flag, flag) for flag in flags]  # an alias may be short, as -k is
    return [flag.removeprefix("--") for flag in flags if flag.startswith("--")]


def _name_and_value(word: str, switches: Collection[str]) -> list[str]:
    """``--resume=false`` as two words; all else as it is."""
    name, equals, value = word.partition("=")
    return [name, value] if equals and _plain(name) in switches else [word]


def _plain(word: str) -> str:
    return "--" + word[2:].replace("-", "_") if word.startswith("--") else word


def _flag_type(kind: Any) -> Any:
    """The type of a value on the command line: sequences as tuples, None left out."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    if type(None) in get_args(kind) and len(parts) == 1:
        return _flag_type(parts[0])
    if inspect.isclass(get_origin(kind)) and issubclass(get_origin(kind), Sequence):
        return tuple[parts[0], ...]  # type: ignore[valid-type]
    if inspect.isclass(get_origin(kind)) and issubclass(get_origin(kind), Mapping):
        raise TypeError(f"a mapping needs flags of its own (got {kind})")
    return kind


def _metavar(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"{get_args(kind)[0].__name__.upper()} ..."
    if kind == int | str:
        return "INT|STR"
    if inspect.isclass(kind):
        return "{True,False}" if kind is bool else kind.__name__.upper()
    return "{" + ",".join(map(str, get_args(kind))) + "}"


def _in_words(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "all"
    return "none" if value is None else str(value)


def _argument_docs(doc: str) -> dict[str, str]:
    """Argument -> its text in the ``Args:`` of a docstring."""
    lines = inspect.cleandoc(doc).split("\n")
    if "Args:" not in lines:
        return {}
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        head = re.fullmatch(r" {4}(\w+): (.*)", line)
        if head:
            name = head[1]
            found[name] = [head[2]]
        elif name and line.strip():
            found[name].append(line.strip())
    return {name: re.sub(r":\w+:`~?([^`]+)`", r"\1", " ".join(t)) for name, t in found.items()}
