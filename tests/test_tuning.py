"""Sizes are found by measuring; measuring leaves no trace but the size."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import fedloom
from fedloom import engines, tuning
from fedloom.adapters.torch import torch_model
from fedloom.core.errors import ConfigError
from fedloom.core.layout import Layout, Leaf
from fedloom.engines import Engine, stack_of
from fedloom.local import Custom, Sgd
from fedloom.recipes import fedavg, scaffold
from fedloom.runtime.device import Device
from fedloom.simulation import simulate
from fedloom.tuning import Trial, affordable, best, chosen, fitting, measured, sizes, timed
from small import classification, small

SIZES = (12, 20, 7, 15, 9, 11, 13, 8)


def net():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def there(strategy=None, splits=None):
    return small(torch_model(net), strategy or fedavg(Sgd(batch_size=4)), splits or classification(SIZES))


def engine(found, asked="vectorized"):
    return chosen(Engine.of(asked), found.strategy, found.parties, found.terms, found.state)


@pytest.fixture
def cores(monkeypatch):
    """Sizes as on a machine with two cores and 8 GB."""
    monkeypatch.setattr(tuning, "cores", lambda: 2)
    monkeypatch.setattr(tuning, "memory", lambda: 8 * 10**9)


def test_the_size_is_one_of_those_tried_and_says_what_was_measured(cores):
    found = there(splits=classification(SIZES * 4))
    taken = engine(found)
    assert taken.chunk in sizes(found.terms.model, 32)
    assert taken.why.startswith("ms a client by clients at a time: 5: ")
    assert Engine.of(str(taken)).chunk == taken.chunk


def test_a_size_that_was_asked_for_is_not_measured(monkeypatch):
    monkeypatch.setattr(tuning, "timed", None)
    assert engine(there(), "vectorized/3") == Engine("vectorized", 3)


@pytest.mark.parametrize(
    ("floats", "cohort", "expected"),
    [
        (100, 1000, (50, 25, 100, 10, 5)),
        (100, 40, (20, 10, 5)),  # a worker's share
        (100, 6, (3,)),
        (200_000, 1000, (7, 25, 50, 100)),  # 5 and 10 are near
        (5_000_000, 1000, (1, 5, 8)),  # each worker has a gigabyte, which holds eight
        (10**9, 1000, (1,)),
    ],
)
def test_sizes_lie_around_the_rule_within_chunk_and_memory(cores, floats, cohort, expected):
    assert sizes(Layout((Leaf("w", (floats,)),)), cohort) == expected
    assert fitting(Layout((Leaf("w", (floats,)),))) in range(1, 51)


def test_the_fastest_size_is_taken_if_it_is_clearly_faster(monkeypatch):
    assert best(7, {7: 2.0, 5: 1.0, 10: 3.0}).chunk == 5
    assert best(7, {7: 2.0, 5: 1.95, 10: 3.0}).chunk == 7
    assert best(7, {}) == Engine("vectorized", 7, "what fits the cache; no time to measure other sizes")


def test_timing_tells_a_slow_size_from_a_quick_one(monkeypatch):
    now = [0.0]
    costs = {1: 0.001, 5: 0.02, 8: 0.004}

    def pretend(self, stack, size):
        def work():
            now[0] += costs[size]

        return work

    monkeypatch.setattr(Trial, "stacked", pretend)
    monkeypatch.setattr(tuning, "perf_counter", lambda: now[0])
    found = there()
    trial = Trial.of(8, found.strategy, found.parties, found.terms, found.state)
    times = timed((5, 8, 1), object(), trial)
    assert {size: round(seconds * 8, 6) for size, seconds in times.items()} == {5: 0.02, 8: 0.004, 1: 0.001}
    assert timed((5, 8, 1), object(), trial, limit_s=0.001) == {}


def test_measuring_ends_at_its_limit(monkeypatch):
    found = there()
    trial = Trial.of(8, found.strategy, found.parties, found.terms, found.state)
    assert timed((5, 8), stack_of(found.parties), trial, limit_s=0.0) == {}
    assert affordable((5, 8), 1.0, 1.0) == ()


@pytest.mark.parametrize("strategy", [fedavg(Sgd(batch_size=4)), scaffold(Sgd(batch_size=4))])
def test_nothing_is_left_of_a_measurement(strategy):
    measuring, fresh = there(strategy), there(strategy)
    engine(measuring)
    measured(measuring.strategy, measuring.parties, measuring.terms, measuring.state)
    for party in measuring.parties.values():
        assert party.pending == {}
    one, other = measuring.run(2)[-1], fresh.run(2)[-1]
    assert one.vector.tobytes() == other.vector.tobytes()


def test_a_client_that_fails_ends_measuring_and_not_the_run():
    splits = classification(SIZES)
    first = splits["site0"]
    splits["site0"] = replace(first, train=first.train.take(slice(0, 0)))
    taken = engine(there(splits=splits))
    assert taken.why == "what fits the cache; no time to measure other sizes"


def app(local=None):
    return fedloom.App(
        model=fedloom.torch_model(lambda: nn.Linear(30, 2).double()),
        data=fedloom.Data(source=fedloom.SklearnSet("breast_cancer"), partition=fedloom.Iid(6)),
        strategy=replace(fedavg(Sgd(batch_size=16)), **({"local": local} if local else {})),
        rounds=2,
    )


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Models count as living on a device: the code that a CUDA device takes, on this machine's memory."""
    monkeypatch.setattr(tuning, "on_device", lambda model: True)
    monkeypatch.setattr(engines, "on_device", lambda model: True)
    monkeypatch.setattr(engines, "forkable", lambda: False)


@pytest.mark.parametrize("asked", ["auto", "vectorized", "vectorized/4"])
def test_a_model_on_a_device_trains_there_without_a_fork(as_on_a_device, asked):
    simulation = simulate(app(), engine=asked)
    assert isinstance(simulation.federation, Device)
    assert str(simulation.engine) == ("vectorized/4" if "/" in asked else "vectorized/6")
    *_, state = simulation.rounds(simulation.first())
    *_, alone = simulate(app()).rounds(simulation.first())
    np.testing.assert_allclose(state.vector, alone.vector, rtol=1e-10, atol=1e-12)
    assert state.metrics.view()["accuracy"] == alone.metrics.view()["accuracy"]
    simulation.close()


def test_what_cannot_be_stacked_stays_sequential_on_a_device(as_on_a_device):
    simulation = simulate(app(Custom(function=lambda params, data, config: params)), engine="auto")
    assert simulation.engine.name == "sequential"
    assert "Custom trains one client at a time" in simulation.engine.why
    with pytest.raises(ConfigError, match="pool forks processes, which cannot use a CUDA device; take vectorized or"):
        simulate(app(), engine="pool")
