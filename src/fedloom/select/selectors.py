"""Everyone, a uniform sample, a sample of the steady, a Poisson sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import StrategyError
from ..core.event import DpEvent
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
        """Describe sampling without replacement."""
        size = {"clients": self.clients} if self.clients is not None else {"fraction": self.fraction or 0.0}
        return DpEvent("sampled without replacement", size, (inner,))


@dataclass(frozen=True)
class Steady:
    """A fixed number of members, drawn without replacement, those that answer more readily drawn more often.

    A member's weight is max(floor, standing), its standing being the share of its earlier dispatches that were counted:
    the network's coordinator keeps count in its log, a simulation does not, and there all weigh the same. Members are
    drawn by their keys u^(1/weight), u uniform, the largest first (Efraimidis and Spirakis, Inf. Process. Lett. 2006).
    Whoever is drawn seldom is heard seldom: the model leans towards the sites that are up.

    Args:
        clients: how many.
        floor: smallest weight, in (0, 1], so that nobody is forgotten.

    >>> from fedloom.core.rng import stream
    >>> members = [Member("seldom", 1, 0.1), Member("mostly", 1, 0.9), Member("always", 1, 1.0)]
    >>> picked = [Steady(2).pick(members, 1, stream(seed, "select")) for seed in range(100)]
    >>> sum(members[0] in cohort for cohort in picked) < 30
    True
    """

    clients: int
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise StrategyError(f"Steady.clients must be at least 1, got {self.clients}.")
        if not 0 < self.floor <= 1:
            raise StrategyError(f"Steady.floor must be in (0, 1], got {self.floor}.")

    def pick(self, members: Sequence[Member], round: int, streams: Streams) -> Sequence[Member]:
        """Return the cohort, in the order of the members."""
        weights = np.array([max(self.floor, member.standing) for member in members])
        keys = np.log(streams("cohort").random(len(members))) / weights
        first = np.argsort(-keys, kind="stable")[: self.most(len(members))]
        return [members[i] for i in sorted(first.tolist())]

    def most(self, members: int) -> int:
        """Return the size of every cohort; refuses more clients than there are members."""
        return Uniform(clients=self.clients).most(members)

    def event(self, inner: DpEvent) -> DpEvent:
        """Nothing is gained for privacy; who is asked depends on who has answered."""
        return inner


@dataclass(frozen=True)
class Poisson:
    """Each member by itself, with probability `rate` in (0, 1]; of an empty cohort the model stays as it is.

    Args:
        rate: probability of each member.
        cap: ask so many at most: of a larger sample so many are drawn uniformly ("Tighter Privacy Analysis
            for Truncated Poisson Sampling", 2025, arXiv 2508.15089).

    >>> from fedloom.core.rng import stream
    >>> [member.name for member in Poisson(1.0).pick([Member("a", 1)], 1, stream(0, "select"))]
    ['a']
    """

    rate: float
    cap: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise StrategyError(f"Poisson.rate must be in (0, 1], got {self.rate}.")
        if self.cap is not None and self.cap < 1:
            raise StrategyError(f"Poisson.cap must be at least 1, got {self.cap}.")

    def pick(self, members: Sequence[Member], round: int, streams: Streams) -> Sequence[Member]:
        """Return the cohort, in the order of the members."""
        drawn = np.flatnonzero(streams("cohort").random(len(members)) < self.rate)
        if self.cap is not None and len(drawn) > self.cap:
            drawn = np.sort(streams("cap").choice(drawn, self.cap, replace=False))
        return [members[i] for i in drawn.tolist()]

    def most(self, members: int) -> int:
        """Return all, or the cap: that many may be drawn."""
        return members if self.cap is None else min(self.cap, members)

    def event(self, inner: DpEvent) -> DpEvent:
        """Describe the sampled mechanism."""
        cap = {} if self.cap is None else {"cap": self.cap}
        return DpEvent("poisson sampled", {"rate": self.rate, **cap}, (inner,))
