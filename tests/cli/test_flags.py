"""Words of a command line before they are parsed."""

from __future__ import annotations

from typing import Annotated

import pytest
import tyro

from tgrec.cli.ask import recommend
from tgrec.cli.flags import model_flags, options_class, refuse_repeated, spell_out, training_flags
from tgrec.cli.train import TrainOptions
from tgrec.models import MODELS

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
