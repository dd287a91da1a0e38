"""What the leak probes share: small models, and the proof that a detector detects."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes share the cores; what they start inherits this.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tgrec.data import TemporalRecGraph
from tgrec.models import MODELS, RecModel

SMALL: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "d_ff": 16, "max_len": 12}


@pytest.fixture(scope="session")
def caught() -> Callable[..., None]:
    """``caught(detector, *args)``: the detector raises AssertionError on a planted bug."""

    def demand(detector: Callable[..., None], *args: Any) -> None:
        with pytest.raises(AssertionError):
            detector(*args)

    return demand


@pytest.fixture(scope="session")
def small() -> Callable[..., RecModel]:
    """``small(name or class, graph, **kwargs)``: a model, small where its class has sizes."""

    def build(model: str | type[RecModel], graph: TemporalRecGraph, **kwargs: Any) -> RecModel:
        model_class = MODELS[model] if isinstance(model, str) else model
        known = inspect.signature(model_class).parameters
        sizes = {name: value for name, value in SMALL.items() if name in known}
        torch.manual_seed(0)
        return model_class.from_graph(graph, **{**sizes, **kwargs})

    return build
