"""Sampled candidate sets: a few negatives per user, the same ones for every model.

Sampled metrics do not keep the order of models (Krichene and Rendle, KDD 2020). They stand
beside the full ranking so that a reader who knows only such figures can compare.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tgrec.metrics._check import Pairs, check_k, check_pairs

_CHUNK = 1 << 21  # elements of a [rows, N] block of keys: bounds memory at about 60 MiB
_UNWEIGHTED = 1e300  # where the keys of items with weight 0 start; other keys stay below
_SMALLEST = 1e-290  # the smallest relative weight, which keeps those below _UNWEIGHTED
_SPARE = 2  # times K: about so many items of a row are looked at before all of them are


def sampled_negatives(
    draws: Tensor, num_negatives: int, exclude: Pairs, weight: Tensor | None = None
) -> Tensor:
    """Draw negatives without replacement, uniformly or in proportion to `weight`.

    Every item gets the key `-log(1 - u) / weight` with `u` its draw, and the K smallest keys
    win. Exponential keys make this exactly the draw of one item after the other, each in
    proportion to the weights that are left (Efraimidis and Spirakis, IPL 2006). Columns stand in
    the order of the draw: the first 28 of 100 are the draw of 28. An item with weight 0 is drawn
    only after all others.

    The function has no randomness of its own. Draws that are a hash of (user, item), and not the
    next numbers of a generator, make the negatives of a user the same for every model, batch size
    and order of the users; on another device too, up to a last-bit difference of the logarithm,
    which changes an id only if two keys agree to 16 digits.

    Args:
        draws: float64 `[B, N]`, uniform in the open interval (0, 1) and independent: one for each
            user of the batch and each item `0..N-1`.
        num_negatives: K, at least 1.
        exclude: `(rows, cols)`: the items that must not be drawn for a row, that is the history
            and the target; a pair may stand more than once.
        weight: `[N]`, non-negative and finite (training counts), or None for a uniform draw.

    Returns:
        int64 `[B, K]`; a row with fewer than K items left holds all of them, then -1
        (`candidate_ranks` ignores it).

    Raises:
        TypeError: `draws` is not float64, ids are not int64, or `num_negatives` is not an int.
        ValueError: a draw is outside (0, 1), a shape is wrong, `num_negatives` is below 1, an id
            out of range, or a weight negative or not finite.
    """
    _check_draws(draws)
    check_k(num_negatives, "num_negatives")
    num_rows, num_items = draws.shape
    rows, cols = check_pairs(exclude, num_rows, num_items)
    rate = None if weight is None else _relative(weight, num_items, draws.device)
    kept = min(num_negatives, num_items)
    step = max(1, _CHUNK // num_items)
    small = _small(_SPARE * kept, num_items, rate)
    out = torch.full((num_rows, num_negatives), -1, dtype=torch.int64, device=draws.device)
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        inside = (rows >= first) & (rows < last)
        allowed = torch.ones(last - first, num_items, dtype=torch.bool, device=draws.device)
        allowed[rows[inside] - first, cols[inside]] = False
        out[first:last, :kept] = _first(draws[first:last], allowed, kept, rate, small)
    return out


def pairs_of(items: Tensor, mask: Tensor) -> Pairs:
    """`(rows, cols)` of a padded matrix of items, for the `exclude` arguments of this package.

    Args:
        items: int64 `[B, L]`.
        mask: bool `[B, L]`, True at real items.

    Raises:
        TypeError: dtypes are wrong.
        ValueError: shapes differ or are not `[B, L]`.
    """
    if items.dtype != torch.int64 or mask.dtype != torch.bool:
        raise TypeError(f"items must be int64 and mask bool, got {items.dtype} and {mask.dtype}")
    if items.dim() != 2 or items.shape != mask.shape:
        raise ValueError(
            f"items and mask must both be [B, L], got {tuple(items.shape)} and {tuple(mask.shape)}"
        )
    rows, places = mask.nonzero(as_tuple=True)
    return rows, items[rows, places]


class _Small(NamedTuple):
    """A bound on keys (a scalar), and the draws `[N]` (or a scalar) below which keys may be."""

    key: Tensor
    draw: Tensor


def _first(
    draws: Tensor, allowed: Tensor, kept: int, rate: Tensor | None, small: _Small | None
) -> Tensor:
    """`[b, kept]`: the allowed items of the smallest keys in ascending order, then -1.

    Where `small` is given, only items that may have a small key are keyed and sorted, a tenth of
    all or fewer. If a row has too few of them (its history holds most), all of its items are.
    """
    if small is None:
        keys = _keys(draws, rate).masked_fill_(~allowed, torch.inf)
        drawn = keys.topk(kept, dim=1, largest=False, sorted=True)
        return drawn.indices.masked_fill(drawn.values == torch.inf, -1)
    near = (draws < small.draw) & allowed
    count = near.sum(dim=1)
    place = near.view(-1).nonzero().view(-1)
    row = torch.repeat_interleave(count)
    item = place - row * draws.size(1)
    keys = _keys(draws.reshape(-1)[place], None if rate is None else rate[item])
    # The few of each row, side by side from the left.
    width = max(kept, int(count.max()))
    column = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    key_of = keys.new_full((len(draws), width), torch.inf).index_put_((row, column), keys)
    item_of = item.new_zeros(len(draws), width).index_put_((row, column), item)
    drawn = key_of.topk(kept, dim=1, largest=False, sorted=True)
    out = item_of.gather(1, drawn.indices)
    rest = (~(drawn.values[:, -1] < small.key)).nonzero().view(-1)  # so written for a NaN too
    if rest.numel():
        out[rest] = _first(draws[rest], allowed[rest], kept, rate, None)
    return out


def _small(wanted: int, num_items: int, rate: Tensor | None) -> _Small | None:
    """A bound that about `wanted` keys of a row lie below; None if that would be most of them."""
    if 2 * wanted >= (num_items if rate is None else int((rate > 0).sum())):
        return None
    if rate is None:
        bound = torch.tensor(wanted / num_items, dtype=torch.float64)
        return _Small(bound, bound)
    # The expected number, sum(1 - exp(-bound * rate)), is concave: Newton's steps stay below.
    bound = wanted / rate.sum()
    for _ in range(6):
        above = torch.exp(-bound * rate)
        bound = bound + (wanted - num_items + above.sum()) / (above * rate).sum()
    # A little more, so that no rounding leaves out a draw whose key is below the bound.
    return _Small(bound, -torch.expm1(-bound * rate) * (1 + 1e-9))


def _check_draws(draws: Tensor) -> None:
    if not isinstance(draws, Tensor) or draws.dtype != torch.float64:
        kind = draws.dtype if isinstance(draws, Tensor) else type(draws).__name__
        raise TypeError(
            f"draws must be a torch.float64 tensor, got {kind}; draw them in float64 (a cast "
            "afterwards keeps the ties of lower precision)"
        )
    if draws.dim() != 2 or draws.size(1) == 0:
        raise ValueError(f"draws must be [B, N] with N >= 1, got shape {tuple(draws.shape)}")
    if draws.numel() == 0:
        return
    low, high = torch.aminmax(draws)
    if not bool((low > 0) & (high < 1)):  # so written, a NaN is refused as well
        row, col = (~((draws > 0) & (draws < 1))).nonzero()[0].tolist()
        raise ValueError(
            f"draws[{row}, {col}] is {float(draws[row, col])}; draws lie strictly between 0 and 1"
        )


def _keys(draws: Tensor, rate: Tensor | None) -> Tensor:
    """The keys of a block of draws, in memory of their own."""
    if rate is None:
        return draws.clone()  # increasing in -log(1 - u): the same order without the logarithm
    keys = -torch.log1p(-draws) / rate
    # 1e300 * (1 + u) has the resolution of 1 + u, where 1e300 + u would lose u.
    return torch.where(rate > 0, keys, _UNWEIGHTED * (1.0 + draws))


def _relative(weight: Tensor, num_items: int, device: torch.device) -> Tensor:
    """Check `weight` and scale it to a largest value of 1, float64 `[N]`."""
    if not isinstance(weight, Tensor) or weight.dtype == torch.bool or weight.is_complex():
        raise TypeError("weight must be a tensor of real numbers, one for each item")
    if weight.shape != (num_items,):
        raise ValueError(f"weight must be [{num_items}], got shape {tuple(weight.shape)}")
    rate = weight.to(device=device, dtype=torch.float64)
    bad = ~(rate.isfinite() & (rate >= 0))
    if bool(bad.any()):
        item = int(bad.nonzero()[0])
        raise ValueError(f"weight[{item}] is {float(rate[item])}; weights are finite and >= 0")
    # A quotient may underflow to 0, but a positive weight must stay one.
    scaled = (rate / rate.max()).clamp(min=_SMALLEST)
    return torch.where(rate > 0, scaled, 0.0)
