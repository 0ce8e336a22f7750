from dataclasses import replace

import numpy as np
import pytest

from fedloom.adapters.numpy import linear
from fedloom.core.errors import LayoutMismatch
from fedloom.core.examples import Examples
from fedloom.core.rng import stream
from fedloom.local import Custom, Sgd
from fedloom.optimize import Step
from fedloom.recipes import fedavg
from small import regression, small

DATA = Examples(np.ones((3, 2)), np.ones(3))


def train(function, start=(1.0, 2.0, 3.0), **config):
    local = Custom(function=function, config=config)
    return local.train(linear(2), np.float32(start), DATA, None, round=4, streams=stream(0, 1))


def test_the_delta_is_what_the_function_changed():
    work = train(lambda params, data, config: {"weight": params["weight"] + 1, "bias": params["bias"] * 0})
    assert (work.delta.tolist(), work.delta.dtype, work.examples) == ([1.0, 1.0, -3.0], np.float32, 3)


def test_it_may_write_into_its_copy():
    def in_place(params, data, config):
        params["bias"] += 1
        return params

    start = np.float32([1, 2, 3])
    assert train(in_place, start).delta.tolist() == [0, 0, 1]
    assert start.tolist() == [1, 2, 3]


def test_config_round_and_a_seed_of_its_own_come_along():
    seen = []
    train(lambda params, data, config: seen.append(dict(config)) or params, lr=0.5)
    train(lambda params, data, config: seen.append(dict(config)) or params, lr=0.5)
    assert seen[0] == seen[1] == {"lr": 0.5, "round": 4, "seed": stream(0, 1).integer("custom")}


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, "must return a dict of parameters by name, got NoneType"),
        ({"weight": np.zeros((1, 2))}, r"missing \['bias'\]"),
        ({"weight": np.zeros(2), "bias": np.zeros(1)}, r"leaf 'weight' must have shape \(1, 2\)"),
        ({"weight": np.zeros((1, 2)), "bias": np.zeros(1), "x": 0}, r"not known \['x'\]"),
    ],
)
def test_something_else_is_refused(returned, text):
    with pytest.raises(LayoutMismatch, match=text):
        train(lambda params, data, config: returned)


def test_gradient_descent_by_hand_is_sgd():
    def step(params, data, config):
        errors = data.inputs @ params["weight"][0] + params["bias"] - data.targets
        slope = 2 * errors @ data.inputs / data.size
        return {"weight": params["weight"] - 0.05 * slope, "bias": params["bias"] - 0.05 * 2 * errors.mean()}

    by_hand = small(linear(3), replace(fedavg(), local=Custom(function=step)), regression()).run(5)
    ours = small(linear(3), fedavg(Sgd(batch_size=None, optimizer=Step(0.05))), regression()).run(5)
    np.testing.assert_allclose(by_hand[-1].vector, ours[-1].vector, rtol=1e-5, atol=1e-6)
