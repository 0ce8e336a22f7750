import numpy as np
import pytest
import torch

from fedloom.adapters.numpy import linear
from fedloom.adapters.torch import torch_model
from fedloom.core.errors import StrategyError
from fedloom.core.examples import Examples
from fedloom.core.rng import stream
from fedloom.local import Prox, Sgd
from fedloom.optimize import Step
from fedloom.recipes import fedprox
from nets import Norm
from small import regression, small


def test_three_rounds_are_the_papers_formula():
    """Li et al. 2020, equation 2, transcribed: h(w) = F(w) + μ/2·‖w - wᵗ‖², so ∇h = ∇F + μ·(w - wᵗ)."""
    splits, mu, lr = regression(), 0.7, 0.05
    sgd = Sgd(batch_size=4, epochs=2, optimizer=Step(lr))
    w, number = np.zeros(4), 0
    for state in small(linear(3, dtype="float64"), fedprox(sgd, mu=mu), splits).run(3):
        parts = []
        for split in splits.values():
            number += 1
            mine = w.copy()
            for batch in sgd.batches(split.train, stream(0, number).child("local")):
                with_one = np.column_stack([batch.inputs, np.ones(batch.size)])
                gradient = 2 * with_one.T @ (with_one @ mine - batch.targets) / batch.size
                mine = mine - lr * (gradient + mu * (mine - w))
            parts.append(mine)
        w = np.average(parts, axis=0, weights=[split.train.size for split in splits.values()])
        np.testing.assert_allclose(state.vector, w, rtol=1e-10)


def test_without_mu_it_is_sgd_and_a_large_one_holds_the_model():
    data, start = regression((20,))["site0"].train, np.float32([1, 0, 0, 0])
    sgd, streams = Sgd(epochs=3, batch_size=4, optimizer=Step(0.02)), stream(0, 1)
    run = lambda local: local.train(linear(3), start, data, None, round=1, streams=streams).delta  # noqa: E731
    np.testing.assert_array_equal(run(Prox(mu=0.0, sgd=sgd)), run(sgd))
    lengths = [np.linalg.norm(run(Prox(mu=mu, sgd=sgd))) for mu in (0, 1, 10, 40)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0] / 2


def test_the_anchor_holds_in_a_model_with_resident_memory():
    """The first step's gradient has no pull; later ones do: one torch client, two steps, written out with autograd."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 2, 8)
    model = torch_model(torch.nn.Linear(4, 2).double())
    start = model.init(stream(0, "init"))
    local = Prox(mu=2.0, sgd=Sgd(steps=3, batch_size=None, optimizer=Step(0.1)))
    work = local.train(model, start, Examples(inputs, targets), None, round=1, streams=stream(0, 1))
    anchor = torch.tensor(start)
    w = anchor.clone().requires_grad_()
    for _ in range(3):
        outputs = torch.tensor(inputs).double() @ w[:8].view(2, 4).T + w[8:]
        loss = torch.nn.functional.cross_entropy(outputs, torch.tensor(targets)) + (w - anchor).square().sum()
        (gradient,) = torch.autograd.grad(loss, w)
        w = (w - 0.1 * gradient).detach().requires_grad_()
    np.testing.assert_allclose(start + work.delta, w.detach().numpy(), rtol=1e-10)


def test_buffers_are_not_pulled():
    rng = np.random.default_rng(0)
    data, model = Examples(rng.normal(3, 1, (16, 4)).astype(np.float32), rng.integers(0, 2, 16)), torch_model(Norm)
    start, where = model.init(stream(0, "init")), model.layout.block("model", "buffer")
    found = [
        local.train(model, start, data, None, round=1, streams=stream(0, 1)).delta[where]
        for local in (Sgd(), Prox(mu=5.0))
    ]
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_mu_out_of_range_is_refused(mu):
    with pytest.raises(StrategyError, match=r"Prox\.mu must not be negative"):
        Prox(mu=mu)
