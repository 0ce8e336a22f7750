"""How a canary is judged: the likelihood ratio of "in" to "out" under the declared mechanism, and where lines lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.event import DpEvent
from ..core.rng import Streams
from .audit import FALSE, Scores

KINDS = ("gaussian", "laplace")  # of noise that is drawn anew for each round and coordinate
DRAWS = 20_000  # of declared scores, from which thresholds follow before any canary is heard


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """The declared noise of one canary's coordinate, in units of the clip: x + noise·N, x = 1 with probability `rate`.

    Args:
        kind: "gaussian" or "laplace".
        noise: its multiplier, above 0.
        rate: how probable a member's part in a round is, in (0, 1].

    >>> event = DpEvent("poisson sampled", {"rate": 0.5}, (DpEvent("gaussian", {"noise_multiplier": 1.0}),))
    >>> Mechanism.of(event, 10).ratio(np.array([[0.5, 2.5]])).round(3)  # ln(½ + ½·e^0), ln(½ + ½·e^2)
    array([0.   , 1.434])
    """

    kind: str
    noise: float
    rate: float

    @staticmethod
    def of(event: DpEvent, members: int) -> "Mechanism | None":
        """Return what a round's event declares; None where it claims nothing."""
        if not event.private:
            return None
        rate = 1.0
        while event.inner:
            clients = event.values.get("clients", event.values.get("fraction", 0.0) * members)
            rate *= event.values.get("rate", clients / members)
            (event,) = event.inner
        return Mechanism(kind=event.kind, noise=event.values["noise_multiplier"], rate=rate)

    def ratio(self, seen: Scores) -> Scores:
        """Return ln P[seen | in] - ln P[seen | out], summed over rounds; `seen` has shape (rounds, canaries)."""
        if self.kind == "laplace":
            each = (np.abs(seen) - np.abs(seen - 1)) / self.noise
        else:
            each = (seen - 0.5) / self.noise**2
        if self.rate == 1:
            return np.asarray(each.sum(axis=0))
        return np.asarray(np.logaddexp(np.log1p(-self.rate), np.log(self.rate) + each).sum(axis=0))

    def thresholds(self, rounds: int, streams: Streams) -> tuple[float, ...]:
        """Return the scores that a canary left out exceeds with the probabilities in `FALSE`, as declared."""
        rng = streams("declared")
        draw: Any = rng.laplace if self.kind == "laplace" else rng.normal
        nobody = self.ratio(draw(0.0, self.noise, (rounds, DRAWS)))
        return tuple(np.quantile(nobody, [1 - rate for rate in FALSE]).tolist())
