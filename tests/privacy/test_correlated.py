"""DP-FTRL: what correlated noise costs, and for whom it is refused."""

import math
from dataclasses import replace

import dp_accounting as dp
import pytest
from dp_accounting.rdp import RdpAccountant
from test_gate import app
from test_run import told

import fedloom
from fedloom.core.errors import StrategyError
from fedloom.core.event import DpEvent
from fedloom.privacy.accountant import spent
from fedloom.privacy.bands import Bands
from fedloom.privacy.compose import composed
from fedloom.privacy.translate import ZERO_OUT, translated
from fedloom.running import begin, resume
from fedloom.stages.band_noise import sensitivity

TREE = fedloom.dp_ftrl(fedloom.sgd(0.1), every=4, noise_multiplier=4.0, delta=1e-3)
BANDS = fedloom.dp_ftrl(fedloom.sgd(0.1), every=4, bands=3, noise_multiplier=4.0, delta=1e-3)


@pytest.mark.parametrize(("z", "most", "rdp"), [(1.13, 19.74, 18.7096), (8.83, 2.04, 1.7732)])
def test_a_tree_of_1600_rounds(z, most, rdp):
    """After Kairouz et al., ICML 2021; by RDP measured with dp-accounting 0.6.0, delta 1e-6."""
    event = fedloom.Cyclic(1600).event(DpEvent("tree", {"noise_multiplier": z, "rounds": 1600}))
    found = spent(event, 1600, 1e-6)
    assert found.epsilon < found.cross_check < most
    assert found.cross_check == pytest.approx(rdp, abs=1e-3)
    relation = dp.NeighboringRelation.REPLACE_SPECIAL
    accountant = RdpAccountant(neighboring_relation=relation).compose(dp.SingleEpochTreeAggregationDpEvent(z, 1600))
    assert accountant.get_epsilon(1e-6) == pytest.approx(found.cross_check, rel=1e-9)


def test_each_tree_costs_once_whoever_was_asked_how_often():
    costs = [spent(TREE.event, rounds, 1e-3).epsilon for rounds in (1, 4, 5, 8)]
    assert costs[0] == costs[1] < costs[2] == costs[3]
    assert costs[0] == spent(DpEvent("gaussian", {"noise_multiplier": 4.0 / math.sqrt(3)}), 1, 1e-3).epsilon
    assert spent(TREE.event, 4, 1e-3).adjacency == ZERO_OUT
    assert "in one of any 4 rounds in a row" in spent(TREE.event, 4, 1e-3).sampling


def test_plain_noise_for_clients_in_turn_costs_their_turns():
    gaussian = DpEvent("gaussian", {"noise_multiplier": 4.0})
    assert spent(fedloom.Cyclic(5).event(gaussian), 11, 1e-3).epsilon == spent(gaussian, 3, 1e-3).epsilon


@pytest.mark.parametrize("rounds", [1, 3, 4, 5, 40])
def test_bands_cost_one_gaussian_of_the_longest_that_parts_can_be(rounds):
    found = spent(BANDS.event, rounds, 1e-3)
    z = 4.0 / sensitivity(3, 4, rounds)
    assert found.epsilon == pytest.approx(spent(DpEvent("gaussian", {"noise_multiplier": z}), 1, 1e-3).epsilon)
    assert found.cross_check is None
    assert "correlated over 3 rounds" in found.mechanism


def test_one_band_costs_what_independent_noise_does():
    one = fedloom.dp_ftrl(every=4, bands=1, noise_multiplier=4.0, delta=1e-3)
    assert spent(one.event, 9, 1e-3).epsilon == pytest.approx(
        spent(DpEvent("gaussian", {"noise_multiplier": 4.0}), 3, 1e-3).epsilon, abs=1e-6
    )


def test_clients_that_are_asked_too_often_are_refused():
    for strategy in (TREE, BANDS):
        with pytest.raises(StrategyError, match=r"asked in one of 3; take Cyclic\(every=4\) to select"):
            app(replace(strategy, select=fedloom.Cyclic(3)))
        app(replace(strategy, select=fedloom.Cyclic(5), aggregate=fedloom.Mean(expected=0.2)))


@pytest.mark.parametrize("select", [fedloom.Everyone(), fedloom.Poisson(0.1), fedloom.Uniform(clients=3)])
def test_clients_of_which_nobody_says_how_far_apart_they_are_are_refused(select):
    for strategy in (TREE, BANDS):
        with pytest.raises(StrategyError, match=r"does not say how far; take Cyclic\(every=…\) to select"):
            app(replace(strategy, select=select))


def test_shared_and_local_noise_in_turn_are_refused():
    local = fedloom.LocalGaussianNoise(clip=1.0, noise_multiplier=2.0, delta=1e-3).event()
    with pytest.raises(StrategyError, match=r"accounted for everyone in every round; take Everyone\(\)"):
        translated(fedloom.Cyclic(2).event(local))
    with pytest.raises(StrategyError, match=r"accounted for everyone in every round; take Everyone\(\)"):
        app(replace(fedloom.dp_secagg_fedavg(survivors=8, delta=1e-3), select=fedloom.Cyclic(2)))


def test_a_ledger_counts_a_sites_own_parts():
    """It knows its answers, and neither rounds nor selection: parts are as far apart as the noise is for."""
    tree, bands = (strategy.stages[0].event() for strategy in (TREE, BANDS))
    assert composed([(tree, 3)], 1e-3).epsilon == pytest.approx(spent(TREE.event, 12, 1e-3).epsilon, rel=1e-3)
    parts = composed([(bands, 3)], 1e-3).epsilon
    assert spent(BANDS.event, 9, 1e-3).epsilon <= parts <= spent(BANDS.event, 12, 1e-3).epsilon * 1.1
    assert Bands(4.0, 3, 4, parts=True).epsilon(1, 1e-3) >= spent(BANDS.event, 4, 1e-3).epsilon


@pytest.mark.parametrize("strategy", [TREE, BANDS], ids=["tree", "bands"])
def test_a_run_tells_what_it_costs(strategy):
    said = told(begin(app(strategy, rounds=5)))
    costs = [round(spent(strategy.event, rounds, 1e-3).epsilon, 6) for rounds in range(1, 6)]
    assert [event["epsilon"] for event in said[:-1]] == costs
    assert said[-1]["guarantee"]["warnings"] == []


@pytest.mark.parametrize("strategy", [TREE, BANDS], ids=["tree", "bands"])
def test_a_run_that_was_stopped_takes_back_what_it_added(strategy, tmp_path):
    """The journal has the keys: after the end of a tree what is left is one node, or a fresh one and its like."""
    recording = begin(app(strategy, rounds=8), tmp_path)
    rounds = recording.rounds()
    first = [next(rounds) for _ in range(3)][-1]
    rounds.close()
    recording.close()
    again = resume(app(strategy, rounds=8), recording.folder)
    kept = again.state.stages[0]
    assert kept["keys"].tobytes() == first.stages[0]["keys"].tobytes()
    *_, last = again.rounds()
    again.close()
    assert last.round == 8
    assert last.epsilon == spent(strategy.event, 8, 1e-3).epsilon
