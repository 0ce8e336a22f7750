"""Lots: how many examples local work draws for a step and how often, the same for who trains and for who accounts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import StrategyError


@dataclass(frozen=True, slots=True)
class Lots:
    """The lots of one client in one round.

    Args:
        rate: probability in (0, 1] with which each example is in a lot, by itself.
        steps: lots, at least 1.
        expected: examples in a lot on average, rate · n: a constant, whatever was drawn.
    """

    rate: float
    steps: int
    expected: float


def lots(examples: int, settings: Mapping[str, float]) -> Lots:
    """Return the lots of a client with so many examples, at least 1.

    Args:
        examples: n.
        settings: either "lot" (examples expected) or "fraction" (of n, in (0, 1]); either "steps" or "epochs" (expected
            passes, rounded to whole lots).

    >>> lots(200, {"lot": 50, "epochs": 2})
    Lots(rate=0.25, steps=8, expected=50.0)
    >>> lots(10, {"lot": 50, "steps": 3}).rate, lots(10, {"fraction": 0.5, "epochs": 1}).steps
    (1.0, 2)
    """
    if examples < 1:
        raise StrategyError("a client without examples draws no lots; leave it out of the cohort.")
    rate = settings["fraction"] if "fraction" in settings else min(1.0, settings["lot"] / examples)
    steps = int(settings["steps"]) if "steps" in settings else max(1, math.floor(settings["epochs"] / rate + 0.5))
    return Lots(float(rate), steps, rate * examples)
