"""Local gradient descent with example-level differential privacy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import randbits
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..core.draws import gaussian, uniform
from ..core.errors import StrategyError
from ..core.event import EXAMPLES, SEEDED, DpEvent
from ..core.examples import Examples
from ..core.layout import Layout, Vector
from ..core.lots import Lots, lots
from ..core.metrics import Metrics
from ..core.model import Batch, Clipping, Model, Resident
from ..core.parts import Optimizer, Work, Works
from ..core.rng import Streams
from ..core.tree import Tree
from ..optimize.arrays import add
from ..optimize.rate import Constant
from ..optimize.step import Step
from .memoryless import Memoryless

ROUNDING = 2.0**-23  # of float32: norms and sums are computed in it, so the noise is for a clip that is a little longer
FINE = 20  # bits of the noise's deviation; noise and sum are rounded to the last of them


@dataclass(frozen=True, kw_only=True)
class DpSgd(Memoryless):
    """Descend on lots of examples, each gradient clipped, with noise on every sum.

    Abadi et al., CCS 2016 (arXiv 1607.00133v2), Algorithm 1. In every step each example is in the lot with probability
    q, by itself; then

        w ← w - η·(Σ g·min(1, clip/‖g‖₂) + N(0, (noise_multiplier·clip)²))/(q·n)

    over the gradients g of the lot's examples, all parameters as one vector. An empty lot is a step of noise. Lots,
    noise and a module's own randomness come from the operating system. Nothing else leaves a client: no training loss,
    and no count of what was drawn. An example whose gradient is not finite counts as zero, or an update that is no
    number would tell that it was there. Differences: sum and noise are rounded to a grid of a power of two, 2^-20 of
    the deviation or finer, so that no floating-point number shows where it came from (Mironov, CCS 2012); the noise is
    for a clip a few 10^-4 longer, which covers rounding; any `Optimizer` may take the step.

    Args:
        lot: examples in a lot on average: a whole number, or a fraction in (0, 1] of each client's own, with which all
            clients spend the same privacy. A client with fewer than a whole number takes all of them.
        epochs: expected passes in a round, in whole lots; steps: if given, exactly so many lots.
        clip: L2 limit of one example's gradient, above 0 and finite.
        noise_multiplier: standard deviation of the noise over `clip`, above 0.
        delta: at which epsilon is told, in (0, 1); well below one over a client's examples.
        optimizer: any `Optimizer`; its state starts anew in every round.
        weight_decay: λ ≥ 0, adds λ·w to the gradient, after the noise.
        rate: multiplies the learning rate, by round; see `fedloom.optimize`.
        seeded: draw all of it from the run's seed, for tests: then no privacy is claimed.

    >>> DpSgd(lot=0.1, clip=1.0, noise_multiplier=1.0, delta=1e-4).lots(500)
    Lots(rate=0.1, steps=10, expected=50.0)
    """

    stacks: ClassVar[bool] = True
    lot: int | float
    epochs: int = 1
    steps: int | None = None
    clip: float
    noise_multiplier: float
    delta: float
    optimizer: Optimizer[Tree] = field(default_factory=lambda: Step(0.1))
    weight_decay: float = 0.0
    rate: Callable[[int], float] = field(default_factory=Constant)
    seeded: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.lot, int)
        if not (self.lot >= 1 if whole else 0 < self.lot <= 1):
            raise StrategyError(f"DpSgd.lot must be a number of examples, or a fraction in (0, 1], got {self.lot}.")
        for name, count in (("epochs", self.epochs), ("steps", self.steps)):
            if count is not None and count < 1:
                raise StrategyError(f"DpSgd.{name} must be at least 1, got {count}.")
        for name in ("clip", "noise_multiplier"):
            if not 0 < getattr(self, name) < math.inf:
                raise StrategyError(f"DpSgd.{name} must be above 0 and finite, got {getattr(self, name)}.")
        if not 0 < self.delta < 1:
            raise StrategyError(f"DpSgd.delta must be in (0, 1), got {self.delta}; take well below one over the rows.")
        if not 0 <= self.weight_decay < math.inf:
            raise StrategyError(f"DpSgd.weight_decay must not be negative, got {self.weight_decay}.")

    def lots(self, examples: int) -> Lots:
        """Return how a client with so many examples draws."""
        return lots(examples, self._settings)

    @property
    def _settings(self) -> dict[str, float]:
        drawn = {"lot" if isinstance(self.lot, int) else "fraction": self.lot}
        return drawn | ({"epochs": self.epochs} if self.steps is None else {"steps": self.steps})

    def event(self) -> DpEvent:
        """A Gaussian mechanism on lots of each client's examples; nothing that is claimed if it is seeded."""
        noise = DpEvent("gaussian", {"noise_multiplier": self.noise_multiplier, "delta": self.delta})
        return SEEDED if self.seeded else DpEvent(EXAMPLES, self._settings, (noise,))

    def train(self, model: Model, start: Vector, data: Examples, memory: None, *, round: int, streams: Streams) -> Work:
        """Descend from `start`; raises `ConfigError` for a model whose gradients are not by example."""
        clipping = model.clipping()
        deltas = self._deltas(clipping, model.layout, start, [data], round=round, streams=[streams])
        return Work(np.array(clipping.read(deltas)[0]), data.size, Metrics({"examples": 0}))

    def train_many(
        self,
        stack: Clipping,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        memories: Sequence[None],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Works:
        """Descend from `start`, all at once."""
        deltas = self._deltas(stack, layout, start, data, round=round, streams=streams)
        none = (Metrics({"examples": 0}),) * len(data)
        return Works(deltas, tuple(one.size for one in data), none, (None,) * len(data))

    def _deltas(
        self,
        stack: Clipping,
        layout: Layout,
        start: Vector,
        data: Sequence[Examples],
        *,
        round: int,
        streams: Sequence[Streams],
    ) -> Any:
        """Return the clients' deltas (K, P); those with equally many steps go together."""
        groups: dict[int, list[int]] = {}
        for at, one in enumerate(data):
            if one.size:
                groups.setdefault(self.lots(one.size).steps, []).append(at)
        if len(groups) == 1 and all(one.size for one in data):
            return self._moved(stack, layout, start, Drawn(self, stack, data, streams), round)
        deltas = stack.moved(stack.load(start, len(data)), start)
        for group in groups.values():
            drawn = Drawn(self, stack, [data[at] for at in group], [streams[at] for at in group])
            deltas[group] = self._moved(stack, layout, start if start.ndim == 1 else start[group], drawn, round)
        return deltas

    def _moved(self, stack: Clipping, layout: Layout, begun: Vector, drawn: "Drawn", round: int) -> Any:
        x = stack.load(begun, len(drawn.data))
        state, scale = self.optimizer.init(x, layout), self.rate(round)
        for step in range(drawn.plans[0].steps):
            gradient = drawn.rounded(stack.clipped(x, drawn.batch(step), self.clip, drawn.seed(step)))
            gradient = add(gradient, stack.load(drawn.noise(step, layout), len(x)), 1.0)
            if self.weight_decay:
                gradient = add(gradient, x, self.weight_decay)
            moved, state = self.optimizer.step(x, gradient, state, scale=scale)
            if moved is not x:
                x[:] = moved
        return stack.moved(x, begun)


class Drawn:
    """What clients that go together draw: lots, noise, and seeds for a module's own randomness."""

    def __init__(self, local: DpSgd, stack: Clipping, data: Sequence[Examples], streams: Sequence[Streams]) -> None:
        self.local, self.stack, self.data, self.streams = local, stack, data, streams
        self.plans = [local.lots(one.size) for one in data]
        self.expected = np.array([plan.expected for plan in self.plans])
        self.grid = np.exp2(np.floor(np.log2(local.noise_multiplier * local.clip / self.expected)) - FINE)

    def _source(self, step: int, k: int) -> Streams | None:
        """Return where to draw from: nowhere but the operating system, unless all is seeded."""
        return self.streams[k].child("lot").child(step) if self.local.seeded else None

    def seed(self, step: int) -> int:
        """Return a seed that nobody else knows: with a known one, an example's place in the lot would show."""
        return self.streams[0].child("lot").integer(step) if self.local.seeded else randbits(63)

    def noise(self, step: int, layout: Layout) -> NDArray[np.float64]:
        """Return noise for every client's sum over its expected lot, (K, P)."""
        drawn = np.stack([gaussian(layout.size, self._source(step, k)) for k in range(len(self.data))])
        z, grid = self.local.noise_multiplier, self.grid[:, None]
        clip = self.local.clip * (1 + ROUNDING * (2048 + self.expected) + z * layout.size**0.5 * 2.0**-FINE)
        drawn *= (z * clip / self.expected)[:, None] / grid
        return np.asarray(np.rint(drawn, out=drawn) * grid)

    def rounded(self, sums: Any) -> Any:
        """Return every client's sum on its grid, written in place; to divide by a power of two is exact."""
        for k, step in enumerate(self.grid.tolist()):
            sums[k] = (sums[k] / step).round() * step
        return sums

    def batch(self, step: int) -> Batch:
        """Return the lots as one batch (K, B, …); an example weighs one over the expected lot, padding nothing."""
        rows = [self._rows(step, k) for k in range(len(self.data))]
        places = np.zeros((len(rows), max(1, *map(len, rows))), np.int64)
        weights = np.zeros(places.shape, np.float32)
        for k, drawn in enumerate(rows):
            places[k, : len(drawn)], weights[k, : len(drawn)] = drawn, 1 / self.expected[k]
        if isinstance(self.stack, Resident):
            begins = np.cumsum([0, *(one.size for one in self.data[:-1])])
            return self.stack.gather(self.data, places + begins[:, None], weights)
        pairs = [
            (np.asarray(one.inputs)[at], np.asarray(one.targets)[at]) for one, at in zip(self.data, places, strict=True)
        ]
        inputs, targets = (np.stack(parts) for parts in zip(*pairs, strict=True))
        return Batch(inputs, targets, weights)

    def _rows(self, step: int, k: int) -> NDArray[np.int64]:
        return np.flatnonzero(uniform(self.data[k].size, self._source(step, k)) < self.plans[k].rate)
