"""One row of events over several domains, with holes, and the part of it in one domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tgrec.data import History, RecBatch, TemporalRecGraph
from tgrec.models.bert4rec import append_mask, make_cloze


@dataclass(frozen=True)
class DomainCloze:
    """Events of all domains in their order, padded on the left.

    Args:
        item: ``[B, S]`` what is read, ``num_items`` being the mask token.
        mask: ``[B, S]`` bool, True at real positions.
        hole: ``[B, S]`` bool, True where the item is to be predicted.
        target: ``[B, S]`` the items before masking; the mask token at a question without answer.
        relation: ``[B, S]`` the domain of each position.
    """

    item: Tensor
    mask: Tensor
    hole: Tensor
    target: Tensor
    relation: Tensor

    @property
    def known(self) -> Tensor:
        """``[B, S]`` bool: real positions whose item is shown."""
        return self.mask & ~self.hole

    def shifted(self, num_items: int) -> Tensor:
        """``[B, S]`` the item before each position, a mask token before the first one."""
        before = F.pad(self.item, (1, 0))[:, :-1]
        return torch.where(F.pad(self.mask, (1, 0))[:, :-1], before, num_items)

    def places(self, relation: int) -> Tensor:
        """``[B, S']`` where the positions of one domain stand, on the right; others before them."""
        own = self.mask & (self.relation == relation)
        length = max(1, int(own.sum(1).max()) if own.numel() else 1)
        return torch.argsort(own.to(torch.uint8), dim=1, stable=True)[:, -length:]

    def only(self, relation: int, place: Tensor | None = None) -> DomainCloze:
        """The positions of one domain, moved to the right, no longer than the longest."""
        own = self.mask & (self.relation == relation)
        place = self.places(relation) if place is None else place
        columns = [getattr(self, f.name).gather(1, place) for f in fields(self)]
        out = DomainCloze(*columns)
        kept = own.gather(1, place)
        return replace(out, mask=kept, hole=out.hole & kept)


def training_cloze(
    batch: RecBatch, item_domain: Tensor, mask_prob: float, last_prob: float
) -> DomainCloze:
    """Masks history and target as :func:`tgrec.models.bert4rec.make_cloze` does."""
    history, item = batch.history, batch.item
    assert history is not None
    assert item is not None
    cloze = make_cloze(batch, item_domain.numel(), mask_prob, last_prob)
    relation = torch.cat([history.relation, item_domain[item].clamp(min=0).unsqueeze(1)], dim=1)
    return DomainCloze(cloze.item, cloze.mask, cloze.hole, cloze.target, relation)


def question(
    history: History, num_items: int, relation: int, answer: Tensor | None = None
) -> DomainCloze:
    """The history and one mask token behind it, in the domain that is asked for.

    Args:
        history: ``[B, L]``.
        num_items: The mask token.
        relation: The domain.
        answer: ``[B]`` what is known to be behind it, in training: ``target`` has it.
    """
    item, mask = append_mask(history, num_items)
    hole = F.pad(torch.zeros_like(history.mask), (0, 1), value=True)
    return DomainCloze(
        item=item,
        mask=mask,
        hole=hole,
        target=item if answer is None else torch.cat([history.item, answer.unsqueeze(1)], dim=1),
        relation=F.pad(history.relation, (0, 1), value=relation),
    )


def known_domains(graph: TemporalRecGraph) -> Tensor:
    """``[N]`` int64 the domain of each item: ``graph["item"].domain``, else where its events are.

    Of one relation it is that, whatever number it had among several. An item without events counts
    to -1.

    Raises:
        ValueError: If an item has events outside its domain.
    """
    types = graph.interaction_types
    counts = torch.stack(
        [torch.bincount(graph[t].edge_index[1].cpu(), minlength=graph.num_items) for t in types]
    )
    domain = torch.where(counts.sum(0) > 0, counts.argmax(0), 0 if len(types) == 1 else -1)
    if "domain" in graph["item"] and len(types) > 1:  # of one relation all items are
        domain = graph["item"].domain.cpu().long()
    place = torch.arange(len(types)).unsqueeze(1)
    if bool(((counts > 0) & (place != domain)).any()):
        item = int(((counts > 0) & (place != domain)).any(0).nonzero()[0])
        raise ValueError(
            f"TriGRec needs items of one domain each, and item {item} has events of others too "
            f"(events in {[t[1] for t in types]}: {counts[:, item].tolist()}); give what is in "
            f"several domains an id for each, such as 'food:{item}'"
        )
    return domain


def number_of(relation: int | str, graph: TemporalRecGraph) -> int:
    """The number of the domain that is asked for, by its name or as it is."""
    names = [t[1] for t in graph.interaction_types]
    if isinstance(relation, str) and relation not in names:
        raise ValueError(f"'target' needs to be one of {names} (got {relation!r})")
    number = names.index(relation) if isinstance(relation, str) else relation
    if not 0 <= number < len(names):
        raise ValueError(f"'target' needs to be in 0..{len(names) - 1}, for {names} (got {number})")
    return number


def user_features(graph: TemporalRecGraph, names: Sequence[str]) -> list[Tensor]:
    """Features ``[U, D]`` of the users by name; raises unless they are there, and of one width."""
    if missing := [name for name in names if name not in graph["user"]]:
        raise ValueError(
            f"'loaded' needs features of the users, and the graph has no {missing[0]!r}; "
            f"with_user_vectors puts them there"
        )
    features = [graph["user"][name].float() for name in names]
    if len({values.size(1) for values in features}) > 1:
        widths = {name: values.size(1) for name, values in zip(names, features, strict=True)}
        raise ValueError(f"'loaded' needs vectors of one width (got {widths})")
    return features


def last_of_all(scores: Tensor, item: Tensor) -> Tensor:
    """``[B, N]`` scores, those of some items (``[N]`` bool) put below all others.

    No loss has ever taught the scores of another domain's items, so they say nothing beside those
    of the domain. They stay finite, which sums and softmaxes of scores need.
    """
    # Where the items are left out of the minimum, the maximum stands in: never an infinity.
    others = torch.where(item, scores.amax(1, keepdim=True), scores)
    return torch.where(item, others.amin(1, keepdim=True) - 1, scores)
