"""Seconds of training until BERT4Rec is as good as its paper says: ``throughput.py --to-quality``.

The paper (Sun et al., CIKM 2019) reports NDCG@10 0.4818 on MovieLens-1M: the target among 100
items that the user has not met, drawn by popularity. Here it is asked of the validation target
after every few epochs, on the file that the paper used (board ``ml1m-sasrec``); the test is not
asked.
"""

from __future__ import annotations

import time
from dataclasses import replace

from golden import GOLDEN
from rich.console import Console

from tgrec.data import Split
from tgrec.models import BERT4Rec
from tgrec.sampler import EventIndex
from tgrec.training import TrainSettings, evaluate, fit

PAPER = 0.4818
CANDIDATES = "popularity-100"


class ReachedError(Exception):
    """Ends a training that is good enough."""


def to_quality(
    split: Split, settings: TrainSettings, quality: float, console: Console
) -> tuple[float, float]:
    """Trains from nothing until the validation value is ``quality``; prints what it took.

    Args:
        split: Of a board.
        settings: Device, epochs and so on; asked after every ``eval_every`` epochs.
        quality: NDCG@10 among the candidates.
        console: Where to.

    Returns:
        The best value, and the seconds until it, without those of asking for it.
    """
    model = BERT4Rec.from_graph(split.train, **GOLDEN["bert4rec"].model)
    index, start = EventIndex(split.graph, settings.device), time.perf_counter()
    best, needed, asking = 0.0, 0.0, 0.0

    def ask(epoch: int) -> None:
        nonlocal best, needed, asking
        if epoch % settings.eval_every and epoch < settings.epochs:
            return
        began = time.perf_counter()
        trained = began - start - asking
        found = evaluate(
            model, split, split.val, track=settings.track, remove_seen=settings.remove_seen,
            sampled={CANDIDATES: ("popularity", 100)}, device=settings.device, index=index,
            amp=settings.amp,
        )  # fmt: skip
        value = found.metrics()[CANDIDATES]["NDCG@10"]
        asking += time.perf_counter() - began
        if value > best:
            best, needed = value, trained
        console.print(f"epoch {epoch}: {value:.4f} after {trained:.1f} s", highlight=False)
        if value >= quality:
            raise ReachedError

    try:
        # What fit measures for itself, the full ranking, is not needed here: at the end only.
        fit(
            model, split, replace(settings, eval_every=settings.epochs), show=False, after_epoch=ask
        )
        reached = False
    except ReachedError:
        reached = True
    console.print(
        f"BERT4Rec, NDCG@10 of the validation target, {CANDIDATES}: {best:.4f} in {needed:.1f} s "
        f"of training ({asking:.1f} s of asking not counted); {quality:.4f} was "
        f"{'reached' if reached else f'not reached in {settings.epochs} epochs'}",
        highlight=False,
    )
    return best, needed
