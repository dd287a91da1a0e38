"""Positions of a short sequence, added to its vectors."""

from __future__ import annotations

from torch import Tensor, nn

from tgrec.nn.transformer import RightAlignedPositions


class PositionalEncoding(nn.Module):
    r"""Adds sines and cosines of the position (Vaswani et al., arXiv 1706.03762, section 3.5).

    .. math:: x_p + [\sin(p / 10000^{2i/D}), \cos(p / 10000^{2i/D})]_{i}

    Nothing is learned. Positions are counted from the newest, so that "a week ago" has the same
    vector however long the sequence is.

    Args:
        d_model: D.
        max_len: Longest sequence.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(self, d_model: int, max_len: int = 50) -> None:
        super().__init__()
        for name, value in (("d_model", d_model), ("max_len", max_len)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' needs to be a positive integer (got {value!r})")
        self.max_len = max_len
        self.positions = RightAlignedPositions(max_len, d_model, "sinusoidal")

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, D]``, the newest last, to the same shape.

        Raises:
            ValueError: If L exceeds ``max_len``.
        """
        length = x.size(1)
        if length > self.max_len:
            raise ValueError(
                f"'x' has {length} positions and 'max_len' is {self.max_len}; make it larger or "
                f"pass fewer positions"
            )
        out: Tensor = x + self.positions(length)
        return out
