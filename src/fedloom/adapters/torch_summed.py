"""Weighed sums of K clients' deltas on the layout's grid, where the deltas are: written out, or kept as `Moved`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import OutOfBound
from ..core.layout import Layout
from .torch_shared import Moved


def joined(parts: Sequence[tuple[Sequence[int], Any]], clients: int, still: Callable[[], Any]) -> Any:
    """Return the deltas of all clients from parts of them with their positions; `still` makes those of no move."""
    if parts and all(isinstance(moved, Moved) for _, moved in parts):
        return Moved.joined(parts, clients)
    deltas = still()
    for where, moved in parts:
        deltas[where] = moved.written() if isinstance(moved, Moved) else moved
    return deltas


def sum_moved(moved: Moved, layout: Layout, weights: Sequence[float]) -> Tensor | None:
    """Return Σ w·δ and Σ w (P + 1,) in float64; None if it is not certain that no client's value is beyond its bound.

    The sum is added in the layout's dtype and rounded to the grid once, where `core.update.weigh_many` rounds every
    client's own: the two differ by rounding.

    Args:
        moved: δ of K clients.
        layout: of a sum, P + 1 elements.
        weights: w by client, in (0, 1].
    """
    known = _shares(weights, moved.like)
    if not moved.within(known, min(bound for _, _, bound in _runs(layout))):
        return None
    added, total = moved.summed(known), _room(known, layout)
    for where, step, _ in _runs(layout):
        torch.mul(added[where].mul_(1 / step).round_().double(), step, out=total[where])
    return total


def sum_written(deltas: Tensor, layout: Layout, weights: Sequence[float]) -> Tensor:
    """Return Σ w·δ and Σ w (P + 1,) in float64, the values of `core.update.weigh_many`; `deltas` are used up.

    Whole steps are added in float64, so the order in which a device adds cannot change a bit. Raises `OutOfBound`, with
    `deltas` as they were, if a value is beyond its bound or not finite.

    Args:
        deltas: (K, P), in the layout's dtype.
        layout: of a sum, P + 1 elements.
        weights: w by client, in (0, 1].
    """
    known = _shares(weights, deltas)
    share, total = known[:, None], _room(known, layout)
    inside = [_within(deltas[:, where], share, bound) for where, _, bound in _runs(layout)]
    if not bool(torch.stack(inside).all()):
        raise OutOfBound("a client's weighed delta is beyond its bound, or not finite.")
    for where, step, _ in _runs(layout):
        part = deltas[:, where].mul_(share)
        torch.sum(part.mul_(1 / step).round_().mul_(step), 0, dtype=torch.float64, out=total[where])
    return total


def _shares(weights: Sequence[float], like: Tensor) -> Tensor:
    if not all(0 < weight <= 1 for weight in weights):
        raise OutOfBound(f"weights must be in (0, 1], got {min(weights)} to {max(weights)}.")
    return torch.tensor(weights, dtype=like.dtype).to(like.device)


def _runs(layout: Layout) -> Iterator[tuple[slice, float, float]]:
    """Yield the layout's runs without the weight at its end."""
    size = layout.size - 1
    for where, step, bound in layout.runs:
        if where.start < size:
            yield slice(where.start, min(where.stop, size)), step, bound


def _room(weights: Tensor, layout: Layout) -> Tensor:
    """Return a sum (P + 1,) in which only Σ w is written, each w in whole steps."""
    total, step = weights.new_empty(layout.size, dtype=torch.float64), layout.runs[-1][1]
    total[-1] = ((weights / step).round() * step).double().sum()
    return total


def _within(part: Tensor, share: Tensor, bound: float) -> Tensor:
    """Is |w·δ| ≤ bound everywhere? Rounding keeps order, so each client's extremes tell; NaN is not within."""
    low, high = torch.aminmax(part, dim=1, keepdim=True)
    return (((low * share).double() >= -bound) & ((high * share).double() <= bound)).all()
