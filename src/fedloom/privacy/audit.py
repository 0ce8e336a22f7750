"""What an attacker's guesses prove: lower bounds on epsilon, from canaries that were put in or left out by fair coins.

Two bounds, of different reach. `one_run` holds for any mechanism; it is what one run can prove, and a fraction of the
truth. `refuted` asks whether the declared mechanism could have led to these scores; it is sharp, and rests on canaries
that are independent, as those are whose directions are orthogonal under noise that is drawn for each coordinate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ConfigError
from .tradeoff import Curve

Scores = NDArray[np.float64]
Coins = NDArray[np.bool_]
GUESSED = (1.0, 0.5, 0.2, 0.05)  # parts of the canaries that are guessed; fixed before anything is seen
FALSE = (0.2, 0.05, 0.01)  # rates of false positives at which thresholds lie, under the declared mechanism
FINEST, COARSEST = 1 / 4, 16.0  # of the declared noise, between which the bound is searched
LINES = 50  # thresholds among which the first canaries choose one for the others
STEPS = 6  # of that search


def one_run(correct: int, guesses: int, canaries: int, *, delta: float = 0.0, confidence: float = 0.95) -> float:
    """Return the largest epsilon that so many correct guesses refute: a lower bound on the true one, at `confidence`.

    Steinke, Nasr and Jagielski, NeurIPS 2023 (arXiv 2305.08846): of an (ε, δ)-private mechanism, the number of correct
    guesses is hardly more than Binomial(guesses, e^ε/(1+e^ε)); δ adds at most 2·canaries·δ·max_i P[v-i <= B < v]/i.

    Args:
        correct: of them; guesses: canaries that were called in or out, not abstained from; canaries: all of them.
        delta: in [0, 1); confidence: in (0, 1).

    >>> round(one_run(100, 100, 100), 4), round(one_run(100, 100, 100, confidence=0.99), 4)
    (3.493, 3.0549)
    """
    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise ConfigError(f"{correct} correct of {guesses} guesses on {canaries} canaries cannot be; count again.")
    _check(confidence)
    alpha = 1 - confidence

    def refuted_at(epsilon: float) -> bool:
        return _chance(epsilon, correct, guesses, canaries, delta) <= alpha

    if not refuted_at(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted_at(high):
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted_at(middle) else (low, middle)
    return low


def _chance(epsilon: float, correct: int, guesses: int, canaries: int, delta: float) -> float:
    """Return the largest probability of at least so many correct guesses under (epsilon, delta)-privacy."""
    from scipy.stats import binom

    right = 1 / (1 + math.exp(-epsilon))
    beyond = float(binom.sf(correct - 1, guesses, right))
    if not delta or not correct:
        return beyond
    fewer = np.arange(1, correct + 1)
    between = binom.sf(correct - fewer - 1, guesses, right) - beyond
    return min(1.0, beyond + 2 * canaries * delta * float((between / fewer).max()))


def best_guesses(scores: Scores, coins: Coins, *, delta: float, confidence: float) -> float:
    """Return the bound of `one_run` by the best of the fixed ways in `GUESSED`, each at its share of the error.

    The highest scores of a part are called in, and as many of the lowest out; or only the highest are called anything.

    Args:
        scores: shape `(canaries,)`, higher where a canary seems to be in; coins: which were.
    """
    order, each = np.argsort(scores, kind="stable"), 1 - (1 - confidence) / (2 * len(GUESSED))
    found = []
    for part in GUESSED:
        half = max(1, int(part * len(scores)) // 2)
        high, low = int(coins[order[-half:]].sum()), int((~coins[order[:half]]).sum())
        for correct, guesses in ((high, half), (high + low, 2 * half)):
            found.append(one_run(correct, guesses, len(scores), delta=delta, confidence=each))
    return max(found)


def clopper_pearson(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return bounds on a probability, each of which holds at `confidence`: Clopper and Pearson, Biometrika 1934.

    >>> low, high = clopper_pearson(0, 100, 0.95)
    >>> low, round(high, 4)  # 1 - 0.05^(1/100)
    (0.0, 0.0295)
    """
    from scipy.stats import beta

    _check(confidence)
    low = float(beta.ppf(1 - confidence, hits, trials - hits + 1)) if hits else 0.0
    return low, float(beta.ppf(confidence, hits + 1, trials - hits)) if hits < trials else 1.0


@dataclass(frozen=True)
class Rates:
    """What is sure about a threshold: at least so many true positives, at most so many false ones."""

    true: float
    false: float


def rates(scores: Scores, coins: Coins, thresholds: Sequence[float], confidence: float) -> tuple[Rates, ...]:
    """Return the rates of each threshold, sure all together at `confidence`; thresholds must not depend on scores."""
    each, found = 1 - (1 - confidence) / (2 * len(thresholds)), []
    for threshold in thresholds:
        true = clopper_pearson(int((scores[coins] > threshold).sum()), int(coins.sum()), each)[0]
        false = clopper_pearson(int((scores[~coins] > threshold).sum()), int((~coins).sum()), each)[1]
        found.append(Rates(true, false))
    return tuple(found)


def sharpest(scores: Scores, coins: Coins, curve: Curve) -> float:
    """Return the threshold whose rates contradict the curve most, or least fail to; for other canaries than these.

    What is broken need not look like what is declared: without any noise, scores lie where no declared line is.
    """
    known = np.unique(scores)
    lines = np.quantile(np.concatenate([(known[1:] + known[:-1]) / 2, known[:1] - 1]), np.linspace(0, 1, LINES))
    margins = [rate.true - curve.most(rate.false) for rate in rates(scores, coins, lines.tolist(), 0.5)]
    return float(lines[int(np.argmax(margins))])


def refuted(found: Sequence[Rates], curve: Curve) -> bool:
    """Do the rates contradict the curve?"""
    return any(rate.true > curve.most(rate.false) for rate in found)


def least_epsilon(found: Sequence[Rates], curve: Callable[[float], Curve], delta: float) -> float:
    """Return the epsilon of the declared mechanism with the least noise, as a multiple, that the rates refute.

    Nasr et al., USENIX Security 2023 (arXiv 2302.07956), audit the noise of a Gaussian mechanism so and turn that into
    epsilon; here any mechanism whose curve the accountant knows.

    Args:
        found: of independent canaries; curve: of so many times the declared noise.
        delta: at which epsilon is told.
    """
    within = refuted(found, curve(1.0))
    low, high = (FINEST, 1.0) if within else (1.0, COARSEST)
    if not within and not refuted(found, curve(high)):
        return 0.0
    if within and refuted(found, curve(low)):
        return curve(low).epsilon(delta)
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if refuted(found, curve(middle)) else (middle, high)
    return curve(high).epsilon(delta)


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be in (0, 1), got {confidence}; 0.95 is usual.")
