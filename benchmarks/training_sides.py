"""The sides of throughput.py: one model trained the usual way, by a compiled loop, and by us."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from golden import GOLDEN
from handwritten import HandWritten, why_not_compiled
from torch import Tensor
from torch.utils.data import DataLoader
from usual import PaddedSequences, UsualEncoder

from tgrec.data import Split, Targets
from tgrec.loader import SeedLoader, training_seeds
from tgrec.models import MODELS, BERT4Rec, RecModel, SASRec
from tgrec.sampler import EventIndex
from tgrec.training import TrainSettings, autocast
from tgrec.training.distributed import Workers, wrap
from tgrec.training.graphed_step import graphed
from tgrec.training.optimizer import adam, set_rate
from tgrec.training.step import TrainStep

MAX_LEN = 200
NAMES = {"usual": "usual way", "compiled": "hand-written, compiled", "fp32": "tgrec fp32",
         "auto": "tgrec", "graphs": "tgrec, CUDA graphs"}  # fmt: skip


class Options(Protocol):
    """What of the options of throughput.py is read here."""

    users: int
    batch_size: int
    device: str
    compiled: bool


class TrainingSides:
    """One model, all ways to train it; its weights never move, so that all compute one loss.

    Attributes:
        left_out: Why some side is not there, in words.
    """

    def __init__(self, name: str, split: Split, options: Options) -> None:
        torch.manual_seed(0)
        self.name, self.left_out = name, []  # type: str, list[str]
        self.settings = TrainSettings(batch_size=options.batch_size, device=options.device)
        settings = GOLDEN[name].model if name not in ("sasrec", "bert4rec") else {}
        self.model: RecModel = MODELS[name].from_graph(split.train, **settings).to(options.device)
        index = EventIndex(split.train, options.device)
        seeds = training_seeds(index, MAX_LEN)
        some = torch.linspace(0, len(seeds) - 1, min(options.users, len(seeds))).long()
        self.seeds = seeds.select(some.to(index.device))
        self.scale = len(seeds) / len(self.seeds)
        on_cuda = self.settings.on_cuda
        self.loader = SeedLoader(index, self.model.sampling, steady=on_cuda)
        self.warm_up = 2 if on_cuda else 0  # a shape is run, then recorded, then replayed
        self.losses: dict[str, float] = {}
        self.sides: dict[str, Callable[[], None]] = {}
        self.share: dict[str, float] = {}  # of the seeds that an epoch reads, where not all
        if isinstance(self.model, SASRec | BERT4Rec):
            self._add_usual(self.model, index, options)
        for side in ("fp32", "auto", *["graphs"] * on_cuda):
            self.sides[side] = self._ours(side)
            if side != "graphs":
                self.losses[side] = our_loss(self.model, self.loader, self.seeds, self._of(side))

    def rows(self, rounds: int) -> list[list[str]]:
        """Of each side: seconds of an epoch of all users, how many times ours, and the loss."""
        for side, epoch in self.sides.items():
            for _ in range(max(self.warm_up, side == "compiled")):
                epoch()
        best = dict.fromkeys(self.sides, float("inf"))
        for _ in range(rounds):
            for side, epoch in self.sides.items():
                seconds = timed(epoch, self.settings) / self.share.get(side, 1.0)
                best[side] = min(best[side], seconds * self.scale)
        ours = best["graphs" if "graphs" in best else "auto"]
        out = []
        for side, seconds in best.items():
            loss = f"{self.losses[side]:.3f}" if side in self.losses else "-"
            out.append([self.name, NAMES[side], f"{seconds:.3g} s", f"{seconds / ours:.1f}", loss])
        return out

    def _of(self, side: str) -> TrainSettings:
        return replace(
            self.settings,
            precision="fp32" if side == "fp32" else "auto",
            cuda_graphs=None if side == "graphs" else False,
        )

    def _add_usual(self, model: SASRec | BERT4Rec, index: EventIndex, options: Options) -> None:
        usual = UsualEncoder(model).to(options.device)
        mask_prob = None if isinstance(model, SASRec) else float(model.config["mask_prob"])
        given = (sequences(index, self.seeds), MAX_LEN, model.num_items)
        loaded = DataLoader(
            PaddedSequences(*given, mask_prob), batch_size=options.batch_size, shuffle=True
        )
        self.sides["usual"] = lambda: usual_epoch(usual, loaded, options.device)
        self.losses["usual"] = usual_loss(usual, loaded, options.device)
        reason = "--no-compiled" if not options.compiled else why_not_compiled(options.device)
        if reason:
            self.left_out.append(f"The compiled loop is left out: {reason}.")
            return
        # Of a cloze that hides nothing but the last item, inputs are behind by one position.
        pairs = [PaddedSequences(*given, None)[row] for row in range(len(self.seeds))]
        inputs, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
        if mask_prob is not None:
            inputs = torch.cat([inputs, targets[:, -1:]], dim=1)
            targets = inputs
        loop = HandWritten(usual, inputs, targets, mask_prob, options.batch_size, self._of("auto"))
        self.sides["compiled"], self.share["compiled"] = loop.epoch, loop.share

    def _ours(self, side: str) -> Callable[[], None]:
        settings = self._of(side)
        optimizer = adam(self.model, settings)
        step = TrainStep(self.model, wrap(self.model, Workers()), optimizer, settings, Workers())
        recorded = graphed(step, taught=False)
        run: Callable[[Any], None] = step if recorded is None else recorded

        def epoch() -> None:
            self.model.train()
            set_rate(optimizer, 0.0)
            step.tally.start(0, [], [])
            if recorded is not None:
                recorded.start_epoch()
            for batch in self.loader.train_batches(self.seeds, settings.batch_size, 0, 0):
                run(batch)
            step.tally.read()

        return epoch


def timed(epoch: Callable[[], None], settings: TrainSettings) -> float:
    """Seconds until all of it is done on the device, too."""
    _wait(settings)
    start = time.perf_counter()
    epoch()
    _wait(settings)
    return time.perf_counter() - start


def _wait(settings: TrainSettings) -> None:
    if settings.on_cuda:
        torch.cuda.synchronize(settings.device)


def usual_epoch(model: UsualEncoder, data: DataLoader[tuple[Tensor, Tensor]], device: str) -> None:
    """One pass."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # the weights stay comparable
    model.train()
    for inputs, targets in data:
        optimizer.zero_grad()
        model.loss(inputs.to(device), targets.to(device)).backward()
        optimizer.step()
    optimizer.zero_grad()  # some parameters are those of our model


@torch.no_grad()
def usual_loss(model: UsualEncoder, data: DataLoader[tuple[Tensor, Tensor]], device: str) -> float:
    """Mean loss without dropout; masks are drawn anew, so BERT4Rec's agrees up to the draw."""
    model.eval()
    parts = [
        (model.loss(inputs.to(device), targets.to(device)).cpu(), (targets >= 0).sum())
        for inputs, targets in data
    ]
    return float(sum(loss * n for loss, n in parts) / sum(n for _, n in parts))


@torch.no_grad()
def our_loss(model: RecModel, loader: SeedLoader, seeds: Targets, settings: TrainSettings) -> float:
    """Mean loss without dropout."""
    model.eval()
    total = torch.zeros(2, dtype=torch.float64)
    with autocast(settings):
        for batch in loader.train_batches(seeds, settings.batch_size, 0, 0):
            sums, counts = model.loss_terms(batch)
            total += torch.stack([sums.sum(), counts.sum()]).cpu()
    return float(total[0] / total[1])


def sequences(index: EventIndex, seeds: Targets) -> list[list[int]]:
    """The items of each user up to and with the seed."""
    start, stop = index.by_user.past(seeds.user, seeds.cut)
    bounds = zip(start.tolist(), stop.tolist(), strict=True)
    return [index.by_user.other[a : b + 1].tolist() for a, b in bounds]
