"""``benchmarks/trigrec.py``: overrides, and what its variants change."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture
def overrides(trigrec_script: ModuleType) -> ModuleType:
    return importlib.import_module("overrides")


@pytest.fixture
def plans(trigrec_script: ModuleType) -> ModuleType:
    return importlib.import_module("trigrec_plan")


KINDS = {"lr": float, "epochs": int, "joint": bool, "path": str, "size": int | None}


def test_overrides_are_typed(overrides: ModuleType) -> None:
    text = "lr=1e-4, num_epochs=50,joint=true,path=a/b=c.npy,size=None"
    found = overrides.parse_overrides(text, KINDS)
    assert found == {"lr": 1e-4, "epochs": 50, "joint": True, "path": "a/b=c.npy", "size": None}
    assert isinstance(found["lr"], float)
    assert overrides.parse_overrides("size=3", KINDS) == {"size": 3}
    assert overrides.parse_overrides("", KINDS) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=5", "there is no 'epoch'; did you mean 'epochs'"),
        ("epochs=5.0", r"epochs needs to be an integer \(got '5.0'\)"),
        ("lr=fast", "lr needs to be a number"),
        ("joint=1", "joint needs to be True or False"),
        ("lr", "'lr' is not NAME=VALUE"),
        ("epochs=1,num_epochs=2", "'epochs' stands twice"),
    ],
)
def test_wrong_overrides(text: str, message: str, overrides: ModuleType) -> None:
    with pytest.raises(ValueError, match=message):
        overrides.parse_overrides(text, KINDS)


def test_the_keys_of_the_seed_are_known(plans: ModuleType, overrides: ModuleType) -> None:
    kinds = {**plans.TRAIN_KINDS, **plans.MODEL_KINDS, **plans.FILE_KINDS}
    text = (
        "device=cpu,seed=1225,EPOCH_TO_LOAD=80,SPE_DOMAIN=B,spe_emb_path=a.npy,"
        "cross_emb_path=b.npy,maxlen=10,lr=0.0005,batch_size=64,num_epochs=50"
    )
    found = overrides.parse_overrides(text, kinds)
    assert (found["seed"], found["max_len"], found["EPOCH_TO_LOAD"]) == (1225, 10, 80)


def test_a_weight_that_is_given_is_not_chosen_anew(plans: ModuleType) -> None:
    def chooses(text: str) -> bool:
        options = plans.Options(command="recommend", dataset="simulated", override=text)
        return bool(plans.make_plan(options).model["choose_weight"])

    assert chooses("lr=0.01")
    assert not chooses("graph_weight=8")
    assert chooses("graph_weight=8,choose_weight=True")


def test_variants_of_every_part(plans: ModuleType) -> None:
    ablations = importlib.import_module("trigrec_ablations")
    plan = plans.make_plan(plans.Options(command="ablations", dataset="simulated"))
    full, *others = [
        ablations.changed(plan, change).model for change in ablations.chosen(()).values()
    ]
    differing = [{k for k in other if other[k] != full.get(k)} for other in others]
    parts = [{"adversary"}, {"separation"}, {"alignment"}, {"use_graph"}, {"encode_graph"}]
    assert differing == [*parts, {"inputs"}, {"inputs"}, set()]


def test_a_variant_that_is_the_full_model_is_left_out(
    plans: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    ablations = importlib.import_module("trigrec_ablations")
    names = ("no adversary", "no graph", "joint", "sequence only")

    def left(text: str, only: tuple[str, ...] = ()) -> list[str]:
        options = plans.Options("ablations", dataset="simulated", override=text, only=only)
        variants = ablations.chosen(only or names)
        return list(ablations.differing(plans.make_plan(options), variants))

    assert left("adversary=0.3") == ["full", *names[:2], names[3], names[2]]
    assert left("adversary=0,use_graph=False") == ["full", "sequence only", "joint"]
    assert "left out, being the full model with" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="--only: 'no graph' is the full model with --override"):
        left("use_graph=False", names)
