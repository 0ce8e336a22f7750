"""How masks come off a sum: clients' shares give the seeds of those in it, and the keys of those that fell out."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UpdateError
from ...core.hidden import Unmasked
from . import masks, shamir
from .graph import Graph
from .keys import SIZE, digest, public_of
from .masked import is_bytes
from .pairs import Pairs
from .session import Session


class Recovery:
    """Shares by whom they are of, then by who gave them.

    Args:
        session: the coordinator's view of it: roster, keys, peers, and who is in the sum.
        bound: digest of the session.
        graph: who masks with whom, and has shares of it.
        threshold: how many shares give a secret.
    """

    def __init__(self, session: Session, bound: bytes, graph: Graph, threshold: int) -> None:
        self._session, self._bound, self._graph, self._threshold = session, bound, graph, threshold
        self._points = {name: place for place, name in enumerate(session.asked, start=1)}
        self._shares: dict[str, dict[int, int]] = {name: {} for name in session.peers}
        self._weights = lru_cache(maxsize=64)(shamir.weights)  # one set of clients gives almost all secrets

    def take(self, name: str, body: Unmasked) -> None:
        """Take in what a client gave; raises `UpdateError` if these are no shares of this sum."""
        names = body.names
        if not set(names) <= self._shares.keys() & {name, *self._graph.of(name)} or len(set(names)) < len(names):
            raise UpdateError("shares of clients that it can have none of in this sum; they are ignored.")
        if not is_bytes(body.shares, (len(names), shamir.WIDTH)):
            raise UpdateError(f"shares are rows of {shamir.WIDTH} bytes, one for each name.")
        point = self._points[name]
        for of, share in zip(names, body.shares, strict=True):
            self._shares[of][point] = int.from_bytes(bytes(share), "big")

    def lacking(self) -> list[str]:
        """Return those of whom there are too few shares."""
        return [name for name, shares in self._shares.items() if len(shares) < self._threshold]

    @property
    def fewest(self) -> int:
        """How many gave shares of whom there are fewest."""
        return min(len(shares) for shares in self._shares.values())

    def unmask(self, total: NDArray[np.uint32]) -> None:
        """Take all masks off, in place; raises `UpdateError` if a secret is not the one that was advertised."""
        session, alive = self._session, set(self._session.alive)
        for name in session.alive:
            masks.add(total, self._secret(name, True), -1)
        for name in set(session.peers) - alive:
            pairs = Pairs(session, name, self._secret(name, False), self._bound)
            for other in alive.intersection(self._graph.of(name)):
                masks.add(total, *pairs.mask(other))  # what the client itself would have added

    def _secret(self, name: str, alive: bool) -> bytes:
        """Return the seed of one that is in the sum, or the private key of one that is not."""
        some = dict(sorted(self._shares[name].items())[: self._threshold])
        secret, known = shamir.weighed(list(some.values()), self._weights(tuple(some))), self._session.of(name)
        if secret is not None:
            if alive and digest("seed", secret) == known[2 * SIZE :]:
                return secret
            if not alive and public_of(secret) == known[SIZE : 2 * SIZE]:
                return secret
        givers = ", ".join(self._session.asked[point - 1] for point in some)
        raise UpdateError(f"the shares of {name!r} do not give what it advertised: one of {givers} gave a wrong one.")
