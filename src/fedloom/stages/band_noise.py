"""DP-FTRL by matrix factorisation: each round's noise takes back parts of the last rounds', in fixed proportions."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import StrategyError
from ..core.event import SEEDED, DpEvent
from ..core.layout import Layout
from ..core.rng import Streams
from ..core.tree import Tree
from ..core.update import Update
from .clip import clipped
from .noise import check, parameters, slack
from .stateless import Stateless
from .tree_noise import correlated, fresh, kept

MOST = 64  # bands


@dataclass(frozen=True, kw_only=True)
class BandNoise(Stateless):
    """Round t adds Σ_k r_k·z_{t-k}, of the last `bands` Gaussian vectors z: D⁻¹z with D a banded root of prefix sums.

    Kalinin, McKenna, Upadhyay and Lampert, "Back to square roots" (arXiv 2505.12128v1), the banded inverse square root:
    r are the first coefficients of (1 - x)^(1/2), 1, -1/2, -1/8, -1/16, … What is released are sums over rounds,
    A·x + A·C⁻¹·z, with C⁻¹ the Toeplitz matrix of r; they cost what C·x + z does (Denisov et al., NeurIPS 2022, arXiv
    2202.08312), also if each round is trained from what was released before. C has columns c, the coefficients of 1/r,
    and `sensitivity` is the longest that one client's parts in several rounds can be. One band is independent noise.

    The server remembers the keys of the last `bands` - 1 vectors, drawn anew each round from the operating system, and
    forgets older ones. Keys are as secret as the coordinator's journal, where they are.

    Args:
        clip: L2 limit of a client's delta; noise_multiplier: standard deviation of each z over the clip's sensitivity.
        delta: at which epsilon is told.
        every: a client takes part in at most one of any so many rounds in a row: `Cyclic(every=…)`; 1 in each round.
        bands: how many vectors, 1 to 64.
        seeded: draw keys from the run's seed, for tests: then no privacy is claimed.

    >>> BandNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5, bands=3).event().values["every"]
    1
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    clip: float
    noise_multiplier: float
    delta: float
    every: int = 1
    bands: int = 8
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)
        if self.every < 1:
            raise StrategyError(f"BandNoise.every must be at least 1 round, got {self.every}.")
        if not 1 <= self.bands <= MOST:
            raise StrategyError(f"BandNoise.bands must be 1 to {MOST}, got {self.bands}.")

    def payload(self, layout: Layout) -> Layout:
        """Return the layout; refuses what is no parameter."""
        return parameters(self, layout)

    def start(self, layout: Layout) -> Tree:
        """No keys yet."""
        return {"keys": kept([])}

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip; raises `NotFinite` if the norm is not a number."""
        return replace(update, vector=clipped(update.vector, self.clip)[0]), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def finish(self, update: Update, server: Tree, streams: Streams) -> tuple[Update, Tree]:
        """Add a fresh vector, and take back parts of those before it."""
        keys = [fresh(streams if self.seeded else None), *(bytes(key) for key in server["keys"])][: self.bands]
        weights = list(roots(self.bands)[: len(keys)])
        done = correlated(update, self.noise_multiplier * (self.clip + slack(update.layout)), weights, keys)
        return done, {"keys": kept(keys[: self.bands - 1])}

    def event(self) -> DpEvent:
        """What a client's parts cost, at least `every` rounds apart; nothing that is claimed if the keys are seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta}
        return SEEDED if self.seeded else DpEvent("bands", {**values, "every": self.every, "bands": self.bands})


def roots(bands: int) -> tuple[float, ...]:
    """Return r: the first coefficients of (1 - x)^(1/2).

    >>> roots(4)
    (1.0, -0.5, -0.125, -0.0625)
    """
    found = [1.0]
    for k in range(1, bands):
        found.append(found[-1] * (k - 1.5) / k)
    return tuple(found)


@lru_cache(32)
def column(bands: int, rounds: int) -> NDArray[np.float64]:
    """Return c, the first column of C for so many rounds: the coefficients of 1/r.

    >>> column(3, 4)
    array([1.   , 0.5  , 0.375, 0.25 ])
    """
    r, c = np.array(roots(bands)), np.zeros(rounds)
    c[0] = 1.0
    for t in range(1, rounds):
        back = min(t, bands - 1)
        c[t] = -r[1 : back + 1] @ c[t - back : t][::-1]
    c.flags.writeable = False
    return c


def sensitivity(bands: int, every: int, rounds: int, parts: int | None = None) -> float:
    """Return the longest that Σ of C's columns over one client's rounds is, those at least `every` apart.

    C has no negative element and c falls, so it is longest for the earliest rounds, 1, 1 + every, …, and for parts that
    all point one way (Kalinin and Lampert, NeurIPS 2024, arXiv 2405.13763). `parts` limits how many rounds those are.

    >>> round(sensitivity(bands=1, every=1, rounds=9), 6), round(sensitivity(bands=2, every=4, rounds=4), 6)
    (3.0, 1.152443)
    """
    c, total = column(bands, rounds), np.zeros(rounds)
    for begin in range(0, rounds, every)[:parts]:
        total[begin:] += c[: rounds - begin]
    return float(np.linalg.norm(total))
