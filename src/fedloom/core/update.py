"""The one value that carries federated learning: a weighted sum of client deltas in one flat vector, added exactly.

A client's own update holds w·δ rounded once to its leaves' grid (`Leaf.step`), and w in the last block. On that grid
float64 addition never rounds, so sums are the same bits in any order and in any grouping.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import reused
from .blocks import BLOCK, blocks
from .cores import shares, spread
from .errors import CohortOverflow, LayoutMismatch, NotFinite, OutOfBound, UpdateError
from .layout import WEIGHT, Layout, Vector

_NAMED = 1 << 15  # elements that a refusal names together
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
        return fold(None, self, other)

    @property
    def size_bytes(self) -> int:
        """Bytes that this update takes on the road: the vector and the side values."""
        side = sum(value.nbytes if isinstance(value, np.ndarray) else 8 for value in self.side.values())
        return int(self.vector.nbytes) + side


def fold(total: Update | None, update: Update, *more: Update) -> Update:
    """Return `total + update`, writing into `total`'s vector, which the caller gives away; `None` is the empty sum.

    Several updates at once cost less than one after another: a block of the sum stays in the cache for all of them.
    If one of them cannot be added, none is.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> one = Update(np.float32([0.25]), Layout((Leaf("w"),), cohort=3))
    >>> fold(fold(None, one), one, one).vector
    array([0.75])
    """
    updates = (update, *more)
    first = update if total is None else total
    for one in updates:
        _alike(first, one)
    count = sum(one.count for one in updates) + (0 if total is None else total.count)
    summed = _fits(Update(first.vector, first.layout, count))
    if total is None:
        summed, updates = replace(summed, vector=reused.copied(first.vector, np.float64)), more

    def add(share: Sequence[slice]) -> None:
        spare = np.empty_like(summed.vector[:BLOCK])
        for block in share:
            for one in updates:
                _add(summed.vector[block], one.vector[block], spare)

    spread(add, shares(blocks(slice(0, len(summed.vector))), len(summed.vector)))
    return summed


def _alike(first: Update, update: Update) -> None:
    """Raise `UpdateError` unless `update` can be added to a sum that began as `first` did."""
    if update.side:
        raise UpdateError(f"an update with side values {sorted(update.side)} cannot be added; decode it first.")
    if first.layout.digest != update.layout.digest:
        raise LayoutMismatch(
            f"cannot add updates of two layouts, {first.layout.digest[:12]} and {update.layout.digest[:12]}."
        )
    if first.vector.shape != update.vector.shape:
        raise LayoutMismatch(f"cannot add vectors of shapes {first.vector.shape} and {update.vector.shape}.")
    _fits(update)


def _add(part: Vector, other: Vector, spare: Vector) -> None:
    """Add to a block of a sum; widened in one go first, which is quicker than `np.add` widening bit by bit."""
    wide = spare[: len(part)]
    np.copyto(wide, other)
    np.add(part, wide, out=part)


def _fits(update: Update) -> Update:
    if not 0 < update.count <= update.layout.cohort:
        raise CohortOverflow(
            f"a sum of {update.count} clients does not fit a layout declared for a cohort of {update.layout.cohort}; "
            f"declare a larger cohort."
        )
    return update


def weigh(delta: Vector, layout: Layout, weight: float, draws: np.random.Generator | None = None) -> Update:
    """Return one client's contribution: `[w·δ, w]`, multiplied in the layout's dtype and rounded once to the grid.

    Args:
        delta: δ, of shape `(layout.size - 1,)`.
        layout: of a sum, as `Layout.weighted` makes it.
        weight: w, in (0, 1].
        draws: with it a value x between two steps is rounded up with a probability of its distance from the lower, so
            that the mean is x, to 2^-17 steps; without it to the nearest.

    Raises `NotFinite`, `OutOfBound` or `LayoutMismatch`.
    """
    _weighable(delta, layout, weight)
    vector = reused.empty(layout.size, layout.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for block, step, bound in _pieces(layout):
            if not _weigh(delta[block], weight, vector[block], step, bound, draws):
                np.multiply(delta, layout.dtype.type(weight), out=vector[:-1])
                vector[-1] = weight
                raise _refusal(vector, layout, 1)
            vector[block] *= step
    return Update(vector, layout)


def weigh_many(deltas: NDArray[Any], layout: Layout, weights: Sequence[float]) -> Update:
    """Return the sum of K clients' contributions, the same bits as `weigh` and `fold` give, in the memory of the sum.

    Args:
        deltas: δ by client, shape `(K, layout.size - 1)`, in the layout's dtype.
        layout: of a sum.
        weights: w by client, in (0, 1].
    """
    clients = list(zip(deltas, weights, strict=True))
    for delta, weight in clients:
        _weighable(delta, layout, weight)
    total = np.full(layout.size, -0.0)  # adding to -0.0 changes no bit, as in the empty sum of `fold`
    one, spare = np.empty(min(BLOCK, layout.size), layout.dtype), np.empty(min(BLOCK, layout.size))
    with np.errstate(over="ignore", invalid="ignore"):
        for block, step, bound in _pieces(layout):
            part = one[: block.stop - block.start]
            for delta, weight in clients:
                if not _weigh(delta[block], weight, part, step, bound):
                    _refuse_first(clients, layout)
                _add(total[block], part, spare)
            total[block] *= step
    return _fits(Update(total, layout, len(clients)))


def _weighable(delta: Vector, layout: Layout, weight: float) -> None:
    if not 0 < weight <= 1:
        raise OutOfBound(
            f"a weight must be in (0, 1], got {weight}; divide the weights by a cap not below the largest."
        )
    if tuple(delta.shape) != (layout.size - 1,):
        raise LayoutMismatch(f"the delta must have {layout.size - 1} elements, got shape {tuple(delta.shape)}.")


def _weigh(
    delta: Vector, weight: float, out: Vector, step: float, bound: float, draws: np.random.Generator | None = None
) -> bool:
    """Write w·δ to `out`, then w where δ has ended, in whole steps of the grid; False if it is not within the bound."""
    scale = out.dtype.type(1 / step)  # a power of two: the product has the bits that w·δ has
    np.multiply(delta, out.dtype.type(weight) * scale, out=out[: len(delta)])
    out[len(delta) :] = weight * scale
    if not _inside(out, bound / step):
        return False
    if draws is None:
        np.rint(out, out=out)
    else:
        _round_at_random(out, draws)
    return True


def _round_at_random(scaled: Vector, draws: np.random.Generator) -> None:
    """x ← ⌊x + u⌋, u uniform on the middles of 2^16 parts of [0, 1): |x| < 2^30, so x + u is a float64, exactly."""
    u = draws.integers(0, 1 << 16, len(scaled), np.uint16).astype(np.float64)
    u += 0.5
    u *= 2.0**-16
    u += scaled
    np.floor(u, out=scaled, casting="same_kind")


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
    count = _fits(update).count

    def good(share: Sequence[tuple[slice, float, float]]) -> bool:
        spare = np.empty((2, min(BLOCK, layout.size)), dtype)
        return all(
            _inside(vector[block], bound * count) and _whole(vector[block], step, spare) for block, step, bound in share
        )

    if not all(spread(good, shares(_pieces(layout), layout.size))):
        raise _refusal(vector, layout, count)
    if not vector[layout.block(WEIGHT)].min(initial=1) > 0:
        raise OutOfBound("the summed weight must be positive.")
    return update


def _pieces(layout: Layout) -> Iterator[tuple[slice, float, float]]:
    """Yield all of the vector in blocks that share a step and a bound: (where, step, bound)."""
    for where, step, bound in layout.runs:
        for block in blocks(where):
            yield block, step, bound


def _inside(part: Vector, most: float) -> bool:
    """Are all values within ±`most`? NaN is not."""
    return -most <= float(part.min(initial=0)) and float(part.max(initial=0)) <= most


def _whole(part: Vector, step: float, spare: NDArray[Any]) -> bool:
    """Are all values, which are within their bound, multiples of `step`? `spare` has room for two rows of them."""
    scaled, rounded = spare[:, : len(part)]
    np.multiply(part, part.dtype.type(1 / step), out=scaled)
    np.rint(scaled, out=rounded)
    return bool(np.equal(scaled, rounded).all())


def _refusal(vector: Vector, layout: Layout, count: int) -> UpdateError:
    """Return what is wrong with a vector that has a value beyond its bound, or off its grid."""
    for where, _, bound in layout.runs:
        if not all(_inside(vector[block], bound * count) for block in blocks(where)):
            return _beyond(vector, layout, where, bound)
    named = ((block, step) for where, step, _ in layout.runs for block in blocks(where, _NAMED))
    spare = np.empty((2, _NAMED), vector.dtype)
    block, step = next((block, step) for block, step in named if not _whole(vector[block], step, spare))
    return UpdateError(f"a value in elements {block.start} to {block.stop} is not a multiple of {step}.")


def _beyond(vector: Vector, layout: Layout, where: slice, bound: float) -> UpdateError:
    at = _worst(vector, where)
    leaf, value = layout.leaf_at(at), float(vector[at])
    if not np.isfinite(value):
        return NotFinite(f"leaf {leaf!r} holds {value}; lower the learning rate, or look for bad values in the data.")
    return OutOfBound(
        f"leaf {leaf!r} holds {value:g}, beyond its bound of {bound:g} for each client; "
        f"standardise the inputs, lower the learning rate, or declare a larger bound."
    )


def _worst(vector: Vector, where: slice) -> int:
    """Return the place of the first value there that is not finite, or else of the first that is largest."""
    worst = int(where.start)
    for block in blocks(where):
        size = np.abs(vector[block])
        finite = np.isfinite(size)
        if not finite.all():
            return int(block.start + np.argmin(finite))
        at = int(np.argmax(size))
        if size[at] > abs(vector[worst]):
            worst = int(block.start + at)
    return worst


def _refuse_first(clients: Sequence[tuple[Vector, float]], layout: Layout) -> NoReturn:
    """Raise what `weigh` raises for the first client whose values cannot be added."""
    for delta, weight in clients:
        weigh(delta, layout, weight)
    raise UpdateError("the values of a client were changed while they were added.")
