from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from fedloom.adapters.numpy import linear, logistic
from fedloom.adapters.torch import torch_model
from fedloom.core.errors import StrategyError
from fedloom.core.examples import Examples
from fedloom.core.rng import stream
from fedloom.local import Sgd
from fedloom.optimize import Exponential, Momentum, Step
from fedloom.recipes import fedadam, fedavg, fedsgd
from nets import Norm
from small import classification, pooled, regression, small

STREAMS = stream(0, 1).child("local")


def numbered(n):
    return Examples(np.arange(n, dtype=np.float64)[:, None], np.arange(n))


def batches(n, **settings):
    return [batch.targets.tolist() for batch in Sgd(**settings).batches(numbered(n), STREAMS)]


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (10, 32), (10, 1), (10, None), (1, 3), (9, 3)])
def test_a_pass_holds_every_example_once_and_the_last_batch_is_smaller(n, size):
    found = batches(n, batch_size=size)
    assert sorted(chain(*found)) == list(range(n))
    width = min(size or n, n)
    assert [len(b) for b in found] == [width] * (n // width) + [n % width] * (n % width > 0)


def test_passes_are_shuffled_anew_and_alike_in_every_process():
    found = batches(12, batch_size=4, epochs=3)
    passes = [tuple(chain(*found[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(p) == list(range(12)) for p in passes)
    assert len({*passes, tuple(range(12))}) == 4
    assert found == batches(12, batch_size=4, epochs=3)


def test_inputs_and_targets_stay_together():
    for batch in Sgd(batch_size=4).batches(numbered(11), STREAMS):
        np.testing.assert_array_equal(batch.inputs[:, 0], batch.targets)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_steps_are_counted_over_passes(steps):
    found = batches(10, batch_size=4, steps=steps)
    assert len(found) == steps
    assert found[:3] == batches(10, batch_size=4)[:steps]


@pytest.mark.parametrize("settings", [{}, {"steps": 4}, {"batch_size": None}, {"epochs": 3}])
def test_without_examples_nothing_moves(settings):
    model, start = linear(1), np.float32([0.5, 0.25])
    work = Sgd(**settings).train(model, start, numbered(0), None, round=1, streams=STREAMS)
    assert not work.delta.any()
    assert (work.examples, work.metrics.view()) == (0, {"examples": 0})


def test_a_pass_is_gradient_descent():
    """Written out for least squares: the gradient of mean (w·x + b - y)² is 2·mean (w·x + b - y)·(x, 1)."""
    data = regression((13,), inputs=2)["site0"].train
    local, model = Sgd(batch_size=5, epochs=2, weight_decay=0.1, optimizer=Step(0.05)), linear(2, dtype="float64")
    start = np.array([0.5, -1.0, 0.25])
    theta = start.copy()
    for batch in local.batches(data, STREAMS):
        with_one = np.column_stack([batch.inputs, np.ones(batch.size)])
        theta = theta - 0.05 * (2 * with_one.T @ (with_one @ theta - batch.targets) / batch.size + 0.1 * theta)
    work = local.train(model, start, data, None, round=1, streams=STREAMS)
    np.testing.assert_allclose(work.delta, theta - start, rtol=1e-12)
    assert (work.examples, work.metrics.examples) == (13, 26)
    np.testing.assert_array_equal(start, [0.5, -1.0, 0.25])


def test_the_rate_follows_the_round():
    data, start = regression((13,))["site0"].train, np.zeros(4)
    local = Sgd(batch_size=None, optimizer=Step(0.1), rate=Exponential(0.5))
    first, third = (
        local.train(linear(3, dtype="float64"), start, data, None, round=r, streams=STREAMS) for r in (1, 3)
    )
    np.testing.assert_allclose(third.delta, first.delta / 4, rtol=1e-12)


def test_local_momentum_starts_anew_in_every_round():
    data, start = regression((13,))["site0"].train, np.zeros(4)
    local = Sgd(steps=3, optimizer=Momentum(0.05, 0.9))
    one, two = (local.train(linear(3), start, data, None, round=1, streams=STREAMS).delta for _ in range(2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("sizes", [(10, 10, 10), (40, 3, 11, 1)])
def test_fedsgd_is_one_step_on_all_examples(sizes):
    """McMahan et al. 2017, section 2: the weighted mean of the clients' gradients is the gradient of the whole."""
    splits, model = classification(sizes), logistic(4)
    everything, x = pooled(splits), np.zeros(5)
    wide = logistic(4, dtype="float64")
    for state in small(model, fedsgd(0.5), splits).run(3):
        x = x - 0.5 * wide.grad(x, everything, STREAMS).vector
        np.testing.assert_allclose(state.vector, x, atol=1e-6)


@pytest.mark.parametrize("recipe", [fedavg, fedadam])
def test_float_buffers_are_averaged_by_weight_and_bypass_the_server_optimizer(recipe):
    splits, model = classification((40, 8, 16)), torch_model(Norm)
    made = small(model, recipe(Sgd(batch_size=8)), splits)
    layout, start = model.layout, made.state.vector
    assert [leaf.name for leaf in layout.leaves if leaf.kind == "buffer"] == ["norm.running_mean", "norm.running_var"]
    assert "norm.num_batches_tracked" not in [leaf.name for leaf in layout.leaves]
    deltas = [
        made.strategy.local.train(
            model, start, split.train, None, round=1, streams=stream(0, number).child("local")
        ).delta
        for number, split in enumerate(splits.values(), start=1)
    ]
    mean = np.average(np.array(deltas, np.float64), axis=0, weights=[40, 8, 16])
    (state,) = made.run(1)
    buffers, parameters = layout.block("model", "buffer"), layout.block("model", "parameter")
    np.testing.assert_allclose(state.vector[buffers], (start + mean)[buffers], rtol=1e-6)
    assert np.abs(mean[buffers]).min() > 0
    averaged = np.allclose(state.vector[parameters], (start + mean)[parameters], atol=1e-6)
    assert averaged == (recipe is fedavg)


def test_integer_buffers_stay_home_and_start_anew():
    splits, model = classification((16, 16)), torch_model(Norm)
    small(model, fedavg(Sgd(batch_size=8)), splits).run(2)
    assert torch.equal(torch.as_tensor(model.export(model.init(STREAMS))["norm.num_batches_tracked"]), torch.tensor(0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"epochs": 0}, r"Sgd\.epochs must be at least 1, got 0"),
        ({"batch_size": 0}, r"Sgd\.batch_size must be at least 1"),
        ({"steps": 0}, r"Sgd\.steps must be at least 1"),
        ({"weight_decay": -0.1}, r"Sgd\.weight_decay must not be negative"),
        ({"weight_decay": float("nan")}, r"Sgd\.weight_decay must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(StrategyError, match=text):
        Sgd(**settings)
    with pytest.raises(StrategyError, match=text):
        replace(Sgd(), **settings)
