"""A canary: local work that learns nothing and sends one agreed direction, so that an audit can look for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core.event import DpEvent
from ..core.examples import Examples
from ..core.layout import Layout, Vector
from ..core.metrics import Metrics
from ..core.model import Model, Stack
from ..core.parts import Local, Work, Works
from ..core.rng import Streams


@dataclass(frozen=True, eq=False)
class Canary:
    """δ = `direction`, whatever the model and the data are.

    Args:
        local: the app's own, which says what travels.
        direction: shape `(payload.size,)`; zeros for a canary that is left out.
    """

    stacks: ClassVar[bool] = False
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
        """Never asked."""
        raise NotImplementedError("canaries do not train; take one at a time.")

    def personal(self, layout: Layout, start: Vector, memory: None) -> Vector:
        """The shared model."""
        return start

    def event(self) -> DpEvent:
        """The app's."""
        return self.local.event()
