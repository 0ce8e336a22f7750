"""FedProx's local work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..core.errors import StrategyError
from ..core.examples import Examples
from ..core.layout import MODEL, Array, Layout, Vector
from ..core.model import Model, Stack
from ..core.parts import Work, Works
from ..core.rng import Streams
from ..optimize.arrays import add
from .memoryless import Memoryless
from .sgd import Correction, Sgd
from .stacked import descend


@dataclass(frozen=True, kw_only=True)
class Prox(Memoryless):
    """Minimise F(w) + (μ/2)·‖w - start‖²: μ·(w - start) joins every gradient.

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (arXiv 1812.06127v5), equation 2 and
    Algorithm 2, with `sgd` as the γ-inexact solver. Clients that have less time are not modelled here.

    Args:
        mu: μ ≥ 0; 0 is plain local descent.
        sgd: how to descend.
    """

    stacks: ClassVar[bool] = True
    mu: float
    sgd: Sgd = field(default_factory=Sgd)

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise StrategyError(f"Prox.mu must not be negative, got {self.mu}.")

    def train(self, model: Model, start: Vector, data: Examples, memory: None, *, round: int, streams: Streams) -> Work:
        """Descend from `start`, held to it."""
        anchor = model.load(start)[model.layout.block(MODEL, "parameter")]
        anchor = anchor + 0  # a copy: `load` lends its memory to the next call

        def pull(params: Array, gradient: Array) -> Array:
            return add(add(gradient, params, self.mu), anchor, -self.mu)

        done = self.sgd.descend(model, start, data, round=round, streams=streams, correct=pull)
        return Work(done.vector - start, data.size, done.metrics)

    def train_many(
        self,
        stack: Stack,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        memories: Sequence[None],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Works:
        """Descend from `start`, held to it, all at once."""

        def correct(group: Sequence[int]) -> Correction:
            anchor = stack.load(start, 1) if start.ndim == 1 else stack.load(start[group], len(group))
            return lambda params, gradient: add(add(gradient, params, self.mu), anchor, -self.mu)

        done = descend(self.sgd, stack, layout, start, data, round=round, streams=streams, correct=correct)
        return Works(done.deltas, tuple(one.size for one in data), done.metrics, (None,) * len(data))
