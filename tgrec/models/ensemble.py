"""Several models that answer together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling
from tgrec.models.base import RecModel


class Ensemble(RecModel):
    r"""The product of what several models hold likely.

    .. math:: z = \frac{1}{M} \sum_m \log \mathrm{softmax}(z_m)

    For models that score with logits, and learned apart: it can be asked, and taught from
    (:class:`tgrec.training.Teacher`), but not trained. It is saved by saving its members.

    Args:
        members: M models of the same items that read the same (``sampling``).

    Raises:
        ValueError: If there are none, or they differ in that.
    """

    def __init__(self, members: Sequence[RecModel]) -> None:
        if not members:
            raise ValueError("'members' needs at least one model (got none)")
        for member in members[1:]:
            if member.num_items != members[0].num_items:
                raise ValueError(
                    f"'members' need to score the same items (got {members[0].num_items} and "
                    f"{member.num_items})"
                )
            if not _alike(members[0].sampling, member.sampling):
                raise ValueError(
                    f"'members' need to read the same (got {members[0].sampling} and "
                    f"{member.sampling}); give them the same settings and training events"
                )
        super().__init__(members[0].num_items)
        self.sampling = members[0].sampling
        self.members = nn.ModuleList(members)

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` mean log-probabilities."""
        return self._mean(lambda member: member.score(batch))

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """See :meth:`RecModel.score_left_out`."""
        return self._mean(lambda member: member.score_left_out(batch))

    @property
    def has_next_states(self) -> bool:
        """Whether all members have them."""
        return all(cast(RecModel, m).has_next_states for m in self.members)

    def next_states(self, batch: RecBatch) -> Tensor:
        """``[B, L, sum of D]``, whose products with :meth:`next_table` are mean logits."""
        states = [cast(RecModel, m).next_states(batch) for m in self.members]
        return torch.cat(states, dim=2) / len(self.members)

    def next_table(self) -> Tensor:
        """``[N, sum of D]`` the items for :meth:`next_states`."""
        return torch.cat([cast(RecModel, m).next_table() for m in self.members], dim=1)

    def _mean(self, answer: Callable[[RecModel], Tensor]) -> Tensor:
        likely = [answer(cast(RecModel, m)).float().log_softmax(1) for m in self.members]
        return torch.stack(likely).mean(0)


def _alike(one: Sampling, other: Sampling) -> bool:
    """Whether both read the same, whatever they are asked for in training."""
    if replace(one, relation=None) != replace(other, relation=None):
        return False
    if one.derived is None or other.derived is None:
        return one.derived is other.derived
    graphs = one.derived(), other.derived()
    return all(
        torch.equal(graphs[0][edge_type][name].cpu(), graphs[1][edge_type][name].cpu())
        for edge_type in graphs[0].edge_types
        for name in ("edge_index", "edge_weight")
    )
