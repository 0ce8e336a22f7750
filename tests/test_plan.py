"""A plan's bytes are those of a run; its seconds come from rounds that are run."""

import json
from dataclasses import replace

import pytest

import fedloom
from fedloom import App, BuiltIn, ConfigError, Data, Dirichlet, SklearnSet
from fedloom.plan import plan, rows

BASE = App(
    model=BuiltIn(name="logistic"),
    data=Data(source=SklearnSet("breast_cancer"), partition=Dirichlet(6, alpha=1.0, min_size=5)),
    strategy=fedloom.fedavg(cohort=4),
    rounds=6,
)
STRATEGIES = {
    "fedavg": BASE.strategy,
    "scaffold": fedloom.scaffold(cohort=4),
    "quantised": replace(BASE.strategy, stages=(fedloom.Quantize(4),)),
    "adam": fedloom.fedadam(),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_bytes_are_those_of_a_run(name: str) -> None:
    app = replace(BASE, strategy=STRATEGIES[name])
    made = plan(app, engine="sequential")[0]
    *_, last = app.run()
    assert last.record is not None
    assert made.down * made.cohort == last.record.bytes_down
    assert made.up * made.cohort == last.record.bytes_up
    assert made.round_bytes == last.record.bytes_down + last.record.bytes_up
    assert made.training_s > 0
    assert made.client_s > 0


def test_variants_say_what_would_help() -> None:
    as_it_is, eight, four, half = plan(BASE, engine="sequential", mbps=1.0, coordinator_mbps=1e6)
    assert as_it_is.up > eight.up > four.up
    assert as_it_is.wire_s > eight.wire_s > four.wire_s
    assert half.round_bytes * 2 == as_it_is.round_bytes
    assert as_it_is.wire_s == pytest.approx((as_it_is.down + as_it_is.up) * 8 / 1e6)


def test_a_larger_cohort_is_bound_by_the_coordinators_link() -> None:
    many = plan(BASE, clients=10_000, engine="sequential", mbps=1000.0, coordinator_mbps=10.0)[0]
    assert many.cohort == 10_000
    assert many.wire_s == pytest.approx(many.round_bytes * 8 / 10e6)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a plan needs links above 0 Mbit/s, got 0 and 1000 Mbit/s\.$"):
        plan(BASE, mbps=0)


def test_a_plan_is_plain_values() -> None:
    made = plan(BASE, engine="sequential")
    assert json.loads(json.dumps(made[0].figures()))["total_bytes"] == made[0].round_bytes * 6
    assert rows(made)[0]["variant"] == "as it is"
