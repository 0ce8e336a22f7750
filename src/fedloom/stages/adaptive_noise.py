"""Adaptive clipping: the clip follows a quantile of the deltas' norms, which is learned privately on the way."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core.draws import gaussian
from ..core.errors import StrategyError
from ..core.event import SEEDED, DpEvent
from ..core.layout import Layout, Leaf
from ..core.rng import Streams
from ..core.tree import Tree
from ..core.update import Update
from .clip import clipped
from .noise import check, noised, parameters, slack

CLIP = "clip"  # the block with the bit
GRID = 2.0**-20  # of the bits' noise, which then shows no floating-point number that only some sums lead to


@dataclass(frozen=True, kw_only=True)
class AdaptiveNoise:
    """Gaussian noise with a clip C that follows a quantile of the norms: C ← C · exp(-rate·(b̄ - quantile)).

    Andrew et al., NeurIPS 2021 (arXiv 1905.03871), Algorithm 1. A client sends b - ½, b = 1 if ‖δ‖₂ <= C, as one
    more coordinate of its vector; b̄ is the noised sum over the expected cohort, plus ½. The noise is split
    (theorem 1): z_Δ = (z⁻² - (2·bit_noise)⁻²)^(-½) times C on the delta and bit_noise on the bit are together one
    Gaussian mechanism with multiplier z.

    Args:
        noise_multiplier: z of both together; delta: at which epsilon is told.
        clip: C before the first round.
        quantile: of the norms that C moves towards, in (0, 1).
        rate: how quickly, above 0.
        bit_noise: standard deviation on the sum of the bits; the paper takes a twentieth of the expected cohort. Above
            half the noise multiplier.
        expected: part of the declared largest cohort that is expected, as in `Mean`.
        seeded: draw from the run's seed, for tests: then no privacy is claimed.

    >>> round(AdaptiveNoise(noise_multiplier=1.1, delta=1e-5, bit_noise=5.0).split, 6)
    1.106716
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    noise_multiplier: float
    delta: float
    bit_noise: float
    clip: float = 0.1
    quantile: float = 0.5
    rate: float = 0.2
    expected: float = 1.0
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, **{k: getattr(self, k) for k in ("clip", "noise_multiplier", "delta", "bit_noise", "rate")})
        for name in ("quantile", "expected"):
            if not 0 < getattr(self, name) <= 1 or (name == "quantile" and self.quantile == 1):
                raise StrategyError(f"AdaptiveNoise.{name} must be in (0, 1), got {getattr(self, name)}.")
        if self.noise_multiplier >= 2 * self.bit_noise:
            raise StrategyError(
                f"AdaptiveNoise.bit_noise must be above half the noise multiplier of {self.noise_multiplier}, got "
                f"{self.bit_noise}: the bit alone would spend it all; take a larger one."
            )

    @property
    def split(self) -> float:
        """z_Δ: standard deviation of the noise on the deltas, over C."""
        return float((self.noise_multiplier**-2 - (2 * self.bit_noise) ** -2) ** -0.5)

    def payload(self, layout: Layout) -> Layout:
        """Return the layout with one more block for the bit; refuses what is no parameter."""
        return parameters(self, layout).plus(CLIP, Layout((Leaf("short"),)), bound=1.0)

    def fits(self, total: Layout) -> None:
        """Every sum fits."""

    def init(self, layout: Layout) -> None:
        """No client memory."""

    def start(self, layout: Layout) -> Tree:
        """C."""
        return {"clip": self.clip}

    def public(self, server: Tree) -> float:
        """C, which is noised already."""
        return float(server["clip"])

    def encode(self, update: Update, memory: None, public: float, streams: Streams) -> tuple[Update, None]:
        """Clip to C, and append the bit; raises `NotFinite` if the norm is not a number."""
        vector, short = clipped(update.vector, public)
        bit = np.array([0.5 if short else -0.5], vector.dtype)
        return Update(np.concatenate([vector, bit]), self.payload(update.layout), side=update.side), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def finish(self, update: Update, server: Tree, streams: Streams) -> tuple[Update, Tree]:
        """Add noise to the deltas and to the bit; move C. The bit is taken out of what the server's step sees."""
        drawn = streams if self.seeded else None
        limit, at = float(server["clip"]), update.layout.block(CLIP)
        noise = self.bit_noise * gaussian(1, drawn and drawn.child(CLIP))[0]
        bits = float(update.vector[at][0]) + round(noise / GRID) * GRID
        share = bits / (self.expected * update.layout.cohort) + 0.5
        done = noised(update, self.split * (limit + slack(update.layout)), drawn, gaussian)
        done.vector[at] = 0
        return done, {"clip": limit * math.exp(-self.rate * (share - self.quantile))}

    def event(self) -> DpEvent:
        """One Gaussian mechanism for both; nothing that is claimed if the noise is seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return SEEDED if self.seeded else DpEvent("gaussian", values)
