"""Whole-number noise against the distributions that it is said to have, computed elsewhere."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest, poisson
from scipy.stats import skellam as law

from fedloom.core.rng import stream
from fedloom.stages.poisson import log_likelihood, offsets, skellam, tail


@pytest.mark.parametrize("mean", [64.0, 65.0, 1000.0, 1e6, 1e9, 1e12])
def test_probabilities_are_right_to_twelve_digits(mean):
    """Against mpmath with 40 digits: what is off here is off in every probability of the noise."""
    with mpmath.workdps(40):
        for deviations in np.linspace(-7.9, 12, 40):
            k = max(0, int(mean + deviations * math.sqrt(mean)))
            exact = k * mpmath.log(mean) - mean - mpmath.loggamma(k + 1)
            found = float(log_likelihood(np.array([k - mean]), mean)[0])
            assert abs(mpmath.mpf(found) - exact) < 1e-12


@pytest.mark.parametrize("mean", [64, 100, 1000])
def test_draws_have_the_law(mean):
    """60,000 draws by whole numbers against the distribution; fails once in 10^6 runs."""
    draws = offsets(60_000, float(mean)) + mean
    low, high = (int(poisson.ppf(part, mean)) for part in (1e-3, 1 - 1e-3))
    inside = np.arange(low + 1, high)
    seen = [(draws <= low).sum(), *((draws == k).sum() for k in inside), (draws >= high).sum()]
    chances = np.array([poisson.cdf(low, mean), *poisson.pmf(inside, mean), poisson.sf(high - 1, mean)])
    assert chisquare(seen, chances * 60_000 / chances.sum()).pvalue > 1e-6
    assert draws.min() >= 0


@pytest.mark.parametrize("seeded", [True, False])
def test_differences_have_the_law_of_skellam(seeded):
    draws = skellam(60_000, 1e9, stream(0, 1) if seeded else None)
    assert kstest(draws / math.sqrt(1e9), "norm").pvalue > 1e-6  # which it comes to, to 10^-5
    assert np.array_equal(draws, np.rint(draws))


def test_the_operating_system_never_draws_the_same_and_a_stream_does():
    assert not np.array_equal(skellam(50, 1e9, None), skellam(50, 1e9, None))
    assert np.array_equal(skellam(50, 1e9, stream(0, 1)), skellam(50, 1e9, stream(0, 1)))


@pytest.mark.parametrize("mean", [63.0, 64.5, math.nan])
def test_a_mean_that_it_does_not_draw_is_refused(mean):
    with pytest.raises(ValueError, match="a whole number of at least 64"):
        offsets(1, mean)


@settings(max_examples=30)
@given(variance=st.floats(130, 1e5), nats=st.floats(1, 25))
def test_the_tail_holds_what_it_says(variance, nats):
    """Against the distribution itself."""
    edge = tail(variance, nats)
    assert law.sf(math.ceil(edge) - 1, variance / 2, variance / 2) <= math.exp(-nats) * (1 + 1e-6)
    assert edge < math.sqrt(2 * nats * variance) + nats
