"""The commands as a person types them: data, help, and every slip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tgrec.cli.main import COMMANDS
from tgrec.datasets import data_card, load_graph

Run = Callable[..., tuple[int, str, str]]


# ---- data --------------------------------------------------------------------------------------


def test_import_keeps_what_was_read(tgrec: Run, home: Path) -> None:
    status, out, _ = tgrec("data", "import", home, "--out", "films.tgrec")
    assert status == 0
    assert "events" in out
    assert "written to films.tgrec" in out
    graph = load_graph(home / "films.tgrec")
    assert (graph.num_users, graph.num_items, graph.num_events) == (8, 9, 8 * 7)
    status, out, _ = tgrec("data", "card", "films.tgrec", "--json")
    assert status == 0
    assert json.loads(out) == json.loads(json.dumps(data_card(graph).to_dict()))


def test_columns_may_be_named(tgrec: Run, home: Path) -> None:
    (home / "odd.csv").write_text("who,what,when\nann,jam,2013-01-01\nann,tea,2013-01-02\n")
    status, out, _ = tgrec("data", "card", "odd.csv", "--user", "who", "--item=what", "--time",
                           "when", "--json")  # fmt: skip
    assert (status, json.loads(out)["events"]) == (0, 2)
    status, _, err = tgrec("data", "card", "odd.csv")
    assert status == 2
    assert "odd.csv: 'user': none of the columns ['who', 'what', 'when']" in err


# ---- slips -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("trian x", 2, "there is no command 'trian'; did you mean 'tgrec train'?"),
        ("data crad x", 2, "did you mean 'tgrec data card'?"),
        ("card x", 2, "did you mean 'tgrec data card'?"),
        ("xyzzy", 2, "there are doctor, data import"),
        ("train . --model sasrek", 2, "there is no model 'sasrek'; did you mean 'sasrec'?"),
        ("train . --model sasrec --fusion_alpha 1", 2, "Unrecognized options: --fusion"),
        ("train . --model sasrec --epoch 1", 2, "Perhaps you meant"),
        ("train . --model sasrec --n_heads 3 --d_model 8", 2, "n_heads"),
        ("train . --model sasrec --epochs 0", 2, "'epochs' needs to be a positive integer (got 0)"),
        ("train --model sasrec", 2, "required"),
        ("train . --model sasrec --device gpu", 2, "'device' 'gpu' cannot be used here"),
        ("data card ratings.dta", 1, "did you mean 'ratings.dat'?"),
        ("data card ml-1n", 1, "did you mean 'ml-1m'?"),
        ("data card ratings.dat --user who", 2, "'user': there is no column 'who' among"),
        ("data card simulated --user who", 2, "--user is for tables; simulated is none"),
        ("data import . --out films.csv", 2, "--out needs to end in .tgrec"),
        ("recommend film --user_id 77", 2, "there is no user 77"),
        ("recommend film --user_id \u00b2", 2, "there is no user '\u00b2'"),
        ("recommend film --user_id 2 --user 3", 2, "--user_id is given twice"),
        ("train . --model markov --init_from film", 2, "'init_from': SkipMarkov has no parameters"),
        ("recommend film --user_id 77", 2, "for somebody new ask with a history"),
        ("recommend film", 2, "--user_id, --history or --profile is needed"),
        ("recommend film --profile gender", 2, "like gender=F,age=25 (got 'gender')"),
        ("recommend film --profile gender=F", 2, "'profile': SASRec reads no features"),
        ("recommend --user_id 1", 2, "one of FOLDER and --model_path is needed"),
        ("recommend nowhere --user_id 1", 1, "there is no recommender in 'nowhere'"),
        ("recommend flm --user_id 1", 1, "did you mean 'film'?"),
        ("data card other.csv --items ratings.dta", 1, "did you mean 'ratings.dat'?"),
        ("similar film --item_id 4", 2, "there is no item '4'"),
        ("compare film", 2, "at least two different names or folders"),
        ("compare popularity markov", 2, "--data is needed"),
        ("compare film markof", 2, "did you mean 'markov'?"),
        ("compare film markov --baseline sasrec", 2, "--baseline: 'sasrec' is none of"),
        ("compare film markov --data other.csv", 2, "have other events"),
    ],
)
def test_slips(tgrec: Run, saved: Path, words: str, status: int, message: str) -> None:
    found, out, err = tgrec(*words.split())
    assert found == status, out + err
    assert message in " ".join((out + err).replace("\u2502", " ").split())


def test_help_names_every_command_and_status(tgrec: Run) -> None:
    status, out, _ = tgrec("--help")
    assert status == 0
    assert all(f"  {name} " in out for name in COMMANDS)
    assert all(f"\n  {code} " in out for code in (0, 1, 2, 130))
    assert tgrec()[1] == out
    assert "data card" in tgrec("data")[1]
    for name in COMMANDS:
        status, out, _ = tgrec(*name.split(), "--help")
        assert status == 0
        assert "--json" in out
