"""In turn: each member at most once in so many rounds, whoever comes and goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from ..core.errors import StrategyError
from ..core.event import DpEvent
from ..core.rng import Streams
from ..core.task import Member


@dataclass(frozen=True)
class Cyclic:
    """Members in `every` groups by the digest of their names; group r mod `every` is asked in round r.

    A member's group never changes, so between two rounds of one member there are `every` - 1 others, also if members
    come and go: the minimum separation that correlated noise needs (Choquette-Choo et al., ICML 2023, arXiv 2211.06530)
    where it is not ours to sample. Groups differ in size, and with few members some are empty.

    Args:
        every: rounds from one turn to the next, at least 1; with 1 everyone is asked in each round.

    >>> members = [Member(f"site {i}", 1) for i in range(12)]
    >>> turns = [member.name for round in (1, 2, 3) for member in Cyclic(3).pick(members, round, None)]
    >>> sorted(turns) == sorted(member.name for member in members)
    True
    """

    every: int

    def __post_init__(self) -> None:
        if self.every < 1:
            raise StrategyError(f"Cyclic.every must be at least 1 round, got {self.every}.")

    def pick(self, members: Sequence[Member], round: int, streams: Streams | None) -> Sequence[Member]:
        """Return whose turn it is, in the order of the members."""
        return [member for member in members if self.turn(member.name) == round % self.every]

    def turn(self, name: str) -> int:
        """Return a member's group."""
        return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % self.every

    def most(self, members: int) -> int:
        """Return all: nobody says how they fall into groups."""
        return members

    def event(self, inner: DpEvent) -> DpEvent:
        """Describe how far apart one member's rounds are."""
        return DpEvent("spaced", {"every": self.every}, (inner,))
