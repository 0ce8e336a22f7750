"""Fixed point: sums of whole numbers that 32 bits hold, the same in the clear, under masks and encrypted."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..core.errors import NotFinite, StrategyError
from ..core.layout import COARSEST, MODEL, RING, Layout, Leaf
from ..core.rng import Streams
from ..core.update import Update
from .stateless import Stateless


@dataclass(frozen=True)
class FixedPoint(Stateless):
    """Let sums take 2^30 steps instead of 2^53, so that a sum of whole steps is a sum in Z_2^32 that never overflows.

    The step of a leaf is the finest power of two with bound · cohort <= 2^30 steps: 24 bits and a sign for each of up
    to 64 clients, 15 and a sign for 32,768, and no more clients than that. w·δ is rounded to it at random, so that its
    mean is kept, once, on the client; what follows is exact. As in Bonawitz et al., CCS 2017, section 3 (a sum in Z_R),
    with R = 2^32; the step follows from the declared bounds in place of a number of bits that has to fit them.

    Args:
        limit: parameters of the model are cut off at ±limit, above 0, which is then their bound: a smaller one makes
            the step finer. By default the leaves' own bounds hold, and what is beyond is refused.
        bits: of a sum, 16 to 30: a client has 15 and a sign at least, so a cohort has at most 2^(bits - 15) clients.
            Masks take 30; `Encrypted` takes 24.

    >>> layout = FixedPoint(limit=1.0).payload(Layout((Leaf("w", (2,)),))).weighted(cohort=100)
    >>> layout.runs[0][1:] == (2.0**-23, 1.0)
    True
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    limit: float | None = None
    bits: int = RING

    def __post_init__(self) -> None:
        if not COARSEST < self.bits <= RING:
            raise StrategyError(f"FixedPoint.bits must be {COARSEST + 1} to {RING}, got {self.bits}.")
        if self.limit is not None and not 2.0**-64 <= self.limit <= 2.0**96:
            raise StrategyError(f"FixedPoint.limit must be between 2^-64 and 2^96, got {self.limit}.")

    def payload(self, layout: Layout) -> Layout:
        """Return the same leaves, for sums of so many bits, the model's parameters within the limit."""
        return replace(layout, leaves=tuple(self._limited(leaf) for leaf in layout.leaves), bits=self.bits)

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Cut off at the limit; raises `NotFinite` for NaN or infinity."""
        layout, vector = self.payload(update.layout), update.vector
        if self.limit is None:
            return replace(update, layout=layout), None
        if not math.isfinite(float(np.abs(vector).max(initial=0))):
            raise NotFinite("the delta holds NaN or infinity; lower the learning rate, or look at the data.")
        vector, where = vector.copy(), layout.block(MODEL, "parameter")
        np.clip(vector[where], -self.limit, self.limit, out=vector[where])
        return replace(update, vector=vector, layout=layout), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo: whole steps are values."""
        return update

    def _limited(self, leaf: Leaf) -> Leaf:
        if self.limit is None or leaf.block != MODEL or leaf.kind != "parameter":
            return leaf
        return replace(leaf, bound=self.limit)
