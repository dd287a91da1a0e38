"""What a model is: it says what it reads, scores every item, and has a loss."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tgrec.data import RecBatch, Sampling, TemporalRecGraph
from tgrec.nn.transition import TransitionTable

# Arguments that count something, whatever the model.
SIZES = (
    "num_items", "num_users", "d_model", "n_heads", "n_blocks", "d_ff", "max_len",
    "hidden_channels", "recent",
)  # fmt: skip


class RecModel(nn.Module):
    """Base class of all recommenders.

    A subclass sets :attr:`sampling`, and either implements :meth:`encode_user` and
    :meth:`encode_item` or overrides :meth:`score`. Models that learn implement
    :meth:`loss_terms`; models that only count do it in :meth:`from_graph`.

    Args:
        num_items: N; items are ``0..N-1``.
        config: The keyword arguments that rebuild this model, all plain JSON values.

    Attributes:
        sampling: What a batch must hold.
        learns: What the model can learn, which ``check_model`` then demands of it: ``"order"``
            (what follows the last item), ``"pairs"`` (what goes together), ``"popularity"``
            (what is frequent).
        static_step: Whether, on CUDA, :meth:`loss_terms` has no shape that depends on values,
            copies nothing to or from the host and heeds no :meth:`start_epoch`, so that a training
            step can be captured in a CUDA graph. A class says it of itself: it is not inherited.
    """

    sampling: Sampling
    learns: str = "order"
    static_step: bool = False

    def __init__(self, num_items: int, **config: Any) -> None:
        super().__init__()
        self.num_items = num_items
        self.config: dict[str, Any] = {"num_items": num_items, **config}
        for name in SIZES:
            value = self.config.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")

    @classmethod
    def from_graph(cls, graph: TemporalRecGraph, **kwargs: Any) -> Self:
        """Builds the model for a graph of training events."""
        return cls(num_items=graph.num_items, **kwargs)

    @classmethod
    def name_of(cls, name: str, settings: Mapping[str, Any]) -> str:
        """What tables call a model that is known as ``name``, with these settings.

        Another one where a part is left out that the name promises.
        """
        return name

    @classmethod
    def asked_relation(cls, graph: TemporalRecGraph, **settings: Any) -> str | None:
        """Name of the only kind of event that a model with these settings is asked for.

        None if it is asked for any kind of ``graph``.
        """
        return None

    def encode_user(self, batch: RecBatch) -> Tensor:
        """``[B, D]`` what each seed looks for."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither encode_user nor score")

    def encode_item(self) -> Tensor:
        """``[N, D]`` the table of items."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither encode_item nor score")

    def score(self, batch: RecBatch) -> Tensor:
        """``[B, N]`` float32 scores of all items, larger is better."""
        return inner_products(self.encode_user(batch), self.encode_item())

    def score_left_out(self, batch: RecBatch) -> Tensor:
        """:meth:`score` of a training batch as if its targets had not been counted.

        The same as :meth:`score` for models that hold no counts of the training events.
        """
        return self.score(batch)

    @property
    def has_next_states(self) -> bool:
        """Whether the model has :meth:`next_states`, and its loss is of them.

        A class that only inherits them, and has a loss of its own, has not.
        """
        makes = next(c for c in type(self).__mro__ if "next_states" in vars(c))
        loses = next(c for c in type(self).__mro__ if "loss_terms" in vars(c))
        return makes is not RecModel and issubclass(makes, loses)

    @property
    def has_static_step(self) -> bool:
        """Whether its very class has set :attr:`static_step`, and no counts prevent it.

        Counted transitions too many for whole rows (:attr:`TransitionTable.fits_dense`) are read
        one by one, in shapes that depend on which items are asked for.
        """
        tables = (m for m in self.modules() if isinstance(m, TransitionTable))
        return bool(vars(type(self)).get("static_step")) and all(t.fits_dense for t in tables)

    def next_states(self, batch: RecBatch) -> Tensor:
        """``[B, L, D]`` what is looked for after each event of the history.

        For models that predict the next item at every position: logits are the products with
        :meth:`next_table`, and the loss is :func:`tgrec.models.sasrec.next_item_loss`, so that
        such a model can be taught at every position, and teach there.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts at the end of a history only")

    def next_table(self) -> Tensor:
        """``[N, D]`` the items for :meth:`next_states`."""
        return self.encode_item()

    def loss_terms(self, batch: RecBatch) -> tuple[Tensor, Tensor]:
        """The parts of the loss, each as a sum and the number of terms in it.

        Sums and counts, not means, so that several processes can average over all their terms.

        Returns:
            ``(sums [K], counts [K])``; the loss is ``sums.sum() / counts.sum()``: every prediction
            weighs the same, whichever part it belongs to. (Means of parts would let the part with
            the fewest predictions, and so the noisiest gradient, drown the others.)
        """
        if type(self).loss is RecModel.loss:
            raise NotImplementedError(
                f"{type(self).__name__} implements neither loss_terms nor loss"
            )
        size = torch.tensor([float(batch.user.numel())], device=batch.user.device)
        return self.loss(batch).view(1) * size, size

    def loss(self, batch: RecBatch) -> Tensor:
        """The scalar training loss of a batch."""
        sums, counts = self.loss_terms(batch)
        return sums.sum() / counts.sum().clamp(min=1)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before epoch ``epoch`` (from 0) of ``epochs``, for what follows a schedule."""

    def choose(self, measure: Callable[[], float]) -> None:
        """Called after training, for values that training cannot learn.

        Leaves the model in the best state that was measured, also where ``measure`` raises. What is
        chosen goes into ``config``, so that it is saved; a run is resumed with a model made anew.

        Args:
            measure: The validation metric of the model as it now is, larger is better.
        """

    def put_chosen(self, name: str, value: float) -> None:
        """Puts a setting that :meth:`choose` chooses, here or in another run, in place."""
        setattr(self, name, value)
        self.config[name] = value

    def unread(self) -> dict[str, str]:
        """Settings that the model takes and, with the others as they are, does not read: why not.

        What asks for one of them is refused where settings are given one by one.
        """
        graph = self.config.get("use_graph", True)
        return {} if graph else {"graph_weight": "use_graph=False leaves nothing to weigh"}

    def monitor(self) -> dict[str, float]:
        """Values worth following over training, by name; they go into ``history.jsonl``."""
        return {}

    def row_meanings(self, graph: TemporalRecGraph) -> dict[str, Sequence[Hashable]]:
        """What rows of parameters stand for, if neither for items nor for users nor by their place.

        A model that starts from another one takes such rows over where they mean the same
        (:func:`tgrec.recommend.starting.start_from`).

        Args:
            graph: What the model was made for.

        Returns:
            Parameter -> the meaning of each of its first dimension's rows, no two alike.
        """
        return {}

    def mixture(self, events: int) -> tuple[float, str, str] | None:
        """What the answer is mixed of, for models that weigh two parts by a gate.

        Args:
            events: How many events of the history are read.

        Returns:
            The share of the first part in [0, 1], its name and that of the second; None for others.
        """
        return None

    def num_parameters(self) -> int:
        """Number of learned values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def choose_value(
    measure: Callable[[], float],
    best: float,
    current: float,
    values: Iterable[float],
    put: Callable[[float], None],
) -> float:
    """Puts the one of ``values`` in place with which ``measure`` is largest, for ``choose``.

    Args:
        measure: As in :meth:`RecModel.choose`.
        best: What it is now.
        current: The value that is in place, and stays if no other is better.
        values: What is tried.
        put: Puts a value in place.

    Returns:
        What ``measure`` is with the value that is chosen.
    """
    try:
        for value in values:
            put(value)
            if (reached := measure()) > best:
                best, current = reached, value
    finally:
        put(current)
    return best


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor was given, as :class:`RecModel` takes it.

    Args:
        given: Its ``locals()``, before it has any other.
    """
    return {name: value for name, value in given.items() if name not in ("self", "__class__")}


def inner_products(user: Tensor, item: Tensor) -> Tensor:
    """``[B, N]`` products of ``[B, D]`` and ``[N, D]``, in float32 also under autocast.

    In bfloat16 thousands of items would tie, and ties count against the model.
    """
    with torch.autocast(user.device.type, enabled=False):
        return user.float() @ item.float().t()
