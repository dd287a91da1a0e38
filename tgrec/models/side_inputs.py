"""Vectors of items, users and events, made of what they are called and of what is said of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgrec.data import TemporalRecGraph
from tgrec.models.popularity import item_counts
from tgrec.models.side_information import (
    FEATURES,
    USER_FEATURES,
    bin_codes,
    bin_meanings,
    feature_values,
    genre_meanings,
    genres,
    is_known,
)
from tgrec.nn.calendar import CalendarEmbedding

BINNED = ("year", "rating", *USER_FEATURES)


class SideInputs(nn.Module):
    """The tables of :class:`tgrec.models.EnhancedBERT4Rec`, and the node features that they read.

    Args:
        num_items: N.
        num_users: U.
        num_genres: G.
        d_model: D.
        features: Those of :data:`tgrec.models.side_information.FEATURES` to read.
        bins: Feature -> edges of its bins.

    Attributes:
        profile_names: The user features among ``features``.
        fact_names: What the columns of :meth:`facts` are, with what stands around them in
            :class:`tgrec.nn.context_attention.ContextAttention`.
        item_trained: ``[N]`` bool, which items have training events (:meth:`set_trained`).
        trained: ``[T]`` int64, the same as numbers.
        trained_place: ``[N]`` int64, where each of them stands in ``trained``.
        item_count: ``[N]`` float32, how many; for items without any, what is usual for their
            genres.
        rating_scale: ``[4]`` mean, standard deviation, least and largest of training ratings.

    Raises:
        ValueError: If a feature is unknown, or its bins or genres are missing.
    """

    item_genre: Tensor
    item_year: Tensor
    user_values: Tensor
    item_trained: Tensor
    trained: Tensor
    trained_place: Tensor
    item_count: Tensor
    user_trained: Tensor
    rating_scale: Tensor

    def __init__(
        self,
        num_items: int,
        num_users: int,
        num_genres: int,
        d_model: int,
        features: Sequence[str],
        bins: Mapping[str, Sequence[float]],
    ) -> None:
        super().__init__()
        _check(features, bins, num_genres)

        def table(rows: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(rows, d_model).normal_(std=0.02))

        self.bins = dict(bins)
        self.item, self.mask_token = table(num_items), table(1)
        # Of binned features the last row is "unknown", of users likewise.
        self.tables = nn.ParameterDict({name: table(len(e) + 2) for name, e in bins.items()})
        # From zero: an id says nothing until it has been learned.
        self.user = (
            nn.Parameter(torch.zeros(num_users + 1, d_model)) if "user" in features else None
        )
        self.genre = table(num_genres) if "genre" in features else None
        self.calendar = CalendarEmbedding(d_model) if "calendar" in features else None
        self.popularity = nn.Parameter(torch.tensor(1.0)) if "popularity" in features else None
        self.profile_names = tuple(name for name in USER_FEATURES if name in features)
        names = [name for name in ("user",) if name in features]
        self.fact_names = ("nothing", *names, *self.profile_names, "recent")
        # What the graph says: saved with the weights.
        for name, value in {
            "item_genre": torch.zeros(num_items, num_genres),
            "item_year": torch.zeros(num_items),
            "user_values": torch.full((num_users, len(self.profile_names)), -1.0),
            "item_trained": torch.ones(num_items, dtype=torch.bool),
            "item_count": torch.zeros(num_items),
            "user_trained": torch.ones(num_users, dtype=torch.bool),
            "rating_scale": torch.tensor([0.0, 1.0, -math.inf, math.inf]),
        }.items():
            self.register_buffer(name, value)
        for name in ("trained", "trained_place"):
            self.register_buffer(name, torch.arange(num_items), persistent=False)

    def set_trained(self, trained: Tensor) -> None:
        """Says which items have training events, ``[N]`` bool.

        Their numbers are found here, once: to pick rows by a mask, a GPU has to be waited for.
        """
        self.item_trained.copy_(trained)
        self.trained = self.item_trained.nonzero().squeeze(1)
        self.trained_place = self.item_trained.cumsum(0) - 1

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.set_trained(self.item_trained)

    def fill(self, graph: TemporalRecGraph) -> None:
        """Copies what a graph says of its nodes, and who has events in it."""
        if self.genre is not None:
            self.item_genre.copy_(genres(graph))
        if "year" in self.bins:
            self.item_year.copy_(feature_values(graph, "year"))
        for column, name in enumerate(self.profile_names):
            self.user_values[:, column] = feature_values(graph, name)
        counts = item_counts(graph).cpu()
        self.set_trained(counts > 0)
        usual = usual_count(counts, self.item_genre.cpu(), self.item_genre.cpu())
        self.item_count.copy_(torch.where(counts > 0, counts, usual))
        users = torch.cat([graph[t].edge_index[0].cpu() for t in graph.interaction_types])
        events = torch.bincount(users, minlength=self.user_trained.numel())
        self.user_trained.copy_(events > 0)
        if "rating" in self.bins:
            rating = feature_values(graph, "rating")
            rating = rating[is_known("rating", rating)].double()
            spread = rating.std(correction=0).clamp(min=1e-6)
            scale = torch.stack([rating.mean(), spread, rating.min(), rating.max()])
            self.rating_scale.copy_(scale)

    def row_meanings(self, graph: TemporalRecGraph) -> dict[str, Sequence[Hashable]]:
        """What rows of genres and binned features stand for (see :meth:`RecModel.row_meanings`)."""
        out: dict[str, Sequence[Hashable]] = {
            f"tables.{name}": bin_meanings(graph, name, edges) for name, edges in self.bins.items()
        }
        return out if self.genre is None else {**out, "genre": genre_meanings(graph)}

    def items(self) -> Tensor:
        """``[N, D]`` vectors of items: their own part, their genres and their year.

        The mean of the own parts is taken out, so that items without training events, which have
        none, stand in the middle of those which do.
        """
        trained = self.item_trained.unsqueeze(1)
        mean = (self.item * trained).sum(0) / trained.sum().clamp(min=1)
        return (self.item - mean) * trained + self._described(self.item_genre, self.item_year)

    def popularity_logits(self) -> Tensor:
        """``[N]`` what an item's popularity adds to its score: ``w log(1 + events)``."""
        if self.popularity is None:
            return torch.zeros_like(self.item_count)
        return self.popularity * self.item_count.log1p()

    def left_out(self, target: Tensor) -> Tensor:
        """``[R]`` what that changes for items ``[R]`` if one event of theirs is not counted.

        In training that is the event that is asked for.
        """
        count = self.item_count[target]
        if self.popularity is None:
            return torch.zeros_like(count)
        return self.popularity * ((count - 1).clamp(min=0).log1p() - count.log1p())

    def item_vector(self, genre: Iterable[int] = (), year: int = 0) -> Tensor:
        """``[D]`` the vector of an item that is not in the graph.

        Its score is the product with a user's vector, as for the others, and
        :meth:`item_popularity`.

        Args:
            genre: Columns of the graph's ``genre``.
            year: 0 if it is not known.

        Raises:
            ValueError: If there is no such genre.
        """
        share = self._share(genre)
        return self._described(share, share.new_tensor([float(year)]))[0]

    def item_popularity(self, genre: Iterable[int] = ()) -> Tensor:
        """``[]`` what the usual popularity of its genres adds to the score of a new item.

        Args:
            genre: Columns of the graph's ``genre``.

        Raises:
            ValueError: If there is no such genre.
        """
        share = self._share(genre)
        if self.popularity is None:
            return share.new_zeros(())
        counts = self.item_count * self.item_trained
        return self.popularity * usual_count(counts, self.item_genre, share)[0].log1p()

    def _share(self, genre: Iterable[int]) -> Tensor:
        """``[1, G]`` equal shares of some genres."""
        share, columns = torch.zeros_like(self.item_genre[:1]), list(genre)
        if any(not 0 <= g < share.size(1) for g in columns):
            raise ValueError(
                f"'genre' needs to hold numbers below {share.size(1)}, the number of genres that "
                f"the model reads (got {columns})"
            )
        share[0, columns] = 1 / max(1, len(columns))
        return share

    def _described(self, genre: Tensor, year: Tensor) -> Tensor:
        """``[n, D]`` what genres and year say of items."""
        out = self.item.new_zeros(genre.size(0), self.item.size(1))
        if self.genre is not None:
            out = out + genre @ self.genre
        return out + self.binned("year", year) if "year" in self.bins else out

    def binned(self, name: str, values: Tensor) -> Tensor:
        """``[..., D]`` vectors of values of a feature."""
        return F.embedding(bin_codes(name, values, self.bins[name]), self.tables[name])

    def facts(
        self,
        user: Tensor,
        profile: Mapping[str, float] | None = None,
        no_id: Tensor | None = None,
        no_profile: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What is known of users.

        Args:
            user: ``[B]`` int64; who is no node of the graph, or has no training events, has no id.
            profile: Values of :attr:`profile_names` that take the place of the graph's, for people
                who are not in it; what it leaves out is unknown, and so is the id.
            no_id: ``[B]`` bool, whose id is hidden.
            no_profile: ``[B]`` bool, whose profile is hidden.

        Returns:
            ``[B, C, D]`` each fact a vector, that of the id without its gradient; and ``[B, D]``
            the vector of the id alone, with it (zeros where the model has none).

        Raises:
            ValueError: If the profile has features that are not read.
        """
        users = self.user_trained.numel()
        there = (user >= 0) & (user < users)
        row = torch.where(there, user, 0)
        named = there & self.user_trained[row]
        values = torch.where(there.unsqueeze(1), self.user_values[row], -1.0)
        if profile is not None:
            named, values = torch.zeros_like(named), self._values(profile).expand_as(values)
        if no_id is not None:
            named = named & ~no_id
        if no_profile is not None:
            values = torch.where(no_profile.unsqueeze(1), -1.0, values)
        facts = [self.binned(name, values[:, i]) for i, name in enumerate(self.profile_names)]
        own = self.item.new_zeros(row.numel(), self.item.size(1))
        if self.user is not None:
            own = F.embedding(torch.where(named, row, users), self.user)
            facts.insert(0, own.detach())
        return torch.stack(facts, 1) if facts else own.unsqueeze(1)[:, :0], own

    def _values(self, profile: Mapping[str, float]) -> Tensor:
        unknown = [name for name in profile if name not in self.profile_names]
        if unknown:
            raise ValueError(
                f"'profile' has {unknown}, which this model does not read; it reads "
                f"{list(self.profile_names)}"
            )
        return self.user_values.new_tensor([float(profile.get(n, -1)) for n in self.profile_names])


def usual_count(counts: Tensor, share: Tensor, asked: Tensor) -> Tensor:
    """``[n]`` how many events (geometric mean) the items with events and the same genres have.

    Args:
        counts: ``[N]`` float32 events of each item.
        share: ``[N, G]`` float32 shares of its genres, all 0 where none is known.
        asked: ``[n, G]`` the shares of what is asked for; where none is known, the usual count is
            that of all items.
    """
    there = (counts > 0).float()
    logs = counts.log1p()
    overall = logs.sum() / there.sum().clamp(min=1)
    weight = share.t() @ there
    of_genre = torch.where(weight > 0, share.t() @ logs / weight.clamp(min=1e-9), overall)
    known = asked.sum(1) > 0
    return torch.where(known, asked @ of_genre, overall).expm1()


def _check(features: Sequence[str], bins: Mapping[str, Sequence[float]], num_genres: int) -> None:
    for name in features:
        if name not in FEATURES:
            raise ValueError(f"'features' needs to be some of {list(FEATURES)} (got {name!r})")
    for name in BINNED:
        if name in features and name not in bins:
            raise ValueError(f"'bins' needs the edges of {name!r}; from_graph reads them")
    if "genre" in features and num_genres < 1:
        raise ValueError(f"'num_genres' needs to be positive to read 'genre' (got {num_genres})")
