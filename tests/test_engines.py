"""Every engine trains alike: pool has the sequential engine's bits, vectorized equals them to rounding."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import fedloom
from fedloom import App, BuiltIn, ConfigError, Custom, Data, Dirichlet, SklearnSet, Sync
from fedloom.core.errors import QuorumLost
from fedloom.core.state import State
from fedloom.engines import Engine, fitting
from fedloom.recipes import RECIPES
from fedloom.runtime.pool import Pool
from fedloom.simulation import Simulation, simulate

SGD = fedloom.sgd(0.05, batch_size=16)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 2)).double()


def norm_net() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def app_of(strategy: fedloom.Strategy, factory: object = net, rounds: int = 3) -> App:
    return App(
        model=fedloom.torch_model(factory),
        data=Data(source=SklearnSet("breast_cancer"), partition=Dirichlet(6, alpha=0.5, min_size=5)),
        strategy=strategy,
        rounds=rounds,
        name="engines",
    )


def last(app: App, engine: str) -> State:
    simulation = simulate(app, engine=engine)
    try:
        *_, state = simulation.rounds(simulation.first())
    finally:
        simulation.close()
    return state


STRATEGIES = {
    **{recipe.__name__: recipe(cohort=4) for recipe in RECIPES if recipe.__name__ != "fedbn"},
    "batches": fedloom.fedavg(SGD, cohort=4),
    "scaffold in batches": fedloom.scaffold(SGD, cohort=4),
    "prox in batches": fedloom.fedprox(SGD, cohort=4, mu=0.1),
    "momentum": fedloom.fedavg(fedloom.sgd(0.05, batch_size=16, momentum=0.9, weight_decay=0.01, epochs=2)),
    "exact steps": fedloom.fedavg(fedloom.sgd(0.05, batch_size=16, steps=5)),
    "clip": replace(fedloom.fedavg(SGD), stages=(fedloom.Clip(0.1),)),
    "personal layer": fedloom.fedbn(SGD, leaves=("2.*",)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_pool_has_the_same_bits_and_vectorized_the_same_numbers(name: str) -> None:
    app = app_of(STRATEGIES[name])
    sequential, pool, stacked = (last(app, engine) for engine in ("sequential", "pool", "vectorized/3"))
    assert pool.vector.tobytes() == sequential.vector.tobytes()
    np.testing.assert_allclose(stacked.vector, sequential.vector, rtol=1e-10, atol=1e-12)
    assert not np.array_equal(sequential.vector, simulate(app).first().vector)


def test_quantised_updates_have_the_same_bits_in_a_pool() -> None:
    app = app_of(replace(fedloom.fedavg(SGD), stages=(fedloom.Clip(1.0), fedloom.Quantize(8))))
    assert last(app, "pool").vector.tobytes() == last(app, "sequential").vector.tobytes()


def test_batch_norm_and_its_home_leaves_have_the_same_bits_in_a_pool() -> None:
    app = app_of(fedloom.fedbn(SGD), norm_net)
    one, many = last(app, "sequential"), last(app, "pool")
    assert many.vector.tobytes() == one.vector.tobytes()
    assert many.metrics is not None
    assert one.metrics is not None
    assert many.metrics.view() == one.metrics.view()


def test_numpy_models_stack_too() -> None:
    data = Data(source=SklearnSet("breast_cancer"), partition=Dirichlet(6, alpha=0.5, min_size=5))
    app = App(model=BuiltIn(name="logistic"), data=data, strategy=fedloom.fedavg(SGD), rounds=3)
    np.testing.assert_allclose(last(app, "vectorized").vector, last(app, "sequential").vector, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "factory", "says"),
    [
        (fedloom.fedavg(SGD), norm_net, r"BatchNorm1d \(1\) keeps running statistics"),
        (fedloom.fedavg(SGD), lambda: nn.Sequential(nn.Linear(30, 2), nn.Dropout(0.5)), r"Dropout \(1\) draws other"),
        (replace(fedloom.fedavg(), local=Custom(function=lambda params, data, config: params)), net, "one client"),
    ],
)
def test_what_cannot_be_stacked_is_named(strategy: fedloom.Strategy, factory: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        simulate(app_of(strategy, factory), engine="vectorized")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no engine 'poool'; there are auto, sequential, pool, vectorized"):
        simulate(app_of(fedloom.fedavg()), engine="poool")


def test_auto_keeps_small_work_in_one_process_and_says_why() -> None:
    engine = simulate(app_of(fedloom.fedavg()), engine="auto").engine
    assert engine.name == "sequential"
    assert "s a round" in engine.why


def test_an_engine_survives_the_journal() -> None:
    assert Engine.of(str(Engine("vectorized", 7))) == Engine("vectorized", 7)
    assert Engine.of(str(Engine("pool"))).name == "pool"
    assert fitting(fedloom.torch_model(net).layout) == 50


def test_a_client_that_raises_is_a_fault_and_the_pool_goes_on() -> None:
    def moody(params: dict, data: fedloom.Examples, config: dict) -> dict:
        if data.size % 2:
            raise ValueError("odd")
        return {name: value + 1 for name, value in params.items()}

    strategy = replace(fedloom.fedavg(), local=Custom(function=moody), schedule=Sync(quorum=1))
    one, many = (last(app_of(strategy, rounds=2), engine) for engine in ("sequential", "pool"))
    assert many.vector.tobytes() == one.vector.tobytes()
    assert one.record is not None
    assert many.record is not None
    assert sorted(f.site for f in many.record.faults) == sorted(f.site for f in one.record.faults) != []
    assert {f.error for f in many.record.faults} == {"ValueError"}


@pytest.fixture
def pool() -> Iterator[Simulation]:
    simulation = simulate(app_of(fedloom.fedavg(SGD), rounds=4), engine="pool")
    yield simulation
    simulation.close()


def test_a_killed_worker_is_replaced_and_its_clients_run_again(pool: Simulation) -> None:
    assert isinstance(pool.federation, Pool)
    vectors = []
    for state in pool.rounds(pool.first()):
        vectors.append(state.vector)
        os.kill(pool.federation.workers[0].process.pid or 0, signal.SIGKILL)
    assert vectors[-1].tobytes() == last(pool.app, "sequential").vector.tobytes()


def test_work_that_kills_every_worker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(params: dict, data: fedloom.Examples, config: dict) -> dict:
        os.kill(os.getpid(), signal.SIGKILL)
        return params

    simulation = simulate(app_of(replace(fedloom.fedavg(), local=Custom(function=deadly))), engine="pool")
    try:
        with pytest.raises(QuorumLost, match="WorkerDied: its worker process ended with exit code -9, twice"):
            list(simulation.rounds(simulation.first()))
    finally:
        simulation.close()


def test_closing_reaps_every_process(pool: Simulation) -> None:
    assert isinstance(pool.federation, Pool)
    processes = [worker.process for worker in pool.federation.workers]
    assert processes
    assert all(process.is_alive() for process in processes)
    pool.close()
    assert [process.exitcode for process in processes] == [0] * len(processes)
