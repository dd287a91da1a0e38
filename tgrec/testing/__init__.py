"""Shipped test tools: toy graphs with known answers, and the check that every model passes."""

from tgrec.testing.checks import ModelCheckError, check_model
from tgrec.testing.toy import (
    block_graph,
    cycle_graph,
    noise_graph,
    popularity_graph,
    scramble_future,
    toy_graph,
)

__all__ = [
    "ModelCheckError",
    "block_graph",
    "check_model",
    "cycle_graph",
    "noise_graph",
    "popularity_graph",
    "scramble_future",
    "toy_graph",
]
