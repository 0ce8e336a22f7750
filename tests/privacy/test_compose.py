"""What different releases cost together, against what is known of them alone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.core.errors import RecordError
from fedloom.core.event import NOT_PRIVATE, SEEDED, DpEvent
from fedloom.privacy.accountant import spent
from fedloom.privacy.compose import composed, event_of, kind_of, tree

DELTA = 1e-5


def gaussian(z):
    return DpEvent("gaussian", {"noise_multiplier": z, "delta": DELTA})


def laplace(z):
    return DpEvent("laplace", {"noise_multiplier": z, "delta": DELTA})


def sampled(rate, inner):
    return DpEvent("poisson sampled", {"rate": rate}, (inner,))


def exact(mu, delta):
    """Return epsilon of a Gaussian mechanism of that mu = 1/z by bisection (Balle and Wang, ICML 2018, theorem 8)."""

    def phi(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    def profile(epsilon):
        return phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)

    low, high = 0.0, 100.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if profile(middle) > delta else (low, middle)
    return high


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(1.0, 20.0), st.integers(1, 20)), min_size=1, max_size=4))
def test_gaussians_of_different_noise_are_one_gaussian(parts):
    together = composed([(gaussian(z), n) for z, n in parts], DELTA)
    mu = math.sqrt(sum(n / z**2 for z, n in parts))
    assert together.epsilon == pytest.approx(exact(mu, DELTA), rel=1e-6)
    assert together.method.endswith("one Gaussian")


def test_one_mechanism_costs_what_the_accountant_says():
    for event in (gaussian(2.0), laplace(9.0)):
        known = spent(event, 7, DELTA).epsilon
        assert composed([(event, 3), (event, 4)], DELTA).epsilon == pytest.approx(known, rel=1e-6)


def test_different_mechanisms_cost_more_than_each_and_less_than_their_sum():
    parts = [(laplace(20.0), 10), (gaussian(8.0), 5), (gaussian(10.0), 2)]
    alone = [spent(event, times, DELTA).epsilon for event, times in parts]
    together = composed(parts, DELTA).epsilon
    assert max(alone) < together < sum(alone)
    assert composed(parts[::-1], DELTA).epsilon == pytest.approx(together, rel=1e-6)


def test_sampling_all_is_not_sampling():
    mixed = composed([(sampled(1.0, gaussian(4.0)), 3), (gaussian(4.0), 3)], DELTA).epsilon
    assert mixed == pytest.approx(spent(gaussian(4.0), 6, DELTA).epsilon, rel=1e-2)


def test_where_the_accountants_cannot_be_mixed_epsilons_are_added_and_it_says_so(monkeypatch):
    from fedloom.privacy import compose
    from fedloom.privacy.translate import translated

    def apart(event):
        found = translated(event)
        return (
            type(found)(None, found.rdp, False, "", "")
            if event.kind == "gaussian"
            else type(found)(found.single, None, False, "", "")
        )

    monkeypatch.setattr(compose, "translated", apart)
    found = compose.composed([(gaussian(8.0), 2), (laplace(20.0), 3)], DELTA)
    assert found.method == "the sum of the ε of 2 mechanisms, each at δ/2"
    assert found.epsilon >= spent(laplace(20.0), 3, DELTA / 2).epsilon + spent(gaussian(8.0), 2, DELTA / 2).epsilon


@pytest.mark.parametrize("event", [NOT_PRIVATE, SEEDED])
def test_one_release_that_is_not_private_costs_infinity(event):
    assert composed([(gaussian(8.0), 2), (event, 1)], DELTA).epsilon == math.inf
    assert composed([(gaussian(8.0), 0), (event, 0)], DELTA).epsilon == 0.0
    assert kind_of(event) is None


def test_what_is_told_apart_is_part_of_a_release():
    assert kind_of(gaussian(1.0)) == kind_of(laplace(1.0))
    assert kind_of(gaussian(1.0)).unit == "client"


def test_a_release_is_written_and_read_again():
    event = sampled(0.1, gaussian(2.0))
    assert event_of(tree(event)) == event
    for wrong in ({}, {"kind": 1, "values": {}, "inner": []}, {"kind": "a", "values": {"z": "1"}, "inner": []}):
        with pytest.raises(RecordError, match="is not described as fedloom describes one"):
            event_of(wrong)
