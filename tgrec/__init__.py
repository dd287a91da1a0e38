"""tgrec: temporal recommendation on PyTorch Geometric, one graph store and one sampler layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tgrec.recommend import Recommender

__version__ = "0.1.0"
__all__ = ["Recommender", "__version__"]


def __getattr__(name: str) -> Any:
    # Not imported before it is wanted: `tgrec doctor` starts where half of tgrec is broken.
    if name == "Recommender":
        from tgrec.recommend import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
