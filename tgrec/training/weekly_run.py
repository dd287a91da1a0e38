"""One week predicted by several methods: chosen on the week before, asked once, printed, kept."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from tgrec.data.files import atomic_path
from tgrec.metrics import PrecisionRecall, bootstrap_interval, precision_recall_at_k, top_k
from tgrec.models.weekly_encoder import interactions
from tgrec.models.weekly_interest import UserInteractionPredictor
from tgrec.training.record import RunRecord, command_line, environment
from tgrec.training.settings import check_device
from tgrec.training.weekly import (
    USERS_AT_A_TIME,
    Say,
    fit_links,
    fit_weeks,
    link_parameters,
    make_model,
    recall,
    top_by_links,
    top_by_weeks,
)
from tgrec.training.weekly_settings import WeeklySettings, Weeks

PROTOCOL = "weekly"
POPULARITY, LAST_WEEK, ORACLE = "popularity", "repeat last week", "oracle"
OWN_COUNTS, OWN_DECAY = "own counts, decayed", 0.8
SAGE_ALONE, TWO_STAGES, JOINT = "SAGE", "SAGE + Transformer", "SAGE + Transformer, joint"


@dataclass(frozen=True)
class Prediction:
    """What one method says about a week.

    Args:
        name: Of the method.
        top: ``[U, k]`` int64 events for every user, best first.
        parameters: Number of trained values; 0 where nothing is learned.
        epochs: Of the training that made the final weights.
        seconds: Wall-clock time of everything that led to it.
    """

    name: str
    top: Tensor
    parameters: int = 0
    epochs: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Question:
    """One week to predict.

    Args:
        weeks: All weeks.
        target: Which of them, counted from 0.
        k: Length of the lists.

    Raises:
        ValueError: If the week is not there or empty, there is too little before it, or k is not in
            1..N.
    """

    weeks: Weeks
    target: int
    k: int = 5

    def __post_init__(self) -> None:
        weeks, last = self.weeks, len(self.weeks) - 1
        known = f"the data hold {weeks.name(0)} to {weeks.name(last)}" if len(weeks) else "no weeks"
        if not 0 <= self.target <= last:
            raise ValueError(f"'target_week' is {weeks.name(self.target)}; {known}")
        active = weeks.active()
        if self.target not in active:
            raise ValueError(
                f"'target_week' is {weeks.name(self.target)}, in which there are no events to "
                f"predict; {known}, with events in {len(active)} of them"
            )
        before = active.index(self.target)
        if before < 3:
            raise ValueError(
                f"'target_week' is {weeks.name(self.target)}, with {before} weeks with events "
                f"before it; it needs 3: one to look back on, one to learn, one to choose by"
            )
        size = weeks.graph.num_items
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= size:
            raise ValueError(f"'k' needs to be in 1..{size}, the number of events (got {self.k!r})")

    @property
    def past(self) -> Weeks:
        """All that a method may see."""
        return self.weeks.until(self.target)

    @property
    def validation(self) -> int:
        """The last week with events before the target, by which epochs are chosen."""
        return self.past.active()[-1]

    def typical_user(self) -> int:
        """An active user with the median number of events before the target week."""
        users = self.weeks.links(self.target)[0].unique()
        (kind,) = self.past.graph.interaction_types
        past = self.past.graph[kind].edge_index[0]
        events = torch.bincount(past, minlength=self.weeks.graph.num_users)[users]
        return int(users[events.sort(stable=True).indices[len(users) // 2]])

    def measure(self, top: Tensor) -> PrecisionRecall:
        """Precision and recall over the users of the target week."""
        user, item = self.weeks.links(self.target)
        return precision_recall_at_k(top, (user.cpu(), item.cpu()), self.weeks.graph.num_items)


def popularity(past: Weeks, k: int = 5) -> Tensor:
    """``[U, k]``: the events with the most interactions in all weeks, the same for everybody."""
    return top_k(_counts(past).expand(past.graph.num_users, -1).contiguous(), k)


def own_counts(past: Weeks, k: int = 5, decay: float = OWN_DECAY) -> Tensor:
    """``[U, k]``: what each user did most, each week worth ``decay`` of the next, then the popular.

    With a decay of 0 only the last week counts.
    """
    (kind,) = past.graph.interaction_types
    (user, item), count = interactions(past.graph)
    worth = count * decay ** (len(past) - 1 - past.of(past.graph[kind].event_id)).float()
    common = _counts(past)
    # Far below the smallest own count, so that it fills up and breaks ties.
    least = float(worth[worth > 0].min()) if bool((worth > 0).any()) else 1.0
    filling = common / (1 + common.max()) * least * 1e-3
    tops = []
    for users in torch.arange(past.graph.num_users).split(USERS_AT_A_TIME):
        here = (user >= users[0]) & (user <= users[-1]) & (worth > 0)
        scores = filling.expand(users.numel(), -1).clone()
        place = (user[here] - users[0], item[here])
        tops.append(top_k(scores.index_put_(place, worth[here], accumulate=True), k))
    return torch.cat(tops)


def compare(
    question: Question,
    settings: WeeklySettings,
    *,
    joint: bool = False,
    oracle: Tensor | None = None,
    say: Say | None = None,
) -> list[Prediction]:
    """Every method's lists for one week.

    How long to train is chosen by the recall in the last week before the target, by models that
    know the weeks before that one. The final weights are trained anew for so many epochs on all
    weeks before the target, of which nothing is read.

    Args:
        question: What is to be predicted.
        settings: How the models are trained.
        joint: Also train SAGE and Transformer together.
        oracle: ``[U, N]`` the true rates of the week, where data are simulated.
        say: Where progress goes.
    """
    check_device(settings.device)
    past, k = question.past, question.k  # no event of the target week is in it
    out = [
        Prediction(POPULARITY, popularity(past, k)),
        Prediction(LAST_WEEK, own_counts(past, k, decay=0.0)),
        Prediction(OWN_COUNTS, own_counts(past, k)),
        *two_stages(past, question.validation, settings, k, say),
    ]
    if joint:
        out.append(together(past, question.validation, settings, k, say))
    if oracle is not None:
        out.append(Prediction(ORACLE, top_k(oracle, k)))
    return out


def two_stages(
    past: Weeks, validation: int, settings: WeeklySettings, k: int = 5, say: Say | None = None
) -> list[Prediction]:
    """SAGE on links, alone and as the input of the Transformer."""
    started = time.perf_counter()
    earlier = past.until(validation)
    trial = make_model(past.graph, settings)
    trying, final = _prefixed(say, "choosing, "), _prefixed(say, "final, ")
    by_links = _validation(trial, top_by_links, earlier, past, k)
    links = fit_links(trial, earlier, settings, validate=by_links, say=trying)
    by_weeks = _validation(trial, top_by_weeks, earlier, past, k)
    weeks = fit_weeks(trial, earlier, settings, validate=by_weeks, say=trying)
    model = make_model(past.graph, settings)
    fit_links(model, past, settings, epochs=links.best, say=final)
    alone = Prediction(
        SAGE_ALONE, top_by_links(model, past, k), _size(link_parameters(model)), links.best,
        time.perf_counter() - started,
    )  # fmt: skip
    fit_weeks(model, past, settings, epochs=weeks.best, say=final)
    whole = Prediction(
        TWO_STAGES, top_by_weeks(model, past, k), _size(model.parameters()), weeks.best,
        time.perf_counter() - started,
    )  # fmt: skip
    return [alone, whole]


def together(
    past: Weeks, validation: int, settings: WeeklySettings, k: int = 5, say: Say | None = None
) -> Prediction:
    """SAGE and Transformer trained together, end to end and from the beginning."""
    started = time.perf_counter()
    earlier = past.until(validation)
    trial = make_model(past.graph, settings)
    validate = _validation(trial, top_by_weeks, earlier, past, k)
    fitted = fit_weeks(
        trial, earlier, settings, joint=True, validate=validate, say=_prefixed(say, "choosing, ")
    )
    model = make_model(past.graph, settings)
    fit_weeks(model, past, settings, joint=True, epochs=fitted.best, say=_prefixed(say, "final, "))
    return Prediction(
        JOINT, top_by_weeks(model, past, k), _size(model.parameters()), fitted.best,
        time.perf_counter() - started,
    )  # fmt: skip


def print_table(
    question: Question,
    predictions: Sequence[Prediction],
    title: str,
    console: Console | None = None,
) -> None:
    """A table: precision and recall with 95 % intervals over users, and the share of the oracle."""
    k = question.k
    measured = {p.name: question.measure(p.top) for p in predictions}
    recalls = {name: m.summary()[f"Recall@{k}"] for name, m in measured.items()}
    users = int(next(iter(measured.values())).row.numel())
    table = Table(
        title=Text(f"{title}, {users:,} users, 95 % intervals over users"), title_justify="left"
    )
    heads = ["method", "parameters", "epochs", "seconds", f"Precision@{k}", f"Recall@{k}"]
    for place, head in enumerate([*heads, "of the oracle"][: 7 if ORACLE in recalls else 6]):
        table.add_column(head, justify="left" if place == 0 else "right")
    for p in predictions:
        cells = [p.name, f"{p.parameters:,}", f"{p.epochs}", f"{p.seconds:.0f}"]
        cells += [_interval(measured[p.name].precision), _interval(measured[p.name].recall)]
        if ORACLE in recalls:
            cells.append(f"{recalls[p.name] / recalls[ORACLE]:.0%}")
        table.add_row(*map(Text, cells))
    (console or Console(width=140)).print(table)


def write_top(
    path: str | os.PathLike[str], question: Question, top: Tensor, names: tuple[str, str]
) -> None:
    """Writes the lists of all users as CSV with raw ids, atomically.

    Args:
        path: One line per user: its id, then its events, best first.
        question: Whose users and events.
        top: ``[U, k]``.
        names: What users and events are called in the header.
    """
    graph = question.weeks.graph
    users, events = (_ids(graph.raw_ids(t)) for t in ("user", "item"))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([names[0], *(f"{names[1]}_{i}" for i in range(1, top.size(1) + 1))])
        for user, row in zip(users, top.tolist(), strict=True):
            writer.writerow([user, *(events[i] for i in row)])


def records(
    question: Question,
    predictions: Sequence[Prediction],
    settings: WeeklySettings,
    data: str,
    checksum: str,
) -> list[RunRecord]:
    """One record per method, for :func:`tgrec.training.append_record`.

    Args:
        question: What was asked.
        predictions: Of :func:`compare`.
        settings: How the learned ones were trained.
        data: Name of the data, which says so if they are simulated.
        checksum: Of the events.
    """
    made_with, out = environment(), []
    for p in predictions:
        figures = question.measure(p.top).summary()
        names = [f"{name}@{question.k}" for name in ("Recall", "Precision")]
        trained: dict[str, Any] = asdict(settings) if p.parameters else {}
        out.append(
            RunRecord(
                command=command_line(),
                protocol=PROTOCOL,
                track="T1",
                data=f"{data}, {question.weeks.name(question.target)}",
                checksum=checksum,
                model=p.name,
                settings=trained,
                parameters=p.parameters,
                seed=settings.seed,
                epochs=p.epochs,
                seconds=round(p.seconds, 1),
                seconds_per_epoch=None,
                metrics={"full": {name: figures[name] for name in names}},
                **made_with,
            )
        )
    return out


def _validation(
    model: UserInteractionPredictor,
    best: Callable[[UserInteractionPredictor, Weeks, int], Tensor],
    earlier: Weeks,
    weeks: Weeks,
    k: int,
) -> Callable[[], float]:
    """Measures a model that knows the weeks ``earlier`` on the one that follows them."""
    return lambda: recall(best(model, earlier, k), weeks, len(earlier))


def _counts(past: Weeks) -> Tensor:
    """``[N]`` interactions of each event."""
    (_, item), count = interactions(past.graph)
    return torch.zeros(past.graph.num_items, device=count.device).index_add_(0, item, count)


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _prefixed(say: Say | None, prefix: str) -> Say | None:
    return None if say is None else lambda text: say(prefix + text)


def _interval(values: Tensor) -> str:
    low, high = bootstrap_interval(values)
    return f"{values.mean().item():.4f} [{low:.4f}, {high:.4f}]"


def _ids(raw: Tensor | list[str]) -> list[Any]:
    return raw.tolist() if isinstance(raw, Tensor) else raw
