"""Against the pseudocode of the papers, transcribed in scalar Python, and against PyTorch."""

import math

import numpy as np
import pytest
import torch

from fedloom.core.errors import ConfigError
from fedloom.optimize import Adagrad, Adam, Yogi


def sign(x):
    return (x > 0) - (x < 0)


def algorithm_2(kind, deltas, x, *, eta, beta1, beta2, tau):
    """Reddi et al., ICLR 2021 (arXiv 2003.00295v5), Algorithm 2, from line 1 on, for one number; yields every x_t.

    v_{-1} = τ², m_{-1} = 0; Δ_t is the round's mean delta.
    """
    m, v = 0.0, tau**2
    for delta in deltas:
        m = beta1 * m + (1 - beta1) * delta
        if kind == "adagrad":
            v = v + delta**2
        if kind == "yogi":
            v = v - (1 - beta2) * delta**2 * sign(v - delta**2)
        if kind == "adam":
            v = beta2 * v + (1 - beta2) * delta**2
        x = x + eta * m / (math.sqrt(v) + tau)
        yield x


CASES = [
    ("adagrad", Adagrad(0.3, beta1=0.0, tau=1e-3), {"eta": 0.3, "beta1": 0.0, "beta2": 0.0, "tau": 1e-3}),
    ("adagrad", Adagrad(0.3, beta1=0.5, tau=0.1), {"eta": 0.3, "beta1": 0.5, "beta2": 0.0, "tau": 0.1}),
    ("yogi", Yogi(0.03, 0.9, 0.99, 1e-3), {"eta": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ("yogi", Yogi(1.0, 0.8, 0.6, 1.0), {"eta": 1.0, "beta1": 0.8, "beta2": 0.6, "tau": 1.0}),
    ("adam", Adam(0.03, 0.9, 0.99, 1e-3), {"eta": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ("adam", Adam(0.5, 0.0, 0.5, 1e-2), {"eta": 0.5, "beta1": 0.0, "beta2": 0.5, "tau": 1e-2}),
]


@pytest.mark.parametrize(("kind", "optimizer", "symbols"), CASES)
def test_fifty_rounds_are_algorithm_2(kind, optimizer, symbols):
    rng = np.random.default_rng(1)
    deltas = rng.normal(scale=10.0 ** rng.integers(-3, 2, size=(50, 1)), size=(50, 6))
    deltas[7] = 0
    start = rng.normal(size=6)
    x, state = start.copy(), optimizer.init(start, None)
    oracle = [algorithm_2(kind, deltas[:, i].tolist(), float(start[i]), **symbols) for i in range(6)]
    for delta in deltas:
        x, state = optimizer.step(x, -delta, state)
        np.testing.assert_allclose(x, [next(one) for one in oracle], rtol=1e-12, atol=1e-12)
    assert state["steps"] == 50


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])
def test_bias_corrected_adam_is_pytorchs(betas):
    rng = np.random.default_rng(2)
    start, gradients = rng.normal(size=5), rng.normal(size=(50, 5))
    parameter = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Adam([parameter], lr=0.05, betas=betas, eps=1e-8)
    ours = Adam(0.05, *betas, tau=1e-8, bias_correction=True)
    x, state = start.copy(), ours.init(start, None)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        theirs.step()
        x, state = ours.step(x, gradient.copy(), state)
        np.testing.assert_allclose(x, parameter.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_yogi_leaves_v_alone_where_it_equals_the_square():
    optimizer = Yogi(0.1, 0.0, 0.5, tau=2.0)
    x, state = np.zeros(1), optimizer.init(np.zeros(1), None)
    _, state = optimizer.step(x, np.array([2.0]), state)
    assert state["v"].tolist() == [4.0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Adam(beta1=1.0), r"Adam\.beta1 must be at least 0 and below 1, got 1\.0"),
        (lambda: Adam(beta2=-0.1), r"Adam\.beta2 must be at least 0"),
        (lambda: Yogi(tau=0.0), r"Yogi\.tau must be at least 1e-12"),
        (lambda: Adagrad(lr=-1), r"Adagrad\.lr must be at least 0"),
        (lambda: Adagrad(lr=float("nan")), r"Adagrad\.lr must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
