"""The commands as a person types them: from a file to recommendations, and every slip."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tgrec.cli.ask import read_profile
from tgrec.cli.flags import SEED_SETTINGS, given, model_flags, options_class, spell_out
from tgrec.cli.main import COMMANDS, main
from tgrec.cli.train import TrainOptions, _sentences
from tgrec.data import RecBatch, TemporalRecGraph
from tgrec.datasets import data_card, load_graph, save_graph, simulate_movielens
from tgrec.models import MODELS, SASRec
from tgrec.recommend import Recommender
from tgrec.training import TrainSettings

USERS, ITEMS = 8, 9
TITLES = [f"Film {i} ({1990 + i})" for i in range(1, ITEMS + 1)]
TINY = ["--d_model", "8", "--n_blocks", "1", "--d_ff", "8", "--max_len", "6", "--epochs", "1"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of films: everybody walks through them in a circle, from another start."""
    folder = tmp_path_factory.mktemp("home")
    rows = [
        f"{user}::0{1 + (user + step) % ITEMS}::{1 + step}::{978300000 + 100 * step + user}"
        for user in range(1, USERS + 1)
        for step in range(7)
    ]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    films = [f"0{i}::{title}::Drama|War" for i, title in enumerate(TITLES, start=1)]
    (folder / "movies.dat").write_text("\n".join(films) + "\n")
    (folder / "other.csv").write_text("user,item\n1,2\n1,3\n1,4\n")
    return folder


@pytest.fixture
def tgrec(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``tgrec("train", ...)``: status, what was printed, what was complained."""
    monkeypatch.chdir(home)

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # pytest makes errors of them
            with pytest.raises(SystemExit) as done:
                main([str(word) for word in words])
        status = done.value.code
        assert isinstance(status, int)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run


@pytest.fixture(scope="module")
def saved(home: Path) -> Path:
    """A small recommender that ``tgrec train`` wrote."""
    with pytest.raises(SystemExit) as done:
        main(["train", str(home), "--model", "sasrec", *TINY, "--seed", "3", "--out",
              str(home / "film")])  # fmt: skip
    assert done.value.code == 0
    return home / "film"


# ---- data --------------------------------------------------------------------------------------


def test_import_keeps_what_was_read(tgrec: Run, home: Path) -> None:
    status, out, _ = tgrec("data", "import", home, "--out", "films.tgrec")
    assert status == 0
    assert "events" in out
    assert "written to films.tgrec" in out
    graph = load_graph(home / "films.tgrec")
    assert (graph.num_users, graph.num_items, graph.num_events) == (USERS, ITEMS, 7 * USERS)
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


# ---- training ----------------------------------------------------------------------------------


def test_training_leaves_a_recommender(saved: Path) -> None:
    rec = Recommender.load(saved)
    assert rec.model.config["d_model"] == 8
    about = json.loads((saved / "train.json").read_text())
    assert about["training"] == {"epochs": 1, "seed": 3}
    assert about["result"]["epochs"] == 1


def parse(model: str, *words: str) -> tuple[dict[str, Any], Any]:
    import tyro

    flags = model_flags(model, MODELS[model])
    options = options_class(TrainOptions, flags, "title")
    chosen = tyro.cli(options, args=spell_out(["data", *words], options))
    return given(chosen, flags, model), chosen


@pytest.mark.parametrize(
    ("model", "words", "expected"),
    [
        ("sasrec", "--hidden_size 16 --num-heads 4 --num_layers 3 --seq_length 9",
         {"d_model": 16, "n_heads": 4, "n_blocks": 3, "max_len": 9}),
        ("sasrec", "", {}),
        ("tgt_bert4rec", "--tgt_fusion_alpha 0.5 --tgt_learnable_fusion false",
         {"fusion_alpha": 0.5, "learnable_fusion": False}),
        ("tgt_bert4rec", "--learnable-fusion --use_time False",
         {"learnable_fusion": True, "use_time": False}),
        ("tgt_bert4rec", "--learnable-fusion=true --use_time=False --use_wandb=false",
         {"learnable_fusion": True, "use_time": False}),
        ("sage", "--num_neighbors 7 2 --seeds_per_user 5",
         {"num_neighbors": (7, 2), "seeds_per_user": 5}),
    ],
)  # fmt: skip
def test_flags_become_settings(model: str, words: str, expected: dict[str, Any]) -> None:
    assert parse(model, *words.split())[0] == expected


def test_the_seeds_settings_of_the_enhanced_model() -> None:
    settings, _ = parse("enhanced_bert4rec")
    wanted = {"d_model": 256, "n_heads": 4, "n_blocks": 4, "max_len": 50, "dropout": 0.2}
    assert settings == wanted
    settings, chosen = parse(
        "enhanced_bert4rec", *"--hidden_size 8 --rating_prediction 0.5 --use_wandb".split()
    )
    assert settings == {**wanted, "d_model": 8, "task_weights": {"rating_prediction": 0.5}}
    assert chosen.use_wandb is True
    fit = {k: v for k, v in SEED_SETTINGS["enhanced_bert4rec"].items() if k not in wanted}
    assert fit == {"batch_size": 64, "lr": 1e-4, "epochs": 100, "patience": 15}
    TrainSettings(**fit)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_flags(name: str) -> None:
    flags = model_flags(name, MODELS[name])
    options_class(TrainOptions, flags, "title")
    assert not [flag.name for flag in flags if flag.help == f"See {MODELS[name].__name__}."]
    assert "num_items" not in {flag.name for flag in flags}


def test_wandb_hears_of_every_epoch_as_it_ends(
    tgrec: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", home, "--model", "sasrec", *TINY[:-2], "--epochs", "2", "--out",
             tmp_path / "r", "--use_wandb"]  # fmt: skip
    assert "python -m pip install wandb" in tgrec(*words)[2]
    (tmp_path / "wandb.py").write_text(
        "import pathlib\n"
        f"out = pathlib.Path({str(tmp_path / 'r')!r})\n"
        "class Config(dict):\n"
        "    def update(self, values, allow_val_change=False):\n"
        "        assert allow_val_change, 'a setting may be said in full only at the end'\n"
        "        super().update(values)\n"
        "class Session:\n"
        "    summary, config = {}, Config()\n"
        "    def log(self, entry, step):\n"
        "        epochs = len((out / 'history.jsonl').read_text().splitlines())\n"
        "        done = (out / 'recommender.json').exists()\n"
        "        print('LOGGED', step, epochs, done, entry['val/NDCG@10'] >= 0, sorted(entry)[0])\n"
        "    def finish(self): print('DONE', self.summary['epochs'], self.config['max_len'])\n"
        "def init(project, config): print('CONFIG', config['d_model']); return Session()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    status, out, _ = tgrec(*words)
    monkeypatch.delitem(sys.modules, "wandb")
    assert status == 0
    said = [line for line in out.splitlines() if line.split()[0] in ("CONFIG", "LOGGED", "DONE")]
    assert said == ["CONFIG 8", "LOGGED 1 1 False True loss", "LOGGED 2 2 False True loss",
                    "DONE 2 6"]  # fmt: skip


def history_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_an_interrupted_training_goes_on_bit_equal(
    tgrec: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", home, "--model", "sasrec", *TINY[:-2], "--epochs", "3", "--batch_size", "2",
             "--json", "--out"]  # fmt: skip
    assert tgrec(*words, tmp_path / "whole")[0] == 0
    steps, terms = iter(range(1, 100)), SASRec.loss_terms

    def interrupting(self: SASRec, batch: RecBatch) -> Any:
        if next(steps) == 6:  # in the second epoch of four steps
            signal.raise_signal(signal.SIGINT)
        return terms(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SASRec, "loss_terms", interrupting)
        status, out, _ = tgrec(*words, tmp_path / "parts")
    assert status == 130
    assert (json.loads(out)["stopped"], json.loads(out)["epochs"]) == ("interrupted", 1)
    assert "--resume goes on" in _sentences(json.loads(out))
    Recommender.load(tmp_path / "parts")  # already one to ask
    status, _, err = tgrec(*words, tmp_path / "parts", "--resume", "--lr", "0.5")
    assert status == 2
    assert "lr: 0.001 -> 0.5" in err
    status, out, _ = tgrec(*words, tmp_path / "parts", "--resume")
    assert (status, json.loads(out)["epochs"]) == (0, 3)
    weights = [(tmp_path / f / "model" / "model.safetensors") for f in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    epochs = [history_of(tmp_path / f) for f in ("whole", "parts")]
    assert [e["loss"] for e in epochs[0]] == [e["loss"] for e in epochs[1]]
    # Nothing is left to resume, and it is said.
    status, _, err = tgrec(*words, tmp_path / "parts", "--resume")
    assert status == 1
    assert "start the run without --resume" in err


def test_a_teacher_is_learned_from_and_not_saved(
    tgrec: Run, home: Path, saved: Path, tmp_path: Path
) -> None:
    words = ["train", home, "--model", "gru4rec", "--d_model", "4", "--epochs", "1", "--out"]
    status, _, err = tgrec(*words, tmp_path / "a", "--distill-weight", "0.5")
    assert status == 2
    assert "'distill_weight' is of no use without 'teacher'" in err
    status, _, err = tgrec(*words, tmp_path / "a", "--teacher", saved, "--distill-weight", "0.25")
    assert status == 0, err
    assert tgrec(*words, tmp_path / "b")[0] == 0
    taught, alone = (history_of(tmp_path / f) for f in "ab")
    assert len(taught[0]["losses"]) == 2  # that of the labels, and the teacher's
    assert "losses" not in alone[0]
    how = [
        "--teacher",
        saved,
        "--distill-at",
        "all",
        "--max_len",
        Recommender.load(saved).model.config["max_len"],
    ]
    status, _, err = tgrec(*words, tmp_path / "all", *how)
    assert status == 0, err
    assert "losses" not in history_of(tmp_path / "all")[0]  # soft labels are no part of their own
    rec = Recommender.load(tmp_path / "a")
    assert rec.name == "gru4rec"
    names = [set(load_file(tmp_path / f / "model" / "model.safetensors")) for f in "ab"]
    assert names[0] == names[1]
    about = json.loads((tmp_path / "a" / "train.json").read_text())
    assert about["training"] == {"epochs": 1, "teacher": "film", "distill_weight": 0.25}
    status, _, err = tgrec("train", "other.csv", *words[2:], tmp_path / "c", "--teacher", saved)
    assert status == 2
    assert "'teacher' knows other items" in err


# ---- asking ------------------------------------------------------------------------------------


def test_answers_are_those_of_the_recommender(tgrec: Run, saved: Path) -> None:
    rec = Recommender.load(saved)
    status, out, _ = tgrec("recommend", saved, "--user_id", "2", "--k", "2", "--json")
    assert status == 0
    assert json.loads(out) == rec.recommend(2, 2).astype(object).to_dict("records")
    assert json.loads(out)[0]["title"] in TITLES
    _, out, _ = tgrec("recommend", saved, "--user", "2", "5", "-k", "1", "--json")
    assert [row["user_id"] for row in json.loads(out)] == [2, 5]
    _, out, _ = tgrec("similar", saved, "--item_id", "04", "--k", "3", "--json")
    assert json.loads(out) == rec.similar_items("04", 3).astype(object).to_dict("records")
    _, out, _ = tgrec("explain", saved, "--user_id", "2", "--item_id", "01")
    assert out.strip() == str(rec.explain(2, "01"))
    _, out, _ = tgrec("profile", saved, "--user_id", "2", "--json")
    assert json.loads(out)["events"] == 7


def test_titles_histories_and_moments(tgrec: Run, saved: Path) -> None:
    rec = Recommender.load(saved)
    by_title = tgrec("similar", saved, "--item_id", TITLES[3].upper(), "--json")
    assert by_title == tgrec("similar", saved, "--item_id", "04", "--json")
    _, out, _ = tgrec("recommend", saved, "--history", "01", TITLES[1], "--k", "2", "--json")
    wanted = rec.recommend(history=["01", "02"], top_k=2)
    assert json.loads(out) == wanted.astype(object).to_dict("records")
    _, out, _ = tgrec("recommend", saved, "--user_id", "2", "--at", "978300300", "--seen",
                      "--k", "3", "--json")  # fmt: skip
    wanted = rec.recommend(2, 3, filter_seen=False, at=978300300)
    assert json.loads(out) == wanted.astype(object).to_dict("records")
    words = ["recommend", saved, "--user_id", "2", "--seen", "--k", "3", "--json", "--at"]
    assert tgrec(*words, "978300300000")[1] == out
    year = rec.recommend(2, 3, filter_seen=False, at="2013")  # and not after 2013 seconds
    assert json.loads(tgrec(*words, "2013")[1]) == year.astype(object).to_dict("records")


def test_somebody_new_is_described(tgrec: Run, home: Path, tmp_path: Path) -> None:
    graph, _ = simulate_movielens(num_users=30, num_items=24, mean_events=6)
    save_graph(graph, home / "new.tgrec")
    words = ["train", "new.tgrec", "--model", "enhanced_bert4rec", *TINY, "--n_heads", "1"]
    assert tgrec(*words, "--out", tmp_path / "r")[0] == 0
    rec, ask = Recommender.load(tmp_path / "r"), ["recommend", tmp_path / "r", "--k", "3"]
    told: dict[str, Any] = {"gender": "F", "age": 25, "occupation": 4}
    for more, history in ([], None), (["--history", "3"], [3]):
        _, out, _ = tgrec(*ask, "--profile", "gender=F, age=25,occupation=4", *more, "--json")
        wanted = rec.recommend(profile=told, history=history, top_k=3)
        assert json.loads(out) == wanted.astype(object).to_dict("records")
    item, times = rec.recommend(profile=told, top_k=1)["item_id"][0], ["2001-01-01", "978400000.5"]
    more = ["--history", "3", "9", "--times", *times, "--profile", "gender=F"]
    given: dict[str, Any] = {"history": [3, 9], "times": ["2001-01-01", 978400000]}
    given["profile"] = {"gender": "F"}
    assert json.loads(tgrec(*ask, *more, "--json")[1]) == (
        rec.recommend(top_k=3, **given).astype(object).to_dict("records")
    )
    out = tgrec("explain", tmp_path / "r", "--item_id", str(item), *more, "--json")[1]
    assert json.loads(out) == rec.explain(item_id=item, **given).to_dict()
    errors = rec.rating_errors()
    assert errors is not None
    assert json.loads(tgrec("eval", tmp_path / "r", "--json")[1])["ratings"] == errors
    said = f"RMSE of 30 foretold ratings: {errors['model']:.4f}; of the biases"
    assert said in tgrec("eval", tmp_path / "r")[1]
    for text, message in {
        "gender=X": "'gender' needs to be one of ['F', 'M'], or its number, of [0, 1] (got 'X')",
        "gender=2": "one of ['F', 'M'], or its number, of [0, 1] (got 2",
        "occupation=chef": "'occupation' needs to be one of ['other'",
        "sex=F": "the data say no 'sex' of users, but ['age', 'gender', 'occupation'",
        "gender=F,gender=M": "like gender=F,age=25",
    }.items():
        status, _, err = tgrec(*ask, "--profile", text)
        assert status == 2
        assert message in err
    assert read_profile("a=1,b=1", {"a": {0: "1", 1: "2"}}) == {"a": "1", "b": 1.0}
    assert "for somebody new" in tgrec(*ask, "--user_id", "3", "--profile", "gender=F")[2]


def test_a_list_too_short_says_why(tgrec: Run, saved: Path) -> None:
    status, out, err = tgrec("recommend", saved, "--user_id", "2", "--k", "8")
    assert status == 0
    assert len(out.splitlines()) == 3  # a heading, and the two films that the user has not met
    assert err.startswith("warning: the list could not be filled to top_k=8")


def test_the_seeds_call(tgrec: Run, saved: Path, tmp_path: Path) -> None:
    plain = tgrec("recommend", saved, "--user_id", "2", "--k", "2", "--json")[1]
    words = ["recommend", "--user_id", "2", "--k", "2", "--json", "--model_path"]
    for path in (saved, saved / "recommender.json", saved / "model" / "model.safetensors"):
        out = tgrec(*words, path, "--metadata_path", saved / "recommender.json")[1]
        assert out == plain
    best = json.loads(plain)[0]["item_id"]
    (tmp_path / "items.csv").write_text(f"id,title\n{best},My name for it\n")
    out = tgrec(*words, saved, "--metadata_path", tmp_path / "items.csv")[1]
    assert [row["title"] for row in json.loads(out)] == ["My name for it", ""]
    status, _, err = tgrec(*words, tmp_path / "best_model.pt")
    assert status == 1
    assert "--model_path: there is no recommender at" in err


# ---- measuring ---------------------------------------------------------------------------------


def test_eval_and_compare_agree(tgrec: Run, saved: Path) -> None:
    metrics = Recommender.load(saved).evaluate().metrics()
    status, out, _ = tgrec("eval", saved, "--json")
    alone = json.loads(out)["models"][str(saved)]
    assert status == 0
    assert alone["metrics"] == metrics
    assert json.loads(out)["ratings"] is None
    low, high = alone["intervals"]["NDCG@10"]
    assert low <= metrics["full"]["NDCG@10"] <= high
    status, out, err = tgrec("compare", saved, "popularity", "--baseline", "popularity", "--json")
    both = json.loads(out)
    assert status == 0
    assert "training popularity" in err
    assert both["models"][str(saved)]["metrics"] == metrics
    (test,) = [t for t in both["tests"] if t["metric"] == "NDCG@10"]
    other = both["models"]["popularity"]["metrics"]["full"]["NDCG@10"]
    assert test["difference"] == pytest.approx(metrics["full"]["NDCG@10"] - other)


def test_models_that_were_told_different_things_are_not_compared(
    tgrec: Run, saved: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    graph = Recommender.load(saved).graph
    rec = Recommender("sasrec", d_model=8, n_blocks=1, d_ff=8, max_len=6)
    rec.fit(graph, epochs=1, track="T2", show=False).save(told)
    for words in ((saved, told), (told, "markov", "--track", "T1")):
        status, _, err = tgrec("compare", *words)
        assert status == 2
        assert "models on several tracks (['T1', 'T2'])" in err
    status, out, _ = tgrec("compare", told, "markov", "--json")
    assert status == 0
    assert json.loads(out)["track"] == "T2"


def test_tables_name_model_and_seed(tgrec: Run, saved: Path) -> None:
    status, out, _ = tgrec("compare", saved, "markov", "--sampled", "false")
    assert status == 0
    assert "sasrec (film) seed 3" in out
    assert "markov seed 0" in out
    assert "paired bootstrap" in out
    assert "uniform-100" not in out


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


def test_an_interruption_saves_and_says_so(
    tgrec: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Recommender.fit

    def interrupted(self: Recommender, data: TemporalRecGraph, **kwargs: Any) -> Recommender:
        from dataclasses import replace

        fit(self, data, **kwargs)
        assert self.result is not None
        self.result = replace(self.result, stopped="interrupted")
        return self

    monkeypatch.setattr(Recommender, "fit", interrupted)
    out = tmp_path / "r"
    assert tgrec("train", home, "--model", "markov", "--out", out)[0] == 130
    assert Recommender.load(out).name == "markov"
    assert tgrec("compare", "markov", "popularity", "--data", home)[0] == 130


def test_domains_of_a_table_and_the_name_of_the_one_that_is_asked_for(
    tgrec: Run, tmp_path: Path
) -> None:
    rows = [f"{u},{'ab'[s % 2]}{(u + s) % 9},{100 * s + u},{'ab'[s % 2]}"
            for u in range(30) for s in range(10)]  # fmt: skip
    table = tmp_path / "two.csv"
    table.write_text("user,item,time,shop\n" + "\n".join(rows))
    words = ["train", table, "--model", "trigrec", "--relation", "shop", *TINY]
    assert tgrec(*words, "--target", "b", "--out", tmp_path / "r")[0] == 0
    status, out, _ = tgrec("recommend", tmp_path / "r", "--user_id", "3", "--k", "2", "--json")
    assert status == 0
    assert {row["item_id"][0] for row in json.loads(out)} == {"b"}
    status, _, said = tgrec(*words, "--target", "c", "--out", tmp_path / "s")
    assert (status, "needs to be one of ['a', 'b'] (got 'c')" in said) == (2, True)
    wrong = [word if word != "shop" else "shops" for word in words]
    assert "'shops'" in tgrec(*wrong, "--out", tmp_path / "t")[2]


def test_training_without_arguments_asks_for_data(tgrec: Run) -> None:
    status, out, said = tgrec("train")
    assert status == 2
    assert "zip()" not in out + said
    assert "DATA" in (out + said).upper()
    assert "there is no model ''" in tgrec("train", "x.csv", "--model=")[2]


def test_json_is_all_that_is_printed(tgrec: Run, home: Path, tmp_path: Path) -> None:
    """What is said on the way, of a start and of what is chosen, goes elsewhere."""
    words = ["train", home, "--model", "tgt_bert4rec", *TINY, "--learnable_fusion", "False",
             "--choose_gates", "True", "--json"]  # fmt: skip
    assert tgrec(*words, "--out", tmp_path / "a")[0] == 0
    status, out, said = tgrec(*words, "--init_from", tmp_path / "a", "--out", tmp_path / "b")
    assert status == 0
    assert json.loads(out)["model"] == "tgt_bert4rec"
    assert "items are known there" in said
    assert "choosing on validation" in said
