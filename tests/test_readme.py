"""What the pages say has to work: code blocks, command lines, names, links.

python tests/test_readme.py     # runs the Python blocks of README.md and nothing else
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "DESIGN.md", "benchmarks/README.md", "examples/README.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for name, body in FENCE.findall(text) if name == language]


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block as somebody would who pasted it into a file elsewhere."""
    script = folder / "block.py"
    script.write_text(code, encoding="utf-8")
    # The checkout is found also where tgrec is not installed (as under plain pytest).
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def commands(page: str) -> list[list[str]]:
    """Every command of the shell blocks of a page, split into words."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split(" && ")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


@functools.cache
def flags_of(*script: str) -> frozenset[str]:
    """The flags that ``--help`` of a script (or of ``-m`` and more words) lists."""
    done = subprocess.run(
        [sys.executable, *script, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return frozenset(flag.replace("_", "-") for flag in re.findall(r"--[\w-]+", done.stdout))


def test_python_blocks_run(tmp_path: Path) -> None:
    codes = blocks("README.md", "python")
    assert codes
    for code in codes:
        done = run_python(code, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "NDCG@10" in done.stdout
        assert "Simulated Film" in done.stdout


def test_the_examples_are_short() -> None:
    for code, most in zip(blocks("README.md", "python"), (8, 24), strict=True):
        assert sum(1 for line in code.splitlines() if line and not line.startswith("#")) <= most


def test_commands_name_scripts_and_flags_that_exist() -> None:
    seen = 0
    for page in PAGES:
        for words in commands(page):
            if words[0] == "tgrec":
                words = ["python", "-m", *words]
            assert words[0] == "python", f"{page}: {shlex.join(words)}"
            if words[1] == "-m" and words[2] in ("pip", "pytest"):
                continue
            script = words[1:2]
            if words[1] == "-m" and words[3] != "doctor":
                script = words[1 : 5 if words[3] == "data" else 4]
                names = (
                    ["--model", words[words.index("--model") + 1]] if words[3] == "train" else []
                )
                script += names  # the flags of train are those of its model
            elif words[1] == "-m":
                assert words[2:4] == ["tgrec", "doctor"], f"{page}: {shlex.join(words)}"
                script = words[1:4]
            else:
                assert (ROOT / words[1]).is_file(), f"{page}: {shlex.join(words)}"
            flags = [w.partition("=")[0].replace("_", "-") for w in words if w.startswith("--")]
            for flag in flags:
                assert flag in flags_of(*script), f"{page}: {shlex.join(words)}"
            seen += 1
    assert seen >= 8


def test_commands_name_models_that_exist() -> None:
    from tgrec.models import MODELS

    for page in PAGES:
        for words in commands(page):
            starts = [i for i, w in enumerate(words) if w in ("--model", "--models")]
            for start in starts:
                names = []
                for word in words[start + 1 :]:
                    if word.startswith("--"):
                        break
                    names.append(word)
                assert names
                for name in names:
                    file, _, cls = name.partition(":")
                    known = name in MODELS or f"class {cls}(RecModel)" in (ROOT / file).read_text()
                    assert known, f"{page}: {name}"


def test_flags_in_the_text_exist() -> None:
    scripts = (
        "benchmarks/ml1m.py",
        "benchmarks/sampler_throughput.py",
        "benchmarks/throughput.py",
        "benchmarks/trigrec.py",
        "examples/weekly_interest.py",
    )
    flags = frozenset[str]().union(*(flags_of(script) for script in scripts))
    flags |= {"--check", "--nproc-per-node", "--dist"}
    for page in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        text = re.sub(r"(?<=`)mypy --strict(?=`)", "", text)
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text):
            assert flag.replace("_", "-") in flags, f"{page}: {flag}"


def test_the_flags_of_seed_000_are_listed_and_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = (
        "models epochs patience eval_every d_model n_heads n_blocks d_ff max_len dropout "
        "tgt_fusion_alpha tgt_learnable_fusion mask_prob lr weight_decay warmup_steps batch_size"
    )
    for name in names.split():
        assert f"--{name}" in text
        assert f"--{name}".replace("_", "-") in flags_of("benchmarks/ml1m.py")


def test_models_and_boards_are_listed() -> None:
    from tgrec.datasets import BOARDS
    from tgrec.models import MODELS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z0-9_]+)` \|", text, flags=re.MULTILINE) == list(MODELS)
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for tag in BOARDS:
        assert f"`{tag}`" in text
        assert f"| `{tag}` |" in table


def test_the_two_commands_stand_first_and_name_extras_that_exist() -> None:
    first, second = blocks("README.md", "sh")[:2]
    assert first.strip().endswith("python benchmarks/ml1m.py --model tgt_bert4rec")
    assert second.strip().endswith("&& python -m pytest -n 2 --dist loadfile")
    assert len(first.strip().splitlines()) == len(second.strip().splitlines()) == 1
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.findall(r"\.\[(\w+)\]", second) == ["test"]
    assert "test" in extras["optional-dependencies"]


def test_ci_takes_the_test_line_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- ci:test -->\n```sh\n") == 1
    assert "<!-- ci:test -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, "CHANGELOG.md", "datasets/README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)\)", text):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_file_tree_is_the_real_one() -> None:
    (tree,) = [b for b in blocks("README.md", "") if b.startswith("tgrec/")]
    packages = set(re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE))
    assert packages == {p.parent.name for p in (ROOT / "tgrec").glob("*/__init__.py")}
    for folder in re.findall(r"^(\w+)/", tree, flags=re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_no_page_names_a_place_on_one_machine() -> None:
    for page in ROOT.rglob("*.md"):
        if not any(part.startswith(".") for part in page.relative_to(ROOT).parts):
            text = page.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.:/])/(home|root|work|tmp|Users)/", text), page


if __name__ == "__main__":
    for block in blocks("README.md", "python"):
        with tempfile.TemporaryDirectory() as temporary:
            result = run_python(block, Path(temporary))
        print(result.stdout, result.stderr, sep="")
        if result.returncode:
            sys.exit("a Python block of README.md failed")
    print("the Python blocks of README.md ran")
