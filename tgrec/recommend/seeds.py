"""The calls of the tutorials that this library grew out of, over :class:`Recommender`.

``Bert4Rec`` and ``ml_1m`` are those of CoreRec's tutorial (seed 002), ``RecommendationEngine`` that
of the Enhanced BERT4Rec (seed 001). New code uses :class:`tgrec.Recommender`.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from tgrec.data import TemporalRecGraph
from tgrec.data.files import write_text
from tgrec.datasets import movielens_1m
from tgrec.datasets.movielens import AGE_GROUPS_1M, AGES_1M, GENDERS
from tgrec.recommend.explain import called
from tgrec.recommend.names import attributes_of, genres_of, listed_pairs
from tgrec.recommend.ranking import of_pairs
from tgrec.recommend.recommender import Recommender

ADAPTER = "bert4rec.json"


@dataclass
class Bert4Rec:
    """BERT4Rec under the names of seed 002.

    Args:
        name: Of this model, for people.
        max_seq_len: How many of the latest events are read.
        hidden_dim: Width.
        num_layers: Blocks.
        num_heads: Attention heads.
        mask_prob: Share of masked positions.
        epochs: At most so many passes.
        batch_size: Sequences per step.
        learning_rate: Of Adam.
        verbose: Whether to print progress.
    """

    name: str = "Bert4Rec"
    max_seq_len: int = 50
    hidden_dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    mask_prob: float = 0.15
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    verbose: bool = True

    def __post_init__(self) -> None:
        self.recommender = Recommender(
            "bert4rec",
            max_len=self.max_seq_len,
            d_model=self.hidden_dim,
            n_blocks=self.num_layers,
            n_heads=self.num_heads,
            d_ff=4 * self.hidden_dim,
            mask_prob=self.mask_prob,
            positions="sinusoidal",
        )

    def fit(
        self,
        user_ids: Sequence[Any] | np.ndarray,
        item_ids: Sequence[Any] | np.ndarray,
        ratings: Sequence[float] | np.ndarray | None = None,
        timestamps: Sequence[int] | np.ndarray | None = None,
    ) -> Self:
        """Trains on parallel arrays of events.

        Args:
            user_ids: ``[E]``.
            item_ids: ``[E]``.
            ratings: ``[E]``, kept; every event counts, whatever its rating.
            timestamps: ``[E]`` Unix seconds. Without them the order of the arrays is the order of
                the events, which a random split destroys: pass them wherever they are known.
        """
        given = {"user_ids": user_ids, "item_ids": item_ids, "ratings": ratings,
                 "timestamps": timestamps}  # fmt: skip
        lengths = {name: len(values) for name, values in given.items() if values is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{', '.join(map(repr, lengths))} need one value per event each (got "
                             f"{list(lengths.values())})")  # fmt: skip
        names = ("user_id", "item_id", "rating", "timestamp")
        columns = {n: v for n, v in zip(names, given.values(), strict=True) if v is not None}
        self.recommender.fit(
            pd.DataFrame(columns),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.learning_rate,
            show=self.verbose,
        )
        return self

    def predict(self, user_id: Any, item_id: Any) -> float:
        """The probability that the user's next item is this one; 0 if one of them is unknown."""
        return float(self.batch_predict([(user_id, item_id)])[0])

    def batch_predict(self, pairs: Iterable[tuple[Any, Any]] | pd.DataFrame) -> np.ndarray:
        """The probabilities ``[n]`` of pairs ``(user_id, item_id)``."""
        (users, items), served = listed_pairs(pairs), self.recommender.served
        out = np.zeros(len(users), dtype=np.float32)
        rows = np.flatnonzero(served.users.known(users) & served.items.known(items)).tolist()
        user = served.users.positions([users[r] for r in rows], "user_id")
        item = served.items.positions([items[r] for r in rows], "item_id")
        out[rows] = of_pairs(served, user, item, probability=True)
        return out

    def recommend(self, user_id: Any, top_k: int = 10) -> list[Any]:
        """The ids of the best items that the user has not met, best first."""
        best: list[Any] = self.recommender.recommend(user_id, top_k)["item_id"].tolist()
        return best

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a folder to ``path``, whatever it is called: safetensors and JSON."""
        self.recommender.save(path)
        write_text(Path(path) / ADAPTER, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what :meth:`save` wrote; nothing is unpickled."""
        recommender = Recommender.load(path)
        if not (Path(path) / ADAPTER).is_file():
            raise FileNotFoundError(f"there is no Bert4Rec in {str(path)!r}: {ADAPTER} is missing; "
                                    f"Recommender.load reads this folder")  # fmt: skip
        loaded = cls(**json.loads((Path(path) / ADAPTER).read_text(encoding="utf-8")))
        loaded.recommender = recommender
        return loaded


class RecommendationEngine:
    """The inference calls of seed 001 over a fitted recommender.

    Args:
        recommender: Fitted on data with genres, years, gender, age and occupation, or the folder
            of one.
    """

    def __init__(self, recommender: Recommender | str | os.PathLike[str]) -> None:
        if not isinstance(recommender, Recommender):
            recommender = Recommender.load(recommender)
        self.recommender = recommender

    def get_recommendations(
        self,
        user_id: Any,
        item_sequence: Sequence[Any],
        k: int = 10,
        timestamps: Sequence[Any] | None = None,
        filter_seen: bool = True,
    ) -> list[dict[str, Any]]:
        """The ``k`` best items after a sequence: ``item_id, score, genres, year, title``.

        A user that the data do not know is somebody new, of whom the sequence is all that is known.
        """
        table = self.recommender.recommend(
            self._known(user_id), k, filter_seen, history=item_sequence, times=timestamps
        )
        pairs = zip(table["item_id"].tolist(), table["score"].tolist(), strict=True)
        return [self._described(item) | {"score": score} for item, score in pairs]

    def explain_recommendation(
        self, user_id: Any, item_sequence: Sequence[Any], recommended_item_id: Any
    ) -> dict[str, Any]:
        """Why an item: the seed's keys, and the whole :class:`Explanation` as ``explanation``.

        ``user_preferred_genres`` are those of the sequence, the most frequent first;
        ``explanation_text`` says what carried the score, measured on the model.
        """
        known = self._known(user_id)
        why = self.recommender.explain(known, recommended_item_id, history=item_sequence)
        counts: dict[str, int] = {}
        for item in item_sequence:
            for genre in self._described(item)["genres"]:
                counts[genre] = counts.get(genre, 0) + 1
        preferred = sorted(counts, key=lambda genre: -counts[genre])
        target = self._described(recommended_item_id)
        return {
            "recommended_item": target,
            "user_profile": {} if known is None else self.get_user_profile(known),
            "user_preferred_genres": preferred[:5],
            "genre_overlap": [genre for genre in target["genres"] if genre in counts],
            "recent_sequence_length": why.events_read,
            "explanation_text": self._text(why.events, str(why)),
            "explanation": why.to_dict(),
        }

    def get_user_profile(self, user_id: Any) -> dict[str, Any]:
        """``{'gender': 'M', 'age_group': '25-34', 'occupation_code': 7}``.

        Raises:
            ValueError: If the data do not hold the three.
        """
        served = self.recommender.served
        (user,) = served.users.positions([user_id], "user_id").tolist()
        known = attributes_of(served.graph, "user", user)
        missing = [name for name in ("gender", "age", "occupation") if name not in known]
        if missing:
            raise ValueError(f"the data do not say {', '.join(missing)} of users; pass users= in "
                             f"fit")  # fmt: skip
        age = known["age"]
        if not isinstance(age, str):  # years, or a published code, which is the first year
            age = AGE_GROUPS_1M[max(0, bisect_right(AGES_1M, age) - 1)]
        return {
            "gender": known["gender"],
            "age_group": age,
            "occupation_code": int(served.graph["user"].occupation[user]),
        }

    def _known(self, user_id: Any) -> Any:
        """The user, or None where the data do not know this id."""
        return user_id if self.recommender.served.users.known([user_id])[0] else None

    def _described(self, item_id: Any) -> dict[str, Any]:
        served = self.recommender.served
        (item,) = served.items.positions([item_id], "item_id").tolist()
        genres, year = served.genres, served.graph["item"].get("year")
        names, has = genres if genres is not None else ((), np.zeros((item + 1, 0), dtype=bool))
        return {
            "item_id": served.items.id(item),
            "genres": [names[g] for g in np.flatnonzero(has[item]).tolist()],
            "year": int(year[item]) if isinstance(year, torch.Tensor) and year[item] else None,
            "title": served.items.title(item),
        }

    @staticmethod
    def _text(events: Sequence[Any], whole: str) -> str:
        if not events:
            return whole
        strongest = ", ".join(called(event.item_id, event.title) for event in events[:3])
        return f"recommended above all because of {strongest}\n{whole}"


class ml_1m:
    """MovieLens-1M as tables, as ``cr_learn.ml_1m`` of seed 002 gives them."""

    @staticmethod
    def load(root: str | os.PathLike[str] | None = None) -> dict[str, pd.DataFrame]:
        """``ratings``, ``users`` and ``movies``.

        * ``ratings``: ``user_id movie_id rating timestamp``, in the order of their times.
        * ``users``: ``user_id gender age occupation``; gender is F or M, age and occupation are
          the published codes. (Zip codes are left out: they point at persons.)
        * ``movies``: ``movie_id title genres``, as in ``Animation|Children's|Comedy``.

        Args:
            root: Folder with the data, as in :func:`tgrec.datasets.movielens_1m`.
        """
        return tables_of(movielens_1m(root))


def tables_of(graph: TemporalRecGraph) -> dict[str, pd.DataFrame]:
    """The three tables of a graph with the schema of MovieLens-1M."""
    ratings = graph.to_pandas().rename(columns={"item_id": "movie_id"})
    ratings["rating"] = ratings["rating"].astype(int)
    person = graph["user"]
    users = pd.DataFrame(
        {
            "user_id": graph.raw_ids("user"),
            "gender": [GENDERS[i] for i in person.gender.tolist()],
            "age": [AGES_1M[i] for i in person.age.tolist()],
            "occupation": person.occupation.numpy(),
        }
    )
    found = genres_of(graph)
    assert found is not None
    names, has = found
    movies = pd.DataFrame(
        {
            "movie_id": graph.raw_ids("item"),
            "title": graph.strings("item", "title"),
            "genres": ["|".join(names[g] for g in np.flatnonzero(row).tolist()) for row in has],
        }
    )
    columns = ["user_id", "movie_id", "rating", "timestamp"]
    return {"ratings": ratings[columns], "users": users, "movies": movies}
