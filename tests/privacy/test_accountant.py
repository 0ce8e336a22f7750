import math
import sys

import dp_accounting as dp
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from fedloom.core.errors import MissingExtra, StrategyError
from fedloom.core.event import NOT_PRIVATE, SEEDED, DpEvent
from fedloom.privacy import accountant, losses
from fedloom.privacy.accountant import spent
from fedloom.privacy.guarantee import told
from fedloom.privacy.losses import pld_epsilon
from fedloom.privacy.translate import ZERO_OUT, translated
from fedloom.select import Poisson, Uniform

LAPLACE = DpEvent("laplace", {"noise_multiplier": 2.0})
NOISE = DpEvent("gaussian", {"noise_multiplier": 2.0, "delta": 1e-5})


def gaussian(z, rounds, delta):
    """Return epsilon of so many Gaussian releases, by the closed form (Balle and Wang, ICML 2018, theorem 8)."""
    mu = math.sqrt(rounds) / z

    def over(epsilon):
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta

    return brentq(over, 0, 200)


@pytest.mark.slow
@settings(max_examples=20)
@given(z=st.floats(0.7, 20), rounds=st.integers(1, 40), delta=st.sampled_from([1e-3, 1e-5, 1e-8]))
def test_everyone_every_round_costs_the_closed_form(z, rounds, delta):
    found = spent(DpEvent("gaussian", {"noise_multiplier": z}), rounds, delta)
    exact = 0.0 if 2 * norm.cdf(math.sqrt(rounds) / z / 2) - 1 <= delta else gaussian(z, rounds, delta)
    assert exact - 1e-9 <= found.epsilon <= exact * 1.001 + 2e-3
    assert found.epsilon <= found.cross_check + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "z"), [(0.1, 1.0), (0.5, 2.0), (0.01, 0.6)])
def test_a_sampled_release_costs_what_integration_says(rate, z):
    """The hockey-stick divergence of (1 - q)·N(0, z²) + q·N(1, z²) and N(0, z²), in both directions, by quadrature."""
    found = spent(Poisson(rate).event(DpEvent("gaussian", {"noise_multiplier": z})), 1, 1e-4).epsilon

    def mixed(x):
        return (1 - rate) * norm.pdf(x, 0, z) + rate * norm.pdf(x, 1, z)

    def plain(x):
        return norm.pdf(x, 0, z)

    def delta(epsilon):
        return max(
            quad(lambda x, p=p, q=q: max(0.0, p(x) - math.exp(epsilon) * q(x)), -12 * z, 12 * z + 1, limit=400)[0]
            for p, q in ((mixed, plain), (plain, mixed))
        )

    assert delta(found) <= 1e-4 * 1.001
    assert delta(found * 0.99 - 1e-3) > 1e-4


@pytest.mark.slow
def test_more_rounds_less_noise_and_a_higher_rate_cost_more():
    def cost(z, rate, rounds):
        return spent(Poisson(rate).event(DpEvent("gaussian", {"noise_multiplier": z})), rounds, 1e-5).epsilon

    assert cost(1.0, 0.1, 10) < cost(1.0, 0.1, 20) < cost(0.8, 0.1, 20) < cost(0.8, 0.3, 20)
    assert spent(NOISE, 0, 1e-5).epsilon == 0.0


def test_a_sample_of_all_is_everyone():
    every = spent(NOISE, 5, 1e-5).epsilon
    assert spent(Poisson(1.0).event(NOISE), 5, 1e-5).epsilon == pytest.approx(every, rel=1e-3)


@pytest.mark.slow
def test_a_cap_costs_more_and_one_that_never_binds_costs_nothing():
    plain = spent(Poisson(0.1).event(NOISE), 10, 1e-5, 100).epsilon
    loose, tight = (spent(Poisson(0.1, cap=cap).event(NOISE), 10, 1e-5, 100) for cap in (100, 11))
    assert loose.epsilon == pytest.approx(plain, rel=1e-6)
    assert tight.epsilon > plain
    assert tight.cross_check is None
    assert "cut off at 11" in tight.sampling


def test_a_result_says_all_that_it_means():
    found = spent(Poisson(0.1).event(NOISE), 10, 1e-5, 100)
    assert (found.adjacency, found.unit, found.delta, found.rounds) == (ZERO_OUT, "client", 1e-5, 10)
    assert (found.sampling, found.mechanism) == ("Poisson sampling, rate 0.1", "Gaussian noise, multiplier 2")
    assert (found.accountant, found.covers) == ("dp-accounting 0.6.0, PLD", "the shared model after every round")
    assert "not the coordinator" in found.against
    for part in (f"{found.epsilon:.3g}", "1e-05", "10 rounds", found.adjacency, found.sampling, found.against):
        assert part in found.sentence()
    assert found.figures()["epsilon"] == round(found.epsilon, 6)
    assert told(math.inf) == "infinity"


def test_laplace_composes_to_at_most_its_pure_sum():
    found = spent(DpEvent("laplace", {"noise_multiplier": 4.0}), 8, 1e-6)
    assert 1.5 < found.epsilon <= 8 / 4 + 1e-3
    assert spent(DpEvent("laplace", {"noise_multiplier": 4.0}), 1, 1e-12).epsilon == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (NOT_PRIVATE, "does not know what 'not private' costs"),
        (SEEDED, "does not know what 'noise from a seed, for tests' costs"),
        (DpEvent("gdp", {"noise_multiplier": 1.0}), "does not know what 'gdp' costs"),
        (DpEvent("shuffled", {"rate": 0.1}, (NOISE,)), "does not know what 'shuffled' costs"),
        (
            DpEvent("sampled with replacement", {"clients": 3}, (NOISE,)),
            "does not know what 'sampled with replacement'",
        ),
        (DpEvent("composed", {}, (NOISE, NOISE)), "does not know what 'composed' costs"),
        (Poisson(0.1).event(DpEvent("composed", {}, (NOISE, NOISE))), "does not know what 'composed' costs"),
        (Poisson(0.1).event(Poisson(0.1).event(NOISE)), "a sample of a sample is not accounted"),
        (DpEvent("poisson sampled", {"rate": 0.0}, (NOISE,)), r"a sampling rate must be in \(0, 1\], got 0.0"),
        (DpEvent("poisson sampled", {"rate": 1.5}, (NOISE,)), r"a sampling rate must be in \(0, 1\], got 1.5"),
        (DpEvent("poisson sampled", {"rate": math.nan}, (NOISE,)), r"a sampling rate must be in \(0, 1\], got nan"),
        (DpEvent("gaussian", {"noise_multiplier": 0.0}), "a noise multiplier must be above 0 and finite, got 0.0"),
        (DpEvent("gaussian", {"noise_multiplier": -1.0}), "a noise multiplier must be above 0 and finite, got -1.0"),
        (DpEvent("gaussian", {"noise_multiplier": math.nan}), "a noise multiplier must be above 0 and finite, got nan"),
        (DpEvent("laplace", {"noise_multiplier": 0.0}), "a noise multiplier must be above 0 and finite, got 0.0"),
        (DpEvent("gaussian"), "does not know what 'gaussian' costs"),
        (Poisson(0.1, cap=3).event(NOISE), "a capped Poisson sample is accounted for a number of members"),
        (
            Poisson(0.1, cap=3).event(DpEvent("laplace", {"noise_multiplier": 1.0})),
            "a capped Poisson sample is accounted for Gaussian noise alone",
        ),
    ],
)
def test_what_is_not_understood_is_refused(event, text):
    with pytest.raises(StrategyError, match=text):
        spent(event, 1, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_means_nothing_is_refused(delta):
    with pytest.raises(StrategyError, match=r"delta must be in \(0, 1\)"):
        spent(NOISE, 1, delta)


def test_a_delta_that_lets_a_client_be_published_is_refused_and_a_large_one_is_warned_of():
    with pytest.raises(StrategyError, match=r"delta of 0.01 is not below one over 100 clients.*take at most 6.3e-03"):
        spent(NOISE, 1, 0.01, 100)
    assert spent(NOISE, 1, 0.009, 100).warnings == (
        "delta of 0.009 is above 6.3e-03, which is usual for 100 clients (N^-1.1).",
    )
    assert spent(NOISE, 1, 0.006, 100).warnings == ()


def test_rounds_are_not_negative():
    with pytest.raises(StrategyError, match="a number of rounds must be at least 0, got -1"):
        spent(NOISE, -1, 1e-5)


@pytest.mark.parametrize("wrong", [0.5, 100.0])
def test_accountants_that_disagree_are_told_of(monkeypatch, wrong):
    monkeypatch.setattr(accountant, "rdp_epsilon", lambda *_, **__: wrong)
    (warning,) = spent(DpEvent("gaussian", {"noise_multiplier": 2 + wrong / 1000}), 3, 1e-5).warnings
    assert warning.startswith("the two accountants disagree")
    assert f"{wrong:.4g} by RDP" in warning


@pytest.mark.parametrize("kind", ["sampled with replacement", "shuffled", "gdp-clt", "cyclic"])
def test_a_description_that_is_not_known_is_refused_and_says_what_is(kind):
    with pytest.raises(StrategyError, match=f"the accountant does not know what '{kind}' costs; take GaussianNoise"):
        spent(DpEvent(kind, {"rate": 0.1, "noise_multiplier": 1.0}, (NOISE,)), 1, 1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        DpEvent("tree", {"noise_multiplier": 2.0, "rounds": 4}),
        DpEvent("bands", {"noise_multiplier": 2.0, "bands": 2, "every": 1}),
    ],
    ids=lambda event: event.kind,
)
def test_samples_of_correlated_noise_are_refused(inner):
    for select in (Poisson(0.1), Poisson(0.1, cap=3), Uniform(clients=3)):
        with pytest.raises(StrategyError, match="sampl"):
            spent(select.event(inner), 1, 1e-5, 100)


@pytest.mark.slow
def test_what_is_kept_for_all_rounds_gives_what_the_accountant_gives():
    for event, relation in (
        (translated(Poisson(0.2).event(NOISE)).rdp, dp.NeighboringRelation.REPLACE_SPECIAL),
        (translated(Uniform(clients=5).event(NOISE), 50).rdp, dp.NeighboringRelation.REPLACE_ONE),
    ):
        for rounds in (1, 7):
            fresh = RdpAccountant(neighboring_relation=relation).compose(event, rounds).get_epsilon(1e-5)
            replaced = relation is dp.NeighboringRelation.REPLACE_ONE
            assert losses.rdp_epsilon(event, rounds, 1e-5, replace=replaced) == pytest.approx(fresh, rel=1e-12)


def test_sampling_with_replacement_is_known_to_neither_accountant():
    event = dp.SampledWithReplacementDpEvent(100, 10, dp.GaussianDpEvent(1.0))
    assert not PLDAccountant().supports(event)
    assert not any(RdpAccountant(neighboring_relation=relation).supports(event) for relation in dp.NeighboringRelation)


def test_without_the_library_the_message_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedloom\[privacy\]'"):
        spent(DpEvent("gaussian", {"noise_multiplier": 2.5}), 1, 1e-5)


def test_the_two_parts_of_adaptive_clipping_cost_what_one_does():
    """Andrew et al., NeurIPS 2021, theorem 1: z = 1 is z_Δ = 1.005038 on the deltas and 5 on the bit, by RDP."""
    split = dp.ComposedDpEvent((dp.GaussianDpEvent((1 - 0.01) ** -0.5), dp.GaussianDpEvent(2 * 5.0)))
    sampled = dp.PoissonSampledDpEvent(0.1, split)
    one = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.0))
    assert losses.rdp_epsilon(sampled, 1, 1e-5) == pytest.approx(losses.rdp_epsilon(one, 1, 1e-5), rel=1e-9)


def test_a_uniform_sample_is_not_passed_off_as_poisson():
    assert Uniform(fraction=0.1).event(NOISE).kind == "sampled without replacement"


@pytest.mark.slow
@pytest.mark.parametrize(
    "event",
    [
        *(NOISE, LAPLACE, Poisson(0.2).event(NOISE), Poisson(0.2).event(LAPLACE), Poisson(0.2, cap=5).event(NOISE)),
    ],
    ids=lambda event: event.kind,
)
def test_a_distribution_that_is_kept_gives_what_the_accountant_gives(event):
    single = translated(event, 20).single
    for rounds in (1, 7):
        fresh = PLDAccountant(dp.NeighboringRelation.REPLACE_SPECIAL).compose(single, rounds).get_epsilon(1e-5)
        assert pld_epsilon(single, rounds, 1e-5) == pytest.approx(fresh, rel=1e-4)
