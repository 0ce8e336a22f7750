"""Gradient steps, plain and with momentum."""

from dataclasses import dataclass

from ..core.layout import Array, Layout
from .arrays import add, at_least


@dataclass(frozen=True)
class Step:
    """x ← x - lr·g.

    On the server, with g = -Δ and lr = 1, this is federated averaging (McMahan et al., AISTATS 2017, Algorithm 1).

    Args:
        lr: learning rate, at least 0.

    >>> import numpy as np
    >>> Step(0.1).step(np.array([1.0]), np.array([2.0]), None)[0]
    array([0.8])
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        at_least("Step.lr", self.lr, 0)

    def init(self, params: Array, layout: Layout) -> None:
        """No state."""

    def step(self, params: Array, gradient: Array, state: None, *, scale: float = 1.0) -> tuple[Array, None]:
        """Move `params` in place."""
        return add(params, gradient, -self.lr * scale), None


@dataclass(frozen=True)
class Momentum:
    """m ← β·m + g; x ← x - lr·m, or x ← x - lr·(g + β·m) with `nesterov`.

    On the server this is FedAvgM (Hsu et al. 2019, arXiv 1909.06335v1, section 4: v ← βv + Δw; w ← w - v, with lr = 1).

    Args:
        lr: learning rate, at least 0.
        beta: momentum, in [0, 1).
        nesterov: look ahead (Sutskever et al., ICML 2013, in the form that PyTorch uses).

    >>> import numpy as np
    >>> optimizer, x, g = Momentum(0.1, 0.9), np.array([1.0]), np.array([1.0])
    >>> x, m = optimizer.step(x, g, optimizer.init(x, None))
    >>> x, m = optimizer.step(x, g, m)
    >>> x.round(6)
    array([0.71])
    """

    lr: float = 1.0
    beta: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        at_least("Momentum.lr", self.lr, 0)
        at_least("Momentum.beta", self.beta, 0, below=1)

    def init(self, params: Array, layout: Layout) -> Array:
        """Return m = 0."""
        return params * 0

    def step(self, params: Array, gradient: Array, state: Array, *, scale: float = 1.0) -> tuple[Array, Array]:
        """Move `params` and m in place."""
        state *= self.beta
        state += gradient
        if self.nesterov:
            add(params, gradient, -self.lr * scale)
        return add(params, state, -self.lr * scale * (self.beta if self.nesterov else 1)), state
