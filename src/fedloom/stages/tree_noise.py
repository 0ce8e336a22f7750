"""DP-FTRL by tree aggregation: noise that later rounds partly take back, for clients that nobody samples."""

from dataclasses import dataclass, replace
from secrets import token_bytes
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..core.draws import gaussian_of
from ..core.errors import StrategyError
from ..core.event import SEEDED, DpEvent
from ..core.layout import WEIGHT, Layout
from ..core.rng import Streams
from ..core.tree import Tree
from ..core.update import Update
from .clip import clipped
from .noise import check, noised, parameters, slack
from .stateless import Stateless


@dataclass(frozen=True, kw_only=True)
class TreeNoise(Stateless):
    """The noise on all rounds so far is a Gaussian for each node of a tree that makes up round t, at most log2(t) + 1.

    Kairouz et al., "Practical and private (deep) learning without sampling or shuffling", ICML 2021 (arXiv 2103.00039),
    tree aggregation as in Dwork et al., STOC 2010: the sum over rounds 1 to t is noised by the nodes of t's binary
    digits, so round t adds a fresh node and takes back those that it completes. Sums over rounds are what the model is,
    and noise on them grows with log(t) instead of t. What differs: no variance reduction (Honaker), the noise of a node
    is added once; after `steps` rounds a new tree begins and what was added stays.

    The server remembers the keys of the nodes that it may have to take back, drawn anew each round from the operating
    system, and forgets those that it has taken back. Keys are as secret as the coordinator's journal, where they are.

    Args:
        clip: L2 limit of a client's delta; noise_multiplier: standard deviation of a node over the sensitivity.
        delta: at which epsilon is told.
        steps: rounds of a tree, at least 1. A client takes part at most once in each: `Cyclic(every=steps)`.
        seeded: draw keys from the run's seed, for tests: then no privacy is claimed.

    >>> TreeNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5, steps=16).event().values["rounds"]
    16
    """

    each: ClassVar[bool] = False
    sums: ClassVar[bool] = True
    clip: float
    noise_multiplier: float
    delta: float
    steps: int
    seeded: bool = False

    def __post_init__(self) -> None:
        check(self, clip=self.clip, noise_multiplier=self.noise_multiplier, delta=self.delta)
        if self.steps < 1:
            raise StrategyError(f"TreeNoise.steps must be at least 1, got {self.steps}.")

    def payload(self, layout: Layout) -> Layout:
        """Return the layout; refuses what is no parameter."""
        return parameters(self, layout)

    def start(self, layout: Layout) -> Tree:
        """No round of a tree yet, and no node."""
        return {"step": 0, "keys": np.zeros((0, 32), np.uint8)}

    def encode(self, update: Update, memory: None, public: None, streams: Streams) -> tuple[Update, None]:
        """Clip; raises `NotFinite` if the norm is not a number."""
        return replace(update, vector=clipped(update.vector, self.clip)[0]), None

    def decode(self, update: Update) -> Update:
        """Nothing to undo."""
        return update

    def finish(self, update: Update, server: Tree, streams: Streams) -> tuple[Update, Tree]:
        """Add the noise of the node that this round completes, less that of those below it."""
        step, keys = server["step"] % self.steps + 1, server["keys"] if server["step"] < self.steps else _none()
        below = (step & -step).bit_length() - 1  # trailing zeros: so many nodes, the lowest, are complete now
        own = fresh(streams if self.seeded else None)
        weights = [1.0, *(-1.0 for _ in range(below))]
        scale = self.noise_multiplier * (self.clip + slack(update.layout))
        done = correlated(update, scale, weights, [own, *(bytes(key) for key in keys[:below])])
        return done, {"step": step, "keys": kept([own, *(bytes(key) for key in keys[below:])])}

    def event(self) -> DpEvent:
        """What a client's one part in a tree costs; nothing that is claimed if the keys are seeded."""
        values = {"noise_multiplier": self.noise_multiplier, "delta": self.delta, "rounds": self.steps}
        return SEEDED if self.seeded else DpEvent("tree", values)


def fresh(streams: Streams | None) -> bytes:
    """Return a key for one Gaussian vector, 32 bytes: from the operating system, or from `streams` if given."""
    return token_bytes(32) if streams is None else streams("key").bytes(32)


def kept(keys: list[bytes]) -> NDArray[np.uint8]:
    """Return keys as `(n, 32)` bytes, which a journal can hold."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 32)


def _none() -> NDArray[np.uint8]:
    return np.zeros((0, 32), np.uint8)


def correlated(update: Update, scale: float, weights: list[float], keys: list[bytes]) -> Update:
    """Return the sum with scale · Σ weight·normals(key), rounded to the grid, on every coordinate but the weight."""
    size = update.layout.block(WEIGHT).start
    noise = np.zeros(size)
    for weight, key in zip(weights, keys, strict=True):
        noise += weight * gaussian_of(size, key)
    return noised(update, scale, None, lambda size, streams: noise)
