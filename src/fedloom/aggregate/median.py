"""The coordinate-wise median: an aggregator that must see single clients."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core.blocks import BLOCK, blocks
from ..core.errors import UpdateError
from ..core.layout import WEIGHT, Vector
from ..core.update import Update


@dataclass(frozen=True)
class Median:
    """The median of the clients' deltas, coordinate by coordinate; weights do not count.

    Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018 (arXiv 1803.01498v2), Definition 1 and Algorithm 1,
    option I; there on gradients, here on deltas. Of an even number it is the mean of the middle two. Needs memory for
    every client's update, and little more: it sorts a block of coordinates at a time.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> from fedloom.core.update import weigh
    >>> layout = Layout((Leaf("w"),)).weighted(cohort=3)
    >>> median, total = Median(), None
    >>> for delta in (1.0, 2.0, 9.0):
    ...     total = median.add(total, weigh(np.float32([delta]), layout, 0.5))
    >>> median.finish(total, members=3)
    array([2.])
    """

    each: ClassVar[bool] = True
    population: ClassVar[frozenset[str]] = frozenset()

    def add(self, total: list[Update] | None, update: Update) -> list[Update]:
        """Keep it; raises `UpdateError` for a sum of several clients."""
        if update.count != 1:
            raise UpdateError(f"the median needs every client's update, got a sum of {update.count}; do not merge.")
        return [*(total or ()), update]

    def finish(self, total: list[Update], members: int) -> Vector:
        """Return the median; the weights are divided out first."""
        where = total[0].layout.block(WEIGHT)
        clients = [(update.vector, np.float64(update.vector[where][0])) for update in total]
        median = np.empty(total[0].layout.size - 1)
        for block in blocks(slice(0, median.size), max(1, BLOCK // len(clients))):
            table = np.empty((block.stop - block.start, len(clients)))
            for column, (vector, weight) in zip(table.T, clients, strict=True):
                np.divide(vector[block], weight, out=column)
            median[block] = _middle(table)
        return median


def _middle(table: Vector) -> Vector:
    """Return the median of each row, which is sorted in place: the bits of `np.median`.

    A few numbers are sorted faster than they are partitioned. Adding 0.0 leaves no -0.0, whose place among zeros is
    by chance; NaN comes last.
    """
    table.sort(axis=1)
    clients = table.shape[1]
    middle = (table[:, (clients - 1) // 2] + table[:, clients // 2] + 0.0) / 2
    middle[np.isnan(table[:, -1])] = np.nan
    return middle
