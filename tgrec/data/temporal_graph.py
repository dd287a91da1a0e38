"""The store: a PyG ``HeteroData`` whose user-item edges are ordered in time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgrec.data.text import decode_strings, encode_strings

if TYPE_CHECKING:
    import networkx as nx

EdgeType = tuple[str, str, str]


class TemporalRecGraph(HeteroData):
    r"""Users, items and their events in one global order.

    Node types are always ``user`` and ``item``. Every edge type ``('user', r, 'item')`` that
    carries ``event_id`` is a kind of event (a behaviour or a domain) with

    * ``edge_index`` ``[2, E]`` int64, stored in event order,
    * ``event_id`` ``[E]`` int64: the unique position in the order (time, input row) over all
      kinds, which is the clock of every sampler,
    * ``time`` ``[E]`` int64 Unix seconds (absent where only the order is known),
    * optionally ``rating`` ``[E]`` float32 and ``edge_attr``.

    A *cut* ``c`` means that only edges with ``event_id < c`` are visible. Half of the timestamps
    of a dataset like MovieLens tie, so "strictly before this event" cannot be said in seconds; in
    event ids it is exact. Intervals are half-open everywhere.

    The class adds no state: no ``__init__``, no attributes, no caches. PyG copies ``__dict__``
    into every sampled mini-batch, where an index cached here would answer for the wrong graph.
    Methods are pure; slices are views of the same tensors.
    """

    # ---- construction (see tgrec/data/convert*.py) -------------------------------------------

    @classmethod
    def from_pandas(
        cls,
        df: pd.DataFrame,
        user: str = "user_id",
        item: str = "item_id",
        time: str | None = "timestamp",
        rating: str | None = None,
        relation: str | None = None,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
    ) -> TemporalRecGraph:
        """Builds the graph from one row per event; see :func:`tgrec.data.convert.from_pandas`."""
        from tgrec.data.convert import from_pandas

        return from_pandas(df, user, item, time, rating, relation, users, items)

    @classmethod
    def from_csv(cls, path: str, **kwargs: Any) -> TemporalRecGraph:
        """Builds the graph from a CSV file; see :func:`tgrec.data.convert.from_csv`."""
        from tgrec.data.convert import from_csv

        return from_csv(path, **kwargs)

    @classmethod
    def from_hetero(
        cls, data: HeteroData, user: str = "user", item: str = "item", time: str | None = "time"
    ) -> TemporalRecGraph:
        """Builds the graph from any ``HeteroData``; see :func:`tgrec.data.convert.from_hetero`."""
        from tgrec.data.convert import from_hetero

        return from_hetero(data, user, item, time)

    @classmethod
    def from_networkx(cls, graph: nx.MultiDiGraph) -> TemporalRecGraph:
        """The inverse of :meth:`to_networkx`."""
        from tgrec.data.convert_networkx import from_networkx

        return from_networkx(graph)

    def to_pandas(self) -> pd.DataFrame:
        """One row per event in event order, with raw ids."""
        from tgrec.data.convert import to_pandas

        return to_pandas(self)

    def to_csv(self, path: str) -> None:
        """Writes :meth:`to_pandas` to a file, atomically."""
        from tgrec.data.convert import to_csv

        to_csv(self, path)

    def to_networkx(self) -> nx.MultiDiGraph:
        """A ``MultiDiGraph`` with nodes ``(type, raw id)`` and one edge per event."""
        from tgrec.data.convert_networkx import to_networkx

        return to_networkx(self)

    def to_hetero(self) -> HeteroData:
        """The same stores as a plain ``HeteroData``."""
        return HeteroData.from_dict(self.to_dict())

    # ---- sizes ------------------------------------------------------------------------------

    @property
    def interaction_types(self) -> list[EdgeType]:
        """The ``('user', r, 'item')`` types that carry ``event_id``, never their reverses."""
        return [
            t
            for t in self.edge_types
            if t[0] == "user" and t[2] == "item" and "event_id" in self[t]
        ]

    @property
    def num_users(self) -> int:
        """Number of user nodes."""
        return int(self["user"].num_nodes or 0)

    @property
    def num_items(self) -> int:
        """Number of item nodes."""
        return int(self["item"].num_nodes or 0)

    @property
    def num_events(self) -> int:
        """Number of events over all kinds."""
        return sum(self[t].event_id.numel() for t in self.interaction_types)

    @property
    def has_time(self) -> bool:
        """Whether every event has a wall-clock time (otherwise only the order is known)."""
        types = self.interaction_types
        return bool(types) and all("time" in self[t] for t in types)

    # ---- cuts and slices --------------------------------------------------------------------

    def event_id_at(self, time: int) -> int:
        """The cut for wall-clock ``time`` (Unix s): the first event with ``time >= t``.

        Returns:
            The ``event_id`` of that event, or one past the last event if there is none, so that
            ``before(event_id_at(t))`` holds exactly the events strictly earlier than ``t``.
        """
        self._require_whole("event_id_at")
        self._require_time("event_id_at")
        cuts, end = [], 0
        for edge_type in self.interaction_types:
            store = self[edge_type]
            first = int(torch.searchsorted(store.time, int(time)))
            if first < store.event_id.numel():
                cuts.append(int(store.event_id[first]))
            if store.event_id.numel():
                end = max(end, int(store.event_id[-1]) + 1)
        return min(cuts, default=end)

    def before(self, cut: int) -> TemporalRecGraph:
        """The events with ``event_id < cut``, as views; derived edge types are dropped."""
        return self._slice(None, cut)

    def since(self, cut: int) -> TemporalRecGraph:
        """The events with ``event_id >= cut``, as views; derived edge types are dropped."""
        return self._slice(cut, None)

    def between(self, lo: int, hi: int) -> TemporalRecGraph:
        """The events with ``lo <= event_id < hi``, as views; derived edge types are dropped."""
        if lo > hi:
            raise ValueError(f"'lo' needs to be at most 'hi' (got lo={lo}, hi={hi})")
        return self._slice(lo, hi)

    def snapshots(self, freq: str = "W") -> Iterator[TemporalRecGraph]:
        """Cuts the log into calendar periods (UTC), each event in exactly one.

        Args:
            freq: A pandas period alias such as ``"D"``, ``"W"`` (weeks from Monday), ``"M"``.

        Yields:
            One view per period from the first event to the last, empty periods included, with
            ``time_start`` and ``time_end`` (Unix s, half-open) as graph-level attributes.
        """
        from tgrec.data.snapshots import snapshots

        return snapshots(self, freq)

    def select_events(self, mask: Tensor, relation: str | None = None) -> TemporalRecGraph:
        """The events where ``mask`` is True.

        Args:
            mask: ``[E]`` bool over the events of one kind, in stored order.
            relation: Which kind; may be left out if there is only one. Other kinds stay whole.
        """
        self._require_whole("select_events")
        types = self.interaction_types
        names = [t[1] for t in types]
        if relation is None and len(types) != 1:
            raise ValueError(f"'relation' needs to name one of {names} (the graph has several)")
        if relation is not None and relation not in names:
            raise ValueError(f"'relation' needs to be one of {names} (got {relation!r})")
        chosen = types[0] if relation is None else types[names.index(relation)]
        size = self[chosen].event_id.numel()
        if mask.dtype != torch.bool or mask.shape != (size,):
            raise ValueError(
                f"'mask' needs to be bool of shape [{size}], one value per event of {chosen} "
                f"(got {mask.dtype} of shape {list(mask.shape)})"
            )
        rows = mask.nonzero().view(-1).to(self[chosen].event_id.device)
        return self._with_events({t: rows if t == chosen else slice(None) for t in types})

    def drop_isolated(self) -> TemporalRecGraph:
        """Leaves out users and items without events and numbers the others anew, in order."""
        from tgrec.data.subgraph import drop_isolated

        return drop_isolated(self)

    def ego(
        self, user: Any, hops: int = 1, cut: int | None = None, max_events: int | None = None
    ) -> TemporalRecGraph:
        """The neighbourhood of one user (a raw id); see :func:`tgrec.data.ego.ego`."""
        from tgrec.data.ego import ego

        return ego(self, user, hops, cut, max_events)

    # ---- raw ids and titles -----------------------------------------------------------------

    def raw_ids(self, node_type: str) -> Tensor | list[str]:
        """The ids of the input data: int64 ``[N]``, or a list of N strings."""
        store = self._node_store(node_type)
        if "raw_id" in store:
            ids: Tensor = store.raw_id
            return ids
        if "raw_id_bytes" in store:
            return self.strings(node_type, "raw_id")
        return torch.arange(int(store.num_nodes or 0))

    def index_of(self, node_type: str, raw_ids: Sequence[Any] | Tensor | np.ndarray) -> Tensor:
        """The node indices ``[n]`` (int64) of raw ids.

        Raises:
            ValueError: If an id is unknown; the message names the first ones.
        """
        known = self.raw_ids(node_type)
        wanted = raw_ids.cpu().numpy() if isinstance(raw_ids, Tensor) else np.asarray(raw_ids)
        if wanted.dtype.kind == "U":  # strings of fixed width lose the NULs at their end
            wanted = np.asarray(raw_ids, dtype=object)
        wanted = np.atleast_1d(wanted)
        values = (
            known.cpu().numpy() if isinstance(known, Tensor) else np.asarray(known, dtype=object)
        )
        found = pd.Index(values).get_indexer(pd.Index(wanted))
        if (found < 0).any():
            unknown = wanted[found < 0]
            kind = "integers" if isinstance(known, Tensor) else "strings"
            raise ValueError(
                f"'raw_ids' holds {unknown.size} {node_type} id(s) that the graph does not have, "
                f"first {unknown[:3].tolist()}; its {len(values)} {node_type} ids are {kind}, see "
                f"raw_ids({node_type!r})"
            )
        return torch.from_numpy(found.astype(np.int64))

    def strings(self, node_type: str, name: str) -> list[str]:
        """A string attribute of all nodes, for example ``strings('item', 'title')``."""
        store = self._node_store(node_type)
        if f"{name}_bytes" not in store:
            names = [k.removesuffix("_bytes") for k in store.keys() if k.endswith("_bytes")]
            raise ValueError(f"{node_type!r} has no strings {name!r}; it has {names}")
        return decode_strings(store[f"{name}_bytes"], store[f"{name}_offsets"])

    # ---- validation -------------------------------------------------------------------------

    def validate(self, raise_on_error: bool = True) -> bool:
        """Checks everything that the samplers rely on, then makes PyG's own checks.

        Args:
            raise_on_error: Otherwise problems are warned of, as PyG does.

        Returns:
            Whether all is well.

        Raises:
            ValueError: If ``raise_on_error`` and the graph breaks the contract of the class.
        """
        from tgrec.data.validate import problems

        found = problems(self)
        if found and raise_on_error:
            raise ValueError("; ".join(found))
        if found:
            warnings.warn("; ".join(found), stacklevel=2)
            return False
        return super().validate(raise_on_error)

    # ---- private ----------------------------------------------------------------------------

    def _slice(self, lo: int | None, hi: int | None) -> TemporalRecGraph:
        self._require_whole("slices")
        rows: dict[EdgeType, slice] = {}
        for edge_type in self.interaction_types:
            ids = self[edge_type].event_id
            start = 0 if lo is None else int(torch.searchsorted(ids, lo))
            stop = ids.numel() if hi is None else int(torch.searchsorted(ids, hi))
            rows[edge_type] = slice(start, max(start, stop))
        return self._with_events(rows)

    def _with_events(self, rows: dict[EdgeType, Any]) -> TemporalRecGraph:
        """Same nodes, the given rows of each kind of event, no derived edge types."""
        out = TemporalRecGraph()
        for node_type in self.node_types:
            self._copy_nodes(out, node_type, None)
        for edge_type, index in rows.items():
            size = self[edge_type].event_id.numel()
            for key, value in self[edge_type].items():
                if key == "edge_index":
                    out[edge_type].edge_index = value[:, index]
                elif isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == size:
                    out[edge_type][key] = value[index]
                else:
                    out[edge_type][key] = value
        return out

    def _copy_nodes(self, out: TemporalRecGraph, node_type: str, keep: Tensor | None) -> None:
        """Copies node attributes by reference, or the rows ``keep`` of them."""
        store = self[node_type]
        size = int(store.num_nodes or 0)
        for key, value in store.items():
            if keep is None or not isinstance(value, Tensor):
                out[node_type][key] = value
            elif key.endswith("_bytes"):
                name = key.removesuffix("_bytes")
                words = decode_strings(value, store[f"{name}_offsets"])
                packed, offsets = encode_strings([words[i] for i in keep.tolist()])
                out[node_type][key], out[node_type][f"{name}_offsets"] = packed, offsets
            elif not key.endswith("_offsets"):
                per_node = value.dim() > 0 and value.size(0) == size
                out[node_type][key] = value[keep.to(value.device)] if per_node else value
        if keep is not None:
            out[node_type].num_nodes = keep.numel()

    def _node_store(self, node_type: str) -> Any:
        if node_type not in self.node_types:
            raise ValueError(
                f"'node_type' needs to be one of {self.node_types} (got {node_type!r})"
            )
        self._require_whole("raw ids and strings")
        return self[node_type]

    def _require_whole(self, what: str) -> None:
        # A sampled mini-batch is of this class too (PyG copies it); its events are not a log.
        if any("n_id" in store or "input_id" in store for store in self.node_stores):
            raise ValueError(f"{what}: needs the whole graph, this is a sampled mini-batch")

    def _require_time(self, what: str) -> None:
        if not self.has_time:
            raise ValueError(
                f"{what}: needs event times, but the data have only an order; pass 'time' to "
                f"from_pandas, or use event ids"
            )
