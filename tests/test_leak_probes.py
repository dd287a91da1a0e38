"""Leak probes P1-P24: each detector passes on the library and catches its planted bug.

==== ================================================ ==========================================
P1   label edge in its own subgraph                   histories here; neighbourhoods in
                                                      test_leak_probes_neighbors.py
P2   reverse of the label edge                        test_leak_probes_neighbors.py
P3   edge at the same second                          here
P4   duplicate of the label edge at another time      here
P5   edge type without ``time``                       test_leak_probes_neighbors.py
P6   node type without ``time``                       test_leak_probes_neighbors.py
P7   unsorted neighbourhood                           here
P8   two hops to another user's later edge            test_leak_probes_neighbors.py
P9   co-occurrence or popularity from all data        here
P10  normalising with test degrees                    here (the columns of transition tables)
P11  seen filter removes the target                   here
P12  seen filter not applied                          here
P13  negative equals target, validation or test item  here
P14  phantom negative                                 here
P15  early stopping reads test                        here
P16  MASK or PAD equals a real item                   here
P17  BERT branch sees the target position             here
P18  timestamp of the target given as input           here
P19  padding side shift                               here
P20  vocabulary, k-core or filter fitted on test      here; the rating filter of ``ml1m-seed`` is
                                                      the protocol it compares with, and is said
P21  scaler of time fitted on the full log            here
P22  other-domain future in a cross-domain sequence   here
P23  weekly snapshot with the label week, time zones  here
P24  cache of another split or catalogue              here
==== ================================================ ==========================================

P11-P19 are in test_leak_probes_models.py, the two universal detectors in test_leak_detectors.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pytest
import torch
from torch import Tensor

from tgrec.data import History, Split, TemporalRecGraph, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models import (
    MODELS,
    GapMarkov,
    Popularity,
    RecModel,
    SASRec,
    SkipMarkov,
    load_model,
    save_model,
)
from tgrec.models.popularity import item_counts
from tgrec.sampler import EventIndex, HistorySampler
from tgrec.testing import noise_graph, scramble_future, toy_graph
from tgrec.testing.toy import MONDAY

Caught = Callable[..., None]
Small = Callable[..., RecModel]
Sample = Callable[[TemporalRecGraph, Tensor, Tensor], History]
GRAPH = noise_graph(num_users=20, num_items=10, length=(4, 12), spread=12)


def swap_held_out(split: Split) -> Split:
    """The same split of a graph whose held-out events have other items."""
    store_of = {t: split.graph[t] for t in split.graph.interaction_types}
    held = torch.cat([split.val.cut, split.test.cut])
    other = split.graph.clone()
    for edge_type, store in store_of.items():
        mask = torch.isin(store.event_id, held)
        edges = store.edge_index.clone()
        edges[1, mask] = (edges[1, mask] + 1) % split.graph.num_items
        other[edge_type].edge_index = edges
    return leave_one_out(other)


# ---- P1, P3, P4, P7, P22: what a history may hold ------------------------------------------------


def real_sample(graph: TemporalRecGraph, user: Tensor, cut: Tensor) -> History:
    return HistorySampler(EventIndex(graph), 40).sample(user, cut)


def histories_end_before_the_cut(sample: Sample, graph: TemporalRecGraph = GRAPH) -> None:
    """Exactly the events strictly before the cut, whatever shares their second or their pair."""
    index = EventIndex(graph)
    history = sample(graph, index.user, index.event_id)  # every event is a question
    for row in range(index.num_events):
        own = index.event_id[
            (index.user == index.user[row]) & (index.event_id < index.event_id[row])
        ]
        assert history.event_id[row][history.mask[row]].tolist() == own.tolist()
    for cut in (3, index.num_events // 2):
        cuts = torch.full_like(index.user, cut)
        a, b = (sample(g, index.user, cuts) for g in (graph, scramble_future(graph, cut)))
        assert torch.equal(a.item, b.item)


def test_p1_the_label_is_not_in_its_own_history(caught: Caught) -> None:
    histories_end_before_the_cut(real_sample)
    caught(histories_end_before_the_cut, lambda g, u, c: real_sample(g, u, c + 1))


def test_p3_events_of_the_same_second_are_ordered(caught: Caught) -> None:
    def by_the_second(graph: TemporalRecGraph, user: Tensor, cut: Tensor) -> History:
        index = EventIndex(graph)
        time = index.time[torch.searchsorted(index.event_id, cut).clamp(max=index.num_events - 1)]
        return real_sample(
            graph, user, index.event_id[torch.searchsorted(index.time, time, side="right") - 1] + 1
        )

    histories_end_before_the_cut(real_sample, toy_graph())
    caught(histories_end_before_the_cut, by_the_second, toy_graph())


def test_p4_a_pair_that_comes_again_is_two_events(caught: Caught) -> None:
    rows = pd.DataFrame(
        {"user_id": [1] * 5, "item_id": [1, 2, 1, 1, 3], "timestamp": [1, 2, 3, 3, 9]}
    )
    graph = TemporalRecGraph.from_pandas(rows)

    def all_but_the_label(graph: TemporalRecGraph, user: Tensor, cut: Tensor) -> History:
        """Leaves out the label itself, not the clock: its later duplicates stay."""
        whole = real_sample(graph, user, torch.full_like(cut, 10**6))
        return replace(whole, mask=whole.mask & (whole.event_id != cut.unsqueeze(1)))

    def once_a_pair(graph: TemporalRecGraph, user: Tensor, cut: Tensor) -> History:
        """A pair is an edge, and its last time counts."""
        last = rows.drop_duplicates(["user_id", "item_id"], keep="last")
        return real_sample(TemporalRecGraph.from_pandas(last), user, cut)

    histories_end_before_the_cut(real_sample, graph)
    caught(histories_end_before_the_cut, all_but_the_label, graph)
    caught(histories_end_before_the_cut, once_a_pair, graph)


def test_p7_an_order_that_is_a_lie_is_refused() -> None:
    """Two events swapped in the middle: the ends are sorted, which is all that pyg-lib looks at."""
    lie = toy_graph()
    store = lie["user", "rates", "item"]
    order = torch.tensor([0, 1, 2, 3, 6, 5, 4, 7, 8, 9, 10, 11])
    for key, value in list(store.items()):
        store[key] = value[..., order]
    assert store.event_id[0] == 0
    assert store.event_id[-1] == 11
    with pytest.raises(ValueError, match="not strictly increasing"):
        EventIndex(lie)
    with pytest.raises(ValueError, match="not strictly increasing"):
        lie.validate()
    # Numbered by position, the swap cannot be seen in the ids; then the times betray it.
    store.event_id = torch.arange(12)
    with pytest.raises(ValueError, match="'event_id' does not follow 'time'"):
        lie.validate()


def test_p22_other_domains_bring_no_future(caught: Caught) -> None:
    table = GRAPH.to_pandas()
    table["domain"] = ["food" if k % 3 else "kitchen" for k in range(len(table))]
    graph = TemporalRecGraph.from_pandas(table, relation="domain")

    def own_cut_other_whole(graph: TemporalRecGraph, user: Tensor, cut: Tensor) -> History:
        """One domain up to the cut and all of the other, as TriGRec's files have it."""
        index = EventIndex(graph)
        parts = [
            HistorySampler(index, 20, relations=[name]).sample(user, c)
            for name, c in (("food", cut), ("kitchen", torch.full_like(cut, 10**6)))
        ]
        return History(
            *(
                torch.cat(x, dim=1)
                for x in zip(*(vars(p).values() for p in parts), strict=True)
                if x[0] is not None
            )
        )

    histories_end_before_the_cut(real_sample, graph)
    caught(histories_end_before_the_cut, own_cut_other_whole, graph)


# ---- P9, P10, P20, P21: what is fitted -----------------------------------------------------------


def fitted_on_training_events(make: Callable[[Split], RecModel]) -> None:
    """Held-out events change no number of what is fitted."""
    split = leave_one_out(GRAPH)
    one, two = (make(s).state_dict() for s in (split, swap_held_out(split)))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.mark.parametrize("cls", [Popularity, SkipMarkov, GapMarkov])
def test_p9_counts_are_those_of_training_events(caught: Caught, cls: type[RecModel]) -> None:
    fitted_on_training_events(lambda split: cls.from_graph(split.train))
    caught(fitted_on_training_events, lambda split: cls.from_graph(split.graph))


def test_p9_the_graph_of_tgt_bert4rec_is_counted_on_training_events(
    caught: Caught, small: Small
) -> None:
    fitted_on_training_events(lambda split: small("tgt_bert4rec", split.train))
    caught(fitted_on_training_events, lambda split: small("tgt_bert4rec", split.graph))


def test_p10_degrees_are_those_of_training_events(caught: Caught) -> None:
    def degrees_of(which: str) -> Callable[[Split], RecModel]:
        def make(split: Split) -> RecModel:
            model = SkipMarkov.from_graph(split.train)
            occurrences = item_counts(getattr(split, which))
            model.untyped.column.copy_((occurrences + 10) ** -0.15)
            return model

        return make

    fitted_on_training_events(degrees_of("train"))
    caught(fitted_on_training_events, degrees_of("graph"))


def test_p20_the_future_decides_nothing_about_training_events(caught: Caught) -> None:
    """What is before a cut depends on nothing after it; a filter on all data makes it so."""

    def frequent(graph: TemporalRecGraph) -> TemporalRecGraph:
        """Only events of items that are met as often as the mean item."""
        edges = graph["user", "interacts", "item"].edge_index
        count = torch.bincount(edges[1], minlength=graph.num_items).float()
        return graph.select_events(count[edges[1]] >= count.mean())

    def detector(prepare: Callable[[TemporalRecGraph], TemporalRecGraph]) -> None:
        cut = GRAPH.num_events // 2
        past = [prepare(g).before(cut).to_pandas() for g in (GRAPH, scramble_future(GRAPH, cut))]
        assert past[0].equals(past[1])

    detector(lambda graph: graph)
    detector(lambda graph: frequent(graph.before(GRAPH.num_events // 2)))
    caught(detector, frequent)


def test_p21_no_number_comes_from_the_span_of_all_times(caught: Caught, small: Small) -> None:
    class Scaled(SASRec):
        """Knows the first and the last second of what it was made from."""

        @classmethod
        def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
            model = super().from_graph(graph, **kwargs)
            time = EventIndex(graph).time
            model.register_buffer("span", torch.stack([time.min(), time.max()]).float())
            return model

    def detector(make: Callable[[TemporalRecGraph], RecModel]) -> None:
        cut = GRAPH.num_events // 2
        one, two = (make(g).state_dict() for g in (GRAPH, scramble_future(GRAPH, cut)))
        assert all(torch.equal(one[k], two[k]) for k in one)

    half = GRAPH.num_events // 2
    detector(lambda g: small(Scaled, g.before(half)))
    caught(detector, lambda g: small(Scaled, g))
    # And no model of the library knows absolute times. The calendar, which one of them reads, comes
    # back after 400 years to the second, weekdays included; the others need not wait for it.
    split, calendar = leave_one_out(GRAPH), 146_097 * 86_400
    for name in MODELS:
        scores = []
        for shift in (0, calendar if name == "enhanced_bert4rec" else 10**7):
            graph = GRAPH.clone()
            graph["user", "interacts", "item"].time += shift
            model = small(name, leave_one_out(graph).train).eval()
            batch = SeedLoader(EventIndex(graph), model.sampling).batch(split.test)
            scores.append(model.score(batch).detach())
        assert torch.equal(scores[0], scores[1]), name


# ---- P23, P24: weeks and caches ------------------------------------------------------------------


def test_p23_a_week_ends_where_the_next_begins(caught: Caught) -> None:
    times = [MONDAY - 1, MONDAY, MONDAY + 7 * 86_400 - 1, MONDAY + 7 * 86_400]
    graph = TemporalRecGraph.from_pandas(
        pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3, 4], "timestamp": times})
    )

    def detector(weeks: Callable[[TemporalRecGraph], list[TemporalRecGraph]]) -> None:
        found = [EventIndex(w).time.tolist() for w in weeks(graph)]
        assert found == [[times[0]], [times[1], times[2]], [times[3]]]

    def shifted(
        hours: int, closed: int = 0
    ) -> Callable[[TemporalRecGraph], list[TemporalRecGraph]]:
        def weeks(graph: TemporalRecGraph) -> list[TemporalRecGraph]:
            bounds = [MONDAY + (k * 168 + hours) * 3600 for k in range(-1, 3)]
            cuts = [graph.event_id_at(t) for t in bounds]
            ends = [graph.event_id_at(t + closed) for t in bounds]
            return [graph.between(a, b) for a, b in zip(cuts, ends[1:], strict=False)]

        return weeks

    detector(lambda g: list(g.snapshots("W")))
    detector(shifted(0))
    caught(detector, shifted(-5))  # weeks of New York
    caught(detector, shifted(0, closed=1))  # weeks that hold the first second of the label week


def test_p24_an_index_is_never_cached_in_a_graph(caught: Caught) -> None:
    def cached(graph: TemporalRecGraph) -> EventIndex:
        if "_index" not in graph["user"]:
            graph["user"]["_index"] = EventIndex(graph)
        return graph["user"]["_index"]

    def detector(index_of: Callable[[TemporalRecGraph], EventIndex]) -> None:
        graph = toy_graph()
        index_of(graph)
        for part in (graph.before(4), graph.clone().before(4)):
            assert index_of(part).num_events == 4

    detector(EventIndex)
    caught(detector, cached)


def test_p24_a_model_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    save_model(Popularity(10), tmp_path, catalogue="aaa")
    assert isinstance(load_model(tmp_path, MODELS, 10, "aaa"), Popularity)
    for items, catalogue in ((11, "aaa"), (10, "bbb")):
        with pytest.raises(
            ValueError, match="another catalogue|item numbers would mean other items"
        ):
            load_model(tmp_path, MODELS, items, catalogue)
