"""Items that a user could have chosen at a cut and had not met before."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch_geometric.sampler import NegativeSampling

from tgrec.data.random import below, hash_keys
from tgrec.sampler.event_index import EventIndex
from tgrec.sampler.history import past_items

Kind = Literal["uniform", "popularity"]
# Draws that are thrown away and made again, before the exact and slower way is taken.
TRIES = 8
# First key of the draws, so that they are not those of the neighbour sampler.
_STREAM = 0x6E6567
# Scores of the exact way that are in memory at a time.
_BLOCK = 1 << 22


class NegativeSampler:
    """Draws negatives that exist, were there at the cut, and are not in the user's past.

    * ``uniform``: every item that had an event before the cut is equally likely.
    * ``popularity``: in proportion to its number of events before the cut. The log itself is the
      table to draw from: the item of an event drawn uniformly among those before the cut.

    An item that is refused is drawn again; after a few tries the draw is made from the list of
    all items that are left. A draw is a function of (seed, epoch, user, cut, slot).

    Args:
        index: The shared index.
        kind: ``uniform`` or ``popularity``.
        exclude_history: Refuse the items of the user's events before the cut.
    """

    def __init__(
        self, index: EventIndex, kind: Kind = "uniform", exclude_history: bool = True
    ) -> None:
        if kind not in ("uniform", "popularity"):
            raise ValueError(f"'kind' needs to be 'uniform' or 'popularity' (got {kind!r})")
        if max(index.num_events, index.num_items) >= 2**31:
            raise ValueError(
                f"'index' has {index.num_events} events and {index.num_items} items; draws are "
                f"made among fewer than 2**31"
            )
        self.index, self.kind, self.exclude_history = index, kind, exclude_history
        # When each item had its first event, and the items in that order.
        some = (index.by_item.ptr.diff() > 0).nonzero().view(-1)
        entry = index.by_item.ptr.index_select(0, some)
        born = index.event_id.index_select(0, index.by_item.log.index_select(0, entry))
        self._born, order = born.sort()
        self._items = some.index_select(0, order)
        never = torch.iinfo(torch.int64).max  # later than any cut
        self._first = torch.full((index.num_items,), never, device=index.device)
        self._first[some] = born
        self._pair, self._met, self._num_met = _first_meetings(index)

    def sample(
        self,
        user: Tensor,
        cut: Tensor,
        num: int,
        item: Tensor | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> Tensor:
        """Draws ``num`` negatives for each seed, each slot on its own (an item may come twice).

        Args:
            user: ``[B]`` int64.
            cut: ``[B]`` int64; an item is there if it had an event with ``event_id < cut``.
            num: At least 1.
            item: ``[B]`` int64 the positives, which are never drawn.
            seed: Key of the draws.
            epoch: Another key of the draws.

        Returns:
            ``[B, num]`` int64, -1 in all slots of a seed for which no item is left.
        """
        if isinstance(num, bool) or not isinstance(num, int) or num < 1:
            raise ValueError(f"'num' needs to be a positive integer (got {num!r})")
        self.index.check_seeds(user, cut)
        if item is not None:
            self.index.check_seeds(item, cut, "item")
        key = hash_keys(_STREAM, seed, epoch, user, cut).repeat_interleave(num)
        slot = torch.arange(num, device=user.device).repeat(user.numel())
        users, cuts = user.repeat_interleave(num), cut.repeat_interleave(num)
        target = torch.full_like(users, -1) if item is None else item.repeat_interleave(num)
        out = torch.full_like(users, -1)
        if self._items.numel() == 0:
            return out.view(-1, num)
        open_rows = torch.arange(users.numel(), device=user.device)
        for attempt in range(TRIES):
            u, c = users.index_select(0, open_rows), cuts.index_select(0, open_rows)
            bits = hash_keys(key.index_select(0, open_rows), attempt, slot[open_rows])
            drawn = self._propose(bits, c)
            good = (drawn >= 0) & (drawn != target.index_select(0, open_rows))
            if self.exclude_history:
                good &= ~self._in_past(u, drawn, c)
            out[open_rows[good]] = drawn[good]
            open_rows = open_rows[~good]
            if open_rows.numel() == 0:
                return out.view(-1, num)
        bits = hash_keys(key.index_select(0, open_rows), TRIES, slot[open_rows])
        rows = max(1, _BLOCK // max(self.index.num_items, 1))
        for some, some_bits in zip(open_rows.split(rows), bits.split(rows), strict=True):
            out[some] = self._exact(users[some], cuts[some], target[some], some_bits)
        return out.view(-1, num)

    def draw_for(
        self,
        neg_sampling: NegativeSampling,
        user: Tensor,
        cut: Tensor,
        item: Tensor,
        seed: int,
        epoch: int,
    ) -> Tensor:
        """Negatives as PyG's loaders ask for them: ``[B, amount]``, -1 where none is left."""
        if neg_sampling.dst_weight is not None or neg_sampling.src_weight is not None:
            raise ValueError(
                "'neg_sampling' has weights; use NegativeSampler(index, kind='popularity')"
            )
        amount = int(neg_sampling.amount)
        if amount != neg_sampling.amount:
            raise ValueError(
                f"'neg_sampling' needs a whole number of negatives per link (got "
                f"{neg_sampling.amount})"
            )
        drawn = self.sample(user, cut, amount, item, seed, epoch)
        if neg_sampling.is_triplet() and drawn.numel() and bool((drawn < 0).any()):
            row = int((drawn < 0).any(1).nonzero()[0])
            raise ValueError(
                f"'neg_sampling': no item is left as a negative for user {int(user[row])} at cut "
                f"{int(cut[row])}; leave such links out (NegativeSampler.available), or use "
                f"'binary'"
            )
        return drawn

    def available(self, user: Tensor, cut: Tensor, item: Tensor | None = None) -> Tensor:
        """``[B]`` number of different items that could be drawn for each seed."""
        self.index.check_seeds(user, cut)
        if item is not None:
            self.index.check_seeds(item, cut, "item")
        left = torch.searchsorted(self._born, cut.contiguous())
        if self.exclude_history:
            start, stop = self.index.by_user.past(user, cut)
            left = left - (self._num_met[stop] - self._num_met[start])
        if item is None:
            return left
        there = self._first.index_select(0, item) < cut
        if self.exclude_history:
            there &= ~self._in_past(user, item, cut)
        return left - there.long()

    def _propose(self, bits: Tensor, cut: Tensor) -> Tensor:
        """An item that was there at the cut, -1 if there was none."""
        if self.kind == "uniform":
            clock, items = self._born, self._items
        else:
            clock, items = self.index.event_id, self.index.item
        there = torch.searchsorted(clock, cut)
        drawn = items.index_select(0, below(bits, there))
        return torch.where(there > 0, drawn, -1)

    def _in_past(self, user: Tensor, item: Tensor, cut: Tensor) -> Tensor:
        """Whether the user had met the item before the cut."""
        if self._pair.numel() == 0:
            return torch.zeros_like(user, dtype=torch.bool)
        pair = user * self.index.num_items + item
        place = torch.searchsorted(self._pair, pair).clamp_(max=self._pair.numel() - 1)
        same = self._pair.index_select(0, place) == pair
        return same & (self._met.index_select(0, place) < cut)

    def _exact(self, user: Tensor, cut: Tensor, target: Tensor, bits: Tensor) -> Tensor:
        """The same draw from the list of all items that are left: ``[R]``, -1 if none is."""
        items = torch.arange(self.index.num_items, device=user.device)
        if self.kind == "uniform":
            weight = (self._first < cut.unsqueeze(1)).long()
        else:
            every = items.repeat(user.numel())
            start, stop = self.index.by_item.past(every, cut.repeat_interleave(items.numel()))
            weight = (stop - start).view(user.numel(), -1)
        if self.exclude_history:
            weight[past_items(self.index, user, cut)] = 0
        rows = (target >= 0).nonzero().view(-1)
        weight[rows, target.index_select(0, rows)] = 0
        ends = weight.cumsum(1)
        total = ends[:, -1]
        place = torch.searchsorted(ends, below(bits, total).unsqueeze(1), right=True).view(-1)
        return torch.where(total > 0, place, -1)


def _first_meetings(index: EventIndex) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending pairs ``user * N + item``, the event at which each met first, and a count.

    The count ``[E + 1]`` is the number of first meetings among the first entries of ``by_user``.
    """
    events = index.by_user
    user = index.user.index_select(0, events.log)
    pair = user * index.num_items + events.other
    order = torch.argsort(pair, stable=True)  # entries of a pair stay in event order
    pair = pair.index_select(0, order)
    first = torch.ones_like(pair, dtype=torch.bool)
    first[1:] = pair.diff() != 0
    entry = order[first]
    met = index.event_id.index_select(0, events.log.index_select(0, entry))
    count = torch.zeros(pair.numel() + 1, dtype=torch.int64, device=pair.device)
    count[entry + 1] = 1
    return pair[first], met, count.cumsum(0)
