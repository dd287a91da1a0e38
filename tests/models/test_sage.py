"""The graph models: what they read, what they must not, and that they learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tgrec.data import RecBatch, Targets, TemporalRecGraph, leave_one_out
from tgrec.datasets import simulate_movielens
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import SAGE, LightGCN, Popularity, RecModel, load_model, save_model
from tgrec.models.two_tower import TwoTower, node_features
from tgrec.sampler import EventIndex
from tgrec.testing import ModelCheckError, check_model, cycle_graph, noise_graph
from tgrec.training import evaluate, fit

GRAPH = noise_graph(num_users=20, num_items=8)
INDEX = EventIndex(GRAPH)
CLASSES: list[type[TwoTower]] = [SAGE, LightGCN]


def build(cls: type[RecModel], graph: TemporalRecGraph = GRAPH, **kwargs: Any) -> RecModel:
    torch.manual_seed(0)
    small = {"hidden_channels": 8, "num_neighbors": (3, 2)}
    model = cls.from_graph(graph, **{**small, **kwargs}).eval()
    for parameter in model.parameters():  # away from what is small or zero at first
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@torch.no_grad()
def scores(model: RecModel, seeds: Targets, track: str = "T1", index: EventIndex = INDEX) -> Any:
    return model.score(SeedLoader(index, model.sampling, track).batch(seeds))  # type: ignore[arg-type]


# ---- what they read ----------------------------------------------------------------------------


def test_sage_knows_the_order_of_events_and_lightgcn_does_not() -> None:
    """One user, two items in either order, and the second one much later."""

    def after(rows: list[tuple[int, int]]) -> EventIndex:
        table = pd.DataFrame(rows, columns=["item_id", "timestamp"])
        table["user_id"] = 0
        items = pd.DataFrame({"item_id": range(3)})
        return EventIndex(TemporalRecGraph.from_pandas(table, items=items))

    orders = [[(0, 100), (1, 200)], [(1, 100), (0, 200)], [(0, 100), (1, 20_000)]]
    zero = torch.zeros(1, dtype=torch.int64)
    asked = Targets(zero, zero + 2, zero)
    graph = noise_graph(num_users=1, num_items=3)
    sage, light = (build(cls, graph, num_neighbors=(3,)) for cls in CLASSES)
    by_order = [scores(sage, asked, index=after(rows)) for rows in orders]
    assert not torch.allclose(by_order[0], by_order[1], atol=1e-3)
    assert not torch.allclose(by_order[0], by_order[2], atol=1e-3)
    same = [scores(light, asked, index=after(rows)) for rows in orders]
    assert torch.allclose(same[0], same[1], atol=1e-5)
    assert torch.allclose(same[0], same[2], atol=1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_second_hop_is_read(cls: type[TwoTower]) -> None:
    seeds = training_seeds(INDEX, None)
    far, near = build(cls, num_neighbors=(3, 2)), build(cls, num_neighbors=(3, 2))
    near.sampling = replace(near.sampling, num_neighbors=(3, 1))
    assert not torch.allclose(scores(far, seeds), scores(near, seeds), atol=1e-3)


def test_sage_treats_a_new_user_like_an_old_one() -> None:
    """The user who is asked about has no vector of its own, the users who are reached have."""
    model = build(SAGE)
    assert model.user is not None
    seeds = training_seeds(INDEX, None)
    before = scores(model, seeds)
    assert model.user.table is not None
    reads = torch.autograd.grad(model.score(SeedLoader(INDEX, model.sampling).batch(
        seeds.select(torch.tensor([5])))).sum(), model.user.table)[0].abs().sum(1)  # fmt: skip
    assert float(reads[int(seeds.user[5])]) == 0 < float(reads.sum())
    one_hop = build(SAGE, num_neighbors=(3,))
    assert one_hop.user is None
    assert before.isfinite().all()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("track", ["T1", "T2"])
def test_only_the_users_past_is_read(cls: type[TwoTower], track: str) -> None:
    """On T1 neither the place nor the time of the question matters, as long as the past is one."""
    model, seeds = build(cls), training_seeds(INDEX, None)
    assert seeds.time is not None
    previous = torch.stack([
        INDEX.event_id[(INDEX.user == u) & (INDEX.event_id < c)].max()
        for u, c in zip(seeds.user, seeds.cut, strict=True)
    ])  # fmt: skip
    moved = replace(seeds, cut=previous + 1, time=seeds.time + 3 * 86_400)
    same = torch.equal(scores(model, seeds, track), scores(model, moved, track))
    assert same == (track == "T1" or cls is LightGCN)


@pytest.mark.parametrize("cls", CLASSES)
def test_training_may_draw_other_edges_and_scoring_does_not(cls: type[TwoTower]) -> None:
    model = build(cls, train_strategy="uniform", num_neighbors=(2, 2))
    plain = build(cls, num_neighbors=(2, 2))
    seeds = training_seeds(INDEX, None)
    assert torch.equal(scores(model, seeds), scores(plain, seeds))
    loaders = [SeedLoader(INDEX, m.sampling) for m in (model, plain)]
    drawn, last = (model.loss(loader.batch(seeds, key=1)).detach() for loader in loaders)
    assert float(drawn) != float(last)


# ---- features ----------------------------------------------------------------------------------


def featured() -> TemporalRecGraph:
    graph = noise_graph(num_users=20, num_items=8)
    graph["item"].genre = torch.rand(8, 3)
    graph["item"].year = torch.tensor([1990, 1991, 1990, 1995, 1991, 1990, 1995, 1995])
    graph["item"].price = torch.arange(8).float()
    graph["item"].same = torch.ones(8, dtype=torch.int64)
    graph["item"].big = torch.rand(8, 2, 2)
    graph["user"].gender = torch.arange(20) % 2
    graph["user"].account = torch.arange(20)
    return graph


def test_features_are_numbers_and_codes_and_never_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = featured()
    year = graph["item"].year
    codes = (year.unsqueeze(1) == torch.tensor([1990, 1991, 1995])).float()
    wanted = torch.cat([graph["item"].genre, graph["item"].price.unsqueeze(1), codes], dim=1)
    assert torch.equal(node_features(graph, "item"), wanted)
    assert node_features(graph, "user").shape == (20, 20 + 2)
    monkeypatch.setattr("tgrec.models.two_tower.MAX_CODES", 19)
    assert node_features(graph, "user").shape == (20, 2)  # 20 different accounts are no codes
    assert node_features(GRAPH, "item").shape == (8, 0)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_item_that_nobody_met_is_placed_by_its_features(cls: type[TwoTower]) -> None:
    graph = featured()
    graph["item"].genre = torch.eye(8)[:, :3] * 0 + torch.tensor(
        [[1.0, 0, 0]] * 4 + [[0, 0, 1.0]] * 4
    )
    model = build(cls, graph)
    assert model.item.lin is not None
    with torch.no_grad():
        model.item.table.zero_()  # type: ignore[union-attr]
        model.item.lin.weight[:, 3:] = 0  # genre stands first
    table = model.encode_item()
    assert torch.equal(table[0], table[3])
    assert torch.equal(table[4], table[7])
    assert not torch.allclose(table[0], table[4])


@pytest.mark.parametrize("cls", CLASSES)
def test_features_and_settings_are_saved(cls: type[TwoTower], tmp_path: Path) -> None:
    graph = featured()
    model = build(cls, graph, num_neighbors=(3, 2, 1), seeds_per_user=None)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, {"model": cls}, num_items=8)
    assert loaded.sampling == model.sampling
    assert loaded.config == json.loads(json.dumps(model.config))
    seeds = training_seeds(INDEX, None)
    assert torch.equal(scores(loaded, seeds), scores(model, seeds))
    assert loaded.config["num_features"] == 7


def test_several_kinds_of_events_are_all_heard() -> None:
    whole = noise_graph(num_users=20, num_items=8)
    table = whole.to_pandas()
    table["kind"] = ["views" if k % 3 else "buys" for k in range(len(table))]
    graph = TemporalRecGraph.from_pandas(table, relation="kind")
    index, model = EventIndex(graph), build(SAGE, graph)
    assert sorted(model.config["relations"]) == ["buys", "views"]
    seeds = training_seeds(index, None)
    model.loss(SeedLoader(index, model.sampling).batch(seeds, key=0)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


# ---- they learn --------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "epochs", "margin"), [(SAGE, 4, 1.3), (LightGCN, 8, 1.15)])
def test_a_few_epochs_beat_popularity_clearly(
    cls: type[TwoTower], epochs: int, margin: float
) -> None:
    graph, _ = simulate_movielens(num_users=600, num_items=300, mean_events=30)
    split = leave_one_out(graph)
    torch.manual_seed(0)
    model = cls.from_graph(split.train, hidden_channels=32, num_neighbors=(10,))
    fit(model, split, epochs=epochs, eval_every=epochs, batch_size=128, lr=1e-2, show=False)
    ndcg = [
        evaluate(m, split, split.test, sampled=False).metrics()["full"]["NDCG@10"]
        for m in (model, Popularity.from_graph(split.train))
    ]
    assert ndcg[0] > margin * ndcg[1]


class Peeking(SAGE):
    """Reads the answer from the batch, where there is one."""

    def tower(self, batch: RecBatch, items: torch.Tensor) -> torch.Tensor:
        out = super().tower(batch, items)
        return out if batch.item is None else out + items[batch.item]


class Retold(SAGE):
    """Reads which nodes stand beside each other in the batch."""

    def tower(self, batch: RecBatch, items: torch.Tensor) -> torch.Tensor:
        out = super().tower(batch, items)
        return out + out.mean(0)


@pytest.mark.parametrize(
    ("cls", "message"),
    [(Peeking, "score reads the target"), (Retold, "depend on the other users of the batch")],
)
def test_check_model_catches_leaks_of_graph_models(cls: type[SAGE], message: str) -> None:
    with pytest.raises(ModelCheckError, match=message):
        check_model(cls)


def test_check_model_catches_a_loss_that_sees_the_answer() -> None:
    class Told(SAGE):
        def loss_terms(self, batch: RecBatch) -> tuple[torch.Tensor, torch.Tensor]:
            assert batch.item is not None
            items = self.encode_item()
            z = (self.tower(batch, items) + 30 * items[batch.item]) @ items.t()
            total = torch.nn.functional.cross_entropy(z, batch.item, reduction="sum")
            return total.view(1), total.new_full((1,), batch.item.numel())

    with pytest.raises(ModelCheckError, match="sees its own answers"):
        check_model(Told)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_channels": 0}, "'hidden_channels' needs to be a positive integer .got 0"),
        ({"num_users": 0}, "'num_users' needs to be a positive integer .got 0"),
        ({"num_neighbors": ()}, "'num_neighbors' needs one positive integer per hop"),
        ({"num_neighbors": (5, -3)}, "'num_neighbors' needs one positive integer per hop"),
        ({"seeds_per_user": 0}, "'seeds_per_user' needs to be a positive integer"),
        ({"train_strategy": "new"}, "'train_strategy' needs to be one of"),
    ],
    ids=str,
)
def test_bad_settings_are_named(cls: type[TwoTower], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(num_items=5, **{"num_users": 3, **wrong})  # type: ignore[call-arg]


def test_a_cycle_is_learned_from_one_event() -> None:
    """SAGE on one hop of one event is a table of transitions."""
    split = leave_one_out(cycle_graph(num_users=96))
    torch.manual_seed(0)
    model = SAGE.from_graph(split.train, hidden_channels=32, num_neighbors=(1,))
    fit(model, split, epochs=12, eval_every=12, batch_size=32, lr=1e-2, show=False)
    ranks = evaluate(model, split, split.test, sampled=False).ranks["full"]
    assert float((ranks == 1).double().mean()) > 0.95
