"""Clients that begin from one vector move as plain autograd and torch.optim.SGD move each of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedloom.adapters import torch_shared
from fedloom.adapters.torch import torch_model
from fedloom.adapters.torch_direct import Dense
from fedloom.core.errors import UpdateError
from fedloom.core.examples import Examples
from fedloom.core.model import Batch
from fedloom.core.rng import stream
from fedloom.core.update import verify, weigh_many
from fedloom.local.sgd import Sgd
from fedloom.optimize import Step

LOSSES = {
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": lambda out, target: functional.binary_cross_entropy_with_logits(out, target.view_as(out)),
    "mse": lambda out, target: functional.mse_loss(out, target.view_as(out)),
}
SHAPES = {
    "linear": lambda: nn.Linear(5, 3),
    "no bias": lambda: nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3)),
    "mlp": lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Sigmoid(), nn.Linear(6, 3)),
}


def examples(rng, n, loss):
    inputs = rng.normal(size=(n, 5))
    targets = rng.integers(0, 3, n) if loss == "cross_entropy" else rng.integers(0, 2, (n, 3)).astype(float)
    return Examples(inputs, targets)


def literally(make, loss, start, data, sgd, streams):
    """Return how far one client moves: a module, autograd and torch.optim.SGD."""
    module = make().double()
    nn.utils.vector_to_parameters(torch.tensor(start), module.parameters())
    optimizer, lost = torch.optim.SGD(module.parameters(), lr=sgd.optimizer.lr), 0.0
    for batch in sgd.batches(data, streams):
        optimizer.zero_grad()
        found = LOSSES[loss](module(torch.tensor(batch.inputs)), torch.tensor(batch.targets))
        found.backward()
        optimizer.step()
        lost += found.item() * batch.size
    return nn.utils.parameters_to_vector(module.parameters()).detach().numpy() - start, lost


def shared(monkeypatch, always):
    """Take the shared form always, or never."""
    monkeypatch.setattr("fedloom.adapters.torch_stacked.worth", lambda *_: always)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    size=st.sampled_from([None, 1, 2, 4]),
    length=st.sampled_from([{"epochs": 1}, {"epochs": 3}, {"steps": 1}, {"steps": 5}]),
    apart=st.booleans(),
)
def test_moves_as_plain_sgd_does(shape, loss, seed, sizes, size, length, apart):
    make, rng = SHAPES[shape], np.random.default_rng(seed)
    model = torch_model(lambda: make().double(), loss)
    sgd = Sgd(batch_size=size, optimizer=Step(0.3), **length)
    data, streams = [examples(rng, n, loss) for n in sizes], [stream(seed, k) for k in range(len(sizes))]
    start = rng.normal(size=model.layout.size)
    with pytest.MonkeyPatch.context() as patch:
        shared(patch, True)
        patch.setattr("fedloom.adapters.torch_stacked.APART", 1 if apart else 1 << 30)
        works = sgd.train_many(model.stack(), model.layout, start, data, [None] * len(data), round=1, streams=streams)
    for k, one in enumerate(data):
        moved, lost = literally(make, loss, start, one, sgd, streams[k])
        np.testing.assert_allclose(model.stack().read(works.deltas)[k], moved, rtol=1e-9, atol=1e-12)
        assert works.metrics[k].sums["loss"] == pytest.approx(lost, rel=1e-9)


def test_is_taken_where_it_is_worth_it_and_agrees_with_the_steps(monkeypatch):
    """An MLP on 60 rows is; both forms give the same to rounding in float32."""
    model = torch_model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10)))
    rng, calls = np.random.default_rng(0), []
    data = [Examples(rng.random((60, 28, 28)).astype(np.float32), rng.integers(0, 10, 60)) for _ in range(3)]
    start = model.init(stream(0, "init"))
    kept = torch_shared.descend
    monkeypatch.setattr(
        "fedloom.adapters.torch_stacked.descend", lambda *given, **more: calls.append(1) or kept(*given, **more)
    )

    def deltas():
        sgd, streams = Sgd(batch_size=10, optimizer=Step(0.05)), [stream(0, k) for k in range(3)]
        works = sgd.train_many(model.stack(), model.layout, start, data, [None] * 3, round=1, streams=streams)
        return model.stack().read(works.deltas)

    together = deltas()
    assert calls == [1]
    shared(monkeypatch, False)
    np.testing.assert_allclose(together, deltas(), atol=1e-6)
    assert calls == [1]


def test_padding_moves_nothing():
    model = torch_model(lambda: nn.Linear(2, 2).double(), "mse")
    stack, rng = model.stack(), np.random.default_rng(1)
    inputs, targets = rng.normal(size=(1, 4, 2)), rng.normal(size=(1, 4, 2))
    start = rng.normal(size=model.layout.size)

    def moved(rows, weights):
        class Steps:
            clients, size, wanted, data = 1, rows, 1, [Examples(inputs[0], targets[0])]

            def whole(self):
                return None

            def passes(self):
                yield Batch(inputs[:, :rows], targets[:, :rows], np.array([weights], np.float32))

        return stack.read(stack.descend(start, Steps(), 0.1)[0])

    np.testing.assert_allclose(moved(4, [1, 1, 1, 0]), moved(3, [1, 1, 1]), atol=1e-15)


def whole(inputs, dtype=torch.float32):
    """Return a stack and how far clients with these inputs have moved in one step on all of them."""
    flat = int(np.prod(inputs[0].shape[1:]))
    model = torch_model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(flat, 3)).to(dtype))
    data = [Examples(own, np.arange(len(own)) % 3) for own in inputs]
    start = np.linspace(-1, 1, model.layout.size).astype(model.layout.dtype)
    given = {"round": 1, "streams": [stream(0, k) for k in range(len(data))]}
    sgd, stack = Sgd(batch_size=None, optimizer=Step(0.1)), model.stack()
    return model, stack, sgd.train_many(stack, model.layout, start, data, [None] * len(data), **given).deltas


@pytest.mark.parametrize("turned", [False, True], ids=["read-only", "and in another order in memory"])
def test_large_inputs_of_one_step_stay_where_they_are(monkeypatch, recwarn, turned):
    """Copied or not, clients move the same to rounding; nobody is told about memory that nobody writes to."""
    rng = np.random.default_rng(0)
    inputs = [rng.random((28, 28, n)).T if turned else rng.random((n, 28, 28)) for n in (60, 55, 58)]
    for own in inputs:
        own.flags.writeable = False
    _, stack, apart = whole(inputs, torch.float64)
    assert isinstance(apart.groups[0][1][0], torch_shared.Apart)
    monkeypatch.setattr("fedloom.adapters.torch_stacked.APART", 1 << 30)
    _, _, copied = whole(inputs, torch.float64)
    assert not isinstance(copied.groups[0][1][0], torch_shared.Apart)
    np.testing.assert_allclose(stack.read(apart), stack.read(copied), atol=1e-12)
    weights = torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64)
    np.testing.assert_allclose(apart.summed(weights), copied.summed(weights), atol=1e-12)
    assert not recwarn.list


@pytest.mark.parametrize("value", [1e6, math.nan])
def test_large_inputs_that_stay_where_they_are_are_judged_too(value):
    inputs = [np.full((60, 784), 0.1, np.float32) for _ in range(2)]
    inputs[1][7, 3] = value
    model, stack, moved = whole(inputs)
    assert isinstance(moved.groups[0][1][0], torch_shared.Apart)
    with pytest.raises(UpdateError, match="lower the learning rate"):
        stack.weigh(moved, model.layout.weighted(cohort=8), [1.0, 1.0])


def trained(sizes, *, rate, dtype=np.float64):
    """Return a model, its stack, and how far clients of these sizes have moved."""
    kind = {np.float64: torch.float64, np.float32: torch.float32}[dtype]
    model = torch_model(lambda: SHAPES["mlp"]().to(kind), "cross_entropy")
    rng, sgd = np.random.default_rng(3), Sgd(batch_size=4, optimizer=Step(rate))
    data, streams = [examples(rng, n, "cross_entropy") for n in sizes], [stream(3, k) for k in range(len(sizes))]
    start = rng.normal(size=model.layout.size).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        shared(patch, True)
        works = sgd.train_many(model.stack(), model.layout, start, data, [None] * len(data), round=1, streams=streams)
    return model, model.stack(), works.deltas


@pytest.mark.parametrize("sizes", [(8, 8, 8), (3, 9, 0, 5, 12)], ids=["one group", "groups, and one without examples"])
def test_a_sum_is_that_of_the_clients_written_out(sizes):
    model, stack, moved = trained(sizes, rate=0.3)
    weights, layout = [0.5, 0.25, 1.0, 0.3, 0.7][: len(sizes)], model.layout.weighted(cohort=8)
    written = stack.read(moved)
    update = stack.weigh(moved, layout, weights)
    np.testing.assert_allclose(update.vector[:-1], np.array(weights) @ written, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(update.vector, weigh_many(written, layout, weights).vector, atol=1e-11)
    assert update.count == len(sizes)
    assert verify(update, layout) is update


def test_a_sum_in_float32_is_on_the_grid_and_right_to_rounding():
    model, stack, moved = trained((8, 8, 8), rate=0.3, dtype=np.float32)
    layout, written = model.layout.weighted(cohort=8), stack.read(moved)
    update = stack.weigh(moved, layout, [0.5, 0.25, 1.0])
    np.testing.assert_allclose(update.vector[:-1], [0.5, 0.25, 1.0] @ written.astype(np.float64), atol=1e-6)
    assert verify(update, layout) is update


@pytest.mark.parametrize("rate", [1000.0, math.nan])
def test_what_may_be_beyond_its_bound_is_looked_at_client_by_client(rate):
    """A product of many clients could hide one that is too large behind another of the opposite sign."""
    model, stack, moved = trained((8, 8, 8), rate=0.3)
    moved.groups[0][1][1].slopes[1] *= rate
    written = stack.read(moved)
    assert not np.abs(written[1]).max() <= 16
    with pytest.raises(UpdateError) as told:
        stack.weigh(moved, model.layout.weighted(cohort=8), [1.0, 1.0, 1.0])
    assert "lower the learning rate" in str(told.value)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), clients=st.integers(1, 3), bias=st.booleans())
def test_the_reach_of_a_client_is_never_exceeded(seed, scale, clients, bias):
    rng = np.random.default_rng(seed)
    layer = Dense(slice(0, 15), slice(15, 18) if bias else None, 5, 3)
    rows, slopes = (torch.tensor(rng.normal(size=(clients, 4, n)) * scale) for n in (5, 3))
    seen = torch_shared.Seen(layer, torch.zeros(3, 5), torch.zeros(3), rows, slopes, 0.3)
    moved = torch_shared.Moved([(range(clients), [seen])], clients, 18 if bias else 15, rows.new_empty(0))
    assert (moved.written().abs().amax(1) <= seen.reach() * (1 + 1e-9)).all()
