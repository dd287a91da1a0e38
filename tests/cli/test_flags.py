"""Words of a command line before they are parsed, and the settings that they become."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import tyro

from tgrec.cli.ask import recommend
from tgrec.cli.flags import (
    SEED_SETTINGS,
    given,
    model_flags,
    options_class,
    refuse_repeated,
    spell_out,
    training_flags,
)
from tgrec.cli.train import TrainOptions
from tgrec.models import MODELS
from tgrec.training import TrainSettings

FLAGS = [*model_flags("sasrec", MODELS["sasrec"]), *training_flags()]
OPTIONS = options_class(TrainOptions, FLAGS, "title")


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        ("--resume", "--resume True"),
        ("--resume=false", "--resume False"),
        ("--use-wandb=TRUE --lr=0.1", "--use-wandb True --lr=0.1"),
        ("--use_wandb --resume=True", "--use_wandb True --resume True"),
        ("--model=true", "--model=true"),
    ],
)
def test_switches_with_and_without_a_value(words: str, spelled: str) -> None:
    assert spell_out(words.split(), OPTIONS) == spelled.split()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("--user_id 2 --user_id 3", "--user_id"),
        ("--user_id=2 --user 2", "--user_id"),
        ("--user-id 2 -k 3 --user 2", "--user_id"),
        ("-k 3 --top-k 4", "--k"),
        ("-k 3 --k=4", "--k"),
        ("--json --json", "--json"),
    ],
)
def test_a_flag_given_twice_is_refused(words: str, flag: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag} is given twice; give it once"):
        refuse_repeated(words.split(), recommend)


def test_aliases_of_settings_count_as_the_setting() -> None:
    with pytest.raises(ValueError, match="--d_model is given twice"):
        spell_out("--d_model 8 --hidden-size 16".split(), OPTIONS)
    with pytest.raises(ValueError, match="--model is given twice"):
        spell_out("-m sasrec --model markov".split(), OPTIONS)


def test_values_may_be_alike() -> None:
    def take(history: Annotated[tuple[int, ...], tyro.conf.arg(aliases=["-x"])]) -> None: ...

    refuse_repeated("folder --history -5 -5 same same --user_id 2 2".split(), take)


def parse(model: str, *words: str) -> tuple[dict[str, Any], Any]:
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
