"""The words of the command: which there are, and what is said to the wrong ones."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tgrec.datasets import BOARDS
from tgrec.models import MODELS
from tgrec.training import TrainSettings

Call = Callable[..., Any]

# A flag more or less is a decision: the README, the seed's users and this list are to agree.
FLAGS = {
    "model", "board", "track", "dataset", "root", "out", "record", "seed", "device", "resume",
    "weights", "eval_only", "tie_audit", "refit", "teacher", "distill_at", "distill_weight",
    "epochs", "patience", "eval_every", "batch_size", "lr", "weight_decay", "warmup_steps",
    "lr_decay", "accumulate", "clip", "windows", "precision",
    "d_model", "n_heads", "n_blocks", "d_ff", "max_len", "dropout", "mask_prob", "last_prob",
    "positions", "tgt_fusion_alpha", "tgt_learnable_fusion", "use_time", "use_graph",
    "hidden_channels", "num_neighbors", "tgt_blocks", "tgt_d_ff", "temperature", "graph_weight",
    "choose_gates", "tgt_gated", "time_vectors", "item_features",
}  # fmt: skip
SEED_FLAGS = (
    "--models tgt_bert4rec --epochs 200 --patience 20 --eval_every 1 --d_model 64 --n_heads 2 "
    "--n_blocks 2 --d_ff 256 --max_len 200 --dropout 0.2 --tgt_fusion_alpha 0.3 "
    "--tgt_learnable_fusion True --mask_prob 0.2 --lr 0.001 --weight_decay 0 --warmup_steps 0 "
    "--batch_size 256 --lr_decay none --windows last --tgt_blocks 2 --tgt_d_ff 256 --temperature 0 "
    "--graph_weight 2"
)


@pytest.fixture
def parse(ml1m: ModuleType) -> Callable[..., Any]:
    """Words -> Options."""
    config = (ml1m.tyro.conf.FlagConversionOff,)
    return lambda line: ml1m.tyro.cli(
        ml1m.Options, args=ml1m.spell_out(line.split(), ml1m.Options), config=config
    )


# ---- which there are --------------------------------------------------------------------------


def test_the_list_of_flags_is_frozen(ml1m: ModuleType) -> None:
    made_of = importlib.import_module("ml1m_options")
    assert {field.name for field in dataclasses.fields(ml1m.Options)} == FLAGS
    assert set(made_of.MODEL_FLAGS) | set(made_of.TRAIN_FLAGS) < FLAGS
    assert set(made_of.TRAIN_FLAGS) <= {field.name for field in dataclasses.fields(TrainSettings)}
    for flag, argument in made_of.MODEL_FLAGS.items():
        assert any(made_of.takes(cls, argument) for cls in MODELS.values()), flag


def test_help_names_every_flag(call: Call) -> None:
    done = call("--help", dataset=None)
    assert done.code == 0
    assert done.folders == []
    for flag in FLAGS:
        assert f"--{flag.replace('_', '-')}" in done.out


def test_all_flags_of_the_seed_are_taken(ml1m: ModuleType, parse: Call) -> None:
    options = parse(SEED_FLAGS)
    assert options.model == ("tgt_bert4rec",)
    golden, task = ml1m.golden_of("tgt_bert4rec"), type("Task", (), {"remove_seen": False})
    settings = ml1m.train_settings(options, golden, task)
    assert replace(settings, remove_seen=True) == TrainSettings(
        epochs=200, patience=20, batch_size=256, lr=1e-3
    )
    cls = MODELS["tgt_bert4rec"]
    chosen = ml1m.model_settings(options, golden, cls)
    assert chosen["fusion_alpha"] == 0.3
    assert chosen["learnable_fusion"] is True
    for num_items in (3533, 3706):  # ml1m-seed, ml1m-loo
        assert 400_000 < cls(num_items, **chosen).num_parameters() <= 510_000


@pytest.mark.parametrize("name", list(MODELS))
def test_the_golden_settings_are_taken_by_their_model(name: str, ml1m: ModuleType) -> None:
    settings = importlib.import_module("golden")
    for golden in {id(g): g for g in (ml1m.golden_of(name, t) for t in ("T1", "T2"))}.values():
        assert TrainSettings(**golden.train)
        assert MODELS[name](60, **golden.model).num_items == 60
    assert set(settings.GOLDEN_T2) <= set(settings.GOLDEN) <= set(MODELS)
    assert (name in settings.GOLDEN) == (MODELS[name](60).num_parameters() > 0)


def test_with_the_time_fewer_epochs_are_enough_and_genres_of_no_use(ml1m: ModuleType) -> None:
    of_track = {t: ml1m.golden_of("tgt_bert4rec", t) for t in ("T1", "T2", "T2-coarse")}
    assert of_track["T2"] is of_track["T2-coarse"]
    assert of_track["T2"].model == of_track["T1"].model | {"item_features": False}
    assert of_track["T2"].train["epochs"] < of_track["T1"].train["epochs"]
    largest = MODELS["tgt_bert4rec"](3706, **of_track["T1"].model, num_features=99)
    assert largest.num_parameters() == 487_059
    assert ml1m.golden_of("sasrec", "T2") is ml1m.golden_of("sasrec", "T1")


def test_who_asks_for_a_width_gets_feed_forward_layers(ml1m: ModuleType, parse: Call) -> None:
    golden, cls = ml1m.golden_of("tgt_bert4rec"), MODELS["tgt_bert4rec"]
    assert ml1m.model_settings(parse(""), golden, cls)["tgt_gated"]
    asked = ml1m.model_settings(parse("--tgt_d_ff 48"), golden, cls)
    assert asked["tgt_gated"] is False
    assert cls(60, **asked).tgt.blocks[0].up.out_features == 48
    both = ml1m.model_settings(parse("--tgt_d_ff 48 --tgt_gated True"), golden, cls)
    with pytest.raises(ValueError, match="'tgt_d_ff' needs tgt_gated=False"):
        cls(60, **both)


@pytest.mark.parametrize(
    ("line", "resume", "eval_only", "fusion"),
    [
        ("", False, False, None),
        ("--resume", True, False, None),
        ("--resume --eval-only", True, True, None),
        ("--resume True --eval_only False", True, False, None),
        ("--eval-only false --resume true", True, False, None),
        ("--tgt_learnable_fusion False --resume", True, False, False),
        ("--tgt-learnable-fusion true", False, False, True),
        ("--resume --tgt_learnable_fusion --eval-only", True, True, True),
        ("--tgt_learnable_fusion=False", False, False, False),
    ],
)
def test_switches_stand_alone_or_with_their_value(
    line: str, resume: bool, eval_only: bool, fusion: bool | None, parse: Call
) -> None:
    options = parse(line)
    assert (options.resume, options.eval_only) == (resume, eval_only)
    assert options.tgt_learnable_fusion is fusion


def test_flags_override_the_golden_settings_one_by_one(ml1m: ModuleType, parse: Call) -> None:
    golden, task = ml1m.golden_of("sasrec"), type("Task", (), {"remove_seen": True})
    plain = ml1m.train_settings(parse(""), golden, task)
    assert {k: getattr(plain, k) for k in golden.train} == golden.train
    changed = ml1m.train_settings(parse("--lr 0.5 --seed 4 --track T2"), golden, task)
    assert changed == replace(plain, lr=0.5, seed=4, track="T2")


def test_a_gate_that_is_asked_for_is_not_chosen(ml1m: ModuleType, parse: Call) -> None:
    golden, cls = ml1m.golden_of("tgt_bert4rec"), MODELS["tgt_bert4rec"]

    def settings(line: str) -> dict[str, Any]:
        return dict(ml1m.model_settings(parse(line), golden, cls))

    assert settings("")["choose_gates"]
    assert not settings("--tgt_fusion_alpha 0.3")["choose_gates"]
    assert not settings("--graph_weight 2")["choose_gates"]
    assert settings("--graph_weight 2 --choose_gates True")["choose_gates"]
    assert settings("--tgt_learnable_fusion False")["choose_gates"]
    assert not settings("--tgt_learnable_fusion True")["choose_gates"]
    assert not settings("--choose_gates False")["choose_gates"]
    enhanced = ml1m.golden_of("enhanced_bert4rec"), MODELS["enhanced_bert4rec"]
    assert ml1m.model_settings(parse(""), *enhanced)["choose_weight"]
    given = ml1m.model_settings(parse("--graph_weight 2"), *enhanced)
    assert (given["choose_weight"], given["graph_weight"]) == (False, 2)
    assert "choose_gates" not in ml1m.model_settings(
        parse("--graph_weight 2"), ml1m.golden_of("sasrec"), MODELS["sasrec"]
    )


def test_an_option_that_is_given_twice_is_refused(call: Call) -> None:
    done = call("--model sasrec --lr 1 --lr 2")
    assert (done.code, done.folders) == (2, [])
    assert "--lr is given twice" in done.error
    assert "--model is given twice" in call("--model sasrec --models markov").error


# ---- what is said to the wrong ones -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--epochs 0", "'epochs' needs to be a positive integer (got 0)"),
        ("--patience -1", "'patience' needs to be a positive integer (got -1)"),
        ("--batch_size 0", "'batch_size' needs to be a positive integer (got 0)"),
        ("--lr nan", "'lr' needs to be a positive number (got nan)"),
        ("--lr -1", "'lr' needs to be a positive number (got -1.0)"),
        ("--clip nan", "'clip' needs to be a number of at least 0 (got nan)"),
        ("--seed -1", "'seed' needs to be an integer in 0..2**32 - 1 (got -1)"),
        ("--seed 99999999999999999999", "'seed' needs to be an integer in 0..2**32 - 1"),
        ("--max_len 0", "'max_len' needs to be a positive integer (got 0)"),
        ("--d_model 0", "'d_model' needs to be a positive integer (got 0)"),
        ("--d_ff -3", "'d_ff' needs to be a positive integer (got -3)"),
        ("--n_heads 0", "'n_heads' needs to be a positive integer (got 0)"),
        ("--n_heads 3", "'d_model' (64) needs to be divisible by 'n_heads' (3)"),
        ("--dropout 1.5", "'dropout' needs to be in [0, 1) (got 1.5)"),
        ("--dropout nan", "'dropout' needs to be in [0, 1) (got nan)"),
        ("--model bert4rec --mask_prob 2", "'mask_prob' needs to be in [0, 1] (got 2.0)"),
        ("--model tgt_bert4rec --tgt_fusion_alpha 1.1", "'fusion_alpha' needs to be in [0, 1]"),
        ("--device cuda:99", "'device' 'cuda:99' cannot be used here"),
        ("--device gpu", "'device' 'gpu' cannot be used here"),
        ("--model", "--model needs at least one of ['popularity', "),
        ("--model sasrce", "'sasrce' is no name and no FILE.py:CLASS; did you mean 'sasrec'?"),
        ("--model quux", "'quux' is no name and no FILE.py:CLASS; there are ['popularity', "),
        ("--model popularity --d_model 8", "--d_model: none of ['popularity'] has that setting"),
        ("--model sasrec --mask_prob 0.2", "--mask_prob: none of ['sasrec'] has that setting"),
        ("--board simulatd-loo", "there is no 'simulatd-loo'; did you mean 'simulated-loo'?"),
        ("--board ml1m-loo", "--board ml1m-loo is not on --dataset simulated"),
        ("--eval-only", "--eval-only: sasrec has learned parameters; give them with --weights"),
        ("--eval-only --weights x --lr 0.1", "--lr: --eval-only trains nothing"),
        ("--eval-only --weights x --teacher y", "--teacher: --eval-only trains nothing"),
        ("--distill_weight 0.3", "--distill_weight needs --teacher"),
        ("--distill_at all", "--distill_at needs --teacher"),
        ("--model sasrec markov --weights x", "--weights belongs to one model (got 2 models)"),
        ("--weights x --d_model 8", "--d_model: the model in --weights has its own"),
    ],
)
def test_a_bad_value_is_one_line_with_its_name_and_leaves_nothing(
    words: str, said: str, call: Call
) -> None:
    done = call("--model sasrec" if "--model" not in words else "", words)
    assert done.code == 2
    assert said in done.error
    assert "Traceback" not in done.out + done.err
    assert done.folders == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--modle sasrec", "--model"),
        ("--batchsize 3", "--batch-size"),
        ("--tgt_learnable_fusion Flase", "'Flase'"),
        ("--track T3", "T2-coarse"),
        ("--epochs many", "many"),
        ("--windows first", "'random'"),
    ],
)
def test_a_word_that_cannot_be_read_is_answered_with_what_can(
    words: str, said: str, call: Call
) -> None:
    done = call(words)
    assert done.code == 2
    assert said in done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert done.folders == []


def test_nothing_is_trained_if_the_last_model_is_wrong(call: Call) -> None:
    done = call("--models popularity sasrec bert4rec --n_heads 3")
    assert "divisible by 'n_heads' (3)" in done.error
    assert done.folders == []


def test_things_that_are_not_there_are_named(call: Call, tmp_path: Path) -> None:
    done = call("--model sasrec --weights", str(tmp_path / "nothing"))
    assert f"there is no model in {str(tmp_path / 'nothing')!r}" in done.error
    done = call("--model sasrec --resume")
    assert "--resume: there is no run 'sasrec-simulated-loo-T1-seed0'" in done.error
    (tmp_path / "runs").write_text("a file")
    done = call("--model popularity")
    assert done.code == 1
    assert "runs" in done.error


# ---- data -------------------------------------------------------------------------------------


def test_without_movielens_the_first_line_says_so_and_all_outputs_name_the_simulated_set(
    call: Call, tmp_path: Path
) -> None:
    done = call("--model popularity --record", str(tmp_path / "r.jsonl"), dataset=None)
    assert done.code == 0
    first, second, *rest = done.out.splitlines()
    assert first.startswith("MovieLens-1M could not be had, so this runs on SIMULATED data.")
    assert all(word in first for word in ("https://", "md5", "TGREC_DATA", "no network in tests"))
    assert "data: SIMULATED" in second
    assert sum("SIMULATED" in line for line in rest) >= 2  # the titles of the tables
    folder = done.runs / "popularity-simulated-loo-T1-seed0"
    for file in ("config.json", "metrics.json"):
        assert "SIMULATED" in (folder / file).read_text()
    assert "SIMULATED" in (tmp_path / "r.jsonl").read_text()


@pytest.mark.parametrize(
    "words",
    ["--dataset ml1m", "--board ml1m-time", "--dataset ml100k", "--dataset ml1m --board ml1m-seed"],
)
def test_data_asked_for_by_name_are_an_error_where_they_cannot_be_had(
    words: str, call: Call
) -> None:
    done = call("--model popularity", words, dataset=None)
    assert done.code == 1
    assert all(word in done.error for word in ("https://", "md5", "TGREC_DATA", "no network"))
    assert "SIMULATED" not in done.out
    assert done.folders == []


@pytest.mark.parametrize("other", ["catalogue", "board", "class", "track"])
def test_weights_of_something_else_are_refused(
    other: str, call: Call, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = call("--model sasrec", small=True)
    weights = first.runs / first.folders[0]
    words = "--model sasrec"
    if other == "catalogue":
        fewer = tiny.before(tiny.num_events - 5)
        monkeypatch.setitem(BOARDS, "simulated-loo", replace(
            BOARDS["simulated-loo"], load=lambda root, download: fewer))  # fmt: skip
        said = "the model was trained on the catalogue"
    elif other == "board":  # the same events, split differently: its training events are targets
        monkeypatch.setitem(
            BOARDS, "simulated-x", replace(BOARDS["simulated-loo"], tag="simulated-x")
        )
        words += " --board simulated-x"
        said = "was trained on the board simulated-loo"
    elif other == "track":
        words, said = "--model sasrec --track T2", "was trained on track T1"
    else:
        words, said = "--model bert4rec", "holds a 'SASRec', not one of ['BERT4Rec']"
    done = call(words, "--weights", str(weights), "--eval-only")
    assert done.code == 2
    assert said in done.error
    assert done.folders == first.folders
