"""What an epoch is made of, and what a batch that is too large to be read at once."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from tgrec.data import History, RecBatch, SoftLabels, Targets
from tgrec.data.random import hash_keys
from tgrec.loader import SeedLoader, training_seeds
from tgrec.training.distributed import Workers
from tgrec.training.settings import TrainSettings

# Nearly twice a batch of 64 histories of MovieLens-1M. A step of tgt_bert4rec keeps 16 KB an event
# for its backward pass; to read a batch of 256 in two parts takes no longer.
EVENTS_AT_ONCE = 2**14
SEEDS_STREAM = 2  # the streams 0 and 1 of (seed, epoch) are the plan of the loader


def examples_of(
    loader: SeedLoader, settings: TrainSettings, workers: Workers, epoch: int
) -> tuple[Targets, list[Tensor]]:
    """The seeds of an epoch and their rows in each step; random windows give others each time."""
    key = int(hash_keys(settings.seed, epoch, SEEDS_STREAM))
    sampling = loader.sampling
    seeds = training_seeds(
        loader.index, sampling.max_len, settings.windows, key, sampling.seeds_per_user,
        sampling.relation,
    )  # fmt: skip
    if len(seeds) == 0:
        asked = "" if sampling.relation is None else ", the later of the kind that is asked for"
        raise ValueError(f"nothing to train on: no user has two training events{asked}")
    plan = loader.plan(seeds, settings.batch_size, settings.seed, epoch)
    smallest = min(len(rows) for rows in plan)
    if smallest < workers.world_size:
        raise ValueError(
            f"'batch_size' needs to be larger (got {settings.batch_size}): some batches hold "
            f"{smallest} sequences, for {workers.world_size} processes to share"
        )
    return seeds, plan


def parts_of(batch: RecBatch, settings: TrainSettings, workers: Workers) -> list[RecBatch]:
    """The batch, or parts of about equally many of its rows, in their order.

    No part has more than ``settings.events_at_once`` events, padding included (or two rows, if
    these are more). Batches without histories, or with sampled neighbourhoods, stay whole. All
    processes get equally many parts.
    """
    most = settings.events_at_once
    if most is None and settings.device.startswith("cpu"):
        most = EVENTS_AT_ONCE
    if most is None or batch.history is None or batch.graph is not None:
        return [batch]
    rows, length = batch.history.mask.shape
    # Two rows or more a part: another process may have one row less, and needs one in each part.
    count = math.ceil(rows / max(2, most // max(1, length)))
    count = int(workers.agree(count, batch.user.device))
    if count <= 1:
        return [batch]
    columns = {f.name: _split(getattr(batch, f.name), count) for f in fields(batch)}
    return [replace(batch, **{n: parts[i] for n, parts in columns.items()}) for i in range(count)]


def _split(value: Any, count: int) -> list[Any]:
    if isinstance(value, Tensor):
        return list(value.tensor_split(count))
    if isinstance(value, History):
        columns = [_split(getattr(value, f.name), count) for f in fields(value)]
        return [History(*part) for part in zip(*columns, strict=True)]
    if isinstance(value, SoftLabels):
        return [replace(value, hidden=part) for part in value.hidden.tensor_split(count)]
    return [value] * count
