"""Local differential privacy: a client's own report is noised so much that nobody needs to be trusted with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..core.draws import Values, gaussian, laplace
from ..core.errors import NotFinite
from ..core.event import SEEDED, DpEvent
from ..core.layout import Layout
from ..core.rng import Streams
from ..core.update import Update
from .clip import clipped
from .noise import check, parameters
from .stateless import Stateless


@dataclass(frozen=True, kw_only=True)
class LocalGaussianNoise(Stateless):
    """δ·min(1, clip/‖δ‖₂) + N(0, (noise_multiplier · 2·(clip + slack))²) on every coordinate, at the client.

    Any two reports are neighbours, so the sensitivity is twice the longest that one can be (Kasiviswanathan et al.,
    FOCS 2008, arXiv 0803.0924); what a multiplier costs is the analytic Gaussian mechanism (Balle and Wang, ICML 2018,
    arXiv 1805.06530v2, Algorithm 1). Delta and noise are rounded to a grid of a power of two, clip/2^21 or finer, so
    that no floating-point number shows where it came from (Mironov, CCS 2012); `slack` is what that adds to a length.
    A delta that is not finite counts as zero: an error that depends on rows would tell something about them.

    Args:
        clip: L2 limit of a client's delta, in the units of the delta.
        noise_multiplier: standard deviation of the noise over the sensitivity; `fedloom calibrate --mechanism local`.
        delta: at which epsilon is told, in (0, 1).
        seeded: draw from the run's seed, for tests: then no privacy is claimed.

    >>> LocalGaussianNoise(clip=1.0, noise_multiplier=3.73, delta=1e-5).event().kind
    'local gaussian'
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    clip: float
    noise_multiplier: float
    delta: float
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)

    def scale(self, size: int) -> float:
        """Return the noise's standard deviation for so many coordinates, in units of the delta."""
        return self.noise_multiplier * 2 * (self.clip + math.sqrt(size) * _step(self.clip, 20) / 2)

    def payload(self, layout: Layout) -> Layout:
        """Return the same leaves, with room for 25 standard deviations; refuses what is no parameter."""
        return _roomy(parameters(self, layout), self.clip + 25 * self.scale(layout.size))

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip, round, add the noise."""
        short, drawn = _short(update, self.clip, 2), streams if self.seeded else None
        report = _report(short, self.scale(len(short)), _step(self.clip, 20), drawn, gaussian)
        return replace(update, vector=report.astype(update.vector.dtype), layout=self.payload(update.layout)), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def event(self) -> DpEvent:
        """A Gaussian mechanism on one client's report; nothing that is claimed if the noise is seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return SEEDED if self.seeded else DpEvent("local gaussian", values)


@dataclass(frozen=True, kw_only=True)
class LocalLaplaceNoise(Stateless):
    """δ·min(1, clip/‖δ‖₁) + Laplace(noise_multiplier · 2·(clip + slack)) on every coordinate, at the client.

    Dwork et al., TCC 2006, the Laplace mechanism, for reports of which any two are neighbours: one report costs
    epsilon = 1/noise_multiplier, without a delta. As `LocalGaussianNoise` otherwise. For few parameters.

    Args:
        clip: L1 limit of a client's delta; noise_multiplier: scale of the noise over the sensitivity.
        delta: at which epsilon of several rounds is told.
        seeded: draw from the run's seed, for tests: then no privacy is claimed.

    >>> LocalLaplaceNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5).event().kind
    'local laplace'
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    clip: float
    noise_multiplier: float
    delta: float
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)

    def scale(self, size: int) -> float:
        """Return the noise's scale for so many coordinates, in units of the delta."""
        return self.noise_multiplier * 2 * (self.clip + size * _step(self.clip, 30) / 2)

    def payload(self, layout: Layout) -> Layout:
        """Return the same leaves, with room for 600 scales; refuses what is no parameter."""
        return _roomy(parameters(self, layout), self.clip + 600 * self.scale(layout.size))

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip by the L1 norm, round, add the noise."""
        short, drawn = _short(update, self.clip, 1), streams if self.seeded else None
        report = _report(short, self.scale(len(short)), _step(self.clip, 30), drawn, laplace)
        return replace(update, vector=report.astype(update.vector.dtype), layout=self.payload(update.layout)), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def event(self) -> DpEvent:
        """A Laplace mechanism on one client's report; nothing that is claimed if the noise is seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return SEEDED if self.seeded else DpEvent("local laplace", values)


def _step(clip: float, bits: int) -> float:
    """Return the largest power of two that goes 2^bits times into the clip."""
    return float(2.0 ** (math.frexp(clip)[1] - 1 - bits))


def _roomy(layout: Layout, bound: float) -> Layout:
    return replace(layout, leaves=tuple(replace(leaf, bound=bound) for leaf in layout.leaves))


def _short(update: Update, clip: float, order: Literal[1, 2]) -> Values:
    """Return the delta, clipped; zeros in place of one that has no norm."""
    try:
        return np.asarray(clipped(update.vector, clip, order)[0], np.float64)
    except NotFinite:
        return np.zeros(len(update.vector))


def _report(
    short: Values, scale: float, step: float, streams: Streams | None, draw: Callable[[int, Streams | None], Values]
) -> Values:
    """Return both on the grid, added: what rounding the noised delta would give, once the delta is on the grid."""
    return np.asarray((np.rint(short / step) + np.rint(draw(len(short), streams) * (scale / step))) * step)
