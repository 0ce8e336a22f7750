"""Example-level claims: by site, at the worst, never mixed with clients'; whole runs; what is refused."""

import json
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

import fedloom
from fedloom import events
from fedloom.core.errors import ConfigError, StrategyError
from fedloom.core.event import DpEvent
from fedloom.core.task import Member
from fedloom.data.partition import Quantity
from fedloom.privacy import examples
from fedloom.running import begin
from fedloom.select import Everyone
from fedloom.trust import spent as in_words
from fedloom.trust import trust

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text())
)
PRIVATE = fedloom.dp_sgd_fedavg(fedloom.sgd(0.5), lot=8, clip=1.0, noise_multiplier=2.0, delta=1e-3)
MEMBERS = [Member("north", 80), Member("south", 20), Member("west", 5)]


def source(n=120):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(n, 3)).astype(np.float32)
    return fedloom.Arrays(inputs, (inputs[:, 0] > 0).astype(np.int64), classes=2)


def app(strategy=PRIVATE, **changes):
    data = fedloom.Data(source=source(), partition=Quantity(3, 1.0), holdout=0.2)
    return fedloom.App(
        **{"model": fedloom.BuiltIn(name="logistic"), "data": data, "strategy": strategy, "rounds": 2} | changes
    )


def by_hand(rate, steps, z=2.0, delta=1e-3):
    """The library's own accountant, add or remove, without ours."""
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(z)) if rate < 1 else GaussianDpEvent(z)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    return accountant.compose(event, steps).get_epsilon(delta)


@pytest.mark.slow
def test_every_site_has_its_own_epsilon_and_the_worst_is_told():
    found = examples.guarantee(PRIVATE.examples, 3, MEMBERS)
    expected = {"north": by_hand(0.1, 3 * 10), "south": by_hand(0.4, 3 * 3), "west": by_hand(1.0, 3 * 1)}
    assert found.sites == pytest.approx(expected, rel=1e-3)
    assert found.epsilon == max(found.sites.values())
    assert (found.unit, found.rounds, found.delta) == ("example", 3, 1e-3)
    assert "one training example's whole contribution" in found.adjacency
    assert "the coordinator" in found.against
    assert "not figures on held-out rows" in found.covers


def test_a_fraction_costs_all_sites_the_same():
    strategy = fedloom.dp_sgd_fedavg(lot=0.25, noise_multiplier=2.0, delta=1e-3)
    assert len(set(examples.guarantee(strategy.examples, 2, MEMBERS).sites.values())) == 1


def test_of_many_sites_the_worst_is_bounded_and_only_the_first_are_told():
    many = [Member(f"s{n}", n) for n in range(100, 300)]
    event = fedloom.dp_sgd_fedavg(fedloom.sgd(steps=2), lot=10, noise_multiplier=2.0, delta=1e-3).examples
    found = examples.guarantee(event, 2, many)
    assert found.epsilon >= examples.guarantee(event, 2, many[:1]).epsilon - 1e-9
    assert found.sites == {}
    alike = [Member(f"s{n}", 100) for n in range(150)]
    assert len(examples.guarantee(event, 2, alike).sites) == examples.LISTED


@pytest.mark.slow
def test_the_noise_that_is_found_keeps_every_site_within_the_budget():
    local = replace(PRIVATE.local, lot=100)  # all of everybody's, which is quick to account
    z = examples.calibrated(local.event(), 1.5, 3, MEMBERS)
    enough, less = (replace(local, noise_multiplier=z - step).event() for step in (0.0, 2e-3))
    assert examples.guarantee(enough, 3, MEMBERS).epsilon <= 1.5 < examples.guarantee(less, 3, MEMBERS).epsilon


def told(recording):
    with closing(recording):
        said = [events.round_event(state) for state in recording.rounds()]
    return [json.loads(json.dumps(event, allow_nan=False)) for event in [*said, recording.summary]]


def test_a_run_tells_it_by_site_and_explains_it_at_the_end():
    said = told(begin(app()))
    for event in said:
        SCHEMA.validate(event)
        assert event["epsilon"] == max(event["epsilons"].values())
        assert set(event["epsilons"]) == {"client-000", "client-001", "client-002"}
        assert event["delta"] == 1e-3
    assert said[0]["epsilon"] < said[1]["epsilon"] == said[-1]["epsilon"]
    assert said[-1]["guarantee"]["sites"] == said[-1]["epsilons"]
    assert said[-1]["guarantee"]["unit"] == "example"
    assert all(event["training"] == {"examples": 0} for event in said[:-1])


def test_a_run_ends_before_the_worst_site_would_exceed_the_budget():
    members = begin(app()).simulation.federation.members()
    two, three = (examples.guarantee(PRIVATE.examples, rounds, members).epsilon for rounds in (2, 3))
    said = told(begin(app(rounds=9, stop=fedloom.Stop(epsilon=(two + three) / 2))))
    assert (said[-1]["status"], said[-1]["rounds"], said[-1]["epsilon"]) == ("completed", 2, round(two, 6))
    assert f"round 3 would bring it to {three:.4g}" in said[-1]["reason"]


def test_seeded_noise_claims_nothing_and_gives_the_same_bits_in_every_engine():
    strategy = fedloom.dp_sgd_fedavg(lot=8, delta=1e-3, seeded=True)
    said = told(begin(app(strategy)))
    for event in said:
        SCHEMA.validate(event)
    assert {event["epsilon"] for event in said} == {"infinity"}
    assert not any("epsilons" in event or "guarantee" in event for event in said)
    ends = {
        engine: list(app(strategy).run(engine=engine))[-1].vector for engine in ("sequential", "pool", "vectorized")
    }
    assert ends["sequential"].tobytes() == ends["pool"].tobytes()
    np.testing.assert_allclose(ends["vectorized"], ends["sequential"], atol=1e-6)


@pytest.mark.parametrize("engine", ["pool", "vectorized"])
def test_other_engines_claim_the_same(engine):
    *_, last = app().run(engine=engine)
    members = begin(app()).simulation.federation.members()
    assert last.epsilons == examples.guarantee(PRIVATE.examples, 2, members).sites
    *_, again = app().run(engine=engine)
    assert not np.any(last.vector == again.vector)


def test_the_paragraph_of_trust_says_the_unit_and_what_is_not_covered():
    found = examples.guarantee(PRIVATE.examples, 2, MEMBERS)
    said = trust(PRIVATE, found)
    for part in ("example-level", "unit: example", "A person with several rows", "rows that a site holds out", "ε = "):
        assert part in said
    assert "everybody must trust the coordinator" not in said
    assert "∞" not in said
    assert "Each site's ε follows from how many rows" in trust(PRIVATE)
    assert "from a seed, for tests, so nothing is claimed (ε = ∞)" in trust(fedloom.dp_sgd_fedavg(seeded=True))
    assert "By site: north " in in_words(found)


@dataclass(frozen=True)
class Twice(Everyone):
    """A selector whose draws are not known."""


@dataclass(frozen=True)
class Noised(fedloom.Sgd):
    """Local work with a claim of its own."""

    def event(self):
        return DpEvent("gaussian", {"noise_multiplier": 1.0, "delta": 1e-5})


REFUSED = {
    "weights by rows": ({"weights": fedloom.ByExamples()}, "ByExamples tells how many rows a site could use"),
    "an unknown selector": ({"select": Twice()}, "how often Twice asks a site in a round is not known"),
    "leaves at home": (
        {"local": fedloom.AtHome(local=PRIVATE.local, leaves=("*bias",))},
        "what AtHome claims for single examples is not accounted for; take DpSgd, with no leaves at home",
    ),
    "somebody's own claim": ({"local": Noised()}, "what Noised claims for single examples is not accounted for"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_leak_past_the_accountant_is_refused(name):
    changes, text = REFUSED[name]
    with pytest.raises(StrategyError) as caught:
        app(replace(PRIVATE, **changes))
    assert text in str(caught.value)


def test_claims_of_two_units_are_never_mixed():
    noise = fedloom.GaussianNoise(clip=1.0, noise_multiplier=1.0, delta=1e-3)
    with pytest.raises(StrategyError, match="DpSgd claims privacy for single examples and GaussianNoise for whole cl"):
        replace(PRIVATE, stages=(noise,))


def test_a_buffered_schedule_is_refused():
    buffered = fedloom.Buffered(size=1, concurrency=1)
    with pytest.raises(StrategyError, match="the privacy of DpSgd is accounted for cohorts drawn by round"):
        replace(PRIVATE, schedule=buffered, select=fedloom.Uniform(clients=1))


def test_columns_are_scaled_by_public_ranges_or_refused():
    data = fedloom.Data(source=fedloom.SklearnSet("breast_cancer"))
    with pytest.raises(ConfigError, match=r'columns \(.*\) would be released before round 1.*scaling = "range"'):
        app(data=data)
    heart = fedloom.heart_disease()
    app(data=fedloom.Data(source=replace(heart, schema=heart.schema.ranged())))


def test_too_few_examples_for_delta_and_a_hopeless_budget_are_refused_before_it_begins():
    with pytest.raises(StrategyError, match=r"delta of 0\.5 is not below one over the \d+ examples of client-00"):
        begin(app(fedloom.dp_sgd_fedavg(lot=8, delta=0.5)))
    with pytest.raises(ConfigError, match=r"the first round alone spends ε = .* at the worst site, above the budget"):
        begin(app(stop=fedloom.Stop(epsilon=0.01)))


def test_what_is_not_known_is_refused():
    with pytest.raises(StrategyError, match="does not know what 'gaussian' of single examples costs; take DpSgd"):
        examples.guarantee(Noised().event(), 1, MEMBERS)


def test_stages_on_the_road_and_any_aggregator_are_allowed():
    for changes in (
        {"stages": (fedloom.Clip(3.0), fedloom.Quantize(bits=8))},
        {"aggregate": fedloom.Median()},
        {"weights": fedloom.Given({"client-000": 2.0, "client-001": 1.0, "client-002": 1.0})},
        {"select": fedloom.Uniform(clients=2), "optimizer": fedloom.Adam(0.1)},
    ):
        *_, last = app(replace(PRIVATE, **changes)).run()
        assert last.epsilon < 10


def test_a_sites_ledger_counts_answers_as_the_run_does(tmp_path):
    from fedloom.core.budget import Budget
    from fedloom.core.task import Train
    from fedloom.privacy.account import Account
    from fedloom.privacy.ledger import SITE, Ledger, run_of
    from fedloom.store.notes import Notes

    described = run_of(PRIVATE, run="r", app="a", name="n", rounds=9, examples=20)
    assert described.noise == SITE
    two, three = (examples.guarantee(PRIVATE.examples, rounds, MEMBERS[1:2]).epsilon for rounds in (2, 3))
    ledger = Ledger.opened(tmp_path / "ledger.jsonl")
    data = ledger.known("digest", 20, ["row"])
    body = Train(1, np.zeros(4, np.float32), "layout", 1)

    def account(unit):
        budget = Budget(epsilon=(two + three) / 2, delta=1e-3, unit=unit)
        return Account.opened(ledger, data, described, budget, notes)

    with closing(Notes(tmp_path / "site.db")) as notes:
        why = account("client").objection(body)
        assert "this site's budget is for one client, and this app protects one example" in why
        assert [account("example").spend(body) for _ in range(2)] == ["", ""]
        assert f"would bring it to {three:.4g}" in account("example").spend(body)
