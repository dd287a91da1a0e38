"""The shape of the code: who imports whom, how long files are, and what no file may say.

Every check is a function of a folder, so that it can be shown a planted violation.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKED = ("tgrec", "benchmarks", "examples", "datasets", "tests")
MAX_LINES = 400

# Package of tgrec -> what of tgrec it may import; everything may import itself and ``tgrec``'s
# version. The same table stands in DESIGN.md.
ALLOWED: dict[str, set[str]] = {
    "data": set(),
    "nn": set(),
    "metrics": set(),
    "plots": {"data"},
    "datasets": {"data"},
    "cli": {"data", "datasets", "models", "metrics", "training", "recommend"},
    "sampler": {"data"},
    "loader": {"data", "sampler"},
    "models": {"data", "nn"},
    "training": {"data", "sampler", "loader", "models", "nn", "metrics"},
    "recommend": {
        "data", "datasets", "sampler", "loader", "models", "nn", "metrics", "training",
    },
    "testing": {
        "data", "datasets", "sampler", "loader", "models", "nn", "metrics", "training",
    },
}  # fmt: skip
# The modules beside the packages that import one: ``python -m tgrec``, and ``tgrec.Recommender``.
ENTRIES = {("tgrec", "__main__.py"): {"cli"}, ("tgrec", "__init__.py"): {"recommend"}}
# The loop and the ranking know what a model is, not which models there are. Popularity counts
# the training events, by which negatives are drawn.
MODELS_FOR_TRAINING = {"tgrec.models.base", "tgrec.models.io", "tgrec.models.popularity"}
# Folders of scripts. None is a package, and none is imported by name from another folder.
SCRIPTS = ("benchmarks", "examples", "datasets", "tests")
THIRD_PARTY = {"torch", "torch_geometric", "numpy", "pandas", "networkx", "safetensors"}

# What no file may say, and why.
FORBIDDEN: dict[str, str] = {
    r"\bpickle\.loads?\b|\bimport pickle\b|\bfrom pickle\b": "runs whatever the file says",
    r"weights_only\s*=\s*False": "torch.load unpickles without restriction",
    r"\btorch\.load\(": "weights are safetensors",
    r"\bfs\.torch_load\b": "PyG's own falls back to unrestricted unpickling",
    r"allow_pickle\s*=\s*True": "numpy unpickles",
    r"\.extractall\(": "an archive may name any path",
    r"(?<![\w.])eval\(": "runs text",
    r"(?<![\w.])exec\(": "runs text",
    r"_create_unverified_context": "takes any certificate",
    r"shell\s*=\s*True": "runs text",
}
SEARCHED = ("tgrec", "benchmarks", "examples", "datasets")


def python_files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def imports(path: Path, root: Path) -> list[str]:
    """Full names of all imported modules, those inside functions and strings of types included."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, node.module or ""]).strip(".")
            # ``from tgrec.models import base`` imports tgrec.models.base as well.
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


def import_errors(root: Path) -> list[str]:
    """Imports that the table does not allow."""
    errors = []
    for path in python_files(root, ("tgrec",)):
        parts = path.relative_to(root).parts
        own = parts[1] if len(parts) > 2 else None
        if own is not None and own not in ALLOWED:
            errors.append(f"{path.relative_to(root)}: package {own!r} is not in the table")
            continue
        allowed = ENTRIES.get(parts, _allowed(own))
        for name in imports(path, root):
            top, _, rest = name.partition(".")
            package = rest.split(".")[0]
            known = package in ALLOWED
            if top == "tgrec" and known and package != own and package not in allowed:
                errors.append(f"{path.relative_to(root)} imports {name}")
    return errors


def _allowed(own: str | None) -> set[str]:
    return set() if own is None else ALLOWED[own]


def third_party_errors(root: Path) -> list[str]:
    """The store needs torch, PyG, numpy, pandas, networkx (and safetensors), nothing else."""
    errors = []
    for path in python_files(root, ("tgrec/data", "tgrec/sampler", "tgrec/loader", "tgrec/nn")):
        for name in imports(path, root):
            top = name.partition(".")[0]
            if top not in THIRD_PARTY | {"tgrec"} and top not in sys.stdlib_module_names:
                errors.append(f"{path.relative_to(root)} imports {name}")
    return errors


def concrete_model_errors(root: Path) -> list[str]:
    """Training that imports one model would treat it differently from another."""
    modules = {f"tgrec.models.{p.stem}" for p in python_files(root, ("tgrec/models",))}
    return [
        f"{path.relative_to(root)} imports {name}"
        for path in python_files(root, ("tgrec/training",))
        for name in imports(path, root)
        if name in modules - MODELS_FOR_TRAINING - {"tgrec.models.__init__"}
        # Weekly interest is no RecModel: its own loop stands beside the one for all the others.
        and not (path.stem.startswith("weekly") and name.startswith("tgrec.models.weekly"))
    ]


def script_errors(root: Path) -> list[str]:
    """Imports of script folders, and files that would make packages of them."""
    errors = [
        f"{folder}/{path.name} makes {folder} a package, which would shadow another one"
        for folder in SCRIPTS
        for path in (root / folder).rglob("__init__.py")
    ]
    scripts = {p.stem for p in python_files(root, ("benchmarks", "examples"))}
    for path in python_files(root, CHECKED):
        for name in imports(path, root):
            top = name.partition(".")[0]
            beside = (path.parent / f"{top}.py").is_file()  # a script may use its neighbour
            if top in SCRIPTS or (top in scripts and not beside):
                errors.append(f"{path.relative_to(root)} imports {name}")
    return errors


def package_errors(root: Path) -> list[str]:
    """Folders of the library that a wheel would leave out, for want of an ``__init__.py``."""
    folders = {path.parent for path in python_files(root, ("tgrec",))}
    return [
        f"{folder.relative_to(root)} has no __init__.py"
        for folder in sorted(folders)
        if not (folder / "__init__.py").is_file()
    ]


def length_errors(root: Path) -> list[str]:
    errors = []
    for path in python_files(root, CHECKED):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            errors.append(f"{path.relative_to(root)} has {lines} lines; split it by subject")
    return errors


def forbidden_errors(root: Path) -> list[str]:
    errors = []
    for path in python_files(root, SEARCHED):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for pattern, why in FORBIDDEN.items():
                if re.search(pattern, line):
                    errors.append(f"{path.relative_to(root)}:{number}: {line.strip()} ({why})")
    return errors


def ascii_errors(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)} holds {min(c for c in text if ord(c) > 127)!r}"
        for path in python_files(root, SEARCHED)
        if not (text := path.read_text(encoding="utf-8")).isascii()
    ]


CHECKS: list[Callable[[Path], list[str]]] = [
    import_errors,
    third_party_errors,
    concrete_model_errors,
    script_errors,
    package_errors,
    length_errors,
    forbidden_errors,
    ascii_errors,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_tree_holds(check: Callable[[Path], list[str]]) -> None:
    assert check(ROOT) == []


def test_every_package_is_in_the_table_and_in_the_design() -> None:
    packages = {p.parent.name for p in (ROOT / "tgrec").glob("*/__init__.py")}
    assert packages <= ALLOWED.keys()
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    for package, allowed in ALLOWED.items():
        (row,) = re.findall(rf"^\| `{package}` \| (.*?) \|", design, flags=re.MULTILINE)
        stated = set(re.findall(r"`(\w+)`", row))
        assert stated == allowed, f"DESIGN.md, row of {package}"


def test_one_version_everywhere() -> None:
    import tgrec

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {tgrec.__version__}\n" in citation
    assert tgrec.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]


def test_the_table_has_no_cycle() -> None:
    def reach(package: str) -> set[str]:
        return ALLOWED[package] | {p for other in ALLOWED[package] for p in reach(other)}

    for package in ALLOWED:
        assert package not in reach(package)


PLANTED = [
    (import_errors, "tgrec/nn/layer.py", "from tgrec.data import History"),
    (import_errors, "tgrec/metrics/rank.py", "import tgrec.models"),
    (import_errors, "tgrec/data/graph.py", "def f():\n    from tgrec.sampler import EventIndex"),
    (import_errors, "tgrec/data/graph.py", "from ..loader import SeedLoader"),
    (import_errors, "tgrec/data/graph.py", "from tgrec import training"),
    (import_errors, "tgrec/models/mine.py", "from tgrec.sampler.history import HistorySampler"),
    (import_errors, "tgrec/models/mine.py", "if TYPE_CHECKING:\n    import tgrec.datasets.boards"),
    (import_errors, "tgrec/training/fit.py", "from tgrec.datasets import BOARDS"),
    (import_errors, "tgrec/training/fit.py", "from tgrec.testing import toy_graph"),
    (import_errors, "tgrec/datasets/a.py", "from tgrec.metrics import ndcg"),
    (import_errors, "tgrec/__init__.py", "from tgrec.data import TemporalRecGraph"),
    (import_errors, "tgrec/__init__.py", "import tgrec.cli.main"),
    (import_errors, "tgrec/__main__.py", "from tgrec.training import fit"),
    (import_errors, "tgrec/cli/a.py", "from tgrec.testing import toy_graph"),
    (import_errors, "tgrec/plots/a.py", "from tgrec.models import MODELS"),
    (import_errors, "tgrec/data/a.py", "from tgrec.plots import draw_ego"),
    (import_errors, "tgrec/extra/a.py", "import math"),
    (third_party_errors, "tgrec/data/graph.py", "import scipy.sparse"),
    (third_party_errors, "tgrec/nn/layer.py", "from rich import print"),
    (third_party_errors, "tgrec/data/draw.py", "import matplotlib"),
    (concrete_model_errors, "tgrec/training/fit.py", "from tgrec.models.sasrec import SASRec"),
    (concrete_model_errors, "tgrec/training/fit.py", "from tgrec.models import sasrec"),
    (concrete_model_errors, "tgrec/training/weekly.py", "from tgrec.models import sasrec"),
    (script_errors, "tgrec/data/graph.py", "import benchmarks.ml1m"),
    (script_errors, "tgrec/datasets/a.py", "from datasets.ml1m import prepare"),
    (script_errors, "examples/a.py", "import ml1m"),
    (script_errors, "tests/data/test_a.py", "from tests.data import conftest"),
    (script_errors, "benchmarks/__init__.py", ""),
    (script_errors, "datasets/ml1m/__init__.py", ""),
    (package_errors, "tgrec/extra/layer.py", "x = 1"),
    (length_errors, "tgrec/data/long.py", "x = 1\n" * (MAX_LINES + 1)),
    (length_errors, "tests/data/test_long.py", "x = 1\n" * (MAX_LINES + 1)),
    (forbidden_errors, "tgrec/models/a.py", "import pickle"),
    (forbidden_errors, "tgrec/models/a.py", "x = pickle.load(f)"),
    (forbidden_errors, "tgrec/models/a.py", "from pickle import load"),
    (forbidden_errors, "tgrec/models/a.py", "torch.load(path)"),
    (forbidden_errors, "tgrec/models/a.py", "load(path, weights_only=False)"),
    (forbidden_errors, "benchmarks/a.py", "np.load(path, allow_pickle = True)"),
    (forbidden_errors, "tgrec/datasets/a.py", "archive.extractall(folder)"),
    (forbidden_errors, "examples/a.py", "eval(text)"),
    (forbidden_errors, "examples/a.py", "exec(text)"),
    (forbidden_errors, "tgrec/datasets/a.py", "ssl._create_unverified_context()"),
    (forbidden_errors, "tgrec/training/a.py", "subprocess.run(line, shell=True)"),
    (forbidden_errors, "tgrec/datasets/a.py", "fs.torch_load(path)"),
    (ascii_errors, "tgrec/data/a.py", "x = 'caf\u00e9'"),
]


@pytest.mark.parametrize(("check", "where", "text"), PLANTED)
def test_a_planted_violation_is_found(
    check: Callable[[Path], list[str]], where: str, text: str, tmp_path: Path
) -> None:
    _small_tree(tmp_path)
    assert check(tmp_path) == []
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    assert len(check(tmp_path)) >= 1


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_every_pattern_has_a_violation_that_no_other_one_finds(pattern: str) -> None:
    """Otherwise it could be taken out of the table and nothing would fail."""
    lines = [text for check, _, text in PLANTED if check is forbidden_errors]
    found = [{p for p in FORBIDDEN if re.search(p, line)} for line in lines]
    assert {pattern} in found
    assert all(found)


@pytest.mark.parametrize(
    "text",
    ["model.eval()", "self.evaluate(1)", "spec.loader.exec_module(m)", "allow_pickle=False"],
)
def test_harmless_lines_are_not_taken_for_forbidden_ones(text: str, tmp_path: Path) -> None:
    (tmp_path / "tgrec").mkdir()
    (tmp_path / "tgrec" / "a.py").write_text(text + "\n")
    assert forbidden_errors(tmp_path) == []


def _small_tree(root: Path) -> None:
    """A tree in which everything is as it should be."""
    files = {
        "tgrec/__init__.py": "__version__ = '0'",
        "tgrec/data/__init__.py": "import torch\nfrom tgrec.data.graph import x",
        "tgrec/data/graph.py": "import os\nx = 1",
        "tgrec/nn/__init__.py": "",
        "tgrec/metrics/__init__.py": "",
        "tgrec/sampler/__init__.py": "",
        "tgrec/datasets/__init__.py": "",
        "tgrec/models/__init__.py": "from tgrec.models.sasrec import x",
        "tgrec/models/sasrec.py": "from tgrec.data import x",
        "tgrec/training/__init__.py": "",
        "tgrec/training/fit.py": "from tgrec.models.base import RecModel",
        "benchmarks/ml1m.py": "import golden\nfrom tgrec.training import fit",
        "benchmarks/golden.py": "x = 1",
        "examples/quickstart.py": "import tgrec.data",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
