"""Training of weekly interest: SAGE on links, then a Transformer over weeks, or both together.

Week w is predicted from the weeks before it and nothing else, in training as in the test.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from tgrec.data import Targets, TemporalRecGraph
from tgrec.data.random import permutation
from tgrec.loader import TemporalLinkLoader, link_neighbor_loader
from tgrec.metrics import precision_recall_at_k, top_k
from tgrec.models.io import load_parameters, parameters_copy
from tgrec.models.weekly_encoder import interactions
from tgrec.models.weekly_interest import UserInteractionPredictor, WeeklyVectors
from tgrec.sampler import EventIndex, NegativeSampler
from tgrec.training.settings import TrainSettings
from tgrec.training.weekly_settings import Fitted, WeeklySettings, Weeks

Say = Callable[[str], None]
USERS_AT_A_TIME = 1024
WARMUP_STEPS, CLIP = 10, 1.0


def make_model(graph: TemporalRecGraph, settings: WeeklySettings) -> UserInteractionPredictor:
    """A new model for the nodes of a graph; the seed decides its weights.

    Events have a learned table. Users have none: they are known by what they did, so that a user
    who turns to other things is not held back by a vector of what was.
    """
    torch.manual_seed(settings.seed)
    widths = [graph[t].x.size(-1) if "x" in graph[t] else 0 for t in ("user", "item")]
    model = UserInteractionPredictor(
        widths[0],
        widths[1],
        gnn_hidden_dim=settings.hidden,
        num_gnn_layers=len(settings.num_neighbors),
        dropout=settings.dropout,
        n_heads=settings.n_heads,
        n_blocks=settings.n_blocks,
        max_weeks=settings.weeks_of_history,
        num_events=graph.num_items,
    )
    return model.to(settings.device)


def link_parameters(model: UserInteractionPredictor) -> list[nn.Parameter]:
    """What :func:`fit_links` trains: the encoder and how its vectors are scored."""
    parts = (model.gnn_encoder, model.project, model.trend)
    return [p for part in parts for p in part.parameters()]


def week_parameters(model: UserInteractionPredictor, joint: bool) -> list[nn.Parameter]:
    """What :func:`fit_weeks` trains: everything, or everything but the encoder."""
    encoder = set(model.gnn_encoder.parameters())
    return [p for p in model.parameters() if joint or p not in encoder]


def fit_links(
    model: UserInteractionPredictor,
    past: Weeks,
    settings: WeeklySettings,
    *,
    epochs: int | None = None,
    validate: Callable[[], float] | None = None,
    say: Say | None = None,
) -> Fitted:
    r"""Trains SAGE on links: every event of a week from what was before that week.

    A batch holds links of one week, and for each a negative, drawn uniformly from the events that
    were already there. Each user's event is to be found among all events of the batch, with the
    correction for how likely an event is to be in it (Yi et al., RecSys 2019):

    .. math:: -\log \frac{\exp(s_{ue} - \log q_e)}{\sum_{e'} \exp(s_{ue'} - \log q_{e'})}, \qquad
              q_e = \text{share of } e \text{ in the week} + \frac{1}{\text{events there}}

    It learns in a few epochs what binary cross-entropy with one negative did not in many. All links
    of a batch share their cut: the age of what an event has heard would else tell which user it
    belongs to. A negative may be what the user has met before, because interests are repeated; with
    negatives outside the past alone, a model learns that all that was met comes again.

    Args:
        model: Its :func:`link_parameters` are trained.
        past: Links of its weeks are predicted, but for the first (``settings.weeks_to_learn``).
        settings: How.
        epochs: Stop after so many, on the schedule of ``settings.link_epochs``.
        validate: Measures the model after each epoch; the best weights are then left in it.
        say: Where progress goes.

    Raises:
        ArithmeticError: If the loss is not finite.
        ValueError: If no event has an earlier week.
    """
    weeks = _link_weeks(past, settings)
    order = torch.tensor([i for i, week in enumerate(weeks) for _ in range(len(week.loader))])
    steps = min(len(order), math.ceil(settings.links_per_epoch / settings.batch_size))
    if steps == 0:
        raise ValueError("there are no two weeks with events; SAGE has no links to learn from")

    def losses(epoch: int) -> Iterator[Tensor]:
        batches = []
        for week in weeks:
            week.loader.epoch = epoch
            batches.append(iter(week.loader))
        for place in permutation(len(order), settings.seed, epoch)[:steps]:
            chosen = int(order[place])
            batch = next(batches[chosen])
            add_ages(batch, past, weeks[chosen].place)
            yield _link_loss(model, batch, weeks[chosen].drawn)

    plan = _Plan("SAGE on links", settings.link_epochs, epochs, steps, 1)
    return _fit(model, link_parameters(model), losses, plan, settings, validate, say)


def fit_weeks(
    model: UserInteractionPredictor,
    past: Weeks,
    settings: WeeklySettings,
    *,
    joint: bool = False,
    epochs: int | None = None,
    validate: Callable[[], float] | None = None,
    say: Say | None = None,
) -> Fitted:
    """Trains the Transformer: the events of every week from the weeks before it.

    Cross-entropy over all events, each weighing as much as its count: the likelihood of a user's
    counts, given how many there are.

    Args:
        model: Its :func:`week_parameters` are trained.
        past: Its weeks are predicted from the earlier ones, but for the first (likewise).
        settings: How.
        joint: Train the encoder too, through the graphs of the weeks.
        epochs: Stop after so many, on the schedule of ``settings.epochs``.
        validate: Measures the model after every ``settings.eval_every`` epochs; the best weights
            are then left in it.
        say: Where progress goes.

    Raises:
        ArithmeticError: If the loss is not finite.
        ValueError: If no week with events has an earlier one.
    """
    views = past.views(0, len(past))
    wanted = _learned(past, settings)
    if not wanted:
        raise ValueError("there are no two weeks with events; the Transformer has nothing to learn")
    ready = None if joint else model.weekly_vectors(views, settings.device)

    def steps(epoch: int) -> list[tuple[int, Tensor]]:
        return [(w, users) for w in wanted for users in _chunks(past, w, settings, epoch)]

    def losses(epoch: int) -> Iterator[Tensor]:
        planned = steps(epoch)
        for place in permutation(len(planned), settings.seed, epoch).tolist():
            week, users = planned[place]
            start = max(0, week - settings.weeks_of_history)
            if ready is None:
                vectors = model.weekly_vectors(views[start:week], settings.device, train_gnn=True)
            else:
                vectors = ready.weeks(start, week)
            yield _week_loss(model, vectors, views[start : week + 1], users)

    name = "SAGE and Transformer" if joint else "Transformer"
    plan = _Plan(name, settings.epochs, epochs, len(steps(0)), settings.eval_every)
    return _fit(model, week_parameters(model, joint), losses, plan, settings, validate, say)


@torch.no_grad()
def top_by_links(model: UserInteractionPredictor, past: Weeks, k: int) -> Tensor:
    """``[U, k]`` the best events of the week after ``past``, by SAGE alone on all of its events."""
    graph = past.graph.before(past.cuts[-1])
    add_ages(graph, past, len(past))
    user, event = model.gnn_encoder.inference(graph)
    parts = user.split(USERS_AT_A_TIME)
    return torch.cat([top_k(model.score(part, event).float().cpu(), k) for part in parts])


@torch.no_grad()
def top_by_weeks(model: UserInteractionPredictor, past: Weeks, k: int) -> Tensor:
    """``[U, k]`` the best events of the week after ``past``, by the whole model."""
    views = past.views(len(past) - model.max_weeks, len(past))
    user, event = model.get_temporal_embeddings(views)
    tops = []
    for users in torch.arange(user.size(0), device=user.device).split(USERS_AT_A_TIME):
        own = model.own_interest(views, users)
        tops.append(top_k(model.score(user[users], event, own).float().cpu(), k))
    return torch.cat(tops)


def recall(top: Tensor, weeks: Weeks, place: int) -> float:
    """Mean Recall@k of ``[U, k]`` lists over the users of one week."""
    user, item = weeks.links(place)
    measured = precision_recall_at_k(top, (user.cpu(), item.cpu()), weeks.graph.num_items)
    return measured.summary()[f"Recall@{top.size(1)}"]


def add_ages(data: HeteroData, weeks: Weeks, place: int) -> None:
    """Writes into a graph or batch how old its edges are when week ``place`` begins.

    ``age`` ``[E]`` int64 counts full weeks: 0 for the week that has just ended.
    """
    for edge_type in data.edge_types:
        data[edge_type].age = place - 1 - weeks.of(data[edge_type].event_id)


@dataclass(frozen=True)
class _LinkWeek:
    """Links of one week: where it is, its batches, and ``[N]`` log of the odds q above."""

    place: int
    loader: TemporalLinkLoader
    drawn: Tensor


def _learned(past: Weeks, settings: WeeklySettings) -> list[int]:
    """The weeks that are learned to predict: they have events, and something before them."""
    active = past.active()[1:]
    return active if settings.weeks_to_learn is None else active[-settings.weeks_to_learn :]


def _link_weeks(past: Weeks, settings: WeeklySettings) -> list[_LinkWeek]:
    index = EventIndex(past.graph, settings.device)
    negatives = NegativeSampler(index, exclude_history=False)
    out = []
    for place in _learned(past, settings):
        user, item = past.links(place)
        seeds = Targets(user, torch.full_like(user, past.cuts[place]), item)
        loader = link_neighbor_loader(
            past.graph, index, settings.num_neighbors, seeds=seeds, strategy="uniform",
            negatives=negatives, batch_size=settings.batch_size, seed=settings.seed + place,
        )  # fmt: skip
        there = index.item[index.event_id < past.cuts[place]].unique().numel()
        share = torch.bincount(item, minlength=index.num_items) / item.numel()
        out.append(_LinkWeek(place, loader, (share + 1 / there).log().to(index.device)))
    return out


def _link_loss(model: UserInteractionPredictor, batch: HeteroData, drawn: Tensor) -> Tensor:
    """The cross-entropy of :func:`fit_links`."""
    user, event = model.gnn_encoder(batch)
    name = batch["item"].n_id[: event.size(0)]  # positives, then negatives
    own = torch.arange(user.size(0), device=user.device)
    # The same event stands in several columns; of those that are right one is enough.
    same = name == name[: user.size(0)].unsqueeze(1)
    same[own, own] = False
    scores = model.score(user, event) - drawn[name]
    return F.cross_entropy(scores.masked_fill(same, -torch.inf), own)


def _chunks(past: Weeks, place: int, settings: WeeklySettings, epoch: int) -> list[Tensor]:
    """The users of a week in batches, in another order every epoch."""
    users = past.links(place)[0].unique().cpu()
    order = permutation(users.numel(), settings.seed, place, epoch)
    return list(users[order].to(settings.device).split(settings.batch_size))


def _week_loss(
    model: UserInteractionPredictor,
    vectors: WeeklyVectors,
    views: Sequence[TemporalRecGraph],
    users: Tensor,
) -> Tensor:
    """Cross-entropy of what some users did in the last of the weeks, given those before it."""
    user, event = model.temporal(vectors, users)
    scores = model.score(user, event, model.own_interest(views[:-1], users))
    row_of = torch.full((views[-1].num_users,), -1, device=users.device)
    row_of[users] = torch.arange(users.numel(), device=users.device)
    edges, count = interactions(views[-1], users.device)
    row = row_of.index_select(0, edges[0])
    kept = (row >= 0).nonzero().view(-1)
    logs = torch.log_softmax(scores, dim=1)[row[kept], edges[1][kept]]
    return -(logs * count[kept]).sum() / count[kept].sum()


@dataclass(frozen=True)
class _Plan:
    """How long a training is: epochs of the schedule, epochs after which to stop, steps of each."""

    name: str
    schedule: int
    epochs: int | None
    steps: int
    eval_every: int


def _fit(
    model: UserInteractionPredictor,
    parameters: Sequence[nn.Parameter],
    losses: Callable[[int], Iterator[Tensor]],
    plan: _Plan,
    settings: WeeklySettings,
    validate: Callable[[], float] | None,
    say: Say | None,
) -> Fitted:
    """The loop that both trainings share."""
    optimizer = torch.optim.Adam(parameters, lr=settings.lr)
    schedule = TrainSettings(lr=settings.lr, warmup_steps=WARMUP_STEPS, lr_decay="cosine")
    torch.manual_seed(settings.seed)  # of dropout
    end, started, step = plan.epochs or plan.schedule, time.perf_counter(), 0
    means, recalls, kept = list[float](), dict[int, float](), dict[str, Tensor]()
    for epoch in range(1, end + 1):
        model.train()
        total = 0.0
        for loss in losses(epoch):
            if not torch.isfinite(loss):
                raise ArithmeticError(
                    f"{plan.name}: the loss is {loss.item()} in epoch {epoch}; a smaller learning "
                    f"rate (lr={settings.lr}) usually helps"
                )
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(step, plan.schedule * plan.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            total, step = total + loss.item(), step + 1
        means.append(total / plan.steps)
        if epoch % plan.eval_every and epoch != end:
            continue
        text = f"{plan.name}: epoch {epoch}/{end}, loss {means[-1]:.4f}"
        if validate is not None:
            recalls[epoch] = validate()
            if recalls[epoch] > max([-1.0, *(r for e, r in recalls.items() if e < epoch)]):
                kept = parameters_copy(model)
            text += f", validation recall {recalls[epoch]:.4f}"
        if say is not None:
            passed = time.perf_counter() - started
            left = passed / epoch * (end - epoch)
            say(f"{text}, {passed:.0f} s, at most {left:.0f} s left in this part")
        best = Fitted(epoch, means, recalls, 0.0).best
        if epoch - best >= settings.patience * plan.eval_every:
            break
    if kept:
        load_parameters(model, kept)
    model.eval()
    return Fitted(len(means), means, recalls, time.perf_counter() - started)
