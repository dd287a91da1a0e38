"""``check_model``: does a recommender learn what it says, and does it see only what it may?"""

from __future__ import annotations

import inspect
import json
import tempfile
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import RecBatch, Split, Targets, leave_one_out
from tgrec.loader import SeedLoader
from tgrec.models.base import RecModel
from tgrec.models.io import load_model, save_model
from tgrec.sampler import EventIndex
from tgrec.testing._subject import TRACKS, ModelCheckError, Subject, explained, require, score
from tgrec.testing._training import check_gradients, check_learns, check_loss_sees_no_answer
from tgrec.testing.static_step import check_static_step
from tgrec.testing.toy import noise_graph, scramble_future
from tgrec.training.evaluate import evaluate

__all__ = ["SMALL", "ModelCheckError", "check_model"]

# A model as small as it may be, so that a check takes seconds; what a class does not take is
# left out, what the caller gives comes first.
SMALL: dict[str, Any] = {
    "d_model": 32,
    "n_heads": 2,
    "n_blocks": 1,
    "d_ff": 64,
    "max_len": 16,
    "dropout": 0.1,
    "hidden_channels": 32,
    "num_neighbors": (4, 2),
}
TOLERANCE = 1e-5


def check_model(model_class: type[RecModel], **kwargs: Any) -> None:
    """Checks one class of models, in seconds on one core, on graphs made for it.

    * Every parameter gets a finite gradient that is not zero, and the same batch always gives the
      same loss: nothing accumulates.
    * Scores are ``[B, N]`` float32, finite (for an empty history too) and deterministic; they do
      not change with the target in the batch, the amount or the content of padding, the size or
      the order of batches.
    * No leak: scores are bit-identical after :func:`tgrec.testing.toy.scramble_future` at the cut
      of each seed, on tracks T1 and T2, and ranks through ``evaluate`` are; on T1 the time of the
      target changes nothing. A model trained on noise predicts other noise no better from long
      histories than from single events, in no part of ``loss_terms``, so that its loss does not
      read its own answers.
    * ``save_model`` and ``load_model`` give equal scores; ``config`` is JSON.
    * If it says :attr:`RecModel.static_step`, its code for CUDA reads nothing back, does the same
      whatever the values are, and has the loss and the gradients of the code for the CPU.
    * It learns what :attr:`RecModel.learns` says: ``order`` the next item on a cycle (HR@1 = 1),
      ``pairs`` the block of a user on a block graph, ``popularity`` the order of counts.

    Args:
        model_class: Any subclass of :class:`RecModel`, with ``from_graph``.
        kwargs: Passed to ``from_graph``; by default :data:`SMALL`, as far as the class takes it.

    Raises:
        ModelCheckError: At the first promise that does not hold.
    """
    subject = Subject(model_class, {**_small(model_class), **kwargs})
    with torch.random.fork_rng(devices=[]):
        split = leave_one_out(noise_graph())
        model = check_gradients(subject, split)
        model.eval()
        check_scores(model, split)
        check_padding(model, split)
        check_batches(model, split)
        check_future(model, split)
        check_saving(model, split)
        check_static_step(subject.name, model, split)
        check_loss_sees_no_answer(subject)
        check_learns(subject)


def _small(model_class: type[RecModel]) -> dict[str, Any]:
    known: set[str] = set()
    for cls in model_class.__mro__[: model_class.__mro__.index(RecModel)]:
        parameters = inspect.signature(cls).parameters
        known |= parameters.keys()
        if all(p.kind != p.VAR_KEYWORD for p in parameters.values()):
            break  # otherwise the next class takes what this one hands on
    return {name: value for name, value in SMALL.items() if name in known}


def questions(split: Split) -> Targets:
    """The test targets, and the same users asked at one moment for all, and before any event."""
    test = split.test
    middle = int(test.cut.median())
    parts = [
        test,
        replace(test, cut=torch.full_like(test.cut, middle)),
        replace(test, cut=test.cut * 0),
    ]
    columns = [[getattr(p, name) for p in parts] for name in ("user", "cut", "item", "time")]
    return Targets(*(torch.cat(c) for c in columns))


def check_scores(model: RecModel, split: Split) -> None:
    """Shape, type, finite values, the same twice, and blind to the target in the batch."""
    name, index = type(model).__name__, EventIndex(split.graph)
    seeds = questions(split)
    hint = "; a rating that is not known is NaN" if model.sampling.rating else ""
    for track in TRACKS:
        loader = SeedLoader(index, model.sampling, track)
        batch = _half_rated(loader.batch(seeds))
        scores = score(model, batch)
        bad = ~scores.isfinite().all(dim=1)
        empty = loader.lengths(seeds) == 0
        require(
            not bool((bad & ~empty).any()),
            f"{name}: {int((bad & ~empty).sum())} of {len(bad)} rows of scores on {track} hold NaN "
            f"or infinity{hint}",
        )
        require(
            not bool(bad.any()),
            f"{name}: the scores of a user with an empty history are not finite ({track}); a "
            f"softmax over nothing gives NaN",
        )
        require(
            torch.equal(scores, score(model, batch)),
            f"{name}: two calls of score on one batch differ; is dropout on in eval mode?",
        )
        told = _half_rated(loader.batch(seeds, key=0))
        require(
            torch.equal(scores, score(model, told)),
            f"{name}: scores change when the batch holds the target (item, item_time, rating, "
            f"key): score reads the target",
        )


def check_padding(model: RecModel, split: Split) -> None:
    """Neither the amount nor the content of padding changes a score, nor its content the loss."""
    longest = model.sampling.max_len
    if longest is None or longest < 2:
        return
    name, index, seeds = type(model).__name__, EventIndex(split.graph), questions(split)
    for track in TRACKS:
        loader = SeedLoader(index, model.sampling, track)
        length = min(4, longest - 1)
        short = seeds.select(loader.lengths(seeds) <= length)
        _same(
            score(model, loader.batch(short, max_len=length)),
            score(model, loader.batch(short)),
            f"{name}: scores change with the amount of padding on the left ({length} or {longest} "
            f"positions, {track}); are positions counted from the left?",
        )
        batch = loader.batch(seeds, key=0)
        noisy = _scribble(batch, model.num_items)
        _same(
            score(model, batch),
            score(model, noisy),
            f"{name}: scores read padding: they change with the items and times where mask is "
            f"False ({track})",
        )
        if model.num_parameters():
            known = (loader.lengths(seeds) > 0).nonzero().view(-1)
            batch = loader.batch(seeds.select(known), key=0)
            pair = [_loss(model, b) for b in (batch, _scribble(batch, model.num_items))]
            _same(pair[0], pair[1], f"{name}: the loss reads padding ({track})")


def check_batches(model: RecModel, split: Split) -> None:
    """Neither batch mates nor the order of a batch change a score."""
    name, index, seeds = type(model).__name__, EventIndex(split.graph), questions(split)
    order = torch.arange(len(seeds)).flip(0)
    for track in TRACKS:
        loader = SeedLoader(index, model.sampling, track)
        scores = score(model, loader.batch(seeds))
        alone = [score(model, loader.batch(seeds.select(row.view(1)))) for row in order]
        _same(
            scores[order],
            torch.cat(alone),
            f"{name}: scores depend on the other users of the batch ({track}); statistics over a "
            f"batch must not be used when scoring",
        )
        _same(
            scores[order],
            score(model, loader.batch(seeds.select(order))),
            f"{name}: scores depend on the order of the batch ({track})",
        )


def check_future(model: RecModel, split: Split) -> None:
    """Nothing at or past the cut, and on T1 not the time of the target, changes a bit."""
    name, index, test = type(model).__name__, EventIndex(split.graph), split.test
    own = [test.select(torch.tensor([row])) for row in range(0, len(test), 4)]
    cuts = [
        int(c) for c in torch.quantile(test.cut.double(), torch.tensor([0.1, 0.5, 0.9]).double())
    ]
    shared = [replace(test, cut=torch.full_like(test.cut, c)) for c in cuts]
    for track in TRACKS:
        for seeds in own + shared:
            other = scramble_future(split.graph, int(seeds.cut[0]), seed=len(seeds))
            loaders = [SeedLoader(i, model.sampling, track) for i in (index, EventIndex(other))]
            before, after = (score(model, loader.batch(seeds)) for loader in loaders)
            require(
                torch.equal(before, after),
                f"{name}: scores on {track} change when the events at or past the cut do: it sees "
                f"the future",
            )
        ranks = [
            evaluate(model, s, shared[1], track=track, batch_size=7).ranks
            for s in (split, replace(split, graph=scramble_future(split.graph, cuts[1])))
        ]
        require(
            all(torch.equal(ranks[0][k], ranks[1][k]) for k in ranks[0]),
            f"{name}: ranks on {track} change when the events at or past the cut do",
        )
    loader = SeedLoader(index, model.sampling, "T1")
    assert test.time is not None
    for shift in (1, 10**6):
        require(
            torch.equal(
                score(model, loader.batch(test)),
                score(model, loader.batch(replace(test, time=test.time + shift))),
            ),
            f"{name}: scores on T1 change with the time of the target, which T1 must not know",
        )


def check_saving(model: RecModel, split: Split) -> None:
    """The model that is loaded scores like the one that was saved."""
    name = type(model).__name__
    with explained(f"{name}.config is not JSON"):
        json.dumps(model.config)
    loader = SeedLoader(EventIndex(split.graph), model.sampling)
    batch = loader.batch(questions(split))
    with tempfile.TemporaryDirectory() as folder:
        with explained(f"{name} does not survive save_model and load_model"):
            save_model(model, folder)
            loaded = load_model(folder, {"model": type(model)})
        require(
            torch.equal(score(model, batch), score(loaded, batch)),
            f"{name}: the loaded model scores differently from the saved one; every tensor that it "
            f"needs has to be a parameter or a persistent buffer, every argument in config",
        )


def _half_rated(batch: RecBatch) -> RecBatch:
    """The same batch where it holds ratings: 4, and unknown of every second event.

    The graphs of these checks have no ratings, so that all of them would be unknown.
    """
    history = batch.history
    if history is not None and history.rating is not None:
        age = torch.arange(history.mask.size(1), device=history.mask.device).flip(0)
        rated = history.mask & (age % 2 == 1)
        history = replace(history, rating=torch.where(rated, 4.0, history.rating))
    target = None if batch.rating is None else torch.full_like(batch.rating, 4.0)
    return replace(batch, history=history, rating=target)


def _scribble(batch: RecBatch, num_items: int) -> RecBatch:
    """The same batch with other numbers wherever the mask is False."""
    history = batch.history
    assert history is not None
    draw = torch.Generator().manual_seed(1)

    def noise(high: int, like: Tensor) -> Tensor:
        return torch.randint(high, like.shape, generator=draw)

    mask = history.mask
    other = replace(
        history,
        item=torch.where(mask, history.item, noise(num_items, mask)),
        time=torch.where(mask, history.time, noise(2**31, mask)),
        event_id=torch.where(mask, history.event_id, noise(1000, mask)),
    )
    if history.rating is not None:
        other = replace(other, rating=torch.where(mask, history.rating, noise(5, mask).float()))
    asked = batch.query_time
    if asked is not None:  # its last entry is the seed's own question
        asked = torch.where(F.pad(mask, (0, 1), value=True), asked, noise(2**31, asked))
    return replace(batch, history=other, query_time=asked)


@torch.no_grad()
def _loss(model: RecModel, batch: RecBatch) -> Tensor:
    torch.manual_seed(0)
    with explained(f"{type(model).__name__}.loss failed in eval mode"):
        return model.loss(batch)


def _same(a: Tensor, b: Tensor, message: str) -> None:
    gap = float((a - b).abs().max()) if a.numel() else 0.0
    limit = TOLERANCE * max(1.0, float(a.abs().max()) if a.numel() else 0.0)
    require(gap <= limit, f"{message} (by {gap:.2g})")
