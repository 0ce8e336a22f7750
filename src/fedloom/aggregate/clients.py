"""What the aggregators share that must see single clients: they keep every update, and go through blocks of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.blocks import BLOCK, blocks
from ..core.cores import spread
from ..core.errors import NotFinite, QuorumLost, UpdateError
from ..core.layout import WEIGHT, Vector
from ..core.update import Update

STRETCHES = 64  # a vector is shared out in at most so many pieces: more would hold more partial sums


def kept(rule: str, total: list[Update] | None, update: Update) -> list[Update]:
    """Return the updates with one more; raises `UpdateError` for a sum of several clients."""
    if update.count != 1:
        raise UpdateError(f"{rule} needs every client's update, got a sum of {update.count}; do not merge.")
    return [*(total or ()), update]


def enough(rule: object, least: int, clients: int) -> None:
    """Raise `QuorumLost` for fewer clients than the rule protects."""
    if clients < least:
        raise QuorumLost(
            f"{rule!r} protects from {least} clients on, {clients} were counted; mend the sites, ask a larger cohort, "
            f"or set a quorum of {least} so that a round waits for them."
        )


@dataclass(frozen=True, eq=False)
class Deltas:
    """The clients' δ, a block of coordinates at a time, in float64 with the weights divided out.

    Args:
        updates: one of each client, alike in layout.
    """

    updates: Sequence[Update]

    @property
    def clients(self) -> int:
        """How many."""
        return len(self.updates)

    @property
    def size(self) -> int:
        """Number of coordinates: all but the weight."""
        return self.updates[0].layout.size - 1

    def rows(self, block: slice) -> Vector:
        """Return δ by client, of shape (clients, coordinates of the block)."""
        return self._read(block, np.empty((self.clients, block.stop - block.start)))

    def ordered(self, block: slice) -> Vector:
        """Return each coordinate's values in rising order, NaN last: of shape (coordinates of the block, clients).

        A few numbers are sorted faster than they are partitioned.
        """
        table = np.empty((block.stop - block.start, self.clients))
        self._read(block, table.T)
        table.sort(axis=1)
        return table

    def fill(self, work: Callable[[slice], Vector]) -> Vector:
        """Return the vector of which `work` returns each block."""
        out = np.empty(self.size)

        def stretch(where: slice) -> None:
            for block in blocks(where, self.width):
                out[block] = work(block)

        spread(stretch, self.stretches())
        return out

    def total(self, work: Callable[[slice], Vector]) -> Vector:
        """Return Σ of the squared distances that `work` returns for each block; raises `NotFinite` if it overflows."""

        def stretch(where: slice) -> Vector:
            with np.errstate(over="ignore", invalid="ignore"):
                return sum(map(work, blocks(where, self.width)))

        with np.errstate(over="ignore", invalid="ignore"):
            found: Vector = sum(spread(stretch, self.stretches()))
            if not np.isfinite(np.sum(found)):
                raise NotFinite("the squared distances of clients are beyond float64; declare smaller bounds.")
        return found

    @property
    def width(self) -> int:
        """Coordinates of a block: of all clients a megabyte, which stays in the cache for several passes."""
        return max(1, BLOCK // self.clients)

    def stretches(self) -> list[slice]:
        """Return runs of whole blocks, whose number and length do not depend on the cores."""
        each = max(1, -(-self.size // (self.width * STRETCHES)))
        return list(blocks(slice(0, self.size), each * self.width))

    def _read(self, block: slice, out: Vector) -> Vector:
        for row, update in zip(out, self.updates, strict=True):
            np.divide(update.vector[block], np.float64(update.vector[update.layout.block(WEIGHT)][0]), out=row)
        return out


def squares(rows: Vector) -> Vector:
    """Return each row's squared length."""
    return np.einsum("ij,ij->i", rows, rows)


def whole(share: float) -> int:
    """Return the whole number that a product of a decimal fraction has reached: 0.29 · 100 has reached 29.

    >>> whole(0.29 * 100), int(0.29 * 100)
    (29, 28)
    """
    return math.floor(share + 1e-9)
