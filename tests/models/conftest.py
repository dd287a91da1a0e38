"""What several files about one model share: small data, models for them, and batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tgrec.data import RecBatch, Split, Targets, TemporalRecGraph, leave_one_out, leave_one_out_in
from tgrec.datasets import simulate_domains, simulate_movielens
from tgrec.loader import SeedLoader, Track, training_seeds
from tgrec.models import EnhancedBERT4Rec, TGTBERT4Rec, TriGRec
from tgrec.sampler import EventIndex
from tgrec.testing import noise_graph
from tgrec.training import fit

# ---- TGT-BERT4Rec ------------------------------------------------------------------------------

ITEMS, LENGTH = 20, 10
TGT: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 2, "d_ff": 32, "max_len": LENGTH}


def tgt_model_of(seed: int = 0, **kwargs: Any) -> TGTBERT4Rec:
    torch.manual_seed(seed)
    model = TGTBERT4Rec(ITEMS, **{**TGT, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and from each other
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def seed_batch(seed: int = 0, rows: int = 6, right: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """ids, times, mask in the seed's conventions."""
    g = torch.Generator().manual_seed(seed)
    count = torch.randint(1, LENGTH + 1, (rows, 1), generator=g)
    mask = torch.arange(LENGTH) >= LENGTH - count
    ids = torch.randint(1, ITEMS + 1, (rows, LENGTH), generator=g) * mask
    times = (10**9 + torch.randint(10**6, (rows, LENGTH), generator=g).sort(1).values) * mask
    if right:
        count = count.view(-1).tolist()
        ids, times, mask = (
            torch.stack([torch.roll(row, n, 0) for row, n in zip(x, count, strict=True)])
            for x in (ids, times, mask)
        )
    return ids, times, mask


@pytest.fixture(scope="session")
def tgt_kit() -> SimpleNamespace:
    """Noise of 20 items, models for it, histories as batches, and batches as the seed had them."""
    split = leave_one_out(noise_graph(num_items=ITEMS))

    def history_batch() -> RecBatch:
        loader = SeedLoader(EventIndex(split.graph), tgt_model_of().sampling)
        return loader.batch(split.test)

    return SimpleNamespace(
        ITEMS=ITEMS,
        LENGTH=LENGTH,
        SMALL=TGT,
        split=split,
        model_of=tgt_model_of,
        seed_batch=seed_batch,
        history_batch=history_batch,
    )


# ---- Enhanced BERT4Rec -------------------------------------------------------------------------

ENHANCED: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 16, "max_len": 12}


@pytest.fixture(scope="session")
def enhanced_kit() -> SimpleNamespace:
    """50 people and 40 films with all their features, models for them, and batches."""
    graph = simulate_movielens(num_users=50, num_items=40, mean_events=10)[0]
    split = leave_one_out(graph)
    index = EventIndex(graph)

    def build(graph: TemporalRecGraph = split.train, loud: bool = True, **kwargs: Any) -> Any:
        """A model; a loud one has large weights, so that everything that is read is heard."""
        torch.manual_seed(0)
        model = EnhancedBERT4Rec.from_graph(graph, **{**ENHANCED, **kwargs}).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if loud:
                    parameter.normal_(std=0.3)
        return model

    def asked(model: Any, track: Track = "T1", targets: Targets = split.test) -> RecBatch:
        return SeedLoader(index, model.sampling, track).batch(targets)

    def training_batch(model: Any, graph: TemporalRecGraph = split.train) -> RecBatch:
        index = EventIndex(graph)
        return SeedLoader(index, model.sampling).batch(training_seeds(index, 12), key=3)

    return SimpleNamespace(
        SMALL=ENHANCED,
        graph=graph,
        split=split,
        build=build,
        asked=asked,
        training_batch=training_batch,
    )


# ---- TriGRec -----------------------------------------------------------------------------------

TRIGREC: dict[str, Any] = {"d_model": 8, "n_heads": 2, "n_blocks": 1, "d_ff": 16, "max_len": 16}


@pytest.fixture(scope="session")
def food_split() -> Split:
    """60 users of two domains, food and kitchen, who are asked for food."""
    return leave_one_out_in(simulate_domains(num_users=60, num_items=30)[0], "food")


def trigrec_of(split: Split, **kwargs: Any) -> TriGRec:
    torch.manual_seed(0)
    return TriGRec.from_graph(split.train, **{**TRIGREC, "target": "food", **kwargs}).eval()


def trigrec_batch(model: TriGRec, split: Split) -> RecBatch:
    return SeedLoader(EventIndex(split.graph), model.sampling).batch(split.test)


def trigrec_trained(model: TriGRec, split: Split, epochs: int = 2, **kwargs: Any) -> TriGRec:
    fit(
        model, split, epochs=epochs, eval_every=epochs, batch_size=16, lr=1e-2, show=False, **kwargs
    )
    return model.eval()


@pytest.fixture(scope="session")
def trigrec_kit() -> SimpleNamespace:
    """``make(split, stage="users")``, ``asked(model, split)``, ``trained(model, split)``."""
    return SimpleNamespace(
        SMALL=TRIGREC, make=trigrec_of, asked=trigrec_batch, trained=trigrec_trained
    )
