"""Client-level central differential privacy: the client clips its whole delta, the server adds noise to the sum, once.

Both halves are in one object, so that noise and clip cannot disagree. What is said of privacy is for
`privacy/accountant.py` to judge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..core.draws import Values, gaussian, laplace
from ..core.errors import StrategyError
from ..core.event import SEEDED, DpEvent
from ..core.layout import WEIGHT, Layout
from ..core.rng import Streams
from ..core.update import Update
from .clip import clipped
from .stateless import Stateless

Draw = Callable[[int, Streams | None], Values]


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Stateless):
    """Σ δᵢ·min(1, clip/‖δᵢ‖₂) + N(0, (noise_multiplier · sensitivity)²) on every coordinate of the sum.

    McMahan et al., ICLR 2018 (arXiv 1710.06963v3), Algorithm 1, with flat clipping over all shared blocks at once. The
    sensitivity is `clip` and what rounding to the grid may add, `slack`. The noise is rounded to the grid as well, so
    that a noised sum does not show floating-point numbers that only some sums can lead to (Mironov, CCS 2012); it is
    continuous noise rounded, and not an exact discrete distribution.

    Args:
        clip: L2 limit of a client's delta, in the units of the delta; above 0 and finite.
        noise_multiplier: standard deviation of the noise over the sensitivity; above 0. `fedloom calibrate` finds it.
        delta: at which epsilon is told, in (0, 1); well below one over the number of clients.
        seeded: draw from the run's seed, which everybody knows, for tests: then no privacy is claimed.

    >>> from fedloom.core.layout import Leaf
    >>> from fedloom.core.rng import stream
    >>> layout = Layout((Leaf("w", (2,)),)).weighted(cohort=2)
    >>> stage = GaussianNoise(clip=1.0, noise_multiplier=1e-6, delta=1e-5, seeded=True)
    >>> stage.finish(Update(np.array([0.5, -0.5, 2.0]), layout, 2), None, stream(0, 1))[0].vector.round(3)
    array([ 0.5, -0.5,  2. ])
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    clip: float
    noise_multiplier: float
    delta: float
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)

    def payload(self, layout: Layout) -> Layout:
        """Return the layout; refuses what is no parameter."""
        return parameters(self, layout)

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip; raises `NotFinite` if the norm is not a number."""
        return replace(update, vector=clipped(update.vector, self.clip)[0]), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def finish(self, update: Update, server: None, streams: Streams) -> tuple[Update, None]:
        """Add the noise to every coordinate but the summed weight."""
        deviation = self.noise_multiplier * (self.clip + slack(update.layout))
        return noised(update, deviation, streams if self.seeded else None, gaussian), None

    def event(self) -> DpEvent:
        """A Gaussian mechanism; nothing that is claimed if the noise is seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return SEEDED if self.seeded else DpEvent("gaussian", values)


@dataclass(frozen=True, kw_only=True)
class LaplaceNoise(Stateless):
    """Σ δᵢ·min(1, clip/‖δᵢ‖₁) + Laplace(noise_multiplier · sensitivity) on every coordinate of the sum.

    Dwork et al., TCC 2006, section 3.1, the Laplace mechanism: its sensitivity is one of the L1 norm, so the clip is
    too. For few parameters; with many, an L1 limit leaves little of a delta.

    Args:
        clip: L1 limit of a client's delta; noise_multiplier: scale of the noise over the sensitivity.
        delta: at which epsilon is told; the mechanism itself is pure, its composition is tighter with some.
        seeded: draw from the run's seed, for tests: then no privacy is claimed.

    >>> LaplaceNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5).event().kind
    'laplace'
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    clip: float
    noise_multiplier: float
    delta: float
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)

    def payload(self, layout: Layout) -> Layout:
        """Return the layout; refuses what is no parameter."""
        return parameters(self, layout)

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip by the L1 norm; raises `NotFinite` if that is not a number."""
        return replace(update, vector=clipped(update.vector, self.clip, order=1)[0]), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def finish(self, update: Update, server: None, streams: Streams) -> tuple[Update, None]:
        """Add the noise to every coordinate but the summed weight."""
        scale = self.noise_multiplier * (self.clip + slack(update.layout, order=1))
        return noised(update, scale, streams if self.seeded else None, laplace), None

    def event(self) -> DpEvent:
        """A Laplace mechanism; nothing that is claimed if the noise is seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return SEEDED if self.seeded else DpEvent("laplace", values)


def check(stage: object, **settings: float) -> None:
    """Refuse settings that protect nothing: a stage's own `clip`, `noise_multiplier`, `delta` and the like."""
    name = type(stage).__name__
    for key, value in settings.items():
        if key == "clip" and not 0 < value < math.inf:
            raise StrategyError(
                f"{name}.clip must be above 0 and finite, got {value}; noise without a clip protects nobody."
            )
        if key == "delta" and not 0 < value < 1:
            raise StrategyError(f"{name}.delta must be in (0, 1), got {value}; take well below one over the clients.")
        if not 0 < value < math.inf:
            raise StrategyError(f"{name}.{key} must be above 0 and finite, got {value}.")


def parameters(stage: object, layout: Layout) -> Layout:
    """Return the layout; refuses buffers and counts: batch normalisation's statistics, whole numbers that only add up.

    Noise would make a variance negative, and a count's grid is coarser than any clip.
    """
    for key, leaf in layout.named():
        if leaf.kind != "parameter":
            raise StrategyError(
                f"{key!r} is a {leaf.kind} and not a parameter, which {type(stage).__name__} cannot protect; keep "
                f"batch normalisation at home (fedbn), or take a model without it, such as with GroupNorm."
            )
    return layout


def slack(layout: Layout, order: int = 2) -> float:
    """Return how much longer rounding to the grid can make a delta: a step on every coordinate, by the L1 or L2 norm.

    >>> from fedloom.core.layout import Leaf
    >>> slack(Layout((Leaf("w", (4,)),)).weighted(cohort=100)) == 2.0**-41
    True
    """
    last = layout.block(WEIGHT).start
    runs = ((min(where.stop, last) - where.start, step) for where, step, _ in layout.runs if where.start < last)
    return float(sum(size * step**order for size, step in runs) ** (1 / order))


def noised(update: Update, scale: float, streams: Streams | None, draw: Draw) -> Update:
    """Return the sum with `scale` times what is drawn, rounded to the grid, on every coordinate but the weight."""
    vector, last = update.vector.astype(np.float64), update.layout.block(WEIGHT).start
    noise = draw(last, streams)
    noise *= scale
    for where, step, _ in update.layout.runs:
        part = noise[where.start : min(where.stop, last)]
        vector[where.start : where.start + len(part)] += np.rint(part / step) * step
    return replace(update, vector=vector)
