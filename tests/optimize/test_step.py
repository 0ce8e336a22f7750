import numpy as np
import pytest
import torch

from fedloom.core.errors import ConfigError
from fedloom.optimize import Momentum, Step


@pytest.mark.parametrize(("beta", "nesterov"), [(0.9, False), (0.9, True), (0.5, True)])
def test_momentum_is_pytorchs(beta, nesterov):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(size=(50, 5))
    parameter = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.SGD([parameter], lr=0.05, momentum=beta, nesterov=nesterov)
    ours = Momentum(0.05, beta, nesterov)
    x, state = start.copy(), ours.init(start, None)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        theirs.step()
        x, state = ours.step(x, gradient.copy(), state)
        np.testing.assert_allclose(x, parameter.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_momentum_on_the_server_is_fedavgm():
    """Hsu et al. 2019 (arXiv 1909.06335v1), section 4, transcribed: v ← βv + Δw; w ← w - v; w - Δw is the mean."""
    rng = np.random.default_rng(1)
    w, v = 0.3, 0.0
    x, ours = np.array([0.3]), Momentum(1.0, 0.9)
    state = ours.init(x, None)
    for mean_delta in rng.normal(size=20):
        v = 0.9 * v - mean_delta
        w = w - v
        x, state = ours.step(x, np.array([-mean_delta]), state)
        assert x[0] == pytest.approx(w, rel=1e-12)


def test_a_step_of_rate_one_adds_the_mean():
    x, _ = Step(1.0).step(np.float32([1, 2]), -np.array([0.5, -0.25]), None)
    assert x.tolist() == [1.5, 1.75]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Step(-0.1), r"Step\.lr must be at least 0"),
        (lambda: Momentum(0.1, 1.0), r"Momentum\.beta must be at least 0 and below 1"),
        (lambda: Momentum(float("nan")), r"Momentum\.lr must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
