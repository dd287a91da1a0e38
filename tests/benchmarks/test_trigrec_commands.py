"""``benchmarks/trigrec.py``: command lines that are refused, or are for other scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Call = Callable[[str], tuple[int, str]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ablations --joint", "--joint is not read by 'ablations' (got True); choose its variant"),
        ("ablations --models sasrec", "--models is not read by 'ablations' (got ('sasrec',))"),
        ("baselines --joint", "--joint is not read by 'baselines' (got True); leave it out"),
        ("baselines --without graph", "--without is not read by 'baselines' (got ('graph',))"),
        ("baselines --inputs vectors", "--inputs is not read by 'baselines' (got 'vectors')"),
        ("baselines --resume", "--resume is not read by 'baselines'"),
        ("baselines --save_every 5", "--save_every is not read by 'baselines' (got 5)"),
        ("all --joint --save_every 5", "which --joint does not have (got 5)"),
        ("all --joint --inputs sequence", "--joint is not read with --inputs sequence"),
        ("recommend --inputs sequence --override adversary=0.7",
         "--override adversary=0.7 is not read with --inputs sequence"),
        ("recommend --inputs sequence --without separation",
         "--without separation is not read with --inputs sequence"),
        ("recommend --override spe_emb_path=a.npy,alignment=0.7",
         "--override alignment=0.7 is not read with --override spe_emb_path"),
        ("ablations --override adversary=0 --only 'no adversary'",
         "'no adversary' is the full model with --override 'adversary=0'; leave it out"),
        ("ablations --only graph", "'graph' is no variant of trigrec; did you mean 'no graph'"),
        ("all --only joint", "--only is not read by 'all' (got ('joint',)); leave it out"),
        ("train --save_every 0", "--save_every needs to be a positive integer (got 0)"),
        ("train --override device=foo", "'device' 'foo' cannot be used here"),
        ("recommend --override inputs=sequence", "inputs is an option of its own; give --inputs"),
        ("recommend", "there is no stage 1 'users-simulated-food-seed0'"),
        ("recommend --joint --override EPOCH_TO_LOAD=1", "is not read by 'recommend --joint'"),
        ("train --override SPE_DOMAIN=A", "SPE_DOMAIN is not read by 'train'"),
        ("all --override EPOCH_TO_LOAD=7", "every 2 of 24 (got 7)"),
        ("all --override spe_emb_path=no.npy", "there is no file 'no.npy'"),
        ("train --without graph --override use_graph=False", "give one of them"),
        ("train --without adversary --without graph", "--without is given twice"),
        ("train --override graph_weight=9", "graph_weight is not read by 'train'"),
        ("all --override graph_weight=nan", "'graph_weight' needs to be a weight of at least 0"),
        ("train --override LR=1", "did you mean 'lr'"),
        ("baselines --models trigrec --where pooled", "--where needs 'alone' for trigrec"),
        ("all --where alone", "--where is not read by 'all'"),
        ("train --without graph encoder", "--without graph encoder: the graph has no encoder"),
        ("recommend --inputs sequence --without encoder",
         "--without encoder is not read with --inputs sequence"),
        ("all --inputs sequence --override encode_graph=False",
         "--override encode_graph=False is not read with --inputs sequence"),
        ("baselines --override alignment=0.3", "has a setting 'alignment'"),
        ("train --override epoch=3", "did you mean 'epochs'"),
        ("baselines --models popularty", "did you mean 'popularity'"),
        ("train --joint", "--joint is not read by 'train'"),
        ("export", "there is no stage 1"),
        ("export --override SPE_DOMAIN=C", "SPE_DOMAIN needs to be one of"),
        ("train --dataset trigrec", "trigrec: no file"),
    ],
)  # fmt: skip
def test_wrong_commands(words: str, message: str, trigrec: Call, tmp_path: Path) -> None:
    code, printed = trigrec(words)
    assert code in (1, 2)
    assert message in " ".join(printed.split())
    assert not (tmp_path / "runs").exists()


def test_the_other_script_sends_boards_of_domains_here(
    ml1m: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ml1m.py", "--board", "trigrec-food"])
    with pytest.raises(SystemExit):
        ml1m.main()
    assert "measured by benchmarks/trigrec.py" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["food", "kitchen"])
def test_trigrec_of_one_domain_is_a_baseline(target: str, trigrec: Call) -> None:
    """Each domain has its own number among several; alone it is the only one."""
    words = f"baselines --models trigrec --where alone --target {target}"
    code, printed = trigrec(f"{words} --override epochs=1,d_model=8,n_heads=1,d_ff=8")
    assert code == 0
    assert "trigrec_alone" in printed
