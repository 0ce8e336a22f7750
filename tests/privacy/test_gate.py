"""Whoever claims differential privacy is refused unless everything is accounted for; each refusal says what to do."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import fedloom
from fedloom.core.errors import ConfigError, StrategyError
from fedloom.core.event import DpEvent
from fedloom.privacy import gate
from fedloom.running import begin
from fedloom.select import Everyone
from fedloom.stages import GaussianNoise

CLEAN = {"holdout": 0.0, "standardised": (), "budget": None}
PRIVATE = fedloom.dp_fedavg(rate=0.5, noise_multiplier=2.0, delta=1e-3)


def source():
    inputs, targets = np.eye(40, dtype=np.float32), np.arange(40) % 2
    return fedloom.Arrays(inputs, targets, classes=2, test_part=(inputs[:6], targets[:6]))


def app(strategy=PRIVATE, **changes):
    data = fedloom.Data(source=source(), partition=fedloom.Iid(20), holdout=0.0)
    return fedloom.App(
        **{"model": fedloom.BuiltIn(name="logistic"), "data": data, "strategy": strategy, "rounds": 3} | changes
    )


@dataclass(frozen=True)
class Shuffled(Everyone):
    """Everybody in turn, declared as if each round were a Poisson sample."""

    def event(self, inner):
        return DpEvent("poisson sampled", {"rate": 0.1}, (inner,))


@dataclass(frozen=True)
class Diverse(GaussianNoise):
    """Noise with a description that the accountant does not know."""

    def event(self):
        return DpEvent("gdp-clt", {"noise_multiplier": 1.0, "delta": 1e-5})


@dataclass(frozen=True)
class Hidden(fedloom.Plain):
    """A gather that claims to show sums alone, among clients that know each other."""

    hides: ClassVar[bool] = True


@dataclass(frozen=True)
class LocallyNoised(fedloom.Sgd):
    """Local work with a claim of its own."""

    def event(self):
        return DpEvent("gaussian", {"noise_multiplier": 1.0, "delta": 1e-5})


SKELLAM = fedloom.dp_secagg_fedavg(survivors=8, noise_multiplier=2.0, delta=1e-3)

STRATEGIES = {
    "a mean that divides by the actual count": (
        {"aggregate": fedloom.Mean()},
        "divides by the actual count, which tells who took part; the denominator must be public: "
        "aggregate=Mean(expected=…)",
    ),
    "a quorum": ({"schedule": fedloom.Sync()}, "every round closes: schedule=Sync(quorum=0)."),
    "a quorum of one": ({"schedule": fedloom.Sync(quorum=1)}, "depending on who answered, which is data"),
    "the quick ones alone": (
        {"schedule": fedloom.Sync(quorum=0, early=True)},
        "a quick client pushes out a slow one, so one client changes more than its own part; leave early out.",
    ),
    "shuffled declared as Poisson": (
        {"select": Shuffled()},
        "how Shuffled draws clients is not accounted for; take Poisson, Uniform or Everyone.",
    ),
    "sampling, and a gather that tells the cohort": (
        {"gather": Hidden()},
        "Hidden tells clients who else was drawn, so that sampling hides nobody from them; take Everyone() to select",
    ),
    "SCAFFOLD": (
        {"local": fedloom.Scaffold(), "aggregate": fedloom.Mean(over={"control": "members"}, expected=0.5)},
        "Scaffold averages blocks over the roster, whose noise is not accounted for; take sgd or fedprox.",
    ),
    "two claims": ({"local": LocallyNoised()}, "two units that do not add up; leave one of them out"),
    "an unknown mechanism": (
        {"stages": (Diverse(clip=1.0, noise_multiplier=1.0, delta=1e-5),)},
        "does not know what 'gdp-clt' costs",
    ),
}


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"an unknown mechanism"}))
def test_a_strategy_that_leaks_past_the_accountant_is_refused(name):
    changes, text = STRATEGIES[name]
    with pytest.raises(StrategyError) as caught:
        app(replace(PRIVATE, **changes))
    assert text in str(caught.value)


def test_a_mechanism_that_is_not_known_is_refused_before_round_1():
    changes, text = STRATEGIES["an unknown mechanism"]
    with pytest.raises(StrategyError, match=text):
        begin(app(replace(PRIVATE, **changes)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"gather": fedloom.Plain()},
            r"protects nothing while Plain shows its update by itself; take gather=SecAgg\(survivors=8",
        ),
        (
            {"gather": Hidden()},
            r"protects nothing while Hidden shows its update by itself; take gather=SecAgg\(survivors=8",
        ),
        (
            {"gather": fedloom.SecAgg()},
            "counts on 8 honest clients in a sum, and SecAgg opens one of 3; set gather=SecAgg",
        ),
        ({"select": fedloom.Poisson(0.5)}, "SecAgg tells clients who else was drawn"),
        ({"aggregate": fedloom.Mean()}, "the denominator must be public"),
    ],
)
def test_noise_that_clients_share_is_refused_where_a_client_could_not_count_on_the_others(changes, text):
    with pytest.raises(StrategyError, match=text):
        app(replace(SKELLAM, **changes))


def test_more_helpers_of_the_coordinator_than_the_hidden_sum_bears_are_refused():
    begin(app(replace(SKELLAM, gather=fedloom.SecAgg(survivors=10))))
    few = fedloom.dp_secagg_fedavg(survivors=2, noise_multiplier=2.0, delta=1e-3)
    with pytest.raises(StrategyError, match=r"leaves room for 13 that help the coordinator.*it bears fewer than 6"):
        begin(app(replace(few, gather=fedloom.SecAgg(survivors=15))))


@pytest.mark.parametrize("weights", [fedloom.ByExamples(), fedloom.Given({"a": 1.0})])
def test_private_weights_are_refused(weights):
    with pytest.raises(StrategyError, match=r"tells something about a client's rows.*take weights=Equal\(\)"):
        replace(PRIVATE, weights=weights)


def test_a_buffered_schedule_and_a_median_are_refused():
    with pytest.raises(StrategyError, match="accounted for cohorts drawn by round, and Buffered has none"):
        replace(PRIVATE, schedule=fedloom.Buffered(size=1, concurrency=1), select=fedloom.Uniform(clients=1))
    with pytest.raises(StrategyError, match="GaussianNoise works on a sum, but Median makes none"):
        replace(PRIVATE, aggregate=fedloom.Median())


def test_measuring_at_the_sites_is_refused():
    data = fedloom.Data(source=source(), partition=fedloom.Iid(4), holdout=0.25)
    with pytest.raises(ConfigError, match=r"those figures are not accounted for; set data\.holdout = 0"):
        app(data=data)


def test_standardising_with_the_sites_statistics_is_refused():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), holdout=0.0)
    with pytest.raises(ConfigError, match=r"means and variances of columns \(.*\) would be released before round 1"):
        app(data=data)


def test_a_budget_without_a_claim_is_refused():
    with pytest.raises(ConfigError, match=r"Stop\.epsilon is a budget of 3, but nothing here is differentially priv"):
        app(fedloom.fedavg(), stop=fedloom.Stop(epsilon=3.0))
    with pytest.raises(ConfigError, match="nothing here is differentially private"):
        app(fedloom.dp_fedavg(seeded=True), stop=fedloom.Stop(epsilon=3.0))


def test_a_budget_that_not_one_round_keeps_to_is_refused_before_it_begins():
    with pytest.raises(ConfigError, match=r"the first round alone spends ε = .*above the budget of 0.01"):
        begin(app(stop=fedloom.Stop(epsilon=0.01)))


def test_too_few_clients_for_delta_are_refused_before_it_begins():
    with pytest.raises(StrategyError, match=r"delta of 0\.05 is not below one over 20 clients"):
        begin(app(fedloom.dp_fedavg(delta=0.05)))


def test_batch_normalisation_is_refused():
    from fedloom.adapters.torch import torch_model
    from nets import Norm

    with pytest.raises(StrategyError, match=r"is a buffer and not a parameter.*keep batch normalisation at home"):
        PRIVATE.payload(torch_model(Norm).layout)


def test_what_is_in_order_passes_and_so_does_whoever_claims_nothing():
    gate.check(PRIVATE, **CLEAN)
    for select in (fedloom.Poisson(0.5, cap=15), fedloom.Uniform(clients=5), fedloom.Everyone()):
        gate.check(replace(PRIVATE, select=select), **CLEAN)
    gate.check(replace(PRIVATE, local=fedloom.Prox(mu=0.1), stages=(fedloom.Clip(3.0), *PRIVATE.stages)), **CLEAN)
    gate.check(replace(PRIVATE, select=fedloom.Everyone(), gather=Hidden()), **CLEAN)
    gate.check(fedloom.fedavg(), holdout=0.2, standardised=("age",), budget=None)
    gate.check(fedloom.dp_fedavg(seeded=True), holdout=0.2, standardised=("age",), budget=None)


def test_what_depends_on_the_number_of_members():
    assert not gate.depends_on_members(PRIVATE)
    assert gate.depends_on_members(replace(PRIVATE, select=fedloom.Poisson(0.5, cap=15)))
    assert gate.depends_on_members(replace(PRIVATE, select=fedloom.Uniform(clients=5)))
