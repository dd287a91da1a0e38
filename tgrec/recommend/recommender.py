"""From a table of events to recommendations: fit, ask, explain, save."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch

from tgrec.data import TemporalRecGraph
from tgrec.models import MODELS, RecModel
from tgrec.recommend.explain import Explanation, explain
from tgrec.recommend.fitting import (
    SplitName,
    build_or_say_why,
    check_model_settings,
    check_teacher,
    graph_of,
    model_class,
    settings_for,
    split_of,
    train_or_say_why,
)
from tgrec.recommend.folder import load_folder, save_folder
from tgrec.recommend.measuring import ranks_of, rating_errors
from tgrec.recommend.names import is_many, listed, listed_pairs, plain
from tgrec.recommend.profile import UserProfile, user_profile
from tgrec.recommend.ranking import best, of_pairs, similar, table
from tgrec.recommend.served import Served, ask, question_of
from tgrec.recommend.starting import start_from
from tgrec.training import Evaluation, FitResult, Teacher, TrainSettings, check_device
from tgrec.training.trackers import Tracker


class Recommender:
    """A model of ``MODELS`` with its data around it, for people who want recommendations.

    Ids are those of the data, in and out. Weights are fitted on the events before those that
    validation and test hold out; answers are read from all events.

    Args:
        model: A name of ``tgrec.models.MODELS``, or a subclass of ``RecModel``.
        **settings: Settings of the model, for example ``max_len=50, d_model=64``.

    Attributes:
        result: How training went, a :class:`tgrec.training.FitResult`; None before :meth:`fit`,
            and after :meth:`load`.
        seed: Of the training.

    Example::

        rec = tgrec.Recommender("sasrec", max_len=50).fit(ratings)
        print(rec.recommend(user_id=1, top_k=10))
        print(rec.explain(user_id=1, item_id=42))
    """

    def __init__(self, model: str | type[RecModel] = "tgt_bert4rec", **settings: Any) -> None:
        self.model_class = model_class(model)
        check_model_settings(self.model_class, settings)
        self.name = model if isinstance(model, str) else model.__name__
        self.settings = settings
        self.split: SplitName = "leave_one_out"
        self.result: FitResult | None = None
        self.seed = 0
        self._served: Served | None = None

    def __repr__(self) -> str:
        words = [repr(self.name), *(f"{k}={v!r}" for k, v in self.settings.items())]
        size = "not fitted"
        if self._served is not None:
            graph = self._served.graph
            size = f"{graph.num_users} users, {graph.num_items} items, {graph.num_events} events"
        return f"Recommender({', '.join(words)}): {size}"

    @property
    def served(self) -> Served:
        """The model and the log that answers are read from."""
        if self._served is None:
            raise RuntimeError("this recommender is not fitted; call fit(...) or Recommender.load")
        return self._served

    @property
    def model(self) -> RecModel:
        """The fitted model."""
        return self.served.model

    @property
    def graph(self) -> TemporalRecGraph:
        """All events that answers are read from."""
        return self.served.graph

    # ---- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        data: pd.DataFrame | TemporalRecGraph,
        *,
        user: str | None = None,
        item: str | None = None,
        time: str | None = None,
        rating: str | None = None,
        relation: str | None = None,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        split: SplitName = "leave_one_out",
        init_from: str | os.PathLike[str] | None = None,
        teacher: str | os.PathLike[str] | Recommender | None = None,
        distill_weight: float | None = None,
        distill_temperature: float | None = None,
        distill_at: Literal["end", "all"] | None = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        tracker: Tracker | None = None,
        show: bool = True,
        **training: Any,
    ) -> Self:
        """Trains on a table of events.

        The last event of each user is kept for :meth:`evaluate` and the one before it chooses the
        weights (``split="global_time"``: the last 10 % of all events, and the 10 % before). What
        is served afterwards sees all of them.

        Args:
            data: One row per event, or a graph.
            user: Column of users; recognised by its name if left out, as the next three.
            item: Column of items.
            time: Column of times; without one the order of the rows counts.
            rating: Column of ratings.
            relation: Column of kinds of events, such as the domains of ``trigrec``; all events are
                of one kind if left out.
            users: Table of users, one feature per column, with the same id column.
            items: The same for items; a column ``title`` comes back in all answers.
            split: What is held out.
            init_from: Folder of a saved recommender to start from; items are matched by raw id,
                users are new.
            teacher: Another recommender to learn from, or its folder, fitted on the same data
                with the same split (see :class:`tgrec.training.Teacher`); its track may be another
                one. It is not saved.
            distill_weight: Its share in the loss, 0.5 if left out; with ``distill_at="all"`` in the
                part of the loss that is of next items.
            distill_temperature: What its scores are divided by, 2 if left out; at ``all`` it is 1.
            distill_at: ``end`` of each training row if left out, or ``all`` its positions.
            folder: Where the history of training and a checkpoint go after every epoch.
            resume: Go on from the checkpoint in ``folder``, bit-equal to never having stopped; all
                else has to be given as before.
            tracker: Called with the entry of every epoch (see :mod:`tgrec.training.trackers`).
            show: Print progress.
            **training: Options of :class:`tgrec.training.TrainSettings`, such as ``epochs=``,
                ``device=``, ``lr=``, ``batch_size=``, ``track=``. Epochs and batch size suit the
                size of the data if left out.

        Raises:
            ValueError: If a column, value, option, teacher or checkpoint is not usable.
            FileNotFoundError: If there is no teacher, or nothing to resume.
            MemoryError: If memory does not suffice; names the settings that help.
        """
        columns = {"user": user, "item": item, "time": time, "rating": rating, "relation": relation}
        graph = graph_of(data, users=users, items=items, **columns)
        parts = split_of(graph, split, self.model_class.asked_relation(graph, **self.settings))
        # Checked alone: the other settings follow the model, whose weights are drawn from it.
        self.seed = TrainSettings(seed=training.get("seed", 0)).seed
        torch.manual_seed(self.seed)
        model = build_or_say_why(self.model_class, parts.train, self.settings)
        settings = settings_for(parts.train, model.sampling, training)
        if init_from is not None:
            _check_start(model)
            found = start_from(model, graph, init_from)
            if show:
                print(
                    f"init_from: {found} of {graph.num_items} items are known there",
                    file=sys.stderr,
                )
        how = {"weight": distill_weight, "temperature": distill_temperature, "at": distill_at}
        self.result = train_or_say_why(
            model,
            parts,
            settings,
            folder=None if folder is None else Path(folder),
            resume=resume,
            tracker=tracker,
            teacher=_teacher(teacher, graph, split, how),
            show=show,
        )
        self.split = split
        self._served = Served.start(model, graph, settings.track, settings.device)
        return self

    def evaluate(self, **options: Any) -> Evaluation:
        """Ranks the held-out last events among all items.

        Args:
            **options: Of :func:`tgrec.training.evaluate`, such as ``sampled=False``.

        Returns:
            Ranks and metrics; ``evaluate().metrics()["full"]["NDCG@10"]``.
        """
        return ranks_of(self.served, self.split, options)

    def rating_errors(self) -> Mapping[str, float] | None:
        """RMSE of the ratings of those events, :func:`tgrec.training.rating_rmse`.

        None if the model foretells none, or no training or no held-out event has one.
        """
        return rating_errors(self.served, self.split)

    # ---- asking -------------------------------------------------------------------------------

    def predict(self, user_id: Any, item_id: Any, *, at: Any = None) -> float:
        """The score of one item for one user; larger is better, comparable for one user only."""
        return float(self.batch_predict([(user_id, item_id)], at=at)[0])

    def batch_predict(
        self, pairs: Iterable[tuple[Any, Any]] | pd.DataFrame, *, at: Any = None
    ) -> np.ndarray:
        """The scores ``[n]`` (float32) of pairs ``(user_id, item_id)``.

        The columns of a table are known by their usual names, whatever else stands in it.

        Raises:
            ValueError: If an id is unknown, or something is no pair.
        """
        (users, items), served = listed_pairs(pairs), self.served
        user = served.users.positions(users, "user_id")
        return of_pairs(served, user, served.items.positions(items, "item_id"), at)

    def recommend(
        self,
        user_id: Any = None,
        top_k: int = 10,
        filter_seen: bool = True,
        at: Any = None,
        *,
        history: Sequence[Any] | None = None,
        times: Sequence[Any] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The best items for a user, for several, or for somebody unknown.

        Args:
            user_id: A raw id, or a list of them. May be left out if ``history`` is given.
            top_k: How many. If the catalogue has fewer, a warning says why.
            filter_seen: Leave out what the asker has met before the question.
            at: Moment of the question (Unix time or date); no event at or after it is looked at,
                and items that nobody had met by then are not offered. What was learned stays as it
                was fitted; models that only count are counted anew. None is after all that is
                known. Models fitted on track T2 are told the moment.
            history: Raw ids of items, oldest first, instead of the stored events; may be empty.
            times: Their times; otherwise the typical pause of the data lies between them.
            profile: What is known of somebody new, for models that read features of the one who
                asks: ``{"gender": "F", "age": "25-34"}`` in words or as the data code them.

        Returns:
            Best first: ``item_id``, ``score``, and ``title`` where the data have titles; with a
            list of users ``user_id`` before them.

        Raises:
            ValueError: If an id is unknown, with what may be meant.
        """
        served = self.served
        if is_many(user_id):
            if history is not None or profile is not None or times is not None:
                raise ValueError(
                    "'history', 'times' and 'profile' belong to one user, not to a list"
                )
            wanted = listed(user_id, "user_id")
            question = ask(served, served.users.positions(wanted, "user_id"), at)
            items, scores = best(served, question, top_k, filter_seen)
            return table(served, items, scores, np.asarray(wanted, dtype=served.users.raw.dtype))
        question = question_of(served, user_id, at, history, times, profile)
        return table(served, *best(served, question, top_k, filter_seen))

    def similar_items(self, item_id: Any, top_k: int = 10) -> pd.DataFrame:
        """The items most like one: ``item_id``, ``score`` (cosine) and ``title`` where known.

        Models that only count score what follows this item instead.
        """
        (item,) = self.served.items.positions([item_id], "item_id").tolist()
        return table(self.served, *similar(self.served, item, top_k))

    def explain(
        self,
        user_id: Any = None,
        item_id: Any = None,
        *,
        at: Any = None,
        history: Sequence[Any] | None = None,
        times: Sequence[Any] | None = None,
        profile: Mapping[str, Any] | None = None,
        top_events: int = 5,
        top_paths: int = 3,
    ) -> Explanation:
        """Why an item has its score: print it, or take its fields.

        Args:
            user_id: A raw id; may be left out if ``history`` is given.
            item_id: The raw id of the item.
            at: As in :meth:`recommend`.
            history: As in :meth:`recommend`.
            times: As in :meth:`recommend`.
            profile: As in :meth:`recommend`.
            top_events: At most so many events are named.
            top_paths: At most so many paths are named.
        """
        served = self.served
        (item,) = served.items.positions([item_id], "item_id").tolist()
        question = question_of(served, user_id, at, history, times, profile)
        return explain(served, question, item, plain(user_id), top_events, top_paths)

    def user_profile(self, user_id: Any) -> UserProfile:
        """What the data say of one user: print it, or take its fields."""
        (user,) = self.served.users.positions([user_id], "user_id").tolist()
        return user_profile(self.served, user)

    # ---- on disk ------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes model and data into a folder of safetensors and JSON, never a pickle."""
        about = {
            "name": self.name,
            "settings": self.settings,
            "split": self.split,
            "track": self.served.loader.track,
        }
        if self.result is not None:
            told = asdict(self.result)
            kept = {k: told[k] for k in ("best_epoch", "epochs", "stopped")}
            about["fit"] = {**kept, "seed": self.seed}
        save_folder(folder, self.served.model, self.served.graph, about)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        model: type[RecModel] | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Reads what :meth:`save` wrote; no code of the folder is run.

        Args:
            folder: Written by :meth:`save`.
            model: The class, if it is none of ``MODELS``.
            device: Where to answer.

        Raises:
            FileNotFoundError: If there is no recommender.
            ValueError: If it is damaged, of another version, class or catalogue, or the device is
                not there.
        """
        check_device(device)
        classes = MODELS if model is None else {**MODELS, model.__name__: model}
        loaded, graph, about = load_folder(folder, classes)
        rec = cls(about["name"] if about["name"] in MODELS else type(loaded), **about["settings"])
        rec.split, rec.seed = about["split"], about.get("fit", {}).get("seed", 0)
        rec._served = Served.start(loaded, graph, about["track"], device)
        return rec


def _check_start(model: RecModel) -> None:
    """Raises ValueError if a model that only counts is to start from another one."""
    if model.num_parameters() == 0:
        raise ValueError(
            f"'init_from': {type(model).__name__} has no parameters, it counts the events anew "
            f"every time; leave it out"
        )


def _teacher(
    given: str | os.PathLike[str] | Recommender | None,
    graph: TemporalRecGraph,
    split: SplitName,
    how: Mapping[str, Any],
) -> Teacher | None:
    """The teacher that :meth:`Recommender.fit` was given, checked."""
    chosen = {name: value for name, value in how.items() if value is not None}
    if given is None:
        if chosen:
            raise ValueError(f"'distill_{next(iter(chosen))}' is of no use without 'teacher'")
        return None
    rec = given if isinstance(given, Recommender) else Recommender.load(given)
    check_teacher(rec.served, rec.split, graph, split)
    return Teacher(rec.model, track=rec.served.loader.track, prefix="distill_", **chosen)
