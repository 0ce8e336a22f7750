"""How sure a figure is: a bootstrap over one party's own held-out examples, which do not leave it."""

from typing import Any

import numpy as np

from .core.examples import Examples
from .core.layout import Vector
from .core.model import Model
from .core.rng import stream
from .report.bootstrap import interval


def bootstrap(
    model: Model, vector: Vector, data: Examples, figure: str, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return (value, low, high) of a figure: 95 % percentile bootstrap over `data`, the same for the same seed."""
    outputs = model.predict(model.load(vector), data.inputs)
    drawn = stream(seed, "bootstrap")(figure)
    scores = _losses(outputs, data.targets) if figure == "loss" else outputs
    found = interval(scores, data.targets, figure, generator=drawn, resamples=resamples)
    return found.value, found.low, found.high


def _losses(outputs: Any, targets: Any) -> Any:
    if outputs.ndim == 1:
        return (outputs - targets) ** 2
    return -np.log(np.clip(outputs[np.arange(len(targets)), targets], 1e-12, 1))
