"""Learning-rate schedules: what the rate is multiplied by in round r, counted from 1."""

import math
from dataclasses import dataclass

from .arrays import at_least


@dataclass(frozen=True)
class Constant:
    """1 in every round."""

    def __call__(self, round: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Exponential:
    """factor^(r - 1).

    >>> Exponential(0.5)(3)
    0.25
    """

    factor: float

    def __post_init__(self) -> None:
        at_least("Exponential.factor", self.factor, 1e-9)

    def __call__(self, round: int) -> float:
        """Return the multiplier of that round."""
        return self.factor ** (round - 1)


@dataclass(frozen=True)
class Staircase:
    """factor^⌊(r - 1)/every⌋.

    >>> [Staircase(every=2, factor=0.1)(r) for r in (1, 2, 3)]
    [1.0, 1.0, 0.1]
    """

    every: int
    factor: float

    def __post_init__(self) -> None:
        at_least("Staircase.every", self.every, 1)
        at_least("Staircase.factor", self.factor, 1e-9)

    def __call__(self, round: int) -> float:
        """Return the multiplier of that round."""
        return float(self.factor ** ((round - 1) // self.every))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine, from 1 in round 1 to `last` in round `rounds` (Loshchilov and Hutter, ICLR 2017, equation 5).

    >>> round(Cosine(rounds=3)(2), 3)
    0.5
    """

    rounds: int
    last: float = 0.0

    def __post_init__(self) -> None:
        at_least("Cosine.rounds", self.rounds, 2)
        at_least("Cosine.last", self.last, 0, below=1)

    def __call__(self, round: int) -> float:
        """Return the multiplier of that round."""
        done = min(1.0, (round - 1) / (self.rounds - 1))
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * done)) / 2
