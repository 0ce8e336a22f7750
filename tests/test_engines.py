"""Every engine trains alike: pool has the sequential engine's bits, vectorized equals them to rounding."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
from torch import nn

import fedloom
from fedloom import App, BuiltIn, ConfigError, Custom, Data, Dirichlet, Needs, SklearnSet, Sync, engines
from fedloom.core.errors import QuorumLost
from fedloom.core.state import State
from fedloom.engines import Engine
from fedloom.recipes import RECIPES
from fedloom.runtime.pool import Pool
from fedloom.simulation import Simulation, simulate
from fedloom.tuning import fitting

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
    **{
        recipe.__name__: recipe(cohort=5, **({"seeded": True} if "seeded" in signature(recipe).parameters else {}))
        for recipe in RECIPES
        if "cohort" in signature(recipe).parameters and recipe.__name__ != "fedbn"
    },
    "batches": fedloom.fedavg(SGD, cohort=4),
    "scaffold in batches": fedloom.scaffold(SGD, cohort=4),
    "prox in batches": fedloom.fedprox(SGD, cohort=4, mu=0.1),
    "momentum": fedloom.fedavg(fedloom.sgd(0.05, batch_size=16, momentum=0.9, weight_decay=0.01, epochs=2)),
    "exact steps": fedloom.fedavg(fedloom.sgd(0.05, batch_size=16, steps=5)),
    "clip": replace(fedloom.fedavg(SGD), stages=(fedloom.Clip(0.1),)),
    "noise": fedloom.dp_fedavg(SGD, clip=0.5, noise_multiplier=0.01, seeded=True),
    "adaptive noise": replace(
        fedloom.dp_fedavg(SGD, seeded=True),
        stages=(fedloom.AdaptiveNoise(noise_multiplier=0.01, delta=1e-5, bit_noise=0.5, seeded=True),),
    ),
    "personal layer": fedloom.fedbn(SGD, leaves=("2.*",)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_pool_has_the_same_bits_and_vectorized_the_same_numbers(name: str) -> None:
    app = app_of(STRATEGIES[name], rounds=2)
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
    there = "auto, sequential, pool, vectorized, ray"
    with pytest.raises(ConfigError, match=f"there is no engine 'poool'; there are {there}"):
        simulate(app_of(fedloom.fedavg()), engine="poool")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pool/7", "the engine 'pool/7' says too much; write 'pool'"),
        ("ray/7", "the engine 'ray/7' says too much; write 'ray'"),
        ("vectorized@host:1", "says too much; write 'vectorized'"),
        ("vectorized/abc", "the engine 'vectorized/abc' needs a number of clients after the stroke"),
        ("vectorized/", "needs a number of clients"),
        ("vectorized/-1", "needs a number of clients"),
        ("vectorized/٣", "needs a number of clients"),
        ("ray@", "the engine 'ray@' needs an address, such as"),
        ("ray@head", "needs an address"),
        ("ray@head:0", "needs an address"),
        ("ray@head:65536", "needs an address"),
        ("ray@ray://head:10001", "needs an address"),
        ("", "there is no engine ''"),
        ("pool\n", r"there is no engine 'pool\\n'"),
    ],
)
def test_an_engine_that_says_too_much_or_too_little_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Engine.of(text)


def test_auto_keeps_small_work_in_one_process_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedloom.tuning.SOON_S", 1e3)  # small on any machine, however busy
    engine = simulate(app_of(fedloom.fedavg()), engine="auto").engine
    assert engine.name == "sequential"
    assert "s a round" in engine.why


def test_an_engine_survives_the_journal() -> None:
    assert Engine.of(str(Engine("vectorized", 7))) == Engine("vectorized", 7)
    for text in ("auto", "sequential", "pool", "ray", "ray@auto", "ray@head.example:6379", "vectorized/3"):
        assert str(Engine.of(text)) == text
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


TOO_MUCH = [
    (Needs(cpus=5000), r"client-000 needs 5000 CPUs, and this machine has \d+ CPUs?; lower App\.needs"),
    (Needs(clients={"client-002": Needs(memory="900TB")}), r"client-002 needs 1 CPU, 9e\+05 GB of memory, and this"),
    (Needs(gpus=64), r"client-000 needs 1 CPU, 64 GPUs, and this machine has \d+ CPUs?, \d+ GPUs?"),
    (Needs(clients={"client-2": Needs()}), r"Needs\.clients names 'client-2', and there is no such client"),
]


@pytest.mark.parametrize("engine", ["sequential", "pool", "vectorized/2", "auto"])
@pytest.mark.parametrize(("needs", "says"), TOO_MUCH, ids=["cpus", "memory", "gpus", "name"])
def test_a_need_that_does_not_fit_the_machine_is_refused_before_the_run(engine: str, needs: Needs, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        simulate(replace(app_of(fedloom.fedavg()), needs=needs), engine=engine)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a machine with 8 cores, 2 GPUs and 16 GB."""
    for name, amount in (("cores", 8), ("gpus", 2), ("memory", 16 * 10**9)):
        monkeypatch.setattr(engines, name, lambda amount=amount: amount)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("engine", "needs", "size"),
    [
        (Engine("pool"), Needs(), 6),
        (Engine("pool"), Needs(cpus=3), 2),
        (Engine("pool"), Needs(cpus=2, memory="6GB"), 2),
        (Engine("pool"), Needs(cpus=2, clients={"client-005": Needs(memory="16GB")}), 1),
        (Engine("vectorized", 2), Needs(memory="2GB"), 4),
        (Engine("vectorized", 8), Needs(memory="2GB"), 1),
    ],
)
def test_so_many_workers_run_at_once_as_fit(engine: Engine, needs: Needs, size: int) -> None:
    assert engines.workers(engine, simulate(app_of(fedloom.fedavg())).parties, needs) == size


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("engine", "needs", "says"),
    [
        (Engine("pool"), Needs(gpus=1), "pool forks processes, which cannot use a GPU; take ray or sequential"),
        (Engine("vectorized", 9), Needs(memory="2GB"), "9 clients in a stack need 1 CPU, 18 GB of memory, and this"),
    ],
)
def test_what_fits_alone_and_not_so_is_refused(engine: Engine, needs: Needs, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        simulate(replace(app_of(fedloom.fedavg()), needs=needs), engine=engine)


@pytest.mark.usefixtures("machine")
def test_auto_leaves_clients_that_need_a_gpu_in_one_process() -> None:
    app = replace(app_of(fedloom.fedavg()), needs=Needs(clients={"client-001": Needs(gpus=2)}))
    assert simulate(app, engine="auto").engine == Engine("sequential", why="clients need a GPU")


def test_needs_do_not_change_what_an_app_is() -> None:
    app = app_of(fedloom.fedavg())
    assert replace(app, needs=Needs(cpus=9)).digest == app.digest
