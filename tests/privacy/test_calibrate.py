import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedloom.core.errors import ConfigError, StrategyError
from fedloom.core.event import DpEvent
from fedloom.privacy.accountant import spent
from fedloom.privacy.calibrate import noise_multiplier
from fedloom.select import Poisson, Uniform


def exact(epsilon, delta, rounds):
    """Return the noise multiplier of so many Gaussian releases by the closed form (Balle and Wang, ICML 2018)."""

    def over(z):
        mu = math.sqrt(rounds) / z
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta

    return brentq(over, 0.05, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epsilon", "delta", "rounds", "published"), [(2.0, 1e-3, 10, 4.57), (2.0, 1e-5, 10, 6.30), (8.0, 1e-6, 1, None)]
)
def test_everyone_needs_the_closed_form_rounded_up(epsilon, delta, rounds, published):
    found = noise_multiplier(epsilon, delta, rounds)
    assert 0 <= found - exact(epsilon, delta, rounds) < 2e-3
    assert published is None or math.floor(found * 100) / 100 == published


@pytest.mark.slow
def test_it_keeps_to_the_budget_and_a_step_less_does_not():
    found = noise_multiplier(3.0, 1e-5, 50, sampled=Poisson(0.1).event)
    costs = [
        spent(Poisson(0.1).event(DpEvent("gaussian", {"noise_multiplier": z})), 50, 1e-5).epsilon
        for z in (found, found - 1e-3)
    ]
    assert costs[0] <= 3.0 < costs[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.0, 1e-5, 1), "epsilon must be above 0 and finite, got 0.0"),
        ((math.nan, 1e-5, 1), "epsilon must be above 0 and finite, got nan"),
        ((300.0, 1e-5, 1), r"an epsilon of 300 protects nobody: .* e\^300 times .* Take at most 100; 10 is usually"),
        ((1.0, 1e-5, 0), "rounds must be at least 1, got 0"),
        ((1.0, 0.0, 1), r"delta must be in \(0, 1\), got 0.0"),
        ((1e-9, 1e-300, 10), "no noise multiplier up to 100000 keeps to this budget; raise epsilon or delta"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        noise_multiplier(*arguments)


@pytest.mark.parametrize("select", [Uniform(clients=3), Poisson(0.1, cap=3)])
def test_samples_that_depend_on_the_members_are_refused(select):
    with pytest.raises(StrategyError, match="for a number of members"):
        noise_multiplier(1.0, 1e-5, 1, sampled=select.event)
