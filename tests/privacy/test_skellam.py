"""The curve of Skellam noise against the divergence itself, and against the Gaussian that it comes to."""

import math

import numpy as np
import pytest
from dp_accounting.rdp import compute_epsilon
from scipy.special import ive, logsumexp
from scipy.stats import norm

from fedloom.core.errors import StrategyError
from fedloom.core.event import DpEvent
from fedloom.privacy.accountant import spent
from fedloom.privacy.compose import composed, kind_of
from fedloom.privacy.skellam import ORDERS, SkellamSum, divergence
from fedloom.privacy.translate import ZERO_OUT_SEEN
from fedloom.select import Poisson, Uniform
from fedloom.stages import SkellamNoise

EVENT = SkellamNoise(clip=1.0, noise_multiplier=1.0, delta=1e-5, survivors=10).event()


def exact(order, shift, variance):
    """Return the Rényi divergence in one dimension, summed over whole numbers: P(k) = e^-V·I_k(V)."""
    span = math.ceil(14 * math.sqrt(variance) + 2 * order * shift + 40)
    k = np.arange(-span, span + 1)
    with np.errstate(divide="ignore"):
        moved, still = (np.log(ive(np.abs(k - move), variance)) for move in (shift, 0))
    there = np.isfinite(moved) & np.isfinite(still)
    return logsumexp(order * moved[there] - (order - 1) * still[there]) / (order - 1)


FINE = [(a, m, v) for a in (2, 3, 8, 32) for m in (1, 2, 5) for v in (5.0, 30.0, 200.0, 1e4) if a * m <= v]


@pytest.mark.parametrize(("order", "shift", "variance"), FINE)  # of others the sum loses its digits
def test_the_bound_is_above_the_divergence_and_not_far(order, shift, variance):
    bound, true = divergence(order, shift, shift, variance), exact(order, shift, variance)
    assert true <= bound * (1 + 1e-9)
    assert bound <= true * (1 + 3 / variance * (order + 3))


MEASURED = [(7, 27.168), (10, 5.381), (14, 4.755), (18, 4.7527)]


@pytest.mark.parametrize(("bits", "epsilon"), MEASURED)
def test_what_coarse_grids_cost(bits, epsilon):
    """2^20 coordinates, clip 1, noise of deviation 1 that does not make up for rounding, delta 1e-5, one round."""
    scale, size = 2.0**bits, 2**20
    longest = SkellamNoise(clip=1.0, noise_multiplier=1.0, delta=1e-5, survivors=1, bits=bits).longest(size)
    curve = [divergence(order, longest, min(math.sqrt(size) * longest, longest**2), scale**2) for order in ORDERS]
    assert compute_epsilon(ORDERS, curve, 1e-5)[0] == pytest.approx(epsilon, abs=6e-4)


@pytest.mark.parametrize(("silent", "exactly"), [(0.0, 4.377), (0.3, 5.388), (0.5, 6.573)])
def test_what_noise_that_is_missing_costs(silent, exactly):
    """Noise shared among all of the cohort, and some silent: Gaussian limit, delta 1e-5, one round."""
    z = math.sqrt(1 - silent)
    delta = norm.cdf(1 / (2 * z) - exactly * z) - math.exp(exactly) * norm.cdf(-1 / (2 * z) - exactly * z)
    assert delta == pytest.approx(1e-5, rel=5e-3)  # Balle and Wang, ICML 2018, theorem 8
    ours = SkellamSum(z, 2.0**16).epsilon(1, 1e-5)
    assert exactly < ours < exactly * 1.1


@pytest.mark.parametrize("rounds", [1, 20])
@pytest.mark.parametrize("z", [0.7, 1.0, 4.0])
def test_on_a_fine_grid_it_costs_what_a_gaussian_does_by_the_same_method(z, rounds):
    gaussian = compute_epsilon(ORDERS, [rounds * order / (2 * z * z) for order in ORDERS], 1e-5)[0]
    costs = [SkellamSum(z, steps).epsilon(rounds, 1e-5) for steps in (2.0**20, 2.0**14, 2.0**6)]
    assert costs[0] == pytest.approx(gaussian, rel=1e-6)
    assert gaussian <= costs[0] <= costs[1] < costs[2]


def test_a_longer_vector_with_as_much_more_noise_costs_no_more():
    """Why the shortest that Δ can be stands for all: z is relative to Δ."""
    costs = [SkellamSum(1.0, steps).epsilon(5, 1e-5) for steps in (100.0, 150.0, 1000.0)]
    assert costs == sorted(costs, reverse=True)


def test_the_guarantee_says_against_whom_and_on_what_it_counts():
    found = spent(EVENT, 3, 1e-5, 100)
    assert found.epsilon == SkellamSum(1.0, 2.0**16).epsilon(3, 1e-5)
    assert (found.adjacency, found.cross_check, found.warnings) == (ZERO_OUT_SEEN, None, ())
    assert "the coordinator too" in found.against
    assert "holds 10 honest clients or more" in found.against
    assert found.mechanism == "Skellam noise of the clients, multiplier 1 from 10 of them"
    assert "RDP" in found.accountant
    assert spent(EVENT, 0, 1e-5).epsilon == 0


@pytest.mark.parametrize("select", [Poisson(0.1), Poisson(0.1, cap=5), Uniform(clients=5)])
def test_sampling_amplifies_nothing_against_the_coordinator(select):
    with pytest.raises(StrategyError, match="sampling"):
        spent(select.event(EVENT), 1, 1e-5, 100)


@pytest.mark.parametrize("z", [0.0, math.nan, math.inf])
def test_no_noise_is_refused(z):
    with pytest.raises(StrategyError, match="a noise multiplier must be above 0 and finite"):
        spent(DpEvent("skellam", {**EVENT.values, "noise_multiplier": z}), 1, 1e-5)


def test_a_ledger_adds_it_to_others_of_its_kind():
    other = SkellamNoise(clip=1.0, noise_multiplier=2.0, delta=1e-5, survivors=10).event()
    assert composed([(EVENT, 2), (EVENT, 1)], 1e-5).epsilon == spent(EVENT, 3, 1e-5).epsilon
    both = composed([(EVENT, 3), (other, 2)], 1e-5)
    assert both.epsilon == spent(EVENT, 3, 5e-6).epsilon + spent(other, 2, 5e-6).epsilon
    assert kind_of(EVENT).adjacency == ZERO_OUT_SEEN
