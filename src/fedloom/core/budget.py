"""How much of its data's privacy a site is willing to spend."""

import math
from dataclasses import dataclass

from .errors import ConfigError

UNITS = ("client", "example")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent on each data set of a site, over all runs together.

    Args:
        epsilon: above 0 and finite.
        delta: at which it is told, in (0, 1).
        unit: whose part is protected: "client", all rows of the site together, or "example", one row.

    >>> Budget(epsilon=3.0, delta=1e-5)
    Budget(epsilon=3.0, delta=1e-05, unit='client')
    """

    epsilon: float
    delta: float
    unit: str = "client"

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ConfigError(f"Budget.epsilon must be above 0 and finite, got {self.epsilon}.")
        if not 0 < self.delta < 1:
            raise ConfigError(f"Budget.delta must be in (0, 1), got {self.delta}; take well below one over the units.")
        if self.unit not in UNITS:
            raise ConfigError(f"Budget.unit must be one of {', '.join(UNITS)}, got {self.unit!r}.")

    def __str__(self) -> str:
        return f"ε = {self.epsilon:g} at δ = {self.delta:g} for one {self.unit}"
