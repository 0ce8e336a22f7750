"""Distributed differential privacy: each client adds a share of the noise to its whole numbers, under the masks."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..core.draws import Values
from ..core.errors import NotFinite, QuorumLost, StrategyError
from ..core.event import SEEDED, DpEvent
from ..core.layout import RING, Layout
from ..core.rng import Streams
from ..core.update import Update
from .clip import clipped
from .noise import check, parameters
from .poisson import LEAST, skellam, tail, uniforms
from .stateless import Stateless

EXACT = 2.0**24  # whole numbers up to it are float32, exactly
NATS = 100 * math.log(2)  # a share of noise is larger than its bound with a probability of 2^-100


@dataclass(frozen=True, kw_only=True)
class SkellamNoise(Stateless):
    """x ← round(δ·min(1, clip/‖δ‖₂)/step) + Sk(V/survivors), in whole steps, on the client; the sum is what is private.

    Agarwal, Kairouz and Liu, NeurIPS 2021 (arXiv 2110.04995). A difference of two Poisson variables; sums of such are
    such again, so the noise on a sum of at least `survivors` honest clients has variance V = (noise_multiplier · Δ)² or
    more. Δ is the longest that whole numbers of one client can be. They are rounded at random, anew until

        ‖x‖₂² <= min((c + √d)², c² + d/4 + c + √d/2) = Δ²,    c = clip/step, d coordinates,

    Kairouz, Liu and Steinke, ICML 2021 (arXiv 2102.06387), conditional rounding with β = e^(-1/2). What differs: a sum
    never wraps around, because bounds and cohort leave room for all values and the tail of the noise; the step is a
    power of two. A delta that is not finite counts as zero: an error that depends on rows would tell the coordinator
    something about them. Fewer than `survivors` in a sum are refused by the gather, on both sides, and here.

    Args:
        clip: L2 limit of a client's delta, in the units of the delta.
        noise_multiplier: z, of the sum's noise over Δ.
        delta: at which epsilon is told, in (0, 1).
        survivors: the fewest honest clients that a sum may hold, at least 1; each adds a variance of V/survivors.
        bits: clip is at least 2^bits steps, 4 to 22. With few, Δ is much above clip: at least half of log2(d), and 4.
        limit: largest coordinate of a delta, in its units; what is beyond is cut off. By default `clip`. After `Rotate`
            a smaller one leaves room for more bits.
        seeded: draw from the run's seed, for tests: then no privacy is claimed.

    >>> from fedloom.core.layout import Leaf
    >>> stage = SkellamNoise(clip=1.0, noise_multiplier=1.0, delta=1e-5, survivors=10)
    >>> stage.step == 2.0**-16, round(stage.longest(10_000) / 2**16, 6)
    (True, 1.000008)
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    clip: float
    noise_multiplier: float
    delta: float
    survivors: int
    bits: int = 16
    limit: float | None = None
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)
        if self.survivors < 1:
            raise StrategyError(f"SkellamNoise.survivors must be at least 1, got {self.survivors}.")
        if not 4 <= self.bits <= 22:
            raise StrategyError(f"SkellamNoise.bits must be 4 to 22, got {self.bits}; 16 is usual.")
        if self.limit is not None and not self.step <= self.limit <= self.clip:
            raise StrategyError(
                f"SkellamNoise.limit must be from a step of {self.step:g} to the clip, got {self.limit}."
            )

    @property
    def step(self) -> float:
        """The grid of the whole numbers, a power of two."""
        return float(2.0 ** (math.frexp(self.clip)[1] - 1 - self.bits))

    def longest(self, size: int) -> float:
        """Return Δ for so many coordinates, in steps."""
        c, root = self.clip / self.step, math.sqrt(size)
        return math.sqrt(min((c + root) ** 2, c * c + size / 4 + c + root / 2))

    def share(self, size: int) -> float:
        """Return the variance that one client adds to each of so many coordinates, in squared steps."""
        variance = (self.noise_multiplier * self.longest(size)) ** 2 / self.survivors
        if variance < 2 * LEAST:
            raise StrategyError(
                f"SkellamNoise would add noise of {variance:.3g} squared steps for each client, as coarse "
                f"as the steps; set bits={self.bits + math.ceil(math.log2(2 * LEAST / variance) / 2)}."
            )
        return variance

    def payload(self, layout: Layout) -> Layout:
        """Return the same leaves, bounded by limit and noise, for sums of 30 bits; refuses what is no parameter."""
        size = parameters(self, layout).size
        most = math.ceil((self.limit or self.clip) / self.step) + 1 + math.ceil(tail(self.share(size), NATS))
        if most > EXACT:
            raise StrategyError(
                f"one client's noise takes {math.log2(most):.1f} bits, and float32 holds whole numbers of 24; set "
                f"bits={self.bits - math.ceil(math.log2(most)) + 24}."
            )
        leaves = tuple(replace(leaf, bound=most * self.step) for leaf in layout.leaves)
        return replace(layout, leaves=leaves, bits=RING)

    def fits(self, total: Layout) -> None:
        """Refuse a cohort for which whole numbers, noise and all, could leave the ring, or one that is too small."""
        coarsest = max(step for _, step, _ in total.runs)
        if coarsest > self.step:
            raise StrategyError(
                f"sums of {total.cohort} clients with their noise do not fit 32 bits with SkellamNoise(bits={self.bits}"
                f"); set bits={self.bits - round(math.log2(coarsest / self.step))}, or raise survivors."
            )
        if total.cohort < self.survivors:
            raise StrategyError(
                f"SkellamNoise counts on {self.survivors} honest clients in a sum, and the cohort is {total.cohort}; "
                f"set a smaller number, or ask more."
            )

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip, round, add a share of the noise."""
        layout, drawn = self.payload(update.layout), streams if self.seeded else None
        try:
            short = clipped(update.vector, self.clip)[0].astype(np.float64)
        except NotFinite:
            short = np.zeros(len(update.vector))
        np.clip(short, -(self.limit or self.clip), self.limit or self.clip, out=short)
        whole = rounded(short / self.step, self.longest(layout.size), drawn)
        whole += skellam(len(whole), self.share(layout.size), drawn)
        return replace(update, vector=(whole * self.step).astype(layout.dtype), layout=layout), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def finish(self, update: Update, server: None, streams: Streams) -> tuple[Update, None]:
        """The sum as it is: the noise is in it. Raises `QuorumLost` for one with too little of it."""
        if 0 < update.count < self.survivors:
            raise QuorumLost(
                f"a sum of {update.count} clients has less noise than was promised: SkellamNoise counts on "
                f"{self.survivors} honest ones; it is not used."
            )
        return update, None

    def event(self) -> DpEvent:
        """A Skellam mechanism; nothing that is claimed if the noise is seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta, "survivors": self.survivors}
        return SEEDED if self.seeded else DpEvent("skellam", {**values, "steps": self.clip / self.step})


def rounded(values: Values, longest: float, streams: Streams | None) -> Values:
    """Return whole numbers, each value rounded up with a probability of its distance from the lower; not too long.

    Each try is short enough with a probability of at least 1 - e^(-1/2); raises `NotFinite` after a thousand.
    """
    for attempt in range(1000):
        draws = uniforms(len(values)) if streams is None else streams(f"round {attempt}").random(len(values))
        whole = np.floor(values + draws)
        if float(whole @ whole) <= longest * longest:
            return whole
    raise NotFinite("the delta could not be rounded to whole numbers of the length that was promised; report this.")
