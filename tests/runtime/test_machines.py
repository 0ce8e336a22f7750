"""A Ray cluster of several machines, each played by a process tree of this one."""

from contextlib import closing
from dataclasses import replace

import pytest
from test_cluster import app_of, last, pytestmark  # noqa: F401 (pytest reads the marks)

import fedloom
from fedloom import ConfigError, Needs
from fedloom.core.errors import RunError
from fedloom.engines import Engine
from fedloom.runtime import cluster as module
from fedloom.simulation import simulate

SGD = fedloom.sgd(0.05, batch_size=16)


@pytest.fixture
def machines():
    """Return a cluster with a head and another machine of one core each, and the other one."""
    import ray
    from ray.cluster_utils import Cluster

    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = there.add_node(num_cpus=1)
    yield there, other
    if ray.is_initialized():
        ray.shutdown()
    there.shutdown()


@pytest.mark.slow
def test_a_machine_may_be_lost_and_the_bits_stay(machines, monkeypatch):
    there, other = machines
    app, vectors = replace(app_of(fedloom.fedavg(SGD)), rounds=3), []
    engine = Engine.of(f"ray@{there.address}")
    assert Engine.of(str(engine)) == engine
    monkeypatch.setattr(module, "BEAT_S", 0.5)
    with closing(simulate(app, engine=engine)) as simulation:
        assert len(simulation.federation.workers) == 2
        for state in simulation.rounds(simulation.first()):
            vectors.append(state.vector)
            if state.round == 1:
                there.remove_node(other, allow_graceful=False)
        assert len(simulation.federation.workers) == 1
    assert state.record.faults == ()
    assert vectors[-1].tobytes() == last(app, "sequential").vector.tobytes()


@pytest.mark.slow
def test_a_ray_that_was_there_before_stays_there(machines):
    import ray

    there, _ = machines
    ray.init(address=there.address, log_to_driver=False)
    simulate(app_of(fedloom.fedavg()), engine="ray").close()
    assert ray.is_initialized()
    with pytest.raises(ConfigError, match=r"this process uses the Ray at .* already; end that one before joining"):
        simulate(app_of(fedloom.fedavg()), engine="ray@127.0.0.1:1")


@pytest.mark.slow
def test_needs_that_only_come_together_on_no_machine_are_refused(machines):
    there, _ = machines
    there.add_node(num_cpus=1, num_gpus=1)
    there.add_node(num_cpus=4)
    needs = Needs(clients={"client-000": Needs(gpus=1), "client-001": Needs(cpus=4)})
    with pytest.raises(ConfigError, match=r"no machine of the Ray cluster has 4 CPUs, 1 GPU at once"):
        simulate(replace(app_of(fedloom.fedavg()), needs=needs), engine=f"ray@{there.address}")


@pytest.mark.slow
def test_when_no_machine_is_left_for_a_worker_the_run_says_so(machines, monkeypatch):
    there, _ = machines
    third = there.add_node(num_cpus=2)
    monkeypatch.setattr(module, "BEAT_S", 0.5)
    app = replace(app_of(fedloom.fedavg(SGD)), needs=Needs(cpus=2))
    with closing(simulate(app, engine=f"ray@{there.address}")) as simulation:
        rounds = simulation.rounds(simulation.first())
        next(rounds)
        there.remove_node(third, allow_graceful=False)
        with pytest.raises(RunError, match="every worker is gone, and there is no room for new ones"):
            list(rounds)
