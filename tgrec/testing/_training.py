"""The part of ``check_model`` that trains: gradients, leaks in the loss, learning."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Split, Targets, leave_one_out
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models.base import RecModel
from tgrec.models.popularity import item_counts
from tgrec.sampler import EventIndex
from tgrec.testing._subject import TRACKS, ModelCheckError, Subject, explained, require, score
from tgrec.testing.toy import block_graph, cycle_graph, noise_graph, popularity_graph
from tgrec.training.evaluate import evaluate
from tgrec.training.fit import fit

# Training on noise: passes, users a pass, items; how much better long histories may be predicted
# than single events (3 % was seen, and 32 % of a leak), and what counts as no loss at all.
NOISE_PASSES, NOISE_USERS, NOISE_ITEMS, HONEST, NOTHING = 6, 1024, 32, 0.85, 0.05
# Rounds of training until a model has learned what it says, and for what share of the users: the
# last of them may take many rounds more, another number on every kind of processor.
ROUNDS, EPOCHS, LEARNED = 10, 10, 0.9


def check_gradients(subject: Subject, split: Split) -> RecModel:
    """Finite gradients everywhere, no dead parameter, nothing that accumulates.

    Returns:
        The model after a few steps, so that what starts at zero no longer is.
    """
    model = subject.make(split.train)
    if not model.num_parameters():
        return model
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    alive: set[str] = set()
    for epoch in range(3):
        for track in TRACKS:
            loader = SeedLoader(EventIndex(split.train), model.sampling, track)
            seeds = training_seeds(
                loader.index, model.sampling.max_len, "all", relation=model.sampling.relation
            )
            for batch in loader.train_batches(seeds, 8, seed=0, epoch=epoch):
                if epoch == 0:
                    _check_repeatable(subject.name, model, batch)
                _backward(subject.name, model, batch)
                alive |= {
                    n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()
                }
                optimizer.step()
    optimizer.zero_grad()
    dead = sorted({n for n, p in model.named_parameters() if p.requires_grad} - alive)
    require(
        not dead,
        f"{subject.name}: no gradient ever reaches {', '.join(dead)}; use these parameters in the "
        f"loss, or leave them out",
    )
    return model


def _backward(name: str, model: RecModel, batch: RecBatch) -> Tensor:
    """Fresh gradients of the loss of one batch, checked; returns the loss."""
    model.zero_grad(set_to_none=True)
    with explained(f"{name}: loss failed"):
        sums, counts = model.loss_terms(batch)
    loss = sums.sum() / counts.sum()
    require(bool(loss.isfinite()), f"{name}: the loss is {float(loss.detach())}")
    require(
        all(p.grad is None for p in model.parameters()),
        f"{name}: loss fills gradients by itself; backward is called by the training loop",
    )
    with explained(f"{name}: the gradient of the loss cannot be computed; does something "
                   f"accumulate from batch to batch?"):  # fmt: skip
        loss.backward()
    for key, parameter in model.named_parameters():
        bad = parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        require(not bad, f"{name}: the gradient of {key} is not finite")
    return loss.detach()


def _check_repeatable(name: str, model: RecModel, batch: RecBatch) -> None:
    values, gradients = [], []
    for _ in range(2):
        torch.manual_seed(0)
        values.append(_backward(name, model, batch))
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    same = len(gradients[0]) == len(gradients[1]) and all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True)
    )
    require(
        torch.allclose(values[0], values[1], rtol=1e-5) and same,
        f"{name}: the same batch gives the loss {float(values[0]):.6g}, then "
        f"{float(values[1]):.6g} (or other gradients): something accumulates between calls",
    )


def check_loss_sees_no_answer(subject: Subject) -> None:
    """The oracle test of the loss: on fresh noise, a long history must not help.

    Every item is drawn alike, so after training on the noise of some users an honest model
    predicts that of others equally badly after one event and after three. A model whose loss lets
    a position see the events after it (attention without a causal mask is the classic) does
    better on the long ones, and one that is shown the very answer does well on all. Each part of
    ``loss_terms`` is looked at by itself: among others, that leak nothing, a part would hide.
    """
    graph = noise_graph(NOISE_USERS * (NOISE_PASSES + 1), NOISE_ITEMS, (2, 4), seed=1)
    model = subject.make(graph)
    reads_graph = model.sampling.num_neighbors is not None
    if not model.num_parameters() or not (reads_graph or (model.sampling.max_len or 0) >= 3):
        return
    loader = SeedLoader(EventIndex(graph), model.sampling)
    seeds = training_seeds(loader.index, model.sampling.max_len, relation=model.sampling.relation)
    share = seeds.user // NOISE_USERS  # one for each pass, so that nothing is learned by heart
    unseen = seeds.select(share == NOISE_PASSES)
    before = _losses_by_length(model, loader, unseen)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for epoch in range(NOISE_PASSES):
        fresh = seeds.select(share == epoch)
        for batch in loader.train_batches(fresh, 32, seed=0, epoch=epoch):
            _backward(subject.name, model, batch)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    losses = _losses_by_length(model, loader, unseen)
    for part, (short, long) in losses.items():
        which = "its loss" if len(losses) == 1 else f"part {part} of loss_terms"
        at_first = max(before.get(part, (short, long)))
        require(
            short - long <= (1 - HONEST) * abs(short)
            and (abs(long) >= NOTHING or abs(long) >= NOTHING * abs(at_first)),
            f"{subject.name}: trained on noise, {which} on other noise is {short:.3g} after one "
            f"event and {long:.3g} after three: the loss sees its own answers (is a causal mask "
            f"missing?)",
        )


@torch.no_grad()
def _losses_by_length(
    model: RecModel, loader: SeedLoader, seeds: Targets
) -> dict[int, tuple[float, float]]:
    """Part of the loss -> its mean after one event and after three; parts without terms are not."""
    model.eval()
    lengths, means = loader.lengths(seeds), []
    for length in (1, 3):
        sums, counts = model.loss_terms(loader.batch(seeds.select(lengths == length), key=0))
        means.append((sums / counts).tolist())
    pairs = enumerate(zip(*means, strict=True))
    return {part: pair for part, pair in pairs if all(math.isfinite(value) for value in pair)}


def check_learns(subject: Subject) -> None:
    """Trains on the graph that shows what the model declares to learn."""
    learns = subject.model_class.learns
    tests = {"order": _learns_order, "pairs": _learns_pairs, "popularity": _learns_popularity}
    require(
        learns in tests, f"{subject.name}.learns needs to be one of {list(tests)} (got {learns!r})"
    )
    tests[learns](subject)


def _learns_order(subject: Subject) -> None:
    split = leave_one_out(cycle_graph(num_users=192))
    _train_until(subject, split, 1, "the next item of a cycle graph (learns = 'order')")


def _learns_pairs(subject: Subject) -> None:
    block = 6
    split = leave_one_out(block_graph(block=block))
    _train_until(subject, split, block, "the block of a user (learns = 'pairs')", remove_seen=False)


def _train_until(
    subject: Subject, split: Split, rank: int, what: str, remove_seen: bool = True
) -> None:
    """Rounds of training until nearly every test target ranks within ``rank``."""
    model = subject.make(split.train)
    share = 0.0
    for _ in range(ROUNDS if model.num_parameters() else 1):
        _fit(subject, model, split)
        ranks = evaluate(model, split, split.test, sampled=False, remove_seen=remove_seen).ranks
        share = float((ranks["full"] <= rank).double().mean())
        if share >= LEARNED:
            return
    raise ModelCheckError(
        f"{subject.name} does not learn {what}: HR@{rank} on held-out events is {share:.3f}, "
        f"not {LEARNED} or more"
    )


def _learns_popularity(subject: Subject) -> None:
    graph = popularity_graph()
    split = leave_one_out(graph)
    model = subject.make(split.train)
    _fit(subject, model, split)
    model.eval()
    batch = SeedLoader(EventIndex(graph), model.sampling).batch(split.test)
    wanted = item_counts(split.train).argsort()
    require(
        bool((score(model, batch).argsort(dim=1) == wanted).all()),
        f"{subject.name} does not order items by their number of training events (learns = "
        f"'popularity')",
    )


def _fit(subject: Subject, model: RecModel, split: Split) -> None:
    with explained(f"{subject.name}: fit failed"):
        fit(
            model, split, epochs=EPOCHS, eval_every=EPOCHS, batch_size=16, lr=5e-3,
            precision="fp32", show=False,
        )  # fmt: skip
    require(
        all(p.grad is None for p in model.parameters()),
        f"{subject.name}: gradients are left after fit: they accumulate from step to step",
    )
