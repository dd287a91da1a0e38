"""Weekly interest: nothing of the target week is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.models.weekly_interest import UserInteractionPredictor
from tgrec.training.weekly import add_ages, fit_links, fit_weeks, make_model
from tgrec.training.weekly_run import Question, compare
from tgrec.training.weekly_settings import WeeklySettings, Weeks


def changed(weeks: Weeks, user: Tensor, item: Tensor, count: Tensor) -> Weeks:
    """The same weeks with other events in the last one."""
    kept = weeks.cuts[-2]
    store = weeks.graph["user", "interacts", "item"]
    graph = weeks.graph.before(weeks.graph.num_events)
    edges = graph["user", "interacts", "item"]
    edges.edge_index = torch.cat([store.edge_index[:, :kept], torch.stack([user, item])], dim=1)
    edges.event_id = torch.arange(kept + user.numel())
    start = store.time[-1]
    edges.time = torch.cat([store.time[:kept], start.expand(user.numel())])
    edges.edge_attr = torch.cat([store.edge_attr[:kept], count.view(-1, 1)])
    return Weeks(graph, (*weeks.cuts[:-1], kept + user.numel()))


def variants(weeks: Weeks) -> list[Weeks]:
    user, item = weeks.links(len(weeks) - 1)
    count = torch.ones(user.numel())
    twice = [torch.cat([x, x.flip(0)]) for x in (user, item)]
    return [
        changed(weeks, user, item.flip(0), 5 * count),  # every event changed
        changed(weeks, user[:1], item[:1], count[:1]),  # all but one removed
        changed(weeks, twice[0], twice[1], torch.ones(2 * user.numel())),  # as many added
    ]


def all_scores(past: Weeks, tiny: WeeklySettings) -> list[Tensor]:
    """Scores and weights of everything that is trained, bit by bit."""
    out = []
    for joint in (False, True):
        model = make_model(past.graph, tiny)
        if not joint:
            fit_links(model, past, tiny)
        fit_weeks(model, past, tiny, joint=joint)
        views = past.views(len(past) - 4, len(past))
        users, events = model.get_temporal_embeddings(views)
        with torch.no_grad():
            out.append(model.score(users, events, model.own_interest(views)))
        out += [p.detach() for p in model.parameters()]
    return out


def test_scores_do_not_know_the_target_week(weeks: Weeks, tiny: WeeklySettings) -> None:
    target = len(weeks) - 1
    wanted = all_scores(Question(weeks, target).past, tiny)
    for other in variants(weeks):
        for a, b in zip(wanted, all_scores(Question(other, target).past, tiny), strict=True):
            assert torch.equal(a, b)


def test_lists_of_all_methods_do_not_know_the_target_week(
    weeks: Weeks, tiny: WeeklySettings
) -> None:
    lists = [
        compare(Question(some, len(weeks) - 1, weeks.graph.num_items), tiny, joint=True)
        for some in (weeks, variants(weeks)[0])
    ]
    for a, b in zip(*lists, strict=True):
        assert torch.equal(a.top, b.top), a.name
    assert len(lists[0]) == 6


def test_the_probe_finds_a_leak(weeks: Weeks, tiny: WeeklySettings) -> None:
    """With the target week among what is read, the same probe fails."""
    leaky = [some.until(len(weeks)) for some in (weeks, variants(weeks)[0])]
    first, second = (all_scores(past, tiny)[0] for past in leaky)
    assert not torch.equal(first, second)


def test_every_week_is_predicted_from_earlier_ones(
    weeks: Weeks, monkeypatch: pytest.MonkeyPatch, tiny: WeeklySettings
) -> None:
    """The Transformer's loss at week w must not change with events of w (but as targets)."""
    asked: list[int] = []
    original = UserInteractionPredictor.own_interest

    def spy(self: Any, snapshots: Any, users: Any = None) -> Tensor:
        ends = [int(v["user", "interacts", "item"].event_id[-1]) for v in snapshots]
        asked.append(max(ends))
        return original(self, snapshots, users)

    monkeypatch.setattr(UserInteractionPredictor, "own_interest", spy)
    past = weeks.until(4)
    fit_weeks(make_model(past.graph, tiny), past, replace(tiny, epochs=1))
    # Weeks 2 to 4 are learned, each from what ended where it begins.
    assert {end + 1 for end in asked} == set(past.cuts[1:4])


def test_links_are_cut_where_their_week_begins(
    weeks: Weeks, monkeypatch: pytest.MonkeyPatch, tiny: WeeklySettings
) -> None:
    import tgrec.training.weekly as module

    batches = []

    def spy(data: Any, of: Weeks, place: int) -> None:
        add_ages(data, of, place)
        batches.append((data, place))

    monkeypatch.setattr(module, "add_ages", spy)
    fit_links(make_model(weeks.graph, tiny), weeks, tiny)
    assert {place for _, place in batches} == set(range(1, len(weeks)))
    for batch, place in batches:
        for kind in batch.edge_types:
            store = batch[kind]
            assert int(store.event_id.max()) < weeks.cuts[place]
            assert torch.equal(store.age, place - 1 - weeks.of(store.event_id))
            assert int(store.age.min()) >= 0


def test_a_run_is_repeated_bit_by_bit_and_the_seed_decides(
    weeks: Weeks, tiny: WeeklySettings
) -> None:
    past = weeks.until(len(weeks) - 1)
    first, second = all_scores(past, tiny), all_scores(past, tiny)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = replace(tiny, seed=1)
    model = make_model(past.graph, other)
    assert not torch.equal(model.project.weight, first[-1])
