"""Scores are likelihood ratios, against densities of scipy."""

import numpy as np
import pytest
from scipy.stats import laplace, norm

from fedloom.core.event import NOT_PRIVATE, DpEvent
from fedloom.core.rng import stream
from fedloom.privacy.scores import Mechanism


@pytest.mark.parametrize(("kind", "density"), [("gaussian", norm), ("laplace", laplace)])
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_score_is_the_ratio_of_densities(kind, density, rate):
    seen = np.random.default_rng(0).normal(size=(3, 20))
    inside = rate * density.pdf(seen, 1, 1.7) + (1 - rate) * density.pdf(seen, 0, 1.7)
    expected = np.log(inside / density.pdf(seen, 0, 1.7)).sum(axis=0)
    assert Mechanism(kind=kind, noise=1.7, rate=rate).ratio(seen) == pytest.approx(expected)


def test_rates_of_sampling_are_read_from_the_event():
    inner = DpEvent("gaussian", {"noise_multiplier": 2.0})
    assert Mechanism.of(NOT_PRIVATE, 10) is None
    assert Mechanism.of(inner, 10).rate == 1
    assert Mechanism.of(DpEvent("poisson sampled", {"rate": 0.1, "cap": 3}, (inner,)), 10).rate == 0.1
    assert Mechanism.of(DpEvent("sampled without replacement", {"clients": 4}, (inner,)), 10).rate == 0.4
    assert Mechanism.of(DpEvent("sampled without replacement", {"fraction": 0.2}, (inner,)), 10).rate == 0.2


def test_thresholds_are_exceeded_by_who_is_out_as_often_as_they_say():
    found = Mechanism(kind="gaussian", noise=1.0, rate=1.0).thresholds(4, stream(0, "audit"))
    lines = [2 * norm.ppf(1 - rate) - 2 for rate in (0.2, 0.05, 0.01)]  # Σ (x - ½) of 4 normals: mean -2, deviation 2
    assert found == pytest.approx(lines, abs=0.15)
