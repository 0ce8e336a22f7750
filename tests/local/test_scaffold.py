from dataclasses import replace

import numpy as np
import pytest

from fedloom.adapters.numpy import linear
from fedloom.adapters.torch import torch_model
from fedloom.core.errors import StrategyError
from fedloom.core.examples import Examples
from fedloom.core.rng import stream
from fedloom.local import Scaffold, Sgd
from fedloom.optimize import Adam, Exponential, Momentum, Step
from fedloom.recipes import fedavg, scaffold
from nets import Norm
from small import pooled, regression, small


def gradient(theta, batch):
    with_one = np.column_stack([batch.inputs, np.ones(batch.size)])
    return 2 * with_one.T @ (with_one @ theta - batch.targets) / batch.size


def algorithm_1(splits, cohorts, sgd, eta_l, eta_g):
    """Karimireddy et al., ICML 2020 (arXiv 1910.06378v4), Algorithm 1, option II, line by line; yields (x, c)."""
    N = len(splits)
    x, c = np.zeros(4), np.zeros(4)
    c_i = {i: np.zeros(4) for i in splits}
    number = 0
    for r, S in enumerate(cohorts):  # lines 1-3
        delta_y, delta_c = [], []
        for i in S:  # line 4
            number += 1
            y, K, eta = x.copy(), 0, eta_l * sgd.rate(r + 1)  # line 5
            for batch in sgd.batches(splits[i].train, stream(0, number).child("local")):  # line 6
                g = gradient(y, batch)  # line 7
                y = y - eta * (g - c_i[i] + c)  # line 8
                K += 1
            c_plus = c_i[i] - c + (x - y) / (K * eta)  # line 10, option II
            delta_y.append(y - x)  # line 11
            delta_c.append(c_plus - c_i[i])
            c_i[i] = c_plus  # line 12
        x = x + eta_g * np.mean(delta_y, axis=0)  # lines 14, 15
        c = c + len(S) / N * np.mean(delta_c, axis=0)
        yield x, c


@pytest.mark.parametrize(
    ("sgd", "server_lr"),
    [
        (Sgd(steps=4, batch_size=None, optimizer=Step(0.05)), 1.0),
        (Sgd(epochs=2, batch_size=5, optimizer=Step(0.02)), 0.7),
        (Sgd(batch_size=5, optimizer=Step(0.05), rate=Exponential(0.8)), 1.0),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_six_rounds_of_three_in_five_are_algorithm_1(sgd, server_lr, dtype, tolerance):
    splits = regression()
    made = small(linear(3, dtype=dtype), scaffold(sgd, cohort=3, server_lr=server_lr), splits)
    states = made.run(6)
    cohorts = [state.record.cohort for state in states]
    assert {len(cohort) for cohort in cohorts} == {3}
    assert len(set(cohorts)) > 1
    oracle = algorithm_1(splits, cohorts, sgd, sgd.optimizer.lr, server_lr)
    for state, (x, c) in zip(states, oracle, strict=True):
        np.testing.assert_allclose(state.vector[:4], x, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(state.vector[4:], c, rtol=tolerance, atol=tolerance * 10)


def test_with_everybody_the_servers_variate_is_the_mean_of_the_clients():
    made = small(linear(3, dtype="float64"), scaffold(Sgd(steps=5, optimizer=Step(0.05))), regression())
    for state in made.run(4):
        assert not state.record.faults
    mean = np.mean([party.memory["local"] for party in made.parties.values()], axis=0)
    np.testing.assert_allclose(state.vector[4:], mean, atol=1e-10)


def test_it_finds_the_optimum_where_averaging_drifts():
    """Sites of equal size and many local steps: SCAFFOLD goes to the minimum of the whole, FedAvg beside it."""
    splits = regression((20, 20, 20, 20), shift=2.0)
    data = pooled(splits)
    with_one = np.column_stack([data.inputs, np.ones(data.size)])
    optimum = np.linalg.lstsq(with_one, data.targets, rcond=None)[0]
    sgd = Sgd(steps=10, batch_size=None, optimizer=Step(0.05))
    distances = [
        np.linalg.norm(small(linear(3), recipe(sgd), splits).run(60)[-1].vector[:4] - optimum)
        for recipe in (scaffold, fedavg)
    ]
    assert distances[0] < 1e-5
    assert distances[1] > 1e-2


def test_buffers_have_no_variate():
    model, local = torch_model(Norm), Scaffold()
    payload = local.payload(model.layout)
    assert payload.size == 26 + 18
    assert payload.block("control", "buffer").start == payload.block("control", "buffer").stop
    rng = np.random.default_rng(0)
    data = Examples(rng.normal(3, 1, (16, 4)).astype(np.float32), rng.integers(0, 2, 16))
    start = np.zeros(payload.size, np.float32)
    start[: model.layout.size] = model.init(stream(0, "init"))
    work = local.train(model, start, data, local.init(model.layout, start), round=1, streams=stream(0, 1))
    plain = Sgd().train(model, start[:26], data, None, round=1, streams=stream(0, 1))
    np.testing.assert_allclose(work.delta[:26], plain.delta, rtol=1e-6)
    np.testing.assert_allclose(work.memory, -plain.delta[:18] / (1 * 0.1), rtol=1e-5)


def test_a_client_without_examples_changes_no_variate():
    local, model = Scaffold(), linear(3)
    memory = np.arange(4, dtype=np.float32)
    nothing = Examples(np.zeros((0, 3)), np.zeros(0))
    work = local.train(model, np.ones(8, np.float32), nothing, memory, round=1, streams=stream(0, 1))
    assert not work.delta.any()
    np.testing.assert_array_equal(work.memory, memory)


@pytest.mark.parametrize("optimizer", [Momentum(0.1), Adam(0.1), Step(0.0)])
def test_option_two_needs_a_plain_step(optimizer):
    with pytest.raises(StrategyError, match=r"Scaffold needs Step\(lr > 0\) as its optimizer"):
        Scaffold(sgd=replace(Sgd(), optimizer=optimizer))
