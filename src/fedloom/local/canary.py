"""A canary: local work that learns nothing and sends one agreed direction, so that an audit can look for it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.event import DpEvent
from ..core.examples import Examples
from ..core.layout import Layout, Vector
from ..core.metrics import Metrics
from ..core.model import Model
from ..core.parts import Local, Work
from ..core.rng import Streams
from .solo import Solo


@dataclass(frozen=True, eq=False)
class Canary(Solo):
    """δ = `direction`, whatever the model and the data are.

    Args:
        local: the app's own, which says what travels.
        direction: shape `(payload.size,)`; zeros for a canary that is left out.
    """

    local: Local[Any]
    direction: Vector

    @property
    def population(self) -> tuple[str, ...]:
        """The app's."""
        return self.local.population

    def payload(self, layout: Layout) -> Layout:
        """The app's."""
        return self.local.payload(layout)

    def init(self, layout: Layout, initial: Vector) -> None:
        """No memory."""

    def train(self, model: Model, start: Vector, data: Examples, memory: None, *, round: int, streams: Streams) -> Work:
        """Send the direction."""
        return Work(np.array(self.direction, start.dtype), 1, Metrics({"examples": 1}))

    def personal(self, layout: Layout, start: Vector, memory: None) -> Vector:
        """The shared model."""
        return start

    def event(self) -> DpEvent:
        """The app's."""
        return self.local.event()
