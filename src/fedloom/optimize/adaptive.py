"""Adaptive steps: Algorithm 2 of Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv 2003.00295v5).

    m ← β₁·m + (1 - β₁)·g
    v ← v + g²                                 Adagrad
    v ← v - (1 - β₂)·g²·sign(v - g²)           Yogi
    v ← β₂·v + (1 - β₂)·g²                     Adam
    x ← x - lr·m / (√v + τ)

There g = -Δ on the server. As in the paper, v starts at τ² and there is no bias correction. Arguments of all three:

    lr     learning rate, at least 0
    beta1  β₁ in [0, 1): momentum; the paper's FedAdagrad has 0, its FedAdam and FedYogi 0.9
    beta2  β₂ in [0, 1): memory of the squares
    tau    τ > 0: adaptivity; small is very adaptive. The paper's default is 1e-3
"""

from dataclasses import dataclass
from typing import Any

from ..core.layout import Array, Layout
from .arrays import add, at_least, blend

Moments = dict[str, Any]  # m and v: vectors like the parameters; steps: how many were taken


@dataclass(frozen=True)
class Adagrad:
    """FedAdagrad's server step; see the head of this file.

    >>> import numpy as np
    >>> optimizer, x = Adagrad(lr=0.1, tau=1.0), np.zeros(1)
    >>> optimizer.step(x, np.array([1.0]), optimizer.init(x, None))[0].round(4)
    array([-0.0414])
    """

    lr: float = 0.1
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _check(self, lr=self.lr, beta1=self.beta1, tau=self.tau)

    def init(self, params: Array, layout: Layout) -> Moments:
        """Return m = 0, v = τ²."""
        return _moments(params, self.tau**2)

    def step(self, params: Array, gradient: Array, state: Moments, *, scale: float = 1.0) -> tuple[Array, Moments]:
        """Move `params`, m and v in place."""
        state["v"] += gradient * gradient
        return _move(params, gradient, state, self.lr * scale, self.beta1, self.tau)


@dataclass(frozen=True)
class Yogi:
    """FedYogi's server step; see the head of this file.

    >>> import numpy as np
    >>> optimizer, x = Yogi(lr=0.1, beta1=0.0, tau=1.0), np.zeros(1)
    >>> optimizer.step(x, np.array([2.0]), optimizer.init(x, None))[0].round(4)
    array([-0.099])
    """

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _check(self, lr=self.lr, beta1=self.beta1, beta2=self.beta2, tau=self.tau)

    def init(self, params: Array, layout: Layout) -> Moments:
        """Return m = 0, v = τ²."""
        return _moments(params, self.tau**2)

    def step(self, params: Array, gradient: Array, state: Moments, *, scale: float = 1.0) -> tuple[Array, Moments]:
        """Move `params`, m and v in place."""
        square = gradient * gradient
        above = state["v"] - square
        square *= 1.0 * (above > 0) - 1.0 * (above < 0)
        add(state["v"], square, self.beta2 - 1)
        return _move(params, gradient, state, self.lr * scale, self.beta1, self.tau)


@dataclass(frozen=True)
class Adam:
    """FedAdam's server step; see the head of this file.

    With `bias_correction` it is the Adam of Kingma and Ba (ICLR 2015, Algorithm 1): v starts at 0, and m and √v are
    divided by 1 - β₁ᵗ and √(1 - β₂ᵗ). That is what a client usually wants, with a τ of 1e-8.

    >>> import numpy as np
    >>> optimizer, x = Adam(lr=0.1, bias_correction=True, tau=1e-8), np.zeros(1)
    >>> optimizer.step(x, np.array([5.0]), optimizer.init(x, None))[0].round(4)
    array([-0.1])
    """

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    bias_correction: bool = False

    def __post_init__(self) -> None:
        _check(self, lr=self.lr, beta1=self.beta1, beta2=self.beta2, tau=self.tau)

    def init(self, params: Array, layout: Layout) -> Moments:
        """Return m = 0 and v = τ², or v = 0 with bias correction."""
        return _moments(params, 0.0 if self.bias_correction else self.tau**2)

    def step(self, params: Array, gradient: Array, state: Moments, *, scale: float = 1.0) -> tuple[Array, Moments]:
        """Move `params`, m and v in place."""
        blend(state["v"], gradient * gradient, self.beta2)
        lr, tau, t = self.lr * scale, self.tau, state["steps"] + 1
        if self.bias_correction:
            root = (1 - self.beta2**t) ** 0.5
            lr, tau = lr * root / (1 - self.beta1**t), tau * root
        return _move(params, gradient, state, lr, self.beta1, tau)


def _check(optimizer: object, **settings: float) -> None:
    for name, value in settings.items():
        low = 1e-12 if name == "tau" else 0.0
        at_least(f"{type(optimizer).__name__}.{name}", value, low, below=1.0 if "beta" in name else float("inf"))


def _moments(params: Array, v: float) -> Moments:
    return {"m": params * 0, "v": params * 0 + v, "steps": 0}


def _move(params: Array, gradient: Array, state: Moments, lr: float, beta1: float, tau: float) -> tuple[Array, Moments]:
    blend(state["m"], gradient, beta1)
    state["steps"] += 1
    return add(params, state["m"] / (state["v"] ** 0.5 + tau), -lr), state
