"""From ``--model NAME`` or ``--model FILE.py:CLASS`` to a class, and from records to names."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from pathlib import Path

from tgrec.models import MODELS, RecModel
from tgrec.training import RunRecord


def find_model(name: str) -> tuple[str, type[RecModel]]:
    """The class of a name in MODELS, or of FILE.py:CLASS."""
    if name in MODELS:
        return name, MODELS[name]
    path, _, attribute = name.rpartition(":")
    if name.endswith(".py"):
        raise ValueError(f"--model {name}: which class of it? Write {name}:CLASS")
    if not path.endswith(".py"):
        raise ValueError(
            f"--model: {name!r} is no name and no FILE.py:CLASS{near(name, [*MODELS])}"
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"--model: there is no file {path!r}")
    # A name of its own: a file called json.py must not become the module json of everybody.
    module_name = f"tgrec_model_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--model: {path!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"line {f.lineno}: " for f in frames if Path(f.filename).name == Path(path).name]
        what = f"{''.join(where[-1:])}{type(error).__name__}: {error}"
        raise ValueError(f"--model: {path} cannot be imported ({what})") from error
    cls = getattr(module, attribute, None)
    if not (isinstance(cls, type) and issubclass(cls, RecModel)):
        found = {k: v for k, v in vars(module).items() if isinstance(v, type)}
        own = [k for k, v in found.items() if v.__module__ == spec.name and issubclass(v, RecModel)]
        raise ValueError(f"--model: {path} has no RecModel {attribute!r}{near(attribute, own)}")
    return attribute, cls


def made_as(record: RunRecord) -> str:
    """The name in MODELS of a recorded model that tables call otherwise (RecModel.name_of)."""
    named = [n for n, cls in MODELS.items() if cls.name_of(n, record.settings) == record.model]
    return named[0] if named else record.model


def called(record: RunRecord) -> str:
    """What tables call a recorded model; older records have the name in MODELS."""
    cls = MODELS.get(record.model)
    return record.model if cls is None else cls.name_of(record.model, record.settings)


def near(name: str, known: list[str]) -> str:
    """What to say after a name that does not exist."""
    spelled = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"; did you mean {spelled[close[0]]!r}?" if close else f"; there are {known}"
