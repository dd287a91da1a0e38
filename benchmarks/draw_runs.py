"""Draws what runs left behind: curves, the gate, ranks, and what a TGT branch attends to.

    python benchmarks/draw_runs.py runs/tgt_bert4rec-ml1m-loo-T1-seed0 runs/sasrec-ml1m-loo-T1-seed0

Every folder is one of `benchmarks/ml1m.py`. The drawings that look into a model need its weights
and the data of its board; they are made for each `tgt_bert4rec` among the folders.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from tgrec.data import RecBatch, Split
from tgrec.datasets import load_board
from tgrec.loader import SeedLoader, Track
from tgrec.metrics import length_groups
from tgrec.models import MODELS, TGTBERT4Rec, load_model
from tgrec.models.bert4rec import append_mask
from tgrec.models.io import read_config
from tgrec.nn.gap_attention import NUM_BUCKETS
from tgrec.nn.transformer import Attend
from tgrec.plots import (
    draw_by_gap,
    draw_monitored,
    draw_rank_curves,
    draw_shares,
    draw_training,
)
from tgrec.sampler import EventIndex
from tgrec.training.run import read_ranks

USERS = 512  # enough for means over all pairs of events


def main(
    folders: Annotated[list[Path], tyro.conf.Positional],
    out: Path = Path("runs/pictures"),
    root: Path | None = None,
) -> None:
    """Draw runs.

    Args:
        folders: run folders.
        out: where the drawings go.
        root: folder with the data; by default $TGREC_DATA, else the user's cache.
    """
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ValueError(f"'folders': {folder} is no run folder; it has no config.json")
    out.mkdir(parents=True, exist_ok=True)
    histories = {f.name: read_history(f) for f in folders if (f / "history.jsonl").is_file()}
    written: list[Path] = []
    if histories:
        draw_training(histories, written_to(written, out / "training.png"))
    if gates := gate_traces(histories):
        draw_monitored(gates, "alpha", written_to(written, out / "alpha.png"))
    ranked = {f.name: read_ranks(f / "ranks.npz")["full"] for f in folders if has_ranks(f)}
    if ranked:
        draw_rank_curves(ranked, written_to(written, out / "ranks.png"))
    for folder in folders:
        saved = folder / "model"
        if saved.is_dir() and read_config(saved)["class"] == TGTBERT4Rec.__name__:
            model = load_model(saved, MODELS)
            assert isinstance(model, TGTBERT4Rec)
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            _, split = load_board(config["board"], root)
            draw_model(model.eval(), split, config["settings"]["track"], out, folder.name, written)
    for path in written:
        print(f"wrote {path}")


def gate_traces(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, list[dict[str, Any]]]:
    """The gate of each run over epochs; of one that reads the length of histories, one a length.

    A gate that is fixed, or chosen when training is over, has no trace.
    """
    out = {}
    for run, entries in histories.items():
        for key in sorted({key for entry in entries for key in entry if key.startswith("alpha")}):
            trace = [{"epoch": e["epoch"], "alpha": e[key]} for e in entries if key in e]
            if len({entry["alpha"] for entry in trace}) > 1:
                length = key.removeprefix("alpha").replace("_", ", ")
                out[f"{run}{length and length + ' histories'}"] = trace
    return out


def draw_model(
    model: TGTBERT4Rec, split: Split, track: Track, out: Path, name: str, written: list[Path]
) -> None:
    """The drawings that look into one model, over users of the test set."""
    loader = SeedLoader(EventIndex(split.graph), model.sampling, track)
    chosen = torch.linspace(0, len(split.test) - 1, min(USERS, len(split.test))).long()
    targets = split.test.select(chosen)
    batch = loader.batch(targets)
    if model.tgt is not None and model.tgt.pair_bias is not None:
        bias = model.tgt.pair_bias.detach().mean(dim=1)  # over heads
        mass = attention_by_gap(model, batch)
        # A gap that no two events have has a bias that nothing has taught.
        for values, met, what, title, file in (
            (bias, gaps_met(model, batch), "bias of the attention, mean over heads",
             "What the TGT branch has learned about time", f"time-bias-{name}.png"),
            (mass, mass.sum(dim=0) > 0, "share of the attention of the newest event",
             "Attention against the age of an event", f"attention-{name}.png"),
        ):  # fmt: skip
            rows = {f"block {i + 1}": row[met] for i, row in enumerate(values)}
            path = written_to(written, out / file)
            draw_by_gap(rows, bucket_seconds()[met], what, title, path)
    start, stop = loader.index.by_user.past(targets.user, targets.cut)
    length = stop - start
    shares = parts_of_scores(model, batch, targets.item)
    groups = {name: row for name, row in length_groups(length).items() if bool(row.any())}
    draw_shares(
        {
            part: [float(value[row].nanmean()) for row in groups.values()]
            for part, value in shares.items()
        },
        list(groups),
        "share of the target's lead, mean over users",
        "What lifts the target above the other items",
        written_to(written, out / f"parts-{name}.png"),
    )


@torch.no_grad()
def attention_by_gap(model: TGTBERT4Rec, batch: RecBatch) -> Tensor:
    """``[blocks, U]``: where the newest event of each user looks, by the time between the two.

    Attention is linear in its values. With the bucket of each pair as a value, one-hot, the very
    kernel of the model returns how much weight lies on each bucket.
    """
    assert model.tgt is not None
    history = batch.history
    assert history is not None
    encoder = model.tgt
    vectors, pairs = encoder.timed(model.table()[history.item], history, batch.query_time)
    assert pairs is not None
    mass: list[Tensor] = []
    real = history.mask.any(dim=1)
    x = torch.where(history.mask.unsqueeze(2), vectors, 0)
    x = x * math.sqrt(x.size(2)) + encoder.positions(x.size(1))
    cells = encoder.cells(pairs)
    for layer, block in enumerate(encoder.blocks):
        attend = encoder.attention(layer, history.mask, cells)
        x = block(x, _watched(attend, pairs, real, mass))
    return torch.stack(mass)


@torch.no_grad()
def gaps_met(model: TGTBERT4Rec, batch: RecBatch) -> Tensor:
    """``[U]`` bool: the buckets of the time between any two events of a user."""
    history, encoder = batch.history, model.tgt
    assert history is not None
    assert encoder is not None
    _, pairs = encoder.timed(model.table()[history.item], history, batch.query_time)
    assert pairs is not None
    shut = NUM_BUCKETS  # the kind of pairs that do not attend
    return torch.bincount(pairs.long().view(-1), minlength=shut + 1)[:shut] > 0


def _watched(attend: Attend, pairs: Tensor, real: Tensor, mass: list[Tensor]) -> Attend:
    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        newest = pairs[:, -1].long().clamp(max=NUM_BUCKETS - 1)
        kind = torch.nn.functional.one_hot(newest, NUM_BUCKETS).to(v.dtype)
        kind = kind.unsqueeze(1).expand(-1, q.size(1), -1, -1)  # [B, H, L, U]
        width = v.size(3)
        parts = [attend(q, k, part.contiguous())[:, :, -1] for part in kind.split(width, dim=3)]
        mass.append(torch.cat(parts, dim=2)[real].float().mean(dim=(0, 1)))
        return attend(q, k, v)

    return watched


@torch.no_grad()
def parts_of_scores(model: TGTBERT4Rec, batch: RecBatch, item: Tensor) -> dict[str, Tensor]:
    """``[B]`` shares of the branches and the graph in the target's lead over the mean item.

    The score is a sum of the three, so its lead over the mean item is one as well. Parts below 0
    count as 0, and a target that none of them lifts is NaN.
    """
    history = batch.history
    assert history is not None
    table, alpha, leads = model.encode_item().float(), float(model.alpha), {}
    if model.bert is not None:
        hidden = model.bert_hidden(*append_mask(history, model.num_items), last=True)
        leads["BERT branch"] = lead(alpha * hidden.float() @ table.t(), item)
    if model.tgt is not None:
        hidden = model.tgt_hidden(history, batch.query_time, last=True)
        leads["TGT branch"] = lead((1 - alpha) * hidden.float() @ table.t(), item)
    if model.graph is not None:
        rest = model.score(batch) - model.encode_user(batch).float() @ table.t()
        leads["item-item edges"] = lead(rest, item)
    total = sum(v.clamp(min=0) for v in leads.values())
    assert isinstance(total, Tensor)
    return {name: v.clamp(min=0) / total for name, v in leads.items()}


def lead(scores: Tensor, item: Tensor) -> Tensor:
    """``[B]`` how far the target's score is above the mean of all items."""
    return scores.gather(1, item.unsqueeze(1)).squeeze(1) - scores.mean(dim=1)


def bucket_seconds() -> Tensor:
    """``[U]`` the shortest gap of each bucket of :func:`tgrec.nn.gap_attention.gap_bucket`."""
    bucket = torch.arange(NUM_BUCKETS)
    octave = torch.div(bucket - 1, 2, rounding_mode="floor")
    start = 2.0**octave * (1 + 0.5 * ((bucket - 1) % 2))
    return torch.where(bucket == 0, 0.0, start)


def read_history(folder: Path) -> list[dict[str, object]]:
    """The epochs of a run."""
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def has_ranks(folder: Path) -> bool:
    """Whether a run was measured."""
    return (folder / "ranks.npz").is_file()


def written_to(written: list[Path], path: Path) -> Path:
    """Notes where a drawing goes."""
    written.append(path)
    return path


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
