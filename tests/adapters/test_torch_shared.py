"""Clients that begin from one vector move as plain autograd and torch.optim.SGD move each of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedloom.adapters import torch_shared
from fedloom.adapters.torch import torch_model
from fedloom.core.examples import Examples
from fedloom.core.model import Batch
from fedloom.core.rng import stream
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
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    size=st.sampled_from([None, 1, 2, 4]),
    length=st.sampled_from([{"epochs": 1}, {"epochs": 3}, {"steps": 5}]),
)
def test_moves_as_plain_sgd_does(shape, loss, seed, sizes, size, length):
    make, rng = SHAPES[shape], np.random.default_rng(seed)
    model = torch_model(lambda: make().double(), loss)
    sgd = Sgd(batch_size=size, optimizer=Step(0.3), **length)
    data, streams = [examples(rng, n, loss) for n in sizes], [stream(seed, k) for k in range(len(sizes))]
    start = rng.normal(size=model.layout.size)
    with pytest.MonkeyPatch.context() as patch:
        shared(patch, True)
        works = sgd.train_many(model.stack(), model.layout, start, data, [None] * len(data), round=1, streams=streams)
    for k, one in enumerate(data):
        moved, lost = literally(make, loss, start, one, sgd, streams[k])
        np.testing.assert_allclose(works.deltas[k], moved, rtol=1e-9, atol=1e-12)
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
        return sgd.train_many(model.stack(), model.layout, start, data, [None] * 3, round=1, streams=streams).deltas

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
            clients, size, wanted = 1, rows, 1

            def passes(self):
                yield Batch(inputs[:, :rows], targets[:, :rows], np.array([weights], np.float32))

        return stack.descend(start, Steps(), 0.1)[0]

    np.testing.assert_allclose(moved(4, [1, 1, 1, 0]), moved(3, [1, 1, 1]), atol=1e-15)
