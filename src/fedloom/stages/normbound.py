"""A norm bound that the server keeps: what a client claims to have clipped is clipped once more, where it is seen."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ..core.errors import StrategyError
from ..core.rng import Streams
from ..core.update import Update
from .clip import clipped
from .stateless import Stateless


@dataclass(frozen=True)
class NormBound(Stateless):
    """δ ← δ · min(1, norm/‖δ‖₂) for each client, on the server: no client counts for more than `norm`.

    Sun et al. 2019 (arXiv 1911.07963), norm thresholding of updates. `Clip` is done by clients, who may not
    do it; this one is not theirs to leave out. The server must see single clients, so that no gather that hides them
    fits, and it stands last among stages.

    Args:
        norm: L2 limit of a client's delta, above 0, in the units of the delta.

    >>> import numpy as np
    >>> from fedloom.core.layout import Layout, Leaf
    >>> delta = Update(np.float32([3.0, 4.0]), Layout((Leaf("w", (2,)),)))
    >>> NormBound(1.0).decode(delta).vector.round(4)
    array([0.6, 0.8], dtype=float32)
    """

    each: ClassVar[bool] = True
    sums: ClassVar[bool] = False
    norm: float

    def __post_init__(self) -> None:
        if not 0 < self.norm < math.inf:
            raise StrategyError(f"NormBound.norm must be above 0 and finite, got {self.norm}.")

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Nothing to do on the client."""
        return update, None

    def decode(self, update: Update) -> Update:
        """Scale what is longer; raises `NotFinite` if the norm is not a number."""
        return replace(update, vector=clipped(update.vector, self.norm)[0])
