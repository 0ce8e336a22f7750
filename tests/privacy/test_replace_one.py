"""Replacing a client moves a sum by twice the clip, and dp-accounting 0.6.0 leaves the two out by RDP.

google/differential-privacy, issue 378. When the first test fails, that is mended there: then `translate._fixed_size`
must no longer halve the noise multiplier.
"""

import dp_accounting as dp
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedloom.core.errors import StrategyError
from fedloom.core.event import DpEvent
from fedloom.privacy.accountant import REPLACE, spent
from fedloom.select import Uniform

RELATIONS = dp.NeighboringRelation
NOISE = DpEvent("gaussian", {"noise_multiplier": 1.0})


def by_rdp(event, relation):
    return RdpAccountant(neighboring_relation=relation).compose(event).get_epsilon(1e-5)


def test_the_library_still_leaves_the_two_out():
    one = dp.GaussianDpEvent(1.0)
    assert by_rdp(one, RELATIONS.REPLACE_ONE) == by_rdp(one, RELATIONS.ADD_OR_REMOVE_ONE)
    assert by_rdp(one, RELATIONS.REPLACE_ONE) == pytest.approx(4.729, abs=1e-3)


def test_the_exact_answer_is_with_the_two():
    """Exactly: dp_accounting.get_epsilon_gaussian with half the noise; PLD has it right."""
    exact = dp.get_epsilon_gaussian(0.5, 1e-5)
    assert exact == pytest.approx(9.997, abs=1e-3)
    assert PLDAccountant(RELATIONS.REPLACE_ONE).compose(dp.GaussianDpEvent(1.0)).get_epsilon(1e-5) == pytest.approx(
        exact, abs=1e-3
    )


def test_a_sample_of_everybody_is_not_below_the_exact_answer():
    assert spent(Uniform(clients=100).event(NOISE), 1, 1e-5, 100).epsilon >= dp.get_epsilon_gaussian(0.5, 1e-5)


@pytest.mark.parametrize(
    ("clients", "members", "z", "rounds", "delta", "epsilon", "raw"),
    [(250, 60000, 1.3, 3600, 1e-5, 7.115, 1.968), (100, 1000, 1.0, 100, 1000**-1.1, 80.0, 11.5)],
)
def test_what_is_told_has_the_two(clients, members, z, rounds, delta, epsilon, raw):
    event = Uniform(clients=clients).event(DpEvent("gaussian", {"noise_multiplier": z}))
    found = spent(event, rounds, delta, members)
    assert found.epsilon == pytest.approx(epsilon, rel=1e-2)
    assert (found.adjacency, found.cross_check) == (REPLACE, None)
    wrong = dp.SampledWithoutReplacementDpEvent(members, clients, dp.GaussianDpEvent(z))
    accountant = RdpAccountant(neighboring_relation=RELATIONS.REPLACE_ONE).compose(wrong, rounds)
    assert accountant.get_epsilon(delta) == pytest.approx(raw, rel=1e-2)


def test_a_fraction_is_that_part_of_the_members():
    by_number, by_part = (
        spent(select.event(NOISE), 3, 1e-4, 50).epsilon for select in (Uniform(clients=10), Uniform(fraction=0.2))
    )
    assert by_number == by_part


def test_what_a_fixed_size_needs():
    with pytest.raises(StrategyError, match="accounted for a number of members; say how many"):
        spent(Uniform(clients=10).event(NOISE), 3, 1e-4)
    with pytest.raises(StrategyError, match="accounted for Gaussian noise alone; take Poisson"):
        spent(Uniform(clients=10).event(DpEvent("laplace", {"noise_multiplier": 1.0})), 3, 1e-4, 50)
