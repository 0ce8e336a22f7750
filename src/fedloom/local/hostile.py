"""A hostile client: an app's own local work, with its rows and its delta attacked; everything else is a party's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.event import DpEvent
from ..core.examples import Examples
from ..core.layout import Layout, Vector
from ..core.model import Model
from ..core.parts import Local, Work
from ..core.rng import Streams, stream
from .attacks import Attack
from .solo import Solo


@dataclass(frozen=True, eq=False)
class Hostile(Solo):
    """`local` on poisoned rows, then a forged δ, within the bounds that the server checks.

    Args:
        local: the app's.
        attack: what is done.
        classes: of the task, 0 for regression.
        clients: in a cohort.
        limits: largest |δ| that is admitted, by element.
        allies: names of all attackers, who may collude; seed: of what they do together; rows: what each trains on.
    """

    local: Local[Any]
    attack: Attack
    classes: int
    clients: int
    limits: Vector
    allies: tuple[str, ...]
    seed: int
    rows: Callable[[str], Examples]

    @property
    def population(self) -> tuple[str, ...]:
        """The app's."""
        return self.local.population

    def payload(self, layout: Layout) -> Layout:
        """The app's."""
        return self.local.payload(layout)

    def init(self, layout: Layout, initial: Vector) -> Any:
        """The app's."""
        return self.local.init(layout, initial)

    def train(self, model: Model, start: Vector, data: Examples, memory: Any, *, round: int, streams: Streams) -> Work:
        """Train on poisoned rows, and forge what is sent; metrics are those of the training."""

        def work(rows: Examples, own: Streams) -> Work:
            poisoned = self.attack.poison(rows, self.classes, own.child("poison"))
            return self.local.train(model, start, poisoned, memory, round=round, streams=own)

        done = work(data, streams)
        deltas = [done.delta]
        if self.attack.colludes:  # all of them find the same, whoever asks
            ring = stream(self.seed, f"ring {round}")
            deltas = [work(self.rows(name), ring.child(name)).delta for name in self.allies]
        forged = np.asarray(self.attack.forge(deltas, self.clients, streams), np.float64)
        sent = np.clip(forged, -self.limits, self.limits).astype(done.delta.dtype)
        return Work(sent, done.examples, done.metrics, done.memory)

    def personal(self, layout: Layout, start: Vector, memory: Any) -> Vector:
        """The app's."""
        return self.local.personal(layout, start, memory)

    def event(self) -> DpEvent:
        """The app's."""
        return self.local.event()
