"""Everyone, a uniform sample, a Poisson sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import StrategyError
from ..core.parts import DpEvent
from ..core.rng import Streams
from ..core.task import Member


@dataclass(frozen=True)
class Everyone:
    """All members, every round."""

    def pick(self, members: Sequence[Member], round: int, streams: Streams) -> Sequence[Member]:
        """Return them all."""
        return members

    def most(self, members: int) -> int:
        """Return their number."""
        return members

    def event(self, inner: DpEvent) -> DpEvent:
        """No amplification."""
        return inner


@dataclass(frozen=True)
class Uniform:
    """A fixed number of members, drawn without replacement, each subset as likely as any other.

    Args:
        clients: how many; or
        fraction: what part of the members, in (0, 1]: max(1, round(fraction · members)) are asked, as in McMahan et
            al. 2017, Algorithm 1.

    >>> from fedloom.core.rng import stream
    >>> members = [Member(str(i), 1) for i in range(9)]
    >>> len(set(Uniform(clients=4).pick(members, 1, stream(0, "select"))))
    4
    """

    clients: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        if (self.clients is None) == (self.fraction is None):
            raise StrategyError("Uniform needs either clients or fraction, such as Uniform(clients=10).")
        if self.clients is not None and self.clients < 1:
            raise StrategyError(f"Uniform.clients must be at least 1, got {self.clients}.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise StrategyError(f"Uniform.fraction must be in (0, 1], got {self.fraction}.")

    def pick(self, members: Sequence[Member], round: int, streams: Streams) -> Sequence[Member]:
        """Return the cohort, in the order of the members."""
        chosen = streams("cohort").choice(len(members), self.most(len(members)), replace=False, shuffle=False)
        return [members[i] for i in sorted(chosen.tolist())]

    def most(self, members: int) -> int:
        """Return the size of every cohort; refuses more clients than there are members."""
        if self.clients is None:
            return max(1, round((self.fraction or 0) * members))
        if self.clients > members:
            raise StrategyError(
                f"a cohort of {self.clients} clients cannot be drawn from {members} members; "
                f"ask for at most {members}, or add clients."
            )
        return self.clients

    def event(self, inner: DpEvent) -> DpEvent:
        """Sampling without replacement is not accounted as amplification; see the accountant."""
        return inner


@dataclass(frozen=True)
class Poisson:
    """Each member by itself, with probability `rate` in (0, 1]; of an empty cohort the model stays as it is.

    >>> from fedloom.core.rng import stream
    >>> Poisson(1.0).pick([Member("a", 1)], 1, stream(0, "select"))
    [Member(name='a', examples=1)]
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise StrategyError(f"Poisson.rate must be in (0, 1], got {self.rate}.")

    def pick(self, members: Sequence[Member], round: int, streams: Streams) -> Sequence[Member]:
        """Return the cohort, in the order of the members."""
        drawn = streams("cohort").random(len(members)) < self.rate
        return [members[i] for i in np.flatnonzero(drawn).tolist()]

    def most(self, members: int) -> int:
        """Return all: that many may be drawn."""
        return members

    def event(self, inner: DpEvent) -> DpEvent:
        """Describe the sampled mechanism."""
        return DpEvent(
            "poisson sampled", {"rate": self.rate} | {f"{inner.kind}.{k}": v for k, v in inner.values.items()}
        )
