"""Bounds from guesses: published numbers, and a simulation of what they promise."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedloom.core.errors import ConfigError
from fedloom.core.event import DpEvent
from fedloom.privacy.audit import Rates, best_guesses, clopper_pearson, least_epsilon, one_run, rates, refuted
from fedloom.privacy.tradeoff import declared

GAUSSIAN = DpEvent("gaussian", {"noise_multiplier": 1.0})


@pytest.mark.parametrize(
    ("confidence", "delta", "known"),
    [(0.95, 0.0, 3.4930), (0.99, 0.0, 3.0549), (0.95, 1e-5, 3.479), (0.99, 1e-5, 3.023)],
)
def test_a_hundred_right_of_a_hundred(confidence, delta, known):
    """Pure: ln(p/(1-p)), p = (1-confidence)^(1/100). With delta: of 500 canaries, as a public audit reports them."""
    found = one_run(100, 100, 500 if delta else 100, delta=delta, confidence=confidence)
    if not delta:
        p = (1 - confidence) ** 0.01
        assert found == pytest.approx(math.log(p / (1 - p)), abs=1e-6)
    assert found == pytest.approx(known, abs=1e-3)


@pytest.mark.parametrize(("correct", "guesses"), [(60, 100), (95, 100), (7, 10), (500, 900)])
def test_the_bound_is_where_the_binomial_tail_crosses(correct, guesses):
    epsilon = one_run(correct, guesses, 1000)
    at = lambda e: binom.sf(correct - 1, guesses, 1 / (1 + math.exp(-e)))  # noqa: E731
    assert at(epsilon) <= 0.05 + 1e-9 if epsilon else at(0) > 0.05
    assert at(epsilon + 1e-6) > 0.05


def test_more_delta_or_more_confidence_proves_less():
    ways = [one_run(90, 100, 100, delta=delta) for delta in (0.0, 1e-5, 1e-3, 1e-2)]
    assert ways == sorted(ways, reverse=True)
    assert one_run(90, 100, 100, confidence=0.99) < one_run(90, 100, 100)
    assert one_run(50, 100, 100) == 0


@pytest.mark.parametrize("given", [(3, 2, 2), (-1, 2, 2), (1, 3, 2), (0, 0, 5)])
def test_counts_that_cannot_be_are_refused(given):
    with pytest.raises(ConfigError, match="cannot be; count again"):
        one_run(*given)
    with pytest.raises(ConfigError, match=r"confidence must be in \(0, 1\), got 1"):
        one_run(1, 1, 1, confidence=1)


def test_clopper_and_pearson_cover_as_they_say():
    """The exact probability, by summing over what could be seen."""
    for p in (0.01, 0.3, 0.9):
        seen = [clopper_pearson(k, 50, 0.95) for k in range(51)]
        low = sum(binom.pmf(k, 50, p) for k, (bound, _) in enumerate(seen) if bound <= p)
        high = sum(binom.pmf(k, 50, p) for k, (_, bound) in enumerate(seen) if bound >= p)
        assert min(low, high) >= 0.95 - 1e-12


def test_a_curve_of_gaussian_noise_is_the_known_one():
    curve = declared(GAUSSIAN, 4, None)
    for fpr in (0.001, 0.05, 0.3, 0.9):
        assert curve.most(fpr) == pytest.approx(norm.cdf(norm.ppf(fpr) + 2), abs=2e-3)
    assert curve.epsilon(1e-5) == pytest.approx(9.9973, abs=1e-2)  # Balle and Wang, ICML 2018, sigma = 1/2


def test_randomised_response_is_no_better_than_it_is():
    """Guesses of canaries with exactly epsilon-private answers: at most 5 in 100 audits claim more."""
    rng, epsilon, over = np.random.default_rng(0), 1.0, 0
    for _ in range(40):
        coins = rng.random(200) < 0.5
        told = np.where(rng.random(200) < 1 / (1 + math.exp(-epsilon)), coins, ~coins)
        over += best_guesses(told + 0.01 * rng.random(200), coins, delta=0.0, confidence=0.95) > epsilon
    assert over <= 2


def test_noise_as_declared_is_seldom_refuted_and_half_of_it_always():
    rng, curve, lines = np.random.default_rng(1), declared(GAUSSIAN, 1, None), (0.8, 1.6, 2.3)
    wrong, caught = 0, 0
    for _ in range(60):
        coins = rng.random(600) < 0.5
        noise = rng.standard_normal(600)
        wrong += refuted(rates(coins + noise, coins, lines, 0.95), curve)
        caught += refuted(rates(coins + 0.5 * noise, coins, lines, 0.95), curve)
    assert wrong <= 3
    assert caught >= 57


def test_the_least_epsilon_lies_below_the_true_one_and_not_far():
    rng = np.random.default_rng(2)
    coins = rng.random(2000) < 0.5
    found = rates(coins + rng.standard_normal(2000), coins, (0.8, 1.6, 2.3), 0.95)
    bound = least_epsilon(found, lambda scale: declared(GAUSSIAN, 1, None, scale), 1e-5)
    assert 3.2 < bound < 4.377178
    nothing = least_epsilon((Rates(0.01, 0.2),), lambda scale: declared(GAUSSIAN, 1, None, scale), 1e-5)
    assert nothing == 0
