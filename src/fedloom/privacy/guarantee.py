"""What may be said of a run's privacy, with all that its two numbers mean nothing without."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..core.words import counted

AGAINST = (
    "whoever sees the shared models of all rounds, clients and the public; not the coordinator, who sees what clients "
    "send, nor whoever reads its journal and reports, where the cohorts are"
)
COVERS = "the shared model after every round"


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """What may be said: (epsilon, delta)-differential privacy, and all that the two numbers mean nothing without.

    Args:
        epsilon: of all rounds so far; infinity where nothing is claimed.
        delta: the probability that goes with it.
        rounds: how many releases; adjacency: which two federations are told apart; unit: of what.
        sampling: how clients were drawn; mechanism: what was added.
        against: whom; covers: which releases.
        accountant: name and version of what computed it.
        cross_check: epsilon by the other accountant, at least as large up to rounding; None where it has none.
        warnings: sentences about what is doubtful.
        sites: epsilon by site, where each accounts for its own examples; `epsilon` is the largest.
    """

    epsilon: float
    delta: float
    rounds: int
    adjacency: str
    unit: str = "client"
    sampling: str
    mechanism: str
    against: str = AGAINST
    covers: str = COVERS
    accountant: str
    cross_check: float | None
    warnings: tuple[str, ...] = ()
    sites: Mapping[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        said = asdict(self) | {"epsilon": told(self.epsilon), "warnings": list(self.warnings)}
        sites = {name: told(epsilon) for name, epsilon in said.pop("sites").items()}
        return said | ({"sites": sites} if sites else {})

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"ε = {self.epsilon:.3g} at δ = {self.delta:g} after {counted(self.rounds, 'round')} ({self.adjacency}; "
            f"unit: {self.unit}; {self.sampling}; {self.mechanism}; {self.accountant}), against {self.against}."
        )


def told(epsilon: float) -> float | str:
    """Return epsilon as events say it: a number, or "infinity", never left blank.

    >>> told(1.23456789), told(math.inf)
    (1.234568, 'infinity')
    """
    return "infinity" if math.isinf(epsilon) else round(epsilon, 6)
