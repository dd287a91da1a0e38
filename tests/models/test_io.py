from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tgrec.data import Split, TemporalRecGraph, leave_one_out
from tgrec.datasets import simulate_movielens
from tgrec.loader import SeedLoader
from tgrec.models import MODELS, BERT4Rec, RecModel, SASRec, load_model, save_model
from tgrec.models.io import (
    CONFIG,
    WEIGHTS,
    load_parameters,
    node_digests,
    parameters_copy,
    read_config,
)
from tgrec.sampler import EventIndex
from tgrec.testing import cycle_graph

SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 32, "max_len": 8}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(cycle_graph())


def build(name: str, split: Split, **kwargs: Any) -> RecModel:
    taken = inspect.signature(MODELS[name]).parameters
    small = {key: value for key, value in SMALL.items() if key in taken}
    torch.manual_seed(3)
    return MODELS[name].from_graph(split.train, **{**small, **kwargs}).eval()


def scores(model: RecModel, split: Split) -> torch.Tensor:
    loader = SeedLoader(EventIndex(split.graph), model.sampling)
    with torch.no_grad():
        return model.score(loader.batch(split.test))


@pytest.fixture
def saved(tmp_path: Path, split: Split) -> Path:
    save_model(build("sasrec", split), tmp_path, catalogue="abc", board="toy")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        *[(name, {}) for name in MODELS],
        ("sasrec", {"positions": "sinusoidal"}),
        ("gap_markov", {"typed_weight": 0.5}),
        ("tgt_bert4rec", {"fusion_alpha": 0.0}),
        ("tgt_bert4rec", {"fusion_alpha": 1.0}),
        ("tgt_bert4rec", {"learnable_fusion": False, "use_time": False}),
        ("tgt_bert4rec", {"use_graph": False}),
        ("enhanced_bert4rec", {"use_graph": True, "graph_weight": 2.0}),
    ],
)
def test_what_is_loaded_scores_to_the_same_bits(
    name: str, kwargs: dict[str, Any], tmp_path: Path, split: Split
) -> None:
    model = build(name, split, **kwargs)
    for parameter in model.parameters():  # away from what a new model would have anyway
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, MODELS, split.graph.num_items)
    assert type(loaded) is type(model)
    assert loaded.config == json.loads(json.dumps(model.config))
    assert loaded.num_parameters() == model.num_parameters()
    assert torch.equal(scores(loaded, split), scores(model, split))
    assert not loaded.training


def test_the_folder_is_two_plain_files(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [CONFIG, WEIGHTS]
    config = json.loads((saved / CONFIG).read_text())
    assert config["class"] == "SASRec"
    assert config["config"]["d_model"] == 16
    assert (config["catalogue"], config["board"]) == ("abc", "toy")
    assert read_config(saved) == config
    assert all(os.stat(p).st_mode & 0o777 == 0o644 for p in saved.iterdir())


def refused(folder: Path, match: str, error: type[Exception] = ValueError, **kwargs: Any) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(error, match=match) as caught:
        load_model(folder, kwargs.pop("models", MODELS), **kwargs)
    assert str(folder) in str(caught.value)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_another_catalogue_is_refused(saved: Path) -> None:
    refused(saved, "for 24 items, the data have 25; .* another catalogue", num_items=25)
    refused(saved, "trained on the catalogue abc, the data are xyz", catalogue="xyz")
    assert load_model(saved, MODELS, num_items=24, catalogue="abc").num_items == 24


def test_another_class_is_refused(saved: Path) -> None:
    refused(saved, "holds a 'SASRec', not one of .'BERT4Rec'.*FILE.py:CLASS",
            models={"bert4rec": BERT4Rec})  # fmt: skip
    # A class is found by its own name, under whatever name it is listed.
    assert isinstance(load_model(saved, {"mine": SASRec}), SASRec)


def test_missing_files_are_named(saved: Path, tmp_path: Path) -> None:
    (saved / WEIGHTS).rename(saved / "elsewhere")
    refused(saved, f"{WEIGHTS} is missing; copy the whole folder", FileNotFoundError)
    with pytest.raises(FileNotFoundError, match="no model in .*nothing.*sub-folder 'model'"):
        load_model(tmp_path / "nothing", MODELS)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"class": "SASRec"}', '{"class": "SASRec", "config": {}}',
     '{"class": "SASRec", "config": [1]}', "\x80\x04K\x01."],
)  # fmt: skip
def test_a_config_that_is_none_is_named(text: str, saved: Path) -> None:
    (saved / CONFIG).write_bytes(text.encode("latin-1"))
    refused(saved, f"{CONFIG} is not a model's configuration")


@pytest.mark.parametrize(
    "changes",
    [{"d_model": -4}, {"n_heads": 5}, {"dropout": 7}, {"unknown": 1}, {"max_len": "long"}],
    ids=str,
)
def test_a_config_that_no_class_takes_is_named(changes: dict[str, Any], saved: Path) -> None:
    config = json.loads((saved / CONFIG).read_text())
    config["config"] |= changes
    (saved / CONFIG).write_text(json.dumps(config))
    refused(saved, f"{CONFIG}: SASRec cannot be made from it .*another version")


def test_weights_that_do_not_fit_their_config_are_named(saved: Path) -> None:
    config = json.loads((saved / CONFIG).read_text())
    config["config"]["d_model"] = 32
    (saved / CONFIG).write_text(json.dumps(config))
    refused(saved, f"{WEIGHTS} does not hold the weights .*size mismatch")


def test_weights_cut_short_anywhere_are_refused(saved: Path) -> None:
    content = (saved / WEIGHTS).read_bytes()
    for size in (0, 1, 8, 200, len(content) // 2, len(content) - 1):
        (saved / WEIGHTS).write_bytes(content[:size])
        refused(saved, f"{WEIGHTS} does not hold the weights .*copy both files anew")


def test_a_flipped_byte_anywhere_in_the_weights_is_refused(saved: Path) -> None:
    path = saved / WEIGHTS
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    end = len(content[: 8 + header].rstrip())  # spaces fill the header up
    for place in [*range(8), *range(8, end, 3), *range(8 + header, len(content), 331)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        refused(saved, f"{WEIGHTS} does not hold the weights .*copy both files anew")
    damaged[:] = content
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    refused(saved, "its content does not match its checksum")


def test_weights_of_a_version_without_checksums_load(saved: Path, split: Split) -> None:
    expected = scores(load_model(saved, MODELS), split)
    save_file(load_file(saved / WEIGHTS), saved / WEIGHTS)
    assert torch.equal(scores(load_model(saved, MODELS), split), expected)


@pytest.mark.parametrize("change", ["drop", "add"])
def test_missing_and_foreign_tensors_are_named(change: str, saved: Path) -> None:
    tensors = load_file(saved / WEIGHTS)
    if change == "drop":
        del tensors["item"]
    else:
        tensors["intruder"] = torch.ones(1)
    save_file(tensors, saved / WEIGHTS)
    refused(saved, f"{WEIGHTS} does not hold.*{'item' if change == 'drop' else 'intruder'}")


def test_nothing_is_ever_unpickled(saved: Path, tmp_path: Path) -> None:
    """A pickle under the name of the weights is refused, and does not run."""
    marker = tmp_path / "ran"
    # What pickle.dumps makes of an object whose __reduce__ is (os.system, ("touch ran",)).
    command = f"touch {marker}".encode()
    payload = b"cposix\nsystem\n(V" + command + b"\ntR."
    (saved / WEIGHTS).write_bytes(payload)
    refused(saved, f"{WEIGHTS} does not hold the weights")
    torch.save({"item": torch.ones(1)}, saved / WEIGHTS)
    refused(saved, f"{WEIGHTS} does not hold the weights")
    assert not marker.exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_error_leaves_the_saved_model_whole(
    call: str, saved: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match=f"could not write {saved / WEIGHTS} .No space left"):
            save_model(build("bert4rec", split), saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


def test_parameters_go_back_where_they_came_from(split: Split) -> None:
    model = build("sasrec", split)
    taken: Callable[[], dict[str, torch.Tensor]] = lambda: parameters_copy(model)  # noqa: E731
    kept = taken()
    with torch.no_grad():
        model.item += 1
    assert not torch.equal(taken()["item"], kept["item"])  # a copy, not a view
    load_parameters(model, kept)
    assert all(torch.equal(v, kept[k]) for k, v in taken().items())
    with pytest.raises(ValueError, match="parameters differ: .'item'."):
        load_parameters(model, {k: v for k, v in kept.items() if k != "item"})
    with pytest.raises(ValueError, match=r"parameter item has the shape \[1, 16\], not \[24, 16\]"):
        load_parameters(model, {**kept, "item": torch.ones(1, 16)})
    assert all(torch.equal(v, kept[k]) for k, v in taken().items())


# ---- what was learned, without what was counted ------------------------------------------------


def test_counts_are_made_again_from_the_training_events(tmp_path: Path, split: Split) -> None:
    model = build("tgt_bert4rec", split, temperature=0.1)
    save_model(model, tmp_path, learned_only=True, board="toy")
    names = load_file(tmp_path / WEIGHTS)
    assert set(names) == {name for name, _ in model.named_parameters()}
    loaded = load_model(tmp_path, MODELS, train=split.train)
    assert torch.equal(scores(loaded, split), scores(model, split))
    assert read_config(tmp_path)["board"] == "toy"


@pytest.mark.parametrize("given", ["nothing", "other events"])
def test_without_these_events_there_is_no_model(given: str, tmp_path: Path, split: Split) -> None:
    save_model(build("tgt_bert4rec", split), tmp_path, learned_only=True)
    train = None if given == "nothing" else split.train.before(40)
    said = "none were given" if train is None else "give other counts"
    with pytest.raises(ValueError, match=f"needs the training events.*{said}"):
        load_model(tmp_path, MODELS, train=train)


def test_side_information_is_read_again_from_the_graph(tmp_path: Path) -> None:
    split = leave_one_out(simulate_movielens(num_users=40, num_items=30, mean_events=8)[0])
    model = build("enhanced_bert4rec", split)
    save_model(model, tmp_path, learned_only=True)
    loaded = load_model(tmp_path, MODELS, train=split.train)
    assert torch.equal(scores(loaded, split), scores(model, split))


@pytest.mark.parametrize("name", sorted({"trigrec", "sage", "lightgcn", "gap_markov"}))
def test_what_from_graph_finds_out_is_found_out_again(name: str, tmp_path: Path) -> None:
    graph = simulate_movielens(num_users=40, num_items=30, mean_events=8)[0]
    split = leave_one_out(graph)
    model = MODELS[name].from_graph(split.train)
    save_model(model, tmp_path, learned_only=True)
    loaded = load_model(tmp_path, MODELS, train=split.train)
    own = dict(loaded.named_parameters())
    assert all(torch.equal(v, own[k]) for k, v in model.named_parameters())
    assert loaded.config == model.config


def described(turned: str = "") -> TemporalRecGraph:
    """Users, items and their features; values of ``turned`` stand at the neighbours.

    Another domain is that of item 0, which has no events that would contradict it.
    """
    graph = simulate_movielens(num_users=40, num_items=30, mean_events=8)[0]
    (kind,) = graph.interaction_types
    graph = graph.select_events(graph[kind].edge_index[1] != 0)
    draw = torch.Generator().manual_seed(0)
    graph["user"].taste = torch.randn(40, 4, generator=draw)
    graph["item"].domain = (torch.arange(30) == (0 if turned == "domain" else 30)).long()
    for node_type in ("user", "item"):
        if turned in graph[node_type] and turned != "domain":
            graph[node_type][turned] = graph[node_type][turned].roll(1, 0)
    return graph


OPTIONS: dict[str, Any] = {
    "tgt_bert4rec": {"item_features": True},
    "trigrec": {"loaded": ["taste"], "stage": "recommender"},
}


@pytest.mark.parametrize(
    ("name", "turned", "buffer"),
    [
        ("tgt_bert4rec", "genre", "features.values"),
        ("tgt_bert4rec", "year", "features.values"),
        ("enhanced_bert4rec", "genre", "inputs.item_genre"),
        ("enhanced_bert4rec", "year", "inputs.item_year"),
        ("enhanced_bert4rec", "occupation", "inputs.user_values"),
        ("sage", "genre", "item_features"),
        ("sage", "age", "user_features"),
        ("lightgcn", "year", "item_features"),
    ],
)
def test_weights_on_other_features_of_the_same_width_are_refused(
    name: str, turned: str, buffer: str, tmp_path: Path
) -> None:
    train = leave_one_out(described()).train
    model = MODELS[name].from_graph(train, **OPTIONS.get(name, {}))
    save_model(model, tmp_path, learned_only=True)
    other = leave_one_out(described(turned)).train
    said = rf"holds what was learned only.*\(other values in {buffer}\); make 'train' with the"
    with pytest.raises(ValueError, match=said):
        load_model(tmp_path, MODELS, train=other)
    saved = read_config(tmp_path)
    saved.pop("node_values")  # written by a version that did not know of it
    (tmp_path / CONFIG).write_text(json.dumps(saved))
    load_model(tmp_path, MODELS, train=other)


@pytest.mark.parametrize("name", MODELS)
def test_no_buffer_with_features_of_nodes_is_forgotten(name: str) -> None:
    """Models that hold something else for other features have other digests."""
    options, (plain, same) = OPTIONS.get(name, {}), (described(), described())
    model = MODELS[name].from_graph(plain, **options)
    known, held = node_digests(model), dict(model.named_buffers())
    assert node_digests(MODELS[name].from_graph(same, **options)) == known
    for turned in ("genre", "year", "gender", "age", "occupation", "taste", "domain"):
        other = MODELS[name].from_graph(described(turned), **options)
        others = dict(other.named_buffers())
        differs = any(not torch.equal(v, others[k]) for k, v in held.items())
        assert (node_digests(other) != known) == differs, turned


def test_weights_from_before_an_option_was_there(tmp_path: Path, split: Split) -> None:
    model = build("tgt_bert4rec", split)
    save_model(model, tmp_path, learned_only=True)
    saved = json.loads((tmp_path / CONFIG).read_text())
    del saved["config"]["graph_weight"]
    (tmp_path / CONFIG).write_text(json.dumps(saved))
    loaded = load_model(tmp_path, MODELS, train=split.train)
    assert torch.equal(scores(loaded, split), scores(model, split))


def test_a_model_that_counts_nothing_needs_no_events(tmp_path: Path, split: Split) -> None:
    model = build("sasrec", split)
    save_model(model, tmp_path, learned_only=True)
    loaded = load_model(tmp_path, MODELS)
    assert torch.equal(scores(loaded, split), scores(model, split))
