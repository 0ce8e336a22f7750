"""SCAFFOLD's local work: control variates against client drift."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..core.errors import StrategyError
from ..core.event import NOT_PRIVATE, DpEvent
from ..core.examples import Examples
from ..core.layout import MODEL, Array, Layout, Vector
from ..core.model import Model, Stack
from ..core.parts import Work, Works
from ..core.rng import Streams
from ..optimize.arrays import add
from ..optimize.step import Step
from .sgd import Correction, Sgd
from .stacked import descend

CONTROL = "control"


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """Each step corrects its gradient by c - cᵢ, and the client's variate cᵢ follows.

    Karimireddy et al., "SCAFFOLD", ICML 2020 (arXiv 1910.06378v4), Algorithm 1, option II:

        y ← y - η·(g(y) - cᵢ + c)                  line 10
        cᵢ⁺ ← cᵢ - c + (x - y)/(K·η)               line 12, option II
        send Δy = y - x and Δc = cᵢ⁺ - cᵢ          line 13

    c travels in the block "control" of the shared vector, Δc in the same block of the update; cᵢ never leaves the
    client, and moves only when its update was counted. BatchNorm buffers have no variate.

    Args:
        sgd: how to descend; its optimizer must be `Step`, since option II divides by its rate.
    """

    stacks: ClassVar[bool] = True
    population: ClassVar[tuple[str, ...]] = (CONTROL,)
    sgd: Sgd = field(default_factory=Sgd)

    def __post_init__(self) -> None:
        if not isinstance(self.sgd.optimizer, Step) or self.sgd.optimizer.lr <= 0:
            raise StrategyError(f"Scaffold needs Step(lr > 0) as its optimizer, got {self.sgd.optimizer}.")

    def payload(self, layout: Layout) -> Layout:
        """The model, and a control variate for each parameter."""
        return layout.plus(CONTROL, layout.take(lambda leaf: leaf.kind == "parameter"), bound=1024.0)

    def init(self, layout: Layout, initial: Vector) -> Vector:
        """Return cᵢ = 0."""
        return np.zeros(self.payload(layout).only(CONTROL).size, layout.dtype)

    def train(
        self, model: Model, start: Vector, data: Examples, memory: Vector, *, round: int, streams: Streams
    ) -> Work:
        """Descend with corrected gradients; memory is cᵢ."""
        size, where = model.layout.size, model.layout.block(MODEL, "parameter")
        x, control = start[:size], start[size:]
        drift = np.zeros(size, model.layout.dtype)
        drift[where] = control - memory
        shift = model.load(drift)[where] + 0  # a copy: `load` lends its memory to the next call

        def correct(params: Array, gradient: Array) -> Array:
            return add(gradient, shift, 1.0)

        done = self.sgd.descend(model, x, data, round=round, streams=streams, correct=correct)
        delta = done.vector - x
        if not done.steps:
            return Work(np.concatenate([delta, memory * 0]), data.size, done.metrics, memory)
        moved = -delta[where] / (done.steps * self._rate(round)) - control
        return Work(np.concatenate([delta, moved]), data.size, done.metrics, memory + moved)

    def train_many(
        self,
        stack: Stack,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        memories: Sequence[Vector],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Works:
        """Descend with corrected gradients, all at once; memories are the cᵢ."""
        x, control = start[: layout.size], start[layout.size :]
        drift = control - np.stack(memories)

        def correct(group: Sequence[int]) -> Correction:
            shift = stack.load(drift[group], len(group))
            return lambda params, gradient: add(gradient, shift, 1.0)

        done = descend(self.sgd, stack, layout, x, data, round=round, streams=streams, correct=correct)
        deltas, steps = stack.read(done.deltas), np.array(done.steps)[:, None]
        moved = np.where(steps > 0, -deltas / (np.maximum(steps, 1) * self._rate(round)) - control, 0)
        moved = moved.astype(layout.dtype)
        sizes, memory = tuple(one.size for one in data), tuple(np.stack(memories) + moved)
        return Works(np.concatenate([deltas, moved], axis=1), sizes, done.metrics, memory)

    def personal(self, layout: Layout, start: Vector, memory: Vector) -> Vector:
        """The shared model."""
        return start[: layout.size]

    def event(self) -> DpEvent:
        """Not private."""
        return NOT_PRIVATE

    def _rate(self, round: int) -> float:
        assert isinstance(self.sgd.optimizer, Step)
        return self.sgd.optimizer.lr * self.sgd.rate(round)
