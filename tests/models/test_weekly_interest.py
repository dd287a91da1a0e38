from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data import Targets, TemporalRecGraph
from tgrec.datasets import (
    create_weekly_heterodata_from_df,
    generate_dataset,
    load_interactions_from_csv,
    simulate_weekly,
    week_cut,
    weekly_graph,
)
from tgrec.loader import link_neighbor_loader
from tgrec.models.weekly_encoder import GNNEncoder
from tgrec.models.weekly_interest import UserInteractionPredictor, WeekEncoder
from tgrec.sampler import EventIndex, NegativeSampler

USERS, EVENTS, WEEKS = 24, 15, 6


@pytest.fixture(scope="module")
def graph() -> TemporalRecGraph:
    return weekly_graph(simulate_weekly(USERS, EVENTS, WEEKS, seed=1, num_communities=3)[0])


@pytest.fixture(scope="module")
def snapshots(graph: TemporalRecGraph) -> list[TemporalRecGraph]:
    return [week_view(graph, week) for week in range(1, WEEKS + 1)]


def week_view(graph: TemporalRecGraph, week: int) -> TemporalRecGraph:
    return graph.between(week_cut(graph, week), week_cut(graph, week + 1))


def predictor(**changes: object) -> UserInteractionPredictor:
    torch.manual_seed(0)
    settings: dict[str, object] = {"gnn_hidden_dim": 16, "n_heads": 2, "n_blocks": 1,
                                   "max_weeks": 4, "num_events": EVENTS}  # fmt: skip
    return UserInteractionPredictor(0, 0, **{**settings, **changes}).eval()  # type: ignore[arg-type]


# ---- the calls of the seed, with its own functions around them --------------------------------


def test_the_documented_calls_work_from_the_csv_to_the_top_k(
    tmp_path: Path,
) -> None:
    path = tmp_path / "user_event_interactions.csv"
    generate_dataset(path, num_users=20, num_events=12, num_weeks=5)
    df, user_map, event_map, user_x, event_x = load_interactions_from_csv(path)
    weekly = [
        create_weekly_heterodata_from_df(df[df["week_number"] == week], user_x, event_x)
        for week in range(1, 6)
    ]
    torch.manual_seed(0)
    encoder = GNNEncoder(
        32, 64, gnn_hidden_dim=128, num_gnn_layers=2, sage_aggr="mean", dropout=0.1
    )
    users, events = encoder.inference(weekly[0], torch.device("cpu"))
    assert users.shape == (len(user_map), 128)
    assert events.shape == (len(event_map), 128)
    assert not users.requires_grad

    model = UserInteractionPredictor(32, 64)
    users, events = model.get_temporal_embeddings(weekly[:-1], torch.device("cpu"))
    assert users.shape == (len(user_map), 128)
    assert events.shape == (len(event_map), 128)
    found, scores = model.predict_top_k_for_user(users[3], events, k=5)
    assert len(set(found)) == 5
    assert set(found) <= set(event_map.values())
    assert scores == sorted(scores, reverse=True)
    links = torch.tensor([[3, 3, 0], [0, 11, 5]])
    logits = model(users, events, links)
    assert logits.shape == (3,)
    assert set(found).isdisjoint([0]) or scores[found.index(0)] == pytest.approx(float(logits[0]))


def test_a_user_of_another_taste_gets_another_list(snapshots: list[TemporalRecGraph]) -> None:
    """The seed's score depended on the user through the sign of a cosine alone."""
    model = predictor()
    users, events = model.get_temporal_embeddings(snapshots[:-1])
    orders = {tuple(model.predict_top_k_for_user(u, events, EVENTS)[0]) for u in users}
    assert len(orders) > 2


# ---- the encoder -------------------------------------------------------------------------------


def with_ages(graph: TemporalRecGraph, cut_week: int) -> TemporalRecGraph:
    past = graph.before(week_cut(graph, cut_week))
    store = past["user", "interacts", "item"]
    first = week_cut(graph, 1)
    assert first == 0
    cuts = torch.tensor([week_cut(graph, w) for w in range(1, WEEKS + 2)])
    store.age = cut_week - 1 - torch.searchsorted(cuts, store.event_id, right=True)
    return past


def test_a_sampled_batch_of_all_neighbours_is_the_whole_graph(graph: TemporalRecGraph) -> None:
    torch.manual_seed(0)
    encoder = GNNEncoder(0, 0, gnn_hidden_dim=16, num_events=EVENTS).eval()
    for conv in (c for layer in encoder.sage.layers for c in layer.convs.values()):
        torch.nn.init.normal_(conv.lin_edge.weight)  # so that ages and counts matter
    week = 5
    user, item = week_view(graph, week)["user", "interacts", "item"].edge_index
    seeds = Targets(user, torch.full_like(user, week_cut(graph, week)), item)
    index = EventIndex(graph)
    negatives = NegativeSampler(index, exclude_history=False)
    loader = link_neighbor_loader(
        graph, index, (-1, -1), seeds=seeds, negatives=negatives, batch_size=7, shuffle=False
    )
    users, events = encoder.inference(with_ages(graph, week))
    cuts = torch.tensor([week_cut(graph, w) for w in range(1, WEEKS + 2)])
    seen = 0
    for batch in loader:
        for kind in batch.edge_types:
            own = torch.searchsorted(cuts, batch[kind].event_id, right=True)
            batch[kind].age = week - 1 - own
            assert int(batch[kind].age.min()) >= 0
        got = encoder(batch)
        torch.testing.assert_close(got[0], users[batch["user"].n_id[: len(got[0])]])
        torch.testing.assert_close(got[1], events[batch["item"].n_id[: len(got[1])]])
        seen += len(got[0])
    assert seen == len(seeds)


@pytest.mark.parametrize("name", ["edge_attr", "age"])
def test_counts_and_ages_are_heard(graph: TemporalRecGraph, name: str) -> None:
    encoder = GNNEncoder(0, 0, gnn_hidden_dim=16, num_events=EVENTS).eval()
    for conv in (c for layer in encoder.sage.layers for c in layer.convs.values()):
        torch.nn.init.normal_(conv.lin_edge.weight)
    before = encoder.inference(with_ages(graph, 4))[0]
    changed = with_ages(graph, 4)
    store = changed["user", "interacts", "item"]
    first = int(store.edge_index[0, 0])
    value = store[name].clone()
    value[0] += 3
    store[name] = value
    after = encoder.inference(changed)[0]
    assert not torch.equal(before[first], after[first])


def test_forward_and_inference_agree_and_dropout_is_for_training(
    snapshots: list[TemporalRecGraph],
) -> None:
    encoder = GNNEncoder(0, 0, gnn_hidden_dim=16, num_events=EVENTS, dropout=0.5)
    still = encoder.eval()(snapshots[0])
    torch.testing.assert_close(encoder.inference(snapshots[0]), still)
    encoder.train()
    assert not torch.equal(encoder(snapshots[0])[0], encoder(snapshots[0])[0])
    torch.testing.assert_close(encoder.inference(snapshots[0]), still)
    assert encoder.training  # inference leaves the mode as it was


def test_learned_tables_features_and_neither(snapshots: list[TemporalRecGraph]) -> None:
    assert GNNEncoder(0, 0).user.table.shape == (1, 128)  # type: ignore[union-attr]
    both = GNNEncoder(3, 0, gnn_hidden_dim=8, num_users=USERS, num_events=EVENTS).eval()
    data = snapshots[0].before(snapshots[0].num_events)
    data["user"].x = torch.randn(USERS, 3)
    assert both(data)[0].shape == (USERS, 8)
    with pytest.raises(ValueError, match="'user_feature_dim' is 3 and .* a width of 0"):
        both(snapshots[0])
    with pytest.raises(ValueError, match="'num_events' is 9 and the graph has 15"):
        GNNEncoder(0, 0, num_events=9)(snapshots[0])
    with pytest.raises(ValueError, match="'event_feature_dim' needs to be an integer"):
        GNNEncoder(0, -1)


def test_a_graph_of_another_form_is_refused() -> None:
    data = HeteroData()
    data["user"].num_nodes = data["film"].num_nodes = 2
    data["user", "sees", "film"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="one kind of edges from 'user'"):
        GNNEncoder(0, 0)(data)
    data = HeteroData()
    data["user"].num_nodes = data["event"].num_nodes = 2
    data["user", "sees", "event"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    data["user", "sees", "event"].edge_attr = torch.ones(1, 2)
    with pytest.raises(ValueError, match="one count per edge"):
        GNNEncoder(0, 0)(data)


# ---- the score ---------------------------------------------------------------------------------


def own_by_hand(views: list[TemporalRecGraph], weight: Tensor) -> Tensor:
    out = torch.zeros(USERS, EVENTS)
    for age, view in enumerate(reversed(views)):
        store = view["user", "interacts", "item"]
        for (u, i), c in zip(store.edge_index.t().tolist(), store.edge_attr[:, 0], strict=True):
            out[u, i] += c * float(weight[age].exp())
    return out / out.sum(dim=1, keepdim=True).clamp(min=1e-9)


def test_own_interest_against_a_loop(snapshots: list[TemporalRecGraph]) -> None:
    model = predictor()
    with torch.no_grad():
        model.age_weight.copy_(torch.tensor([0.0, -1.0, 0.5, -0.2]))
        wanted = own_by_hand(snapshots[1:5], model.age_weight)
        torch.testing.assert_close(model.own_interest(snapshots[1:5]), wanted)
        rows = torch.tensor([7, 0, 3])
        torch.testing.assert_close(model.own_interest(snapshots[1:5], rows), wanted[rows])
        # Weeks before the last four are left out.
        torch.testing.assert_close(model.own_interest(snapshots[:5]), wanted)


def test_the_score_is_its_formula() -> None:
    model, d = predictor(), 16
    user, event, own = torch.randn(3, d), torch.randn(EVENTS, d), torch.rand(3, EVENTS)
    own[0, 4] = 0.0
    with torch.no_grad():
        for u in range(3):
            for e in (0, 4):
                new = math.exp(float(user[u] @ (model.project.weight @ event[e])) / math.sqrt(d))
                gate = math.exp(float(model.repeat(user[u])))
                trend = float(model.trend(event[e]))
                link = torch.tensor([[u], [e]])
                alone = trend + math.log(new)
                both = trend + math.log(new + gate * float(own[u, e]))
                assert float(model(user, event, link)) == pytest.approx(alone, abs=1e-5)
                assert float(model.score(user, event)[u, e]) == pytest.approx(alone, abs=1e-5)
                got = float(model.score(user, event, own)[u, e])
                assert got == pytest.approx(both, abs=1e-4)
                shares = own[u, e].view(1)
                assert float(model(user, event, link, shares)) == pytest.approx(both, abs=1e-4)


def test_repeats_lift_what_was_met(snapshots: list[TemporalRecGraph]) -> None:
    model = predictor()
    users, events = model.get_temporal_embeddings(snapshots)
    own = model.own_interest(snapshots[-4:]).detach()
    with torch.no_grad():
        model.repeat.bias.fill_(20.0)
    best, _ = model.predict_top_k_for_user(users[0], events, 1, own[0])
    rate = own[0].log() + model.trend(events)[:, 0]
    assert best == [int(rate.argmax())]


@pytest.mark.parametrize("k", [0, -1, EVENTS + 1, 2.0, True])
def test_k_needs_to_be_among_the_events(k: int) -> None:
    model = predictor()
    with pytest.raises(ValueError, match=f"'k' needs to be in 1..{EVENTS}"):
        model.predict_top_k_for_user(torch.zeros(16), torch.zeros(EVENTS, 16), k)


def test_equal_scores_stand_in_the_order_of_events() -> None:
    model = predictor()
    found, _ = model.predict_top_k_for_user(torch.randn(16), torch.ones(EVENTS, 16), 4)
    assert found == [0, 1, 2, 3]


# ---- weeks -------------------------------------------------------------------------------------


def test_rows_do_not_depend_on_each_other(snapshots: list[TemporalRecGraph]) -> None:
    model = predictor()
    vectors = model.weekly_vectors(snapshots[:4])
    users, events = model.temporal(vectors)
    rows = torch.tensor([5, 1])
    some, same = model.temporal(vectors, rows)
    torch.testing.assert_close(some, users[rows])
    torch.testing.assert_close(same, events)


def test_the_order_of_weeks_matters_and_older_ones_are_left_out(
    snapshots: list[TemporalRecGraph],
) -> None:
    model = predictor()
    there = model.get_temporal_embeddings(snapshots[2:])
    torch.testing.assert_close(model.get_temporal_embeddings(snapshots), there)
    back = model.get_temporal_embeddings(snapshots[:1:-1])
    assert not torch.allclose(back[0], there[0])


def test_the_number_of_interactions_is_seen_by_the_week_encoder() -> None:
    torch.manual_seed(0)
    encoder = WeekEncoder(16, 2, 1, 4, 0.0).eval()
    x, total = torch.randn(2, 3, 16), torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    x[1] = x[0]
    out = encoder(x, total)
    assert not torch.allclose(out[0], out[1])
    with pytest.raises(ValueError, match="'max_len' is 4"):
        encoder(torch.zeros(1, 5, 16), torch.zeros(1, 5))


def test_an_empty_week_and_a_user_without_a_past(graph: TemporalRecGraph) -> None:
    model = predictor()
    empty = graph.between(0, 0)
    users, events = model.get_temporal_embeddings([empty, week_view(graph, 1), empty])
    assert users.isfinite().all()
    assert events.isfinite().all()
    own = model.own_interest([empty]).detach()
    assert not own.any()
    assert model.score(users, events, own).isfinite().all()
    with pytest.raises(ValueError, match="'snapshots' is empty"):
        model.get_temporal_embeddings([])


@pytest.mark.parametrize(("name", "value"), [("max_weeks", 0), ("n_blocks", 0)])
def test_sizes_are_checked(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"'{name}' needs to be a positive integer"):
        predictor(**{name: value})


def test_a_week_as_plain_heterodata_is_the_week_of_the_store(graph: TemporalRecGraph) -> None:
    """The seed's weekly graphs (``event``) and views of one store (``item``) say the same."""
    model = predictor()
    frames = []
    for week in (1, 2, 3):
        edges = week_view(graph, week)["user", "interacts", "item"]
        user, item = edges.edge_index.tolist()
        counts = edges.edge_attr[:, 0].int().tolist()
        frames.append(
            pd.DataFrame({"user_index": user, "event_index": item, "n_interactions": counts})
        )
    nothing = (torch.zeros(USERS, 1), torch.zeros(EVENTS, 1))
    plain = [create_weekly_heterodata_from_df(frame, *nothing) for frame in frames]
    views = [week_view(graph, week) for week in (1, 2, 3)]
    for a, b in zip(
        model.get_temporal_embeddings(plain), model.get_temporal_embeddings(views), strict=True
    ):
        torch.testing.assert_close(a, b)
