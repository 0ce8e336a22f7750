"""What a declared mechanism lets anybody tell apart: its curve of true against false positives, by the accountant."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.event import DpEvent
from .losses import losses
from .translate import translated

Values = NDArray[np.float64]
INTERVAL = 1e-3  # grid of privacy losses; coarse, which makes a curve too high and a refutation harder
EPSILONS = np.concatenate([np.linspace(0, 6, 121), np.geomspace(6.1, 300, 160)])  # where delta is asked for


@dataclass(frozen=True, eq=False)
class Curve:
    """(epsilon, delta) for every epsilon, as one bound on tests: tpr <= e^ε·fpr + δ(ε), and the same of negatives.

    Dong, Roth and Su, JRSS B 2022 (arXiv 1905.02383): a trade-off function is what (ε, δ(ε)) for every ε allows.

    Args:
        deltas: δ at each of `EPSILONS`, by privacy loss distributions, so rounded up.
        losses: dp-accounting's distribution.
    """

    deltas: Values
    losses: Any

    def most(self, fpr: float) -> float:
        """Return the largest rate of true positives that a test with this rate of false ones can have.

        >>> curve = declared(DpEvent("gaussian", {"noise_multiplier": 1.0}), 1, None)
        >>> round(curve.most(0.05), 2)  # Φ(Φ⁻¹(0.05) + 1) = 0.2595
        0.26
        """
        grown = np.exp(EPSILONS)
        above = np.minimum(grown * fpr + self.deltas, 1 - (1 - self.deltas - fpr) / grown)
        return float(min(1.0, above.min()))

    def epsilon(self, delta: float) -> float:
        """Return epsilon at that delta."""
        return float(self.losses.get_epsilon_for_delta(delta))


def declared(event: DpEvent, rounds: int, members: int | None, scale: float = 1.0) -> Curve | None:
    """Return the curve of so many rounds of `event` with `scale` times its noise; None where only RDP knows it."""
    single = translated(scaled(event, scale), members).single
    if single is None:
        return None
    grid = INTERVAL / min(1.0, scale) ** 2  # losses grow as the noise shrinks
    if event.kind == "gaussian":  # composes to another, in closed form
        composed = losses(translated(scaled(event, scale / math.sqrt(rounds))).single, grid)
    else:
        composed = losses(single, grid).self_compose(rounds)
    return Curve(np.asarray(composed.get_delta_for_epsilon(EPSILONS)), composed)


def scaled(event: DpEvent, scale: float) -> DpEvent:
    """Return the event with `scale` times its noise.

    >>> scaled(DpEvent("gaussian", {"noise_multiplier": 2.0}), 0.5).values
    {'noise_multiplier': 1.0}
    """
    values = {k: v * scale if k == "noise_multiplier" else v for k, v in event.values.items()}
    return replace(event, values=values, inner=tuple(scaled(inner, scale) for inner in event.inner))
