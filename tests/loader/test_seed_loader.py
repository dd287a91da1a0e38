"""Batches of seeds: who is asked what, each once, in any order, resumable, shared fairly."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgrec.data import RecBatch, Sampling, Targets, TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader, training_seeds
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph, toy_graph

GRAPH = noise_graph(num_users=40, num_items=9, length=(1, 30), seed=5)
INDEX = EventIndex(GRAPH)


def loader(max_len: int | None = 12, track: str = "T1") -> SeedLoader:
    return SeedLoader(INDEX, Sampling(max_len=max_len), track)  # type: ignore[arg-type]


def pairs(seeds: Targets) -> list[tuple[int, int]]:
    return list(zip(seeds.user.tolist(), seeds.cut.tolist(), strict=True))


def events_of(user: int) -> list[int]:
    return INDEX.event_id[INDEX.user == user].tolist()


def questions(batches: list[RecBatch]) -> list[tuple[int, int]]:
    """(user, key): the key of a draw names its event."""
    return [k for b in batches for k in zip(b.user.tolist(), b.key.tolist(), strict=True)]  # type: ignore[union-attr]


# ---- training seeds --------------------------------------------------------------------------


def test_last_windows_end_at_each_users_last_event() -> None:
    seeds = training_seeds(INDEX, 12, "last")
    wanted = [(u, events_of(u)[-1]) for u in range(40) if len(events_of(u)) > 1]
    assert pairs(seeds) == wanted
    assert seeds.item.tolist() == [int(INDEX.item[c]) for _, c in wanted]
    assert seeds.time is not None
    assert seeds.time.tolist() == [int(INDEX.time[c]) for _, c in wanted]


@given(st.integers(1, 12), st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_all_windows_ask_for_each_event_once(max_len: int, seed: int) -> None:
    index = EventIndex(noise_graph(12, 5, (1, 25), seed=seed))
    seeds = training_seeds(index, max_len, "all")
    history = SeedLoader(index, Sampling(max_len=max_len)).batch(seeds).history
    assert history is not None
    asked = defaultdict(list)
    for row, (user, cut) in enumerate(pairs(seeds)):
        inside = history.event_id[row][history.mask[row]].tolist()
        asked[user] += [*inside[1:], cut]  # what each position is to predict
    for user in range(12):
        events = index.event_id[index.user == user].tolist()
        assert sorted(asked[user]) == events[1:]


@pytest.mark.parametrize("windows", ["last", "all", "random", "early"])
@pytest.mark.parametrize("max_len", [1, 4, 50])
def test_windows_end_at_events_of_the_kind_that_is_asked_for(windows: str, max_len: int) -> None:
    table = pd.DataFrame({"user_id": INDEX.user.tolist(), "item_id": INDEX.item.tolist()})
    table["kind"] = ["ab"[item % 3 == 0] for item in table.item_id]
    index = EventIndex(TemporalRecGraph.from_pandas(table, time=None, relation="kind"))
    whole = pairs(training_seeds(index, max_len, windows, key=4))
    wanted = set()
    for user, cut in whole:
        mine = index.user == user
        first = int(index.event_id[mine][0])
        upto = index.event_id[mine & (index.relation == 1) & (index.event_id <= cut)].tolist()
        wanted |= {(user, upto[-1])} if upto and upto[-1] > first else set()
    found = pairs(training_seeds(index, max_len, windows, key=4, relation=1))
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert wanted != set(whole)
    every = {(u, c) for u, c in pairs(training_seeds(index, None)) if index.relation[c] == 1}
    assert set(pairs(training_seeds(index, None, relation=1))) == every


def test_without_histories_every_event_with_a_past_is_a_seed() -> None:
    seeds = training_seeds(INDEX, None)
    wanted = [(u, e) for u in range(40) for e in events_of(u)[1:]]
    assert pairs(seeds) == wanted


def test_random_windows_end_anywhere_and_at_the_end_more_often() -> None:
    ends: dict[int, list[int]] = defaultdict(list)
    for key in range(400):
        seeds = training_seeds(INDEX, 12, "random", key)
        assert len(set(seeds.user.tolist())) == len(seeds)
        for user, cut in pairs(seeds):
            ends[user].append(events_of(user).index(cut))
    for user, places in ends.items():
        last = len(events_of(user)) - 1
        assert min(places) >= 1
        assert set(places) == set(range(1, last + 1))
        # Half of the draws are the last event; the others are spread evenly, it included.
        share = sum(p == last for p in places) / len(places)
        assert share == pytest.approx(0.5 + 0.5 / last, abs=0.12)
    assert pairs(training_seeds(INDEX, 12, "random", 3)) == pairs(
        training_seeds(INDEX, 12, "random", 3)
    )


def test_early_windows_have_short_pasts_as_often_as_long_ones() -> None:
    index = EventIndex(noise_graph(num_users=1, length=(101, 101)))
    pasts = torch.tensor([events_before(index, training_seeds(index, 12, "early", key))
                          for key in range(4000)])  # fmt: skip
    at_end = pasts == 100
    assert float(at_end.float().mean()) == pytest.approx(0.5, abs=0.03)
    others = pasts[~at_end]
    assert {1, 2, 3} <= set(others.tolist())
    assert float((others < 10).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float((others < 31).float().mean()) == pytest.approx(0.75, abs=0.04)


def events_before(index: EventIndex, seed: Targets) -> int:
    """How many events stand before the only seed."""
    return int((index.event_id < seed.cut).sum())


def test_unknown_windows_are_explained() -> None:
    with pytest.raises(ValueError, match=r"'windows' needs to be one of .*'last', 'all'.*'first'"):
        training_seeds(INDEX, 12, "first")


# ---- one batch -------------------------------------------------------------------------------


def test_a_question_holds_no_answer() -> None:
    seeds = training_seeds(INDEX, 12)
    batch = loader().batch(seeds)
    assert batch.item is None
    assert batch.item_time is None
    assert batch.key is None
    assert batch.query_time is None
    assert not {"cut", "event_id"} & set(vars(batch))  # a cut tells the time


def test_a_training_batch_holds_item_time_and_key() -> None:
    seeds = training_seeds(INDEX, 12)
    batch = loader(track="T2").batch(seeds, key=3)
    assert torch.equal(batch.item, seeds.item)  # type: ignore[arg-type]
    assert torch.equal(batch.item_time, seeds.time)  # type: ignore[arg-type]
    assert batch.query_time is not None
    assert torch.equal(batch.query_time[:, -1], seeds.time)  # type: ignore[arg-type]
    assert batch.key is not None
    assert batch.key.unique().numel() == len(seeds)


def test_history_ends_before_the_seed() -> None:
    seeds = training_seeds(INDEX, 12, "all")
    history = loader().batch(seeds).history
    assert history is not None
    assert (history.event_id < seeds.cut.unsqueeze(1)).all()
    assert history.mask[:, -1].all()


def test_models_without_history_get_none() -> None:
    batch = loader(None).batch(training_seeds(INDEX, None), key=1)
    assert batch.history is None
    assert batch.item is not None


def test_keys_depend_on_the_event_and_not_on_the_batch() -> None:
    seeds = training_seeds(INDEX, 12)
    whole = loader().batch(seeds, key=9).key
    order = torch.randperm(len(seeds), generator=torch.Generator().manual_seed(0))
    assert whole is not None
    for rows in order.split(7):
        part = loader().batch(seeds.select(rows), max_len=8, key=9).key
        assert torch.equal(part, whole[rows])  # type: ignore[arg-type]
    assert not torch.equal(whole, loader().batch(seeds, key=10).key)  # type: ignore[arg-type]


def test_batches_move_whole() -> None:
    moved = loader(track="T2").batch(training_seeds(INDEX, 12), key=1).to("meta")
    assert moved.history is not None
    assert moved.history.item.device.type == "meta"
    assert {t.device.type for t in vars(moved).values() if isinstance(t, torch.Tensor)} == {"meta"}


# ---- an epoch --------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3), st.sampled_from(["last", "all"]))
@settings(max_examples=40, deadline=None)
def test_an_epoch_holds_every_seed_once(size: int, seed: int, epoch: int, windows: str) -> None:
    seeds = training_seeds(INDEX, 6, windows)
    plan = loader(6).plan(seeds, size, seed, epoch)
    assert sorted(torch.cat(plan).tolist()) == list(range(len(seeds)))
    assert all(len(rows) for rows in plan)
    batches = list(loader(6).train_batches(seeds, size, seed, epoch))
    assert sorted(u for b in batches for u in b.user.tolist()) == sorted(seeds.user.tolist())


def test_batches_hold_about_equally_many_events_of_similar_length() -> None:
    seeds = training_seeds(INDEX, 30, "last")
    lengths = loader(30).lengths(seeds)
    plan = loader(30).plan(seeds, 5, 0, 0)
    totals = torch.tensor([float(lengths[rows].sum()) for rows in plan])
    assert totals.max() < 2.5 * totals.mean()
    spread = sum(float(lengths[rows].max() - lengths[rows].min()) for rows in plan) / len(plan)
    assert spread < 12  # of 30


def test_a_batch_may_hold_everything() -> None:
    seeds = training_seeds(INDEX, 12)
    for size in (len(seeds), 10 * len(seeds)):
        (rows,) = loader().plan(seeds, size, 0, 0)
        assert sorted(rows.tolist()) == list(range(len(seeds)))
    assert loader().plan(seeds.select(torch.zeros(0, dtype=torch.long)), 4, 0, 0) == []


def test_batches_have_few_shapes() -> None:
    """One number of rows per length, but for what is left over at the end."""
    index = EventIndex(noise_graph(num_users=1500, length=(2, 300)))
    seeds = training_seeds(index, 200)
    reader = SeedLoader(index, Sampling(max_len=200))
    padded = reader._padded(reader.lengths(seeds))
    assert (padded >= reader.lengths(seeds).clamp(max=200)).all()
    assert float(padded.sum()) < 1.1 * float(reader.lengths(seeds).clamp(max=200).sum())
    shapes = [(int(padded[rows].max()), len(rows)) for rows in reader.plan(seeds, 16, 0, 0)]
    assert len(shapes) == pytest.approx(1500 / 16, rel=0.1)
    assert len(set(shapes)) <= len({length for length, _ in shapes}) + 1 <= 23
    totals = torch.tensor([float(length * rows) for length, rows in shapes])
    assert float((totals / totals.mean() - 1).abs().median()) < 0.1


def test_epochs_and_seeds_differ_and_repeat() -> None:
    seeds = training_seeds(INDEX, 12)

    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in loader().plan(seeds, 6, seed, epoch)]

    assert plan(0, 0) == plan(0, 0)
    assert plan(0, 0) != plan(0, 1)
    assert plan(0, 0) != plan(1, 0)
    assert len(plan(0, 0)) == len(plan(0, 1)) == len(plan(7, 3))  # the lengths are the same


def same(a: RecBatch, b: RecBatch) -> bool:
    assert a.history is not None
    assert b.history is not None
    return all(
        torch.equal(x, y)
        for x, y in [
            (a.user, b.user),
            (a.item, b.item),
            (a.key, b.key),
            (a.history.event_id, b.history.event_id),
        ]  # type: ignore[list-item]
    )


def test_an_epoch_can_be_entered_at_any_step() -> None:
    seeds = training_seeds(INDEX, 12)
    whole = list(loader().train_batches(seeds, 6, 1, 2))
    for start in range(len(whole) + 1):
        rest = list(loader().train_batches(seeds, 6, 1, 2, start=start))
        assert len(rest) == len(whole) - start
        assert all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_each_batch(world: int) -> None:
    seeds = training_seeds(INDEX, 12)
    whole = list(loader().train_batches(seeds, 8, 1, 0))
    shares = [
        list(loader().train_batches(seeds, 8, 1, 0, rank=r, world_size=world)) for r in range(world)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert sorted(questions(parts)) == sorted(questions([batch]))
        assert max(len(p.user) for p in parts) - min(len(p.user) for p in parts) <= 1


def test_bad_batch_size_is_explained() -> None:
    with pytest.raises(ValueError, match=r"'batch_size' needs to be a positive integer \(got 0\)"):
        loader().plan(training_seeds(INDEX, 12), 0, 0, 0)


# ---- evaluation ------------------------------------------------------------------------------


@given(st.integers(1, 50))
@settings(max_examples=20, deadline=None)
def test_evaluation_asks_everybody_once_with_whole_histories(size: int) -> None:
    test = leave_one_out(GRAPH).test
    rows, seen = [], 0
    for part, batch in loader().eval_batches(test, size):
        rows += part.tolist()
        assert torch.equal(batch.user, test.user[part])
        assert batch.item is None
        assert batch.history is not None
        assert batch.history.item.size(1) >= 1
        found = batch.history.mask.sum(1)
        wanted = loader().lengths(test.select(part)).clamp(max=12)
        assert torch.equal(found, wanted)
        seen = max(seen, part.numel())
    assert sorted(rows) == list(range(len(test)))
    assert seen <= size


def test_users_without_a_past_are_asked_too() -> None:
    index = EventIndex(toy_graph())
    seeds = Targets(
        torch.tensor([0, 3]), torch.tensor([0, 10]), torch.tensor([4, 2]), torch.tensor([5, 6])
    )
    batches = list(SeedLoader(index, Sampling(max_len=6)).eval_batches(seeds, 1))
    assert [b.history.item.shape for _, b in batches if b.history] == [(1, 6), (1, 6)]
    assert not any(bool(b.history.mask.any()) for _, b in batches if b.history)
