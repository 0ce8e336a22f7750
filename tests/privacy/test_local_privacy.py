"""Local privacy in whole runs: nothing is gained by sampling, and what is done with reports may be anything."""

import math
from dataclasses import dataclass, replace

import pytest
from test_gate import app
from test_run import told

import fedloom
from fedloom.adapters.numpy import linear
from fedloom.core.errors import ConfigError, StrategyError
from fedloom.privacy.accountant import spent
from fedloom.privacy.translate import ANY_TWO
from fedloom.running import begin
from fedloom.trust import trust
from small import regression, small

LOCAL = fedloom.local_dp_fedavg(clip=1.0, noise_multiplier=3.730632, delta=1e-5)


@dataclass(frozen=True, kw_only=True)
class Unasked(fedloom.Buffered):
    """A schedule that takes any strategy."""

    def fits(self, strategy):
        pass


def test_a_report_costs_what_the_analytic_gaussian_says():
    """Balle and Wang, ICML 2018: 3.730632 times the sensitivity for epsilon 1 at delta 1e-5."""
    found = spent(LOCAL.event, 1, 1e-5)
    assert found.epsilon == pytest.approx(1.0, abs=1e-4)
    assert (found.adjacency, found.unit) == (ANY_TWO, "client")
    assert found.against.startswith("everybody")
    assert "own reports" in found.covers
    four = spent(replace(LOCAL, stages=(replace(LOCAL.stages[0], noise_multiplier=2 * 3.730632),)).event, 4, 1e-5)
    assert four.epsilon == pytest.approx(found.epsilon, abs=1e-6)


def test_a_report_with_laplace_noise_costs_its_inverse():
    stage = fedloom.LocalLaplaceNoise(clip=1.0, noise_multiplier=2.0, delta=1e-9)
    assert spent(stage.event(), 1, 1e-9).epsilon == pytest.approx(0.5, abs=1e-3)
    assert spent(stage.event(), 3, 1e-12).epsilon <= 1.5 + 1e-3


@pytest.mark.parametrize("select", [fedloom.Poisson(0.1), fedloom.Poisson(0.1, cap=3), fedloom.Uniform(clients=2)])
def test_sampling_amplifies_nothing(select):
    assert spent(select.event(LOCAL.stages[0].event()), 5, 1e-5).epsilon == spent(LOCAL.event, 5, 1e-5).epsilon


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregate": fedloom.Median()},
        {"aggregate": fedloom.Krum(byzantine=2)},
        {"schedule": fedloom.Sync(quorum=0.5, early=True)},
        {"select": fedloom.Uniform(clients=10)},
    ],
)
def test_what_is_done_with_reports_may_be_anything(changes):
    said = told(begin(app(replace(LOCAL, **changes), rounds=2)))
    assert said[-1]["epsilon"] == round(spent(LOCAL.event, 2, 1e-5).epsilon, 6)
    assert not said[0]["faults"]


def test_what_leaves_beside_the_report_is_refused_as_ever():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(4), holdout=0.25)
    with pytest.raises(ConfigError, match=r"set data\.holdout = 0"):
        app(LOCAL, data=data)
    with pytest.raises(ConfigError, match="means and variances of columns"):
        app(LOCAL, data=replace(data, holdout=0.0))
    with pytest.raises(StrategyError, match=r"take weights=Equal\(\)"):
        replace(LOCAL, weights=fedloom.ByExamples())
    with pytest.raises(StrategyError, match=r"a client reports once in a round, and is counted so: take Sync\(\)"):
        app(replace(LOCAL, schedule=Unasked(size=1, concurrency=1), select=fedloom.Uniform(clients=1)))


@pytest.mark.parametrize("aggregate", [fedloom.Mean(), fedloom.Median()])
def test_a_round_in_which_nobody_reports_changes_nothing(aggregate):
    def train(params, data, config):
        raise ValueError("not today")

    strategy = replace(LOCAL, local=fedloom.Custom(function=train), schedule=fedloom.Sync(quorum=0))
    made = small(linear(3), replace(strategy, aggregate=aggregate), regression((30, 20)))
    (state,) = made.run(1)
    assert not state.vector.any()


def test_it_stops_at_its_budget():
    cost = [spent(LOCAL.event, rounds, 1e-5).epsilon for rounds in (2, 3)]
    said = told(begin(app(LOCAL, rounds=10, stop=fedloom.Stop(epsilon=sum(cost) / 2))))
    assert said[-1]["rounds"] == 2
    assert "the privacy budget of ε = " in said[-1]["reason"]


def test_the_paragraph_of_trust():
    said = trust(LOCAL, spent(LOCAL.event, 2, 1e-5))
    for part in ("adds noise to its own report", "need not be trusted", "against everybody"):
        assert part in said
    assert "can sometimes be reconstructed" not in said
    assert math.isfinite(spent(LOCAL.event, 2, 1e-5).epsilon)
