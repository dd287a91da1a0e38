"""Measures several runs of one board as one recommender, beside each of them.

    python benchmarks/ensemble.py runs/tgt_bert4rec-ml1m-loo-T1-seed[012]

The scores of an ensemble are the mean log-probabilities of its members, all with the same say:
nothing is chosen. It is asked on the validation and on the test targets once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import tyro
from find_model import made_as
from terminal import end_with_summary, say

from tgrec.data import Split
from tgrec.datasets import BOARDS, DatasetNotFound, checksum, load_board
from tgrec.loader import Track
from tgrec.models import MODELS, Ensemble, load_model
from tgrec.training import RankedRun, RunRecord, check_device, evaluate, read_run, record_run
from tgrec.training.record import REFIT, command_line, environment, is_refit, run_identity


def main() -> None:
    """Parses the command line and measures."""
    end_with_summary(lambda: tyro.cli(measure, description=__doc__))


def measure(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    root: Path | None = None,
    record: Path | None = None,
    device: str = "cpu",
) -> list[RankedRun]:
    """Measure runs of benchmarks/ml1m.py as an ensemble.

    Args:
        runs: their folders, two or more.
        root: folder with the data; by default $TGREC_DATA, else the user's cache.
        record: append the result to this file of records, and keep its ranks beside it.
        device: cpu, cuda or mps.
    """
    check_device(device)
    members = {folder: read_run(folder) for folder in runs}
    check_members(members, len(runs))
    about = members[runs[0]].record
    try:
        graph, split = load_board(about.protocol, root)
    except DatasetNotFound as error:
        raise OSError(str(error)) from error
    if checksum(graph) != about.checksum:
        raise ValueError(
            f"the data of {runs[0]} are others than those of {about.protocol} here; use --root"
        )
    models = [
        load_model(f / "model", MODELS, catalogue=about.checksum, train=split.train) for f in runs
    ]
    say(f"{len(runs)} runs of {about.protocol}, track {about.track}")
    ensemble = ask(Ensemble(models), split, [m.record for m in members.values()], device)
    if record is not None:
        record_run(record, ensemble)
    return [*members.values(), ensemble]


def check_members(members: Mapping[Path, RankedRun], given: int) -> None:
    """Raises unless they are two or more finished runs of one board, track and data set."""
    if len(members) < given:
        raise ValueError("a run was given twice; an ensemble of the same model is that model")
    if given < 2:
        raise ValueError(f"an ensemble needs two runs or more (got {given})")
    records = [member.record for member in members.values()]
    boards = {(record.protocol, record.track, record.checksum) for record in records}
    if len(boards) > 1:
        said = sorted(f"{protocol} {track}" for protocol, track, _ in boards)
        raise ValueError(f"runs of one board, track and data set are needed (got {said})")
    board = BOARDS.get(records[0].protocol)
    if board is None or board.sampled is not None:
        raise ValueError(
            f"{next(iter(members))} is of {records[0].protocol}; runs of benchmarks/ml1m.py are "
            f"needed, whose boards have one domain"
        )
    for folder, member in members.items():
        if is_refit(member.record.settings):
            raise ValueError(
                f"{folder} is a {REFIT}, and an ensemble is asked on validation too; give the runs "
                f"that were not"
            )
        if made_as(member.record) not in MODELS:
            raise ValueError(
                f"{folder} is a run of {member.record.model!r}; only models of {list(MODELS)} can "
                f"be read back here"
            )


def ask(ensemble: Ensemble, split: Split, members: list[RunRecord], device: str) -> RankedRun:
    """The ensemble on validation and test, with a record of its own."""
    about = members[0]
    ensemble.to(device)
    ask_for = partial(
        evaluate, ensemble, split, track=cast(Track, about.track), device=device,
        remove_seen=BOARDS[about.protocol].remove_seen,
    )  # fmt: skip
    chosen, tested = ask_for(split.val, sampled=False), ask_for(split.test)
    names = sorted({member.model for member in members})
    record = RunRecord(
        command=command_line(),
        protocol=about.protocol,
        track=about.track,
        data=about.data,
        checksum=about.checksum,
        model=f"ensemble of {len(members)} {' + '.join(names)}",
        settings={
            "members": sorted(map(run_identity, members)),
            "val": chosen.metrics()["full"]["NDCG@10"],
        },
        parameters=sum(member.parameters for member in members),
        seed=about.seed,
        epochs=sum(member.epochs for member in members),
        seconds=sum(member.seconds for member in members),
        seconds_per_epoch=None,
        metrics=tested.metrics(),
        groups=tested.group_metrics(),
        **environment(),
    )
    return RankedRun(record, tested.ranks, tested.targets.user, tested.groups)


if __name__ == "__main__":
    main()
