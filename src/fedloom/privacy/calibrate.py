"""How much noise a budget needs: the inverse of the accountant."""

import math
from collections.abc import Callable

from ..core.errors import ConfigError
from ..core.event import DpEvent
from .accountant import shown, spent
from .losses import pld_epsilon, rdp_epsilon
from .translate import translated

STEPS = 1000  # of a noise multiplier of one: three digits are told, and the third is not rounded down
LEAST, MOST = 10, 10**8  # steps that are searched
HIGHEST = 100.0  # epsilon: beyond it nothing is protected, and PLD takes long


def noise_multiplier(
    epsilon: float, delta: float, rounds: int, *, sampled: Callable[[DpEvent], DpEvent] = lambda event: event
) -> float:
    """Return the smallest noise multiplier of Gaussian noise, to 10^-3, that keeps to (epsilon, delta).

    Args:
        epsilon: above 0; delta: in (0, 1).
        rounds: at least 1.
        sampled: the selector's `event`; by default everyone takes part in every round.

    Raises `ConfigError` for a budget that no noise keeps to.

    >>> noise_multiplier(2.0, 1e-3, 10)
    4.571
    """
    _check(epsilon, rounds)

    def event(z: float) -> DpEvent:
        return sampled(DpEvent("gaussian", {"noise_multiplier": z}))

    spent(event(1.0), 0, delta)  # refuses what cannot be accounted before a search begins
    if translated(event(1.0)).rdp is None or translated(event(1.0)).single is None:
        raise ConfigError("noise is found for everyone and for Poisson samples without a cap; take one of them.")
    high = _smallest(lambda z: rdp_epsilon(translated(event(z)).rdp, rounds, delta) <= epsilon, LEAST, MOST)

    def keeps(z: float) -> bool:
        return pld_epsilon(translated(event(z)).single, rounds, delta) <= epsilon

    low = high * 4 // 5  # RDP is an upper bound, mostly not far above; far below, PLD takes long
    while low > LEAST and keeps(low / STEPS):
        high, low = low, low * 4 // 5
    return _smallest(keeps, low, high) / STEPS


def least(epsilon: float, delta: float, rounds: int, event: Callable[[float], DpEvent]) -> float:
    """Return the smallest noise multiplier, to 10^-3, of noise that is described by `event`: multiplier -> a round's.

    For what is quickly accounted: shares of clients, local noise, trees and bands.

    >>> least(1.0, 1e-5, 1, lambda z: DpEvent("local gaussian", {"noise_multiplier": z}))
    3.731
    """
    _check(epsilon, rounds)
    spent(event(1.0), 0, delta)  # refuses what cannot be accounted before a search begins
    return _smallest(lambda z: shown(translated(event(z)), rounds, delta) <= epsilon, LEAST, MOST) / STEPS


def _check(epsilon: float, rounds: int) -> None:
    if not 0 < epsilon < math.inf:
        raise ConfigError(f"epsilon must be above 0 and finite, got {epsilon}.")
    if epsilon > HIGHEST:
        raise ConfigError(
            f"an epsilon of {epsilon:g} protects nobody: what is released may be e^{epsilon:g} times as likely with a "
            f"client as without. Take at most {HIGHEST:g}; 10 is usually called much."
        )
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1, got {rounds}.")


def _smallest(enough: Callable[[float], bool], low: int, high: int) -> int:
    """Return the smallest number of steps, above `low` and up to `high`, that is enough; by bisection."""
    if not enough(high / STEPS):
        raise ConfigError(f"no noise multiplier up to {high / STEPS:g} keeps to this budget; raise epsilon or delta.")
    while high - low > 1:
        middle = round(math.sqrt(max(low, 1) * high)) if high > 4 * low else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        low, high = (low, middle) if enough(middle / STEPS) else (middle, high)
    return high
