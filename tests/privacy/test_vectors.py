"""Published numbers of central differential privacy, each with its source and the method that it was published with."""

import math

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

from fedloom.core.event import DpEvent
from fedloom.privacy.accountant import spent
from fedloom.privacy.losses import pld_epsilon, rdp_epsilon
from fedloom.privacy.translate import translated
from fedloom.select import Poisson

TUTORIAL = "tensorflow/privacy, tutorials/README.md"
PUBLISHED = [
    # rate, z, rounds, delta, published, within, source
    (250 / 60000, 1.3, 3600, 1e-5, 1.18, 5e-3, "tensorflow/privacy, Classification_Privacy.ipynb at 28d6db4"),
    (256 / 60000, 1.12, 60 * 60000 // 256, 1e-5, 2.92, 5e-3, TUTORIAL),
    (256 / 60000, 1.2, 10 * 60000 // 256, 1e-5, 1.20, 5e-3, TUTORIAL),
    (256 / 60000, 0.6, 30 * 60000 // 256, 1e-5, 9.74, 0.05, TUTORIAL),
    (0.01, 4.0, 10000, 1e-5, 1.26, 5e-3, "Abadi et al., CCS 2016 (arXiv 1607.00133), section 3.2"),
    (5000 / 763430, 1.0, 5000, 1e-9, 4.634, 5e-4, "McMahan et al., ICLR 2018 (arXiv 1710.06963)"),
    (5000 / 1e8, 1.0, 5000, 1e-9, 1.152, 1e-3, "McMahan et al., ICLR 2018 (arXiv 1710.06963)"),
]


def classic(rate, z, rounds, delta):
    """Return epsilon as it was computed until 2018: integer orders 2 to 256, rdp + ln(1/delta)/(order - 1).

    RDP of the sampled Gaussian at an integer order is a binomial sum (Mironov, Talwar and Zhang 2019, arXiv
    1908.10530, section 3.3): written here once more, and not taken from the library.
    """
    found = []
    for order in range(2, 257):
        k = np.arange(order + 1)
        choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        terms = choose + k * math.log(rate) + (order - k) * math.log1p(-rate) + (k * k - k) / (2 * z * z)
        found.append(rounds * logsumexp(terms) / (order - 1) + math.log(1 / delta) / (order - 1))
    return min(found)


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "published", "within", "source"), PUBLISHED)
def test_by_the_method_of_its_time_the_published_number(rate, z, rounds, delta, published, within, source):
    assert classic(rate, z, rounds, delta) == pytest.approx(published, abs=within), source


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "z", "rounds", "delta"), [row[:4] for row in PUBLISHED])
def test_what_we_show_is_below_its_cross_check_which_is_below_what_was_published(rate, z, rounds, delta):
    found = spent(Poisson(rate).event(DpEvent("gaussian", {"noise_multiplier": z})), rounds, delta)
    assert found.epsilon <= found.cross_check <= classic(rate, z, rounds, delta) + 1e-3
    assert found.warnings == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "pld", "rdp"),
    [(0, 0.8530, 0.9422), (4, 0.9470, 1.0355), (5, 3.8988, 4.1833)],
)
def test_what_dp_accounting_gives_today(row, pld, rdp):
    """Measured with dp-accounting 0.6.0; prv-accountant 0.2.0 brackets the first: [0.8430, 0.8530, 0.8630]."""
    rate, z, rounds, delta = PUBLISHED[row][:4]
    found = spent(Poisson(rate).event(DpEvent("gaussian", {"noise_multiplier": z})), rounds, delta)
    assert (found.epsilon, found.cross_check) == (pytest.approx(pld, abs=2e-4), pytest.approx(rdp, abs=2e-4))


def pld_delta(event, rounds, epsilon):
    return PLDAccountant().compose(translated(event).single, rounds).get_delta(epsilon)


def test_a_composed_gaussian():
    """dp_accounting, pld_privacy_accountant_test.py: three with z = sqrt(3) are one with z = 1."""
    event = DpEvent("gaussian", {"noise_multiplier": math.sqrt(3)})
    assert pld_delta(event, 3, 1.0) == pytest.approx(0.126936, abs=1e-3)
    assert pld_delta(event, 3, 1.0) == pytest.approx(norm.cdf(-0.5) - math.e * norm.cdf(-1.5), abs=1e-6)


@pytest.mark.slow
def test_a_sampled_gaussian():
    """The same file: Poisson 0.2, z = 0.5, three times."""
    event = Poisson(0.2).event(DpEvent("gaussian", {"noise_multiplier": 0.5}))
    assert pld_delta(event, 3, 1.0) == pytest.approx(0.15594, abs=1e-3)


def test_a_sampled_laplace():
    """The same file: Poisson 0.2, scale 0.5, three times, at delta 1e-14."""
    event = Poisson(0.2).event(DpEvent("laplace", {"noise_multiplier": 0.5}))
    assert spent(event, 3, 1e-14).epsilon == pytest.approx(2.46964, abs=1e-3)


@pytest.mark.slow
def test_truncated_samples():
    """The same file: (N = 4, q = 0.5, cap 2, z = 1) three times and (3, 0.5, 2, 1) twice, epsilon at delta 1e-6."""
    event = Poisson(0.5, cap=2).event(DpEvent("gaussian", {"noise_multiplier": 1.0}))
    accountant = PLDAccountant().compose(translated(event, 4).single, 3).compose(translated(event, 3).single, 2)
    assert accountant.get_epsilon(1e-6) == pytest.approx(17.904330, abs=1e-3)


@pytest.mark.slow
def test_mixtures_of_gaussians():
    """The same file: s = 1 with {0, 1, 2} three times and s = 2 with {0, 2, 3} twice; no mechanism here is one."""
    first = MixtureOfGaussiansDpEvent(1.0, [0, 1, 2], [0.2, 0.6, 0.2])
    second = MixtureOfGaussiansDpEvent(2.0, [0, 2, 3], [0.33, 0.34, 0.33])
    accountant = PLDAccountant().compose(first, 3).compose(second, 2)
    assert accountant.get_epsilon(1e-6) == pytest.approx(17.193115, abs=1e-3)


def test_randomised_response():
    """The same file: four answers, noise 4/(3 + e), replace-one, costs no delta at epsilon 1; nothing here is one."""
    accountant = PLDAccountant(dp.NeighboringRelation.REPLACE_ONE)
    accountant.compose(dp.RandomizedResponseDpEvent(4 / (3 + math.e), 4))
    assert accountant.get_delta(1.0) == pytest.approx(0.0, abs=1e-9)


def test_a_constant_curve_is_converted_at_its_largest_order():
    """The same file's RDP neighbour: 1.1 at orders 2 to 32, delta 1e-5."""
    found, order = compute_epsilon(range(2, 33), [1.1] * 31, 1e-5)
    assert (found, order) == (pytest.approx(1.32783806176), 32)


def test_the_curve_of_a_sampled_gaussian():
    """dp_accounting, rdp_privacy_accountant_test.py: q = 0.01, z = 2.5, 50 times; "0.0238" at order 50."""
    orders = (1.5, 2.5, 5, 50, 100)
    event = translated(Poisson(0.01).event(DpEvent("gaussian", {"noise_multiplier": 2.5}))).rdp
    accountant = RdpAccountant(orders=orders).compose(event, 50)
    expected = [6.70579741e-4, 1.08548710e-3, 2.18075656e-3, 2.38460375e-2, 167.416308]
    np.testing.assert_allclose(accountant._rdp, expected, rtol=1e-5)


def test_a_gaussian_by_rdp():
    """The same file: z = 4.530877117 at delta 1e-6 costs 1."""
    assert rdp_epsilon(dp.GaussianDpEvent(4.530877117), 1, 1e-6) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("z", "delta", "epsilon"), [(3.730632, 1e-5, 1), (4.224679, 1e-6, 1), (1, 1e-5, 4.377178)])
def test_the_analytic_gaussian(z, delta, epsilon):
    """Balle and Wang, ICML 2018 (arXiv 1805.06530), theorem 8."""
    assert norm.cdf(1 / (2 * z) - epsilon * z) - math.exp(epsilon) * norm.cdf(-1 / (2 * z) - epsilon * z) == (
        pytest.approx(delta, rel=1e-4)
    )
    assert pld_epsilon(dp.GaussianDpEvent(z), 1, delta) == pytest.approx(epsilon, abs=1e-4)
