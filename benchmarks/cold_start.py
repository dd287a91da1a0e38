"""How well enhanced_bert4rec serves items and people that training has never seen.

    python benchmarks/cold_start.py                    # simulated data, a minute or two
    python benchmarks/cold_start.py --dataset ml1m

A tenth of the items and of the users are held out of training completely, and so is everything
after a moment (the 80 % quantile of time). *New items*: from then on, each user's first event with
a held-out item is asked for, ranked among the held-out items alone and among all items, beside
popularity, which knows nothing of them, and the popularity of their genres. *New people*: the
sixth event of each held-out user, from less and less: five events, one, the profile, nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

from tgrec.data import History, RecBatch, Targets, TemporalRecGraph, leave_one_out
from tgrec.data.random import uniform
from tgrec.datasets import movielens_1m, simulate_movielens
from tgrec.loader import SeedLoader
from tgrec.metrics import summarize, target_ranks
from tgrec.models import EnhancedBERT4Rec
from tgrec.models.popularity import item_counts
from tgrec.sampler import EventIndex, past_items
from tgrec.training import fit

ITEMS, USERS = 1, 2  # streams of the draws of who is held out
ASKED = 5  # events before the one that a new user is asked for
Table = dict[str, dict[str, float]]


@dataclass
class Options:
    """What to measure."""

    dataset: Literal["simulated", "ml1m"] = "simulated"
    """On which data."""
    share: float = 0.1
    """Share of items, and of users, that are held out."""
    epochs: int = 40
    """Of training."""
    d_model: int = 64
    """Width."""
    max_len: int = 100
    """Events read per user."""
    seed: int = 0
    """Of weights and training, and of who is held out."""
    root: Path | None = None
    """Folder with the data."""


def main() -> None:
    """Parses the command line, prints one table."""
    options = tyro.cli(Options, description=__doc__)
    graph = (
        simulate_movielens()[0] if options.dataset == "simulated" else movielens_1m(options.root)
    )
    print(f"data: {'SIMULATED' if options.dataset == 'simulated' else options.dataset}")
    print(json.dumps(measure(graph, options), indent=2))


def measure(graph: TemporalRecGraph, options: Options) -> Table:
    """Row of the table -> metrics, with ``targets``, how many were asked for."""
    new_item = uniform(options.seed, ITEMS, torch.arange(graph.num_items)) < options.share
    new_user = uniform(options.seed, USERS, torch.arange(graph.num_users)) < options.share
    index = EventIndex(graph)
    moment = graph.event_id_at(int(index.time[int(0.8 * index.num_events)]))
    train = graph.before(moment)
    for kind in train.interaction_types:
        user, item = train[kind].edge_index
        train = train.select_events(~(new_item[item] | new_user[user]), kind[1])
    torch.manual_seed(options.seed)
    # What is held out has neither counts nor a vector of its own.
    model = EnhancedBERT4Rec.from_graph(train, d_model=options.d_model, max_len=options.max_len)
    fit(
        model,
        leave_one_out(train),
        epochs=options.epochs,
        batch_size=64,
        lr=4e-3,
        seed=options.seed,
        windows="early",
        lr_decay="cosine",
        eval_every=5,
        show=False,
    )
    model.eval()
    items = new_items(model, train, index, new_item, moment)
    return items | new_people(model, train, index, new_user, new_item)


@torch.no_grad()
def new_items(
    model: EnhancedBERT4Rec, train: TemporalRecGraph, index: EventIndex, new: Tensor, moment: int
) -> Table:
    """Each user's first event with a held-out item from the moment on."""
    rows = ((index.event_id >= moment) & new[index.item]).nonzero().view(-1)
    asked = _targets(index, _first_of_each(index.user[rows], rows))
    scores = _scores(model, SeedLoader(index, model.sampling), asked)
    counts = item_counts(train)
    share = model.inputs.item_genre
    of_genre = share.t() @ counts / share.sum(0).clamp(min=1)
    seen = past_items(index, asked.user, asked.cut)
    out = {}
    for name, values in {
        "enhanced_bert4rec": scores,
        "popularity": counts.expand_as(scores),
        "popularity of genres": (share @ of_genre).expand_as(scores),
    }.items():
        among_new = values.masked_fill(~new, -torch.inf)
        for where, of in (("new", among_new), ("all", values)):
            ranks = target_ranks(of, asked.item, seen)
            out[f"new items, among {where}: {name}"] = _row(ranks)
    # A random order of the held-out items.
    chance = uniform(asked.user.unsqueeze(1), torch.arange(new.numel())).masked_fill(~new, -1.0)
    out["new items, among new: chance"] = _row(target_ranks(chance, asked.item, seen))
    return out


@torch.no_grad()
def new_people(
    model: EnhancedBERT4Rec,
    train: TemporalRecGraph,
    index: EventIndex,
    new: Tensor,
    new_item: Tensor,
) -> Table:
    """The event after the first five of each held-out user, from less and less."""
    events = index.by_user
    enough = (new & (events.ptr.diff() > ASKED)).nonzero().view(-1)
    asked = _targets(index, events.log[events.ptr[enough] + ASKED])
    asked = asked.select(~new_item[asked.item])
    batch = SeedLoader(index, model.sampling).batch(asked)
    seen = past_items(index, asked.user, asked.cut)
    counts = item_counts(train)
    ways = {
        "five events and profile": (5, True),
        "five events": (5, False),
        "one event": (1, False),
        "profile": (0, True),
        "nothing": (0, False),
    }
    out = {}
    for name, (length, profile) in ways.items():
        ranks = target_ranks(model.score(_knowing(batch, length, profile)), asked.item, seen)
        out[f"new people: {name}"] = _row(ranks)
    popular = target_ranks(counts.expand(len(asked), -1).contiguous(), asked.item, seen)
    return out | {"new people: popularity": _row(popular)}


def _knowing(batch: RecBatch, length: int, profile: bool) -> RecBatch:
    """The same question with the latest events only, and with a profile or not."""
    history = batch.history
    assert history is not None
    keep = torch.zeros_like(history.mask)
    keep[:, keep.size(1) - length :] = True
    kept: History = replace(history, mask=history.mask & keep)
    # Held-out users are nodes without training events: they have a profile and no id.
    user = batch.user if profile else torch.full_like(batch.user, -1)
    return replace(batch, user=user, history=kept)


def _scores(model: EnhancedBERT4Rec, loader: SeedLoader, asked: Targets) -> Tensor:
    out = torch.zeros(len(asked), model.num_items)
    for rows, batch in loader.eval_batches(asked, 128):
        out[rows] = model.score(batch)
    return out


def _targets(index: EventIndex, log: Tensor) -> Targets:
    return Targets(index.user[log], index.event_id[log], index.item[log], index.time[log])


def _first_of_each(node: Tensor, rows: Tensor) -> Tensor:
    """The first of ``rows``, which ascend, of each node."""
    order = torch.argsort(node, stable=True)
    node = node[order]
    first = torch.ones_like(node, dtype=torch.bool)
    first[1:] = node[1:] != node[:-1]
    return rows[order[first]]


def _row(ranks: Tensor) -> dict[str, float]:
    kept = {name: summarize(ranks)[name] for name in ("HR@10", "NDCG@10", "MRR")}
    return {"targets": float(ranks.numel()), **kept}


if __name__ == "__main__":
    main()
