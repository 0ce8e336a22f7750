"""Who masks with whom: everybody with everybody, or each with k others that are drawn anew for each sum.

Bell, Bonawitz, Gascon, Lepoint and Raykova, CCS 2020 (eprint 2020/704): a ring in random order, each client linked to
the k/2 on either side of it (a Harary graph). What differs: the order follows from everybody's keys of the session, and
k and t come from exact tails and union bounds below, not from the paper's closed formulas.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from math import comb

PRIVACY, FAILURE = 40, 30  # bits: a client is exposed in one sum of 2^40 at most, a sum is lost in one of 2^30


@dataclass(frozen=True)
class Rule:
    """What a sum of a cohort needs.

    Args:
        neighbours: k, whom each client masks with; 0 for everybody.
        shares: t, how many shares give a secret, and how many of a client's neighbours must be there at each step.
        survivors: how many clients must be in the sum, and there at each step.
    """

    neighbours: int
    shares: int
    survivors: int


@dataclass(frozen=True)
class Graph:
    """One sum's graph over the cohort.

    Args:
        asked: the cohort.
        neighbours: k, even; 0 for everybody.
        seed: that the order follows from: `SHA-256(seed, name)` by size.

    >>> graph = Graph(("a", "b", "c", "d", "e", "f"), 2, b"seed")
    >>> len(graph.of("a")), all("a" in graph.of(other) for other in graph.of("a"))
    (2, True)
    """

    asked: tuple[str, ...]
    neighbours: int
    seed: bytes

    @cached_property
    def _ring(self) -> tuple[str, ...]:
        return tuple(sorted(self.asked, key=lambda name: sha256(self.seed + name.encode()).digest()))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._ring)}

    def of(self, name: str) -> Collection[str]:
        """Return whom a client masks with."""
        size = len(self.asked)
        if not 0 < self.neighbours < size - 1:
            return {other for other in self.asked if other != name}
        at, reach = self._places[name], self.neighbours // 2
        return {self._ring[(at + away) % size] for away in range(-reach, reach + 1) if away}


def _ways(hit: int, drawn: int, marked: int, size: int) -> int:
    """Return in how many ways just `hit` of `drawn` are among the `marked` of `size`."""
    return comb(marked, hit) * comb(size - marked, drawn - hit)


def _apart(clients: int, neighbours: int, gone: int) -> float:
    """Return a bound of the probability that what is left of the graph falls into two parts.

    On the ring that takes two gaps of k/2 side by side: k given places, in at most n²/2 ways, all of them gone.
    """
    if gone < neighbours:
        return 0.0
    return comb(clients, 2) * comb(clients - neighbours, gone - neighbours) / comb(clients, gone)


def exposure(clients: int, neighbours: int, shares: int, corrupt: int, dropped: int) -> float:
    """Return a bound of the probability that somebody is exposed in one sum.

    Either t of an honest client's k neighbours help the coordinator (each of n clients: a hypergeometric tail), or the
    honest clients that stay fall apart. Whoever falls out is taken to do so without regard to the graph.
    """
    held = sum(_ways(hit, neighbours, corrupt, clients - 1) for hit in range(shares, neighbours + 1))
    return clients * held / comb(clients - 1, neighbours) + _apart(clients, neighbours, corrupt + dropped)


def failure(clients: int, neighbours: int, shares: int, dropped: int) -> float:
    """Return a bound of the probability that a sum is lost: that some client has fewer than t neighbours that stay."""
    lost = sum(_ways(hit, neighbours, dropped, clients - 1) for hit in range(neighbours - shares + 1, neighbours + 1))
    return clients * lost / comb(clients - 1, neighbours)


@lru_cache(maxsize=256)
def shares_of(clients: int, neighbours: int, corrupt: int, dropped: int) -> int | None:
    """Return the fewest shares t > k/2 that keep to both bounds with k neighbours; None if no number does."""
    apart, of = _apart(clients, neighbours, corrupt + dropped), comb(clients - 1, neighbours)
    held, shares = 0, neighbours + 1
    while shares > neighbours // 2 + 1:
        held += _ways(shares - 1, neighbours, corrupt, clients - 1)
        if clients * held / of + apart > 2.0**-PRIVACY:
            break
        shares -= 1
    fits = shares <= neighbours and failure(clients, neighbours, shares, dropped) <= 2.0**-FAILURE
    return shares if fits else None


@lru_cache(maxsize=256)
def fewest(clients: int, corrupt: int, dropped: int) -> int | None:
    """Return the fewest neighbours k, even, that keep to both bounds; None if everybody has to mask with everybody.

    >>> fewest(1000, 100, 100), shares_of(1000, 52, 100, 100)
    (52, 28)
    """
    some = range(2, clients - 1, 2)
    return next((k for k in some if shares_of(clients, k, corrupt, dropped) is not None), None)
