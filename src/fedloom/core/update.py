"""The one value that carries federated learning: a weighted sum of client deltas in one flat vector, added exactly.

A client's own update holds w·δ rounded once to its leaves' grid (`Leaf.step`), and w in the last block. On that grid
float64 addition never rounds, so sums are the same bits in any order and in any grouping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CohortOverflow, LayoutMismatch, NotFinite, OutOfBound, UpdateError
from .layout import WEIGHT, Layout, Vector

_BLOCK = 1 << 15  # elements that are looked at together: they fit the cache
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Update:
    """A sum of `count` clients' contributions, packed by `layout`.

    Args:
        vector: shape `(layout.size,)`; from one client in `layout.dtype`, a sum of several in float64.
            What a stage has encoded may have any shape and dtype until it is decoded.
        layout: of the vector.
        count: number of clients inside.
        side: what a decoder needs (a scale, a weight): JSON numbers, strings or arrays. Must be empty to add.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> layout = Layout((Leaf("w"),)).weighted(cohort=3)
    >>> clients = [(0.5, 100), (0.7, 200), (0.6, 150)]  # θ and number of examples: a well-known worked example
    >>> a, b, c = (weigh(np.float32([theta]), layout, n / 256) for theta, n in clients)
    >>> total = a + b + c
    >>> total.count, round(float(total.vector[0] / total.vector[-1]), 4)
    (3, 0.6222)
    >>> (c + (a + b)).vector.tobytes() == total.vector.tobytes()
    True
    """

    vector: Vector
    layout: Layout
    count: int = 1
    side: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def __add__(self, other: "Update") -> "Update":
        """Return the exact sum; raises `LayoutMismatch`, `CohortOverflow` or `UpdateError`."""
        return fold(fold(None, self), other)

    @property
    def size_bytes(self) -> int:
        """Bytes that this update takes on the road: the vector and the side values."""
        side = sum(value.nbytes if isinstance(value, np.ndarray) else 8 for value in self.side.values())
        return int(self.vector.nbytes) + side


def fold(total: Update | None, update: Update) -> Update:
    """Return `total + update`, writing into `total`'s vector, which the caller gives away; `None` is the empty sum.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> one = Update(np.float32([0.25]), Layout((Leaf("w"),), cohort=2))
    >>> fold(fold(None, one), one).vector
    array([0.5])
    """
    if update.side:
        raise UpdateError(f"an update with side values {sorted(update.side)} cannot be added; decode it first.")
    if total is None:
        return _fits(Update(update.vector.astype(np.float64), update.layout, update.count))
    if total.layout.digest != update.layout.digest:
        raise LayoutMismatch(
            f"cannot add updates of two layouts, {total.layout.digest[:12]} and {update.layout.digest[:12]}."
        )
    summed = _fits(Update(total.vector, total.layout, total.count + update.count))
    np.add(total.vector, update.vector, out=total.vector)
    return summed


def _fits(update: Update) -> Update:
    if not 0 < update.count <= update.layout.cohort:
        raise CohortOverflow(
            f"a sum of {update.count} clients does not fit a layout declared for a cohort of {update.layout.cohort}; "
            f"declare a larger cohort."
        )
    return update


def weigh(delta: Vector, layout: Layout, weight: float) -> Update:
    """Return one client's contribution: `[w·δ, w]`, multiplied in the layout's dtype and rounded once to the grid.

    Args:
        delta: δ, of shape `(layout.size - 1,)`.
        layout: of a sum, as `Layout.weighted` makes it.
        weight: w, in (0, 1].

    Raises `NotFinite`, `OutOfBound` or `LayoutMismatch`.
    """
    if not 0 < weight <= 1:
        raise OutOfBound(
            f"a weight must be in (0, 1], got {weight}; divide the weights by a cap not below the largest."
        )
    if tuple(delta.shape) != (layout.size - 1,):
        raise LayoutMismatch(f"the delta must have {layout.size - 1} elements, got shape {tuple(delta.shape)}.")
    vector = np.empty(layout.size, layout.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(delta, layout.dtype.type(weight), out=vector[:-1])
    vector[-1] = weight
    _within_bounds(vector, layout, 1)
    for where, step, _ in layout.runs:
        part = vector[where]
        part *= 1 / step
        np.rint(part, out=part)
        part *= step
    return Update(vector, layout)


def weigh_many(deltas: NDArray[Any], layout: Layout, weights: Sequence[float]) -> Update:
    """Return the sum of K clients' contributions, the same bits as `weigh` and `fold` give.

    Args:
        deltas: δ by client, shape `(K, layout.size - 1)`, in the layout's dtype.
        layout: of a sum.
        weights: w by client, in (0, 1].
    """
    total = np.full(layout.size, -0.0)  # adding to -0.0 changes no bit, as in the empty sum of `fold`
    for delta, weight in zip(deltas, weights, strict=True):
        total += weigh(delta, layout, weight).vector
    return _fits(Update(total, layout, len(weights)))


def verify(update: Update, layout: Layout) -> Update:
    """Return `update` if it may enter a sum of that layout: shape, dtype, count, bounds and grid are all checked.

    This is what stands between a stranger's reply and the sum; nothing is cast before it is checked.
    """
    if update.layout.digest != layout.digest:
        raise LayoutMismatch(f"expected an update of layout {layout.digest[:12]}, got {update.layout.digest[:12]}.")
    vector, dtype = update.vector, layout.dtype if update.count == 1 else np.dtype("float64")
    if not isinstance(vector, np.ndarray) or vector.shape != (layout.size,) or vector.dtype != dtype:
        received = f"{getattr(vector, 'dtype', type(vector).__name__)} of shape {np.shape(vector)}"
        raise LayoutMismatch(f"expected a vector of {layout.size} {dtype}, got {received}.")
    _within_bounds(vector, layout, _fits(update).count)
    for where, step, _ in layout.runs:
        for at in range(where.start, where.stop, _BLOCK):
            scaled = vector[at : min(where.stop, at + _BLOCK)] * vector.dtype.type(1 / step)
            if not np.array_equal(np.rint(scaled), scaled):
                raise UpdateError(f"a value in elements {at} to {at + len(scaled)} is not a multiple of {step}.")
    if not vector[layout.block(WEIGHT)].min(initial=1) > 0:
        raise OutOfBound("the summed weight must be positive.")
    return update


def _within_bounds(vector: Vector, layout: Layout, count: int) -> None:
    for where, _, bound in layout.runs:
        part = vector[where]
        low, high = float(part.min(initial=0)), float(part.max(initial=0))
        if -bound * count <= low and high <= bound * count:
            continue
        finite = np.isfinite(part)
        at = int(np.argmin(finite)) if not finite.all() else int(np.argmax(np.abs(part)))
        leaf, value = layout.leaf_at(where.start + at), float(part[at])
        if not finite.all():
            raise NotFinite(
                f"leaf {leaf!r} holds {value}; lower the learning rate, or look for bad values in the data."
            )
        raise OutOfBound(
            f"leaf {leaf!r} holds {value:g}, beyond its bound of {bound:g} for each client; "
            f"standardise the inputs, lower the learning rate, or declare a larger bound."
        )
