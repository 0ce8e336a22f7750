"""The few in-place operations that optimizers need, on NumPy arrays and on arrays with torch's in-place methods."""

import numpy as np

from ..core.blocks import BLOCK
from ..core.cores import on_blocks
from ..core.errors import ConfigError
from ..core.layout import Array


def add(target: Array, other: Array, scale: float) -> Array:
    """Write `target + scale·other` into `target` and return it: one fused pass where the library has one.

    >>> add(np.ones(2), np.ones(2), 0.5)
    array([1.5, 1.5])
    """
    if isinstance(target, np.ndarray) and target.ndim == 1 and target.size > BLOCK:
        on_blocks(lambda part: _add(target[part], other[part], scale), target.size)  # without a copy of all of them
        return target
    return _add(target, other, scale) if isinstance(target, np.ndarray) else target.add_(other, alpha=scale)


def _add(target: Array, other: Array, scale: float) -> Array:
    target += scale * other if scale != 1 else other
    return target


def blend(target: Array, other: Array, keep: float) -> Array:
    """Write `keep·target + (1 - keep)·other` into `target` and return it.

    >>> blend(np.zeros(1), np.ones(1), 0.9)
    array([0.1])
    """
    target *= keep
    return add(target, other, 1 - keep)


def at_least(name: str, value: float, low: float, below: float = float("inf")) -> None:
    """Refuse a setting outside [low, below).

    >>> at_least("Adam.beta1", 1.0, 0, below=1)
    Traceback (most recent call last):
    fedloom.core.errors.ConfigError: Adam.beta1 must be at least 0 and below 1, got 1.0.
    """
    if not low <= value < below:
        raise ConfigError(f"{name} must be at least {low:g} and below {below:g}, got {value}.")
