"""Federations too large to be looked at one by one: built as they are asked, to the same bits."""

from contextlib import closing

import numpy as np
import pytest

import fedloom
from apps import app, ended, needs_data
from fedloom.core.errors import ConfigError
from fedloom.core.lazy import Lazy
from fedloom.data import holds
from fedloom.recipes import fedavg, fedbn, scaffold, sgd
from fedloom.running import begin, resume
from fedloom.simulation import simulate
from fedloom.store import memories

DIGITS = fedloom.SklearnSet("digits")
STRATEGIES = {
    "fedavg": fedavg(cohort=4),
    "scaffold": scaffold(cohort=4),
    "home": fedbn(leaves=("bias",), cohort=4),
}


@pytest.fixture
def many(monkeypatch):
    """Take even a few clients for many, keep few of them, and next to nothing of their memory at hand."""

    def lower():
        monkeypatch.setattr(holds, "MANY", 2)
        monkeypatch.setattr(holds, "KEPT", 2)
        monkeypatch.setattr("fedloom.simulation.KEPT", 1)
        monkeypatch.setattr(
            memories.Memories.__init__, "__defaults__", (1, *memories.Memories.__init__.__defaults__[1:])
        )

    return lower


def one(strategy="fedavg", partition=fedloom.Iid(12), rounds=4, source=None, **changes):
    data = fedloom.Data(source=source or fedloom.SklearnSet("breast_cancer"), partition=partition)
    return app(**{"data": data, "strategy": STRATEGIES[strategy], "rounds": rounds, "evaluate_sites": 12} | changes)


def vectors(made, engine):
    with closing(simulate(made, engine=engine)) as simulation:
        states = list(simulation.rounds(simulation.first()))
        return simulation, [state.vector.tobytes() for state in states], [state.metrics.view() for state in states]


@pytest.mark.parametrize("engine", ["sequential", "pool", "vectorized/3"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_many_and_few_give_the_same_bits(many, strategy, engine):
    few, bits, figures = vectors(one(strategy), engine)
    many()
    lazy, again, same = vectors(one(strategy), engine)
    assert isinstance(lazy.parties, Lazy)
    assert not isinstance(few.parties, Lazy)
    assert (bits, figures) == (again, same)
    if strategy != "fedavg":
        assert lazy.memories._places
        assert lazy.memories.used <= 10_000


@pytest.mark.parametrize(
    "partition",
    [
        fedloom.Dirichlet(9, 0.5),
        fedloom.Shards(9, 2),
        fedloom.Quantity(9, 0.5),
        fedloom.Shifted(fedloom.Iid(9), noise=0.1),
    ],
)
def test_every_partition_can_be_looked_at_as_it_is_asked(many, partition):
    made = one(partition=partition, source=DIGITS)
    _, bits, figures = vectors(made, "sequential")
    many()
    lazy, again, same = vectors(made, "sequential")
    assert isinstance(lazy.held, Lazy)
    assert (bits, figures) == (again, same)


@needs_data
def test_natural_sites_can_be_many(many):
    source = fedloom.heart_disease()
    made = one(partition=fedloom.ByColumn("site"), source=source, strategy="fedavg")
    _, bits, _ = vectors(made, "sequential")
    many()
    assert vectors(made, "sequential")[1] == bits


@pytest.mark.parametrize("strategy", ["scaffold", "home"])
def test_memories_on_disk_survive_a_resume(many, tmp_path, strategy):
    many()
    whole = ended(begin(one(strategy), tmp_path / "whole"))
    recording = begin(one(strategy), tmp_path / "parts")
    rounds = recording.rounds()
    next(rounds), next(rounds)
    rounds.close()
    recording.close()
    assert ended(resume(one(strategy), recording.folder))["sha256"] == whole["sha256"]


def test_a_sample_of_sites_measures_and_is_drawn_anew(many):
    many()
    with closing(simulate(one(rounds=5, evaluate_sites=3))) as simulation:
        sites = [tuple(state.sites) for state in simulation.rounds(simulation.first())]
    assert all(len(names) == 3 for names in sites)
    assert len(set(sites)) > 1


def test_a_sample_can_be_asked_of_a_few_sites_too():
    with closing(simulate(one(rounds=2, evaluate_sites=3))) as simulation:
        assert [len(state.sites) for state in simulation.rounds(simulation.first())] == [3, 3]
    with pytest.raises(ConfigError, match="evaluate_sites must be at least 1, got 0"):
        one(evaluate_sites=0)


def test_measuring_on_all_of_many_is_refused(many):
    many()
    with pytest.raises(ConfigError, match=r"12 sites are too many to measure on .* set evaluate_sites = 1000"):
        simulate(one(evaluate_sites=None))


def test_a_million_clients_start_at_once():
    images = fedloom.Arrays(np.eye(50, 9), np.arange(50) % 3, classes=3, test_part=(np.eye(6, 9), np.arange(6) % 3))
    data = fedloom.Data(source=images, partition=fedloom.Drawn(1_000_000, 10), holdout=0.0)
    made = fedloom.App(
        model=fedloom.BuiltIn(name="logistic"), data=data, strategy=fedavg(sgd(0.5), cohort=20), rounds=3
    )
    with closing(simulate(made, engine="pool")) as simulation:
        *_, last = simulation.rounds(simulation.first())
        assert len(simulation.federation.members()) == 1_000_000
        assert len(simulation.parties.kept) <= 256
        assert len(simulation.held.kept) <= 1000
    assert last.round == 3
    assert last.central
    assert not last.sites
    assert all(name.startswith("client-") and len(name) == 13 for name in last.record.cohort)
